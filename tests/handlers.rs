//! Can a user's own code run in a lane of its own, exactly once, beside weir's? `own-lane/` is the program.

use weir_tests::{Facts, Fixture, Weir, seed};

/// Rows of the program's lane, and of how many assessments.
async fn congratulations(weir: &Weir) -> (i64, i64) {
    let sql = "SELECT count(*), count(DISTINCT assessment) FROM congratulations";
    let row = weir.owner().await.query_one(sql, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

#[tokio::test]
async fn a_lane_of_ones_own_applies_each_event_once_over_crashes() {
    let fixture = Fixture::new(2000, seed("handlers"));
    let passed: i64 = Facts::of_input(fixture.path()).progress.values().map(|(_, _, _, passed)| passed).sum();
    let weir = Weir::new().program("weir-own-lane");
    // Small batches, so that there are some; `weir` itself knows no such settings.
    let small =
        ["--set", "lanes.congratulations.records_max=50", "--set", "lanes.congratulations.poll_records_max=100"];
    weir.ok(&["import", "oulad", fixture.arg()]);
    for failpoint in ["congratulations.before_commit:2", "congratulations.after_commit:3"] {
        weir.dies_at(failpoint, &[&["up", "--until-caught-up"][..], &small].concat());
    }
    let up = weir.up();
    up.lanes_caught_up(4).await;
    let status = up.status();
    let parts = status["parts"].as_array().unwrap();
    assert!(parts.iter().any(|part| part["part"] == "congratulations" && part["lag"] == 0), "{status}");
    assert_eq!(congratulations(&weir).await, (passed, passed));
    up.terminate();
    let verified = weir.run(&["verify"]);
    let words = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.success() && words.contains("congratulations below"), "{words}");

    // Without the program its lane stands still: the program's own `verify` says so, and that of `weir` does not know of it.
    let plain = weir.program("weir");
    let up = plain.up();
    let token = up.token("default", "command");
    let post = reqwest::Client::new().post(format!("{}/v1/commands/RegisterUser", up.api)).bearer_auth(token);
    let data = weir_model::wire::samples::one(weir_model::EventType::UserRegistered);
    assert_eq!(post.json(&data).send().await.unwrap().status(), 201);
    up.caught_up().await;
    up.terminate();
    plain.verify();
    let own = plain.program("weir-own-lane");
    let refused = own.run(&["verify", "--wait", "1"]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && words.contains("congratulations is at"), "{words}");
}

#[test]
fn settings_of_ones_own_lane_are_settings() {
    let weir = Weir::new().program("weir-own-lane");
    let shown = weir.ok(&["config", "show", "--set", "lanes.congratulations.records_max=7"]);
    assert!(shown.contains("lanes.congratulations.records_max"), "{shown}");
    let refused = weir.run(&["config", "validate", "--set", "lanes.congratulation.records_max=7"]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.status.code() == Some(1) && words.contains("did you mean `lanes.congratulations.records_max`"),
        "{words}"
    );
    let refused = weir.program("weir").run(&["config", "validate", "--set", "lanes.congratulations.records_max=7"]);
    assert_eq!(refused.status.code(), Some(1));
}
