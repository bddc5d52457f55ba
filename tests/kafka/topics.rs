//! What happens to topics: grown, deleted and made again, trimmed, written to in transactions that end either way.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};

use weir_tests::kafka::tool;
use weir_tests::{Fixture, Kafka, seed};

use super::{
    GROUP_TOOL, Stream, TOPIC_TOOL, apply_topics, kcat, on, session_of, sessions, sessions_are, terminate, try_connect,
    until,
};

fn produce(stream: &Stream, partition: i32, ids: impl Iterator<Item = String>) {
    let lines: Vec<String> = ids.map(|id| session_of(&id).to_string()).collect();
    kcat(&stream.kafka, &["-P", "-t", "learning_events", "-p", &partition.to_string()], &lines.join("\n"));
}

/// What the lanes say that they do not read, once each of them says something.
async fn refusals(stream: &Stream, api: &str, words: &str) {
    let token = stream.weir.token("default", "admin");
    until(&stream.weir, 60, async || {
        let ready = weir_tests::weir::readiness(api, &token).await;
        let says = |lane: &str| ready["lanes"][lane]["trouble"].as_str().is_some_and(|trouble| trouble.contains(words));
        if ["read-models", "metrics", "history"].into_iter().all(says) { Ok(()) } else { Err(ready.to_string()) }
    })
    .await;
}

/// Lanes never skip: a topic made again stops its partitions, whatever it holds by then, until someone decides.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_deleted_made_anew_and_refilled_past_the_old_offsets() {
    let stream = Stream::new("kafka::made_again");
    stream.import();
    stream.weir.ok(&["up", "--until-caught-up"]);
    stream.weir.verify();
    let before = stream.facts.events["LearningSessionStarted"];
    stream.tool(TOPIC_TOOL, &["--delete", "--topic", "learning_events"]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    apply_topics(&stream.weir);
    // More than there was: an offset of the old one is somewhere in the middle of the new.
    produce(&stream, 3, (0..2000).map(|n| format!("new-{n}")));
    let up = stream.weir.up();
    refusals(&stream, &up.api, "weir ledger reset").await;
    assert_eq!(sessions(&stream.weir).await, [before; 3], "nothing of it is read");
    for lane in ["read-models", "metrics", "history"] {
        stream.weir.ok(&["ledger", "reset", lane, "--topic", "learning_events", "--to", "earliest", "--yes"]);
    }
    sessions_are(&stream.weir, before + 2000).await;
    // The topic's earlier self is gone; the event store stands in for it.
    stream.weir.verify();
    up.terminate();
    stream.weir.verify();
}

/// Records removed after every lane had them change nothing; those removed before stop the partition.
#[tokio::test(flavor = "multi_thread")]
async fn retention_removes_records_that_were_read_and_some_that_were_not() {
    let stream = Stream::new("kafka::retention");
    stream.import();
    produce(&stream, 3, (0..50).map(|n| format!("theirs-{n}")));
    stream.weir.ok(&["up", "--until-caught-up"]);
    let table = stream.weir.verify();
    let of_kafka = |table: &Value| -> i64 {
        let rows = table.as_array().unwrap().iter().filter(|row| row["lane"] == "kafka");
        rows.map(|row| row["sink_count"].as_i64().unwrap()).sum()
    };
    assert_eq!(of_kafka(&table), stream.facts.total(), "{table}");
    let before = stream.facts.events["LearningSessionStarted"] + 50;
    let trim = |partition: i32, offset: i64| {
        let file = stream.weir.path().with_extension("trim.json");
        let partitions = json!([{"topic": "learning_events", "partition": partition, "offset": offset}]);
        std::fs::write(&file, json!({"partitions": partitions, "version": 1}).to_string()).unwrap();
        let args = ["--offset-json-file", file.to_str().unwrap()];
        stream.tool("org.apache.kafka.tools.DeleteRecordsCommand", &args);
    };
    (0..12).for_each(|partition| trim(partition, if partition % 2 == 0 { -1 } else { 20 }));
    let table = stream.weir.verify();
    assert!(of_kafka(&table) < stream.facts.total(), "{table}");

    // Nobody runs while these come and go.
    produce(&stream, 3, (0..30).map(|n| format!("missed-{n}")));
    trim(3, -1);
    produce(&stream, 3, (0..5).map(|n| format!("after-{n}")));
    let up = stream.weir.up();
    refusals(&stream, &up.api, "30 records were removed").await;
    for lane in ["read-models", "metrics", "history"] {
        let reset = ["ledger", "reset", lane, "--topic", "learning_events", "--partition", "3", "--yes", "--to"];
        let back = stream.weir.run(&[&reset[..], &["0"]].concat());
        assert_eq!(back.status.code(), Some(1), "never back: {}", String::from_utf8_lossy(&back.stdout));
        stream.weir.ok(&[&reset[..], &["earliest"]].concat());
    }
    sessions_are(&stream.weir, before + 5).await;
    up.terminate();
    stream.weir.verify();
}

/// Other producers use transactions too, and not all of them end well.
#[tokio::test(flavor = "multi_thread")]
async fn aborted_transactions_leave_gaps_and_a_commit_marker_may_be_the_last() {
    let stream = Stream::new("kafka::aborted");
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", stream.kafka.brokers())
        .set("transactional.id", "another-service")
        .create()
        .unwrap();
    let wait = Duration::from_secs(20);
    producer.init_transactions(wait).unwrap();
    let transaction = |name: &str, count: usize, commit: bool| {
        producer.begin_transaction().unwrap();
        for n in 0..count {
            let payload = session_of(&format!("{name}-{n}")).to_string();
            let record = BaseRecord::<str, str>::to("learning_events").partition(5).payload(&payload);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(wait).unwrap();
        if commit { producer.commit_transaction(wait).unwrap() } else { producer.abort_transaction(wait).unwrap() }
    };
    transaction("a", 30, true);
    transaction("b", 20, false);
    transaction("c", 10, true);
    // Ends although neither the marker nor the aborted end is a record.
    stream.weir.ok(&["up", "--until-caught-up"]);
    transaction("d", 15, false);
    stream.weir.ok(&["up", "--until-caught-up"]);
    let rows = stream.weir.json(&["ledger", "show"]);
    let ends: Vec<&Value> = rows.as_array().unwrap().iter().filter(|row| row["partition"] == 5).collect();
    let of_topic = ends.iter().filter(|row| row["topic"] == "learning_events");
    // 30 and a marker, 20 and a marker, 10 and a marker, 15 and a marker.
    assert!(of_topic.clone().count() == 3 && of_topic.clone().all(|row| row["next_offset"] == 79), "{rows}");
    stream.weir.verify();
    let lanes = stream.run_lanes();
    transaction("e", 5, true);
    sessions_are(&stream.weir, 45).await;
    // While it is open nothing behind it is read.
    producer.begin_transaction().unwrap();
    let payload = session_of("open").to_string();
    let record = BaseRecord::<str, str>::to("learning_events").partition(5).payload(&payload);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(wait).unwrap();
    produce(&stream, 5, std::iter::once("behind".to_owned()));
    produce(&stream, 6, std::iter::once("beside".to_owned()));
    sessions_are(&stream.weir, 46).await;
    producer.abort_transaction(wait).unwrap();
    sessions_are(&stream.weir, 47).await;
    terminate(lanes);
    stream.weir.verify();
}

/// Growing a topic moves keys: it is refused while someone publishes or a lane is behind, and done when all is at rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_grows_from_1_to_12_partitions() {
    let stream = Stream::new("kafka::grown");
    // So that the database is there before anyone asks.
    stream.weir.ok(&["token", "create", "--scopes", "read"]);
    stream.tool(TOPIC_TOOL, &["--delete", "--topic", "learning_events"]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let weir = |partitions: &str| format!("kafka.topics.learning_events.partitions={partitions}");
    stream.weir.ok(&["topics", "apply", "--set", &weir("1")]);
    let published = stream.weir.start(&["publish"]);
    let mut import = stream.start_import();
    until(&stream.weir, 60, async || try_connect(&stream.weir.owner_url()).await.map(drop)).await;
    let owner = stream.weir.owner().await;
    until(&stream.weir, 60, async || {
        let sql = "SELECT coalesce((SELECT position FROM publisher), 0), \
                   coalesce((SELECT min(id) FROM events WHERE event_type = 'LearningSessionStarted'), 0)";
        let row = owner.query_one(sql, &[]).await.unwrap();
        let (published, first): (i64, i64) = (row.get(0), row.get(1));
        if first > 0 && published > first + 500 { Ok(()) } else { Err((published, first)) }
    })
    .await;
    let refused = stream.weir.run(&["topics", "apply"]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned() + &String::from_utf8_lossy(&refused.stdout);
    assert!(refused.status.code() == Some(1) && words.contains("publish"), "{words}");
    import.kill().unwrap();
    import.wait().unwrap();
    terminate(published);
    // A publisher that was stopped may have the lead for a moment more.
    until(&stream.weir, 30, async || {
        let refused = stream.weir.run(&["topics", "apply"]);
        assert_eq!(refused.status.code(), Some(1));
        let words = String::from_utf8_lossy(&refused.stderr).into_owned() + &String::from_utf8_lossy(&refused.stdout);
        if words.contains("behind") { Ok(()) } else { Err(words) }
    })
    .await;
    stream.weir.ok(&["up", "--until-caught-up"]);
    let lanes = stream.run_lanes();
    apply_topics(&stream.weir);
    let described = stream.tool(TOPIC_TOOL, &["--describe", "--topic", "learning_events"]);
    assert!(described.contains("PartitionCount: 12"), "{described}");
    // Its new partitions are picked up by those who run.
    let published = stream.weir.start(&["publish"]);
    stream.import();
    until(&stream.weir, 60, async || {
        let groups = stream.tool(GROUP_TOOL, &["--describe", "--group", "weir-history"]);
        let members = groups.lines().filter(|line| line.contains("learning_events")).count();
        if members == 12 { Ok(()) } else { Err(groups) }
    })
    .await;
    terminate(published);
    terminate(lanes);
    stream.agrees().await;
}

/// How far each partition is, in records and in seconds.
#[tokio::test(flavor = "multi_thread")]
async fn the_flows_metrics_tell_each_partitions_lag() {
    let kafka = Kafka::start();
    let weir = on(&kafka).with("postgres.lock_timeout_ms=1000");
    let stream = Stream::with(kafka, weir, "kafka::lag");
    let up = stream.weir.up();
    produce(&stream, 3, (0..20).map(|n| format!("lag-{n}")));
    sessions_are(&stream.weir, 20).await;
    let scrape = async || reqwest::get(format!("{}/metrics", up.api)).await.unwrap().text().await.unwrap();
    let value = |text: &str, name: &str| -> Option<f64> {
        let labels = "{lane=\"metrics\",topic=\"learning_events\",partition=\"3\"} ";
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(labels)?.parse().ok())
    };
    let names = ["offset", "high_watermark", "lag_records", "lag_seconds"].map(|n| format!("weir_partition_{n}"));
    // What Postgres is asked for is only in those answers for which it answered in time.
    let rebalances =
        ["read-models", "metrics", "history"].map(|lane| format!("weir_kafka_rebalances_total{{lane=\"{lane}\"}} "));
    let others = ["weir_lane_batch_records_bucket", "weir_lane_commit_seconds_bucket", "weir_dead_letters"];
    let is_reported = async |expected: [f64; 3], waits: bool| {
        let text = scrape().await;
        let found = names.each_ref().map(|name| value(&text, name));
        let missing: Vec<_> = others
            .into_iter()
            .chain(rebalances.iter().map(|line| &**line))
            .filter(|line| !text.contains(line))
            .collect();
        let is_waiting = text.contains("weir_lane_waiting{lane=\"metrics\"} 1");
        let is_right = found[..3] == expected.map(Some)
            && found[3].is_some_and(|seconds| (seconds > 3.0) == waits && (seconds > 0.0) == waits)
            && is_waiting == waits
            && missing.is_empty();
        if is_right { Ok(()) } else { Err((found, is_waiting, missing)) }
    };
    until(&stream.weir, 30, async || is_reported([20.0, 20.0, 0.0], false).await).await;
    // Held up: what waits has waited for as long as it is there.
    let owner = stream.weir.owner().await;
    owner.batch_execute("BEGIN; LOCK TABLE metric_counters IN ACCESS EXCLUSIVE MODE").await.unwrap();
    produce(&stream, 3, (20..25).map(|n| format!("lag-{n}")));
    until(&stream.weir, 30, async || is_reported([20.0, 25.0, 5.0], true).await).await;
    owner.batch_execute("COMMIT").await.unwrap();
    sessions_are(&stream.weir, 25).await;
    until(&stream.weir, 30, async || is_reported([25.0, 25.0, 0.0], false).await).await;
    up.terminate();
}

/// Java's producers put a key where ours do.
#[test]
fn the_same_key_is_in_the_same_partition_as_java_puts_it() {
    let kafka = Kafka::start();
    let weir = on(&kafka);
    apply_topics(&weir);
    let fixture = Fixture::new(600, seed("kafka::partitioner"));
    weir.ok(&["import", "oulad", fixture.arg()]);
    weir.ok(&["up", "--until-caught-up"]);
    let read = |topic: &str| -> BTreeMap<String, String> {
        let args = [
            "-C",
            "-t",
            topic,
            "-o",
            "beginning",
            "-e",
            "-q",
            "-f",
            "%k\t%p\n",
            "-X",
            "isolation.level=read_committed",
        ];
        let lines = kcat(&kafka, &args, "");
        lines.lines().map(|line| line.split_once('\t').unwrap()).map(|(k, p)| (k.to_owned(), p.to_owned())).collect()
    };
    let ours = read("user_events");
    assert!(ours.len() > 20, "{ours:?}");
    // As many partitions as ours, but none of the lanes'.
    let made = tool("org.apache.kafka.tools.TopicCommand")
        .args(["--bootstrap-server", &kafka.brokers(), "--create", "--topic", "probe", "--partitions", "12"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
    let mut producer = tool("org.apache.kafka.tools.ConsoleProducer")
        .args(["--bootstrap-server", &kafka.brokers(), "--topic", "probe"])
        .args(["--property", "parse.key=true", "--property", "key.separator=|"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines: String = ours.keys().map(|key| format!("{key}|x\n")).collect();
    producer.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(producer.wait().unwrap().success());
    assert_eq!(read("probe"), ours);
}
