//! Do scheduled jobs run once each, say how they went, and is a rebuild exact while everything goes on?

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_tests::{Facts, Fixture, Up, Weir, seed};

fn fixture(test: &str) -> (Fixture, Facts) {
    let fixture = Fixture::new(5000, seed(test));
    let facts = Facts::of_input(fixture.path());
    (fixture, facts)
}

async fn imported(weir: &Weir, fixture: &Fixture) {
    weir.ok(&["import", "oulad", fixture.arg()]);
    weir.ok(&["up", "--until-caught-up"]);
}

const TAMPER: &str = "UPDATE assessment_read_model SET score = score + 1 WHERE key = (SELECT min(key) FROM assessment_read_model); \
     DELETE FROM user_read_model WHERE id = (SELECT min(id) FROM user_read_model); \
     INSERT INTO learner_learning_paths VALUES ('default', 'nobody', 'nowhere'); \
     UPDATE learner_progress_read_model SET sessions = sessions + 1 WHERE user_id = (SELECT max(user_id) FROM learner_progress_read_model)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_puts_right_what_differed_and_a_reader_in_a_loop_sees_no_gap() {
    let (fixture, facts) = fixture("rebuild");
    let weir = Weir::new();
    imported(&weir, &fixture).await;
    let up = weir.up();
    let assessments = facts.events["AssessmentCompleted"];
    let (reading, postgres) = (Arc::new(AtomicBool::new(true)), up.postgres());
    let reader = tokio::spawn({
        let reading = reading.clone();
        async move {
            let client = weir_tests::weir::connect(&postgres).await;
            // A long transaction beside the short ones keeps what it saw first.
            let old = weir_tests::weir::connect(&postgres).await;
            old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM event_store").await.unwrap();
            let sql = "SELECT count(*) FROM assessment_read_model";
            let mut reads = 0;
            while reading.load(Ordering::SeqCst) {
                for client in [&client, &old] {
                    let count: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
                    assert_eq!(count, assessments, "a reader saw a gap");
                }
                reads += 1;
            }
            reads
        }
    });
    weir.owner().await.batch_execute(TAMPER).await.unwrap();
    assert_eq!(weir.verify_fails().len(), 3);
    let said = weir.ok(&["jobs", "run", "rebuild-read-models"]);
    for part in [
        "1 rows of assessment_read_model",
        "1 rows of user_read_model",
        "1 rows of learner_learning_paths",
        "1 rows of learner_progress_read_model",
    ] {
        assert!(said.contains(part), "{said}");
    }
    weir.verify();
    facts.hold(&weir, &up).await;
    let owner = weir.owner().await;
    owner.batch_execute("UPDATE metric_counters SET value = value + 1 WHERE label = 'UserRegistered'; DELETE FROM metric_counters WHERE label = 'AssessmentCompleted'").await.unwrap();
    assert_eq!(weir.verify_fails().len(), 2);
    assert!(weir.ok(&["rebuild", "metrics", "--accept-reset"]).contains("2 rows of metric_counters"));
    weir.verify();
    facts.hold(&weir, &up).await;
    // And again: nothing to do.
    assert!(weir.ok(&["jobs", "run", "rebuild-read-models"]).contains("nothing differed"));
    reading.store(false, Ordering::SeqCst);
    assert!(reader.await.unwrap() > 10);
    let left = "SELECT count(*) FROM pg_namespace WHERE nspname = 'weir_rebuild'";
    assert_eq!(weir.owner().await.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 0);
    up.terminate();
    weir.verify();
}

#[tokio::test]
async fn a_rebuild_beside_commands_and_lanes_loses_nothing() {
    let (fixture, facts) = fixture("rebuild_beside");
    let weir = Weir::new();
    let up = weir.up();
    let mut import = weir.start(&["import", "oulad", fixture.arg()]);
    let mut rebuilds = 0;
    while import.try_wait().unwrap().is_none() || rebuilds < 4 {
        let job = ["rebuild-read-models", "rebuild-metrics"][rebuilds % 2];
        let output = weir.run(&["jobs", "run", job]);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success()
                || words.contains("nothing to rebuild")
                || String::from_utf8_lossy(&output.stdout).contains("nothing to rebuild"),
            "{words}"
        );
        rebuilds += 1;
    }
    up.caught_up().await;
    facts.hold(&weir, &up).await;
    up.terminate();
    weir.verify();
}

async fn dies_at(failpoint: &str) {
    let (fixture, facts) = fixture("rebuild_dies");
    let weir = Weir::new();
    imported(&weir, &fixture).await;
    let up = weir.up();
    weir.owner().await.batch_execute(TAMPER).await.unwrap();
    weir.dies_at(failpoint, &["jobs", "run", "rebuild-read-models"]);
    weir.ok(&["jobs", "run", "rebuild-read-models"]);
    facts.hold(&weir, &up).await;
    let runs = weir.json(&["jobs", "history", "--job", "rebuild-read-models"]);
    let outcomes: Vec<&Value> = runs.as_array().unwrap().iter().map(|run| &run["outcome"]).collect();
    assert_eq!(outcomes, [&json!("ok"), &json!("abandoned")], "{runs}");
    up.terminate();
    weir.verify();
}

#[tokio::test]
async fn a_rebuild_dies_before_its_commit() {
    dies_at("rebuild.before_commit").await;
}

#[tokio::test]
async fn a_rebuild_dies_after_its_commit() {
    dies_at("rebuild.after_commit").await;
}

/// Waits for a run with an end.
async fn run_of(up: &Up<'_>, weir: &Weir, outcome: &str) -> Value {
    let started = Instant::now();
    loop {
        let runs = weir.json(&["jobs", "history", "--job", "verify"]);
        if let Some(run) = runs.as_array().unwrap().iter().find(|run| run["outcome"] == outcome) {
            return run.clone();
        }
        assert!(started.elapsed() < Duration::from_secs(100), "{runs}\n{}\n{}", weir.log(), up.api);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test]
async fn verify_runs_by_its_schedule_and_a_difference_is_a_metric() {
    let (fixture, _) = fixture("schedule");
    let weir = Weir::new().with("jobs.verify.schedule=\"* * * * *\"");
    imported(&weir, &fixture).await;
    let up = weir.up();
    let listed = weir.json(&["jobs", "list"]);
    assert_eq!((&listed[0]["job"], &listed[0]["schedule"]), (&json!("verify"), &json!("* * * * *")), "{listed}");
    assert!(listed[0]["due_at"].is_string() && listed[1]["due_at"].is_null(), "{listed}");
    let run = run_of(&up, &weir, "ok").await;
    assert!(
        run["due_at"].as_str().unwrap().ends_with(":00Z") && run["detail"].as_str().unwrap().contains("all equal"),
        "{run}"
    );
    let metrics = async || reqwest::get(format!("{}/metrics", up.api)).await.unwrap().text().await.unwrap();
    assert!(metrics().await.contains("weir_job_last_outcome{name=\"verify\",outcome=\"ok\"} 1"));
    weir.owner().await.batch_execute(TAMPER).await.unwrap();
    // Asked for, it says the same as the schedule would, and exits 1.
    let output = weir.run(&["jobs", "run", "verify"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.code() == Some(1) && said.contains("different: ") && said.contains("user_read_model"),
        "{said}"
    );
    assert!(metrics().await.contains("weir_job_last_outcome{name=\"verify\",outcome=\"different\"} 1"));
    up.terminate();
}

/// Runs of `cleanup`, each with its moment of the schedule.
async fn moments(weir: &Weir) -> Vec<(String, String)> {
    let sql = "SELECT due_at::text, coalesce(outcome, '') FROM job_runs WHERE job = 'cleanup' AND due_at IS NOT NULL ORDER BY due_at";
    let rows = weir.owner().await.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// What passed while no process was there, of three processes that all see it: each moment once, or none, as the settings say.
#[tokio::test]
async fn missed_moments_are_made_up_for_once_each_whoever_is_there() {
    let postgres = weir_tests::Postgres::start();
    let weir = Weir::new().on(&postgres.url());
    weir.ok(&["jobs", "list"]);
    // The last moment was ten minutes ago: none is due by itself while this runs.
    let minute = "SELECT extract(minute FROM now() - interval '10 minutes')::bigint";
    let minute: i64 = weir.owner().await.query_one(minute, &[]).await.unwrap().get(0);
    let weir = weir.with(&format!("jobs.cleanup.schedule=\"{minute} * * * *\""));
    let missed = "INSERT INTO jobs (job, scheduled_to) VALUES ('cleanup', now() - interval '3 hours 5 minutes') \
         ON CONFLICT (job) DO UPDATE SET scheduled_to = excluded.scheduled_to";
    for (catchup, expected) in [("skip", 0), ("once", 1), ("all", 3)] {
        let owner = weir.owner().await;
        owner.batch_execute("DELETE FROM job_runs").await.unwrap();
        owner.execute(missed, &[]).await.unwrap();
        let catchup = format!("jobs.cleanup.catchup={catchup}");
        let args = [
            "schedule",
            "--set",
            &catchup,
            "--set",
            "jobs.cleanup.overlap=queue",
            "--set",
            "jobs.cleanup.time_zone=UTC",
        ];
        let before = weir.log().matches("the schedule runs").count();
        let processes: Vec<_> = (0..3).map(|_| weir.start(&args)).collect();
        while weir.log().matches("the schedule runs").count() < before + processes.len() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        weir.until("SELECT scheduled_to > now() - interval '20 minutes' FROM jobs WHERE job = 'cleanup'").await;
        for mut process in processes {
            let pid = rustix::process::Pid::from_raw(i32::try_from(process.id()).unwrap()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            assert!(process.wait().unwrap().success(), "{}", weir.log());
        }
        let runs = moments(&weir).await;
        let are_ok = runs.iter().all(|(due, outcome)| due.contains(&format!(":{minute:02}:00")) && outcome == "ok");
        assert!(runs.len() == expected && are_ok, "{catchup}: {runs:?}\n{}", weir.log());
    }
    let old = "UPDATE job_runs SET ended_at = now() - interval '31 days'";
    let old = weir.owner().await.execute(old, &[]).await.unwrap();
    let said = weir.ok(&["jobs", "run", "cleanup", "--set", "maintenance.keep_runs_days=30"]);
    assert!(old == 3 && said.contains("dropped 3 runs older than 30 days"), "{said}");
}

/// A job that fails is tried again, then paused, and says so; by hand it runs all the same.
#[tokio::test]
async fn a_job_that_fails_is_tried_again_and_then_paused() {
    let postgres = weir_tests::Postgres::start();
    let weir = Weir::new()
        .on(&postgres.url())
        .with("clickhouse.url=http://127.0.0.1:1")
        .with("jobs.backfill-clickhouse.schedule=\"0 * * * *\"")
        .with("jobs.backfill-clickhouse.catchup=once")
        .with("jobs.backfill-clickhouse.retries=1")
        .with("jobs.backfill-clickhouse.pause_on_failure=true");
    weir.ok(&["jobs", "list"]);
    let missed = "INSERT INTO jobs (job, scheduled_to) VALUES ('backfill-clickhouse', now() - interval '2 hours')";
    weir.owner().await.execute(missed, &[]).await.unwrap();
    let mut schedule = weir.start(&["schedule"]);
    weir.until("SELECT count(*) = 1 FROM jobs WHERE job = 'backfill-clickhouse' AND paused_at IS NOT NULL").await;
    let runs = weir.json(&["jobs", "history", "--job", "backfill-clickhouse"]);
    let failed: Vec<&Value> = runs.as_array().unwrap().iter().map(|run| &run["outcome"]).collect();
    assert_eq!(failed, [&json!("failed"), &json!("failed")], "{runs}");
    let listed = weir.json(&["jobs", "list"]);
    let row = listed.as_array().unwrap().iter().find(|row| row["job"] == "backfill-clickhouse").unwrap();
    assert!(row["paused"].as_str().unwrap().contains("weir jobs resume backfill-clickhouse"), "{row}");
    let status = String::from_utf8_lossy(&weir.run(&["status"]).stderr).into_owned();
    assert!(status.contains("is failed: there is no history") && status.contains("is paused since"), "{status}");
    weir.ok(&["jobs", "resume", "backfill-clickhouse"]);
    weir.ok(&["jobs", "pause", "backfill-clickhouse", "--why", "until Monday"]);
    let by_hand = weir.run(&["jobs", "run", "backfill-clickhouse"]);
    let words = String::from_utf8_lossy(&by_hand.stdout).into_owned();
    assert!(
        by_hand.status.code() == Some(1) && words.contains("there is no history to fill ClickHouse from"),
        "{words}"
    );
    schedule.kill().unwrap();
    schedule.wait().unwrap();
}

/// Another scheduler's way: a request with a key, looked at until it has an end.
#[tokio::test]
async fn jobs_are_begun_and_followed_over_http() {
    let weir = Weir::new();
    let up = weir.up();
    let (admin, reader) = (up.token("default", "admin"), up.token("default", "command,read"));
    let client = reqwest::Client::new();
    let url = format!("{}/v1/jobs", up.api);
    let ask = async |token: &str, body: Value| {
        let answer = client.post(&url).bearer_auth(token).json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    assert_eq!(ask(&reader, json!({"job": "cleanup"})).await.0, 403);
    for (body, words) in [
        (json!({"job": "tidy"}), "there is no job \"tidy\": there are verify"),
        (json!({"job": "cleanup", "arguments": {"days": 1}}), "cleanup takes no arguments"),
        (json!({"job": "backfill-clickhouse", "arguments": {"from": "2024-02-01", "to": "2024-01-01"}}), "is empty"),
        (
            json!({"job": "archive-events", "arguments": {"to": "file:///etc/weir"}}),
            "over HTTP the event store is archived to archive.url",
        ),
        (json!({"job": "cleanup", "runKey": ""}), "runKey has from 1"),
    ] {
        let (status, problem) = ask(&admin, body).await;
        assert!(status == 400 && problem["detail"].as_str().unwrap().contains(words), "{problem}");
    }
    let (status, run) = ask(&admin, json!({"job": "verify", "runKey": "night 1"})).await;
    assert!(status == 202 && run["job"] == "verify" && run["runKey"] == "night 1", "{run}");
    let started = Instant::now();
    let ended = loop {
        let shown: Value =
            client.get(format!("{url}/{}", run["id"])).bearer_auth(&admin).send().await.unwrap().json().await.unwrap();
        if shown["outcome"].is_string() {
            break shown;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{shown}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert!(ended["outcome"] == "ok" && ended["endedAt"].is_string(), "{ended}");
    let (status, again) = ask(&admin, json!({"job": "verify", "runKey": "night 1"})).await;
    assert_eq!((status, &again["id"]), (200, &run["id"]));
    let listed: Value = client.get(&url).bearer_auth(&admin).send().await.unwrap().json().await.unwrap();
    let verify = listed["items"].as_array().unwrap().iter().find(|item| item["job"] == "verify").unwrap();
    assert!(
        verify["last"]["id"] == run["id"] && verify["schedule"] == "17 3 * * *" && verify["running"].is_null(),
        "{verify}"
    );
    assert_eq!(client.get(format!("{url}/999999")).bearer_auth(&admin).send().await.unwrap().status(), 404);
    // One that goes on.
    let holder = weir.owner().await;
    holder.batch_execute("SELECT pg_advisory_lock(8627, hashtext('cleanup')); INSERT INTO job_runs (job, owner) VALUES ('cleanup', 'another')").await.unwrap();
    let (status, problem) = ask(&admin, json!({"job": "cleanup"})).await;
    assert!(status == 409 && problem["detail"].as_str().unwrap().contains("another, since"), "{problem}");
    up.terminate();
}
