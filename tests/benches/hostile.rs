//! How long a tenant waits beside another that sends, over 64 connections, as much of the worst as it can.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::json;
use weir_model::EventType;
use weir_model::wire::samples;
use weir_tests::Weir;

use crate::fill::runtime;
use crate::measure::{pairs, round, row};

const CLIENTS: usize = 64;
const COMMANDS: usize = 100;
const TURNS: usize = 5;

/// The median of a client's commands, one after the other.
async fn wait_of_a_command(api: &str, token: &str) -> f64 {
    let client = Client::new();
    let url = format!("{api}/v1/commands/StartLearningSession");
    let mut data = samples::one(EventType::LearningSessionStarted);
    let mut taken = Vec::new();
    for _ in 0..COMMANDS {
        data["sessionId"] = json!(uuid::Uuid::now_v7().to_string());
        let sent = Instant::now();
        assert_eq!(client.post(&url).bearer_auth(token).json(&data).send().await.unwrap().status(), 201);
        taken.push(sent.elapsed());
    }
    crate::measure::quantile(&mut taken, 0.5).as_secs_f64() * 1000.0
}

pub(crate) fn run() {
    let runtime = runtime();
    let weir = Weir::new();
    let up = weir.up();
    let (hostile, other) = (up.token("hostile", "command"), up.token("other", "command"));
    // Small text that is large as a tree: 15 MiB of it.
    let x = format!("[{}{{}}]", r#"{"":0},"#.repeat((15 << 20) / 7));
    let body = format!(r#"{{"events":[{{"eventType":"UserRegistered","data":{{"userId":"u","x":{x}}}}}]}}"#);
    let body = bytes::Bytes::from(body);
    static ATTACKS: AtomicBool = AtomicBool::new(false);
    for _ in 0..CLIENTS {
        let (body, hostile, url) = (body.clone(), hostile.clone(), format!("{}/v1/streams/User-u/events", up.api));
        runtime.spawn(async move {
            let client = Client::new();
            loop {
                if !ATTACKS.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
                let post = client.post(&url).bearer_auth(&hostile).header("content-type", "application/json");
                // Refused, or closed: either is meant to be.
                drop(post.body(body.clone()).send().await);
            }
        });
    }
    let wait = |attacks: bool| {
        ATTACKS.store(attacks, Ordering::Relaxed);
        // Until they are all at it, and until none is any more.
        std::thread::sleep(Duration::from_secs(if attacks { 3 } else { 35 }));
        runtime.block_on(wait_of_a_command(&up.api, &other))
    };
    let waits = pairs(TURNS, || wait(true), || wait(false));
    waits.row(&format!("a command beside {CLIENTS} hostile clients of another tenant"), "ms", "without them", "≤ 2");
    let status = std::fs::read_to_string(format!("/proc/{}/status", up.pid())).unwrap();
    let peak: f64 =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok()).unwrap();
    row("resident memory meanwhile", &format!("{} MiB", round(peak / 1024.0)), "", "", "under 400 MiB");
}
