//! Is what a newer build wrote refused by this one, in words, with nothing changed?

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_tests::Weir;

fn refused(weir: &Weir, args: &[&str]) -> String {
    let output = weir.run(args);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && words.contains("newer weir"), "{args:?}: {words}");
    words
}

#[tokio::test]
async fn each_store_of_a_newer_build_is_refused() {
    let weir = Weir::new();
    weir.ok(&["demo", "--events", "100", "--rate", "2000"]);
    let log = weir.path().join("history/events/_delta_log");
    let first = fs::read_to_string(log.join("00000000000000000000.json")).unwrap();
    assert!(first.contains(r#""weir.format":"2""#), "{first}");

    // History: a commit that says so, as a newer build would begin with.
    let next = (1..).map(|n| log.join(format!("{n:020}.json"))).find(|path| !path.exists()).unwrap();
    let metadata = first.lines().find(|line| line.contains("\"metaData\"")).unwrap();
    fs::write(&next, format!("{}\n", metadata.replace(r#""weir.format":"2""#, r#""weir.format":"3""#))).unwrap();
    for command in [&["verify"][..], &["sql", "SELECT count(*) FROM events"]] {
        assert!(refused(&weir, command).contains("format 3"));
    }
    // Its lane waits, and says why; the others go on.
    let up = weir.up();
    let admin = up.token("default", "admin");
    let started = Instant::now();
    loop {
        let lanes = up.readiness(&admin).await["lanes"].clone();
        if lanes["history"]["trouble"].as_str().is_some_and(|words| words.contains("newer weir")) {
            assert_eq!(
                (&lanes["history"]["phase"], &lanes["metrics"]["phase"]),
                (&json!("waiting"), &json!("running"))
            );
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "{lanes}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    up.terminate();
    fs::remove_file(&next).unwrap();

    // Postgres: a migration that this build does not have.
    {
        let up = weir.up();
        let insert =
            "INSERT INTO refinery_schema_history (version, name, applied_on, checksum) VALUES (999, 'later', '', '0')";
        weir.owner().await.execute(insert, &[]).await.unwrap();
        up.terminate();
        for command in [&["verify"][..], &["status"], &["token", "list"]] {
            assert!(refused(&weir, command).contains("version 999"));
        }
    }
    // The data directory itself.
    fs::write(weir.path().join("weir-data.json"), r#"{"format": 2}"#).unwrap();
    refused(&weir, &["status"]);
}

/// A table of the first format, which had no `kafka_record`, gets it by one commit, whatever dies around that.
#[test]
fn a_history_of_the_first_format_is_brought_to_this_one() {
    let weir = Weir::new();
    weir.ok(&["demo", "--events", "100", "--rate", "2000"]);
    let log = weir.path().join("history/events/_delta_log");
    let first = log.join("00000000000000000000.json");
    let as_before = |line: &str| {
        let mut action: Value = serde_json::from_str(line).unwrap();
        if let Some(metadata) = action.get_mut("metaData") {
            let mut schema: Value = serde_json::from_str(metadata["schemaString"].as_str().unwrap()).unwrap();
            schema["fields"].as_array_mut().unwrap().retain(|field| field["name"] != "kafka_record");
            metadata["schemaString"] = json!(schema.to_string());
            metadata["configuration"].as_object_mut().unwrap().remove("weir.format");
        }
        format!("{action}\n")
    };
    fs::write(&first, fs::read_to_string(&first).unwrap().lines().map(as_before).collect::<String>()).unwrap();
    weir.verify();
    for failpoint in ["history.before_upgrade", "history.after_upgrade"] {
        weir.dies_at(failpoint, &["up"]);
    }
    weir.ok(&["demo", "--events", "200", "--rate", "2000"]);
    weir.verify();
    let commits: Vec<String> = (1..)
        .map(|n| log.join(format!("{n:020}.json")))
        .take_while(|path| path.exists())
        .map(|path| fs::read_to_string(path).unwrap())
        .filter(|commit| commit.contains("metaData"))
        .collect();
    let [commit] = &commits[..] else { panic!("{commits:?}") };
    assert!(commit.contains(r#""weir.format":"2""#) && commit.contains("kafka_record"), "{commit}");
}

/// A new column of the envelope is a line of its table, and a migration here; ClickHouse's columns are held against it when the lane starts.
#[tokio::test]
async fn each_column_of_the_envelope_has_its_place_in_the_event_store() {
    let weir = Weir::new();
    let up = weir.up();
    let sql = "SELECT column_name::text FROM information_schema.columns WHERE table_name = 'events'";
    let rows = weir.owner().await.query(sql, &[]).await.unwrap();
    let columns: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    for column in weir_model::envelope::COLUMNS {
        let place = column.postgres.split('.').next().unwrap();
        assert!(columns.iter().any(|name| name == place), "{} should be in {place}: {columns:?}", column.name);
    }
    up.terminate();
}
