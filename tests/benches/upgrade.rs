//! A data directory of an older build, gone on with by this one: event store and topics, all four lanes, dead letters, repeats, and a crash of
//! the older build in the middle. `WEIR_OLDER=path/to/weir cargo bench --bench weir upgrade`: the older program is not part of the tree.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use weir_model::EventType;
use weir_model::wire::samples;
use weir_tests::weir::connect;
use weir_tests::{Kafka, binary};

use crate::all_lanes::{Stage, stop};
use crate::fill::{fill, runtime};
use crate::measure::row;

/// Events of the event store itself, and of it and topics together, before and after.
const EVENTS: [i64; 3] = [10_000, 20_000, 25_000];

/// Events of another service before and after; one in ten comes twice, and all of before once more after.
const FOREIGN: std::ops::Range<usize> = 0..2000;
const FOREIGN_AFTER: std::ops::Range<usize> = 1000..3000;

const LANES: [&str; 5] = ["run", "read-models", "metrics", "history", "clickhouse"];

const PATIENCE: Duration = Duration::from_secs(300);

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

struct Upgrade {
    stage: Stage,
    url: String,
}

impl Upgrade {
    fn ok(&self, program: &Path, args: &[&str]) {
        let output = self.stage.command_of(program, args).stdout(Stdio::piped()).output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {words}\n{}", String::from_utf8_lossy(&output.stdout));
    }

    async fn until(&self, sql: &str, wanted: i64) {
        let (client, started) = (connect(&self.url).await, Instant::now());
        loop {
            let found: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
            if found >= wanted {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{sql}: {found} of {wanted}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn publish(&self, program: &Path, events: i64) {
        fill(&self.url, events).await;
        let mut publisher = self.start(program, &["publish"]);
        self.until("SELECT position FROM publisher", events).await;
        stop(&mut publisher);
    }

    fn start(&self, program: &Path, args: &[&str]) -> Child {
        self.stage.command_of(program, args).spawn().unwrap()
    }

    /// Until every lane has every session of the other service once.
    async fn arrive(&self, program: &Path, foreign: usize) {
        let mut lanes = self.start(program, &LANES);
        let sql = "SELECT count(*) FROM learning_session_read_model WHERE id LIKE 'foreign-%'";
        self.until(sql, i64::try_from(foreign).unwrap()).await;
        self.ok(program, &["verify", "--wait", "120"]);
        stop(&mut lanes);
    }
}

pub(crate) fn run() {
    let Some(older) = std::env::var_os("WEIR_OLDER") else {
        row("upgrade", "not run: WEIR_OLDER names no older weir", "", "", "");
        return;
    };
    runtime().block_on(upgrade(Path::new(&older)));
}

async fn upgrade(older: &Path) {
    let stage = Stage::start();
    let url = stage.postgres.url();
    let mut upgrade = Upgrade { stage, url };
    let newer = binary().clone();
    upgrade.ok(older, &["up", "--until-caught-up"]);
    fill(&upgrade.url, EVENTS[0]).await;
    upgrade.ok(older, &["up", "--until-caught-up"]);
    upgrade.ok(older, &["verify"]);
    let kafka = Kafka::start();
    let brokers = kafka.brokers();
    // Events of 2024 would fall to the retention that `weir topics apply` sets.
    crate::kafka::make_topics(&kafka, "").await;
    upgrade.stage.kafka = Some(kafka);
    upgrade.ok(older, &["source", "switch", "kafka"]);
    upgrade.publish(older, EVENTS[1]).await;
    produce(&brokers, FOREIGN);
    // Not to the end: this one dies.
    let mut lanes = upgrade.start(older, &LANES);
    upgrade.until("SELECT coalesce(sum(next_offset), 0)::bigint FROM ledger WHERE retired_at IS NULL", EVENTS[1]).await;
    lanes.kill().unwrap();
    lanes.wait().unwrap();
    produce(&brokers, FOREIGN_AFTER);
    upgrade.publish(&newer, EVENTS[2]).await;
    upgrade.ok(&newer, &["clickhouse", "migrate"]);
    upgrade.arrive(&newer, FOREIGN_AFTER.end).await;
    row("upgrade of a data directory of an older build", "every sink equal", "", "", "");
}
