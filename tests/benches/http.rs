//! Commands over HTTP, against appends without HTTP, tokens, state and rules.

use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::json;
use weir_model::EventType;
use weir_model::wire::samples;
use weir_tests::Weir;

use crate::append::{commit_row, one_commit, rate_of_appends, service};
use crate::fill::{database, runtime};
use crate::measure::{median, pairs, quantile, round, row};

const CLIENTS: usize = 64;
const TURN: Duration = Duration::from_secs(4);
const TURNS: usize = 5;

/// Commands a second, and how long the slowest hundredth waits.
async fn commands(api: &str, token: &str) -> (f64, Duration) {
    let started = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (api, token) = (api.to_owned(), token.to_owned());
            tokio::spawn(async move {
                let client = Client::new();
                let url = format!("{api}/v1/commands/StartLearningSession");
                let mut data = samples::one(EventType::LearningSessionStarted);
                let mut taken = Vec::new();
                while started.elapsed() < TURN {
                    let key = uuid::Uuid::now_v7().to_string();
                    data["sessionId"] = json!(key);
                    let sent = Instant::now();
                    let request = client.post(&url).bearer_auth(&token).header("idempotency-key", &key).json(&data);
                    assert_eq!(request.send().await.unwrap().status(), 201);
                    taken.push(sent.elapsed());
                }
                taken
            })
        })
        .collect();
    let mut taken = Vec::new();
    for client in clients {
        taken.extend(client.await.unwrap());
    }
    let rate = taken.len() as f64 / started.elapsed().as_secs_f64();
    (rate, quantile(&mut taken, 0.99))
}

pub(crate) fn run() {
    let runtime = runtime();
    // The lanes are not asked to do anything meanwhile: this is about the command side.
    let weir = Weir::new().with("lanes.history.flush_interval_ms=3600000").with("lanes.metrics.flush_interval_ms=3600000")
        .with("lanes.read-models.flush_interval_ms=3600000").with("api.requests_per_second=1000000")
        .with("lanes.history.poll_records_max=1").with("lanes.metrics.poll_records_max=1").with("lanes.read-models.poll_records_max=1");
    let up = weir.up();
    let token = up.token("default", "command");
    let url = weir.owner_url();
    let service = runtime.block_on(async { service(&database(&url).await) });
    let mut slowest = Vec::new();
    let rates = pairs(
        TURNS,
        || {
            let (rate, p99) = runtime.block_on(commands(&up.api, &token));
            slowest.push(p99.as_secs_f64() * 1000.0);
            rate
        },
        || runtime.block_on(rate_of_appends(&service)),
    );
    rates.row(&format!("HTTP commands, {CLIENTS} clients"), "commands/s", "the append benchmark beside it", "≥ 0.5");
    let commit = runtime.block_on(one_commit(&url));
    commit_row(commit);
    let p99 = median(slowest);
    let ratio = format!("{:.1}", p99 / commit);
    row("HTTP commands, p99", &format!("{} ms", round(p99)), &format!("{} ms, one commit", round(commit)), &ratio, "≤ 3");
    up.kill();
}
