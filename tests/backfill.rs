//! Is whatever ClickHouse lost filled again out of history, each row once, beside the live lane and whatever dies?

use serde_json::Value;
use weir_tests::{ClickHouse, Facts, Fixture, Postgres, Weir, seed};

use crate::clickhouse::holds;

fn fixture(test: &str, rows: usize) -> (Fixture, Facts) {
    let fixture = Fixture::new(rows, seed(test));
    let facts = Facts::of_input(fixture.path());
    (fixture, facts)
}

/// Everything in every sink.
fn filled(test: &str, rows: usize) -> (Weir, (ClickHouse, Postgres), Facts) {
    let (fixture, facts) = fixture(test, rows);
    let (server, postgres) = (ClickHouse::start(), Postgres::start());
    let weir = Weir::new().with_all(server.settings()).on(&postgres.url());
    weir.ok(&["import", "oulad", fixture.arg()]);
    weir.ok(&["up", "--until-caught-up"]);
    (weir, (server, postgres), facts)
}

async fn hash(server: &ClickHouse) -> String {
    server.sql("SELECT count(), sum(cityHash64(tuple(* EXCEPT payload))) FROM weir.events").await
}

#[tokio::test]
async fn what_is_missing_is_filled_and_nothing_else() {
    let (weir, (server, _postgres), facts) = filled("backfill", 2000);
    let before = hash(&server).await;
    // Nothing is missing.
    let said = weir.ok(&["backfill", "clickhouse"]);
    assert!(said.starts_with("ok: 0 rows inserted; "), "{said}");
    // Rows here and there, and a rollup with them.
    server.sql("DELETE FROM weir.events_stored WHERE `offset` % 7 = 3").await;
    let lost = facts.total() - server.sql("SELECT count() FROM weir.events").await.parse::<i64>().unwrap();
    assert!(lost > 100 && !weir.verify_fails().is_empty());
    let plan = weir.run(&["backfill", "clickhouse", "--dry-run"]);
    let words = String::from_utf8_lossy(&plan.stderr).into_owned();
    assert!(words.contains(&format!("{} rows in history", facts.total())), "{words}");
    assert_ne!(hash(&server).await, before, "a dry run fills nothing");
    let said = weir.ok(&["backfill", "clickhouse"]);
    assert!(said.starts_with(&format!("ok: {lost} rows inserted; ")), "{said}");
    assert_eq!(hash(&server).await, before);
    holds(&server, &weir, &facts).await;
    ranges(&weir, &server, &before).await;
    // The whole table, and the live lane goes on behind it.
    server.sql("TRUNCATE TABLE weir.events_stored SYNC").await;
    let said = weir.ok(&["backfill", "clickhouse", "--concurrency", "2", "--newest-first"]);
    assert!(said.starts_with(&format!("ok: {} rows inserted; ", facts.total())), "{said}");
    assert_eq!(hash(&server).await, before);
    let (more, _) = fixture("backfill_more", 300);
    weir.ok(&["import", "oulad", more.arg()]);
    weir.ok(&["up", "--until-caught-up"]);
    weir.verify();
    refusals(&weir);
}

/// A day, a type, a tenant; the end is exclusive.
async fn ranges(weir: &Weir, server: &ClickHouse, before: &str) {
    server.sql("TRUNCATE TABLE weir.events_stored SYNC").await;
    let recorded =
        weir.json(&["sql", "SELECT min(recorded_at)::text AS first, max(recorded_at)::text AS last FROM events"]);
    let middle = weir.json(&["sql", "SELECT approx_median(recorded_at::bigint)::bigint AS at FROM events"]);
    let middle = jiff_text(middle[0]["at"].as_i64().unwrap());
    let count = |condition: &str| {
        let rows = weir.json(&["sql", &format!("SELECT count(*) AS n FROM events WHERE {condition}")]);
        rows[0]["n"].as_i64().unwrap()
    };
    let earlier = count(&format!("recorded_at < '{middle}' AND event_type = 'AssessmentCompleted'"));
    assert!(earlier > 0, "{recorded}");
    let said = weir.ok(&["backfill", "clickhouse", "--to", &middle, "--event-type", "AssessmentCompleted"]);
    assert!(said.starts_with(&format!("ok: {earlier} rows inserted; ")), "{said} to {middle} of {recorded}");
    assert_eq!(server.sql("SELECT count() FROM weir.events").await, earlier.to_string());
    // By positions of the event store: of any time.
    let said = weir.ok(&["backfill", "clickhouse", "--from", "1", "--to", "101"]);
    let there = count("position <= 100 AND recorded_at < '2200-01-01'");
    let both = count(&format!("position <= 100 AND recorded_at < '{middle}' AND event_type = 'AssessmentCompleted'"));
    assert!(said.starts_with(&format!("ok: {} rows inserted; ", there - both)), "{said}: {there}, {both}");
    weir.ok(&["backfill", "clickhouse", "--to", &middle]);
    weir.ok(&["backfill", "clickhouse", "--from", &middle, "--tenant", "default"]);
    assert_eq!(hash(server).await, before);
}

/// Microseconds since 1970 as RFC 3339, in whole milliseconds.
fn jiff_text(micros: i64) -> String {
    weir_model::Timestamp::from_millis(micros.div_euclid(1000)).unwrap().to_string()
}

fn refusals(weir: &Weir) {
    for (args, words) in [
        (&["backfill", "clickhouse", "--from", "2024-02-01", "--to", "2024-01-01"][..], "is empty"),
        (
            &["backfill", "clickhouse", "--from", "1999-01-01", "--to", "1999-02-01"],
            "history holds nothing of that range: it has what was recorded from",
        ),
        (&["backfill", "clickhouse", "--event-type", "Nothing"], "--event-type Nothing: there are UserRegistered"),
        (&["backfill", "read-models"], "`weir rebuild read-models` makes them again"),
        (&["backfill", "metrics"], "`weir rebuild metrics` makes them again"),
        (&["backfill", "clickhouse", "--rate", "0"], "at least 1"),
        (&["backfill", "clickhouse", "--from", "9", "--to", "9"], "the range from position 9 to 9 is empty"),
        (&["backfill", "history", "--newest-first"], "in the order of its sources"),
        (&["backfill", "history", "--source", "history"], "cannot be filled out of itself"),
        (&["backfill", "clickhouse", "--source", "events", "--slice", "day"], "in the order of its sources"),
        (&["backfill", "clickhouse", "--source", "events", "--reprocess", "failed"], "out of history"),
        (&["backfill", "history", "--reprocess", "all"], "`weir rebuild history` writes all of it again"),
    ] {
        let refused = weir.run(args);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(1) && said.contains(words), "{args:?}: {said}");
    }
}

/// Everything but the tables themselves.
async fn lose(server: &ClickHouse) {
    let rollups = ["events", "sessions", "assessments", "executions"].map(|what| format!("{what}_per_minute"));
    for table in ["events_stored".to_owned()].iter().chain(&rollups) {
        server.sql(&format!("TRUNCATE TABLE weir.{table} SYNC")).await;
    }
}

/// Without history; with deaths, and rows that are there already.
async fn out_of_the_event_store(weir: &Weir, server: &ClickHouse, facts: &Facts, before: &str) {
    let history = weir.path().join("history");
    let aside = weir.path().with_extension("history-aside");
    std::fs::rename(&history, &aside).unwrap();
    lose(server).await;
    let refused = weir.run(&["backfill", "clickhouse"]);
    let words = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(words.contains("--source events or --source kafka"), "{refused:?}");
    let refused = weir.run(&["backfill", "clickhouse", "--source", "kafka"]);
    let words = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(words.contains("there are no topics to read"), "{refused:?}");
    let source = ["backfill", "clickhouse", "--source", "events"];
    weir.dies_at("backfill.before_rollups", &[&source[..], &["--event-type", "UserRegistered"]].concat());
    let some = server.sql("SELECT count() FROM weir.events").await.parse::<i64>().unwrap();
    let plan = weir.run(&[&source[..], &["--dry-run"]].concat());
    let words = String::from_utf8_lossy(&plan.stderr).into_owned();
    assert!(words.contains(&format!("{} rows are missing of {}", facts.total() - some, facts.total())), "{words}");
    for _ in 0..2 {
        weir.dies_at("backfill.before_rollups", &source);
    }
    let said = weir.ok(&source);
    assert!(said.starts_with("ok: ") && said.contains(&format!("; {} looked at", facts.total())), "{said}");
    assert_eq!(hash(server).await, before);
    assert_eq!(server.sql("SELECT sum(events) FROM weir.events_per_minute FINAL").await, facts.total().to_string());
    std::fs::rename(&aside, &history).unwrap();
    holds(server, weir, facts).await;
}

#[tokio::test]
async fn a_backfill_dies_at_each_step_twice_in_a_row_and_goes_on() {
    let (weir, (server, _postgres), facts) = filled("backfill_dies", 2000);
    let before = hash(&server).await;
    // Once a slice is noted, the second run has nothing left to die at.
    for (failpoint, times) in
        [("backfill.before_rollups", 2), ("backfill.before_slice", 2), ("backfill.after_slice", 1)]
    {
        lose(&server).await;
        for _ in 0..times {
            weir.dies_at(failpoint, &["backfill", "clickhouse"]);
        }
        let runs = weir.json(&["jobs", "history", "--job", "backfill-clickhouse", "--limit", "1"]);
        let id = runs[0]["id"].to_string();
        weir.ok(&["jobs", "resume", &id]);
        assert_eq!(hash(&server).await, before, "{failpoint}");
        holds(&server, &weir, &facts).await;
    }
    out_of_the_event_store(&weir, &server, &facts, &before).await;
    // Of one that is stopped, the same command or its number goes on.
    server.sql("TRUNCATE TABLE weir.events_stored SYNC").await;
    let child = weir.start(&["backfill", "clickhouse", "--rate", "400"]);
    weir.until("SELECT count(*) = 1 FROM job_runs WHERE ended_at IS NULL AND rows > 0").await;
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let mut child = child;
    assert_eq!(child.wait().unwrap().code(), Some(1), "{}", weir.log());
    let runs = weir.json(&["jobs", "history", "--job", "backfill-clickhouse", "--limit", "1"]);
    assert!(
        runs[0]["outcome"] == "stopped" && runs[0]["detail"].as_str().unwrap().contains("weir jobs resume"),
        "{runs}"
    );
    weir.ok(&["jobs", "resume", &runs[0]["id"].to_string()]);
    assert_eq!(hash(&server).await, before);
    // And cancelled from elsewhere.
    server.sql("TRUNCATE TABLE weir.events_stored SYNC").await;
    let mut child = weir.start(&["backfill", "clickhouse", "--rate", "400", "--run-key", "nightly"]);
    weir.until("SELECT count(*) = 1 FROM job_runs WHERE ended_at IS NULL AND rows > 0").await;
    let runs = weir.json(&["jobs", "history", "--limit", "1"]);
    weir.ok(&["jobs", "cancel", &runs[0]["id"].to_string()]);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let known = weir.run(&["backfill", "clickhouse", "--run-key", "nightly"]);
    let said = String::from_utf8_lossy(&known.stdout).into_owned();
    assert!(known.status.code() == Some(1) && said.contains("was that already: cancelled"), "{said}");
    weir.ok(&["backfill", "clickhouse"]);
    assert_eq!(hash(&server).await, before);
    let shown: Value = weir.json(&["jobs", "show", &runs[0]["id"].to_string()]);
    assert!(
        shown.as_array().unwrap().iter().any(|row| row["what"] == "outcome" && row["value"] == "cancelled"),
        "{shown}"
    );
}

/// What a job works with goes away in the middle: it fails in words, and the same command goes on. One that stands still is replaced, and
/// changes nothing when it wakes.
#[tokio::test]
async fn servers_go_away_in_the_middle_and_a_backfill_stands_still() {
    let (fixture, _) = fixture("backfill_away", 2000);
    let mut server = ClickHouse::start();
    let weir = Weir::new().with_all(server.settings());
    weir.ok(&["import", "oulad", fixture.arg()]);
    weir.ok(&["up", "--until-caught-up"]);
    let before = hash(&server).await;
    let writes = "SELECT count(*) = 1 FROM job_runs WHERE ended_at IS NULL AND rows > 0";
    let up = weir.up();
    // ClickHouse.
    server.sql("TRUNCATE TABLE weir.events_stored SYNC").await;
    let mut child = weir.start(&["backfill", "clickhouse", "--rate", "400"]);
    weir.until(writes).await;
    server.kill();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{}", weir.log());
    server.start_again();
    weir.ok(&["backfill", "clickhouse"]);
    assert_eq!(hash(&server).await, before);
    // Postgres, which comes back by itself.
    server.sql("TRUNCATE TABLE weir.events_stored SYNC").await;
    let mut child = weir.start(&["backfill", "clickhouse", "--rate", "400"]);
    weir.until(writes).await;
    assert!(weir.kill_postgres());
    assert_eq!(child.wait().unwrap().code(), Some(1), "{}", weir.log());
    weir.until("SELECT true").await;
    weir.ok(&["backfill", "clickhouse"]);
    assert_eq!(hash(&server).await, before);
    // The process.
    server.sql("TRUNCATE TABLE weir.events_stored SYNC").await;
    let mut child = weir.start(&["backfill", "clickhouse", "--rate", "400"]);
    weir.until(writes).await;
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let busy = weir.run(&["backfill", "clickhouse"]);
    assert!(String::from_utf8_lossy(&busy.stderr).contains("runs already: run "), "{busy:?}");
    let old = "UPDATE job_runs SET seen_at = now() - interval '61 s' WHERE ended_at IS NULL";
    weir.owner().await.batch_execute(old).await.unwrap();
    weir.ok(&["backfill", "clickhouse"]);
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{}", weir.log());
    assert_eq!(hash(&server).await, before);
    up.terminate();
    weir.verify();
}
