//! Is what was acknowledged there, once, whatever was killed meanwhile (P1)? And does an exposed number ever go back (P5)?

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::Client;
use serde_json::{Value, json};
use weir_model::EventType;
use weir_model::wire::samples;
use weir_tests::{Up, Weir, seed};

async fn send(up: &Up<'_>, token: &str, key: &str) -> Option<Value> {
    let mut data = samples::one(EventType::LearningSessionStarted);
    data["sessionId"] = json!(format!("session-{key}"));
    let request = Client::new()
        .post(format!("{}/v1/commands/StartLearningSession", up.api))
        .bearer_auth(token)
        .header("idempotency-key", key)
        .json(&data);
    let response = request.send().await.ok()?;
    if response.status() != 201 && response.status() != 200 {
        return None;
    }
    response.json().await.ok()
}

/// Counters and the histogram's buckets, by series.
async fn totals(up: &Up<'_>) -> BTreeMap<String, f64> {
    let Ok(response) = reqwest::get(format!("{}/metrics", up.api)).await else { return BTreeMap::new() };
    let Ok(text) = response.text().await else { return BTreeMap::new() };
    let ours = |line: &&str| {
        ["events_applied_total", "learning_sessions_started_total", "tasks_execution_time_seconds"]
            .iter()
            .any(|name| line.starts_with(name))
    };
    let series = text.lines().filter(ours).filter_map(|line| line.rsplit_once(' '));
    series.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

#[tokio::test]
async fn every_answer_holds_and_no_number_goes_back_over_kills_of_weir_and_of_postgres() {
    let mut random = StdRng::seed_from_u64(seed("acknowledged"));
    let weir = Weir::new();
    let mut acknowledged: BTreeMap<String, Value> = BTreeMap::new();
    let mut highest: BTreeMap<String, f64> = BTreeMap::new();
    let mut token = String::new();
    for round in 0..6 {
        let up = weir.up();
        if token.is_empty() {
            token = up.token("default", "command,read");
        }
        let kill_postgres_at = random.random_range(15..60);
        for n in 0..random.random_range(30..80) {
            let key = format!("{round}-{n}");
            if let Some(answer) = send(&up, &token, &key).await {
                acknowledged.insert(key, answer);
            }
            if n == kill_postgres_at {
                assert!(weir.kill_postgres());
            }
            if n % 5 == 0 {
                for (series, value) in totals(&up).await {
                    let before = highest.insert(series.clone(), value).unwrap_or(0.0);
                    assert!(value >= before, "{series} went from {before} to {value}");
                }
            }
            tokio::time::sleep(Duration::from_millis(random.random_range(0..12))).await;
        }
        up.kill();
    }
    let up = weir.up();
    for (key, first) in &acknowledged {
        let again = send(&up, &token, key).await.unwrap_or_else(|| panic!("{key} is not answered"));
        assert_eq!((&again["position"], &again["repeated"]), (&first["position"], &json!(true)), "{key}");
    }
    assert!(acknowledged.len() > 60, "{}", acknowledged.len());
    up.caught_up().await;
    up.terminate();
    weir.verify();
}
