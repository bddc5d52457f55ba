//! Topics read from end to end, without a group: for the publisher's progress, and as the reference of `weir verify`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError as RdError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::Offset;
use tokio::sync::mpsc;
use weir_engine::{Partition, Record};

use crate::chunk::Chunk;
use crate::client::{self, CALL_TIMEOUT, KafkaOptions, Quiet};
use crate::error::{During, KafkaError};
use crate::topic_ids::topic_ids;

const ACTION: &str = "reading topics";

/// Without a record or the end of a partition for so long, reading counts as failed.
const SILENCE: Duration = Duration::from_secs(60);

/// Chunks of records between the reader and the receiver.
const CHUNKS_WAITING: usize = 4;

impl ConsumerContext for Quiet {}

/// Where each partition begins and ends, for those who read committed.
#[derive(Debug, Clone)]
pub struct TopicLog {
    kafka: KafkaOptions,
    ranges: BTreeMap<Partition, (i64, i64)>,
}

impl TopicLog {
    /// Asks for the ends of all partitions of these topics; those that are not there are left out.
    pub async fn open(kafka: &KafkaOptions, topics: &[&str]) -> Result<Self, KafkaError> {
        let (kafka, topics) = (kafka.clone(), topics.iter().map(|topic| (*topic).to_owned()).collect());
        let opening = tokio::task::spawn_blocking(move || Self::open_blocking(kafka, &topics));
        opening.await.map_err(|e| KafkaError::unavailable(ACTION, e))?
    }

    pub(crate) fn open_blocking(kafka: KafkaOptions, topics: &BTreeSet<String>) -> Result<Self, KafkaError> {
        const ACTION: &str = "asking for the topics' ends";
        let reader = reader(&kafka)?;
        let metadata = client::metadata(&reader).during(ACTION)?;
        let cluster = reader.client().fetch_cluster_id(CALL_TIMEOUT);
        let cluster = cluster.ok_or_else(|| KafkaError::unavailable(ACTION, "no broker answers"))?;
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let ids = topic_ids(reader.client(), &names, CALL_TIMEOUT)?;
        let mut ranges = BTreeMap::new();
        for topic in metadata.topics() {
            let Some(id) = ids.get(topic.name()) else { continue };
            let (source, name): (Arc<str>, Arc<str>) = (format!("{cluster}/{id}").into(), topic.name().into());
            let places: Vec<(&str, i32)> = topic.partitions().iter().map(|p| (topic.name(), p.id())).collect();
            for ((_, number), ends) in places.iter().zip(client::watermarks(&reader, &places).during(ACTION)?) {
                let partition = Partition { source: source.clone(), topic: name.clone(), number: *number };
                ranges.insert(partition, ends);
            }
        }
        Ok(Self { kafka, ranges })
    }

    /// The same topics as they are now.
    pub async fn again(&self) -> Result<Self, KafkaError> {
        let topics: BTreeSet<&str> = self.ranges.keys().map(|partition| &*partition.topic).collect();
        Self::open(&self.kafka, &Vec::from_iter(topics)).await
    }

    /// Low and high watermark of each partition.
    #[must_use]
    pub fn ranges(&self) -> &BTreeMap<Partition, (i64, i64)> {
        &self.ranges
    }

    /// Partition and offset of the event at a position of the event store. `appended_at` (milliseconds since 1970) is the
    /// timestamp of its record: reading begins there, and ends at a higher position, since positions rise in each partition.
    pub async fn find(&self, position: i64, appended_at: i64) -> Result<Option<(Partition, i64)>, KafkaError> {
        let log = self.clone();
        let finding = tokio::task::spawn_blocking(move || log.find_blocking(position, appended_at));
        finding.await.map_err(|e| KafkaError::unavailable(ACTION, e))?
    }

    fn find_blocking(&self, position: i64, appended_at: i64) -> Result<Option<(Partition, i64)>, KafkaError> {
        #[derive(serde::Deserialize)]
        struct Placed {
            position: Option<i64>,
        }
        let mut times = TopicPartitionList::new();
        for partition in self.ranges.keys() {
            let at = Offset::Offset(appended_at);
            times.add_partition_offset(&partition.topic, partition.number, at).during(ACTION)?;
        }
        let starts = reader(&self.kafka)?.offsets_for_times(times, CALL_TIMEOUT).during(ACTION)?;
        let mut found = None;
        for element in starts.elements() {
            let Offset::Offset(start) = element.offset() else { continue };
            let mut one = self.clone();
            one.ranges.retain(|p, _| *p.topic == *element.topic() && p.number == element.partition());
            one.ranges.values_mut().for_each(|(low, _)| *low = start.max(*low));
            let ends = one.ranges.iter().map(|(partition, (_, high))| (partition.clone(), *high)).collect();
            one.each(&ends, |partition, message| {
                let placed = serde_json::from_slice(message.payload().unwrap_or_default());
                let Some(here) = placed.ok().and_then(|placed: Placed| placed.position) else { return true };
                if here == position {
                    found = Some((partition.clone(), message.offset()));
                }
                here < position
            })?;
            if found.is_some() {
                break;
            }
        }
        Ok(found)
    }

    /// A partition that has a committed record at or after its start. Offsets alone do not tell: commit markers take some too.
    pub async fn first_unread(&self, starts: BTreeMap<Partition, i64>) -> Result<Option<Partition>, KafkaError> {
        let mut rest = self.clone();
        for (partition, (low, _)) in &mut rest.ranges {
            *low = starts.get(partition).copied().unwrap_or(*low).max(*low);
        }
        let looking = tokio::task::spawn_blocking(move || {
            let mut found = None;
            let ends = rest.ranges.iter().map(|(partition, (_, high))| (partition.clone(), *high)).collect();
            rest.each(&ends, |partition, _| {
                found = Some(partition.clone());
                false
            })?;
            Ok(found)
        });
        looking.await.map_err(|e| KafkaError::unavailable(ACTION, e))?
    }

    /// Every committed record from some offsets (a partition without one: from its beginning) to below others, in order within
    /// each partition, in chunks. Ends with the channel, or with an error.
    #[must_use]
    pub fn read(
        &self,
        from: &BTreeMap<Partition, i64>,
        below: &BTreeMap<Partition, i64>,
    ) -> mpsc::Receiver<Result<Vec<Record>, KafkaError>> {
        let (sender, receiver) = mpsc::channel(CHUNKS_WAITING);
        let (mut log, below) = (self.clone(), below.clone());
        for (partition, (low, _)) in &mut log.ranges {
            *low = from.get(partition).copied().unwrap_or(*low).max(*low);
        }
        tokio::task::spawn_blocking(move || {
            let mut chunk = Chunk::default();
            let read = log.each(&below, |partition, message| {
                chunk.push(partition, message);
                // A taker that went away has its reasons.
                if chunk.is_full() { sender.blocking_send(Ok(chunk.take())).is_ok() } else { true }
            });
            match read {
                Ok(()) => drop(sender.blocking_send(Ok(chunk.take()))),
                Err(error) => drop(sender.blocking_send(Err(error))),
            }
        });
        receiver
    }

    /// Hands over each committed record below these offsets until `take` has had enough. Blocks. Partitions end where the
    /// fetcher says so: with a commit marker or an aborted transaction there is no last record to wait for.
    pub(crate) fn each(
        &self,
        below: &BTreeMap<Partition, i64>,
        mut take: impl FnMut(&Partition, &BorrowedMessage<'_>) -> bool,
    ) -> Result<(), KafkaError> {
        let reader = reader(&self.kafka)?;
        let topics: BTreeSet<&Arc<str>> = self.ranges.keys().map(|partition| &partition.topic).collect();
        // One topic at a time: the end of a partition is told without its topic's name.
        for topic in topics {
            let mut open: BTreeMap<i32, (&Partition, i64)> = BTreeMap::new();
            let mut list = TopicPartitionList::new();
            for (partition, (low, high)) in self.ranges.iter().filter(|(partition, _)| partition.topic == *topic) {
                let end = below.get(partition).copied().unwrap_or(0).min(*high);
                if *low < end {
                    open.insert(partition.number, (partition, end));
                    list.add_partition_offset(topic, partition.number, Offset::Offset(*low)).during(ACTION)?;
                }
            }
            if open.is_empty() {
                continue;
            }
            reader.assign(&list).during(ACTION)?;
            if !drain(&reader, &mut open, &mut take)? {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Reads one topic's partitions to their ends; `false` when the taker has had enough.
fn drain(
    reader: &BaseConsumer<Quiet>,
    open: &mut BTreeMap<i32, (&Partition, i64)>,
    take: &mut impl FnMut(&Partition, &BorrowedMessage<'_>) -> bool,
) -> Result<bool, KafkaError> {
    let mut heard = Instant::now();
    while !open.is_empty() {
        match reader.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                heard = Instant::now();
                let place = open.get(&message.partition()).copied();
                let Some((partition, end)) = place.filter(|(p, _)| *p.topic == *message.topic()) else { continue };
                if message.offset() < end && !take(partition, &message) {
                    return Ok(false);
                }
                if message.offset() + 1 >= end {
                    open.remove(&message.partition());
                }
            }
            Some(Err(RdError::PartitionEOF(number))) => {
                heard = Instant::now();
                open.remove(&number);
            }
            Some(Err(error)) if is_damage(&error) => return Err(KafkaError::permanent(ACTION, error)),
            Some(Err(error)) => tracing::debug!(%error, "reading topics"),
            None if heard.elapsed() > SILENCE => {
                return Err(KafkaError::unavailable(ACTION, "nothing heard of the brokers for a minute"));
            }
            None => {}
        }
    }
    Ok(true)
}

/// A batch that cannot be read; the client would go on behind it.
pub(crate) fn is_damage(error: &RdError) -> bool {
    matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::BadMessage | RDKafkaErrorCode::BadCompression))
}

pub(crate) fn reader(kafka: &KafkaOptions) -> Result<BaseConsumer<Quiet>, KafkaError> {
    let mut config = kafka.reader();
    // It is never joined; librdkafka wants a name.
    config.set("group.id", "weir-reader").set("auto.offset.reset", "earliest");
    // A replica that lags would end too early.
    config.set("client.rack", "");
    BaseConsumer::from_config_and_context(&config, Quiet).during("connecting to Kafka")
}
