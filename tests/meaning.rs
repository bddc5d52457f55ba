//! Do the numbers mean what a user thinks: exams that many take, and often; profiles; who did what?

use std::sync::atomic::{AtomicU32, Ordering};

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use weir_model::EventType;
use weir_model::wire::samples;
use weir_tests::{Postgres, Up, Weir};

struct School<'a> {
    up: &'a Up<'a>,
    token: String,
    taken: AtomicU32,
}

impl<'a> School<'a> {
    fn new(up: &'a Up<'a>) -> Self {
        Self { up, token: up.token("default", "command,read"), taken: AtomicU32::new(0) }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        Client::new().request(method, format!("{}{path}", self.up.api)).bearer_auth(&self.token)
    }

    async fn command(&self, name: &str, data: &Value) -> (u16, Value) {
        let answer = self.request(Method::POST, &format!("/v1/commands/{name}")).json(data).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let answer = self.request(Method::GET, path).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// A learner takes `final-exam`.
    async fn takes(&self, user: &str, score: u32, passed: bool) -> (u16, Value) {
        let mut data = samples::one(EventType::AssessmentCompleted);
        (data["assessmentId"], data["userId"]) = (json!("final-exam"), json!(user));
        (data["score"], data["passed"]) = (json!(score), json!(passed));
        // One after the other: of attempts at one time the key decides which is the last.
        let minute = self.taken.fetch_add(1, Ordering::SeqCst);
        data["timestamp"] = json!(format!("2024-01-15T10:{minute:02}:00Z"));
        self.command("CompleteAssessment", &data).await
    }
}

#[tokio::test]
async fn an_exam_is_taken_by_many_and_often() {
    let weir = Weir::new().with("assessments.max_attempts=3");
    let up = weir.up();
    let school = School::new(&up);
    for (user, score, passed) in [("ann", 30, false), ("bob", 80, true), ("ann", 90, true), ("ann", 50, true)] {
        let (status, answer) = school.takes(user, score, passed).await;
        assert_eq!((status, &answer["stream"]), (201, &json!(format!("Assessment-final-exam/{user}"))), "{answer}");
        assert_eq!((&answer["aggregateType"], &answer["tenantId"]), (&json!("Assessment"), &json!("default")));
    }
    let (status, answer) = school.takes("ann", 100, true).await;
    assert_eq!(status, 409, "{answer}");
    assert!(answer["detail"].as_str().unwrap().contains("has 3 attempts"), "{answer}");
    let (_, last) = school.takes("bob", 10, false).await;
    let wait = format!("wait_for={}", last["position"]);

    let (status, page) = school.get(&format!("/v1/assessments/final-exam/results?{wait}")).await;
    assert_eq!((status, page["items"].as_array().map(Vec::len)), (200, Some(2)), "{page}");
    let ann = &page["items"][0];
    assert_eq!((&ann["userId"], &ann["attempts"], &ann["passes"]), (&json!("ann"), &json!(3), &json!(2)), "{page}");
    assert_eq!(
        (&ann["bestScorePercent"], &ann["lastScore"], &ann["passed"]),
        (&json!(90.0), &json!(50), &json!(true)),
        "{ann}"
    );
    let (_, page) = school.get("/v1/assessments/final-exam/attempts?user=bob&passed=false").await;
    assert_eq!(page["items"].as_array().map(Vec::len), Some(1), "{page}");
    // One by one, by cursor.
    let (_, first) = school.get("/v1/assessments/final-exam/attempts?limit=3").await;
    let cursor = first["next"].as_str().unwrap();
    let (_, rest) = school.get(&format!("/v1/assessments/final-exam/attempts?limit=3&cursor={cursor}")).await;
    assert_eq!((rest["items"].as_array().map(Vec::len), &rest["next"]), (Some(2), &Value::Null), "{rest}");
    let (_, progress) = school.get("/v1/users/ann/progress").await;
    let counts =
        ["attempts", "attemptsPassed", "assessmentsTaken", "assessmentsPassed"].map(|name| progress[name].as_i64());
    assert_eq!(counts, [Some(3), Some(2), Some(1), Some(1)], "{progress}");
    let (status, _) = school.get("/v1/assessments/final-exam/results?nonsense=1").await;
    assert_eq!(status, 400);
    up.terminate();
    weir.verify();
}

#[tokio::test]
async fn a_profile_is_updated_as_it_was_registered() {
    let weir = Weir::new();
    let up = weir.up();
    let school = School::new(&up);
    school.command("RegisterUser", &samples::one(EventType::UserRegistered)).await;
    let update =
        |fields: Value, values: Value| json!({"userId": "user_12345", "changedFields": fields, "newValues": values});
    for (data, pointer) in [
        (update(json!(["preferences"]), json!({})), "#/newValues"),
        (update(json!([]), json!({"lastName": "Roe"})), "#/newValues/lastName"),
        (update(json!(["lastName", "email"]), json!({"lastName": "Roe"})), "#/changedFields/1"),
    ] {
        let (status, refusal) = school.command("UpdateUserProfile", &data).await;
        assert_eq!((status, &refusal["errors"][0]["pointer"]), (422, &json!(pointer)), "{refusal}");
    }
    let data = update(
        json!(["preferences", "lastName"]),
        json!({"preferences": {"language": "fr", "timezone": null}, "lastName": "Roe"}),
    );
    let (status, answer) = school.command("UpdateUserProfile", &data).await;
    assert_eq!(status, 201, "{answer}");
    let (_, user) = school.get(&format!("/v1/users/user_12345?wait_for={}", answer["position"])).await;
    assert_eq!((&user["preferences"], &user["lastName"]), (&json!({"language": "fr"}), &json!("Roe")), "{user}");
    // What caused it: the command, where the caller says nothing.
    let (_, page) = school.get("/v1/streams/User-user_12345").await;
    let event = &page["events"][0];
    assert!(event["metadata"]["causationId"].is_string() && event["metadata"]["tenantId"] == "default", "{event}");
    assert_eq!((&event["aggregateId"], &event["aggregateType"]), (&json!("user_12345"), &json!("User")));
    up.terminate();
    weir.verify();
}

#[tokio::test]
async fn what_grows_on_its_way_is_refused_at_the_door() {
    let weir = Weir::new();
    let up = weir.up();
    let school = School::new(&up);
    let mut data = samples::one(EventType::UserRegistered);
    data["note"] = json!(vec![1e300; 9_000]);
    let (status, refusal) = school.command("RegisterUser", &data).await;
    assert_eq!(status, 413, "{refusal}");
    assert!(refusal["storedBytes"].as_i64().unwrap() > 2_700_000, "{refusal}");
    // What is counted is what Postgres makes of it for SQL.
    data["note"] = json!([1e300, 1.5e-7, -2.25, "é\n\"", {"a": [], "b": {}}, null, true]);
    let (status, _) = school.command("RegisterUser", &data).await;
    assert_eq!(status, 201);
    let row = weir.owner().await.query_one("SELECT event_data::text FROM event_log", &[]).await.unwrap();
    let stored: String = row.get(0);
    let Value::Object(read) = serde_json::from_str(&stored).unwrap() else { panic!("an object") };
    assert_eq!(weir_model::contract::door::stored_size(&read), stored.len());
    up.terminate();
}

/// What stood in the event store before text was kept as it is, beside what came after: one stream, one truth.
#[tokio::test]
async fn the_text_that_was_appended_is_kept_beside_rows_of_before() {
    let weir = Weir::new();
    let up = weir.up();
    let school = School::new(&up);
    let mut data = samples::one(EventType::UserRegistered);
    data["note"] = json!([1e21, 1.5e-7, "\u{e9}\n", {"b": [], "a": null}]);
    assert_eq!(school.command("RegisterUser", &data).await.0, 201);
    let owner = weir.owner().await;
    let row = owner.query_one("SELECT event_json::text, event_jsonb IS NULL FROM events", &[]).await.unwrap();
    let text: &str = row.get(0);
    assert!(
        text.contains("\"note\":[1e+21,1.5e-7,\"\u{e9}\\n\",{\"a\":null,\"b\":[]}]") && row.get::<_, bool>(1),
        "{text}"
    );
    assert_eq!(text, weir_model::canonical::text(&serde_json::from_str(text).unwrap()));
    up.caught_up().await;
    // As rows of before are kept.
    owner.batch_execute("UPDATE events SET event_jsonb = event_json::jsonb, event_json = NULL").await.unwrap();
    let update = json!({"userId": "user_12345", "changedFields": ["lastName"], "newValues": {"lastName": "Roe"}});
    let (status, answer) = school.command("UpdateUserProfile", &update).await;
    assert_eq!((status, &answer["version"]), (201, &json!(2)), "{answer}");
    let (_, page) = school.get("/v1/streams/User-user_12345").await;
    assert_eq!(
        (&page["events"][0]["data"]["note"], &page["events"][1]["data"]["newValues"]["lastName"]),
        (&data["note"], &json!("Roe"))
    );
    let (_, user) = school.get(&format!("/v1/users/user_12345?wait_for={}", answer["position"])).await;
    assert_eq!(user["lastName"], "Roe", "{user}");
    const BOTH: &str = "SELECT event_data->>'userId' FROM event_log ORDER BY id";
    let users: Vec<String> = owner.query(BOTH, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(users, ["user_12345", "user_12345"]);
    up.terminate();
    weir.verify();
}

#[tokio::test]
async fn contents_and_tasks_have_read_models() {
    let weir = Weir::new();
    let up = weir.up();
    let school = School::new(&up);
    for (command, event_type) in [
        ("UploadContent", EventType::ContentUploaded),
        ("StartContentProcessing", EventType::ContentProcessingStarted),
        ("CompleteContentProcessing", EventType::ContentProcessingCompleted),
        ("AssignTask", EventType::TaskAssigned),
        ("CompleteTask", EventType::TaskCompleted),
        ("StartLearningSession", EventType::LearningSessionStarted),
    ] {
        let (status, answer) = school.command(command, &samples::one(event_type)).await;
        assert_eq!(status, 201, "{answer}");
    }
    let (_, content) = school.get("/v1/contents/content_1?wait_for=6").await;
    assert_eq!((&content["status"], &content["processingSeconds"]), (&json!("completed"), &json!(1.8305)), "{content}");
    let (_, task) = school.get("/v1/tasks/task_1").await;
    assert_eq!((&task["status"], &task["deadlineMet"]), (&json!("completed"), &json!(true)), "{task}");
    assert_eq!(task["deadline"], "2024-01-16T10:30:00.000Z");
    for (path, found) in
        [("/v1/tasks?agent=agent_1", 1), ("/v1/tasks?status=assigned", 0), ("/v1/sessions?user=user_12345", 1)]
    {
        let (status, page) = school.get(path).await;
        assert_eq!((status, page["items"].as_array().map(Vec::len)), (200, Some(found)), "{path}: {page}");
    }
    // Another tenant's are not there.
    let stranger = School { up: &up, token: up.token("acme", "read"), taken: AtomicU32::new(0) };
    assert_eq!(stranger.get("/v1/tasks/task_1").await.0, 404);
    assert_eq!(stranger.get("/v1/contents").await.1["items"], json!([]));
    up.terminate();
    weir.verify();
}

#[tokio::test]
async fn verify_never_says_equal_about_less_than_everything() {
    let weir = Weir::new();
    weir.ok(&["import", "oulad", weir_tests::Fixture::new(300, 7).arg()]);
    let verify = || {
        let output = weir.run(&["verify"]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // No lane ever ran.
    let (code, words) = verify();
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("NOT ALL COMPARED") && words.contains("not there: history: it never ran"), "{words}");
    // One of them does not run; nobody says that it should.
    let some =
        Weir::command(&weir, &["up", "--until-caught-up", "--set", "lanes.history.enabled=false"]).output().unwrap();
    assert!(some.status.success(), "{}", String::from_utf8_lossy(&some.stderr));
    let (code, words) = verify();
    assert!(code == Some(1) && words.contains("history is at 1 of"), "{words}");
    let without = weir.run(&["verify", "--set", "lanes.history.enabled=false"]);
    let words = String::from_utf8_lossy(&without.stderr).into_owned();
    assert!(without.status.success() && words.contains("not compared, since it is not enabled: history"), "{words}");
    weir.ok(&["up", "--until-caught-up"]);
    weir.verify();
}

/// Read models of the layout before are emptied by the migration, as they are here, and rebuilt at the next start.
#[tokio::test]
async fn read_models_of_an_older_layout_are_rebuilt_at_start() {
    let weir = Weir::new();
    let up = weir.up();
    let school = School::new(&up);
    for (user, score) in [("ann", 30), ("bob", 80), ("ann", 90)] {
        assert_eq!(school.takes(user, score, score > 40).await.0, 201);
    }
    up.caught_up().await;
    let owner = weir.owner().await;
    owner
        .batch_execute(
            "UPDATE events SET stream_id = 'Assessment-final-exam', version = id WHERE stream_id LIKE 'Assessment-%'; \
             TRUNCATE assessment_read_model, assessment_results, content_read_model, task_read_model; \
             UPDATE learner_progress_read_model SET assessments_taken = 0, assessments_passed = 0; \
             UPDATE read_models_layout SET layout = 1",
        )
        .await
        .unwrap();
    up.terminate();
    let output = weir.run(&["verify"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("wait to be rebuilt"));
    let up = weir.up();
    weir.until("SELECT layout = 2 FROM read_models_layout").await;
    let school = School::new(&up);
    let (_, page) = school.get("/v1/assessments/final-exam/results?user=ann").await;
    assert_eq!((&page["items"][0]["attempts"], &page["items"][0]["passes"]), (&json!(2), &json!(1)), "{page}");
    // Streams of the old form stay readable.
    let (status, page) = school.get("/v1/streams/Assessment-final-exam").await;
    assert_eq!((status, page["events"].as_array().map(Vec::len)), (200, Some(3)), "{page}");
    up.caught_up().await;
    up.terminate();
    // History has the streams that the events were in before this test renamed them.
    weir.ok(&["verify", "--set", "lanes.history.enabled=false"]);
}

/// A database as the version before attempts left it, with its own old streams, goes on: read models are rebuilt before their lane does.
#[tokio::test]
async fn a_database_of_the_version_before_is_carried_over() {
    let postgres = Postgres::start();
    let weir = Weir::new().on(&postgres.url());
    let owner = weir.owner().await;
    owner.batch_execute("CREATE ROLE weir_reader NOLOGIN").await.unwrap();
    owner.batch_execute(include_str!("meaning/before_attempts.sql")).await.unwrap();
    let before = "SELECT id, user_id, score::bigint FROM assessment_read_model ORDER BY completed_at DESC LIMIT 1";
    let row = owner.query_one(before, &[]).await.unwrap();
    let (assessment, user, score): (String, String, i64) = (row.get(0), row.get(1), row.get(2));
    drop(owner);
    let up = weir.up();
    weir.until("SELECT layout = 2 FROM read_models_layout").await;
    up.caught_up().await;
    let school = School::new(&up);
    let (_, page) = school.get(&format!("/v1/assessments/{assessment}/results?user={user}")).await;
    assert_eq!((&page["items"][0]["attempts"], &page["items"][0]["lastScore"]), (&json!(1), &json!(score)), "{page}");
    // The next attempt goes into a stream of its own, and is counted with the old one.
    let mut data = samples::one(EventType::AssessmentCompleted);
    (data["assessmentId"], data["userId"], data["score"]) = (json!(assessment), json!(user), json!(100));
    (data["maxScore"], data["passed"]) = (json!(100), json!(true));
    let (status, answer) = school.command("CompleteAssessment", &data).await;
    assert_eq!((status, &answer["stream"]), (201, &json!(format!("Assessment-{assessment}/{user}"))), "{answer}");
    let wait = format!("wait_for={}", answer["position"]);
    let (_, page) = school.get(&format!("/v1/assessments/{assessment}/results?user={user}&{wait}")).await;
    assert_eq!((&page["items"][0]["attempts"], &page["items"][0]["passed"]), (&json!(2), &json!(true)), "{page}");
    up.caught_up().await;
    up.terminate();
    let output = weir.run(&["verify"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
