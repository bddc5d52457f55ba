//! Does the HTTP side answer as it promises, to good and to bad requests?

use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use weir_model::EventType;
use weir_model::wire::samples;
use weir_tests::{Up, Weir};

struct Caller {
    client: Client,
    api: String,
    token: String,
}

impl Caller {
    fn new(up: &Up<'_>, tenant: &str, scopes: &str) -> Self {
        Self { client: Client::new(), api: up.api.clone(), token: up.token(tenant, scopes) }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.api)).bearer_auth(&self.token)
    }

    async fn command(&self, command: &str, body: &Value, headers: &[(&str, &str)]) -> (u16, Value) {
        let mut request = self.request(Method::POST, &format!("/v1/commands/{command}")).json(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.send().await.unwrap()).await
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.request(Method::GET, path).send().await.unwrap()).await
    }
}

/// Status and body; every error is a problem document that says its own status.
async fn answer(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    let body: Value = response.json().await.unwrap();
    if status >= 400 {
        assert_eq!(content_type, "application/problem+json");
        assert_eq!(body["status"], status);
        assert!(body["type"].is_string() && body["title"].is_string() && body["detail"].is_string(), "{body}");
    }
    (status, body)
}

fn session(id: &str) -> Value {
    let mut data = samples::one(EventType::LearningSessionStarted);
    data["sessionId"] = json!(id);
    data
}

#[tokio::test]
async fn commands_are_stored_once_and_read_back() {
    let weir = Weir::new();
    let up = weir.up();
    let caller = Caller::new(&up, "acme", "command,read");
    let key =
        [("idempotency-key", "k1"), ("x-correlation-id", "r-7"), ("x-causation-id", "c-7"), ("x-user-id", "teacher")];
    let (status, first) = caller.command("StartLearningSession", &session("s1"), &key).await;
    assert_eq!(
        (status, &first["position"], &first["version"], &first["repeated"]),
        (201, &json!(1), &json!(1), &json!(false))
    );
    let (status, again) = caller.command("StartLearningSession", &session("s1"), &key).await;
    assert_eq!((status, &again["position"], &again["repeated"]), (200, &json!(1), &json!(true)));
    let (status, other) = caller.command("StartLearningSession", &session("s2"), &key).await;
    assert_eq!((status, &other["type"]), (422, &json!("urn:weir:problem:key-reused")));
    // Whatever version a repeat expects: it was answered.
    for expected in ["any", "none", "exists", "1", "17"] {
        let again =
            caller.command("StartLearningSession", &session("s1"), &[key[0], ("expected-version", expected)]).await;
        assert_eq!((again.0, &again.1["position"]), (200, &json!(1)), "{expected}");
    }
    let (status, rejected) = caller.command("StartLearningSession", &session("s1"), &[]).await;
    assert_eq!((status, &rejected["type"]), (409, &json!("urn:weir:problem:rejected")));

    let (_, stream) = caller.get("/v1/streams/LearningSession-s1").await;
    let event = &stream["events"][0];
    let said =
        json!({"correlationId": "r-7", "causationId": "c-7", "userId": "teacher", "tenantId": "acme", "source": "api"});
    assert_eq!(event["metadata"], said);
    assert_eq!((&event["tenant"], &event["data"]["learningPathId"]), (&json!("acme"), &json!("path_1")));

    // A reader waits for what it wrote; the sinks have cause and correlation too.
    let (_, lane) = caller.get("/v1/lanes/read-models?wait_for=1").await;
    assert_eq!(lane["reached"], true);
    let rows = weir.json(&[
        "sql",
        "SELECT correlation_id, causation_id, actor_id FROM learning_session_started",
        "--wait-for",
        "1",
    ]);
    assert_eq!(rows, json!([{"correlation_id": "r-7", "causation_id": "c-7", "actor_id": "teacher"}]));
    up.terminate();
    weir.verify();
}

#[tokio::test]
async fn expected_versions_are_held_against_the_stream() {
    let weir = Weir::new();
    let up = weir.up();
    let caller = Caller::new(&up, "default", "command,read");
    let update = |expected: &'static str| {
        let caller = &caller;
        async move {
            caller
                .command(
                    "UpdateUserProfile",
                    &samples::one(EventType::UserProfileUpdated),
                    &[("expected-version", expected)],
                )
                .await
        }
    };
    assert_eq!(update("exists").await.0, 409);
    assert_eq!(update("none").await.0, 201);
    assert_eq!(update("none").await.0, 409);
    assert_eq!(update("1").await.0, 201);
    let (status, conflict) = update("1").await;
    assert_eq!((status, &conflict["actualVersion"]), (409, &json!(2)));
    assert_eq!(update("exists").await.0, 201);
    assert_eq!(update("any").await.0, 201);
    assert_eq!(update("-1").await.0, 400);
    up.terminate();
}

/// Whatever the caller would accept, a rule is held against the version that it was checked on.
#[tokio::test]
async fn rules_hold_under_concurrent_commands_and_a_version_conflict_comes_before_a_rule() {
    let weir = Weir::new();
    let up = weir.up();
    let caller = Caller::new(&up, "default", "command,read");
    let assigned = samples::one(EventType::TaskAssigned);
    let completed = samples::one(EventType::TaskCompleted);
    for n in 0..10 {
        let id = format!("task-{n}");
        let of = |data: &Value| {
            let mut data = data.clone();
            (data["taskId"], data["agentId"]) = (json!(id), json!("agent"));
            data
        };
        assert_eq!(caller.command("AssignTask", &of(&assigned), &[]).await.0, 201);
        let body = of(&completed);
        let complete = || caller.command("CompleteTask", &body, &[("expected-version", "exists")]);
        let (a, b, c) = tokio::join!(complete(), complete(), complete());
        let mut statuses = [a.0, b.0, c.0];
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 409, 409], "{} {} {}", a.1, b.1, c.1);
    }
    let again = caller
        .command(
            "AssignTask",
            &{
                let mut data = assigned.clone();
                data["taskId"] = json!("task-0");
                data
            },
            &[("expected-version", "none")],
        )
        .await;
    assert_eq!((again.0, &again.1["actualVersion"]), (409, &json!(2)), "{}", again.1);
    up.terminate();
    weir.verify();
}

#[tokio::test]
async fn numbers_that_json_readers_round_are_refused_before_they_are_stored() {
    let weir = Weir::new();
    let up = weir.up();
    let caller = Caller::new(&up, "default", "command,read");
    for number in ["1e16", "9007199254740992", "-1.7e18"] {
        let mut text = session("s1").to_string();
        text.insert_str(1, &format!("\"extra\":{number},"));
        let request = caller.request(Method::POST, "/v1/commands/StartLearningSession");
        let (status, problem) = answer(request.body(text).send().await.unwrap()).await;
        assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("#/extra")), "{problem}");
    }
    let snapshot = |body: Value| {
        let admin = Caller::new(&up, "default", "admin");
        async move {
            let request = admin.request(Method::PUT, "/v1/streams/User-u/snapshot").json(&body);
            answer(request.send().await.unwrap()).await.0
        }
    };
    assert_eq!(snapshot(json!({"version": i64::MIN, "data": {}})).await, 400);
    assert_eq!(snapshot(json!({"version": 1, "stateVersion": 999, "data": {}})).await, 400);
    assert_eq!(snapshot(json!({"version": 1, "data": {}})).await, 404);
    up.terminate();
}

#[tokio::test]
async fn a_service_appends_events_that_it_decided_on_itself() {
    let weir = Weir::new();
    let up = weir.up();
    let caller = Caller::new(&up, "default", "command,read");
    let append = |stream: &str, body: Value| {
        let request = caller.request(Method::POST, &format!("/v1/streams/{stream}/events")).json(&body);
        async move { answer(request.send().await.unwrap()).await }
    };
    let event = |event_type: EventType| json!({"eventType": event_type, "data": samples::one(event_type)});
    let old = {
        let mut data = samples::one(EventType::ContentUploaded);
        data.as_object_mut().unwrap().remove("processingOptions");
        json!({"eventType": "ContentUploaded", "version": "1.0.0", "data": data})
    };
    let (status, stored) =
        append("Content-content_1", json!({"events": [old, event(EventType::ContentProcessingStarted)]})).await;
    assert_eq!(
        (status, &stored["firstPosition"], &stored["position"], &stored["version"]),
        (201, &json!(1), &json!(2), &json!(2))
    );
    let (_, stream) = caller.get("/v1/streams/Content-content_1").await;
    assert_eq!(stream["events"][0]["schemaVersion"], "1.2.0");

    let many: Vec<_> = (0..1000).map(|_| event(EventType::UserProfileUpdated)).collect();
    assert_eq!(append("User-user_12345", json!({"events": many})).await.0, 201);
    let too_many: Vec<_> = (0..1001).map(|_| event(EventType::UserProfileUpdated)).collect();
    assert_eq!(append("User-user_12345", json!({"events": too_many})).await.0, 400);
    let (status, wrong) = append("User-somebody_else", json!({"events": [event(EventType::UserProfileUpdated)]})).await;
    assert_eq!(status, 422, "{wrong}");
    // All or nothing.
    let mut bad = event(EventType::UserDeactivated);
    bad["data"]["reason"] = json!(7);
    let (status, wrong) =
        append("User-user_12345", json!({"events": [event(EventType::UserProfileUpdated), bad]})).await;
    assert_eq!(
        (status, &wrong["errors"][0]["pointer"], &wrong["detail"].as_str().unwrap().starts_with("event 1: ")),
        (422, &json!("#/events/1/data/reason"), &true)
    );
    let (_, page) = caller.get("/v1/streams/User-user_12345?after_version=999&limit=10").await;
    assert_eq!(page["events"].as_array().unwrap().len(), 1);
    // A stream of a thousand events has a snapshot.
    let snapshot = async {
        loop {
            let (status, body) = caller.get("/v1/streams/User-user_12345/snapshot").await;
            if status == 200 {
                return body;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let snapshot = tokio::time::timeout(std::time::Duration::from_secs(10), snapshot).await.expect("a snapshot");
    assert_eq!(snapshot["version"], 1000);

    let (_, typed) = caller.get("/v1/events?type=ContentProcessingStarted").await;
    assert_eq!(typed["events"][0]["position"], 2);
    let (_, all) = caller.get("/v1/events?after=1&limit=1").await;
    assert_eq!((&all["events"][0]["position"], &all["more"]), (&json!(2), &json!(true)));
    up.terminate();
    weir.verify();
}

#[tokio::test]
async fn bad_requests_get_problems_that_name_the_place() {
    let weir = Weir::new();
    let up = weir.up();
    let caller = Caller::new(&up, "default", "command,read");
    let raw = |body: String| {
        let request = caller
            .request(Method::POST, "/v1/commands/StartLearningSession")
            .header("content-type", "application/json")
            .body(body);
        async move { answer(request.send().await.unwrap()).await }
    };
    assert_eq!(raw("{\"sessionId\":".to_owned()).await.0, 400);
    assert_eq!(raw("[]".to_owned()).await.0, 400);
    assert_eq!(raw(format!("{{\"x\":\"{}\"}}", "y".repeat(1 << 20))).await.0, 413);
    assert_eq!(raw(session("s\u{0}1").to_string()).await.0, 422);
    let mut missing = session("s1");
    missing.as_object_mut().unwrap().remove("userId");
    missing["moduleId"] = json!(3);
    let (status, problem) = raw(missing.to_string()).await;
    assert_eq!((status, &problem["type"]), (422, &json!("urn:weir:problem:contract-violation")));
    let errors = problem["errors"].as_array().unwrap();
    assert!(errors.iter().any(|e| e["pointer"] == "#/moduleId"), "{problem}");
    assert!(errors.iter().any(|e| e["pointer"] == "#/userId"), "{problem}");

    assert_eq!(caller.command("FlyToTheMoon", &json!({}), &[]).await.0, 404);
    assert_eq!(caller.get("/v1/streams/nonsense").await.0, 400);
    assert_eq!(caller.get("/v1/streams/User-nobody").await.0, 404);
    assert_eq!(caller.get("/v1/events?limit=0").await.0, 400);
    assert_eq!(caller.get("/v1/events?colour=red").await.0, 400);
    assert_eq!(caller.get("/v2").await.0, 404);
    up.terminate();
}

#[tokio::test]
async fn tokens_open_what_their_tenant_and_scopes_allow() {
    let weir = Weir::new();
    let up = weir.up();
    let acme = Caller::new(&up, "acme", "command,read");
    let umbrella = Caller::new(&up, "umbrella", "command,read");
    let reader = Caller::new(&up, "acme", "read");
    assert_eq!(acme.command("StartLearningSession", &session("s1"), &[("idempotency-key", "k")]).await.0, 201);
    assert_eq!(reader.get("/v1/streams/LearningSession-s1").await.0, 200);
    let (status, problem) = reader.command("StartLearningSession", &session("s2"), &[]).await;
    assert_eq!((status, &problem["scope"]), (403, &json!("command")));

    // Another tenant's stream does not exist, its key is free, and its events are not among mine.
    assert_eq!(umbrella.get("/v1/streams/LearningSession-s1").await.0, 404);
    assert_eq!(umbrella.command("StartLearningSession", &session("s1"), &[("idempotency-key", "k")]).await.0, 201);
    let (_, mine) = umbrella.get("/v1/events").await;
    assert_eq!(mine["events"].as_array().unwrap().len(), 1);

    let bare = |token: Option<&str>| {
        let mut request = Client::new().get(format!("{}/v1/events", up.api));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        async move { answer(request.send().await.unwrap()).await.0 }
    };
    assert_eq!(bare(None).await, 401);
    assert_eq!(bare(Some("weir_000000000000_00")).await, 401);
    assert_eq!(bare(Some("nonsense")).await, 401);
    let id = acme.token.split('_').nth(1).unwrap().to_owned();
    assert_eq!(bare(Some(&format!("weir_{id}_{}", "0".repeat(64)))).await, 401);
    weir.ok(&["token", "revoke", &id]);
    assert_eq!(bare(Some(&acme.token)).await, 401);
    // The secret is nowhere at rest.
    let secret = acme.token.split('_').nth(2).unwrap();
    let dump = weir.owner().await.query_one("SELECT string_agg(t::text, ',') FROM api_tokens t", &[]).await.unwrap();
    assert!(!dump.get::<_, String>(0).contains(secret));
    assert!(!weir.json(&["token", "list"]).to_string().contains(secret));
    up.terminate();
}

#[tokio::test]
async fn health_and_metrics_answer_without_a_token() {
    let weir = Weir::new();
    let up = weir.up();
    up.caught_up().await;
    let get = |path: &str| reqwest::get(format!("{}{path}", up.api));
    assert_eq!(get("/livez").await.unwrap().status(), 200);
    let started = std::time::Instant::now();
    loop {
        let ready: Value = get("/readyz").await.unwrap().json().await.unwrap();
        if ready["ready"] == true {
            break;
        }
        assert!(started.elapsed().as_secs() < 30, "{ready}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let text = get("/metrics").await.unwrap().text().await.unwrap();
    for line in ["users_registered_total 0", "weir_totals_readable 1", "weir_lane_lag_records{lane=\"history\"} 0"] {
        assert!(text.lines().any(|l| l == line), "`{line}` is missing:\n{text}");
    }
    up.terminate();
}

#[tokio::test]
async fn while_postgres_is_away_commands_are_told_to_come_back_and_repeat_safely() {
    let weir = Weir::new().with("append.give_up_after_ms=300");
    let up = weir.up();
    let caller = Caller::new(&up, "default", "command,read");
    assert_eq!(caller.command("StartLearningSession", &session("s0"), &[]).await.0, 201);
    let away = weir.hold_server_lock();
    assert!(weir.kill_postgres());
    // The killed server's processes take a moment to notice; each try is a command of its own.
    let (key, refused, response) = {
        let mut tried = 0;
        loop {
            let (key, body) = (format!("key-{tried}"), session(&format!("s-{tried}")));
            let request = caller.request(Method::POST, "/v1/commands/StartLearningSession");
            let response = request.header("idempotency-key", &key).json(&body).send().await.unwrap();
            if response.status() != 201 {
                break (key, body, response);
            }
            tried += 1;
        }
    };
    assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    drop(away);
    let started = std::time::Instant::now();
    let stored = loop {
        let (status, body) = caller.command("StartLearningSession", &refused, &[("idempotency-key", &key)]).await;
        if status < 300 {
            break body;
        }
        assert_eq!(status, 503, "{body}");
        assert!(started.elapsed().as_secs() < 30, "{}", weir.log());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    assert_eq!(stored["version"], 1);
    up.caught_up().await;
    up.terminate();
    weir.verify();
}
