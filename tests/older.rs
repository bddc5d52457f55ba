//! Does this weir go on with what an older one left: event store and topics, all four lanes, dead letters, repeats, a crash in the middle?
//!
//! `older/641ac87.tar.xz` is what weir of that commit left: before lanes shared their reading, before one index remembered the ids of
//! other services, and with ClickHouse's wider table. `OLDER_WEIR=path/to/weir cargo test --test weir older::pack -- --nocapture` makes one.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::json;
use tempfile::TempDir;
use weir_model::EventType;
use weir_model::wire::samples;
use weir_tests::fill::fill;
use weir_tests::weir::connect;
use weir_tests::{ClickHouse, Kafka, Postgres, Weir, root};

/// Events of the event store while that was the source, of it when the older weir died, and after this one went on.
const EVENTS: [i64; 3] = [10_000, 20_000, 21_000];

/// Events of another service before and after; one in ten comes twice, and half of before once more after.
const FOREIGN: std::ops::Range<usize> = 0..2000;
const FOREIGN_AFTER: std::ops::Range<usize> = 1000..3000;

/// What is no event, each time that the other service sends: two in each of three partitions.
const NO_EVENTS: i64 = 6;

const LANES: [&str; 5] = ["run", "read-models", "metrics", "history", "clickhouse"];

const PATIENCE: Duration = Duration::from_secs(120);

/// Three servers, and a weir on them.
struct Stage {
    weir: Weir,
    postgres: Postgres,
    clickhouse: ClickHouse,
    kafka: Kafka,
}

impl Stage {
    /// `left` holds what servers had that ended.
    fn start(left: Option<&Path>) -> Self {
        let postgres = Postgres::start();
        let put = |name: &str, to: &Path| {
            if let Some(left) = left {
                fs::remove_dir(to).ok();
                run(Command::new("cp").arg("-a").arg(left.join(name)).arg(to));
            }
        };
        let (clickhouse, ()) = ClickHouse::start_with(|to| put("clickhouse", to));
        let kafka = Kafka::start_on(|to| put("kafka", to));
        let topics = ["user_events", "content_events", "learning_events", "agent_events", "general_events"];
        let weir = Weir::new()
            .on(&postgres.url())
            .with_all(clickhouse.settings())
            // The events are of 2024, and retention goes by their own time.
            .with_all(topics.map(|topic| format!("kafka.topics.{topic}.retention_ms=-1")));
        put("data", &weir.path());
        if let Some(left) = left {
            load(&postgres.url(), &left.join("postgres.sql"));
        }
        Self { weir, postgres, clickhouse, kafka }
    }

    /// From here on with brokers.
    fn on_topics(self) -> Self {
        let brokers = format!("kafka.brokers={}", self.kafka.brokers());
        Self { weir: self.weir.with(&brokers), ..self }
    }

    fn ok(&self, program: &Path, args: &[&str]) {
        run(self.weir.command_of(program, args).stdout(Stdio::null()));
    }

    async fn until(&self, sql: &str, wanted: i64) {
        let (client, started) = (connect(&self.postgres.url()).await, Instant::now());
        loop {
            let found: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
            if found >= wanted {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{sql}: {found} of {wanted}\n{}", self.weir.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn publish(&self, program: &Path, events: i64) {
        fill(&self.postgres.url(), events).await;
        let mut publisher = self.weir.command_of(program, &["publish"]).stderr(Stdio::null()).spawn().unwrap();
        self.until("SELECT coalesce(max(position), 0) FROM publisher", events).await;
        stop(&mut publisher);
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn stop(child: &mut Child) {
    rustix::process::kill_process(Pid::from_child(child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

/// A database as `pg_dump` wrote it, and the roles before it.
fn load(url: &str, dump: &Path) {
    run(Command::new("psql").args([url, "-q", "-X", "-v", "ON_ERROR_STOP=1", "-f"]).arg(dump));
}

/// The statements that any version since 15 knows; the server has its owner already.
fn dump(url: &str, to: &Path) {
    let mut sql = String::new();
    for (program, args) in [("pg_dumpall", ["--globals-only", "--dbname"]), ("pg_dump", ["--format=plain", "--dbname"])]
    {
        let output = Command::new(program).args(args).arg(url).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        sql.push_str(&String::from_utf8(output.stdout).unwrap());
    }
    let is_of_all = |line: &&str| {
        !["\\restrict", "\\unrestrict", "SET transaction_timeout", "CREATE ROLE weir;", "ALTER ROLE weir WITH"]
            .iter()
            .any(|start| line.starts_with(start))
    };
    let lines: Vec<&str> = sql.lines().filter(is_of_all).collect();
    fs::write(to, lines.join("\n") + "\n").unwrap();
}

fn session(n: usize) -> String {
    let mut data = samples::one(EventType::LearningSessionStarted);
    data["sessionId"] = json!(format!("foreign-{n}"));
    json!({"eventId": format!("foreign-{n}"), "eventType": "LearningSessionStarted", "version": "1.0.0", "source": "lms",
        "timestamp": "2024-03-01T10:30:00Z", "data": data})
    .to_string()
}

/// To any partition, some twice, and two that are no events.
fn produce(brokers: &str, numbers: std::ops::Range<usize>) {
    for partition in 0..3_usize {
        let of_partition = numbers.clone().filter(|n| n % 3 == partition);
        let mut lines: Vec<String> = of_partition.map(session).collect();
        lines.extend(numbers.clone().filter(|n| n % 10 == partition).map(session));
        lines.extend(["no event".to_owned(), r#"{"eventType":"LearningSessionStarted"}"#.to_owned()]);
        let args = ["-P", "-b", brokers, "-t", "learning_events", "-p", &partition.to_string()].map(str::to_owned);
        let mut kcat = Command::new("kcat").args(args).stdin(Stdio::piped()).spawn().unwrap();
        kcat.stdin.take().unwrap().write_all(lines.join("\n").as_bytes()).unwrap();
        assert!(kcat.wait().unwrap().success(), "kcat");
    }
}

fn packed() -> PathBuf {
    root().join("tests/older/641ac87.tar.xz")
}

/// Makes what the other test goes on with.
#[tokio::test]
async fn pack() {
    let Some(older) = std::env::var_os("OLDER_WEIR").map(PathBuf::from) else {
        eprintln!("NOT RUN: nothing is packed, since OLDER_WEIR names no older weir");
        return;
    };
    let stage = Stage::start(None);
    stage.ok(&older, &["up", "--until-caught-up"]);
    fill(&stage.postgres.url(), EVENTS[0]).await;
    stage.ok(&older, &["up", "--until-caught-up"]);
    stage.ok(&older, &["verify"]);
    let mut stage = stage.on_topics();
    stage.ok(&older, &["topics", "apply"]);
    stage.ok(&older, &["source", "switch", "kafka"]);
    stage.publish(&older, EVENTS[1]).await;
    produce(&stage.kafka.brokers(), FOREIGN);
    // Not to the end: this one dies.
    let mut lanes = stage.weir.command_of(&older, &LANES).stderr(Stdio::null()).spawn().unwrap();
    stage.until("SELECT coalesce(sum(next_offset), 0)::bigint FROM ledger WHERE retired_at IS NULL", EVENTS[1]).await;
    lanes.kill().unwrap();
    lanes.wait().unwrap();
    let dir = tempfile::tempdir().unwrap();
    dump(&stage.postgres.url(), &dir.path().join("postgres.sql"));
    stage.clickhouse.kill();
    stage.kafka.terminate();
    let parts = [("data", stage.weir.path()), ("clickhouse", stage.clickhouse.path()), ("kafka", stage.kafka.data())];
    for (name, from) in parts {
        run(Command::new("cp").arg("-a").arg(from).arg(dir.path().join(name)));
    }
    // The server that goes on with it writes its own.
    for name in ["config.xml", "users.xml", "status"] {
        fs::remove_file(dir.path().join("clickhouse").join(name)).unwrap();
    }
    fs::create_dir_all(packed().parent().unwrap()).unwrap();
    run(Command::new("tar").args(["--sparse", "--sort=name", "--owner=0", "--group=0", "-C"]).arg(dir.path()).args([
        "-cJf",
        packed().to_str().unwrap(),
        "postgres.sql",
        "data",
        "clickhouse",
        "kafka",
    ]));
    println!("{}: {} bytes", packed().display(), fs::metadata(packed()).unwrap().len());
}

fn unpacked() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    run(Command::new("tar").arg("-C").arg(dir.path()).arg("-xJf").arg(packed()));
    dir
}

#[tokio::test]
async fn what_an_older_weir_left_is_gone_on_with() {
    let left = unpacked();
    let stage = Stage::start(Some(left.path())).on_topics();
    let weir = weir_tests::binary();
    produce(&stage.kafka.brokers(), FOREIGN_AFTER);
    stage.publish(weir, EVENTS[2]).await;
    stage.ok(weir, &["clickhouse", "migrate"]);
    let mut lanes = stage.weir.start(&LANES);
    let foreign = i64::try_from(FOREIGN_AFTER.end).unwrap();
    let sql = "SELECT count(*) FROM learning_session_read_model WHERE id LIKE 'foreign-%'";
    stage.until(sql, foreign).await;
    stage.weir.ok(&["verify", "--wait", "60"]);
    stop(&mut lanes);
    // Each event once, whichever weir wrote it.
    let all = EVENTS[2] + foreign;
    let applied = "SELECT sum(value)::bigint FROM metric_counters WHERE name = 'events_applied_total'";
    let client = connect(&stage.postgres.url()).await;
    assert_eq!(client.query_one(applied, &[]).await.unwrap().get::<_, i64>(0), all);
    let dead = "SELECT count(DISTINCT (topic, partition, \"offset\")) FROM dead_letters WHERE lane = 'metrics'";
    assert_eq!(client.query_one(dead, &[]).await.unwrap().get::<_, i64>(0), 2 * NO_EVENTS);
    let rows = stage.weir.json(&["sql", "SELECT count(*) AS n, count(DISTINCT event_id) AS ids FROM events"]);
    assert_eq!((&rows[0]["n"], &rows[0]["ids"]), (&json!(all), &json!(all)));
    assert_eq!(
        stage.clickhouse.sql("SELECT count(), uniqExact(event_id) FROM weir.events").await,
        format!("{all}\t{all}")
    );
}
