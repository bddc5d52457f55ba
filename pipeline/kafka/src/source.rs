//! Topics as a lane's source: partitions by consumer group, offsets by the ledger.
//!
//! The group says who reads a partition, the ledger says from where; the group's own offsets are written for lag displays and
//! never read. A thread of its own polls the group's consumer (`poll.rs`); what it says arrives here in order. Records come from the
//! consumer of the process (`tap.rs`), or, of partitions that others have read further, from the group's own consumer.

mod reading;
mod refusal;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use weir_engine::tap::LaneId;
use weir_engine::{Partition, Source, SourceError, SourceEvent, Span, Started};

use crate::chunk::Chunk;
use crate::client::{self, CALL_TIMEOUT};
use crate::error::{During, KafkaError};
use crate::poll::{CHUNKS_WAITING, Context, Poller, PollerCommand, PollerEvent, Shared};
use crate::stale::Stale;
use crate::tap::KafkaTap;
use crate::topic_ids::topic_ids;
use crate::topic_partition::TopicPartition;

use refusal::refusal;

/// How often the topics' ids are looked at: librdkafka goes on reading a topic that was deleted and made again as if nothing
/// had happened.
const IDS_EVERY: Duration = Duration::from_secs(5);

/// Before ids are asked for again that could not be had.
const IDS_AGAIN: Duration = Duration::from_secs(1);

/// One lane's view of the topics.
pub struct KafkaSource {
    tap: Arc<KafkaTap>,
    /// This lane in the tap's ring.
    id: LaneId,
    news: watch::Receiver<()>,
    /// `None` once closed.
    consumer: Option<Arc<BaseConsumer<Context>>>,
    polling: Option<std::thread::JoinHandle<()>>,
    shared: Arc<Shared>,
    said: mpsc::Receiver<PollerEvent>,
    asks: mpsc::Sender<PollerCommand>,
    lane: String,
    /// Assigned, but whose topic's id is not known yet.
    arriving: BTreeSet<TopicPartition>,
    /// Ids that are on the way.
    asking: Option<JoinHandle<Result<Ids, KafkaError>>>,
    asked_at: Instant,
    /// To be said next.
    pending: VecDeque<SourceEvent>,
    owned: HashMap<TopicPartition, Owned>,
    /// Partitions that the polling thread is to stop reading, before it starts those of `to_start`.
    to_stop: Vec<TopicPartition>,
    to_start: Vec<TopicPartition>,
    /// Whether the last event came from the polling thread: the next one is taken from the tap first, so that they take turns.
    was_said: bool,
}

struct Owned {
    partition: Partition,
    read: ReadBy,
    /// The next offset to be handed on.
    next: i64,
}

/// Whose records of a partition are handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadBy {
    /// None: it is not claimed, or its start is on the way.
    None,
    /// The tap's.
    Tap,
    /// The lane's own consumer's, from this generation on: what it read before is not meant any more.
    OwnConsumer(u64),
}

struct Ids {
    cluster: String,
    topics: HashMap<String, String>,
}

impl KafkaSource {
    /// Joins the lane's group; partitions arrive through [`Source::next`].
    pub fn open(tap: &Arc<KafkaTap>, lane: &str, group: &str, topics: &[&str]) -> Result<Self, KafkaError> {
        const ACTION: &str = "joining the consumer group";
        let shared = Arc::new(Shared::new(lane));
        let config = tap.options.lane_consumer(group);
        let consumer = BaseConsumer::from_config_and_context(&config, Context(shared.clone())).during(ACTION)?;
        consumer.subscribe(topics).during(ACTION)?;
        let consumer = Arc::new(consumer);
        let (sender, said) = mpsc::channel(CHUNKS_WAITING);
        let (asks, asked) = mpsc::channel(16);
        let poller = Poller {
            consumer: consumer.clone(),
            shared: shared.clone(),
            said: sender,
            asked,
            started: HashMap::new(),
            generation: 0,
            chunk: Chunk::default(),
            waiting_since: None,
            paused: false,
            passed: HashMap::new(),
            stale: Stale::default(),
            positions_asked_at: Instant::now(),
        };
        let thread = std::thread::Builder::new().name(format!("poll {lane}")).spawn(move || poller.run());
        let (id, news) = (tap.ring.ring().add(lane, tokio::time::Instant::now()), tap.ring.news.subscribe());
        Ok(Self {
            tap: tap.clone(),
            id,
            news,
            consumer: Some(consumer),
            polling: Some(thread.map_err(|e| KafkaError::permanent(ACTION, e))?),
            shared,
            said,
            asks,
            lane: lane.to_owned(),
            arriving: BTreeSet::new(),
            asking: None,
            asked_at: Instant::now(),
            pending: VecDeque::new(),
            owned: HashMap::new(),
            to_stop: Vec::new(),
            to_start: Vec::new(),
            was_said: false,
        })
    }

    /// Nothing of these is wanted of the tap any more.
    fn leave(&self, partitions: &[Partition]) {
        self.tap.ring.ring().leave(self.id, partitions, tokio::time::Instant::now());
        self.tap.ring.room.send_replace(());
    }

    fn of(&mut self, partition: &Partition) -> Option<&mut Owned> {
        self.owned.get_mut(&Self::place(partition)).filter(|owned| owned.partition == *partition)
    }

    fn place(partition: &Partition) -> TopicPartition {
        (partition.topic.clone(), partition.number)
    }

    fn consumer(&self) -> Result<Arc<BaseConsumer<Context>>, KafkaError> {
        self.consumer.clone().ok_or_else(|| KafkaError::permanent("consuming", "the consumer is closed"))
    }

    /// Asks for the ids of all topics that this lane has to do with, after a while.
    fn ask_for_ids(&mut self, after: Duration) -> Result<(), KafkaError> {
        let consumer = self.consumer()?;
        let topics: BTreeSet<Arc<str>> =
            self.arriving.iter().chain(self.owned.keys()).map(|(topic, _)| topic.clone()).collect();
        self.asked_at = Instant::now();
        self.asking = Some(tokio::spawn(async move {
            tokio::time::sleep(after).await;
            ids_of(consumer, topics).await
        }));
        Ok(())
    }

    /// Assigns the partitions that waited for these ids, and revokes those of a topic that was deleted and made again.
    fn take_ids(&mut self, ids: &Ids) {
        let source = |topic: &str| ids.topics.get(topic).map(|id| Arc::from(format!("{}/{id}", ids.cluster)));
        let mut gone = Vec::new();
        for (place, owned) in &self.owned {
            if source(&place.0).is_some_and(|source: Arc<str>| source != owned.partition.source) {
                tracing::warn!(lane = self.lane, partition = %owned.partition, "the topic was deleted and made again");
                gone.push(owned.partition.clone());
                self.arriving.insert(place.clone());
            }
        }
        self.owned.retain(|_, owned| !gone.contains(&owned.partition));
        if !gone.is_empty() {
            self.leave(&gone);
            self.pending.push_back(SourceEvent::Revoked(gone));
        }
        let mut partitions = Vec::new();
        self.arriving.retain(|(topic, number)| {
            let Some(source) = source(topic) else { return true };
            let partition = Partition { source, topic: topic.clone(), number: *number };
            let owned = Owned { partition: partition.clone(), read: ReadBy::None, next: 0 };
            self.owned.insert((topic.clone(), *number), owned);
            partitions.push(partition);
            false
        });
        if !partitions.is_empty() {
            self.pending.push_back(SourceEvent::Assigned(partitions));
        }
    }

    fn take(&mut self, said: PollerEvent) -> Result<Option<SourceEvent>, SourceError> {
        match said {
            PollerEvent::Assigned(places) => {
                self.arriving.extend(places);
                if !self.arriving.is_empty() {
                    self.ask_for_ids(Duration::ZERO)?;
                }
                Ok(None)
            }
            PollerEvent::Revoked(places) => {
                self.arriving.retain(|place| !places.contains(place));
                let gone = places.iter().filter_map(|place| self.owned.remove(place));
                let gone: Vec<_> = gone.map(|owned| owned.partition).collect();
                self.leave(&gone);
                Ok(Some(SourceEvent::Revoked(gone)))
            }
            PollerEvent::Records { generation, records } => Ok(self.take_own(generation, records)),
            PollerEvent::Passed { generation, mut offsets } => {
                offsets.retain(|(partition, offset)| {
                    let owned = self.of(partition).filter(|owned| owned.next < *offset);
                    let Some(owned) = owned.filter(|owned| owned.is_read_by_own_consumer_in(generation)) else {
                        return false;
                    };
                    owned.next = *offset;
                    true
                });
                self.join(offsets.iter().map(|(partition, _)| partition.clone()).collect());
                Ok((!offsets.is_empty()).then_some(SourceEvent::Passed(offsets)))
            }
            PollerEvent::OutOfRange => {
                self.ask_for_ids(Duration::ZERO)?;
                let read = self.owned.values().filter(|owned| matches!(owned.read, ReadBy::OwnConsumer(_)));
                let read: Vec<Partition> = read.map(|owned| owned.partition.clone()).collect();
                Ok((!read.is_empty()).then_some(SourceEvent::OutOfRange(read)))
            }
            PollerEvent::Failed(error) => Err(error.into()),
        }
    }

    /// The poller hands over as many as it has; what is more than asked for comes next.
    fn at_most(&mut self, records_max: usize, event: SourceEvent) -> SourceEvent {
        let SourceEvent::Records(mut records) = event else { return event };
        if records.len() > records_max {
            self.pending.push_front(SourceEvent::Records(records.split_off(records_max)));
        }
        SourceEvent::Records(records)
    }

    /// Low and high watermark of each, for those who read committed.
    async fn watermarks(&self, places: Vec<TopicPartition>) -> Result<Vec<(i64, i64)>, KafkaError> {
        const ACTION: &str = "asking for partitions' ends";
        let (consumer, count) = (self.consumer()?, places.len());
        let asking = tokio::task::spawn_blocking(move || {
            let places: Vec<(&str, i32)> = places.iter().map(|(topic, number)| (&**topic, *number)).collect();
            client::watermarks(&consumer, &places)
        });
        let answers = asking.await.map_err(|e| KafkaError::unavailable(ACTION, e))?.during(ACTION)?;
        match answers.len() == count {
            true => Ok(answers),
            false => Err(KafkaError::unavailable(ACTION, "not all were told")),
        }
    }
}

#[async_trait]
impl Source for KafkaSource {
    async fn next(&mut self, records_max: usize, wait: Duration) -> Result<SourceEvent, SourceError> {
        if self.shared.handover.must_commit() {
            return Ok(SourceEvent::Full);
        }
        if let Some(event) = self.pending.pop_front() {
            return Ok(self.at_most(records_max, event));
        }
        let handover = self.shared.clone();
        tokio::select! {
            told = self.tell_poller() => told?,
            // The polling thread waits for this lane, and answers nothing meanwhile.
            () = handover.handover.asked() => return Ok(SourceEvent::Idle),
        }
        if self.asking.is_none() && self.asked_at.elapsed() >= IDS_EVERY && !self.owned.is_empty() {
            self.ask_for_ids(Duration::ZERO)?;
        }
        self.news.borrow_and_update();
        // What the group says, and what ids are, is heard however much there is to read.
        let is_asked = self.asking.as_ref().is_some_and(JoinHandle::is_finished);
        if (std::mem::take(&mut self.was_said) || self.said.is_empty())
            && !is_asked
            && let Some(event) = self.take_shared(records_max)?
        {
            return Ok(event);
        }
        // Whatever is dropped here leaves its place as it was.
        let asking = async {
            match &mut self.asking {
                Some(asking) => asking.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            said = self.said.recv() => match said {
                Some(said) => {
                    self.was_said = true;
                    let event = self.take(said)?.unwrap_or(SourceEvent::Idle);
                    Ok(self.at_most(records_max, event))
                }
                None => Err(KafkaError::permanent("consuming", "the polling thread ended").into()),
            },
            ids = asking => {
                self.asking = None;
                let ids = ids.map_err(|e| KafkaError::unavailable("asking for topic ids", e)).and_then(|ids| ids);
                match ids {
                    Ok(ids) => self.take_ids(&ids),
                    Err(error) => tracing::debug!(lane = self.lane, %error, "no topic ids"),
                }
                if !self.arriving.is_empty() {
                    self.ask_for_ids(IDS_AGAIN)?;
                }
                Ok(self.pending.pop_front().unwrap_or(SourceEvent::Idle))
            }
            () = self.shared.handover.asked() => Ok(SourceEvent::Idle),
            // The sender lives as long as the tap, which this lane holds.
            _ = self.news.changed() => Ok(SourceEvent::Idle),
            () = tokio::time::sleep(wait) => Ok(SourceEvent::Idle),
        }
    }

    async fn start(&mut self, positions: &[(Partition, Option<i64>)]) -> Result<Vec<Started>, SourceError> {
        let mut begun = Vec::with_capacity(positions.len());
        let is_ours = |partition: &Partition| {
            self.owned.get(&Self::place(partition)).is_some_and(|owned| owned.partition == *partition)
        };
        let ours: Vec<_> = positions.iter().filter(|(partition, _)| is_ours(partition)).collect();
        let ends = self.watermarks(ours.iter().map(|(partition, _)| Self::place(partition)).collect()).await?;
        // Read before the restart, and left over: no longer meant.
        for event in &mut self.pending {
            if let SourceEvent::Records(records) = event {
                records.retain(|record| !ours.iter().any(|(partition, _)| *partition == record.partition));
            }
        }
        let mut by_itself = Vec::new();
        for ((partition, next), (low, high)) in ours.into_iter().zip(ends) {
            if let Some(reason) = refusal(&self.lane, partition, *next, low, high) {
                begun.push(Started::Refused { partition: partition.clone(), reason });
                continue;
            }
            let (place, offset) = (Self::place(partition), next.unwrap_or(low));
            let is_shared = self.tap.ring.ring().attach(self.id, partition, offset, tokio::time::Instant::now());
            let ends = if is_shared { &self.tap.ends } else { &self.shared.ends };
            ends.starts_with(&place, high);
            if let Some(owned) = self.owned.get_mut(&place) {
                (owned.next, owned.read) = (offset, if is_shared { ReadBy::Tap } else { ReadBy::None });
            }
            if !is_shared {
                by_itself.push(place.clone());
                self.to_start.push(place);
            }
            begun.push(Started::At { partition: partition.clone(), offset });
        }
        self.tap.ring.room.send_replace(());
        self.tell_poller().await?;
        // Without those that were revoked meanwhile.
        by_itself.retain(|place| self.owned.get(place).is_none_or(|owned| owned.read == ReadBy::None));
        begun.retain(|begun| match begun {
            Started::At { partition, .. } => !by_itself.contains(&Self::place(partition)),
            Started::Refused { .. } => true,
        });
        Ok(begun)
    }

    async fn unclaimed(&mut self, partitions: &[Partition]) {
        self.leave(partitions);
        for partition in partitions {
            let place = Self::place(partition);
            self.to_start.retain(|other| *other != place);
            if let Some(owned) = self.of(partition) {
                owned.read = ReadBy::None;
                self.to_stop.push(place);
            }
        }
    }

    async fn end(&mut self, partition: &Partition) -> Result<i64, SourceError> {
        let place = Self::place(partition);
        let Some((next, read)) = self.owned.get(&place).map(|owned| (owned.next, owned.read)) else { return Ok(0) };
        if read == ReadBy::Tap {
            let (head, ends) = (self.tap.ring.ring().head(partition), self.tap.ends.get(&place));
            return Ok(ends.map_or(0, |ends| ends.stable).max(head.unwrap_or(0)).max(next));
        }
        let Some(ends) = self.shared.ends.get(&place) else { return Ok(next) };
        // A commit marker can end a partition: where the fetcher came to the end and nothing is on the way, the next
        // offset to be read is the end.
        let everything = ends.fetched >= ends.stable && self.said.is_empty();
        Ok(if everything { next } else { ends.stable.max(next) })
    }

    async fn close(&mut self) {
        self.tap.ring.ring().remove(self.id, tokio::time::Instant::now());
        self.tap.ring.room.send_replace(());
        self.shared.handover.close();
        self.said.close();
        let (polling, consumer) = (self.polling.take(), self.consumer.take());
        // Closing a consumer waits for the brokers.
        let closing = tokio::task::spawn_blocking(move || {
            drop(polling.map(std::thread::JoinHandle::join));
            drop(consumer);
        });
        if tokio::time::timeout(CALL_TIMEOUT, closing).await.is_err() {
            tracing::warn!(
                lane = self.lane,
                "leaving the consumer group takes too long; its session will end by itself"
            );
        }
    }

    async fn committed(&mut self, spans: &[Span]) {
        let ends = spans.iter().map(|span| (&span.partition, span.end));
        self.tap.ring.ring().release(self.id, ends, tokio::time::Instant::now());
        self.tap.ring.room.send_replace(());
        let offsets = spans.iter().map(|span| (Self::place(&span.partition), span.end)).collect();
        // Only for displays: what finds no room is written with the next batch.
        drop(self.asks.try_send(PollerCommand::CommitGroup(offsets)));
    }
}

impl Owned {
    fn is_read_by_own_consumer_in(&self, generation: u64) -> bool {
        matches!(self.read, ReadBy::OwnConsumer(from) if from <= generation)
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        self.tap.ring.ring().remove(self.id, tokio::time::Instant::now());
        self.tap.ring.room.send_replace(());
    }
}

async fn ids_of(consumer: Arc<BaseConsumer<Context>>, topics: BTreeSet<Arc<str>>) -> Result<Ids, KafkaError> {
    const ACTION: &str = "asking for topic ids";
    let asking = tokio::task::spawn_blocking(move || {
        let cluster = consumer.client().fetch_cluster_id(CALL_TIMEOUT);
        let cluster = cluster.ok_or_else(|| KafkaError::unavailable(ACTION, "no broker answers"))?;
        let names: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
        Ok(Ids { cluster, topics: topic_ids(consumer.client(), &names, CALL_TIMEOUT)? })
    });
    asking.await.map_err(|e| KafkaError::unavailable(ACTION, e))?
}
