//! Can a writer that was away, and comes back, change anything? (P6.) And does a lane that was fenced go on?

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use url::Url;
use weir_engine::{
    Batch, BatchLimits, Headers, Lane, Partition, Record, RecordHead, Sink, SinkError, StatusBoard, run_lane,
};
use weir_history::{HistorySink, HistoryTable};
use weir_model::EventType;
use weir_model::project::Units;
use weir_model::wire::samples;
use weir_postgres::{
    AppendSignal, Database, DatabaseOptions, EventStoreSource, Ledger, ProjectionSink, ReadModelsProjection,
    RecordPolicy,
};
use weir_tests::Weir;

fn partition() -> Partition {
    Partition { source: "elsewhere".into(), topic: "learning_events".into(), number: 3 }
}

/// Offsets 0 to `end`, each a session of its own.
fn batch(end: i64) -> Batch {
    let mut batch = Batch::default();
    batch.begin(partition(), 0);
    for offset in 0..end {
        let mut data = samples::one(EventType::LearningSessionStarted);
        data["sessionId"] = json!(format!("s{offset}"));
        let event = json!({"eventId": format!("e{offset}"), "eventType": "LearningSessionStarted", "version": "1.0.0",
            "source": "s", "timestamp": "2024-01-15T10:30:00Z", "data": data});
        let payload = Bytes::from(event.to_string());
        let head = RecordHead {
            partition: partition(),
            offset,
            key: None,
            odd_key: None,
            headers: Headers::default(),
            recorded_at: None,
        };
        batch.push(Record { head, payload }, None);
    }
    batch
}

async fn database(weir: &Weir) -> Database {
    let timeout = Duration::from_secs(10);
    let url = weir.owner_url();
    Database::open(&DatabaseOptions {
        url,
        connections_max: 8,
        statement_timeout: timeout,
        lock_timeout: timeout,
        session: Vec::new(),
    })
    .unwrap()
}

/// The old owner has a batch in hand when the new one takes over and commits: whatever it tries then, it is refused.
async fn an_old_owner_is_out(old: &mut dyn Sink, new: &mut dyn Sink) {
    old.claim(&[partition()]).await.unwrap();
    new.claim(&[partition()]).await.unwrap();
    for _ in 0..2 {
        let refused = old.commit(&batch(5)).await;
        assert!(matches!(refused, Err(SinkError::Fenced { .. })), "{refused:?}");
    }
    new.commit(&batch(3)).await.unwrap();
    let refused = old.commit(&batch(5)).await;
    assert!(matches!(refused, Err(SinkError::Fenced { .. })), "{refused:?}");
    // A repeat by the owner, whose reply was lost, is a success and changes nothing.
    new.commit(&batch(3)).await.unwrap();
    let again = old.claim(&[partition()]).await.unwrap();
    assert_eq!(again[0].next_offset, Some(3));
}

#[tokio::test]
async fn read_models_refuse_an_old_owner() {
    let weir = Weir::new();
    let _up = weir.up();
    let database = database(&weir).await;
    let sink = |owner: &str| {
        let units = Units::default();
        let ledger = Ledger::new("fenced", owner);
        ProjectionSink::new(database.clone(), ledger, ReadModelsProjection { units }, RecordPolicy::default())
    };
    an_old_owner_is_out(&mut sink("old"), &mut sink("new")).await;
    let count = "SELECT count(*) FROM learning_session_read_model";
    assert_eq!(weir.owner().await.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 3);
}

#[tokio::test]
async fn history_refuses_an_old_owner() {
    let weir = Weir::new();
    let _up = weir.up();
    let database = database(&weir).await;
    let dir = tempfile::tempdir().unwrap();
    let root = Url::from_directory_path(dir.path()).unwrap();
    let sink = |owner: &str| {
        HistorySink::new(root.clone(), database.clone(), Ledger::new("fenced", owner), RecordPolicy::default())
    };
    an_old_owner_is_out(&mut sink("old"), &mut sink("new")).await;
    let hashes = HistoryTable::open(&root.clone().into()).await.unwrap().unwrap().hashes().await.unwrap();
    assert_eq!(hashes.by_type.values().map(|hash| hash.count()).sum::<u64>(), 3);
}

/// Someone claims all the time; the lane claims again each time, and every record is applied once.
#[tokio::test]
async fn a_lane_that_is_fenced_claims_again_and_goes_on() {
    let weir = Weir::new();
    let up = weir.up();
    let database = database(&weir).await;
    let (stop, board) = (CancellationToken::new(), StatusBoard::default());
    let signal = AppendSignal::start(database.clone(), stop.clone());
    let mut source = EventStoreSource::open(database.clone(), signal).await.unwrap();
    let ledger = Ledger::new("fenced", "lane");
    let dir = tempfile::tempdir().unwrap();
    let root = Url::from_directory_path(dir.path()).unwrap();
    let mut sink = HistorySink::new(root.clone(), database.clone(), ledger, RecordPolicy::default());
    let limits = BatchLimits { records_max: 7, bytes_max: 1 << 20, flush_interval: Duration::from_millis(5) };
    let lane = Lane { name: "fenced".to_owned(), limits, poll_records_max: 7, filter: None };
    let running = tokio::spawn({
        let (board, stop) = (board.clone(), stop.clone());
        async move { run_lane(&lane, &mut source, &mut sink, &board, &stop).await }
    });
    let token = up.token("default", "command,read");
    let store = EventStoreSource::partition(&database).await.unwrap();
    let mut thief = Ledger::new("fenced", "thief");
    for n in 0..40 {
        let mut data = samples::one(EventType::LearningSessionStarted);
        data["sessionId"] = json!(format!("s{n}"));
        let url = format!("{}/v1/commands/StartLearningSession", up.api);
        let sent = reqwest::Client::new().post(url).bearer_auth(&token).json(&data).send().await.unwrap();
        assert_eq!(sent.status(), 201);
        if n % 10 == 0 {
            thief.claim(&database, std::slice::from_ref(&store)).await.unwrap();
        }
    }
    let started = Instant::now();
    while board.read()["fenced"].next_offset != 41 {
        assert!(started.elapsed() < Duration::from_secs(30), "{:?}", board.read());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.cancel();
    running.await.unwrap().unwrap();
    let hashes = HistoryTable::open(&root.clone().into()).await.unwrap().unwrap().hashes().await.unwrap();
    assert_eq!(hashes.by_type.values().map(|hash| hash.count()).sum::<u64>(), 40);
    up.terminate();
}

/// What the ledger has done with is not read again, and who asks is told so: after `weir source switch`, for one.
#[tokio::test]
async fn a_partition_that_the_ledger_has_done_with_is_refused() {
    let weir = Weir::new();
    weir.ok(&["demo", "--events", "20", "--rate", "1000"]);
    let up = weir.up();
    weir.owner().await.batch_execute("UPDATE ledger SET retired_at = now() WHERE lane = 'history'").await.unwrap();
    up.terminate();
    let up = weir.up();
    crate::faults::trouble_of(&up, "history", "the ledger has done with it").await;
    up.lanes_caught_up(2).await;
    up.terminate();
}
