//! Crashes, cuts and takeovers between weir and ClickHouse, each of which ends in the same numbers.

use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rustix::process::Signal;
use weir_tests::{ClickHouse, Postgres, Proxy, Up, Weir, seed};

use super::refusals::says;
use super::{caught_up, fixture, holds, next_offset, weir};

/// Dies at a failpoint in the middle of an import, starts again, and everything agrees.
async fn dies_at(failpoint: &str) {
    let (fixture, facts) = fixture(failpoint, 2000);
    let server = ClickHouse::start();
    let weir = weir(server.settings());
    weir.ok(&["import", "oulad", fixture.arg()]);
    weir.up_until(failpoint).dies();
    // What is inserted and not in the ledger is no difference, and no rollup's.
    weir.verify();
    let up = weir.up();
    caught_up(&up).await;
    holds(&server, &weir, &facts).await;
    // A block has events of several months, which the server takes apart.
    let months = "SELECT uniqExact(_partition_id) >= 3 FROM weir.events_stored";
    assert_eq!(server.sql(months).await, "1");
    up.terminate();
}

#[tokio::test]
async fn weir_dies_before_the_insert() {
    dies_at("clickhouse.before_insert").await;
}

#[tokio::test]
async fn weir_dies_after_the_answer() {
    dies_at("clickhouse.after_answer").await;
}

#[tokio::test]
async fn weir_dies_after_the_rollups() {
    dies_at("clickhouse.after_rollups").await;
}

#[tokio::test]
async fn weir_dies_before_the_ledger() {
    dies_at("clickhouse.before_ledger").await;
}

#[tokio::test]
async fn weir_dies_after_the_ledger() {
    dies_at("clickhouse.after_ledger").await;
}

/// In the middle of the body: what has arrived of a block is no block.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weir_dies_in_the_middle_of_the_body() {
    let (fixture, facts) = fixture("clickhouse_mid_body", 3000);
    let server = ClickHouse::start();
    let proxy = Proxy::before(server.port).await;
    let weir = weir(server.settings_through(proxy.port()));
    weir.ok(&["clickhouse", "migrate"]);
    weir.ok(&["import", "oulad", fixture.arg()]);
    proxy.hold_after(200_000);
    let up = weir.up();
    patiently("an insert is held", async || proxy.cuts() == 1).await;
    up.kill();
    proxy.go_away();
    proxy.come_back();
    let up = weir.up();
    caught_up(&up).await;
    holds(&server, &weir, &facts).await;
    up.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_connection_is_cut_at_random_bytes_and_answers_are_lost() {
    let (fixture, facts) = fixture("clickhouse_cuts", 4000);
    let mut random = StdRng::seed_from_u64(seed("clickhouse_cuts_bytes"));
    let server = ClickHouse::start();
    let proxy = Proxy::before(server.port).await;
    // Many small inserts, so that every turn finds some.
    let small = ["records_max", "poll_records_max"].map(|name| format!("lanes.clickhouse.{name}=50"));
    let weir = weir(server.settings_through(proxy.port())).with_all(small);
    weir.ok(&["clickhouse", "migrate"]);
    let up = weir.up();
    let mut import = weir.start(&["import", "oulad", fixture.arg()]);
    for turn in 0..8 {
        let (faults, before) = (proxy.cuts() + proxy.lost(), next_offset(&weir).await);
        if turn % 2 == 0 {
            proxy.cut_after(random.random_range(1..15_000));
        } else {
            proxy.lose_replies_to("FORMAT+Native", 1);
        }
        patiently("a connection is cut", async || proxy.cuts() + proxy.lost() > faults).await;
        patiently("the lane goes on", async || next_offset(&weir).await > before).await;
    }
    assert!(import.wait().unwrap().success());
    caught_up(&up).await;
    holds(&server, &weir, &facts).await;
    up.terminate();
}

/// Killed in the middle of a block, twice, while merges run, and once just after an answer, before what it holds in memory is
/// written; the other lanes go on meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clickhouse_is_killed_and_comes_back() {
    let (fixture, facts) = fixture("clickhouse_killed", 6000);
    let mut server = ClickHouse::start();
    let proxy = Proxy::before(server.port).await;
    let weir = weir(server.settings_through(proxy.port())).with("lanes.clickhouse.records_max=200");
    weir.ok(&["clickhouse", "migrate"]);
    let up = weir.up();
    says(&weir, &["claimed", "clickhouse"]).await;
    proxy.hold_after(60_000);
    weir.ok(&["import", "oulad", fixture.arg()]);
    let mut before = 0;
    for kills in 1..3 {
        patiently("an insert is held", async || proxy.cuts() == kills).await;
        server.kill();
        patiently("the lane waits", async || waits(&up).await).await;
        up.lanes_caught_up(3).await;
        // It cannot have all of it, so there is another insert to hold.
        before = next_offset(&weir).await;
        assert!(before <= facts.total());
        if kills == 1 {
            proxy.hold_after(60_000);
        }
        server.start_again();
        server.sql("OPTIMIZE TABLE weir.events_stored").await;
    }
    patiently("the ledger goes on", async || next_offset(&weir).await > before).await;
    server.kill();
    server.start_again();
    caught_up(&up).await;
    patiently("the lane waits no more", async || !waits(&up).await).await;
    holds(&server, &weir, &facts).await;
    up.terminate();
}

/// Whether the lane says that it waits.
async fn waits(up: &Up<'_>) -> bool {
    let text = reqwest::get(format!("{}/metrics", up.api)).await.unwrap().text().await.unwrap();
    text.contains("weir_lane_waiting{lane=\"clickhouse\"} 1")
}

async fn patiently(what: &str, is_so: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !is_so().await {
        assert!(started.elapsed() < Duration::from_secs(60), "not so: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A server that stands still is no reason for the others to wait (P9).
#[tokio::test]
async fn clickhouse_stands_still_and_goes_on() {
    let (fixture, facts) = fixture("clickhouse_still", 2000);
    let server = ClickHouse::start();
    let weir = weir(server.settings());
    let up = weir.up();
    says(&weir, &["claimed", "clickhouse"]).await;
    server.signal(Signal::STOP);
    weir.ok(&["import", "oulad", fixture.arg()]);
    up.lanes_caught_up(3).await;
    let below = next_offset(&weir).await;
    assert!(below <= facts.total(), "the lane cannot have all of it: {below}");
    server.signal(Signal::CONT);
    caught_up(&up).await;
    holds(&server, &weir, &facts).await;
    up.terminate();
}

/// The owner is stopped with a block in hand, another process takes over, and the first goes on and inserts it (P6).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_was_stopped_inserts_late() {
    let (fixture, facts) = fixture("clickhouse_stopped", 3000);
    let (server, postgres) = (ClickHouse::start(), Postgres::start());
    let shared = tempfile::tempdir().unwrap();
    let history = format!("history.url=file://{}/history", shared.path().display());
    let one = || weir(server.settings()).on(&postgres.url()).with(&history);
    let (first, second): (Weir, Weir) = (one(), one());
    first.ok(&["import", "oulad", fixture.arg()]);
    let old = first.up_until("clickhouse.before_insert:1:stop");
    old.stands_still().await;
    let new = second.up();
    caught_up(&new).await;
    old.go_on();
    // It inserts what is there already, and its ledger refuses it.
    tokio::time::sleep(Duration::from_secs(3)).await;
    new.terminate();
    says(&first, &["claiming again", "clickhouse"]).await;
    caught_up(&old).await;
    holds(&server, &first, &facts).await;
    old.terminate();
}
