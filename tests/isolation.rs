//! Does one tenant learn anything of another, and can one client use up what the others need?

use std::time::{Duration, Instant};

use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_model::EventType;
use weir_model::wire::samples;
use weir_tests::{Up, Weir};

/// Stands in everything that belongs to the other tenant.
const MARK: &str = "zx81";

struct Tenant<'a> {
    up: &'a Up<'a>,
    token: String,
    client: Client,
}

impl<'a> Tenant<'a> {
    fn new(up: &'a Up<'a>, tenant: &str, scopes: &str) -> Self {
        Self { up, token: up.token(tenant, scopes), client: Client::new() }
    }

    /// Status, headers that are not the moment's, and body.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> (u16, Vec<String>, String) {
        let mut request = self.client.request(method, format!("{}{path}", self.up.api)).bearer_auth(&self.token);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.unwrap();
        let mut names: Vec<String> = answer.headers().keys().map(ToString::to_string).collect();
        names.sort();
        (answer.status().as_u16(), names, answer.text().await.unwrap())
    }
}

fn session(id: &str) -> Value {
    let mut data = samples::one(EventType::LearningSessionStarted);
    data["sessionId"] = json!(id);
    data["userId"] = json!(format!("user-{MARK}"));
    data
}

/// Everything that the other tenant has is asked for by its name: each answer is the one that a name of nobody gets.
#[tokio::test]
async fn no_endpoint_tells_of_another_tenants_data() {
    let weir = Weir::new();
    let up = weir.up();
    let victim = Tenant::new(&up, &format!("tenant-{MARK}"), "command,read,admin");
    let other = Tenant::new(&up, "umbrella", "command,read,admin");
    let mut position = 0;
    for n in 0..5 {
        let key = format!("key-{MARK}-{n}");
        let (status, _, body) = victim
            .ask(Method::POST, "/v1/commands/StartLearningSession", Some(&key), Some(&session(&format!("{MARK}{n}"))))
            .await;
        assert_eq!(status, 201, "{body}");
        position = serde_json::from_str::<Value>(&body).unwrap()["position"].as_i64().unwrap();
    }
    let snapshot = json!({"version": 1, "data": {"of": MARK}});
    let kept =
        victim.ask(Method::PUT, &format!("/v1/streams/LearningSession-{MARK}0/snapshot"), None, Some(&snapshot)).await;
    assert_eq!(kept.0, 204, "{}", kept.2);
    up.caught_up().await;

    let nobody = "yy79";
    let plain = |text: &str| text.replace(MARK, "?").replace(nobody, "?");
    for path in [
        "/v1/streams/LearningSession-{}0",
        "/v1/streams/LearningSession-{}0?after_version=1",
        "/v1/streams/LearningSession-{}0/snapshot",
    ] {
        let theirs = other.ask(Method::GET, &path.replace("{}", MARK), None, None).await;
        let none = other.ask(Method::GET, &path.replace("{}", nobody), None, None).await;
        assert_eq!((theirs.0, &theirs.1, plain(&theirs.2)), (none.0, &none.1, plain(&none.2)), "{path}");
        assert_eq!(theirs.0, 404);
    }
    let put = |id: &str| format!("/v1/streams/LearningSession-{id}0/snapshot");
    let theirs = other.ask(Method::PUT, &put(MARK), None, Some(&snapshot)).await;
    let none = other.ask(Method::PUT, &put(nobody), None, Some(&snapshot)).await;
    assert_eq!((theirs.0, plain(&theirs.2)), (none.0, plain(&none.2)));
    // A position of theirs and one that does not exist.
    let wait = |position: i64| format!("/v1/lanes/read-models?wait_for={position}&timeout_ms=0");
    let theirs = other.ask(Method::GET, &wait(position), None, None).await;
    let none = other.ask(Method::GET, &wait(position + 1000), None, None).await;
    assert_eq!(
        (theirs.0, theirs.2.replace(&position.to_string(), "?")),
        (404, none.2.replace(&(position + 1000).to_string(), "?"))
    );
    for path in ["/v1/events", "/v1/events?type=LearningSessionStarted", "/v1/events?after=0&limit=1000"] {
        let (status, _, body) = other.ask(Method::GET, path, None, None).await;
        assert_eq!((status, body.as_str()), (200, "{\"events\":[],\"more\":false}"), "{path}");
    }
    // Their keys, ids and streams are free: what they hold back is nobody's business.
    for n in 0..5 {
        let key = format!("key-{MARK}-{n}");
        let (status, _, body) = other
            .ask(Method::POST, "/v1/commands/StartLearningSession", Some(&key), Some(&session(&format!("{MARK}{n}"))))
            .await;
        assert_eq!((status, &serde_json::from_str::<Value>(&body).unwrap()["version"]), (201, &json!(1)), "{body}");
    }
    // What needs no token holds no tenant's data.
    for path in ["/livez", "/readyz", "/metrics", "/v1/openapi.json"] {
        let text = reqwest::get(format!("{}{path}", up.api)).await.unwrap().text().await.unwrap();
        assert!(!text.contains(MARK) && !text.contains("umbrella"), "{path}: {text}");
    }
    up.terminate();
    weir.verify();
}

/// How long an answer takes does not tell whether another tenant has the stream. Medians of interleaved requests, and
/// several tries, for a machine has moods.
#[tokio::test]
async fn the_time_of_an_answer_tells_nothing() {
    let weir = Weir::new().with("api.requests_per_second=1000000");
    let up = weir.up();
    let victim = Tenant::new(&up, "victim", "command");
    let other = Tenant::new(&up, "other", "read");
    let many: Vec<Value> = (0..900)
        .map(|_| json!({"eventType": "UserProfileUpdated", "data": samples::one(EventType::UserProfileUpdated)}))
        .collect();
    for _ in 0..3 {
        let (status, _, body) =
            victim.ask(Method::POST, "/v1/streams/User-user_12345/events", None, Some(&json!({"events": many}))).await;
        assert_eq!(status, 201, "{body}");
    }
    let mut ratios = Vec::new();
    for _ in 0..5 {
        let (mut theirs, mut nobodys) = (Vec::new(), Vec::new());
        for _ in 0..150 {
            for (path, taken) in
                [("/v1/streams/User-user_12345", &mut theirs), ("/v1/streams/User-user_54321", &mut nobodys)]
            {
                let started = Instant::now();
                assert_eq!(other.ask(Method::GET, path, None, None).await.0, 404);
                taken.push(started.elapsed());
            }
        }
        theirs.sort();
        nobodys.sort();
        let ratio = theirs[75].as_secs_f64() / nobodys[75].as_secs_f64();
        if (0.8..1.25).contains(&ratio) {
            return up.terminate();
        }
        ratios.push(ratio);
    }
    panic!("another tenant's stream of 2,700 events answers otherwise than none: {ratios:?}");
}

#[tokio::test]
async fn a_tenant_that_asks_too_often_is_told_so_and_the_others_are_not() {
    let weir = Weir::new().with("api.requests_per_second=2");
    let up = weir.up();
    let (greedy, modest) = (Tenant::new(&up, "greedy", "read"), Tenant::new(&up, "modest", "read"));
    let mut refused = None;
    for _ in 0..200 {
        let request = greedy.client.get(format!("{}/v1/events", up.api)).bearer_auth(&greedy.token);
        let answer = request.send().await.unwrap();
        if answer.status() == 429 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("200 requests in a row are more than 2 a second");
    assert_eq!(refused.headers()["retry-after"], "1");
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["type"], "urn:weir:problem:too-many");
    assert_eq!(modest.ask(Method::GET, "/v1/events", None, None).await.0, 200);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(greedy.ask(Method::GET, "/v1/events", None, None).await.0, 200);
    up.terminate();
}

/// Clients that send slowly, or never read, hold up nobody: a command is appended when all of it is there.
#[tokio::test]
async fn slow_clients_hold_neither_the_append_lock_nor_the_server() {
    let weir =
        Weir::new().with("api.body_timeout_ms=3000").with("api.header_timeout_ms=3000").with("api.connections_max=600");
    let up = weir.up();
    let tenant = Tenant::new(&up, "default", "command,read");
    let address = up.api.trim_start_matches("http://").to_owned();
    let body = session("slow").to_string();
    let head = format!(
        "POST /v1/commands/StartLearningSession HTTP/1.1\r\nHost: weir\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n",
        tenant.token,
        body.len()
    );
    let mut slow = Vec::new();
    for n in 0..200 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        // Half of them stop within the head, half within the body.
        let part = if n % 2 == 0 { head[..40].to_owned() } else { format!("{head}{}", &body[..20]) };
        stream.write_all(part.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let started = Instant::now();
    for n in 0..50 {
        let (status, _, words) = tenant
            .ask(Method::POST, "/v1/commands/StartLearningSession", None, Some(&session(&format!("quick-{n}"))))
            .await;
        assert_eq!(status, 201, "{words}");
    }
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    // Their time is over: an answer, or the end.
    let mut answered = 0;
    for mut stream in slow {
        let mut text = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(15), stream.read_to_end(&mut text)).await;
        assert!(read.is_ok(), "a slow client still holds its connection");
        answered += usize::from(String::from_utf8_lossy(&text).starts_with("HTTP/1.1 408"));
    }
    assert!(answered >= 100, "{answered}");
    let events = weir.owner().await.query_one("SELECT count(*) FROM events", &[]).await.unwrap().get::<_, i64>(0);
    assert_eq!(events, 50);
    up.caught_up().await;
    up.terminate();
    weir.verify();
}

/// A page is cut by bytes, so that no answer takes a gigabyte.
#[tokio::test]
async fn pages_are_bounded_in_bytes_and_say_that_there_is_more() {
    let weir = Weir::new();
    let up = weir.up();
    let tenant = Tenant::new(&up, "default", "command,read");
    for n in 0..12 {
        let mut data = session(&format!("big-{n}"));
        data["padding"] = json!("x".repeat(1_000_000));
        let (status, ..) = tenant.ask(Method::POST, "/v1/commands/StartLearningSession", None, Some(&data)).await;
        assert_eq!(status, 201);
    }
    let (mut after, mut seen, mut pages) = (0, 0, 0);
    loop {
        let (_, _, body) = tenant.ask(Method::GET, &format!("/v1/events?after={after}&limit=1000"), None, None).await;
        assert!(body.len() < 11_000_000, "{}", body.len());
        let page: Value = serde_json::from_str(&body).unwrap();
        let events = page["events"].as_array().unwrap();
        seen += events.len();
        pages += 1;
        after = events.last().unwrap()["position"].as_i64().unwrap();
        if page["more"] == false {
            break;
        }
    }
    assert_eq!((seen, pages), (12, 2));
    up.caught_up().await;
    up.terminate();
    weir.verify();
}
