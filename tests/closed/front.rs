//! The HTTP side's own door: TLS, proxies, names, the reserve for health.

use std::fs;
use std::time::{Duration, Instant};

use reqwest::{Certificate, Client, StatusCode, Version};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_model::EventType;
use weir_model::wire::samples;
use weir_tests::tls::Certificates;
use weir_tests::{Up, Weir};

fn client(certificates: &Certificates) -> reqwest::ClientBuilder {
    let root = Certificate::from_pem(&fs::read(certificates.root()).unwrap()).unwrap();
    Client::builder().tls_certs_only([root])
}

/// The answer to a request as it is written, to the end of the connection.
async fn raw(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // What was said before a reset counts.
    drop(tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await);
    String::from_utf8_lossy(&answer).into_owned()
}

fn address<'a>(up: &'a Up<'_>) -> &'a str {
    up.api.rsplit_once('/').unwrap().1
}

#[tokio::test]
async fn it_speaks_tls_and_http2_and_a_new_certificate_is_taken_up() {
    let certificates = Certificates::make("127.0.0.1");
    let weir = Weir::new()
        .with(&format!("api.tls.certificate={}", certificates.certificate().display()))
        .with(&format!("api.tls.key={}", certificates.key().display()));
    let up = weir.up();
    assert!(up.api.starts_with("https://127.0.0.1:"), "{}", up.api);
    let token = up.token("default", "command,read");
    for (made, version) in
        [(client(&certificates), Version::HTTP_2), (client(&certificates).http1_only(), Version::HTTP_11)]
    {
        let made = made.build().unwrap();
        let mut data = samples::one(EventType::LearningSessionStarted);
        data["sessionId"] = json!(format!("{version:?}"));
        let post = made.post(format!("{}/v1/commands/StartLearningSession", up.api)).bearer_auth(&token).json(&data);
        let answer = post.send().await.unwrap();
        assert_eq!((answer.status(), answer.version()), (StatusCode::CREATED, version));
    }
    // Nothing is answered in clear, and nobody is shown another's certificate.
    let answer = raw(address(&up), "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(!answer.contains("HTTP/1.1"), "{answer}");
    let strange = Certificates::make("127.0.0.1");
    assert!(client(&strange).build().unwrap().get(format!("{}/livez", up.api)).send().await.is_err());
    assert_eq!(up.status()["addresses"]["metrics"], json!(format!("{}/metrics", up.api)));

    // A renewal that does not fit leaves the one before.
    fs::copy(strange.key(), certificates.key()).unwrap();
    let started = Instant::now();
    while !weir.log().contains("the certificate is not renewed") {
        assert!(started.elapsed() < Duration::from_secs(30), "{}", weir.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let livez = format!("{}/livez", up.api);
    assert_eq!(client(&certificates).build().unwrap().get(&livez).send().await.unwrap().status(), 200);
    // One that does is shown to the next connection; those that are open go on.
    let open = client(&certificates).build().unwrap();
    assert_eq!(open.get(&livez).send().await.unwrap().status(), 200);
    fs::copy(strange.certificate(), certificates.certificate()).unwrap();
    let started = Instant::now();
    while client(&strange).build().unwrap().get(&livez).send().await.is_err() {
        assert!(started.elapsed() < Duration::from_secs(30), "{}", weir.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(open.get(&livez).send().await.unwrap().status(), 200);
    let started = Instant::now();
    up.terminate();
    assert!(started.elapsed() < Duration::from_secs(10), "an open connection held it up for {:?}", started.elapsed());
    weir.verify();
}

#[tokio::test]
async fn what_would_send_tokens_in_clear_is_refused_and_so_is_what_makes_no_sense() {
    let certificates = Certificates::make("127.0.0.1");
    let strange = Certificates::make("127.0.0.1");
    let set = |name: &str, path: std::path::PathBuf| format!("api.tls.{name}={}", path.display());
    for (settings, words) in [
        (vec!["api.listen=0.0.0.0:0".to_owned()], "tokens would go there in clear"),
        (vec![set("certificate", certificates.certificate())], "certificate and key go together"),
        (vec![set("certificate", "/nowhere.pem".into()), set("key", certificates.key())], "/nowhere.pem: No such file"),
        (vec![set("certificate", certificates.key()), set("key", certificates.key())], "no certificate in PEM form"),
        (vec![set("certificate", certificates.certificate()), set("key", strange.key())], "do not go together"),
        (vec!["api.trusted_proxies=[\"10.0.0.0/99\"]".to_owned()], "is no address or network"),
    ] {
        let output = Weir::new().with_all(settings.clone()).run(&["up"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains(words), "{settings:?}: {said}");
    }
    // Beyond this machine, as told.
    for setting in ["api.plaintext_beyond_loopback=true", "api.trusted_proxies=[\"10.0.0.0/8\"]"] {
        let weir = Weir::new().with("api.listen=0.0.0.0:0").with(setting);
        weir.up().terminate();
    }
}

/// A page of somewhere else that a browser shows on this machine comes under the page's name.
#[tokio::test]
async fn what_needs_no_token_is_not_told_under_a_strangers_name() {
    let weir = Weir::new().with("api.hosts=[\"weir.example\"]");
    let up = weir.up();
    for path in ["/livez", "/readyz", "/metrics", "/v1/openapi.json"] {
        for (host, line) in [
            ("evil.example", "HTTP/1.1 421"),
            ("evil.example:80", "HTTP/1.1 421"),
            ("weir.example:8626", "HTTP/1.1 "),
            ("localhost", "HTTP/1.1 "),
            ("[::1]:8626", "HTTP/1.1 "),
        ] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            let answer = raw(address(&up), &request).await;
            let is_refused = answer.starts_with("HTTP/1.1 421");
            assert!(answer.starts_with(line) && is_refused == line.ends_with("421"), "{path} of {host}: {answer}");
        }
    }
    up.terminate();
}

/// Who holds all the connections that an address may have leaves health and metrics to be asked for, and the others are told.
#[tokio::test]
async fn health_is_answered_whoever_holds_the_connections() {
    let weir = Weir::new().with("api.connections_max=20");
    let up = weir.up();
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(TcpStream::connect(address(&up)).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let ask = |path: &str| Client::new().get(format!("{}{path}", up.api)).send();
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_ne!(ask(path).await.unwrap().status(), 404, "{path}");
    }
    assert_eq!(ask("/livez").await.unwrap().status(), 200);
    let refused = ask("/v1/events").await.unwrap();
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["title"], "Too many connections");
    // The reserve itself is nobody's for long.
    for _ in 0..40 {
        held.push(TcpStream::connect(address(&up)).await.unwrap());
    }
    let started = Instant::now();
    while ask("/livez").await.map_or(0, |answer| answer.status().as_u16()) != 200 {
        assert!(started.elapsed() < Duration::from_secs(10), "health is not answered");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(held);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let token = up.token("default", "read");
    let answer = Client::new().get(format!("{}/v1/events", up.api)).bearer_auth(token).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    up.terminate();
}

/// A proxy may hold any number of connections; each of its clients has its part.
#[tokio::test]
async fn clients_behind_a_trusted_proxy_are_told_apart() {
    let weir = Weir::new().with("api.connections_max=20").with("api.trusted_proxies=[\"127.0.0.1\"]");
    let up = weir.up();
    let token = up.token("default", "command,read");
    let post = Client::new().post(format!("{}/v1/commands/StartLearningSession", up.api)).bearer_auth(&token);
    let data = samples::one(EventType::LearningSessionStarted);
    assert_eq!(post.json(&data).send().await.unwrap().status(), 201);
    // A lane that has been told to wait for nothing answers at once; metrics stand still on purpose.
    let owner = weir.owner().await;
    owner.batch_execute("BEGIN; LOCK TABLE ledger IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let wait = |client: &str| {
        let url = format!("{}/v1/lanes/metrics?wait_for=1&timeout_ms=4000", up.api);
        let get =
            Client::new().get(url).bearer_auth(&token).header("x-forwarded-for", format!("198.51.100.1, {client}"));
        async move { get.send().await.unwrap().status().as_u16() }
    };
    let greedy = futures::future::join_all((0..15).map(|_| wait("192.0.2.1")));
    let other = async {
        tokio::time::sleep(Duration::from_millis(800)).await;
        Client::new()
            .get(format!("{}/livez", up.api))
            .header("x-forwarded-for", "192.0.2.2")
            .send()
            .await
            .unwrap()
            .status()
    };
    let release = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        owner.batch_execute("ROLLBACK").await.unwrap();
    };
    let (greedy, other, ()) = tokio::join!(greedy, other, release);
    assert_eq!(greedy.iter().filter(|status| **status == 429).count(), 5, "{greedy:?}");
    assert_eq!(other, 200);
    up.terminate();
    weir.verify();
}
