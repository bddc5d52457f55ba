//! The read models made again where their lane reads topics: from the event store's part, the topics, and history for what topics hold
//! no longer.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use weir_model::EventType;
use weir_model::wire::samples;
use weir_tests::{ClickHouse, Facts, Fixture, Kafka, Weir, seed};

use super::{ROWS, Stream, apply_topics, kcat, session_of, sessions_are, until};

const TAMPER: &str = "UPDATE assessment_read_model SET score = score + 1 WHERE key IN (SELECT min(key) FROM assessment_read_model); \
     DELETE FROM user_read_model WHERE id = (SELECT min(id) FROM user_read_model); \
     UPDATE assessment_results SET attempts = attempts + 1 WHERE id = (SELECT min(id) FROM assessment_results); \
     UPDATE learner_progress_read_model SET sessions = sessions + 1 WHERE user_id = (SELECT max(user_id) FROM learner_progress_read_model)";

/// What the migration to this layout leaves behind, of read models that it found.
const OUTDATED: &str = "TRUNCATE assessment_read_model, assessment_results, content_read_model, task_read_model; \
     UPDATE learner_progress_read_model SET assessments_taken = 0, assessments_passed = 0; \
     UPDATE read_models_layout SET layout = 1";

fn attempt_of(id: &str, user: &str, score: u32) -> Value {
    let mut data = samples::one(EventType::AssessmentCompleted);
    (data["assessmentId"], data["userId"]) = (json!("theirs"), json!(user));
    (data["score"], data["passed"]) = (json!(score), json!(score > 40));
    json!({"eventId": id, "eventType": "AssessmentCompleted", "version": "1.0.0", "source": "lms",
        "timestamp": data["timestamp"], "data": data})
}

pub(super) fn produce(stream: &Stream, partition: &str, events: &[Value]) {
    let lines: Vec<String> = events.iter().map(Value::to_string).collect();
    kcat(&stream.kafka, &["-P", "-t", "learning_events", "-p", partition], &lines.join("\n"));
}

/// A command of a user who forgot that this directory reads topics.
fn without_brokers(data: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(weir_tests::binary()).args(args).arg("--data-dir").arg(data).output().unwrap();
    (
        output.status.code(),
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat(),
    )
}

/// A directory that read the event store itself, then topics, with other services' records, repeats and a dead letter among them.
pub(super) async fn switched(settings: &[String]) -> Stream {
    let kafka = Kafka::start();
    let embedded = Weir::new().with_all(settings.to_vec());
    let fixture = Fixture::new(ROWS, seed("kafka::rebuild"));
    let facts = Facts::of_input(fixture.path());
    embedded.ok(&["import", "oulad", fixture.arg()]);
    embedded.ok(&["up", "--until-caught-up"]);
    let weir = embedded.with(&format!("kafka.brokers={}", kafka.brokers()));
    apply_topics(&weir);
    weir.ok(&["source", "switch", "kafka"]);
    let stream = Stream { kafka, weir, fixture, facts };
    let theirs: Vec<Value> = (0..30).map(|n| session_of(&format!("theirs-{n}"))).collect();
    produce(&stream, "3", &theirs);
    produce(&stream, "4", &theirs[..5]);
    produce(&stream, "5", &[attempt_of("a-1", "ann", 30), attempt_of("a-2", "ann", 90), json!({"no": "event"})]);
    // Another of the same learner and assessment, elsewhere.
    produce(&stream, "6", &[attempt_of("a-3", "ann", 60), attempt_of("a-1", "ann", 30)]);
    stream
}

/// Topics let go of everything. A partition that is not there would be waited for.
pub(super) fn trim(stream: &Stream, topics: &[&str]) {
    let file = stream.weir.path().with_extension("trim.json");
    let there: Value = serde_json::from_str(&kcat(&stream.kafka, &["-L", "-J"], "")).unwrap();
    let of = |topic: &Value| {
        let (name, partitions) = (topic["topic"].clone(), topic["partitions"].as_array().unwrap().clone());
        partitions.into_iter().map(move |of| json!({"topic": name, "partition": of["partition"], "offset": -1}))
    };
    let listed = there["topics"].as_array().unwrap().iter();
    let named = listed.filter(|topic| topics.contains(&topic["topic"].as_str().unwrap()));
    let partitions: Vec<Value> = named.flat_map(of).collect();
    std::fs::write(&file, json!({"partitions": partitions, "version": 1}).to_string()).unwrap();
    stream.tool("org.apache.kafka.tools.DeleteRecordsCommand", &["--offset-json-file", file.to_str().unwrap()]);
}

async fn results_are(weir: &Weir, expected: (i64, i64)) {
    until(weir, 60, async || {
        let sql = "SELECT coalesce(max(attempts), 0), coalesce(max(passes), 0) FROM assessment_results WHERE assessment_id = 'theirs'";
        let row = weir.owner().await.query_one(sql, &[]).await.unwrap();
        let found = (row.get(0), row.get(1));
        if found == expected { Ok(()) } else { Err(found) }
    })
    .await;
}

/// Rows that are lost are filled, and all of them are written again, `alone` of which are other services' that topics hold no longer.
fn history_is_rebuilt(stream: &Stream, alone: usize) {
    let weir = &stream.weir;
    let places = "SELECT event_id, source, topic, \"partition\", \"offset\", kafka_record FROM events_raw ORDER BY 1, 2, 3, 4, 5";
    let before = weir.json(&["sql", places]);
    let said = weir.ok(&["rebuild", "history"]);
    assert!(said.starts_with(&format!("ok: {} rows in ", before.as_array().unwrap().len())), "{said}");
    assert!(weir.json(&["sql", places]) == before, "each row keeps its place, key and headers");
    let runs = weir.json(&["jobs", "history", "--job", "rebuild-history", "--limit", "1"]);
    let log = weir.json(&["jobs", "show", &runs[0]["id"].to_string()]).to_string();
    assert_eq!(log.contains("of other services"), alone > 0, "{log}");
    assert!(weir.ok(&["backfill", "history"]).starts_with("ok: 0 rows inserted"));
    weir.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn read_models_are_rebuilt_on_a_switched_directory() {
    let stream = switched(&[]).await;
    let weir = &stream.weir;
    let sessions = stream.facts.events["LearningSessionStarted"] + 30;
    let rebuild = || weir.ok(&["jobs", "run", "rebuild-read-models"]);
    let recount = || weir.ok(&["rebuild", "metrics", "--accept-reset"]);
    let up = weir.up();
    sessions_are(weir, sessions).await;
    results_are(weir, (3, 2)).await;
    weir.owner().await.batch_execute(TAMPER).await.unwrap();
    assert_eq!(weir.verify_fails().len(), 4);

    // Without the brokers that it needs nothing is touched.
    let counted = "SELECT count(*) FROM assessment_read_model";
    let before: i64 = weir.owner().await.query_one(counted, &[]).await.unwrap().get(0);
    let (code, words) = without_brokers(&weir.path(), &["jobs", "run", "rebuild-read-models"]);
    assert!(code == Some(1) && words.contains("nothing was changed") && words.contains("kafka.brokers"), "{words}");
    assert_eq!(weir.owner().await.query_one(counted, &[]).await.unwrap().get::<_, i64>(0), before);
    assert_eq!(weir.verify_fails().len(), 4);

    // While records keep coming.
    let more: Vec<Value> = (0..200).map(|n| session_of(&format!("more-{n}"))).collect();
    produce(&stream, "7", &more[..100]);
    let said = rebuild();
    assert!(said.contains("1 rows of user_read_model") && said.contains("1 rows of assessment_results"), "{said}");
    produce(&stream, "8", &more[100..]);
    sessions_are(weir, sessions + 200).await;
    results_are(weir, (3, 2)).await;
    weir.verify();
    assert!(rebuild().contains("nothing differed"));
    let miscounted =
        "UPDATE metric_counters SET value = value + 1 WHERE label = 'UserRegistered' OR name LIKE 'learning%'";
    weir.owner().await.batch_execute(miscounted).await.unwrap();
    assert_eq!(weir.verify_fails().len(), 2);
    assert!(recount().contains("2 rows of metric_counters"));
    weir.verify();

    // History out of topics, and of the event store that was read before those.
    history_is_rebuilt(&stream, 0);

    // What the topics hold no longer is in history.
    trim(&stream, &["learning_events"]);
    assert!(rebuild().contains("nothing differed") && recount().contains("nothing differed"));
    up.terminate();
    weir.verify();
    // It keeps what it alone has, and the places that its events had.
    history_is_rebuilt(&stream, 30);

    // A new version finds another layout.
    let lanes = weir.start(&["run", "history"]);
    weir.until("SELECT true").await;
    weir.owner().await.batch_execute(OUTDATED).await.unwrap();
    super::terminate(lanes);
    let up = weir.up();
    weir.until("SELECT layout > 1 FROM read_models_layout").await;
    produce(&stream, "9", &[session_of("last")]);
    sessions_are(weir, sessions + 201).await;
    results_are(weir, (3, 2)).await;
    weir.verify();
    up.terminate();
    weir.verify();
}

/// Jobs that read topics fail in words, in a bounded time, and go through once the brokers are back.
fn kafka_is_away(kafka: &mut Kafka, weir: &Weir) {
    let jobs: [&[&str]; 3] =
        [&["backfill", "clickhouse", "--source", "kafka"], &["rebuild", "read-models"], &["rebuild", "history"]];
    kafka.kill_broker(0);
    for args in jobs {
        let began = std::time::Instant::now();
        let failed = weir.run(args);
        let words = [failed.stdout, failed.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(failed.status.code() == Some(1) && words.to_lowercase().contains("broker"), "{args:?}: {words}");
        assert!(began.elapsed().as_secs() < 120, "{args:?} took {:?}", began.elapsed());
    }
    kafka.start_broker(0);
    for args in jobs {
        weir.ok(args);
    }
    weir.verify();
}

/// ClickHouse out of what its lane itself read: the event store before the switch, the topics after it, and the event store again for what topics
/// let go of; history last, for what other services sent.
#[tokio::test(flavor = "multi_thread")]
async fn clickhouse_is_filled_out_of_each_source() {
    let server = ClickHouse::start();
    let mut stream = switched(&server.settings()).await;
    let weir = &stream.weir;
    let more = Fixture::new(300, seed("kafka::filled_more"));
    weir.ok(&["import", "oulad", more.arg()]);
    weir.ok(&["up", "--until-caught-up"]);
    weir.verify();
    let rows = || server.sql("SELECT count(), sum(cityHash64(tuple(* EXCEPT payload))) FROM weir.events");
    let lose = async || server.sql("TRUNCATE TABLE weir.events_stored SYNC").await;
    let fill = |source: &str| {
        let said = weir.ok(&["backfill", "clickhouse", "--source", source]);
        said.split_whitespace().nth(1).and_then(|n| n.parse::<i64>().ok()).unwrap_or_else(|| panic!("{said}"))
    };
    let before = rows().await;
    let all: i64 = before.split('\t').next().unwrap().parse().unwrap();
    let own = stream.facts.total();
    lose().await;
    assert_eq!((fill("events"), fill("kafka"), fill("history")), (own, all - own, 0));
    assert_eq!(rows().await, before);
    weir.verify();
    lose().await;
    assert_eq!((fill("history"), fill("kafka"), fill("events")), (all, 0, 0));
    assert_eq!(rows().await, before);
    kafka_is_away(&mut stream.kafka, weir);
    assert_eq!(rows().await, before);

    // Topics hold nothing any more, and history says where the records were.
    trim(&stream, &weir_model::event_type::TOPICS);
    lose().await;
    let theirs = 30 + 3;
    assert_eq!((fill("kafka"), fill("events"), fill("history")), (0, all - theirs, theirs));
    assert_eq!(rows().await, before);
    weir.verify();

    // History does not say it either, then: each event is there once, under one place or the other.
    let (history, aside) = (weir.path().join("history"), weir.path().with_extension("history-aside"));
    std::fs::rename(&history, &aside).unwrap();
    lose().await;
    assert_eq!((fill("events"), fill("events")), (all - theirs, 0));
    std::fs::rename(&aside, &history).unwrap();
    assert_eq!((fill("history"), fill("history"), fill("events")), (theirs, 0, 0));
    weir.ok(&["backfill", "clickhouse", "--reprocess", "all"]);
    let once = "SELECT count() = uniqExact(event_id), count() FROM weir.events";
    assert_eq!(server.sql(once).await, format!("1\t{all}"));
    weir.verify();
}
