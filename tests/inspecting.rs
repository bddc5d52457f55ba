//! Can an operator see where an event is, how far each lane is, and what to do?

use std::io::BufRead;

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
        ("assessment_results", "present"),
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
    let mut watching = weir.command(&["status", "--watch"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut shown = 0;
    while shown < 2 {
        let line = lines.next().expect("it goes on until it is told to stop").unwrap();
        shown += usize::from(line.contains("data directory"));
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&watching), rustix::process::Signal::INT).unwrap();
    lines.for_each(drop);
    assert!(watching.wait().unwrap().success());
    up.terminate();
}

/// At a terminal, which `script` makes: history, `\\d`, timing, completion; and statements from a pipe.
#[test]
fn a_prompt_answers_statements_and_describes_tables() {
    let weir = Weir::new();
    let dir = tempfile::tempdir().unwrap();
    let typed = "\\d\nSELECT 1 +\n  41 AS answer;\nSELECT count(*) + 6999 + 1 AS done FROM assessment_comp\t;\n\\timing\nSELEC 1;\n\\d events\n\\q\n";
    std::fs::write(dir.path().join("typed"), typed).unwrap();
    let binary = weir_tests::binary().display();
    let line = format!("{binary} sql --data-dir {}", weir.path().display());
    let shell = format!(
        "(sleep 1; while IFS= read -r line; do printf '%s\\n' \"$line\"; sleep 0.7; done < typed; sleep 1) | script -qec '{line}' out"
    );
    let output = std::process::Command::new("sh").args(["-c", &shell]).current_dir(dir.path()).output().unwrap();
    let screen = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{screen}");
    for part in [
        "learning_session_started",
        "42",
        "7000",
        " rows, ",
        "timing is off",
        "error: ",
        "event_month",
        "aggregate_version",
    ] {
        assert!(screen.contains(part), "`{part}` is missing on the screen:\n{screen}");
    }
    let kept = std::fs::read_to_string(weir.path().join("sql_history")).unwrap();
    assert!(kept.contains("AS answer"), "{kept}");

    let mut piped = weir.command(&["sql", "--format", "csv"]);
    let mut child = piped.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(
        &mut child.stdin.take().unwrap(),
        b"SELECT 1 AS a;\nSELECT 2\n AS b;\n\\ask results_by_learning_path\n",
    )
    .unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.starts_with("a\n1\nb\n2\n") && text.lines().nth(4).is_some_and(|head| head.contains("learning_path_id")),
        "{text}"
    );
    let refused =
        weir.command(&["sql"]).stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn();
    let mut refused = refused.unwrap();
    std::io::Write::write_all(&mut refused.stdin.take().unwrap(), b"\\ask results_by_learning_pth\n").unwrap();
    let words = String::from_utf8_lossy(&refused.wait_with_output().unwrap().stderr).into_owned();
    assert!(words.contains("did you mean results_by_learning_path?"), "{words}");
}
