//! Every route of the OpenAPI document, those to come too, with every kind of wrong token.

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use weir_model::EventType;
use weir_model::decide::{CommandType, stream_of};
use weir_model::wire::samples;
use weir_tests::{Up, Weir};

/// What needs no token. Another one is a decision, to be made here too.
const OPEN: [&str; 4] = ["/livez", "/metrics", "/readyz", "/v1/openapi.json"];

/// Stands in everything that belongs to the tenant, and its like for nobody.
const MARK: &str = "zx81";
const NOBODY: &str = "yy79";

struct Operation {
    path: String,
    method: Method,
    has_body: bool,
    needs_token: bool,
}

fn operations(document: &Value) -> Vec<Operation> {
    let mut found = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let ways = operation["security"].as_array().cloned().unwrap_or_default();
            found.push(Operation {
                path: path.clone(),
                method: method.to_uppercase().parse().unwrap(),
                has_body: operation.get("requestBody").is_some(),
                needs_token: !ways.is_empty() && !ways.contains(&json!({})),
            });
        }
    }
    // Another tenant reads before it writes: what it wrote is its own to read.
    found.sort_by_key(|operation| operation.method != Method::GET);
    found
}

/// A sample in which everything is called `name`.
fn named(event_type: EventType, name: &str) -> Value {
    let mut data = samples::one(event_type);
    for key in ["userId", "contentId", "sessionId", "assessmentId", "taskId"] {
        if data.get(key).is_some() {
            data[key] = json!(name);
        }
    }
    data
}

impl Operation {
    /// A request about the things of this name that would be right with the right token.
    fn request(&self, api: &str, name: &str) -> RequestBuilder {
        let stream = format!("LearningSession-{name}");
        // Jobs are of all tenants: any run will do.
        let path = self
            .path
            .replace("/v1/jobs/{id}", "/v1/jobs/1")
            .replace("{stream}", &stream)
            .replace("{lane}", "read-models")
            .replace("{id}", name);
        assert!(!path.contains('{'), "{}: say here what it stands for", self.path);
        let request = Client::new().request(self.method.clone(), format!("{api}{path}"));
        if !self.has_body {
            return request;
        }
        let body = if let Some(command) = self.path.strip_prefix("/v1/commands/") {
            let of = |event_type: &EventType| CommandType::for_event(*event_type).as_str() == command;
            named(EventType::ALL.into_iter().find(of).expect("a command for an event"), name)
        } else if self.path.ends_with("/events") {
            let data = named(EventType::LearningSessionStarted, name);
            json!({"events": [{"eventType": "LearningSessionStarted", "data": data}]})
        } else if self.path.ends_with("/snapshot") {
            json!({"version": 1, "data": {"of": name}})
        } else if self.path == "/v1/jobs" {
            json!({"job": "cleanup"})
        } else {
            panic!("{}: say here what body it takes", self.path)
        };
        request.json(&body)
    }

    /// The scope that it should ask for.
    fn scope(&self) -> &'static str {
        if self.path.starts_with("/v1/jobs") {
            return "admin";
        }
        match (&self.method, self.has_body) {
            (&Method::GET, _) => "read",
            (&Method::PUT, _) => "admin",
            _ => "command",
        }
    }

    async fn ask(&self, api: &str, name: &str, token: Option<&str>) -> (u16, String) {
        let request = self.request(api, name);
        let request = if let Some(token) = token { request.bearer_auth(token) } else { request };
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }
}

/// A tenant with one of everything.
async fn furnish(up: &Up<'_>, token: &str) {
    for event_type in EventType::ALL {
        let data = named(event_type, MARK);
        let stream = stream_of(event_type, data.as_object().unwrap()).unwrap().to_string().replace('/', "%2F");
        let post = Client::new().post(format!("{}/v1/streams/{stream}/events", up.api)).bearer_auth(token);
        let body = json!({"events": [{"eventType": event_type.as_str(), "data": data}]});
        let answer = post.json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 201, "{event_type}: {}", answer.text().await.unwrap());
    }
    let put = Client::new().put(format!("{}/v1/streams/LearningSession-{MARK}/snapshot", up.api)).bearer_auth(token);
    let kept = put.json(&json!({"version": 1, "data": {"of": MARK}})).send().await.unwrap();
    assert_eq!(kept.status(), 204);
}

#[tokio::test]
async fn every_route_refuses_every_token_but_the_right_one() {
    let weir = Weir::new();
    let up = weir.up();
    let admin = up.token(&format!("tenant-{MARK}"), "command,read,admin");
    furnish(&up, &admin).await;
    weir.ok(&["jobs", "run", "cleanup"]);
    up.caught_up().await;
    let document: Value = reqwest::get(format!("{}/v1/openapi.json", up.api)).await.unwrap().json().await.unwrap();
    let operations = operations(&document);
    assert!(operations.len() > 25, "{}", operations.len());

    let revoked = up.token(&format!("tenant-{MARK}"), "admin");
    weir.ok(&["token", "revoke", revoked.split('_').nth(1).unwrap()]);
    let of_scope = ["command", "read"].map(|scope| (scope, up.token(&format!("tenant-{MARK}"), scope)));
    let other = up.token("umbrella", "command,read,admin");
    let mut open = Vec::new();
    for operation in &operations {
        let place = format!("{} {}", operation.method, operation.path);
        if !operation.needs_token {
            let (status, text) = operation.ask(&up.api, MARK, None).await;
            assert!(status < 500 && !text.contains(MARK), "{place}: {status} {text}");
            open.push(operation.path.as_str());
            continue;
        }
        let strangers = [None, Some(revoked.as_str()), Some("weir_x"), Some("Basic eDp5")];
        for token in strangers {
            let (status, text) = operation.ask(&up.api, MARK, token).await;
            assert!(status == 401 && !text.contains(MARK), "{place} with {token:?}: {status} {text}");
        }
        for (scope, token) in &of_scope {
            let (status, text) = operation.ask(&up.api, MARK, Some(token)).await;
            let is_refused = status == 403;
            assert_eq!(is_refused, *scope != operation.scope(), "{place} with the scope {scope}: {status} {text}");
        }
        let (status, text) = operation.ask(&up.api, MARK, Some(&admin)).await;
        assert!(![401, 403, 404, 405].contains(&status) && status < 500, "{place} as it should be: {status} {text}");
        // Another tenant gets what it gets for what is nobody's. What it writes is its own.
        let theirs = operation.ask(&up.api, MARK, Some(&other)).await;
        if operation.method == Method::GET {
            let none = operation.ask(&up.api, NOBODY, Some(&other)).await;
            assert_eq!((theirs.0, theirs.1.replace(MARK, NOBODY)), none, "{place} of another tenant");
        }
        assert!(
            theirs.0 != 200 || operation.method != Method::GET || !theirs.1.contains(MARK),
            "{place}: {}",
            theirs.1
        );
    }
    open.sort_unstable();
    assert_eq!(open, OPEN, "what needs no token");
    up.caught_up().await;
    up.terminate();
    weir.verify();
}
