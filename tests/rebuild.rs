//! Is any sink made again by one named command, beside the live lanes, and does the version before come back where that is asked for?

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use weir_tests::{ClickHouse, Facts, Fixture, Postgres, Weir, seed};

fn fixture(test: &str, rows: usize) -> (Fixture, Facts) {
    let fixture = Fixture::new(rows, seed(test));
    let facts = Facts::of_input(fixture.path());
    (fixture, facts)
}

fn import(weir: &Weir, fixture: &Fixture) {
    weir.ok(&["import", "oulad", fixture.arg()]);
    weir.ok(&["up", "--until-caught-up"]);
}

/// The files of history's table.
fn files(weir: &Weir) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![weir.path().join("history/events")];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true if !entry.ends_with("_delta_log") => open.push(entry),
                false if entry.extension().is_some_and(|end| end == "parquet") => files.push(entry),
                _ => {}
            }
        }
    }
    files.sort();
    files
}

const ANSWER: &str = "SELECT event_type, count(*) AS n, count(DISTINCT event_id) AS ids, min(offset) AS first, max(offset) AS last, \
     sum(length(data)) AS bytes FROM events GROUP BY event_type ORDER BY event_type";

#[tokio::test]
async fn history_is_made_again_after_files_or_all_of_it_were_lost() {
    let (fixture, facts) = fixture("refill", 3000);
    let weir = Weir::new().with("lanes.history.records_max=400").with("lanes.history.poll_records_max=400");
    import(&weir, &fixture);
    weir.verify();
    let answer = weir.json(&["sql", ANSWER]);
    assert!(weir.ok(&["backfill", "history"]).starts_with("ok: 0 rows inserted"));
    // Files.
    let lost: Vec<PathBuf> = files(&weir).into_iter().step_by(3).collect();
    assert!(lost.len() > 3);
    lost.iter().for_each(|file| std::fs::remove_file(file).unwrap());
    assert!(!weir.run(&["verify"]).status.success());
    let said = weir.ok(&["backfill", "history", "--to", "2000-01-01"]);
    assert!(
        said.starts_with("ok: 0 rows inserted")
            && said.contains(&format!("{} files of the table were gone", lost.len()))
    );
    let plan = weir.run(&["backfill", "history", "--dry-run"]);
    let planned = String::from_utf8_lossy(&plan.stderr).into_owned();
    let inserted = |said: String| said.split_whitespace().nth(1).unwrap().parse::<i64>().unwrap();
    let first = inserted(weir.ok(&["backfill", "history", "--to", "500"]));
    let some = inserted(weir.ok(&["backfill", "history", "--event-type", "UserRegistered"])) + first;
    let rest = inserted(weir.ok(&["backfill", "history"]));
    assert!(
        some > 0 && rest > 0 && planned.contains(&format!("{} rows are missing of {}", some + rest, facts.total())),
        "{planned}"
    );
    assert_eq!(weir.json(&["sql", ANSWER]), answer);
    weir.verify();
    // All of it.
    std::fs::remove_dir_all(weir.path().join("history/events")).unwrap();
    let refused = weir.run(&["backfill", "history"]);
    assert!(String::from_utf8_lossy(&refused.stdout).contains("`weir rebuild history` makes it again"), "{refused:?}");
    let said = weir.ok(&["rebuild", "history"]);
    assert!(
        said.starts_with(&format!("ok: {} rows in ", facts.total())) && said.ends_with("took the place of 0 files\n"),
        "{said}"
    );
    assert_eq!(weir.json(&["sql", ANSWER]), answer);
    weir.verify();
    // The lane goes on, and a rebuild takes out what is there.
    let (more, _) = self::fixture("refill_more", 300);
    import(&weir, &more);
    weir.verify();
    let before = files(&weir).len();
    assert!(weir.ok(&["rebuild", "history"]).ends_with(&format!("took the place of {before} files\n")));
    weir.verify();
    let refused = weir.run(&["rebuild", "history", "--rollback"]);
    assert!(
        refused.status.code() == Some(1) && String::from_utf8_lossy(&refused.stderr).contains("vacuum_retention_s")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_filled_and_rebuilt_beside_the_lane_and_whatever_dies() {
    let (fixture, facts) = fixture("refill_dies", 4000);
    let weir = Arc::new(Weir::new().with("lanes.history.records_max=400").with("lanes.history.poll_records_max=400"));
    let up = weir.up();
    let mut import = weir.start(&["import", "oulad", fixture.arg()]);
    weir.until("SELECT count(*) > 0 FROM ledger WHERE lane = 'history' AND next_offset > 400").await;
    // No reader sees fewer rows than before, or one twice.
    let reading = Arc::new(AtomicBool::new(true));
    let reader = tokio::task::spawn_blocking({
        let (weir, reading) = (weir.clone(), reading.clone());
        move || {
            let (mut last, mut reads) = (0, 0);
            while reading.load(Ordering::SeqCst) {
                let rows = weir.json(&["sql", "SELECT count(*) AS n, count(DISTINCT event_id) AS ids FROM events"]);
                let (n, ids) = (rows[0]["n"].as_i64().unwrap(), rows[0]["ids"].as_i64().unwrap());
                assert!(n == ids && n >= last, "{n} rows, {ids} events, {last} before");
                (last, reads) = (n, reads + 1);
            }
            reads
        }
    });
    for failpoint in ["refill.after_files", "refill.before_commit", "refill.after_commit"] {
        for _ in 0..2 {
            weir.dies_at(failpoint, &["rebuild", "history"]);
        }
    }
    weir.ok(&["rebuild", "history"]);
    assert!(import.wait().unwrap().success());
    reading.store(false, Ordering::SeqCst);
    assert!(reader.await.unwrap() > 3);
    up.caught_up().await;
    facts.hold(&weir, &up).await;
    up.terminate();
    weir.verify();
    // Filling dies as well, and what it had committed stays.
    let lost = files(&weir);
    lost.iter().step_by(2).for_each(|file| std::fs::remove_file(file).unwrap());
    for failpoint in ["refill.after_files", "refill.before_commit"] {
        weir.dies_at(failpoint, &["backfill", "history"]);
    }
    weir.ok(&["backfill", "history"]);
    weir.verify();
    stopped_run_is_replaced(&weir).await;
}

/// A run that stood still while another took its place commits nothing more.
async fn stopped_run_is_replaced(weir: &Weir) {
    let mut command = weir.command(&["rebuild", "history"]);
    let mut stopped = command.env("WEIR_FAILPOINT", "refill.before_commit:1:stop").spawn().unwrap();
    weir.until("SELECT count(*) = 1 FROM job_runs WHERE job = 'rebuild-history' AND ended_at IS NULL").await;
    let pid = rustix::process::Pid::from_raw(i32::try_from(stopped.id()).unwrap()).unwrap();
    let is_stopped = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap();
        stat.rsplit_once(')').unwrap().1.trim_start().starts_with('T')
    };
    while !is_stopped() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let busy = weir.run(&["rebuild", "history"]);
    assert!(String::from_utf8_lossy(&busy.stderr).contains("runs already: run "), "{busy:?}");
    weir.owner()
        .await
        .batch_execute("UPDATE job_runs SET seen_at = now() - interval '61 s' WHERE ended_at IS NULL")
        .await
        .unwrap();
    weir.ok(&["rebuild", "history"]);
    let answer = weir.json(&["sql", ANSWER]);
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    assert!(!stopped.wait().unwrap().success());
    assert_eq!(weir.json(&["sql", ANSWER]), answer);
    weir.verify();
}

const TAMPER: &str = "UPDATE assessment_read_model SET score = score + 1 WHERE key = (SELECT min(key) FROM assessment_read_model); \
     DELETE FROM user_read_model WHERE id = (SELECT min(id) FROM user_read_model)";

async fn versions(weir: &Weir, lane: &str) -> (i32, Option<i32>) {
    let sql = "SELECT version, previous_version FROM lane_versions WHERE lane = $1";
    let row = weir.owner().await.query_one(sql, &[&lane]).await.unwrap();
    (row.get(0), row.get(1))
}

#[tokio::test]
async fn the_version_before_is_kept_and_comes_back() {
    let (fixture, facts) = fixture("versions", 3000);
    let weir = Weir::new();
    import(&weir, &fixture);
    let up = weir.up();
    weir.owner().await.batch_execute(TAMPER).await.unwrap();
    let said = weir.ok(&["rebuild", "read-models", "--version", "2"]);
    assert!(said.contains("version 2 serves, and 1 is kept for 7 days"), "{said}");
    assert!(weir.ok(&["rebuild", "read-models", "--version", "2"]).contains("version 2 of read-models serves already"));
    let refused = weir.run(&["rebuild", "read-models", "--version", "7"]);
    assert!(
        String::from_utf8_lossy(&refused.stdout).contains("version 2 of read-models serves, and the next one is 3"),
        "{refused:?}"
    );
    weir.verify();
    assert_eq!(versions(&weir, "read-models").await, (2, Some(1)));
    // What comes since is in the version before too, when that comes back: as wrong as it was.
    let (more, _) = self::fixture("versions_more", 500);
    weir.ok(&["import", "oulad", more.arg()]);
    up.caught_up().await;
    weir.dies_at("rebuild.before_commit", &["rebuild", "read-models", "--rollback"]);
    assert_eq!(versions(&weir, "read-models").await, (2, Some(1)));
    let said = weir.ok(&["rebuild", "read-models", "--rollback"]);
    assert!(said.contains("rolled back; as they were: ") && said.contains("version 1 serves, and 2 is kept"), "{said}");
    let wrong: Vec<Value> = weir.verify_fails().iter().map(|row| row["subject"].clone()).collect();
    assert_eq!(wrong, [json!("user_read_model"), json!("assessment_read_model")]);
    assert!(weir.ok(&["rebuild", "read-models", "--rollback"]).contains("version 2 serves, and 1 is kept"));
    weir.verify();
    // Nothing to do leaves the versions alone; a rebuild that changes something takes the place of the older one.
    assert!(weir.ok(&["rebuild", "read-models"]).ends_with("nothing differed\n"));
    weir.owner().await.batch_execute(TAMPER).await.unwrap();
    weir.ok(&["rebuild", "read-models"]);
    assert_eq!(versions(&weir, "read-models").await, (3, Some(2)));
    assert!(facts.total() > 0);
    weir.owner().await.batch_execute("UPDATE lane_versions SET previous_at = now() - interval '8 days'").await.unwrap();
    assert!(weir.ok(&["jobs", "run", "cleanup", "--set", "maintenance.keep_versions_days=9"]).ends_with("90 days\n"));
    assert!(weir.ok(&["jobs", "run", "cleanup"]).ends_with(", and version 2 of read-models\n"));
    let refused = weir.run(&["rebuild", "read-models", "--rollback"]);
    assert!(
        String::from_utf8_lossy(&refused.stdout).contains("no version before the one that serves is kept"),
        "{refused:?}"
    );
    falling_counters(&weir).await;
    up.terminate();
    weir.verify();
}

/// A counter that falls is a restart to Prometheus.
async fn falling_counters(weir: &Weir) {
    let owner = weir.owner().await;
    owner.batch_execute("UPDATE metric_counters SET value = value + 1 WHERE label = 'UserRegistered'").await.unwrap();
    let refused = weir.run(&["rebuild", "metrics"]);
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("events_applied_total{UserRegistered} from "), "{said}");
    assert!(said.contains("nothing was changed. `weir rebuild metrics --accept-reset` lets them"), "{said}");
    assert_eq!(weir.verify_fails().len(), 1);
    assert!(weir.ok(&["rebuild", "metrics", "--accept-reset"]).contains("1 rows of metric_counters"));
    weir.verify();
    weir.ok(&["rebuild", "metrics", "--drop"]);
    assert_eq!(versions(weir, "metrics").await, (2, None));
}

/// Other units of durations make other rows: the lane waits until someone decides.
#[tokio::test]
async fn a_lane_with_another_projection_waits_until_it_is_rebuilt_or_declared_compatible() {
    let weir = Weir::new();
    weir.ok(&["demo", "--events", "600", "--rate", "2000"]);
    let other = weir.with("durations.time_spent=s");
    let up = other.up();
    let waits = "SELECT count(*) = 1 FROM parts WHERE part = 'read-models' AND trouble LIKE '%another projection%'";
    other.until(waits).await;
    let status = other.run(&["status"]);
    assert!(status.status.code() == Some(1), "{status:?}");
    assert!(String::from_utf8_lossy(&status.stderr).contains("another projection"), "{status:?}");
    let verify = other.run(&["verify"]);
    assert!(
        !verify.status.success() && String::from_utf8_lossy(&verify.stderr).contains("another projection"),
        "{verify:?}"
    );
    // What serves goes on serving; the next version is filled beside it.
    let said = other.ok(&["rebuild", "read-models"]);
    assert!(said.contains("rows of assessment_read_model") && said.contains("version 2 serves"), "{said}");
    up.caught_up().await;
    other.verify();
    up.terminate();
    // Back to the units of before: by the word that the rows may stay, which verify does not take for true.
    let weir = other.with("durations.time_spent=ms");
    let up = weir.up();
    weir.until(waits).await;
    weir.ok(&["rebuild", "read-models", "--declare-compatible"]);
    up.caught_up().await;
    assert!(!weir.verify_fails().is_empty());
    weir.ok(&["rebuild", "read-models"]);
    weir.verify();
    up.terminate();
}

async fn hash(server: &ClickHouse) -> String {
    server.sql("SELECT count(), sum(cityHash64(tuple(* EXCEPT payload))) FROM weir.events").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clickhouse_is_rebuilt_beside_its_lane_and_rolled_back() {
    let (fixture, facts) = fixture("rebuild_clickhouse", 3000);
    let server = ClickHouse::start();
    let weir = Weir::new().with_all(server.settings());
    import(&weir, &fixture);
    let right = hash(&server).await;
    let up = weir.up();
    // A row too much, and a rollup that counted too much: no insert mends either.
    let tamper =
        "INSERT INTO weir.events_stored SELECT * REPLACE ('tampered' AS tenant) FROM weir.events_stored LIMIT 1";
    server.sql(tamper).await;
    server.sql("INSERT INTO weir.events_per_minute SELECT * REPLACE (events + 7 AS events) FROM weir.events_per_minute FINAL LIMIT 1").await;
    assert!(!weir.verify_fails().is_empty());
    for failpoint in ["clickhouse.before_exchange", "clickhouse.after_exchange", "clickhouse.before_version"] {
        for _ in 0..2 {
            weir.dies_at(failpoint, &["rebuild", "clickhouse"]);
        }
        if failpoint == "clickhouse.before_exchange" {
            server.sql(tamper).await;
        }
    }
    let (more, _) = self::fixture("rebuild_clickhouse_more", 500);
    let mut import = weir.start(&["import", "oulad", more.arg()]);
    let said = weir.ok(&["rebuild", "clickhouse"]);
    assert!(said.starts_with("ok: rebuilt; ") && said.contains("is kept for 7 days"), "{said}");
    assert!(import.wait().unwrap().success());
    up.caught_up().await;
    weir.verify();
    let all = hash(&server).await;
    assert_ne!(all, right);
    // Back, with what came since, and forth.
    server.sql(tamper).await;
    weir.ok(&["rebuild", "clickhouse"]);
    weir.verify();
    assert_eq!(hash(&server).await, all);
    let said = weir.ok(&["rebuild", "clickhouse", "--rollback"]);
    assert!(said.starts_with("ok: rolled back; "), "{said}");
    assert!(!weir.verify_fails().is_empty(), "the row too much is back");
    weir.ok(&["rebuild", "clickhouse", "--rollback"]);
    weir.verify();
    assert_eq!(hash(&server).await, all);
    weir.ok(&["rebuild", "clickhouse", "--drop"]);
    let refused = weir.run(&["rebuild", "clickhouse", "--rollback"]);
    assert!(String::from_utf8_lossy(&refused.stdout).contains("no version before the one that serves is kept"));
    up.terminate();
    assert!(facts.total() > 0);
    weir.verify();
    assert_eq!(server.sql("SELECT count() FROM system.tables WHERE name LIKE '%\\_rebuilt\\_%'").await, "0");
}

/// History and ClickHouse, whose columns another build filled otherwise: the same, history first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_of_another_build_wait_until_they_are_rebuilt_or_declared_compatible() {
    let (fixture, _) = fixture("rebuild_columns", 1000);
    let (postgres, server) = (Postgres::start(), ClickHouse::start());
    let weir = Weir::new().on(&postgres.url()).with_all(server.settings());
    import(&weir, &fixture);
    let owner = weir.owner().await;
    let other = "UPDATE lane_versions SET fingerprint = 'of another build' WHERE lane IN ('history', 'clickhouse')";
    assert_eq!(owner.execute(other, &[]).await.unwrap(), 2);
    let up = weir.up();
    weir.until("SELECT count(*) = 2 FROM parts WHERE part IN ('history', 'clickhouse') AND trouble LIKE '%another projection%'")
        .await;
    let verify = weir.run(&["verify", "--wait", "0"]);
    let words = String::from_utf8_lossy(&verify.stderr).into_owned();
    assert!(
        verify.status.code() == Some(1)
            && ["weir rebuild history", "weir rebuild clickhouse"].iter().all(|part| words.contains(part)),
        "{words}"
    );
    // What comes meanwhile waits for them.
    let (more, _) = self::fixture("rebuild_columns_more", 300);
    weir.ok(&["import", "oulad", more.arg()]);
    weir.ok(&["rebuild", "history"]);
    weir.until("SELECT next_offset > (SELECT max(id) FROM events) FROM ledger WHERE lane = 'history'").await;
    weir.ok(&["rebuild", "clickhouse"]);
    up.lanes_caught_up(4).await;
    weir.verify();
    assert_eq!(owner.execute(other, &[]).await.unwrap(), 2);
    for lane in ["history", "clickhouse"] {
        weir.ok(&["rebuild", lane, "--declare-compatible"]);
    }
    weir.verify();
    up.terminate();
}
