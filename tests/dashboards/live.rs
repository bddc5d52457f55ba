//! The real Prometheus beside a real weir that works, on Kafka: alerts fire when something is away and resolve when it is back, and the business counters
//! come to what happened, over a rebalance, a kill and a restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use weir_tests::postgres::free_port;
use weir_tests::{ClickHouse, Kafka, Postgres, Weir};

use weir_tests::Prometheus;

const PATIENCE: Duration = Duration::from_secs(90);

/// Registers users until told to stop, each until it is answered; a repeat with its key is no second one.
async fn register(api: String, token: String, stop: Arc<AtomicBool>, registered: Arc<AtomicU64>) {
    let client = reqwest::Client::new();
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let mut data = weir_model::wire::samples::one(weir_model::EventType::UserRegistered);
        (data["userId"], data["username"], data["email"]) =
            (json!(format!("live-{n}")), json!(format!("live-{n}")), json!(format!("live-{n}@example.com")));
        loop {
            let post = client.post(format!("{api}/v1/commands/RegisterUser")).bearer_auth(&token);
            let answer = post.header("Idempotency-Key", format!("live-{n}")).json(&data).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        registered.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until_alert(prometheus: &Prometheus, name: &str, fires: bool) {
    let started = Instant::now();
    let expression = format!("ALERTS{{alertname=\"{name}\",alertstate=\"firing\"}}");
    while prometheus.query(&expression).await.is_none_or(|series| series.is_empty() == fires) {
        assert!(started.elapsed() < PATIENCE, "{name} does not {}", if fires { "fire" } else { "resolve" });
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// What was seen of a counter, sample by sample.
async fn samples(prometheus: &Prometheus, expression: &str) -> Vec<f64> {
    let answer = prometheus.query(&format!("({expression})[10m:1s]")).await.unwrap();
    assert_eq!(answer.len(), 1, "{expression}: {answer:?}");
    let value = |sample: &Value| sample[1].as_str().unwrap().parse().unwrap();
    answer[0]["values"].as_array().unwrap().iter().map(value).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_fire_and_resolve_and_counters_come_to_what_happened() {
    let (postgres, kafka, mut server) = (Postgres::start(), Kafka::start(), ClickHouse::start());
    let weir = Weir::new()
        .on(&postgres.url())
        .with_all(server.settings())
        .with(&format!("kafka.brokers={}", kafka.brokers()))
        .with(&format!("api.listen=127.0.0.1:{}", free_port()));
    weir.ok(&["topics", "apply"]);
    let up = weir.up();
    // The same rules, impatient.
    let prometheus = Prometheus::watching_with(&up, |rules| {
        let rules = rules.replace("for: 1m", "for: 1s").replace("for: 2m", "for: 1s");
        rules.replace("[2m]", "[4s]").replace("[5m]", "[10s]")
    });
    let counter = "max(users_registered_total)";
    let started = Instant::now();
    while prometheus.query(counter).await.is_none_or(|series| series.is_empty()) {
        assert!(started.elapsed() < PATIENCE, "no counter is seen");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let (stop, registered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load = register(up.api.clone(), up.token("default", "command,read"), stop.clone(), registered.clone());
    let load = tokio::spawn(load);

    // A second process takes some of the partitions, and gives them back.
    let mut second = weir.start(&["run", "metrics"]);
    let shares = "SELECT count(*) >= 2 FROM parts WHERE part = 'metrics' AND phase = 'running' AND partitions > 0";
    weir.until(shares).await;
    kill_process(Pid::from_child(&second), Signal::TERM).unwrap();
    assert!(second.wait().unwrap().success());

    server.kill();
    until_alert(&prometheus, "WeirStoreAway", true).await;
    server.start_again();
    until_alert(&prometheus, "WeirStoreAway", false).await;

    up.kill();
    until_alert(&prometheus, "WeirAbsent", true).await;
    let up = weir.up();
    until_alert(&prometheus, "WeirAbsent", false).await;

    tokio::time::sleep(Duration::from_secs(2)).await;
    stop.store(true, Ordering::Relaxed);
    load.await.unwrap();
    let happened = registered.load(Ordering::Relaxed);
    let started = Instant::now();
    loop {
        let seen = samples(&prometheus, counter).await;
        assert!(seen.is_sorted(), "a counter fell: {seen:?}");
        if seen.last() == Some(&(happened as f64)) {
            assert_eq!(seen[0], 0.0);
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{happened} happened, {:?} seen", seen.last());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let of_type = samples(&prometheus, "max(events_applied_total{event_type=\"UserRegistered\"})").await;
    assert!(of_type.is_sorted() && of_type.last() == Some(&(happened as f64)), "{of_type:?}");
    up.terminate();
    weir.verify();
}
