//! Whole lanes, from the event store to the committed sink, against the writing alone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use tokio_util::sync::CancellationToken;
use url::Url;
use weir_engine::{BatchLimits, Lane, Located, Sink, Source, SourceEvent, StatusBoard, run_lane};
use weir_history::{HistorySink, rows};
use weir_model::Month;
use weir_model::project::Units;
use weir_model::wire;
use weir_postgres::{
    AppendSignal, Database, EventStoreSource, Ledger, ProjectionSink, ReadModelsProjection, RecordPolicy,
};
use weir_tests::weir::connect;

use crate::fill::{filled, runtime};
use crate::measure::{pairs, seconds};
use crate::merge;

const TURNS: usize = 5;
const READ_MODELS_EVENTS: i64 = 80_000;
const HISTORY_EVENTS: i64 = 200_000;
/// The defaults of the lanes.
const READ_MODELS_BATCH: usize = 4_000;
const HISTORY_BATCH: usize = 25_000;

pub(crate) fn lane(name: &str, records_max: usize) -> Lane {
    let limits = BatchLimits { records_max, bytes_max: 64 << 20, flush_interval: Duration::from_millis(200) };
    Lane { name: name.to_owned(), limits, poll_records_max: records_max.min(4_000), filter: None }
}

/// Events a second until the lane has committed all of them.
pub(crate) async fn drive(database: &Database, lane: Lane, mut sink: impl Sink + 'static, events: i64) -> f64 {
    let (stop, board) = (CancellationToken::new(), StatusBoard::default());
    let signal = AppendSignal::start(database.clone(), stop.clone());
    let mut source = EventStoreSource::open(database.clone(), signal).await.unwrap();
    let started = Instant::now();
    let running = {
        let (board, stop) = (board.clone(), stop.clone());
        tokio::spawn(async move { Box::pin(run_lane(&lane, &mut source, &mut sink, &board, &stop)).await })
    };
    while board.read().values().next().is_none_or(|status| status.next_offset <= events) {
        assert!(!running.is_finished(), "the lane stopped");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let rate = events as f64 / started.elapsed().as_secs_f64();
    stop.cancel();
    running.await.unwrap().unwrap();
    rate
}

/// All events, decoded.
pub(crate) async fn decoded(database: &Database, events: i64) -> Vec<Located> {
    let signal = AppendSignal::start(database.clone(), CancellationToken::new());
    let mut source = EventStoreSource::open(database.clone(), signal).await.unwrap();
    source.start(&[(EventStoreSource::partition(database).await.unwrap(), Some(1))]).await.unwrap();
    let mut all = Vec::new();
    while (all.len() as i64) < events {
        if let SourceEvent::Records(records) = source.next(2000, Duration::from_secs(1)).await.unwrap() {
            all.extend(records.into_iter().map(|record| {
                let event = wire::decode(&record.payload).unwrap();
                Located::new(record, event)
            }));
        }
    }
    all
}

pub(crate) fn read_models() {
    let runtime = runtime();
    let (server, database) = runtime.block_on(filled(READ_MODELS_EVENTS));
    let events = runtime.block_on(decoded(&database, READ_MODELS_EVENTS));
    let batches = merge::batches(&events, READ_MODELS_BATCH);
    drop(events);
    let mut turn = 0;
    let ours = || {
        turn += 1;
        let name = format!("read-models-{turn}");
        runtime.block_on(async {
            merge::empty(&server.url()).await;
            let projection = ReadModelsProjection { units: Units::default() };
            let ledger = Ledger::new(name.clone(), "bench");
            let sink = ProjectionSink::new(database.clone(), ledger, projection, RecordPolicy::default());
            drive(&database, lane(&name, READ_MODELS_BATCH), sink, READ_MODELS_EVENTS).await
        })
    };
    let floor = || {
        runtime.block_on(async {
            merge::empty(&server.url()).await;
            let client = connect(&server.url()).await;
            let started = Instant::now();
            merge::merge(client, &batches).await;
            READ_MODELS_EVENTS as f64 / started.elapsed().as_secs_f64()
        })
    };
    pairs(TURNS, ours, floor).row("read-models lane", "events/s", "the same rows by COPY and merge", "≥ 0.6");
}

/// The lane's files, as it would write them: by type and month.
fn files(events: &[Located]) -> Vec<RecordBatch> {
    let mut batches = Vec::new();
    for batch in events.chunks(HISTORY_BATCH) {
        let mut parts: BTreeMap<(&str, Month), Vec<&Located>> = BTreeMap::new();
        for located in batch {
            let key = (located.event.event_type.as_str(), located.event.timestamp.month());
            parts.entry(key).or_default().push(located);
        }
        for part in parts.into_values() {
            let batch = rows::to_batch(part.into_iter()).unwrap();
            // The partition's columns are in the directory's name.
            let columns: Vec<usize> = (2..batch.num_columns()).collect();
            batches.push(batch.project(&columns).unwrap());
        }
    }
    batches
}

pub(crate) fn history() {
    let runtime = runtime();
    let (_server, database) = runtime.block_on(filled(HISTORY_EVENTS));
    let events = runtime.block_on(decoded(&database, HISTORY_EVENTS));
    let batches = files(&events);
    drop(events);
    let mut turn = 0;
    let ours = || {
        turn += 1;
        let name = format!("history-{turn}");
        let dir = tempfile::tempdir().unwrap();
        let root = Url::from_directory_path(dir.path()).unwrap();
        runtime.block_on(async {
            let ledger = Ledger::new(name.clone(), "bench");
            let sink = HistorySink::new(root, database.clone(), ledger, RecordPolicy::default());
            drive(&database, lane(&name, HISTORY_BATCH), sink, HISTORY_EVENTS).await
        })
    };
    let floor = || {
        let dir = tempfile::tempdir().unwrap();
        let taken = seconds(|| {
            for (n, batch) in batches.iter().enumerate() {
                let file = std::fs::File::create(dir.path().join(n.to_string())).unwrap();
                let properties =
                    WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
                let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
                writer.write(batch).unwrap();
                writer.close().unwrap();
            }
        });
        HISTORY_EVENTS as f64 / taken
    };
    pairs(TURNS, ours, floor).row("history lane", "events/s", "arrow-rs writing the same batches, one thread", "≥ 0.4");
}
