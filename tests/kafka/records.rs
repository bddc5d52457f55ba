//! What other services send: types that nobody here knows, events twice, large ones, broken ones (P7).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_model::EventType;
use weir_model::wire::samples;

use weir_tests::Kafka;

use super::{Stream, apply_topics, kcat, kill, on, session_of, sessions_are, terminate, try_connect, until};

fn produce(stream: &Stream, topic: &str, partition: &str, lines: &[String]) {
    kcat(&stream.kafka, &["-P", "-t", topic, "-p", partition], &lines.join("\n"));
}

fn row<'a>(table: &'a Value, lane: &str, subject: &str) -> &'a Value {
    let found = table.as_array().unwrap().iter().find(|row| row["lane"] == lane && row["subject"] == subject);
    found.unwrap_or_else(|| panic!("{lane} {subject}: {table}"))
}

/// The same event id again: in the same batch, in a later one, in another partition, after a restart. One of them counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_event_is_applied_once_in_every_lane() {
    let stream = Stream::new("kafka::repeats");
    let lanes = stream.run_lanes();
    let events: Vec<String> = (0..40).map(|n| session_of(&format!("r-{n}")).to_string()).collect();
    let twice: Vec<String> = events.iter().chain(&events[..10]).cloned().collect();
    produce(&stream, "learning_events", "2", &twice);
    sessions_are(&stream.weir, 40).await;
    produce(&stream, "learning_events", "2", &events[10..20]);
    produce(&stream, "learning_events", "7", &events[20..30]);
    // What comes after them is applied, so they were seen.
    produce(&stream, "learning_events", "2", &[session_of("after-2").to_string()]);
    produce(&stream, "learning_events", "7", &[session_of("after-7").to_string()]);
    sessions_are(&stream.weir, 42).await;
    kill(lanes);
    // Another tenant's service counts from 1 too: its ids are its own.
    let mut theirs = session_of("r-0");
    theirs["metadata"] = json!({"tenantId": "acme"});
    produce(&stream, "learning_events", "2", &[events[0].clone(), theirs.to_string()]);
    // The verdict is kept, or not, before the batch is.
    for failpoint in ["dedup.before_commit", "dedup.after_commit"] {
        stream.weir.dies_at(failpoint, &["up"]);
    }
    let up = stream.weir.up();
    sessions_are(&stream.weir, 43).await;
    let table = stream.weir.verify();
    let subject = "LearningSessionStarted";
    let of_history = row(&table, "history", subject);
    assert_eq!((&of_history["sink_count"], &of_history["repeats"]), (&json!(43), &json!(31)), "{table}");
    assert_eq!(row(&table, "metrics", "events_applied_total{LearningSessionStarted}")["repeats"], 31);
    assert_eq!(row(&table, "read-models", "learning_session_read_model")["repeats"], 31);
    let metrics = reqwest::get(format!("{}/metrics", up.api)).await.unwrap().text().await.unwrap();
    for lane in ["read-models", "metrics", "history"] {
        assert!(metrics.contains(&format!("weir_lane_repeats_total{{lane=\"{lane}\"}} 31")), "{metrics}");
    }
    up.terminate();
    // A repeat of nothing would be a loss: verify must see it.
    let owner = stream.weir.up();
    let client = stream.weir.owner().await;
    client.execute("UPDATE repeats SET event_id = 'nobody' WHERE lane = '' AND event_id = 'e-r-5'", &[]).await.unwrap();
    owner.terminate();
    let output = stream.weir.run(&["verify"]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stderr).contains("event nobody was left out"));
}

/// Types that this build does not know are whole in history, and nowhere else.
#[tokio::test(flavor = "multi_thread")]
async fn events_of_unknown_types_are_kept_whole() {
    let stream = Stream::new("kafka::others");
    let badge = |n: usize| {
        json!({"eventId": format!("badge-{n}"), "eventType": "BadgeAwarded", "version": 3, "source": "badges",
            "timestamp": "2024-01-15T10:30:00Z", "aggregateId": "u-1", "data": {"badge": "gold", "n": n}})
        .to_string()
    };
    let badges: Vec<String> = (0..5).chain(0..2).map(badge).collect();
    produce(&stream, "general_events", "1", &badges);
    let args = ["-P", "-t", "general_events", "-p", "1", "-H", "eventType=SomethingElse"];
    kcat(&stream.kafka, &args, &badge(9));
    produce(&stream, "learning_events", "1", &[session_of("beside").to_string()]);
    let up = stream.weir.up();
    sessions_are(&stream.weir, 1).await;
    until(&stream.weir, 60, async || {
        let sql = "SELECT event_id, json_get_str(data, 'eventType') AS name, json_get_int(data, 'data', 'n') AS n \
                   FROM other_event ORDER BY event_id";
        let rows = stream.weir.json(&["sql", sql]);
        let ids: Vec<String> = (0..5).map(|n| format!("badge-{n}")).collect();
        let found: Vec<&str> = rows.as_array().unwrap().iter().filter_map(|row| row["event_id"].as_str()).collect();
        if found == ids && rows[4] == json!({"event_id": "badge-4", "name": "BadgeAwarded", "n": 4}) {
            return Ok(());
        }
        Err(rows)
    })
    .await;
    let table = stream.weir.verify();
    assert_eq!(row(&table, "history", "other_event")["repeats"], 2, "{table}");
    // The header that disagrees, in each lane.
    until(&stream.weir, 60, async || {
        let letters = stream.weir.json(&["dead-letters", "list"]);
        if letters.as_array().unwrap().len() == 3 { Ok(()) } else { Err(letters) }
    })
    .await;
    up.terminate();
    stream.weir.verify();
}

/// One record of each kind of mistake, as the only one of its partition, and one that is as large as they get.
#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_broken_record_alone_in_its_partition_and_a_large_one() {
    let stream = Stream::new("kafka::broken");
    let lanes = stream.run_lanes();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut event = session_of("broken");
        change(&mut event);
        event.to_string()
    };
    let deep = format!("{{\"data\":{}1{}}}", "[".repeat(5000), "]".repeat(5000));
    let broken: Vec<(&str, String)> = vec![
        ("not JSON", "{\"eventType\":\"LearningSessionStarted\",".to_owned()),
        ("recursion", deep),
        ("/timestamp", with(&|e| e["timestamp"] = json!("0000-01-01T00:00:00Z"))),
        ("/timestamp", with(&|e| e["timestamp"] = json!("9999-12-31T00:00:00Z"))),
        ("/eventId", with(&|e| e["eventId"] = Value::Null)),
        ("/source", with(&|e| e["source"] = json!(5))),
        ("newer", with(&|e| e["version"] = json!("9.0.0"))),
        ("/data", with(&|e| e["data"] = json!("text"))),
    ];
    for (partition, (_, record)) in broken.iter().enumerate() {
        produce(&stream, "learning_events", &partition.to_string(), std::slice::from_ref(record));
    }
    // A schema violation for each field of the contract.
    let sample = samples::one(EventType::LearningSessionStarted);
    let fields: Vec<&String> = sample.as_object().unwrap().keys().collect();
    let wrong: Vec<String> = fields
        .iter()
        .map(|field| with(&|event: &mut Value| event["data"][field.as_str()] = json!({"wrong": [true]})))
        .collect();
    produce(&stream, "learning_events", "8", &wrong);
    let mut large = session_of("large");
    large["data"]["note"] = json!("x".repeat(1 << 20));
    let file = stream.weir.path().with_extension("large");
    std::fs::write(&file, large.to_string()).unwrap();
    let path = file.to_str().unwrap();
    kcat(&stream.kafka, &["-P", "-t", "learning_events", "-p", "9", "-X", "message.max.bytes=2097152", path], "");
    kcat(&stream.kafka, &["-P", "-t", "learning_events", "-p", "10"], "\u{0}");
    let kinds = broken.len() + 1;
    until(&stream.weir, 90, async || {
        let letters = stream.weir.json(&["dead-letters", "list", "--limit", "1000"]);
        let mut by_lane: BTreeMap<&str, usize> = BTreeMap::new();
        for letter in letters.as_array().unwrap() {
            *by_lane.entry(letter["lane"].as_str().unwrap()).or_default() += 1;
        }
        // Optional fields of objects take any object; the others refuse.
        let enough = by_lane.len() == 3 && by_lane.values().all(|found| *found >= kinds + 4);
        let reasons: Vec<&str> = letters.as_array().unwrap().iter().filter_map(|l| l["reason"].as_str()).collect();
        let named = broken.iter().all(|(words, _)| reasons.iter().any(|reason| reason.contains(words)));
        if enough && named { Ok(()) } else { Err((by_lane.values().copied().collect::<Vec<_>>(), letters.to_string())) }
    })
    .await;
    until(&stream.weir, 60, async || {
        let rows = stream.weir.json(&["sql", "SELECT event_id FROM events WHERE event_id = 'e-large'"]);
        if rows.as_array().unwrap().len() == 1 { Ok(()) } else { Err(rows) }
    })
    .await;
    stream.weir.verify();
    terminate(lanes);
    stream.weir.verify();
}

/// A parked key is in one process's hands; its redrive works whoever has the partition by then.
#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_redriven_by_whoever_has_the_partition() {
    let stream = Stream::new("kafka::redrive");
    // There before any lane runs.
    let up = stream.weir.up();
    let client = stream.weir.owner().await;
    client
        .batch_execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
               IF NEW.id LIKE 'poison%' THEN RAISE EXCEPTION 'poison' USING ERRCODE = '22023'; END IF; RETURN NEW; END $$; \
             CREATE TRIGGER refuse BEFORE INSERT ON learning_session_read_model FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .await
        .unwrap();
    drop(client);
    up.terminate();
    let (first, second) = (stream.run_lanes(), stream.run_lanes());
    // A parked key is a tenant's.
    let of_another = |partition: i32| {
        let mut event = session_of(&format!("another-{partition}"));
        event["metadata"] = json!({"tenantId": "another"});
        event
    };
    for partition in 0..6 {
        let poison = session_of(&format!("poison-{partition}"));
        kcat(
            &stream.kafka,
            &["-P", "-t", "learning_events", "-p", &partition.to_string(), "-k", &format!("key-{partition}")],
            &format!("{poison}\n{}\n{}", session_of(&format!("behind-{partition}")), of_another(partition)),
        );
    }
    until(&stream.weir, 60, async || try_connect(&stream.weir.owner_url()).await.map(drop)).await;
    let client = stream.weir.owner().await;
    let parked = async || {
        let sql =
            "SELECT count(*) FILTER (WHERE state = 'dead'), count(*) FROM dead_letters WHERE lane = 'read-models'";
        let row = client.query_one(sql, &[]).await.unwrap();
        (row.get::<_, i64>(0), row.get::<_, i64>(1))
    };
    until(&stream.weir, 60, async || match parked().await {
        (6, 12) => Ok(()),
        found => Err(found),
    })
    .await;
    let tenants =
        "SELECT DISTINCT tenant FROM dead_letters UNION ALL SELECT min(tenant) FROM learning_session_read_model";
    let tenants: Vec<String> = client.query(tenants, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(tenants, ["default", "another"], "nothing of another tenant waits");
    stream.weir.verify();
    client.batch_execute("DROP TRIGGER refuse ON learning_session_read_model").await.unwrap();
    kill(first);
    stream.weir.ok(&["dead-letters", "redrive"]);
    until(&stream.weir, 60, async || match parked().await {
        (0, 0) => Ok(()),
        found => Err(found),
    })
    .await;
    sessions_are(&stream.weir, 18).await;
    stream.weir.verify();
    terminate(second);
}

/// Other services publish straight to the topics; so do their mistakes (P7).
#[tokio::test(flavor = "multi_thread")]
async fn records_of_other_services_are_applied_and_their_mistakes_are_dead_letters() {
    let kafka = Kafka::start();
    let weir = on(&kafka).with("dead_letters.mirror=true");
    apply_topics(&weir);
    let up = weir.up();
    let event = |id: &str, version: Value| {
        let mut data = samples::one(EventType::LearningSessionStarted);
        data["sessionId"] = json!(id);
        json!({"eventId": format!("e-{id}"), "eventType": "LearningSessionStarted", "version": version, "source": "lms",
            "timestamp": "2024-01-15T10:30:00Z", "data": data, "schema": "theirs"})
    };
    let mut wrong = event("w", json!("1.0.0"));
    wrong["data"]["userId"] = json!(7);
    let good = [event("a", json!("1.0.0")), event("b", json!(1))].map(|e| e.to_string()).join("\n");
    let produce = |extra: &[&str], input: &str| {
        let args: Vec<&str> = ["-P", "-t", "learning_events"].iter().chain(extra).copied().collect();
        kcat(&kafka, &args, input);
    };
    // First, in between and last of its partition.
    produce(&["-p", "3"], "no json");
    produce(&["-p", "3"], &good);
    produce(&["-p", "3", "-H", "eventType=TaskAssigned"], &event("h", json!("1.0.0")).to_string());
    produce(&["-p", "3", "-H", "eventType=LearningSessionStarted", "-k", "k"], &event("c", json!("1.0.0")).to_string());
    produce(&["-p", "3"], &wrong.to_string());
    produce(&["-p", "3", "-Z", "-K", ":"], "nothing:\n");
    produce(&["-p", "3"], "{\"eventType\":\"LearningSessionStarted\",");
    let started = Instant::now();
    let expected = 15;
    loop {
        let letters = weir.json(&["dead-letters", "list"]);
        let history = weir.json(&["sql", "SELECT count(*) AS n FROM events"])[0]["n"].as_i64().unwrap();
        let found = letters.as_array().unwrap().len();
        if (found, history) == (expected, 3) {
            let reasons: Vec<&str> = letters.as_array().unwrap().iter().filter_map(|l| l["reason"].as_str()).collect();
            for words in ["not JSON", "/userId", "no value", "the header eventType says `TaskAssigned`"] {
                assert!(reasons.iter().any(|reason| reason.contains(words)), "{words}: {reasons:?}");
            }
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{found} {history}: {letters}\n{}", weir.log());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    weir.verify();
    // For those who watch topics: a copy of each, with its reason.
    let read = until_read(&kafka, "learning_events.dead_letters", expected).await;
    for lane in ["read-models", "metrics", "history"] {
        assert_eq!(
            read.lines().filter(|line| line.contains(&format!("weir-lane={lane},"))).count(),
            expected / 3,
            "{read}"
        );
    }
    assert!(read.contains("weir-offset=0") && read.contains("no json"), "{read}");
    // Tried again they are what they were: headers count then, too.
    weir.ok(&["dead-letters", "redrive"]);
    weir.until("SELECT count(*) = 15 FROM dead_letters WHERE state = 'dead' AND attempts = 2").await;
    up.terminate();
    weir.verify();
}

/// So many records of a topic, headers and payload.
async fn until_read(kafka: &Kafka, topic: &str, count: usize) -> String {
    let started = Instant::now();
    loop {
        let options = ["-X", "isolation.level=read_committed"];
        let read = kcat(
            kafka,
            &[&["-C", "-t", topic, "-o", "beginning", "-e", "-q", "-f", "%h %s\\n"], &options[..]].concat(),
            "",
        );
        if read.lines().count() >= count {
            return read;
        }
        // The mirror rests a minute after a failure.
        assert!(started.elapsed() < Duration::from_secs(150), "{read}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
