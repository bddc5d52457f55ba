//! What is told to whom, and what ends with a token.

use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_model::EventType;
use weir_model::wire::samples;
use weir_tests::weir::readiness;
use weir_tests::{Postgres, Up, Weir};

async fn status_of(up: &Up<'_>, path: &str) -> (u16, Value) {
    let answer = reqwest::get(format!("{}{path}", up.api)).await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn until_ready(up: &Up<'_>, ready: bool) -> Value {
    let started = Instant::now();
    loop {
        let (status, body) = status_of(up, "/readyz").await;
        if (status == 200) == ready && body["ready"] == ready {
            return body;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "{body}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// While no command can be stored, readiness says so, and comes back by itself: who sends commands may have been told to stay away.
#[tokio::test]
async fn a_refused_command_turns_readiness_and_it_turns_back() {
    let weir = Weir::new().with("append.give_up_after_ms=300").with("postgres.lock_timeout_ms=400");
    let up = weir.up();
    let (token, admin) = (up.token("default", "command"), up.token("default", "admin"));
    let post = || {
        let post = Client::new().post(format!("{}/v1/commands/StartLearningSession", up.api)).bearer_auth(&token);
        let answer = post.json(&samples::one(EventType::LearningSessionStarted)).send();
        async { answer.await.unwrap().status().as_u16() }
    };
    until_ready(&up, true).await;
    let owner = weir.owner().await;
    owner.batch_execute("BEGIN; LOCK TABLE append_order IN EXCLUSIVE MODE").await.unwrap();
    assert_eq!(post().await, 503);
    let told = until_ready(&up, false).await;
    assert_eq!(told["commands"], json!({"ready": false, "phase": "waiting"}));
    assert!(!told.to_string().contains("lock timeout"), "{told}");
    let in_detail = readiness(&up.api, &admin).await;
    assert!(in_detail["commands"]["trouble"].as_str().unwrap().contains("lock timeout"), "{in_detail}");
    assert!(in_detail["lanes"]["history"]["nextOffset"].is_number(), "{in_detail}");
    let refused = Client::new().get(format!("{}/readyz", up.api)).bearer_auth(&token).send().await.unwrap();
    assert_eq!(refused.status(), 403, "what is for admins");
    let metrics = reqwest::get(format!("{}/metrics", up.api)).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("weir_part_phase{part=\"commands\",phase=\"waiting\"} 1"), "{metrics}");
    let started = Instant::now();
    loop {
        let status = up.status();
        if status["trouble"].as_str().is_some_and(|trouble| trouble.contains("refuses commands")) {
            assert_eq!(status["well"], false);
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{status}");
    }
    owner.batch_execute("ROLLBACK").await.unwrap();
    until_ready(&up, true).await;
    assert_eq!(post().await, 201);
    up.caught_up().await;
    up.terminate();
    weir.verify();
}

/// A token that is revoked ends what was begun with it.
#[tokio::test]
async fn what_a_revoked_token_began_ends_within_a_second() {
    let weir = Weir::new();
    let up = weir.up();
    let writer = up.token("default", "command,read");
    let post = Client::new().post(format!("{}/v1/commands/StartLearningSession", up.api)).bearer_auth(&writer);
    assert_eq!(post.json(&samples::one(EventType::LearningSessionStarted)).send().await.unwrap().status(), 201);
    up.caught_up().await;
    // A lane that is behind for as long as the test likes.
    let owner = weir.owner().await;
    owner.batch_execute("BEGIN; LOCK TABLE metric_counters IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let mut second = samples::one(EventType::LearningSessionStarted);
    second["sessionId"] = json!("second");
    let post = Client::new().post(format!("{}/v1/commands/StartLearningSession", up.api)).bearer_auth(&writer);
    let position = post.json(&second).send().await.unwrap().json::<Value>().await.unwrap()["position"].clone();

    let token = up.token("default", "command,read");
    let id = token.split('_').nth(1).unwrap();
    let waiting = Client::new()
        .get(format!("{}/v1/lanes/metrics?wait_for={position}&timeout_ms=20000", up.api))
        .bearer_auth(&token)
        .send();
    let waiting = tokio::spawn(waiting);
    let mut sending = TcpStream::connect(up.api.trim_start_matches("http://")).await.unwrap();
    let head = format!(
        "POST /v1/commands/StartLearningSession HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: 1000\r\n\r\n{{"
    );
    sending.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(!waiting.is_finished());
    weir.ok(&["token", "revoke", id]);
    let revoked = Instant::now();
    let mut answer = String::new();
    sending.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert_eq!(waiting.await.unwrap().unwrap().status(), 401);
    // The looks are half a second apart; the rest is for a busy machine.
    assert!(revoked.elapsed() < Duration::from_secs(5), "{:?}", revoked.elapsed());
    owner.batch_execute("ROLLBACK").await.unwrap();
    up.caught_up().await;
    up.terminate();
    weir.verify();
}

/// However much is logged, no password and no token is in it.
#[tokio::test]
async fn the_most_talkative_log_holds_no_secret() {
    const SECRETS: [&str; 4] = ["hush-postgres", "hush-clickhouse", "hush-kafka", "hush-storage"];
    let server = Postgres::start();
    let url = server.url();
    let admin = weir_tests::weir::connect(&url).await;
    admin.batch_execute("CREATE ROLE talkative LOGIN SUPERUSER PASSWORD 'hush-postgres'").await.unwrap();
    let theirs = url::Url::parse(&url).unwrap();
    let ours = format!(
        "postgres://talkative:hush-postgres@{}:{}/postgres",
        theirs.host_str().unwrap(),
        theirs.port().unwrap()
    );
    let weir = Weir::new()
        .on_secured(&ours, &url)
        .environment("WEIR_LOG", "trace")
        .with("clickhouse.url=http://127.0.0.1:9")
        .with("clickhouse.password=hush-clickhouse")
        .with("history.storage.aws_secret_access_key=hush-storage");
    let up = weir.up();
    let token = weir.token("default", "command,read");
    let post = Client::new().post(format!("{}/v1/commands/StartLearningSession", up.api)).bearer_auth(&token);
    assert_eq!(post.json(&samples::one(EventType::LearningSessionStarted)).send().await.unwrap().status(), 201);
    up.caught_up().await;
    up.terminate();
    let mut words = weir.log();
    let kafka = ["--set", "kafka.brokers=127.0.0.1:9", "--set", "kafka.client.sasl.password=hush-kafka"];
    for command in [
        vec!["verify", "--wait", "0"],
        vec!["status"],
        vec!["config", "show"],
        [vec!["topics", "diff"], kafka.to_vec()].concat(),
    ] {
        let output = weir.run(&command);
        words.push_str(&String::from_utf8_lossy(&output.stderr));
        words.push_str(&String::from_utf8_lossy(&output.stdout));
    }
    assert!(words.contains("TRACE") || words.contains("DEBUG"), "it is not talkative:\n{words}");
    for secret in SECRETS.into_iter().chain([token.as_str(), token.rsplit('_').next().unwrap()]) {
        let line = words.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
}
