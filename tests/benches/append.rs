//! Appending through contracts, group commit and total order, against plain inserts into the same table without any of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weir_engine::StatusBoard;
use weir_model::decide::Rules;
use weir_model::wire::samples;
use weir_model::{EventType, Metadata, StreamId, SystemClock, TenantId};
use weir_postgres::{
    Caller, CommandService, Database, EventStore, Expected, GroupCommit, GroupCommitLimits, StreamAppend,
};
use weir_tests::Postgres;
use weir_tests::weir::connect;

use crate::fill::{database, runtime};
use crate::measure::{pairs, round, row};

const WRITERS: usize = 32;
const TURN: Duration = Duration::from_secs(4);
const TURNS: usize = 5;

pub(crate) fn service(database: &Database) -> CommandService {
    let limits = GroupCommitLimits::default();
    let commits = GroupCommit::start(database.clone(), limits, StatusBoard::default(), CancellationToken::new());
    CommandService::new(EventStore::new(database.clone()), commits, Arc::new(SystemClock), Rules::default())
}

fn event(user: &str) -> (EventType, Option<String>, weir_model::Object) {
    let Value::Object(mut data) = samples::one(EventType::UserProfileUpdated) else { unreachable!("an object") };
    data.insert("userId".to_owned(), user.into());
    (EventType::UserProfileUpdated, None, data)
}

/// Events a second of writers that each have so many commands under way, and send again with every answer.
async fn ours(service: &CommandService, under_way: usize) -> f64 {
    let started = Instant::now();
    let writers = (0..WRITERS * under_way).map(|_| {
        let service = service.clone();
        tokio::spawn(async move {
            let mut stored = 0;
            while started.elapsed() < TURN {
                let user = format!("user-{}", rand::rng().random_range(0..1_000_000));
                let request = StreamAppend {
                    caller: Caller {
                        tenant: TenantId::default(),
                        source: "bench".to_owned(),
                        metadata: Metadata::default(),
                        idempotency_key: Some(Uuid::now_v7().to_string()),
                    },
                    stream: StreamId::new(EventType::UserProfileUpdated.aggregate_type(), user.clone()).unwrap(),
                    expected: Expected::Any,
                    events: vec![event(&user)],
                };
                service.append(request).await.unwrap();
                stored += 1;
            }
            stored
        })
    });
    rate(writers.collect(), started).await
}

async fn rate(writers: Vec<tokio::task::JoinHandle<usize>>, started: Instant) -> f64 {
    let mut stored = 0;
    for writer in writers {
        stored += writer.await.unwrap();
    }
    stored as f64 / started.elapsed().as_secs_f64()
}

/// The columns and indexes of the event store, the position given by a sequence.
const PLAIN: &str = "CREATE TABLE plain (LIKE events INCLUDING ALL); CREATE SEQUENCE plain_id; \
     ALTER TABLE plain ALTER id SET DEFAULT nextval('plain_id')";

const INSERT: &str = "INSERT INTO plain (event_id, tenant, stream_id, version, event_type, schema_version, source, event_json, \
     metadata, timestamp, recorded_at, command_events) \
     SELECT e, 'default', s, 1, 'UserProfileUpdated', '1.0.0', 'bench', d::json, '{}', now(), now(), 1 \
     FROM unnest($1::uuid[], $2::text[], $3::text[]) AS x(e, s, d)";

/// Events a second of plain inserts of so many rows, over so many connections.
async fn plain(url: &str, clients: usize, rows: usize) -> f64 {
    let data = Value::Object(event("user-123456").2).to_string();
    let mut connections = Vec::new();
    for _ in 0..clients {
        let client = connect(url).await;
        let statement = client.prepare(INSERT).await.unwrap();
        connections.push((client, statement));
    }
    let started = Instant::now();
    let writers = connections.into_iter().map(|(client, statement)| {
        let data = data.clone();
        tokio::spawn(async move {
            let mut stored = 0;
            while started.elapsed() < TURN {
                let ids: Vec<Uuid> = (0..rows).map(|_| Uuid::new_v4()).collect();
                // A stream of its own each time: version 1 is free.
                let streams: Vec<String> = ids.iter().map(|id| format!("User-{id}")).collect();
                let data = vec![data.as_str(); rows];
                client.execute(&statement, &[&ids, &streams, &data]).await.unwrap();
                stored += rows;
            }
            stored
        })
    });
    rate(writers.collect(), started).await
}

pub(crate) fn run() {
    let runtime = runtime();
    let server = Postgres::start();
    let url = server.url();
    let service = runtime.block_on(async {
        let database = database(&url).await;
        connect(&url).await.batch_execute(PLAIN).await.unwrap();
        service(&database)
    });
    for under_way in [1, 8] {
        let ours = || runtime.block_on(ours(&service, under_way));
        let what = format!("append, {WRITERS} writers with {under_way} under way each, contracts, total order");
        let batches = pairs(TURNS, ours, || runtime.block_on(plain(&url, 1, 100)));
        batches.row(&what, "events/s", "plain 100-row inserts, one connection", "≥ 0.75");
        let singles = pairs(TURNS, ours, || runtime.block_on(plain(&url, WRITERS, 1)));
        singles.row(&what, "events/s", "plain single-row inserts, 32 clients", "≥ 2.5");
    }
}

/// What one commit of one event takes, in milliseconds.
pub(crate) async fn one_commit(url: &str) -> f64 {
    let client = connect(url).await;
    client.batch_execute("CREATE TABLE IF NOT EXISTS one (n bigint)").await.unwrap();
    let statement = client.prepare("INSERT INTO one VALUES (1)").await.unwrap();
    let mut taken = Vec::new();
    for _ in 0..300 {
        let started = Instant::now();
        client.execute(&statement, &[]).await.unwrap();
        taken.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    crate::measure::median(taken)
}

/// For the HTTP side's benchmark: the append rate beside it.
pub(crate) async fn rate_of_appends(service: &CommandService) -> f64 {
    ours(service, 1).await
}

/// A row that says what a commit costs here.
pub(crate) fn commit_row(millis: f64) {
    row("one commit of one row", &format!("{} ms", round(millis)), "", "", "");
}
