//! Does the whole path hold through real brokers: event store, publisher, topics, lanes (P3 to P6)?

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::json;
use weir_model::EventType;
use weir_model::wire::samples;
use weir_tests::kafka::tool;
use weir_tests::weir::try_connect;
use weir_tests::{Facts, Fixture, Kafka, Up, Weir, seed};

mod attempts;
mod clickhouse;
mod faults;
mod hostile;
mod learning_records;
mod let_go;
mod own;
mod read_again;
mod rebuild;
mod records;
mod rounds;
mod security;
mod tap;
mod topics;

const ROWS: usize = 6_000;

/// Brokers with their topics, a data directory, input for it, and what must come of it.
struct Stream {
    kafka: Kafka,
    weir: Weir,
    fixture: Fixture,
    facts: Facts,
}

impl Stream {
    /// On one broker.
    fn new(name: &str) -> Self {
        Self::on(Kafka::start(), name)
    }

    fn on(kafka: Kafka, name: &str) -> Self {
        let weir = on(&kafka);
        Self::with(kafka, weir, name)
    }

    fn with(kafka: Kafka, weir: Weir, name: &str) -> Self {
        let fixture = Fixture::new(ROWS, seed(name));
        let facts = Facts::of_input(fixture.path());
        apply_topics(&weir);
        Self { kafka, weir, fixture, facts }
    }

    /// Everything into the event store.
    fn import(&self) {
        self.weir.ok(&["import", "oulad", self.fixture.arg()]);
    }

    /// The same beside what else happens.
    fn start_import(&self) -> Child {
        self.weir.start(&["import", "oulad", self.fixture.arg()])
    }

    fn run_lanes(&self) -> Child {
        self.weir.start(&["run", "read-models", "metrics", "history"])
    }

    /// Waits until everything is in the topics.
    async fn published(&self) {
        let owner = self.weir.owner().await;
        until(&self.weir, 120, async || {
            let sql = "SELECT (SELECT max(id) FROM events), position FROM publisher";
            let row = owner.query_one(sql, &[]).await.unwrap();
            let (head, position): (i64, i64) = (row.get(0), row.get(1));
            if head == position { Ok(()) } else { Err((head, position)) }
        })
        .await;
    }

    async fn agrees(&self) {
        agrees(&self.weir, &self.facts).await;
    }

    /// One of Kafka's own tools, on these brokers.
    fn tool(&self, main: &str, args: &[&str]) -> String {
        let brokers = self.kafka.brokers();
        let output = tool(main).args(["--bootstrap-server", &brokers]).args(args).output().unwrap();
        assert!(output.status.success(), "{main} {args:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stdout).unwrap()
    }
}

const TOPIC_TOOL: &str = "org.apache.kafka.tools.TopicCommand";
const CONSUMER_TOOL: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";
const GROUP_TOOL: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";

pub(crate) fn signal(child: &Child, signal: Signal) {
    rustix::process::kill_process(Pid::from_child(child), signal).unwrap();
}

pub(crate) fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Waits until a condition holds, and says what was seen last when it does not.
pub(crate) async fn until<T: std::fmt::Debug>(weir: &Weir, seconds: u64, mut look: impl AsyncFnMut() -> Result<(), T>) {
    let started = Instant::now();
    while let Err(seen) = look().await {
        assert!(started.elapsed() < Duration::from_secs(seconds), "{seen:?}\n{}", weir.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Another service's event.
fn session_of(id: &str) -> serde_json::Value {
    let mut data = samples::one(EventType::LearningSessionStarted);
    data["sessionId"] = json!(id);
    json!({"eventId": format!("e-{id}"), "eventType": "LearningSessionStarted", "version": "1.0.0", "source": "lms",
        "timestamp": "2024-01-15T10:30:00Z", "data": data, "schema": "theirs"})
}

/// How many sessions the read models, the counters and history have.
async fn sessions(weir: &Weir) -> [i64; 3] {
    // Processes that were only just started may not be that far.
    if !weir.path().join("secrets.json").exists() {
        return [-1; 3];
    }
    let Ok(owner) = try_connect(&weir.owner_url()).await else { return [-2; 3] };
    let sql = "SELECT coalesce((SELECT value FROM metric_counters WHERE name = 'learning_sessions_started_total'), 0), \
               (SELECT count(*) FROM learning_session_read_model)";
    let Ok(row) = owner.query_one(sql, &[]).await else { return [-3; 3] };
    let history = "SELECT count(*) AS n FROM events WHERE event_type = 'LearningSessionStarted'";
    [row.get(0), row.get(1), weir.json(&["sql", history])[0]["n"].as_i64().unwrap()]
}

async fn sessions_are(weir: &Weir, expected: i64) {
    until(weir, 90, async || {
        let found = sessions(weir).await;
        if found == [expected; 3] { Ok(()) } else { Err((found, expected)) }
    })
    .await;
}

/// On these brokers, with small batches and transactions: many commits, so many places to die.
pub(crate) fn on(kafka: &Kafka) -> Weir {
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
pub(crate) fn apply_topics(weir: &Weir) {
    weir.ok(&["topics", "apply"]);
}

/// Waits until everything is in every sink; [`Facts::hold`] says whether it is there once.
async fn arrived(weir: &Weir, facts: &Facts, up: &Up<'_>) {
    let owner = weir.owner().await;
    let (mut moved_at, mut last) = (Instant::now(), (0, 0, 0));
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
        // However slow the machine is, something moves.
        if last != (applied, history, rows) {
            (moved_at, last) = (Instant::now(), (applied, history, rows));
        }
        assert!(
            moved_at.elapsed() < Duration::from_secs(60),
            "nothing moves at {applied} applied, {history} in history, {rows} rows, of {}: {}\n{}",
            facts.total(),
            up.status(),
            weir.log()
        );
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// As an operator ends a command that was started; must end well.
pub(crate) fn terminate(mut child: Child) {
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

    let stream = Stream { kafka, weir, fixture, facts };
    let count = stream.facts.total() - expected;
    let args = [
        "--isolation-level",
        "read_committed",
        "--from-beginning",
        "--include",
        "user_events|content_events|agent_events",
    ];
    let more = ["--property", "print.headers=true", "--property", "print.key=true", "--max-messages"];
    let read = stream.tool(CONSUMER_TOOL, &[&args[..], &more[..], &[&count.to_string()]].concat());
    assert_eq!(read.lines().count(), usize::try_from(count).unwrap(), "{read}");
    let registered = read.lines().find(|line| line.starts_with("eventType:UserRegistered,")).unwrap();
    assert!(registered.contains("\tstudent") || registered.contains("\"aggregateType\":\"User\""), "{registered}");

    let groups = stream.tool(GROUP_TOOL, &["--list"]);
    for lane in ["read-models", "metrics", "history"] {
        assert!(groups.contains(&format!("weir-{lane}")), "{groups}");
    }
    waited_for_and_traced(&stream).await;
}

/// Whoever wrote can wait until it can read; and an event's way shows in every place.
async fn waited_for_and_traced(stream: &Stream) {
    let up = stream.weir.up();
    let token = up.token("default", "command,read");
    let client = reqwest::Client::new();
    for n in 0..5 {
        let mut data = samples::one(EventType::LearningSessionStarted);
        data["sessionId"] = json!(format!("mine-{n}"));
        let post = client.post(format!("{}/v1/commands/StartLearningSession", up.api)).bearer_auth(&token);
        let answer: serde_json::Value = post.json(&data).send().await.unwrap().json().await.unwrap();
        for lane in ["read-models", "metrics", "history"] {
            let url = format!("{}/v1/lanes/{lane}?wait_for={}", up.api, answer["position"]);
            let reached: serde_json::Value =
                client.get(url).bearer_auth(&token).send().await.unwrap().json().await.unwrap();
            assert_eq!(reached["reached"], true, "{lane} {answer}\n{}", stream.weir.log());
        }
        let position = answer["position"].to_string();
        stream.weir.ok(&["sql", "--wait-for", &position, "SELECT 1"]);
        let sql = format!("SELECT count(*) FROM learning_session_read_model WHERE id = 'mine-{n}'");
        assert_eq!(stream.weir.owner().await.query_one(&sql, &[]).await.unwrap().get::<_, i64>(0), 1);
        if n == 4 {
            let sql = format!("SELECT event_id::text FROM events WHERE id = {}", answer["position"]);
            let id: String = stream.weir.owner().await.query_one(&sql, &[]).await.unwrap().get(0);
            let trace = stream.weir.json(&["trace", &id]);
            let state = |place: &str| trace.as_array().unwrap().iter().find(|row| row["place"] == place).cloned();
            assert_eq!(state("topics").unwrap()["state"], "published", "{trace}");
            for lane in ["read-models", "metrics", "history"] {
                assert_eq!(state(&format!("ledger of {lane}")).unwrap()["state"], "applied", "{trace}");
            }
        }
    }
    up.terminate();
    stream.weir.verify();
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
        "publisher.between_progress",
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
    let (started, token) = (Instant::now(), up.token("default", "admin"));
    loop {
        let ready = up.readiness(&token).await;
        let trouble = ready["lanes"]["history"]["trouble"].as_str().unwrap_or_default().to_owned();
        if trouble.contains("weir source switch kafka") {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{ready}\n{}", weir.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    up.kill();
    // The same comparisons as before, and that nothing was published is said.
    let table = weir.verify();
    let (short, compared): (Vec<_>, Vec<_>) =
        table.as_array().unwrap().iter().partition(|row| row["subject"] == "(progress)");
    assert_eq!(compared.len(), before.as_array().unwrap().len());
    assert!(short.iter().any(|row| row["lane"] == "publisher" && row["sink_count"] == 0), "{table}");

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

/// Two processes share each lane's partitions. One is stopped beyond its session's end, the other takes over, the first goes on
/// (P6); then one is killed.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_was_stopped_goes_on_after_another_took_its_partitions() {
    let kafka = Kafka::start();
    let weir = on(&kafka);
    let fixture = Fixture::new(ROWS, seed("kafka::stopped"));
    let facts = Facts::of_input(fixture.path());
    apply_topics(&weir);
    let run = || weir.start(&["run", "read-models", "metrics", "history"]);
    let (first, mut second) = (run(), run());
    let published = weir.start(&["publish"]);
    let mut import = weir.start(&["import", "oulad", fixture.arg()]);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let signal = |signal| rustix::process::kill_process(Pid::from_child(&first), signal).unwrap();
    signal(Signal::STOP);
    // Past the session's 6 s: its partitions are the other's now.
    tokio::time::sleep(Duration::from_secs(14)).await;
    signal(Signal::CONT);
    tokio::time::sleep(Duration::from_secs(3)).await;
    second.kill().unwrap();
    second.wait().unwrap();
    assert!(import.wait().unwrap().success(), "{}", weir.log());
    terminate(published);
    terminate(first);
    agrees(&weir, &facts).await;
}

fn kcat(kafka: &Kafka, args: &[&str], input: &str) -> String {
    let mut kcat = Command::new("kcat");
    kcat.args(["-b", &kafka.brokers()]).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = kcat.spawn().expect("kcat runs; install Debian's kcat");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
