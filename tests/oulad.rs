//! Do the real learning records come out right? The files are not part of the repository: `WEIR_OULAD` names their directory.

use std::io::Write;
use std::time::{Duration, Instant};

use weir_tests::{ClickHouse, Facts, Fixture, Weir, seed};

use crate::readers;

mod jobs;
mod questions;

/// Waits until so many rows are in ClickHouse.
pub(crate) async fn rows(server: &ClickHouse, at_least: u64) {
    let sql = "SELECT sum(rows) FROM system.parts WHERE database = 'weir' AND table = 'events_stored' AND active";
    let started = Instant::now();
    while server.sql(sql).await.parse::<u64>().unwrap() < at_least {
        assert!(started.elapsed() < Duration::from_secs(240), "no {at_least} rows");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn the_real_data_set() {
    let Some(dir) = std::env::var_os("WEIR_OULAD").map(std::path::PathBuf::from) else {
        // Past the capture of what tests print: nobody should believe that this was shown.
        let words = "NOT RUN: oulad::the_real_data_set; WEIR_OULAD=DIR names the directory of the OULAD files";
        writeln!(std::io::stderr(), "{words}").unwrap();
        return;
    };
    let facts = Facts::of_input(&dir);
    let expected = [
        ("AssessmentCompleted", 103_755),
        ("LearningSessionStarted", 350_298),
        ("UserDeactivated", 7_403),
        ("UserProfileUpdated", 22_297),
        ("UserRegistered", 22_297),
    ];
    assert_eq!(facts.events, expected.map(|(t, n)| (t.to_owned(), n)).into());
    let results = [("Distinction", 1_958), ("Fail", 4_613), ("Pass", 8_265), ("Withdrawn", 7_461)];
    assert_eq!(facts.results, results.map(|(t, n)| (t.to_owned(), n)).into());
    // Nobody takes an assessment twice in this data set.
    assert_eq!(facts.takes.len(), 103_755);

    let mut server = ClickHouse::start();
    let weir = Weir::new().with_all(server.settings());
    let dir = dir.to_str().unwrap();
    // Both commands are killed in the middle and run again.
    let mut import = weir.start(&["import", "oulad", dir]);
    tokio::time::sleep(Duration::from_secs(20)).await;
    import.kill().unwrap();
    import.wait().unwrap();
    let imported = weir.json(&["import", "oulad", dir]);
    assert_eq!(imported.as_array().unwrap().last().unwrap()["appended"], 123, "{imported}");
    // So is ClickHouse, later on.
    let mut up = weir.start(&["up", "--until-caught-up"]);
    rows(&server, 100_000).await;
    up.kill().unwrap();
    up.wait().unwrap();
    let mut up = weir.start(&["up", "--until-caught-up"]);
    rows(&server, 250_000).await;
    server.kill();
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.start_again();
    assert!(up.wait().unwrap().success(), "{}", weir.log());
    assert!(weir.log().contains("waiting for what this lane needs lane=\"clickhouse\""), "{}", weir.log());

    let up = weir.up();
    facts.hold(&weir, &up).await;
    readers::agree(&up, &facts);
    let mean = readers::duckdb(
        &up,
        "SELECT round(avg(score), 3) FROM HISTORY WHERE event_type = 'AssessmentCompleted' AND user_id LIKE '%-BBB-%' \
         AND json_extract_string(extra, '$.assessmentType') = 'TMA'",
    );
    assert_eq!(mean[0][0], 70.007);
    up.terminate();
    let mean = weir.json(&[
        "sql",
        "SELECT round(avg(score), 3) AS mean FROM assessment_completed \
        WHERE user_id LIKE '%-BBB-%' AND json_get_str(extra, 'assessmentType') = 'TMA'",
    ]);
    assert_eq!(mean[0]["mean"], 70.007);
    let mean = "SELECT round(avg(score), 3) FROM weir.assessment_completed \
        WHERE user_id LIKE '%-BBB-%' AND JSONExtractString(extra, 'assessmentType') = 'TMA'";
    assert_eq!(server.sql(mean).await, "70.007");
    crate::clickhouse::holds(&server, &weir, &facts).await;
}

#[tokio::test]
async fn a_second_import_adds_nothing_and_rejects_are_named() {
    let fixture = Fixture::new(2000, seed("oulad"));
    let facts = Facts::of_input(fixture.path());
    let weir = Weir::new();
    let rejects = fixture.path().join("rejects.csv");
    let args = ["import", "oulad", fixture.arg(), "--rejects", rejects.to_str().unwrap()];
    let sum = |table: &serde_json::Value, column: &str| -> i64 {
        let rows = table.as_array().unwrap().iter().filter(|r| r["event_type"] != "(rejected rows)");
        rows.map(|r| r[column].as_i64().unwrap()).sum()
    };
    let first = weir.json(&args);
    assert_eq!((sum(&first, "appended"), sum(&first, "present")), (facts.total(), 0));
    let rejected = std::fs::read_to_string(&rejects).unwrap();
    assert!(rejected.starts_with("file,line,reason\n"), "{rejected}");
    assert!(rejected.contains("score is missing") && rejected.contains("score is `a lot`, no number"), "{rejected}");
    let second = weir.json(&args);
    assert_eq!((sum(&second, "appended"), sum(&second, "present")), (0, facts.total()));
    assert_eq!(std::fs::read_to_string(&rejects).unwrap(), rejected);
    let strict = weir.run(&["import", "oulad", fixture.arg(), "--strict"]);
    assert_eq!(strict.status.code(), Some(1));

    // In order of event time, whatever the order of the files.
    let up = weir.up();
    up.caught_up().await;
    facts.hold(&weir, &up).await;
    let inverted = weir.owner().await
        .query_one("SELECT count(*) FROM (SELECT timestamp < lag(timestamp) OVER (ORDER BY id) AS inverted FROM events) x WHERE inverted", &[])
        .await.unwrap().get::<_, i64>(0);
    assert_eq!(inverted, 0);
    up.terminate();
}

/// An import from when the assessment's id held the student's too: its events stay, are not appended again, and count with the rest.
#[tokio::test]
async fn an_import_goes_on_where_an_older_one_had_joined_ids() {
    const STORED: &str =
        "SELECT event_data FROM event_log WHERE event_type = 'AssessmentCompleted' ORDER BY id LIMIT 30";
    let fixture = Fixture::new(1000, seed("oulad::joined"));
    let facts = Facts::of_input(fixture.path());
    let rehearsal = Weir::new();
    rehearsal.ok(&["import", "oulad", fixture.arg()]);
    let rehearsing = rehearsal.up();
    let stored = rehearsal.owner().await.query(STORED, &[]).await.unwrap();
    rehearsing.terminate();
    let weir = Weir::new();
    let up = weir.up();
    let token = up.token("default", "command,read");
    let client = reqwest::Client::new();
    for row in &stored {
        let mut data: serde_json::Value = row.get(0);
        let student = data["userId"].as_str().unwrap().split('-').next().unwrap().to_owned();
        let joined = format!("{}-{student}", data["assessmentId"].as_str().unwrap());
        data["assessmentId"] = joined.clone().into();
        let post = client.post(format!("{}/v1/commands/CompleteAssessment", up.api)).bearer_auth(&token).json(&data);
        let answer = post.header("Idempotency-Key", format!("oulad/assessment/{joined}")).send().await.unwrap();
        assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
    }
    let imported = weir.json(&["import", "oulad", fixture.arg()]);
    let of_assessments = imported.as_array().unwrap().iter().find(|row| row["event_type"] == "AssessmentCompleted");
    let (expected, of_assessments) = (facts.events["AssessmentCompleted"], of_assessments.unwrap());
    assert_eq!((&of_assessments["appended"], &of_assessments["present"]), (&(expected - 30).into(), &30.into()));
    up.caught_up().await;
    let sql = "SELECT sum(attempts)::bigint, sum(assessments_taken)::bigint FROM learner_progress_read_model";
    let row = weir.owner().await.query_one(sql, &[]).await.unwrap();
    assert_eq!((row.get(0), row.get(1)), (expected, expected));
    weir.verify();
    up.terminate();
}
