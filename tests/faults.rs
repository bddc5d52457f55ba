//! What goes on, and what is refused, when the world around a lane breaks?

use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::{Value, json};
use weir_model::EventType;
use weir_model::wire::samples;
use weir_tests::{Up, Weir};

mod disks;
mod postgres;
mod processes;

async fn start_sessions(up: &Up<'_>, token: &str, ids: std::ops::Range<usize>) {
    for id in ids {
        let mut data = samples::one(EventType::LearningSessionStarted);
        data["sessionId"] = json!(format!("session-{id}"));
        let post = Client::new().post(format!("{}/v1/commands/StartLearningSession", up.api));
        assert_eq!(post.bearer_auth(token).json(&data).send().await.unwrap().status(), 201);
    }
}

/// Sends until it is answered, as a good client does: the same key each time. Gives the answer.
async fn start_session_at_last(up: &Up<'_>, token: &str, id: &str) -> Value {
    let mut data = samples::one(EventType::LearningSessionStarted);
    data["sessionId"] = json!(id);
    let started = Instant::now();
    loop {
        let post = Client::new().post(format!("{}/v1/commands/StartLearningSession", up.api));
        if let Ok(answer) = post.bearer_auth(token).header("idempotency-key", id).json(&data).send().await {
            let status = answer.status().as_u16();
            let body: Value = answer.json().await.unwrap();
            match status {
                200 | 201 => return body,
                _ => assert_eq!(status, 503, "{body}"),
            }
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{id} is not answered");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Sessions in the event store, in the read model and in history: what was acknowledged, once.
async fn sessions_are(weir: &Weir, expected: i64) {
    let sql = "SELECT (SELECT count(*) FROM events), (SELECT count(DISTINCT stream_id) FROM events), \
               (SELECT count(*) FROM learning_session_read_model), \
               (SELECT value FROM metric_counters WHERE name = 'learning_sessions_started_total')";
    let row = weir.owner().await.query_one(sql, &[]).await.unwrap();
    let found: Vec<i64> = (0..4).map(|column| row.get(column)).collect();
    assert_eq!(found, vec![expected; 4]);
    let rows = weir.json(&["sql", "SELECT count(*) AS n, count(DISTINCT event_id) AS ids FROM events"]);
    assert_eq!(rows, json!([{"n": expected, "ids": expected}]));
}

/// Waits until a lane says that it waits: all that can be said to anybody while nobody can tell whose token is whose.
pub(crate) async fn waits(up: &Up<'_>, lane: &str) {
    let started = Instant::now();
    loop {
        let ready: Value = reqwest::get(format!("{}/readyz", up.api)).await.unwrap().json().await.unwrap();
        if ready["lanes"][lane]["phase"] == "waiting" {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "{ready}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until a lane says what troubles it.
pub(crate) async fn trouble_of(up: &Up<'_>, lane: &str, words: &str) {
    let (started, token) = (Instant::now(), up.token("default", "admin"));
    loop {
        let ready = up.readiness(&token).await;
        if ready["lanes"][lane]["trouble"].as_str().is_some_and(|trouble| trouble.contains(words)) {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "{ready}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn swap(weir: &Weir, cluster: &str) {
    let data = weir.path();
    std::fs::rename(data.join("postgres"), data.join("aside")).unwrap();
    std::fs::rename(data.join(cluster), data.join("postgres")).unwrap();
    std::fs::rename(data.join("aside"), data.join(cluster)).unwrap();
}

#[tokio::test]
async fn postgres_restored_to_an_older_copy_than_history_is_refused_with_a_cure() {
    let weir = Weir::new();
    let up = weir.up();
    let token = up.token("default", "command,read");
    start_sessions(&up, &token, 0..5).await;
    up.caught_up().await;
    up.terminate();
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([weir.path().join("postgres"), weir.path().join("older")])
        .status()
        .unwrap();
    assert!(copied.success());
    let up = weir.up();
    start_sessions(&up, &token, 5..10).await;
    up.caught_up().await;
    up.terminate();

    swap(&weir, "older");
    let up = weir.up();
    trouble_of(&up, "history", "restored to an older copy than history").await;
    // Positions given a second time, to other events: history still holds the first ones, and does not mix the two.
    start_sessions(&up, &token, 20..28).await;
    up.kill();
    let up = weir.up();
    trouble_of(&up, "history", "restored to an older copy than history").await;
    up.kill();
    assert!(!weir.verify_fails().is_empty());
    let rows = weir.json(&["sql", "SELECT count(*) AS n FROM events"]);
    assert_eq!(rows, json!([{"n": 10}]));

    // The cure that it names.
    assert!(weir.kill_postgres() || !weir.path().join("postgres/postmaster.pid").exists());
    swap(&weir, "older");
    let up = weir.up();
    start_sessions(&up, &token, 10..12).await;
    up.caught_up().await;
    up.terminate();
    weir.verify();
}
