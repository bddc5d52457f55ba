//! Does each setting do something?

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::json;
use weir_model::EventType;
use weir_model::wire::samples;
use weir_tests::{Weir, root};

/// Settings that no test here sets, and why.
const NOT_SET: [(&str, &str); 17] = [
    ("append.bytes_max", "a bound of one batch; that batches are cut is seen by records"),
    ("append.queue_max", "memory under load: the benchmark `append` runs with it"),
    ("clickhouse.cluster", "its statements are tested in the crate; a cluster is not"),
    ("clickhouse.database", "each test has a server of its own"),
    ("demo.events_per_second", "the demo's own flag --rate stands for it"),
    ("durations.execution_time", "units of reading: `model/src/project/metrics.rs`"),
    ("durations.processing", "units of reading: `model/src/project/metrics.rs`"),
    ("jobs.*.timeout_s", "whole seconds, which no job of a test takes; the runner's own loop ends a run by it"),
    ("kafka.group_prefix", "names the groups that kafka.rs looks at by their default"),
    ("kafka.topics.*.cleanup", "compared with the brokers by `weir topics diff`, as all of a topic's settings"),
    ("kafka.topics.*.min_in_sync", "compared with the brokers by `weir topics diff`, as all of a topic's settings"),
    ("kafka.topics.*.replication", "three brokers: kafka/rounds.rs runs with the default"),
    ("kafka.topics.*.retention_ms", "the brokers' own clock; kafka/topics.rs trims by hand"),
    ("postgres.connections_max", "the pool's own size"),
    ("postgres.statement_timeout_ms", "Postgres' own setting of each session"),
    ("publisher.transaction_timeout_ms", "the brokers' own limit"),
    ("publisher.transactional_id", "the publishers of kafka/faults.rs fence each other by its default"),
];

/// Lanes, topics and jobs have the same settings each; what one shows holds for all.
fn family(key: &str) -> String {
    let parts: Vec<&str> = key.split('.').collect();
    match parts[..] {
        ["lanes", _, leaf] => format!("lanes.*.{leaf}"),
        ["jobs", _, leaf] => format!("jobs.*.{leaf}"),
        ["kafka", "topics", _, leaf] => format!("kafka.topics.*.{leaf}"),
        _ => key.to_owned(),
    }
}

fn tests_text(dir: &Path) -> String {
    let mut text = String::new();
    for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() && !path.ends_with("benches") && !path.ends_with("fuzz") {
            text += &tests_text(&path);
        } else if path.extension().is_some_and(|end| end == "rs") {
            // The list above is no test.
            let source = fs::read_to_string(&path).unwrap();
            text += source.split("/// Lanes, topics and jobs have").last().unwrap_or_default();
        }
    }
    text
}

#[test]
fn each_setting_is_set_by_a_test_or_says_why_not() {
    let weir = Weir::new();
    let text = tests_text(&root().join("tests"));
    let (mut seen, mut missing) = (BTreeSet::new(), BTreeSet::new());
    for row in weir.json(&["config", "show"]).as_array().unwrap() {
        let key = row["setting"].as_str().unwrap();
        if text.contains(key) {
            seen.insert(family(key))
        } else {
            missing.insert(family(key))
        };
    }
    assert!(seen.len() > 40, "{seen:?}");
    let listed: BTreeSet<String> = NOT_SET.iter().map(|(key, _)| (*key).to_owned()).collect();
    let unseen: BTreeSet<String> = missing.difference(&seen).cloned().collect();
    assert_eq!(unseen, listed, "settings that no test sets, and the list of those with a reason");
}

async fn post(weir_api: &str, token: &str, padding: usize) -> (u16, String, Duration) {
    let mut data = samples::one(EventType::LearningSessionStarted);
    (data["sessionId"], data["x"]) = (json!(format!("s-{padding}")), json!("x".repeat(padding)));
    let started = Instant::now();
    let url = format!("{weir_api}/v1/commands/StartLearningSession");
    let answer = Client::new().post(url).bearer_auth(token).json(&data).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap(), started.elapsed())
}

#[tokio::test]
async fn limits_of_bodies_and_of_queries_bind() {
    let weir = Weir::new().with("api.bodies_bytes_max=600000").with("api.body_bytes_per_second=65536");
    let up = weir.up();
    let token = up.token("default", "command");
    let (status, _, taken) = post(&up.api, &token, 100).await;
    assert_eq!(status, 201);
    assert!(taken < Duration::from_secs(2), "a small body has no pace: {taken:?}");
    // A second's worth comes at once, the rest by the pace.
    let (status, _, taken) = post(&up.api, &token, 200_000).await;
    assert!(status == 201 && taken > Duration::from_millis(1500), "{status} after {taken:?}");
    let (status, words, _) = post(&up.api, &token, 400_000).await;
    assert!(status == 413 && words.contains("api.bodies_bytes_max"), "{status} {words}");
    up.caught_up().await;
    up.terminate();
    let hungry = "SELECT a.event_id FROM events a, events b, generate_series(1, 200000) ORDER BY 1";
    let refused = weir.run(&["sql", hungry, "--set", "sql.memory_max_bytes=1000000"]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && words.contains("memory"), "{words}");
}
