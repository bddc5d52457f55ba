//! Does `weir verify` notice a single changed number, in any sink?

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, RecordBatch};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rustix::process::Signal;
use weir_tests::{Fixture, Kafka, Weir, seed};

use crate::kafka::{apply_topics, kill, on, signal, terminate, until};

async fn filled() -> Weir {
    let fixture = Fixture::new(1000, seed("tampering"));
    let weir = Weir::new();
    weir.ok(&["import", "oulad", fixture.arg()]);
    weir.ok(&["up", "--until-caught-up"]);
    weir.verify();
    weir
}

#[tokio::test]
async fn one_changed_number_in_a_read_model_or_a_metric() {
    let weir = filled().await;
    let up = weir.up();
    let owner = weir.owner().await;
    let one = "ctid = (SELECT min(ctid) FROM";
    for (table, change, back) in [
        ("assessment_read_model", "score = score + 1", "score = score - 1"),
        (
            "assessment_read_model",
            "score_percent = score_percent + 0.000001",
            "score_percent = score_percent - 0.000001",
        ),
        ("assessment_results", "attempts = attempts + 1", "attempts = attempts - 1"),
        (
            "learner_progress_read_model",
            "assessments_taken = assessments_taken + 1",
            "assessments_taken = assessments_taken - 1",
        ),
        ("user_read_model", "preferences = preferences || '{\"x\": 1}'", "preferences = preferences - 'x'"),
        (
            "learning_session_read_model",
            "started_at = started_at + interval '1 ms'",
            "started_at = started_at - interval '1 ms'",
        ),
        ("learner_progress_read_model", "sessions = sessions + 1", "sessions = sessions - 1"),
        ("learner_progress_read_model", "learning_paths = learning_paths + 1", "learning_paths = learning_paths - 1"),
        (
            "learner_progress_read_model",
            "time_spent_seconds = time_spent_seconds + 0.0000001",
            "time_spent_seconds = time_spent_seconds - 0.0000001",
        ),
        ("metric_counters", "value = value + 1", "value = value - 1"),
    ] {
        // The same row both times: an update moves it, so it is found by its own mark.
        owner
            .batch_execute(&format!("CREATE TEMP TABLE before AS SELECT * FROM {table} WHERE {one} {table})"))
            .await
            .unwrap();
        let (tenant, key) = match table {
            "metric_counters" => ("name", "label"),
            "learner_progress_read_model" => ("tenant", "user_id"),
            "assessment_read_model" => ("tenant", "key"),
            _ => ("tenant", "id"),
        };
        let same = format!("({tenant}, {key}) IN (SELECT {tenant}, {key} FROM before)");
        owner.batch_execute(&format!("UPDATE {table} SET {change} WHERE {same}")).await.unwrap();
        let different = weir.verify_fails();
        assert_eq!(different.len(), 1, "{table} {change}: {different:?}");
        if table != "metric_counters" {
            assert_eq!(different[0]["subject"], table);
        }
        owner.batch_execute(&format!("UPDATE {table} SET {back} WHERE {same}; DROP TABLE before")).await.unwrap();
        weir.verify();
    }
    owner
        .batch_execute("DELETE FROM user_read_model WHERE ctid = (SELECT min(ctid) FROM user_read_model)")
        .await
        .unwrap();
    assert_eq!(weir.verify_fails()[0]["subject"], "user_read_model");
    up.terminate();
}

#[tokio::test]
async fn one_changed_score_in_the_event_store() {
    let weir = filled().await;
    let up = weir.up();
    let sql = "UPDATE events SET event_json = jsonb_set(event_json::jsonb, '{score}', '41.5')::json WHERE id = \
        (SELECT min(id) FROM events WHERE event_type = 'AssessmentCompleted')";
    assert_eq!(weir.owner().await.execute(sql, &[]).await.unwrap(), 1);
    let different = weir.verify_fails();
    let lanes: Vec<_> = different.iter().map(|row| row["lane"].as_str().unwrap()).collect();
    assert!(lanes.contains(&"history") && lanes.contains(&"read-models"), "{different:?}");
    up.terminate();
}

#[tokio::test]
async fn one_changed_score_in_a_parquet_file() {
    let weir = filled().await;
    let file = find_all(&weir.path().join("history/events/event_type=AssessmentCompleted")).pop().expect("a data file");
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&file).unwrap()).unwrap();
    let (schema, batches) = (reader.schema().clone(), reader.build().unwrap().map(Result::unwrap).collect::<Vec<_>>());
    let mut writer = ArrowWriter::try_new(File::create(&file).unwrap(), schema.clone(), None).unwrap();
    for batch in batches {
        let index = schema.index_of("score").unwrap();
        let scores = batch.column(index).as_any().downcast_ref::<Float64Array>().unwrap();
        let mut changed: Vec<f64> = (0..scores.len()).map(|row| scores.value(row)).collect();
        changed[0] += 1.0;
        let mut columns = batch.columns().to_vec();
        let column: ArrayRef = Arc::new(Float64Array::from(changed));
        columns[index] = column;
        writer.write(&RecordBatch::try_new(schema.clone(), columns).unwrap()).unwrap();
    }
    writer.close().unwrap();
    // Found, whether by its content or because the file is no longer the one that the log describes.
    assert_eq!(weir.run(&["verify"]).status.code(), Some(1));
    // The runbook's way back.
    weir.ok(&["rebuild", "history"]);
    let (code, words) = said(&weir, &["verify"]);
    assert!(code == Some(0) && words.contains("all equal"), "{words}");
    // Files that no reader gets past any more are no hindrance, and are named.
    for file in find_all(&weir.path().join("history/events/event_type=AssessmentCompleted")) {
        std::fs::write(&file, "PAR1, and then nothing").unwrap();
    }
    assert_ne!(weir.run(&["verify"]).status.code(), Some(0));
    let (code, words) = said(&weir, &["rebuild", "history"]);
    assert!(code == Some(0) && words.contains("could not be read"), "{words}");
    let (code, words) = said(&weir, &["verify"]);
    assert!(code == Some(0) && words.contains("all equal"), "{words}");
    // And by hand. While the table is there it is refused.
    let reset = ["ledger", "reset", "history", "--topic", "events", "--to", "earliest", "--yes"];
    let (code, words) = said(&weir, &reset);
    assert!(code == Some(1) && words.contains("goes forward only"), "{words}");
    std::fs::rename(weir.path().join("history/events"), weir.path().join("history/aside")).unwrap();
    weir.ok(&reset);
    weir.ok(&["up", "--until-caught-up"]);
    let (code, words) = said(&weir, &["verify"]);
    assert!(code == Some(0) && words.contains("all equal"), "{words}");
}

fn find_all(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| if path.is_dir() { find_all(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|e| e == "parquet")).collect()
}

/// A command's exit code and all that it says.
fn said(weir: &Weir, args: &[&str]) -> (Option<i32>, String) {
    let output = weir.run(args);
    (
        output.status.code(),
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat(),
    )
}

async fn says(weir: &Weir, seconds: u64, args: &[&str], code: i32, words: &[&str]) -> String {
    let mut last = String::new();
    until(weir, seconds, async || {
        let (found, text) = said(weir, args);
        last.clone_from(&text);
        if found == Some(code) && words.iter().all(|word| text.contains(word)) { Ok(()) } else { Err((found, text)) }
    })
    .await;
    last
}

/// Somebody stops a lane, a publisher, one of two processes, or takes a partition's owner away: verify and status say so, each by name.
#[tokio::test(flavor = "multi_thread")]
async fn a_lane_a_publisher_a_process_or_an_owner_that_is_gone() {
    let (kafka, fixture) = (Kafka::start(), Fixture::new(600, seed("tampering::gone")));
    let weir = on(&kafka);
    apply_topics(&weir);
    weir.ok(&["import", "oulad", fixture.arg()]);
    let two = [(), ()].map(|()| weir.start(&["run", "read-models", "metrics"]));
    let (history, publisher) = (weir.start(&["run", "history"]), weir.start(&["publish"]));
    let now = ["verify", "--wait", "0"];
    says(&weir, 90, &["verify"], 0, &["all equal"]).await;
    says(&weir, 10, &["status"], 0, &[]).await;

    // The mark of an owner that is nobody.
    let owner = weir.owner().await;
    let disowned = "CREATE TEMP TABLE before AS SELECT * FROM ledger WHERE lane = 'metrics' AND topic = 'user_events' AND partition = 3; \
         UPDATE ledger l SET owner = 'nobody' FROM before b WHERE (l.lane, l.topic, l.partition) = (b.lane, b.topic, b.partition)";
    owner.batch_execute(disowned).await.unwrap();
    let (code, words) = said(&weir, &now);
    assert!(code == Some(1) && words.contains("NOT ALL COMPARED") && words.contains("metrics"), "{words}");
    assert!(words.contains("belong to no process") && !words.contains("all equal"), "{words}");
    says(&weir, 10, &["status"], 1, &["metrics: 1 partitions belong to no process"]).await;
    let back = "UPDATE ledger l SET owner = b.owner FROM before b WHERE (l.lane, l.topic, l.partition) = (b.lane, b.topic, b.partition)";
    owner.batch_execute(back).await.unwrap();
    says(&weir, 10, &now, 0, &["all equal"]).await;

    kill(history);
    kill(publisher);
    signal(&two[1], Signal::STOP);
    weir.ok(&["import", "oulad", fixture.arg(), "--tenant", "another"]);
    let silent =
        ["| history     | killed", "| publisher   | killed", "| read-models | running", "read-models: ", "metrics: "];
    let words = says(&weir, 60, &["status"], 1, &silent).await;
    let told: Vec<&str> = words.lines().filter(|line| line.contains("has said nothing for")).collect();
    assert_eq!(told.len(), 4, "history, the publisher, and two lanes in a process that hangs: {words}");
    println!("{words}");
    // An event that waits for them says so.
    let last = "SELECT event_id::text FROM events ORDER BY id DESC LIMIT 1";
    let id: String = owner.query_one(last, &[]).await.unwrap().get(0);
    let trace = weir.json(&["trace", &id]);
    let waiting = trace.as_array().unwrap().iter().find(|row| row["place"] == "topics").unwrap();
    assert_eq!(waiting["state"], "waiting", "{trace}");
    assert!(waiting["detail"].as_str().unwrap().contains("has said nothing for"), "{trace}");
    let (code, words) = said(&weir, &["verify", "--wait", "1"]);
    assert_eq!(code, Some(1), "{words}");
    for part in ["publisher is at ", "history is at "] {
        assert!(words.contains(part) && !words.contains("all equal"), "{part}: {words}");
    }

    // The one that hung goes on; the others are started again.
    signal(&two[1], Signal::CONT);
    let (history, publisher) = (weir.start(&["run", "history"]), weir.start(&["publish"]));
    says(&weir, 60, &["verify"], 0, &["all equal"]).await;
    says(&weir, 30, &["status"], 0, &[]).await;
    two.into_iter().chain([history, publisher]).for_each(terminate);
    says(&weir, 10, &["verify"], 0, &["all equal"]).await;
}
