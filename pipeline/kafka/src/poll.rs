//! The thread that polls one lane's consumer. It never waits for the lane for long: rebalances are answered and the group
//! hears from us while a sink is away (`max.poll.interval.ms` is about this thread, not about the lane).

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError as RdError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::{mpsc, oneshot};
use weir_engine::{Partition, Record, failpoint};

use crate::chunk::Chunk;
use crate::client;
use crate::ends::Ends;
use crate::error::{During, KafkaError};
use crate::handover::Handover;
use crate::log::is_damage;
use crate::stale::Stale;
use crate::topic_partition::TopicPartition;

/// Chunks that may wait for the lane.
pub(crate) const CHUNKS_WAITING: usize = 2;

/// How long the lane may leave chunks standing before fetching is paused, which throws away what was fetched and may cost a second
/// more on the way back. Rebalances wait as long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// How long leaving the group may take.
const FAREWELL: Duration = Duration::from_secs(1);

const POLL: Duration = Duration::from_millis(50);

/// How often an idle thread looks for offsets behind the last record that hold no record: commit markers, aborted records.
const POSITIONS_EVERY: Duration = Duration::from_millis(100);

/// What the thread tells the lane, in order.
#[derive(Debug)]
pub(crate) enum PollerEvent {
    /// These are ours now; they stay paused until told where to start.
    Assigned(Vec<TopicPartition>),
    /// These are no longer ours.
    Revoked(Vec<TopicPartition>),
    /// Records, and the generation in which they were read: what was read before a restart is not for the lane any more.
    Records { generation: u64, records: Vec<Record> },
    /// Everything below these offsets was handed over before, commit markers and aborted records included.
    Passed { generation: u64, offsets: Vec<(Partition, i64)> },
    /// A partition's next offset is not there: truncated by retention or by hand, or its topic was deleted.
    OutOfRange,
    /// The client cannot go on.
    Failed(KafkaError),
}

/// What the lane asks of the thread.
pub(crate) enum PollerCommand {
    /// Start, or restart, reading of these partitions at these offsets. Answers with the new generation (records of earlier ones
    /// are no longer for the lane), and with the partitions that were started, since they are still assigned.
    Start(Vec<(TopicPartition, Partition, i64)>, oneshot::Sender<Result<(u64, BTreeSet<TopicPartition>), KafkaError>>),
    /// Read no more of these: the tap reads them for this lane, or it is to claim them again.
    Stop(Vec<TopicPartition>),
    /// Commit these offsets to the consumer group, for lag displays only.
    CommitGroup(Vec<(TopicPartition, i64)>),
}

/// What callbacks leave behind, on whatever thread they run.
#[derive(Default)]
pub(crate) struct Shared {
    /// What goes to the lane after the records that were read before it.
    waiting: Mutex<Vec<PollerEvent>>,
    pub(crate) ends: Ends,
    pub(crate) handover: Handover,
    lane: String,
}

impl Shared {
    pub(crate) fn new(lane: &str) -> Self {
        Self { lane: lane.to_owned(), ..Self::default() }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<PollerEvent>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The consumer's context.
#[derive(Clone)]
pub(crate) struct Context(pub(crate) Arc<Shared>);

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(level, facility, message);
    }

    fn error(&self, error: RdError, reason: &str) {
        client::report(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        self.0.ends.take(statistics);
    }
}

impl ConsumerContext for Context {
    /// The default flow would assign at the group's offset and fetch at once; here partitions are assigned paused, at an
    /// offset that no record has, and wait for their claim in the ledger.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let places: Vec<TopicPartition> =
            list.elements().iter().map(|element| (Arc::from(element.topic()), element.partition())).collect();
        metrics::counter!("weir_kafka_rebalances_total", "lane" => self.0.lane.clone()).increment(1);
        let (done, said) = if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            let placed = list.set_all_offsets(Offset::Offset(0));
            let done = placed.and_then(|()| consumer.incremental_assign(list)).and_then(|()| consumer.pause(list));
            failpoint::hit("rebalance.assigned");
            (done, PollerEvent::Assigned(places))
        } else {
            failpoint::hit("rebalance.revoked");
            // What was lost already may be another's: a commit would be refused.
            if !places.is_empty() && !consumer.assignment_lost() && self.0.handover.ask() {
                tracing::debug!(lane = self.0.lane, "committed what it held before its partitions go");
            }
            failpoint::hit("rebalance.handed_over");
            (consumer.incremental_unassign(list), PollerEvent::Revoked(places))
        };
        tracing::debug!(lane = self.0.lane, ?said, "rebalanced");
        if let Err(error) = done {
            tracing::warn!(lane = self.0.lane, %error, "a rebalance was not taken up");
        }
        self.0.waiting().push(said);
    }
}

/// What a consumer meets that others have to know of.
pub(crate) enum Trouble {
    /// A partition's next offset is not there, and which partition is not said.
    OutOfRange,
    /// A batch cannot be read; the client would go on behind it, as if nothing had been there.
    Damaged(KafkaError),
    /// The client cannot go on.
    Permanent(KafkaError),
}

impl Trouble {
    /// `None` is what passes by itself.
    pub(crate) fn of(error: RdError) -> Option<Self> {
        let code = error.rdkafka_error_code();
        if let RdError::PartitionEOF(_) = error {
            None
        } else if matches!(code, Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)) {
            Some(Self::OutOfRange)
        } else if is_damage(&error) {
            Some(Self::Damaged(KafkaError::permanent("reading a damaged batch", error)))
        } else if let RdError::MessageConsumptionFatal(_) = error {
            Some(Self::Permanent(KafkaError::permanent("consuming", error)))
        } else {
            tracing::debug!(%error, "consuming");
            None
        }
    }
}

/// The thread's state.
pub(crate) struct Poller {
    pub(crate) consumer: Arc<BaseConsumer<Context>>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) said: mpsc::Sender<PollerEvent>,
    pub(crate) asked: mpsc::Receiver<PollerCommand>,
    pub(crate) started: HashMap<Arc<str>, HashMap<i32, Partition>>,
    pub(crate) generation: u64,
    pub(crate) chunk: Chunk,
    pub(crate) waiting_since: Option<Instant>,
    pub(crate) paused: bool,
    /// Offsets that the lane knows to be passed.
    pub(crate) passed: HashMap<Partition, i64>,
    pub(crate) stale: Stale,
    pub(crate) positions_asked_at: Instant,
}

impl Poller {
    /// Until the lane is gone.
    pub(crate) fn run(mut self) {
        loop {
            while let Ok(asked) = self.asked.try_recv() {
                self.answer(asked);
            }
            if self.said.is_closed() {
                return self.leave();
            }
            if !self.hand_over() {
                // The lane has enough. Waiting a little is cheaper than pausing, which throws away what was fetched.
                let patient = self.waiting_since.get_or_insert_with(Instant::now).elapsed() < PATIENCE;
                if patient {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                }
                self.pause(true);
            } else {
                self.waiting_since = None;
                self.pause(false);
            }
            self.poll();
            if self.chunk.is_empty() && self.positions_asked_at.elapsed() >= POSITIONS_EVERY {
                self.positions_asked_at = Instant::now();
                self.pass();
            }
        }
    }

    /// Tells the lane the client's position where it is beyond the last record: commit markers and aborted records lie between.
    /// A lane that went on before them would seem to have missed what retention removes.
    fn pass(&mut self) {
        if !self.shared.waiting().is_empty() {
            return;
        }
        let Ok(positions) = self.consumer.position() else { return };
        let mut offsets = Vec::new();
        for element in positions.elements() {
            let of_topic = self.started.get(element.topic());
            let Some(partition) = of_topic.and_then(|numbers| numbers.get(&element.partition())) else { continue };
            if self.stale.hides(element.topic(), element.partition(), element.offset()) {
                continue;
            }
            let Offset::Offset(offset) = element.offset() else { continue };
            if self.passed.get(partition).is_none_or(|passed| *passed < offset) {
                offsets.push((partition.clone(), offset));
            }
        }
        if offsets.is_empty() {
            return;
        }
        let Ok(permit) = self.said.try_reserve() else { return };
        self.passed.extend(offsets.iter().cloned());
        permit.send(PollerEvent::Passed { generation: self.generation, offsets });
    }

    /// Sends on what there is; `false` when the lane has no room for it.
    fn hand_over(&mut self) -> bool {
        let mut waiting = self.shared.waiting();
        // What was read before a rebalance goes before it.
        if !self.chunk.is_empty() && (self.chunk.is_full() || !waiting.is_empty() || self.said.capacity() > 0) {
            let Ok(permit) = self.said.try_reserve() else { return !self.chunk.is_full() && waiting.is_empty() };
            permit.send(PollerEvent::Records { generation: self.generation, records: self.chunk.take() });
        }
        while !waiting.is_empty() {
            let Ok(permit) = self.said.try_reserve() else { return false };
            let said = waiting.remove(0);
            if let PollerEvent::Assigned(places) | PollerEvent::Revoked(places) = &said {
                for (topic, number) in places {
                    self.started.get_mut(topic).map(|numbers| numbers.remove(number));
                }
            }
            permit.send(said);
        }
        true
    }

    /// Polls until there is a chunk, a rebalance, or nothing for now; at least once, for callbacks run here and nowhere else.
    fn poll(&mut self) {
        let no_hurry = self.chunk.is_empty() || self.paused || self.said.capacity() == 0;
        let mut wait = if no_hurry { POLL } else { Duration::ZERO };
        loop {
            match self.consumer.poll(wait) {
                None => return,
                Some(Ok(message)) => {
                    let of_topic = self.started.get(message.topic());
                    if let Some(partition) = of_topic.and_then(|numbers| numbers.get(&message.partition())) {
                        if !self.stale.is_empty() {
                            self.stale.forget(message.topic(), message.partition());
                        }
                        self.chunk.push(partition, &message);
                    }
                }
                Some(Err(error)) => self.fail(error),
            }
            wait = Duration::ZERO;
            if self.chunk.is_full() || !self.shared.waiting().is_empty() {
                return;
            }
        }
    }

    fn fail(&mut self, error: RdError) {
        let event = match Trouble::of(error) {
            None => return,
            Some(Trouble::OutOfRange) => PollerEvent::OutOfRange,
            Some(Trouble::Damaged(error) | Trouble::Permanent(error)) => PollerEvent::Failed(error),
        };
        self.shared.waiting().push(event);
    }

    /// Leaves the group, so that others need not wait for the session's end.
    fn leave(&self) {
        self.consumer.unsubscribe();
        let started = Instant::now();
        while started.elapsed() < FAREWELL && self.consumer.assignment().is_ok_and(|list| list.count() > 0) {
            drop(self.consumer.poll(POLL));
        }
    }

    fn pause(&mut self, pause: bool) {
        if self.paused == pause {
            return;
        }
        let mut list = TopicPartitionList::new();
        for (topic, numbers) in &self.started {
            for number in numbers.keys() {
                list.add_partition(topic, *number);
            }
        }
        let done = if pause { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        if let Err(error) = done {
            tracing::warn!(lane = self.shared.lane, %error, pause, "pausing or resuming failed");
        }
        self.paused = pause;
    }

    fn answer(&mut self, asked: PollerCommand) {
        match asked {
            PollerCommand::Start(positions, answer) => {
                let started = self.start(positions);
                // A lane that went away needs no answer.
                drop(answer.send(started));
            }
            PollerCommand::Stop(places) => self.stop(&places),
            PollerCommand::CommitGroup(offsets) => {
                let Ok(assigned) = self.assigned() else { return };
                let mut list = TopicPartitionList::new();
                for ((topic, number), offset) in offsets.into_iter().filter(|(place, _)| assigned.contains(place)) {
                    drop(list.add_partition_offset(&topic, number, Offset::Offset(offset)));
                }
                if list.count() > 0
                    && let Err(error) = self.consumer.commit(&list, CommitMode::Async)
                {
                    tracing::debug!(lane = self.shared.lane, %error, "the group's offsets are late");
                }
            }
        }
    }

    fn stop(&mut self, places: &[TopicPartition]) {
        let mut list = TopicPartitionList::new();
        for (topic, number) in places {
            if let Some(partition) = self.started.get_mut(topic).and_then(|numbers| numbers.remove(number)) {
                self.chunk.retain(|read| *read != partition);
                list.add_partition(topic, *number);
            }
        }
        if list.count() > 0
            && let Err(error) = self.consumer.pause(&list)
        {
            tracing::warn!(lane = self.shared.lane, %error, "pausing failed");
        }
    }

    fn assigned(&self) -> Result<BTreeSet<TopicPartition>, RdError> {
        let assignment = self.consumer.assignment()?;
        Ok(assignment.elements().iter().map(|element| (Arc::from(element.topic()), element.partition())).collect())
    }

    fn start(
        &mut self,
        mut positions: Vec<(TopicPartition, Partition, i64)>,
    ) -> Result<(u64, BTreeSet<TopicPartition>), KafkaError> {
        const ACTION: &str = "starting partitions";
        let assigned = self.assigned().during(ACTION)?;
        // What was revoked meanwhile: the lane reads of it in its turn.
        positions.retain(|(place, ..)| assigned.contains(place));
        self.generation += 1;
        self.passed.retain(|passed, _| !positions.iter().any(|(_, partition, _)| partition == passed));
        // Read before the restart: no longer meant.
        self.chunk.retain(|read| !positions.iter().any(|(_, partition, _)| partition == read));
        if positions.is_empty() {
            return Ok((self.generation, BTreeSet::new()));
        }
        // Assigned again at their offsets. A seek would do for those that fetch already, but not for one whose offset was out of
        // range, and the client's fetching thread is not woken up for what is merely sought and resumed: it may sleep a second.
        let mut list = TopicPartitionList::new();
        for (place, _, offset) in &positions {
            list.add_partition_offset(&place.0, place.1, Offset::Offset(*offset)).during(ACTION)?;
        }
        self.consumer.incremental_unassign(&list).during(ACTION)?;
        if !self.paused {
            self.consumer.resume(&list).during(ACTION)?;
        }
        self.consumer.incremental_assign(&list).during(ACTION)?;
        self.stale.note(positions.iter().map(|(place, ..)| place), self.consumer.position().ok().as_ref());
        let mut started = BTreeSet::new();
        for ((topic, number), partition, _) in positions {
            started.insert((topic.clone(), number));
            self.started.entry(topic).or_default().insert(number, partition);
        }
        Ok((self.generation, started))
    }
}
