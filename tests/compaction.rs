//! Do small files of history become large ones without a row lost or doubled, beside writers and readers and whatever dies?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use weir_tests::{Facts, Fixture, Weir, seed};

/// Many small files, which become files of a megabyte at most.
fn small_files() -> Weir {
    Weir::new()
        .with("lanes.history.records_max=400")
        .with("lanes.history.poll_records_max=400")
        .with("lanes.history.flush_interval_ms=50")
        .with("maintenance.compaction_target_bytes=1000000")
        .with("maintenance.compaction_memory_bytes=33554432")
}

fn fixture(test: &str, rows: usize) -> (Fixture, Facts) {
    let fixture = Fixture::new(rows, seed(test));
    let facts = Facts::of_input(fixture.path());
    (fixture, facts)
}

fn imported(weir: &Weir, fixture: &Fixture) {
    weir.ok(&["import", "oulad", fixture.arg()]);
    weir.ok(&["up", "--until-caught-up"]);
}

/// Files of the table with their partitions, as its log has them.
fn active(weir: &Weir) -> BTreeMap<String, String> {
    let (mut files, log) = (BTreeMap::<String, String>::new(), weir.path().join("history/events/_delta_log"));
    for commit in (0..).map(|n| log.join(format!("{n:020}.json"))).take_while(|path| path.exists()) {
        for line in std::fs::read_to_string(commit).unwrap().lines() {
            let action: Value = serde_json::from_str(line).unwrap();
            if let Some(path) = action["add"]["path"].as_str() {
                let partition = path.rsplit_once('/').unwrap().0.to_owned();
                files.insert(path.to_owned(), partition);
            }
            if let Some(path) = action["remove"]["path"].as_str() {
                assert!(files.remove(path).is_some(), "{path} is removed twice");
            }
        }
    }
    files
}

/// Files of the table, by partition.
fn files(weir: &Weir) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    active(weir).into_values().for_each(|partition| *counts.entry(partition).or_default() += 1);
    counts
}

/// The files of the table, with their directories.
fn files_by_name(weir: &Weir) -> Vec<String> {
    active(weir).into_keys().map(|path| weir.path().join("history/events").join(path).display().to_string()).collect()
}

/// What every reader must see, whatever the files are.
const QUESTION: &str = "SELECT event_type, count(*) AS n, count(DISTINCT event_id) AS ids, min(offset) AS first, max(offset) AS last, \
     sum(length(data)) AS bytes FROM events GROUP BY event_type ORDER BY event_type";

fn answer(weir: &Weir) -> Value {
    weir.json(&["sql", QUESTION])
}

#[test]
fn small_files_become_large_ones_and_every_reader_sees_the_same() {
    let (fixture, _) = fixture("compaction", 6000);
    let weir = small_files();
    imported(&weir, &fixture);
    let (before, answer_before) = (files(&weir), answer(&weir));
    let most = before.values().max().unwrap();
    assert!(*most > 1, "{before:?}");
    let plan = weir.json(&["compact", "history", "--dry-run"]);
    let planned: usize = plan.as_array().unwrap().iter().map(|group| group["files"].as_u64().unwrap() as usize).sum();
    assert_eq!(planned, before.values().filter(|files| **files > 1).sum::<usize>(), "{plan}");
    assert_eq!(files(&weir), before, "a dry run changes nothing");
    let said = weir.ok(&["compact", "history"]);
    assert!(said.starts_with(&format!("ok: {planned} files are ")), "{said}");
    let after = files(&weir);
    assert!(after.values().all(|files| *files == 1) && after.len() == before.len(), "{after:?}");
    assert_eq!(answer(&weir), answer_before);
    weir.verify();
    // Another reader of Delta tables, and within each file by time.
    let rows: u64 = answer_before.as_array().unwrap().iter().map(|row| row["n"].as_u64().unwrap()).sum();
    let history = weir.path().join("history/events").display().to_string();
    let read = crate::readers::rows(&history, "SELECT count(*), count(DISTINCT event_id) FROM HISTORY");
    assert_eq!(read, json!([[rows, rows]]));
    let unsorted = "SELECT count(*) FROM (SELECT timestamp < lag(timestamp) OVER (PARTITION BY filename ORDER BY file_row_number) AS back \
         FROM read_parquet('FILE', filename = true, file_row_number = true, hive_partitioning = false)) WHERE back";
    for file in files_by_name(&weir) {
        let sql = unsorted.replace("FILE", &file);
        assert_eq!(crate::readers::rows(&history, &sql), json!([[0]]), "{file}");
    }
    // And again: nothing to do. Old files go once no reader can need them.
    assert!(weir.ok(&["compact", "history"]).starts_with("ok: no small files to compact"));
    let gone = weir.ok(&["compact", "history", "--set", "maintenance.vacuum_retention_s=0"]);
    assert!(gone.contains(&format!("{planned} old files removed")), "{gone}");
    assert_eq!(answer(&weir), answer_before);
    weir.verify();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_the_live_lane_a_reader_and_a_second_compactor() {
    let (fixture, facts) = fixture("compaction_beside", 6000);
    let weir = Arc::new(small_files());
    let up = weir.up();
    let mut import = weir.start(&["import", "oulad", fixture.arg()]);
    let reading = Arc::new(AtomicBool::new(true));
    let reader = tokio::task::spawn_blocking({
        let (weir, reading) = (weir.clone(), reading.clone());
        move || {
            let (mut last, mut reads) = (0, 0);
            while reading.load(Ordering::SeqCst) {
                let rows = weir.json(&["sql", "SELECT count(*) AS n, count(DISTINCT event_id) AS ids FROM events"]);
                let (n, ids) = (rows[0]["n"].as_i64().unwrap(), rows[0]["ids"].as_i64().unwrap());
                assert!(n == ids && n >= last, "{rows} after {last}");
                (last, reads) = (n, reads + 1);
            }
            reads
        }
    });
    let mut compactions = 0;
    while import.try_wait().unwrap().is_none() || compactions < 3 {
        // Of two at once one runs, and the other says who does.
        let (first, second) = (weir.start(&["compact", "history"]), weir.start(&["compact", "history"]));
        let outputs = [first, second].map(|child| child.wait_with_output().unwrap());
        assert!(outputs.iter().any(|output| output.status.success()), "{outputs:?}");
        compactions += 1;
    }
    up.caught_up().await;
    reading.store(false, Ordering::SeqCst);
    assert!(reader.await.unwrap() > 0);
    weir.ok(&["compact", "history"]);
    facts.hold(&weir, &up).await;
    up.terminate();
    weir.verify();
}

#[tokio::test]
async fn a_compaction_dies_at_each_step_twice_in_a_row() {
    let (fixture, facts) = fixture("compaction_dies", 2000);
    let weir = small_files();
    imported(&weir, &fixture);
    let before = answer(&weir);
    for failpoint in ["compaction.after_files", "compaction.before_commit", "compaction.after_commit"] {
        for _ in 0..2 {
            weir.dies_at(failpoint, &["compact", "history"]);
            assert_eq!(answer(&weir), before, "{failpoint}");
        }
    }
    let runs = weir.json(&["jobs", "history", "--job", "compact-history"]);
    assert_eq!(runs.as_array().unwrap().iter().filter(|run| run["outcome"] == "abandoned").count(), 5, "{runs}");
    weir.ok(&["compact", "history"]);
    assert!(files(&weir).values().all(|files| *files == 1));
    assert_eq!(answer(&weir), before);
    let up = weir.up();
    facts.hold(&weir, &up).await;
    up.terminate();
    weir.verify();
}

/// A compactor that stands still for longer than a run may be unheard of is replaced, and harms nothing when it wakes up: its files are gone by then.
#[tokio::test]
async fn one_that_stood_still_is_replaced_and_commits_nothing_of_its_own() {
    let (fixture, _) = fixture("compaction_stopped", 2000);
    let weir = small_files();
    imported(&weir, &fixture);
    let up = weir.up();
    let before = answer(&weir);
    let mut stopped = weir.command(&["compact", "history"]);
    let mut stopped = stopped.env("WEIR_FAILPOINT", "compaction.before_commit:1:stop").spawn().unwrap();
    weir.until("SELECT count(*) = 1 FROM job_runs WHERE job = 'compact-history' AND ended_at IS NULL").await;
    let refused = loop {
        let refused = weir.run(&["compact", "history"]);
        let words = String::from_utf8_lossy(&refused.stderr).into_owned();
        if words.contains("compact-history runs already: run ") {
            break words;
        }
    };
    assert!(refused.contains("--watch` follows it"), "{refused}");
    // As if a minute had passed.
    weir.owner()
        .await
        .batch_execute("UPDATE job_runs SET seen_at = now() - interval '2 minutes' WHERE ended_at IS NULL")
        .await
        .unwrap();
    weir.ok(&["compact", "history", "--set", "maintenance.vacuum_retention_s=0"]);
    let after = files(&weir);
    assert!(after.values().all(|files| *files == 1), "{after:?}");
    let pid = rustix::process::Pid::from_raw(i32::try_from(stopped.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    assert!(!stopped.wait().unwrap().success());
    assert_eq!((files(&weir), answer(&weir)), (after, before));
    let runs = weir.json(&["jobs", "history", "--job", "compact-history"]);
    let outcomes: Vec<&Value> = runs.as_array().unwrap().iter().map(|run| &run["outcome"]).collect();
    assert_eq!(outcomes, [&json!("ok"), &json!("abandoned")], "{runs}");
    tokio::time::sleep(Duration::from_millis(100)).await;
    up.terminate();
    weir.verify();
}
