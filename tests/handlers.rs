//! Can a user's own code run in a lane of its own, exactly once? The specification's `subscribe`, as an example.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::Transaction;
use tokio_util::sync::CancellationToken;
use weir_engine::{BatchLimits, Lane, StatusBoard, run_lane};
use weir_model::{Event, EventType};
use weir_postgres::{
    AppendSignal, ApplyError, Database, DatabaseOptions, During, EventStoreSource, Handler, Handlers, Ledger,
    ProjectionSink, RecordPolicy,
};
use weir_tests::{Facts, Fixture, Weir, seed};

/// Congratulates whoever passed. The row and the lane's progress commit together, so nobody is congratulated twice.
struct Congratulate;

#[async_trait]
impl Handler for Congratulate {
    async fn handle(&self, transaction: &Transaction<'_>, event: &Event) -> Result<(), ApplyError> {
        const SQL: &str = "INSERT INTO congratulations (learner, assessment) VALUES ($1, $2)";
        if event.data.boolean("passed") == Some(true) {
            let learner = event.text("userId").ok_or_else(|| ApplyError::Refused("nobody to congratulate".into()))?;
            transaction.execute(SQL, &[&learner, &event.stream.aggregate_id()]).await.during("congratulating")?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_subscribed_handler_sees_each_event_of_its_types_once_over_restarts() {
    let fixture = Fixture::new(2000, seed("handlers"));
    let passed: i64 = Facts::of_input(fixture.path()).progress.values().map(|(_, _, _, passed)| passed).sum();
    let weir = Weir::new();
    weir.ok(&["import", "oulad", fixture.arg()]);
    let up = weir.up();
    // No key on the table: a second call would leave a second row.
    weir.owner().await.batch_execute("CREATE TABLE congratulations (learner text, assessment text)").await.unwrap();
    let url = weir.owner_url();
    let second = Duration::from_secs(1);
    let options = DatabaseOptions {
        url,
        connections_max: 8,
        statement_timeout: 30 * second,
        lock_timeout: 10 * second,
        session: Vec::new(),
    };
    let database = Database::open(&options).unwrap();

    for millis in [60, 120, 3000] {
        let handlers = Handlers::default().subscribe(EventType::AssessmentCompleted, Arc::new(Congratulate));
        let lane = Lane {
            name: "congratulations".into(),
            limits: BatchLimits { records_max: 50, bytes_max: 1 << 20, flush_interval: Duration::from_millis(50) },
            poll_records_max: 200,
            filter: Some(handlers.event_types()),
        };
        let stop = CancellationToken::new();
        let signal = AppendSignal::start(database.clone(), stop.clone());
        let mut source = EventStoreSource::open(database.clone(), signal).await.unwrap();
        let mut sink = ProjectionSink::new(
            database.clone(),
            Ledger::new("congratulations", "test"),
            handlers,
            RecordPolicy::default(),
        );
        let running = tokio::spawn({
            let stop = stop.clone();
            async move { Box::pin(run_lane(&lane, &mut source, &mut sink, &StatusBoard::default(), &stop)).await }
        });
        tokio::time::sleep(Duration::from_millis(millis)).await;
        if millis < 1000 {
            // Dropped wherever it stands.
            running.abort();
        } else {
            let all =
                "SELECT max(next_offset) > (SELECT max(id) FROM events) FROM ledger WHERE lane = 'congratulations'";
            weir.until(all).await;
            stop.cancel();
            running.await.unwrap().unwrap();
        }
    }
    let row = weir
        .owner()
        .await
        .query_one("SELECT count(*), count(DISTINCT assessment) FROM congratulations", &[])
        .await
        .unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (passed, passed));
    up.terminate();
}
