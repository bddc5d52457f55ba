//! Does the whole path hold through real brokers: event store, publisher, topics, lanes (P3 to P6)?

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::json;
use weir_model::EventType;
use weir_model::wire::samples;
use weir_tests::kafka::tool;
use weir_tests::{Facts, Fixture, Kafka, Up, Weir, seed};

const ROWS: usize = 6_000;

/// On these brokers, with small batches and transactions: many commits, so many places to die.
fn on(kafka: &Kafka) -> Weir {
    let brokers = kafka.brokers();
    let mut weir = Weir::new().with(&format!("kafka.brokers={brokers}"));
    for setting in [
        "publisher.records_max=300",
        "lanes.read-models.records_max=800",
        "lanes.metrics.records_max=800",
        "lanes.history.records_max=1500",
        "publisher.takeover_after_ms=5000",
        "kafka.consumer.session.timeout.ms=6000",
    ] {
        weir = weir.with(setting);
    }
    weir
}

/// On one broker there are warnings, which are no failure.
fn apply_topics(weir: &Weir) {
    weir.ok(&["topics", "apply"]);
}

/// Waits until everything is in every sink; [`Facts::hold`] says whether it is there once.
async fn arrived(weir: &Weir, facts: &Facts, up: &Up<'_>) {
    let owner = weir.owner().await;
    let started = Instant::now();
    let users: i64 = facts.results.values().sum();
    loop {
        let sql = "SELECT (SELECT coalesce(sum(value), 0)::bigint FROM metric_counters WHERE name = 'events_applied_total'), \
                   (SELECT count(*) FROM user_read_model WHERE preferences ? 'finalResult') \
                   + (SELECT count(*) FROM learning_session_read_model) + (SELECT count(*) FROM assessment_read_model)";
        let row = owner.query_one(sql, &[]).await.unwrap();
        let (applied, rows): (i64, i64) = (row.get(0), row.get(1));
        let history = weir.json(&["sql", "SELECT count(*) AS n FROM events"])[0]["n"].as_i64().unwrap();
        let streams = facts.events["LearningSessionStarted"] + facts.events["AssessmentCompleted"];
        if applied >= facts.total() && history >= facts.total() && rows >= users + streams {
            return;
        }
        assert!(
            started.elapsed() < Duration::from_secs(120),
            "{applied} applied, {history} in history, {rows} rows, of {}: {}\n{}",
            facts.total(),
            up.status(),
            weir.log()
        );
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// As an operator ends a command that was started; must end well.
fn terminate(mut child: Child) {
    rustix::process::kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

async fn agrees(weir: &Weir, facts: &Facts) {
    let up = weir.up();
    arrived(weir, facts, &up).await;
    facts.hold(weir, &up).await;
    weir.verify();
    up.terminate();
    weir.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_number_agrees_through_one_broker_and_other_clients_read_it() {
    let kafka = Kafka::start();
    let weir = on(&kafka);
    let fixture = Fixture::new(ROWS, seed("kafka"));
    let facts = Facts::of_input(fixture.path());
    apply_topics(&weir);
    assert_eq!(weir.json(&["topics", "diff"]), serde_json::json!([]));
    weir.ok(&["import", "oulad", fixture.arg()]);
    agrees(&weir, &facts).await;

    let kcat = |args: &[&str]| {
        let output = Command::new("kcat")
            .args(["-b", &kafka.brokers(), "-X", "isolation.level=read_committed"])
            .args(args)
            .output();
        let output = output.expect("kcat runs; install Debian's kcat");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let read = kcat(&["-C", "-t", "learning_events", "-o", "beginning", "-e", "-q", "-f", "%k\t%h\t%s\n"]);
    let expected = facts.events["LearningSessionStarted"] + facts.events["AssessmentCompleted"];
    assert_eq!(read.lines().count(), usize::try_from(expected).unwrap());
    let line = read.lines().next().unwrap();
    let fields: Vec<&str> = line.split('\t').collect();
    for header in ["eventType=", "version=", "source=", "correlationId=", "timestamp="] {
        assert!(fields[1].contains(header), "{line}");
    }
    assert!(fields[2].contains(&format!("\"aggregateId\":\"{}\"", fields[0])), "{line}");

    let groups = tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand")
        .args(["--bootstrap-server", &kafka.brokers(), "--list"])
        .output()
        .unwrap();
    let groups = String::from_utf8(groups.stdout).unwrap();
    for lane in ["read-models", "metrics", "history"] {
        assert!(groups.contains(&format!("weir-{lane}")), "{groups}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_dies_at_each_failpoint_of_publisher_and_lanes() {
    let kafka = Kafka::start();
    let weir = on(&kafka);
    let fixture = Fixture::new(ROWS, seed("kafka::failpoints"));
    let facts = Facts::of_input(fixture.path());
    apply_topics(&weir);
    weir.ok(&["import", "oulad", fixture.arg()]);
    // The publisher alone, then each lane alone: whoever is not asked has not done the work meanwhile.
    for failpoint in [
        "publisher.after_take_over",
        "publisher.after_begin:2",
        "publisher.before_commit:3",
        "publisher.after_commit:4",
    ] {
        weir.dies_at(failpoint, &["publish"]);
    }
    let published = weir.start(&["publish"]);
    let deaths = [
        ("read-models", &["claim.after_ledger", "read-models.before_commit", "read-models.after_commit"][..]),
        ("metrics", &["metrics.before_commit", "metrics.after_commit"]),
        (
            "history",
            &[
                "claim.after_history_fence",
                "history.after_data_files",
                "history.before_delta_commit",
                "history.after_delta_commit",
                "history.after_sync",
                "history.after_ledger",
            ],
        ),
    ];
    for (lane, failpoints) in deaths {
        for failpoint in failpoints {
            weir.dies_at(failpoint, &["run", lane]);
        }
    }
    terminate(published);
    agrees(&weir, &facts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_data_directory_moves_over_and_no_number_changes() {
    let kafka = Kafka::start();
    let embedded = Weir::new();
    let fixture = Fixture::new(ROWS, seed("kafka::switch"));
    let facts = Facts::of_input(fixture.path());
    embedded.ok(&["import", "oulad", fixture.arg()]);
    embedded.ok(&["up", "--until-caught-up"]);
    let before = embedded.verify();
    let weir = embedded.with(&format!("kafka.brokers={}", kafka.brokers()));
    // Without the switch each event would come a second time: the lanes refuse, and say what to do.
    apply_topics(&weir);
    let up = weir.up();
    let started = Instant::now();
    loop {
        let ready: serde_json::Value = reqwest::get(format!("{}/readyz", up.api)).await.unwrap().json().await.unwrap();
        let trouble = ready["lanes"]["history"]["trouble"].as_str().unwrap_or_default().to_owned();
        if trouble.contains("weir source switch kafka") {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{ready}\n{}", weir.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    up.kill();
    assert_eq!(weir.verify().as_array().unwrap().len(), before.as_array().unwrap().len());

    weir.ok(&["source", "switch", "kafka"]);
    weir.ok(&["source", "switch", "kafka"]);
    let up = weir.up();
    facts.hold(&weir, &up).await;
    let token = up.token("default", "command,read");
    for n in 0..20 {
        let mut data = samples::one(EventType::LearningSessionStarted);
        data["sessionId"] = json!(format!("after-{n}"));
        let post = reqwest::Client::new().post(format!("{}/v1/commands/StartLearningSession", up.api));
        assert_eq!(post.bearer_auth(&token).json(&data).send().await.unwrap().status(), 201);
    }
    let more = facts.events["LearningSessionStarted"] + 20;
    let owner = weir.owner().await;
    loop {
        let sql = "SELECT (SELECT value FROM metric_counters WHERE name = 'learning_sessions_started_total'), \
                   (SELECT count(*) FROM learning_session_read_model)";
        let row = owner.query_one(sql, &[]).await.unwrap();
        let sessions = "SELECT count(*) AS n FROM events WHERE event_type = 'LearningSessionStarted'";
        let history = weir.json(&["sql", sessions])[0]["n"].as_i64().unwrap();
        let found = [row.get(0), row.get(1), history];
        if found == [more; 3] {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(120), "{found:?} of {more}\n{}", weir.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    weir.verify();
    up.terminate();
    weir.verify();
}
