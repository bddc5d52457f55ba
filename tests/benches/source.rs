//! The embedded source, records encoded for the lanes, against paging the table.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use weir_engine::{Source, SourceEvent};
use weir_postgres::{AppendSignal, Database, EventStoreSource};
use weir_tests::weir::connect;

use crate::fill::{filled, runtime};
use crate::measure::pairs;

const EVENTS: i64 = 200_000;

async fn ours(database: &Database) -> f64 {
    let stop = CancellationToken::new();
    let signal = AppendSignal::start(database.clone(), stop.clone());
    let mut source = EventStoreSource::open(database.clone(), signal).await.unwrap();
    let partition = EventStoreSource::partition(database).await.unwrap();
    source.start(&[(partition, Some(1))]).await.unwrap();
    let started = std::time::Instant::now();
    let mut records = 0;
    while records < EVENTS {
        if let SourceEvent::Records(page) = source.next(2000, Duration::from_secs(1)).await.unwrap() {
            records += page.len() as i64;
        }
    }
    stop.cancel();
    EVENTS as f64 / started.elapsed().as_secs_f64()
}

async fn paging(url: &str) -> f64 {
    let client = connect(url).await;
    let sql = "SELECT id, event_id, tenant, stream_id, version, event_type, schema_version, source, event_json::text, \
               metadata::text, timestamp, recorded_at FROM events WHERE id > $1 ORDER BY id LIMIT 1000";
    let statement = client.prepare(sql).await.unwrap();
    let started = std::time::Instant::now();
    let mut at = 0_i64;
    while at < EVENTS {
        let rows = client.query(&statement, &[&at]).await.unwrap();
        at = rows.last().unwrap().get(0);
        std::hint::black_box(rows);
    }
    EVENTS as f64 / started.elapsed().as_secs_f64()
}

pub(crate) fn run() {
    let runtime = runtime();
    let (server, database) = runtime.block_on(filled(EVENTS));
    let pairs = pairs(7, || runtime.block_on(ours(&database)), || runtime.block_on(paging(&server.url())));
    pairs.row("embedded source", "events/s", "paging the table, 1,000 rows", "≥ 0.5");
}
