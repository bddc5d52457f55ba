//! The stream through a real broker: publisher, decoding and routing, lanes with and without their ledger, memory, processes.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use deltalake_core::DeltaTable;
use deltalake_core::parquet::basic::{Compression, ZstdLevel};
use deltalake_core::parquet::file::properties::WriterProperties;
use deltalake_core::writer::{DeltaWriter, RecordBatchWriter};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;
use url::Url;
use weir_engine::{
    Batch, BatchLimits, Claim, Lane, Located, Partition, Record, Sink, SinkError, Source, SourceEvent, StatusBoard,
    TapLimits, run_lane,
};
use weir_history::{HistoryRoot, HistorySink, HistoryTable, rows};
use weir_kafka::{KafkaOptions, KafkaSource, KafkaTap, PublisherOptions, TopicLog, TopicSpec, Topics, publish};
use weir_model::event_type::{TOPICS, topic_for};
use weir_model::project::Units;
use weir_postgres::{
    AppendSignal, Database, EventStoreSource, Ledger, MetricsProjection, Projection, ProjectionSink,
    ReadModelsProjection, RecordPolicy,
};
use weir_tests::weir::connect;
use weir_tests::{Kafka, Postgres, binary};

use crate::fill::{database, fill, runtime};
use crate::measure::{median, pairs, round, row};
use crate::memory::Backlog;

const TRANSACTION: usize = 2000;
const PUBLISHED: i64 = 200_000;
const DRAINED: i64 = 1_000_000;
/// What one process and two read.
const SHARED: i64 = 400_000;
const LANE_EVENTS: i64 = 1_000_000;
const TURNS: usize = 3;

pub(crate) fn options(kafka: &Kafka) -> KafkaOptions {
    KafkaOptions { brokers: kafka.brokers(), ..KafkaOptions::default() }
}

/// The five topics with their sixty partitions, and the progress.
pub(crate) async fn make_topics(kafka: &Kafka, prefix: &str) {
    let partitions = [("user_events", 12), ("content_events", 24), ("learning_events", 12), ("agent_events", 6)];
    let all = partitions.into_iter().chain([("general_events", 6), ("weir_progress", 1)]);
    let specs = all.map(|(name, partitions)| TopicSpec {
        name: format!("{prefix}{name}"),
        partitions,
        replication: 1,
        // The events are of 2024, and retention goes by their own time.
        config: [("max.message.bytes", "2097152"), ("retention.ms", "-1")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
    });
    let topics = Topics::open(&options(kafka), specs.collect()).unwrap();
    let changes = topics.diff().await.unwrap();
    assert_eq!(topics.apply(&changes).await.unwrap(), []);
}

/// Publishes until a position is in the topics; events a second.
async fn publish_to(kafka: &Kafka, database: &Database, url: &str, from: i64, to: i64) -> f64 {
    let options = PublisherOptions {
        kafka: options(kafka),
        transactional_id: "bench".to_owned(),
        transaction_timeout: Duration::from_secs(30),
        records_max: TRANSACTION,
        mirror_dead_letters: false,
        takeover_after: Duration::from_secs(30),
    };
    let stop = CancellationToken::new();
    let signal = AppendSignal::start(database.clone(), stop.clone());
    let started = Instant::now();
    let running = {
        let (database, stop) = (database.clone(), stop.clone());
        let board = StatusBoard::default();
        tokio::spawn(async move { Box::pin(publish(&options, &database, &signal, &board, &stop)).await })
    };
    let client = connect(url).await;
    // Its note comes once a second: whoever waits for it measures that. Told to stop, it notes where it is.
    let position = async || -> i64 {
        let found = client.query_opt("SELECT position FROM publisher", &[]).await.unwrap();
        found.map_or(0, |row| row.get(0))
    };
    let mut seen = Vec::new();
    while seen.last().is_none_or(|(_, position)| *position < to) {
        assert!(!running.is_finished(), "the publisher stopped");
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now = position().await;
        if seen.last().is_none_or(|(_, position)| *position != now) && now > from {
            seen.push((started.elapsed().as_secs_f64(), now));
        }
    }
    stop.cancel();
    running.await.unwrap().unwrap();
    let ((began, first), (ended, last)) = (seen[0], seen[seen.len() - 1]);
    if seen.len() > 1 { (last - first) as f64 / (ended - began) } else { (to - from) as f64 / ended }
}

async fn page(url: &str, from: i64, to: i64) -> f64 {
    let client = connect(url).await;
    let sql = "SELECT id, event_id, tenant, stream_id, version, event_type, schema_version, source, event_json::text, \
               metadata::text, timestamp, recorded_at FROM events WHERE id > $1 ORDER BY id LIMIT 1000";
    let statement = client.prepare(sql).await.unwrap();
    let (started, mut at) = (Instant::now(), from);
    while at < to {
        let rows = client.query(&statement, &[&at]).await.unwrap();
        at = rows.last().unwrap().get(0);
        std::hint::black_box(rows);
    }
    (to - from) as f64 / started.elapsed().as_secs_f64()
}

/// The event store's records as the publisher has them.
async fn records(database: &Database, from: i64, to: i64) -> Vec<Record> {
    let stop = CancellationToken::new();
    let signal = AppendSignal::start(database.clone(), stop.clone());
    let mut source = EventStoreSource::open(database.clone(), signal).await.unwrap().with_headers();
    let partition = source.identity().clone();
    source.start(&[(partition, Some(from + 1))]).await.unwrap();
    let mut all = Vec::new();
    while (all.len() as i64) < to - from {
        if let SourceEvent::Records(records) = source.next(TRANSACTION, Duration::from_secs(1)).await.unwrap() {
            all.extend(records);
        }
    }
    stop.cancel();
    all.truncate((to - from) as usize);
    all
}

/// librdkafka alone: the same bytes, settings and transactions.
fn produce(kafka: &Kafka, records: &[Record]) -> f64 {
    let mut config = ClientConfig::new();
    for (name, value) in [
        ("transactional.id", "bench-floor"),
        ("acks", "all"),
        ("enable.idempotence", "true"),
        ("max.in.flight.requests.per.connection", "1"),
        ("compression.type", "snappy"),
        ("batch.size", "16384"),
        ("linger.ms", "5"),
        ("queue.buffering.max.kbytes", "32768"),
        ("partitioner", "murmur2_random"),
    ] {
        config.set(name, value);
    }
    let producer: BaseProducer = config.set("bootstrap.servers", kafka.brokers()).create().unwrap();
    let wait = Duration::from_secs(30);
    producer.init_transactions(wait).unwrap();
    let started = Instant::now();
    for batch in records.chunks(TRANSACTION) {
        producer.begin_transaction().unwrap();
        for record in batch {
            let event_type = record.headers.get("eventType").map(String::from_utf8_lossy).unwrap_or_default();
            let mut headers = OwnedHeaders::new_with_capacity(5);
            for (key, value) in record.headers.iter() {
                headers = headers.insert(Header { key, value: Some(value) });
            }
            let topic = format!("floor_{}", topic_for(&event_type));
            let mut message = BaseRecord::<str, [u8]>::to(&topic).payload(&record.payload).headers(headers);
            if let Some(key) = &record.key {
                message = message.key(key);
            }
            while let Err((error, returned)) = producer.send(message) {
                assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
                message = returned;
                producer.poll(Duration::from_millis(2));
            }
            producer.poll(Duration::ZERO);
        }
        producer.commit_transaction(wait).unwrap();
    }
    records.len() as f64 / started.elapsed().as_secs_f64()
}

/// A broker with topics, and an event store.
struct Stage {
    kafka: Kafka,
    server: Postgres,
    database: Database,
}

impl Stage {
    fn start() -> Self {
        let (kafka, server) = (Kafka::start(), Postgres::start());
        let database = runtime().block_on(async {
            make_topics(&kafka, "").await;
            database(&server.url()).await
        });
        Self { kafka, server, database }
    }

    /// With so many events in the topics.
    fn published(events: i64) -> Self {
        let stage = Self::start();
        runtime().block_on(async {
            fill(&stage.server.url(), events).await;
            publish_to(&stage.kafka, &stage.database, &stage.server.url(), 0, events).await;
        });
        stage
    }
}

pub(crate) fn publisher() {
    let (stage, runtime) = (Stage::start(), runtime());
    runtime.block_on(make_topics(&stage.kafka, "floor_"));
    let at = AtomicI64::new(0);
    let (mut published, mut floors, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..=TURNS {
        let from = at.fetch_add(PUBLISHED, Ordering::SeqCst);
        let to = from + PUBLISHED;
        let url = stage.server.url();
        runtime.block_on(fill(&url, to));
        let ours = runtime.block_on(publish_to(&stage.kafka, &stage.database, &url, from, to));
        let paging = runtime.block_on(page(&url, from, to));
        let same = runtime.block_on(records(&stage.database, from, to));
        let producing = produce(&stage.kafka, &same);
        if turn > 0 {
            published.push(ours);
            floors.push(paging.min(producing));
            ratios.push(ours / paging.min(producing));
        }
    }
    let floor = format!("{} events/s, paging or librdkafka producing, whichever is slower", round(median(floors)));
    let measured = format!("{} events/s", round(median(published)));
    row(
        "publisher, event store to committed transactions",
        &measured,
        &floor,
        &format!("{:.2}", median(ratios)),
        "≥ 0.5",
    );
}

/// Every committed record, borrowed and dropped.
fn drain(kafka: &Kafka, ends: &BTreeMap<Partition, (i64, i64)>, events: i64) -> f64 {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka.brokers())
        .set("group.id", "bench-drain")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    for (partition, (low, _)) in ends {
        list.add_partition_offset(&partition.topic, partition.number, Offset::Offset(*low)).unwrap();
    }
    let started = Instant::now();
    consumer.assign(&list).unwrap();
    let (mut count, mut bytes) = (0, 0);
    while count < events {
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            bytes += message.unwrap().payload().unwrap_or_default().len();
            count += 1;
        }
    }
    std::hint::black_box(bytes);
    events as f64 / started.elapsed().as_secs_f64()
}

/// A lane's view of the topics, alone in its process.
fn source(kafka: &Kafka, lane: &str, group: &str) -> KafkaSource {
    let (held_up_max, keeps_text) = (Duration::from_secs(1), lane.starts_with("history"));
    let limits = TapLimits { buffer_bytes: 48 << 20, held_up_max, gather: Duration::ZERO, keeps_text };
    let tap = KafkaTap::start(&options(kafka), "bench", "bench", limits).unwrap();
    KafkaSource::open(&tap, lane, group, &TOPICS).unwrap()
}

/// Through the group and the claims' start, decoded into batches.
async fn decode_and_route(kafka: &Kafka, group: &str, events: i64) -> f64 {
    let mut source = source(kafka, "bench", group);
    let (mut batch, mut count, mut started) = (Batch::default(), 0, None);
    while count + (batch.len() as i64) < events {
        match source.next(TRANSACTION, Duration::from_secs(1)).await.unwrap() {
            SourceEvent::Assigned(partitions) => {
                // Joining the group takes as long as it takes, whatever there is to read.
                started.get_or_insert_with(Instant::now);
                let positions: Vec<_> = partitions.into_iter().map(|partition| (partition, Some(0))).collect();
                positions.iter().for_each(|(partition, _)| batch.begin(partition.clone(), 0));
                source.start(&positions).await.unwrap();
            }
            SourceEvent::Rows(chunk, rows) => {
                batch.take(&chunk, rows, None);
                if batch.len() >= 4000 {
                    count += batch.len() as i64;
                    source.committed(&batch.spans()).await;
                    batch.advance();
                }
            }
            SourceEvent::Passed(_) | SourceEvent::Idle => {}
            SourceEvent::Records(_) | SourceEvent::Full => panic!("it shares the tap with no other lane"),
            SourceEvent::Revoked(_) | SourceEvent::OutOfRange(_) => panic!("nobody else reads, and nothing is removed"),
        }
    }
    let rate = events as f64 / started.unwrap().elapsed().as_secs_f64();
    source.close().await;
    rate
}

pub(crate) fn decode_route() {
    let (stage, runtime) = (Stage::published(DRAINED), runtime());
    let log = runtime.block_on(TopicLog::open(&options(&stage.kafka), &TOPICS)).unwrap();
    let mut turn = 0;
    let ours = || {
        turn += 1;
        runtime.block_on(decode_and_route(&stage.kafka, &format!("bench-{turn}"), DRAINED))
    };
    let floor = || drain(&stage.kafka, log.ranges(), DRAINED);
    pairs(TURNS, ours, floor).row("decode and route all topics", "events/s", "a bare librdkafka drain", "≥ 0.45");
}

/// A lane's work without its ledger: nothing is claimed, fenced or remembered.
struct Unfenced<P> {
    database: Database,
    projection: P,
}

fn all_claimed(partitions: &[Partition]) -> Vec<Claim> {
    let claim =
        |partition: &Partition| Claim { partition: partition.clone(), epoch: 1, next_offset: Some(0), refused: None };
    partitions.iter().map(claim).collect()
}

#[async_trait]
impl<P: Projection> Sink for Unfenced<P> {
    async fn claim(&mut self, partitions: &[Partition]) -> Result<Vec<Claim>, SinkError> {
        Ok(all_claimed(partitions))
    }

    async fn commit(&mut self, batch: &Batch) -> Result<(), SinkError> {
        let mut client = self.database.get().await?;
        let transaction = client.transaction().await.map_err(|e| SinkError::Retry(e.into()))?;
        let events: Vec<&Located> = batch.events().collect();
        self.projection.apply(&transaction, &events).await?;
        transaction.commit().await.map_err(|e| SinkError::Retry(e.into()))
    }

    async fn tick(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// History's files and commits without transactions, fences or syncing.
struct UnfencedHistory(DeltaTable);

#[async_trait]
impl Sink for UnfencedHistory {
    async fn claim(&mut self, partitions: &[Partition]) -> Result<Vec<Claim>, SinkError> {
        Ok(all_claimed(partitions))
    }

    async fn commit(&mut self, batch: &Batch) -> Result<(), SinkError> {
        let mut events: Vec<&Located> = batch.events().collect();
        events.sort_by_cached_key(|l| (l.event.event_type, l.event.timestamp.month(), l.event.timestamp));
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
        let mut writer = RecordBatchWriter::for_table(&self.0).unwrap().with_writer_properties(properties);
        for chunk in events.chunk_by(|a, b| a.event.event_type == b.event.event_type) {
            writer.write(rows::to_batch(chunk.iter().copied()).unwrap()).await.unwrap();
        }
        writer.flush_and_commit(&mut self.0).await.unwrap();
        Ok(())
    }

    async fn tick(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// Events a second until the lane has committed all of them.
async fn drive(kafka: &Kafka, name: &str, records_max: usize, mut sink: impl Sink + 'static, events: i64) -> f64 {
    let (stop, board) = (CancellationToken::new(), StatusBoard::default());
    let limits = BatchLimits { records_max, bytes_max: 64 << 20, flush_interval: Duration::from_millis(200) };
    let lane = Lane { name: name.to_owned(), limits, poll_records_max: 2000, filter: None };
    let mut source = source(kafka, name, &format!("bench-{name}"));
    let running = {
        let (board, stop) = (board.clone(), stop.clone());
        tokio::spawn(async move { Box::pin(run_lane(&lane, &mut source, &mut sink, &board, &stop)).await })
    };
    // From the first claim: joining the group takes as long as it takes.
    let claimed = || board.read().values().any(|status| status.phase == weir_engine::LanePhase::Running);
    while !claimed() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let started = Instant::now();
    while board.read().values().next().is_none_or(|status| (status.applied as i64) < events) {
        assert!(!running.is_finished(), "the lane stopped");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let rate = events as f64 / started.elapsed().as_secs_f64();
    stop.cancel();
    running.await.unwrap().unwrap();
    rate
}

pub(crate) fn ledger() {
    let (stage, runtime) = (Stage::published(LANE_EVENTS), runtime());
    let (units, turn) = (Units::default(), AtomicI64::new(0));
    let name = |lane: &str| format!("{lane}-{}", turn.fetch_add(1, Ordering::SeqCst));
    let url = stage.server.url();
    let ledger = |name: &str| Ledger::new(name.to_owned(), "bench");
    let sink = |name: &str, policy| (stage.database.clone(), ledger(name), policy);
    let floor = "itself without ledger and fencing";

    let ours = || {
        runtime.block_on(async {
            crate::merge::empty(&url).await;
            let name = name("read-models");
            let (database, ledger, policy) = sink(&name, RecordPolicy::default());
            let sink = ProjectionSink::new(database, ledger, ReadModelsProjection { units }, policy);
            drive(&stage.kafka, &name, 4000, sink, LANE_EVENTS).await
        })
    };
    let bare = || {
        runtime.block_on(async {
            crate::merge::empty(&url).await;
            let projection = ReadModelsProjection { units };
            let sink = Unfenced { database: stage.database.clone(), projection };
            drive(&stage.kafka, &name("bare"), 4000, sink, LANE_EVENTS).await
        })
    };
    pairs(TURNS, ours, bare).row("read-models lane on Kafka", "events/s", floor, "≥ 0.9");

    let ours = || {
        let name = name("metrics");
        let (database, ledger, policy) = sink(&name, RecordPolicy::default());
        let sink = ProjectionSink::new(database, ledger, MetricsProjection { units }, policy);
        runtime.block_on(drive(&stage.kafka, &name, 10_000, sink, LANE_EVENTS))
    };
    let bare = || {
        let sink = Unfenced { database: stage.database.clone(), projection: MetricsProjection { units } };
        runtime.block_on(drive(&stage.kafka, &name("bare"), 10_000, sink, LANE_EVENTS))
    };
    pairs(TURNS, ours, bare).row("metrics lane on Kafka", "events/s", floor, "≥ 0.9");

    let root = |dir: &tempfile::TempDir| HistoryRoot::from(Url::from_directory_path(dir.path()).unwrap());
    let ours = || {
        let (dir, name) = (tempfile::tempdir().unwrap(), name("history"));
        let (database, ledger, policy) = sink(&name, RecordPolicy::default());
        let sink = HistorySink::new(root(&dir), database, ledger, policy);
        runtime.block_on(drive(&stage.kafka, &name, 25_000, sink, LANE_EVENTS))
    };
    let bare = || {
        let dir = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let table = HistoryTable::open_or_create(&root(&dir)).await.unwrap();
            let sink = UnfencedHistory(table.delta().clone());
            drive(&stage.kafka, &name("bare"), 25_000, sink, LANE_EVENTS).await
        })
    };
    pairs(TURNS, ours, bare).row("history lane on Kafka", "events/s", floor, "≥ 0.9");
}

fn backlog() -> i64 {
    crate::fill::events_or(2_000_000)
}

pub(crate) fn memory() {
    let events = backlog();
    let (kafka, backlog) = (Kafka::start(), Backlog::of(events));
    runtime().block_on(async {
        make_topics(&kafka, "").await;
        let database = database(&backlog.server.url()).await;
        publish_to(&kafka, &database, &backlog.server.url(), 0, events).await;
    });
    let brokers = format!("kafka.brokers={}", kafka.brokers());
    let needed = backlog.run(&["up", "--until-caught-up", "--set", &brokers]);
    let measured = format!("{} MiB ({} events/s)", round(needed.mebibytes), round(events as f64 / needed.seconds));
    row(
        &format!("resident memory, 60 partitions, backlog of {} records, all lanes", round(events as f64)),
        &measured,
        "",
        "",
        "under 400 MiB",
    );
}

/// Processes that run all lanes on an empty data directory; events a second until every lane has all.
fn processes(stage: &Stage, count: usize, turn: i64, events: i64) -> f64 {
    let (url, dir) = (stage.server.url(), tempfile::tempdir().unwrap());
    runtime().block_on(async {
        let client = connect(&url).await;
        crate::merge::empty(&url).await;
        client.batch_execute("TRUNCATE ledger, metric_counters, metric_histogram_buckets").await.unwrap();
    });
    let start = || -> Child {
        let mut command = std::process::Command::new(binary());
        command.args(["run", "read-models", "metrics", "history", "--data-dir"]).arg(dir.path().join("data"));
        for setting in [
            format!("postgres.url={url}"),
            format!("kafka.brokers={}", stage.kafka.brokers()),
            format!("kafka.group_prefix=bench-{turn}"),
        ] {
            command.args(["--set", &setting]);
        }
        command.env_remove("WEIR_BENCH_SHORT").env_remove("WEIR_BENCH_EVENTS");
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let children: Vec<Child> = (0..count).map(|_| start()).collect();
    let rate = runtime().block_on(async {
        let client = connect(&url).await;
        let mut began = None;
        loop {
            // The ledger's offsets count commit markers too: at least so many records are behind them.
            let sql = "SELECT coalesce(min(total), 0)::bigint, count(*) FROM (SELECT sum(next_offset) AS total FROM ledger GROUP BY lane) t";
            let row = client.query_one(sql, &[]).await.unwrap();
            let (total, lanes): (i64, i64) = (row.get(0), row.get(1));
            if total > 0 {
                began.get_or_insert_with(Instant::now);
            }
            if lanes == 3 && total >= events {
                return events as f64 / began.unwrap().elapsed().as_secs_f64();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    for mut child in children {
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
        child.wait().unwrap();
    }
    rate
}

pub(crate) fn two_processes() {
    let stage = Stage::published(SHARED);
    let turn = AtomicI64::new(0);
    let next = || turn.fetch_add(1, Ordering::SeqCst);
    let two = || processes(&stage, 2, next(), SHARED);
    let one = || processes(&stage, 1, next(), SHARED);
    pairs(3, two, one).row("two processes of three lanes, two cores", "events/s", "one process", "≥ 1.0");
}
