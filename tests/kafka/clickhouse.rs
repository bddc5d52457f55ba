//! The lane `clickhouse` through real brokers: takeovers, rebalances and absences, each with an insert under way.

use std::process::Child;
use std::time::Duration;

use rustix::process::Signal;
use weir_tests::{ClickHouse, Kafka, Proxy, seed};

use super::{Stream, kill, on, session_of, sessions_are, signal, terminate, until};

/// A stream with a fourth sink, reached through this port.
fn stream(name: &str, server: &ClickHouse, port: u16) -> Stream {
    let kafka = Kafka::start();
    let settings = server.settings_through(port);
    let weir = on(&kafka).with_all(settings);
    // Shorter than ClickHouse will be away.
    let weir = weir.with("kafka.consumer.max.poll.interval.ms=8000").with("lanes.clickhouse.records_max=800");
    Stream::with(kafka, weir, name)
}

fn run_clickhouse(stream: &Stream) -> Child {
    stream.weir.start(&["run", "clickhouse"])
}

fn run_until(stream: &Stream, failpoint: &str) -> Child {
    let log = std::fs::File::create(stream.weir.path().with_extension("stopped.log")).unwrap();
    let mut command = stream.weir.command(&["run", "clickhouse"]);
    command.env("WEIR_FAILPOINT", failpoint).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

async fn pause(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// Waits for rows, and for their minutes, which are computed after them.
pub(super) async fn has_all(server: &ClickHouse, weir: &weir_tests::Weir, events: i64) {
    let expected = [events.to_string(), events.to_string()];
    until(weir, 240, async || {
        let rows = server.sql("SELECT count() FROM weir.analytics_events").await;
        let found = [rows, server.sql("SELECT sum(events) FROM weir.events_per_minute FINAL").await];
        if found == expected { Ok(()) } else { Err((found, expected.clone())) }
    })
    .await;
}

async fn agrees(stream: &Stream, server: &ClickHouse) {
    let up = stream.weir.up();
    let total = stream.facts.total().to_string();
    has_all(server, &stream.weir, stream.facts.total()).await;
    let places =
        "SELECT count() = uniqExact(source, topic, partition, offset), uniqExact(event_id) FROM weir.analytics_events";
    assert_eq!(server.sql(places).await, format!("1\t{total}"));
    assert_eq!(server.sql("SELECT sum(events) FROM weir.events_per_minute FINAL").await, total);
    up.terminate();
    stream.agrees().await;
}

/// The owner is stopped with a block in hand for longer than its session, another takes over; then ClickHouse is away for
/// longer than anyone may stay away from polling; then the first goes on.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_was_stopped_inserts_late_and_clickhouse_is_away_for_long() {
    let mut server = ClickHouse::start();
    let stream = stream("kafka::clickhouse_away", &server, server.port);
    let published = stream.weir.start(&["publish"]);
    let mut import = stream.start_import();
    let stopped = run_until(&stream, "clickhouse.before_insert:2:stop");
    let state = || std::fs::read_to_string(format!("/proc/{}/stat", stopped.id())).unwrap();
    until(&stream.weir, 60, async || if state().contains(") T ") { Ok(()) } else { Err(state()) }).await;
    let other = run_clickhouse(&stream);
    pause(12).await;
    server.kill();
    pause(14).await;
    server.start_again();
    signal(&stopped, Signal::CONT);
    pause(6).await;
    assert!(import.wait().unwrap().success(), "{}", stream.weir.log());
    terminate(stopped);
    terminate(other);
    terminate(published);
    agrees(&stream, &server).await;
}

/// Half of a body is under way when a second process takes some of the partitions; the rest of it never comes.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_move_while_an_insert_is_in_flight() {
    let server = ClickHouse::start();
    let proxy = Proxy::before(server.port).await;
    let stream = stream("kafka::clickhouse_moved", &server, proxy.port());
    stream.weir.ok(&["clickhouse", "migrate"]);
    let published = stream.weir.start(&["publish"]);
    stream.import();
    proxy.hold_after(100_000);
    let first = run_clickhouse(&stream);
    until(&stream.weir, 60, async || if proxy.cuts() > 0 { Ok(()) } else { Err("no insert") }).await;
    let second = run_clickhouse(&stream);
    pause(6).await;
    proxy.go_away();
    proxy.come_back();
    pause(4).await;
    kill(second);
    let third = run_clickhouse(&stream);
    pause(4).await;
    terminate(first);
    terminate(third);
    terminate(published);
    agrees(&stream, &server).await;
}

/// A used data directory with ClickHouse moves from the event store to topics, and records of other services follow.
#[tokio::test(flavor = "multi_thread")]
async fn a_used_data_directory_with_clickhouse_moves_over() {
    let (kafka, server) = (Kafka::start(), ClickHouse::start());
    let embedded = weir_tests::Weir::new().with_all(server.settings());
    let fixture = weir_tests::Fixture::new(1000, seed("kafka::clickhouse_switch"));
    let facts = weir_tests::Facts::of_input(fixture.path());
    embedded.ok(&["import", "oulad", fixture.arg()]);
    embedded.ok(&["up", "--until-caught-up"]);
    let weir = embedded.with(&format!("kafka.brokers={}", kafka.brokers()));
    super::apply_topics(&weir);
    weir.ok(&["source", "switch", "kafka"]);
    let up = weir.up();
    let mut lines = String::new();
    for n in 0..30 {
        lines.push_str(&format!("{}\n", session_of(&format!("theirs-{n}"))));
    }
    // Each twice.
    super::kcat(&kafka, &["-P", "-t", "learning_events"], &lines);
    super::kcat(&kafka, &["-P", "-t", "learning_events"], &lines);
    let sessions = facts.events["LearningSessionStarted"] + 30;
    sessions_are(&weir, sessions).await;
    until(&weir, 60, async || {
        let sql = "SELECT count() FROM weir.analytics_events WHERE event_type = 'LearningSessionStarted'";
        let found = server.sql(sql).await;
        if found == sessions.to_string() { Ok(()) } else { Err(found) }
    })
    .await;
    up.terminate();
    weir.verify();
}
