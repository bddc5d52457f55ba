//! One reader for all lanes of a process: does a lane that stands still hold up the others, and does it lose or double anything when it
//! leaves the shared reading, catches up, and comes back? (P1, P5, P9.)

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use weir_tests::weir::connect;
use weir_tests::{Facts, Fixture, Postgres, Weir, seed};

const ROWS: usize = 20_000;

/// Room for one chunk, so that a lane which stands still is in the way at once.
fn narrow(server: &Postgres) -> Weir {
    Weir::new().on(&server.url()).with("engine.buffer_bytes=1").with("lanes.metrics.flush_interval_ms=100")
}

struct Input {
    fixture: Fixture,
    facts: Facts,
}

fn input() -> &'static Input {
    static INPUT: OnceLock<Input> = OnceLock::new();
    INPUT.get_or_init(|| {
        let fixture = Fixture::new(ROWS, seed("tap"));
        let facts = Facts::of_input(fixture.path());
        Input { fixture, facts }
    })
}

/// Holds up the read models' commits until it is rolled back.
async fn hold_up(server: &Postgres) -> tokio_postgres::Client {
    let client = connect(&server.url()).await;
    client.batch_execute("BEGIN; LOCK TABLE learning_session_read_model IN EXCLUSIVE MODE").await.unwrap();
    client
}

/// The history lane is at the end of the event store, while the read models are not.
const OTHERS_ARE_THROUGH: &str = "SELECT (SELECT coalesce(min(next_offset), 0) FROM ledger WHERE lane IN ('history', 'metrics')) > \
     (SELECT max(id) FROM events) AND (SELECT coalesce(max(next_offset), 0) FROM ledger WHERE lane = 'read-models') < (SELECT max(id) FROM events)";

async fn agrees(weir: &Weir) {
    let up = weir.up();
    up.caught_up().await;
    input().facts.hold(weir, &up).await;
    up.terminate();
    weir.verify();
}

#[tokio::test]
async fn a_lane_that_stands_still_holds_nobody_up_and_comes_back() {
    let server = Postgres::start();
    let weir = narrow(&server);
    weir.ok(&["import", "oulad", input().fixture.arg()]);
    let lock = hold_up(&server).await;
    let up = weir.up();
    weir.until(OTHERS_ARE_THROUGH).await;
    let metrics = reqwest::get(format!("{}/metrics", up.api)).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("weir_lane_detached_total{lane=\"read-models\"} 1"), "{metrics}");
    lock.batch_execute("ROLLBACK").await.unwrap();
    up.caught_up().await;
    assert!(weir.log().contains("shares the reading again"), "{}", weir.log());
    input().facts.hold(&weir, &up).await;
    up.terminate();
    weir.verify();
}

/// Each commit of the read models takes most of a second, so that they never stand still for long.
const SLOW: &str = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.8); RETURN NEW; END'; \
     CREATE TRIGGER slow BEFORE UPDATE ON ledger FOR EACH ROW WHEN (NEW.lane = 'read-models' AND NEW.next_offset > OLD.next_offset) \
     EXECUTE FUNCTION slow()";

#[tokio::test]
async fn a_lane_that_is_slow_but_moves_holds_nobody_up() {
    let server = Postgres::start();
    // A hundred commits, so that it has to be let go of sometime, on a machine that has no processor to spare for most of that time too.
    let weir = narrow(&server).with("lanes.read-models.records_max=200").with("lanes.read-models.poll_records_max=200");
    weir.ok(&["import", "oulad", input().fixture.arg()]);
    let client = connect(&server.url()).await;
    client.batch_execute(SLOW).await.unwrap();
    let up = weir.up();
    weir.until(OTHERS_ARE_THROUGH).await;
    assert!(weir.log().contains("holds up others"), "{}", weir.log());
    client.batch_execute("DROP TRIGGER slow ON ledger").await.unwrap();
    up.caught_up().await;
    input().facts.hold(&weir, &up).await;
    up.terminate();
    weir.verify();
}

#[tokio::test]
async fn the_process_dies_when_a_lane_is_detached() {
    let server = Postgres::start();
    let weir = narrow(&server);
    weir.ok(&["import", "oulad", input().fixture.arg()]);
    let lock = hold_up(&server).await;
    weir.up_until("tap.after_detach").dies();
    lock.batch_execute("ROLLBACK").await.unwrap();
    agrees(&weir).await;
}

#[tokio::test]
async fn the_process_dies_when_a_lane_has_caught_up() {
    let server = Postgres::start();
    let weir = narrow(&server);
    weir.ok(&["import", "oulad", input().fixture.arg()]);
    let lock = hold_up(&server).await;
    let up = weir.up_until("tap.after_join");
    let client = connect(&server.url()).await;
    // On a slow machine a lane may stand still for a second, and come back, before the lock holds anything up.
    let is_dead = || std::fs::read_to_string(format!("/proc/{}/stat", up.pid())).unwrap().contains(") Z ");
    let started = Instant::now();
    while !is_dead() && !client.query_one(OTHERS_ARE_THROUGH, &[]).await.unwrap().get::<_, bool>(0) {
        assert!(started.elapsed() < Duration::from_secs(120), "{}", weir.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    lock.batch_execute("ROLLBACK").await.unwrap();
    up.dies();
    agrees(&weir).await;
}

/// Lanes whose ledgers stand apart, as a crash leaves them, and one that begins from nothing: each gets what it lacks, and no more.
#[tokio::test]
async fn lanes_that_begin_apart_come_together() {
    let server = Postgres::start();
    let weir = narrow(&server).with("lanes.history.enabled=false");
    weir.ok(&["import", "oulad", input().fixture.arg()]);
    let up = weir.up();
    up.lanes_caught_up(2).await;
    up.terminate();
    let weir = weir.with("lanes.history.enabled=true");
    let up = weir.up();
    up.caught_up().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    input().facts.hold(&weir, &up).await;
    up.terminate();
    weir.verify();
}
