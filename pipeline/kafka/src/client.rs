//! How the brokers are reached: one place where every client's configuration is made.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError as RdError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;

/// How to reach the brokers. The maps take any librdkafka option by its own name, and win over what stands here.
#[derive(Debug, Clone, Default)]
pub struct KafkaOptions {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// For every client: security, names, addresses.
    pub client: BTreeMap<String, String>,
    /// For consumers.
    pub consumer: BTreeMap<String, String>,
    /// For the publisher's producer.
    pub producer: BTreeMap<String, String>,
}

/// A call to the brokers that takes longer counts as failed.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// KiB that a consumer fetches ahead of its lane; with one request's answer on top, this bounds a lane's memory (P8).
const FETCHED_AHEAD_KIB: &str = "4096";

/// KiB that the consumer shared by all lanes of a process fetches ahead.
const SHARED_FETCHED_AHEAD_KIB: &str = "16384";

/// Compressed bytes of one partition in a fetch's answer, so that the partitions advance side by side: events of one time come together
/// then, of which ClickHouse's rollups are made.
const SHARED_PARTITION_BYTES: &str = "65536";

/// Bytes of one fetch's answer, compressed: all of it is kept, uncompressed, until its last record was taken. A larger batch comes alone.
const FETCH_BYTES_MAX: &str = "4194304";

/// Bytes of the largest record that is sent. A command of 1 MiB could become 49 MB of text before the contracts counted numbers as
/// they are spelled out; events that were stored then are still to be published.
const RECORD_BYTES_MAX: usize = 64 << 20;

impl KafkaOptions {
    fn common(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("client.id", "weir");
        // A broker that was away is tried again soon.
        config.set("reconnect.backoff.max.ms", "2000").set("topic.metadata.refresh.interval.ms", "10000");
        config.set_log_level(RDKafkaLogLevel::Warning);
        extend(&mut config, &self.client);
        config
    }

    /// For questions and administration.
    pub(crate) fn admin(&self) -> ClientConfig {
        self.common()
    }

    /// For a lane: the specification's settings, and what exactness asks for.
    pub(crate) fn lane_consumer(&self, group: &str) -> ClientConfig {
        let mut config = self.reader();
        config
            .set("group.id", group)
            .set("session.timeout.ms", "30000")
            .set("heartbeat.interval.ms", "3000")
            .set("max.poll.interval.ms", "300000")
            .set("partition.assignment.strategy", "cooperative-sticky")
            // Where a lane begins stands in the ledger; an offset that the broker does not have is never skipped over.
            .set("auto.offset.reset", "error")
            .set("enable.auto.offset.store", "false")
            .set("statistics.interval.ms", "500");
        extend(&mut config, &self.consumer);
        config
    }

    /// For the lanes of a process together: one consumer fetches as far ahead as theirs would each.
    pub(crate) fn shared_consumer(&self, group: &str) -> ClientConfig {
        let mut config = self.lane_consumer(group);
        config
            .set("queued.max.messages.kbytes", SHARED_FETCHED_AHEAD_KIB)
            .set("fetch.message.max.bytes", SHARED_PARTITION_BYTES);
        extend(&mut config, &self.consumer);
        config
    }

    /// For reading partitions to their end, without a group.
    pub(crate) fn reader(&self) -> ClientConfig {
        let mut config = self.common();
        config
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("check.crcs", "true")
            .set("queued.max.messages.kbytes", FETCHED_AHEAD_KIB)
            .set("fetch.max.bytes", FETCH_BYTES_MAX)
            .set("fetch.message.max.bytes", "2097152")
            .set("fetch.queue.backoff.ms", "20")
            .set("fetch.wait.max.ms", "100");
        config
    }

    /// For the publisher: the specification's settings, in transactions.
    pub(crate) fn publisher(&self, transactional_id: &str, transaction_timeout: Duration) -> ClientConfig {
        let mut config = self.common();
        config
            .set("transactional.id", transactional_id)
            .set("transaction.timeout.ms", transaction_timeout.as_millis().to_string())
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("retries", "2147483647")
            .set("max.in.flight.requests.per.connection", "1")
            .set("compression.type", "snappy")
            .set("batch.size", "16384")
            .set("linger.ms", "5")
            // Room for the largest event that was ever let in (see `RECORD_BYTES_MAX`); usually far less is used.
            .set("queue.buffering.max.kbytes", (2 * RECORD_BYTES_MAX / 1024).to_string())
            .set("message.max.bytes", RECORD_BYTES_MAX.to_string())
            // The same key in the same partition as Java's and JavaScript's producers.
            .set("partitioner", "murmur2_random");
        extend(&mut config, &self.producer);
        config
    }
}

fn extend(config: &mut ClientConfig, options: &BTreeMap<String, String>) {
    for (name, value) in options {
        config.set(name, value);
    }
}

/// Sends librdkafka's log lines where ours go.
#[derive(Debug, Clone, Default)]
pub(crate) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: RdError, reason: &str) {
        report(&error, reason);
    }
}

/// Of what the client meets by the way, only refusals are for people: nothing but a change of settings ends them.
pub(crate) fn report(error: &RdError, reason: &str) {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL) => refused(&format!("{error}: {reason}")),
        _ => tracing::debug!(%error, reason, "librdkafka"),
    }
}

/// What the brokers say of themselves. A client that is refused hears why only when it is polled.
pub(crate) fn metadata(consumer: &BaseConsumer<Quiet>) -> Result<Metadata, RdError> {
    let found = consumer.fetch_metadata(None, CALL_TIMEOUT);
    if found.is_err() {
        drop(consumer.poll(Duration::from_millis(100)));
    }
    found
}

/// Threads that ask for watermarks at the same time: one after the other, sixty partitions would take sixty round trips.
const QUESTIONS: usize = 16;

/// The first offset and the last stable offset of each partition, in the order of `places`. Blocks.
pub(crate) fn watermarks<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    places: &[(&str, i32)],
) -> Result<Vec<(i64, i64)>, RdError> {
    let ask = |of: &[(&str, i32)]| {
        of.iter().map(|(topic, number)| consumer.fetch_watermarks(topic, *number, CALL_TIMEOUT)).collect::<Vec<_>>()
    };
    let answers = std::thread::scope(|scope| {
        let share = places.len().div_ceil(QUESTIONS).max(1);
        let asking: Vec<_> = places.chunks(share).map(|of| scope.spawn(move || ask(of))).collect();
        asking.into_iter().flat_map(|asked| asked.join().unwrap_or_default()).collect::<Vec<_>>()
    });
    answers.into_iter().collect()
}

/// Once a minute, however often it is tried.
fn refused(words: &str) {
    const SAID_EVERY: Duration = Duration::from_secs(60);
    static SAID: Mutex<Option<Instant>> = Mutex::new(None);
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.is_none_or(|at| at.elapsed() >= SAID_EVERY) {
        *said = Some(Instant::now());
        tracing::warn!("the brokers and `kafka.client` do not agree: {words}");
    }
}

/// librdkafka warns of each broker that it does not reach, again and again; a lane that waits says so itself.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(facility, "librdkafka: {message}");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => {
            tracing::debug!(facility, "librdkafka: {message}");
        }
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => tracing::trace!(facility, "librdkafka: {message}"),
    }
}
