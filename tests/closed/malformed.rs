//! Requests that are none, two requests in one, names that are statements: nothing of it is stored, answered to somebody else, or fatal.

use std::fs;
use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_model::EventType;
use weir_model::wire::samples;
use weir_tests::Weir;

/// What stands after `POST PATH HTTP/1.1 CRLF Host` … of a request that must not be carried out: heads, then what follows the empty line.
const AMBIGUOUS: [(&str, &str); 14] = [
    ("Content-Length: 5\r\nContent-Length: 6", "hello!"),
    ("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
    ("Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n"),
    ("Transfer-Encoding: chunked, identity", "0\r\n\r\n"),
    ("Transfer-Encoding: xchunked", "0\r\n\r\n"),
    ("Transfer-Encoding : chunked", "0\r\n\r\n"),
    ("Transfer-Encoding: chunked\r\nTransfer-Encoding: x", "0\r\n\r\n"),
    ("Content-Length: +5", "hello"),
    ("Content-Length: 5 5", "hello"),
    ("Content-Length: -1", ""),
    ("Content-Length: 18446744073709551616", ""),
    ("Content-Length: 0x5", "hello"),
    ("Transfer-Encoding: chunked", "FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n"),
    ("Transfer-Encoding: chunked", "5;\n\r\nhello\r\nx\r\n\r\n"),
];

/// Whole requests that are none.
const MALFORMED: [&str; 16] = [
    "\r\n\r\n\r\n\r\n",
    "GET\r\n\r\n",
    "GET /livez\r\n\r\n",
    "GET /livez HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "GET /livez HTTP/1.1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET  /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET \0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /li\u{7f}vez HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "G\u{e9}T /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\n folded: y\r\n\r\n",
    "GET /v1/events HTTP/1.1\r\n: nothing\r\n\r\n",
    "GET /v1/events HTTP/1.1\r\nno colon\r\n\r\n",
    "GET /v1/events HTTP/1.1\r\nHost: local\0host\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "GET http://evil.example/v1/events HTTP/1.1\r\nHost: evil.example\r\n\r\n",
];

/// Of them, what gets no answer: empty lines, and a greeting of HTTP/2 in the clear, which is greeted in its own way.
const SILENT: [&str; 2] = [MALFORMED[0], MALFORMED[13]];

async fn answers(address: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may have said its word and closed before all of it is written.
    drop(stream.write_all(request).await);
    let mut text = Vec::new();
    drop(tokio::time::timeout(Duration::from_secs(4), stream.read_to_end(&mut text)).await);
    String::from_utf8_lossy(&text).into_owned()
}

fn statuses(answers: &str) -> Vec<u16> {
    answers.split("HTTP/1.1 ").skip(1).filter_map(|rest| rest.get(..3)?.parse().ok()).collect()
}

#[tokio::test]
async fn requests_that_are_none_are_refused_and_two_in_one_are_not_carried_out() {
    let weir = Weir::new().with("api.header_timeout_ms=2000").with("api.body_timeout_ms=2000");
    let up = weir.up();
    let address = up.api.trim_start_matches("http://").to_owned();
    let token = up.token("default", "command,read,admin");
    let session = samples::one(EventType::LearningSessionStarted).to_string();
    let smuggled = format!(
        "POST /v1/commands/StartLearningSession HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: {}\r\n\r\n{session}",
        session.len()
    );
    let long = "a".repeat(1 << 20);
    let more = [
        format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("GET /v1/events HTTP/1.1\r\nHost: localhost\r\nX-Long: {long}\r\n\r\n"),
        format!("GET /v1/events HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X-Many: 1\r\n".repeat(5000)),
        "DELETE /v1/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_owned(),
        format!(
            "TRACE /v1/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
        ),
        "GET /v1/../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_owned(),
        "GET /v1/streams/%00%ff HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_owned(),
    ];
    for request in MALFORMED.iter().copied().chain(more.iter().map(String::as_str)) {
        let said = answers(&address, request.as_bytes()).await;
        let shown: String = request.chars().take(60).collect();
        assert!(!statuses(&said).is_empty() || SILENT.contains(&request), "{shown:?} got no answer: {said:?}");
        assert!(statuses(&said).iter().all(|status| (400..=505).contains(status)), "{shown:?}: {said}");
        assert!(!said.to_ascii_lowercase().contains(&token), "{shown:?} is echoed: {said}");
    }
    for (heads, body) in AMBIGUOUS {
        let request = format!(
            "POST /v1/commands/StartLearningSession HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n{heads}\r\n\r\n{body}{smuggled}"
        );
        let said = answers(&address, request.as_bytes()).await;
        let statuses = statuses(&said);
        assert!(
            !statuses.is_empty() && statuses.iter().all(|status| (400..=505).contains(status)),
            "{heads:?}: {said:?}"
        );
    }
    let events = Client::new().get(format!("{}/v1/events", up.api)).bearer_auth(&token).send().await.unwrap();
    assert_eq!(events.json::<Value>().await.unwrap()["events"], json!([]), "something was carried out");
    up.terminate();
}

#[tokio::test]
async fn browsers_of_other_pages_are_told_nothing_and_depth_and_statements_do_nothing() {
    let weir = Weir::new();
    let up = weir.up();
    let token = up.token("default", "command,read,admin");
    let ask = |method: Method, path: &str| {
        let request = Client::new().request(method, format!("{}{path}", up.api)).bearer_auth(&token);
        request.header("origin", "https://evil.example").header("access-control-request-method", "POST")
    };
    for (method, path) in
        [(Method::OPTIONS, "/v1/commands/RegisterUser"), (Method::GET, "/v1/events"), (Method::GET, "/livez")]
    {
        let answer = ask(method, path).send().await.unwrap();
        let allowed = answer.headers().keys().find(|name| name.as_str().starts_with("access-control"));
        assert_eq!(allowed, None, "{path}");
    }
    for nested in ["[".repeat(200_000), "{\"a\":".repeat(100_000), format!("{}{}", "[".repeat(5000), "]".repeat(5000))]
    {
        let body = format!("{{\"sessionId\":\"deep\",\"x\":{nested}}}");
        let post = ask(Method::POST, "/v1/commands/StartLearningSession").header("content-type", "application/json");
        let status = post.body(body).send().await.unwrap().status().as_u16();
        assert!([400, 413, 422].contains(&status), "{status}");
    }
    // A name is a name, whatever it says.
    let name = "'; DROP TABLE events; --\" OR 1=1 /* ${jndi:x} {{7*7}} %s";
    let mut data = samples::one(EventType::UserRegistered);
    (data["userId"], data["username"], data["email"]) =
        (json!("bobby"), json!(name), json!("a' OR '1'='1@example.com"));
    let post = ask(Method::POST, "/v1/commands/RegisterUser").header("x-source", "x'--").json(&data);
    let answer = post.send().await.unwrap();
    assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
    up.caught_up().await;
    let events: Value = ask(Method::GET, "/v1/events").send().await.unwrap().json().await.unwrap();
    assert_eq!(events["events"][0]["data"]["username"], name);
    let quote = "' OR '1'='1";
    for path in ["/v1/users", "/v1/sessions", "/v1/tasks", "/v1/contents"] {
        for parameter in ["user", "status", "cursor", "limit"] {
            let answer = ask(Method::GET, path).query(&[(parameter, quote)]).send().await.unwrap();
            let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
            assert!(
                status == 400 || status == 200 && (parameter == "cursor" || !text.contains("bobby")),
                "{path} {parameter}: {status} {text}"
            );
        }
    }
    let found = ask(Method::GET, &format!("/v1/users/{}", quote.replace('\'', "%27").replace(' ', "%20"))).send();
    assert_eq!(found.await.unwrap().status(), 404);
    up.terminate();
    weir.verify();
}

/// No password stands where every user of the machine sees it, in the arguments and titles of processes.
#[tokio::test]
async fn no_process_shows_a_secret() {
    let weir = Weir::new();
    let up = weir.up();
    let token = up.token("default", "read");
    let known: Value = serde_json::from_str(&fs::read_to_string(weir.path().join("secrets.json")).unwrap()).unwrap();
    let secrets: Vec<String> = known
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| name.ends_with("_password"))
        .map(|(_, value)| value.as_str().unwrap().to_owned())
        .chain([token])
        .collect();
    assert!(secrets.len() >= 4, "{}", secrets.len());
    let mut seen = 0;
    for entry in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        // A process may end meanwhile.
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).into_owned();
        seen += usize::from(line.contains("weir") || line.contains("postgres"));
        assert!(!secrets.iter().any(|secret| line.contains(secret.as_str())), "{line}");
    }
    assert!(seen >= 3, "weir, the server and its workers");
    let log = fs::read_to_string(weir.path().join("postgres.log")).unwrap();
    assert!(!secrets.iter().any(|secret| log.contains(secret.as_str())), "{log}");
    up.terminate();
}
