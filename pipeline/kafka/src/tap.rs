//! The consumer that fetches for all lanes of a process: each record that several of them own is read and decoded once.
//!
//! Lanes stay in groups of their own, which say what each owns; what is fetched is assigned here by hand, partition by partition, as
//! lanes claim and lose them. A lane that comes to a partition that others have read further reads it by its own consumer until it has
//! caught up.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError as RdError;
use rdkafka::message::Message;
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::watch;
use weir_engine::tap::{Offered, Processors, Reading, STALLS_EVERY, SharedRing, Wanted};
use weir_engine::{Partition, SourceError, TapLimits};

use crate::chunk::Chunk;
use crate::client::{self, KafkaOptions};
use crate::decoder::Decoder;
use crate::ends::Ends;
use crate::error::{During, KafkaError};
use crate::poll::{PATIENCE, Trouble};
use crate::stale::Stale;
use crate::topic_partition::TopicPartition;

/// Records gathered of all partitions before they are handed over.
const GATHERED_RECORDS: usize = 4000;

/// Bytes gathered of all partitions before they are handed over; one record may exceed it.
const GATHERED_BYTES: usize = 2 << 20;

/// So many records are worth the way to the thread that decodes.
const DECODED_BESIDE: usize = 200;

const POLL: Duration = Duration::from_millis(50);

/// How often the thread looks for offsets behind the last record that hold no record: commit markers, aborted records.
const POSITIONS_EVERY: Duration = Duration::from_millis(100);

/// The reader of a process.
pub struct KafkaTap {
    pub(crate) options: KafkaOptions,
    pub(crate) ring: Arc<SharedRing>,
    pub(crate) ends: Arc<Ends>,
    is_over: Arc<AtomicBool>,
}

impl KafkaTap {
    /// Starts a thread that fetches what lanes come to own, until this is dropped. `group` is a name that brokers let these clients use;
    /// it is never joined. `member` tells this process from others: assignors go by it, so that all groups give a process the same
    /// partitions. To be called within a runtime.
    pub fn start(
        options: &KafkaOptions,
        group: &str,
        member: &str,
        limits: TapLimits,
    ) -> Result<Arc<Self>, KafkaError> {
        const ACTION: &str = "starting to fetch";
        let (ring, ends) = (SharedRing::new(limits), Arc::new(Ends::default()));
        let mut options = options.clone();
        options.client.entry("client.id".to_owned()).or_insert_with(|| format!("weir-{member}"));
        let config = options.shared_consumer(group);
        let consumer = BaseConsumer::from_config_and_context(&config, Context(ends.clone())).during(ACTION)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let fetcher = Fetcher {
            consumer,
            ring: ring.clone(),
            room: ring.room.subscribe(),
            processors: Processors::new(),
            runtime: Handle::current(),
            assigned: HashMap::new(),
            waiting: VecDeque::new(),
            decoder: Decoder::start(limits.keeps_text)?,
            stale: Stale::default(),
            waiting_since: None,
            is_paused: false,
            is_over: is_over.clone(),
            positions_asked_at: Instant::now(),
        };
        let thread = std::thread::Builder::new().name("fetch".to_owned()).spawn(move || fetcher.run());
        thread.map_err(|e| KafkaError::permanent(ACTION, e))?;
        Ok(Arc::new(Self { options, ring, ends, is_over }))
    }
}

impl Drop for KafkaTap {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

struct Context(Arc<Ends>);

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(level, facility, message);
    }

    fn error(&self, error: RdError, reason: &str) {
        client::report(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        self.0.take(statistics);
    }
}

impl ConsumerContext for Context {}

/// A partition that is fetched.
struct Assigned {
    partition: Partition,
    generation: u64,
    /// The next offset to be gathered.
    next: i64,
    gathered: Chunk,
}

struct Fetcher {
    consumer: BaseConsumer<Context>,
    ring: Arc<SharedRing>,
    room: watch::Receiver<()>,
    processors: Processors,
    runtime: Handle,
    assigned: HashMap<Arc<str>, HashMap<i32, Assigned>>,
    /// Chunks that there is no room for.
    waiting: VecDeque<Offered>,
    decoder: Decoder,
    stale: Stale,
    waiting_since: Option<Instant>,
    is_paused: bool,
    is_over: Arc<AtomicBool>,
    positions_asked_at: Instant,
}

impl Fetcher {
    fn run(mut self) {
        let _reading = Reading(self.ring.clone());
        while !self.is_over.load(Ordering::Relaxed) {
            if let Err(error) = self.take_up() {
                tracing::warn!(%error, "what lanes own is not fetched yet");
            }
            if self.hand_over() {
                self.waiting_since = None;
                self.pause(false);
            } else {
                // Waiting is cheaper than pausing, which throws away what was fetched, but nothing is heard of partitions' ends meanwhile.
                if self.waiting_since.get_or_insert_with(Instant::now).elapsed() < PATIENCE {
                    // A timeout is made within the runtime.
                    let changed = async { tokio::time::timeout(STALLS_EVERY, self.room.changed()).await };
                    drop(self.runtime.block_on(changed));
                    continue;
                }
                self.pause(true);
            }
            let is_much = self.gather();
            if !self.decode(is_much) {
                tracing::error!("the thread that decodes is gone");
                return;
            }
            if self.positions_asked_at.elapsed() >= POSITIONS_EVERY {
                self.positions_asked_at = Instant::now();
                self.pass();
            }
        }
    }

    /// Assigns what lanes want, and nothing else.
    fn take_up(&mut self) -> Result<(), RdError> {
        let mut wanted: BTreeMap<TopicPartition, Wanted> = BTreeMap::new();
        for one in self.ring.ring().wanted(tokio::time::Instant::now()) {
            let place = (one.partition.topic.clone(), one.partition.number);
            // A topic that was made again is wanted by its old id until every lane has heard of it.
            if wanted.get(&place).is_none_or(|other| other.generation < one.generation) {
                wanted.insert(place, one);
            }
        }
        let mut gone = Vec::new();
        for (topic, numbers) in &self.assigned {
            for (number, assigned) in numbers {
                let place = (topic.clone(), *number);
                match wanted.get(&place).is_some_and(|wanted| wanted.generation == assigned.generation) {
                    true => drop(wanted.remove(&place)),
                    false => gone.push(place),
                }
            }
        }
        if !gone.is_empty() {
            let mut list = TopicPartitionList::new();
            for (topic, number) in &gone {
                list.add_partition(topic, *number);
            }
            self.consumer.incremental_unassign(&list)?;
            for (topic, number) in gone {
                self.assigned.get_mut(&topic).map(|numbers| numbers.remove(&number));
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let mut new = TopicPartitionList::new();
        for ((topic, number), Wanted { from, .. }) in &wanted {
            new.add_partition_offset(topic, *number, Offset::Offset(*from))?;
        }
        // Without a pause that it may have had before.
        self.consumer.resume(&new)?;
        self.consumer.incremental_assign(&new)?;
        self.stale.note(wanted.keys(), self.consumer.position().ok().as_ref());
        for ((topic, number), Wanted { partition, generation, from }) in wanted {
            let assigned = Assigned { partition, generation, next: from, gathered: Chunk::default() };
            self.assigned.entry(topic).or_default().insert(number, assigned);
        }
        if self.is_paused {
            // Else it alone would be read on and on, while there is no room.
            self.consumer.pause(&new)?;
        }
        Ok(())
    }

    /// Takes what was fetched: as much as makes a hand-over, or is there. Whether it is much.
    fn gather(&mut self) -> bool {
        // What is decoded meanwhile does not wait for more.
        let mut wait = if self.decoder.is_at_work() { Duration::ZERO } else { POLL };
        let (mut records, mut bytes) = (0, 0);
        while records < GATHERED_RECORDS && bytes < GATHERED_BYTES {
            match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    let of_topic = self.assigned.get_mut(message.topic());
                    let assigned = of_topic.and_then(|numbers| numbers.get_mut(&message.partition()));
                    if let Some(assigned) = assigned.filter(|assigned| assigned.next <= message.offset()) {
                        assigned.next = message.offset() + 1;
                        if !self.stale.is_empty() {
                            self.stale.forget(message.topic(), message.partition());
                        }
                        records += 1;
                        bytes += assigned.gathered.push(&assigned.partition, &message);
                    }
                }
                Some(Err(error)) => self.fail(error),
            }
            wait = Duration::ZERO;
        }
        records >= DECODED_BESIDE
    }

    /// Decodes what was gathered: much of it beside the next gathering, which waits for nothing then; else at once. `false` if that cannot be any
    /// more.
    fn decode(&mut self, is_much: bool) -> bool {
        let Some(decoded) = self.decoder.take() else { return false };
        self.waiting.extend(decoded);
        let assigned = self.assigned.values_mut().flat_map(HashMap::values_mut);
        let gathered = assigned
            .filter(|assigned| !assigned.gathered.is_empty())
            .map(|assigned| (assigned.partition.clone(), assigned.generation, assigned.gathered.take()));
        match is_much {
            true => self.decoder.give(gathered.collect()),
            false => {
                self.waiting.extend(gathered.map(|some| self.decoder.decode(some)));
                true
            }
        }
    }

    /// Hands over as much as there is room for; `false` when some has to wait.
    fn hand_over(&mut self) -> bool {
        self.room.borrow_and_update();
        self.ring.offer(&mut self.processors, &mut self.waiting)
    }

    fn pause(&mut self, pause: bool) {
        if self.is_paused == pause {
            return;
        }
        let mut list = TopicPartitionList::new();
        for (topic, numbers) in &self.assigned {
            for number in numbers.keys() {
                list.add_partition(topic, *number);
            }
        }
        let done = if pause { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        if let Err(error) = done {
            tracing::warn!(%error, pause, "pausing or resuming failed");
        }
        self.is_paused = pause;
    }

    /// Tells the ring the client's position where it is beyond the last record: commit markers and aborted records lie between.
    /// A lane that went on before them would seem to have missed what retention removes.
    fn pass(&mut self) {
        let Ok(positions) = self.consumer.position() else { return };
        let mut is_news = false;
        for element in positions.elements() {
            let of_topic = self.assigned.get_mut(element.topic());
            let Some(assigned) = of_topic.and_then(|numbers| numbers.get_mut(&element.partition())) else { continue };
            if self.stale.hides(element.topic(), element.partition(), element.offset()) {
                continue;
            }
            let Offset::Offset(offset) = element.offset() else { continue };
            // Not while chunks of it wait for room.
            if self.ring.ring().pass(&assigned.partition, assigned.generation, assigned.next..offset) {
                assigned.next = offset;
                is_news = true;
            }
        }
        if is_news {
            self.ring.news.send_replace(());
        }
    }

    fn fail(&mut self, error: RdError) {
        match Trouble::of(error) {
            None => return,
            Some(Trouble::OutOfRange) => self.ring.ring().out_of_range(tokio::time::Instant::now()),
            Some(Trouble::Damaged(error)) => {
                // The lane whose record it is meets it by its own consumer, and stops alone.
                tracing::warn!(%error, "each lane reads for itself");
                self.ring.ring().detach_all(tokio::time::Instant::now());
            }
            Some(Trouble::Permanent(error)) => self.ring.ring().fail(&SourceError::from(error)),
        }
        self.ring.news.send_replace(());
    }
}
