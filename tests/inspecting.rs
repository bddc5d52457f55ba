//! Can an operator see where an event is, how far each lane is, and what to do?

use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use weir_model::EventType;
use weir_model::wire::samples;
use weir_tests::Weir;

#[tokio::test]
async fn an_event_is_traced_through_every_sink() {
    let weir = Weir::new();
    let up = weir.up();
    let token = up.token("default", "command,read");
    let data = samples::one(EventType::AssessmentCompleted);
    let post = Client::new().post(format!("{}/v1/commands/CompleteAssessment", up.api)).bearer_auth(&token).json(&data);
    assert_eq!(post.send().await.unwrap().status(), 201);
    let page = Client::new().get(format!("{}/v1/events", up.api)).bearer_auth(&token).send().await.unwrap();
    let page: Value = page.json().await.unwrap();
    let id = page["events"][0]["eventId"].as_str().unwrap_or_else(|| panic!("{page}")).to_owned();
    up.caught_up().await;

    let traced = weir.json(&["trace", &id]);
    let places: Vec<(&str, &str)> = traced
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["place"].as_str().unwrap(), row["state"].as_str().unwrap()))
        .collect();
    let expected = [
        ("happened", ""),
        ("event store", "stored"),
        ("ledger of history", "applied"),
        ("ledger of metrics", "applied"),
        ("ledger of read-models", "applied"),
        ("assessment_read_model", "present"),
        ("learner_progress_read_model", "present"),
        ("history", "present"),
    ];
    assert_eq!(places, expected, "{traced}");
    assert!(traced.as_array().unwrap().iter().all(|row| row["at"].is_string()), "{traced}");
    let unknown = weir.run(&["trace", "00000000-0000-4000-8000-000000000000"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("there is no event"));

    let ledger = weir.json(&["ledger", "show"]);
    let offsets: Vec<&Value> = ledger.as_array().unwrap().iter().map(|row| &row["next_offset"]).collect();
    assert_eq!(offsets, [&json!(2), &json!(2), &json!(2)], "{ledger}");
    assert_eq!(weir.json(&["ledger", "show", "--lane", "history"]).as_array().unwrap().len(), 1);
    up.terminate();
}

#[tokio::test]
async fn status_is_shown_anew_until_it_is_told_to_stop() {
    let weir = Weir::new();
    let up = weir.up();
    let watching = weir.command(&["status", "--watch"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    tokio::time::sleep(Duration::from_millis(3500)).await;
    rustix::process::kill_process(rustix::process::Pid::from_child(&watching), rustix::process::Signal::INT).unwrap();
    let output = watching.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.matches("data directory").count() > 1, "{text}");
    up.terminate();
}
