//! Records, keys and headers as nobody should send them, and events that are larger than a topic takes: nothing stops for them.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use weir_model::EventType;
use weir_model::wire::samples;
use weir_tests::kafka::tool;
use weir_tests::{ClickHouse, Kafka, Up, Weir};

use super::{Stream, TOPIC_TOOL, apply_topics, on, session_of, sessions, terminate, until};

const CONFIG_TOOL: &str = "kafka.admin.ConfigCommand";
const ACL_TOOL: &str = "org.apache.kafka.tools.AclCommand";

/// Sends what kcat cannot.
struct Sender {
    producer: BaseProducer,
    kafka: String,
    sent: i32,
}

/// A record as it is put on the wire.
#[derive(Default)]
struct Raw {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    at: Option<i64>,
}

impl Sender {
    fn new(kafka: &Kafka) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", kafka.brokers()).set("message.max.bytes", "8000000");
        Self { producer: config.create().unwrap(), kafka: kafka.brokers(), sent: 0 }
    }

    /// Into a partition of twelve, one after the other.
    fn send(&mut self, raw: Raw) {
        self.sent += 1;
        let mut record = BaseRecord::<[u8], [u8]>::to("learning_events").partition(self.sent % 12);
        let headers = raw
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: value.as_deref() }));
        record = record.headers(headers);
        if let Some(key) = &raw.key {
            record = record.key(key);
        }
        if let Some(value) = &raw.value {
            record = record.payload(value);
        }
        if let Some(at) = raw.at {
            record = record.timestamp(at);
        }
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
        self.producer.flush(Duration::from_secs(30)).unwrap();
    }

    /// A header whose name is no text: only the command line takes it as it is.
    fn send_with_odd_header(&self, partition: &str, name: &[u8], value: &str) {
        let header = [name, b"=x"].concat();
        let mut kcat = Command::new("kcat");
        kcat.args(["-b", &self.kafka, "-P", "-t", "learning_events", "-p", partition, "-H"]);
        let mut child = kcat.arg(OsStr::from_bytes(&header)).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }
}

fn good(id: &str) -> Raw {
    Raw { value: Some(session_of(id).to_string().into_bytes()), ..Raw::default() }
}

fn assessment(id: &str, change: impl FnOnce(&mut Value)) -> Raw {
    let mut data = samples::one(EventType::AssessmentCompleted);
    change(&mut data);
    let event = json!({"eventId": id, "eventType": "AssessmentCompleted", "version": "1.0.0", "source": "lms",
        "timestamp": "2024-01-15T10:30:00Z", "data": data});
    Raw { value: Some(event.to_string().into_bytes()), ..Raw::default() }
}

/// Keys and headers are the transport's: whatever they hold, the session inside is good. How many were sent.
fn odd_envelopes(sender: &mut Sender) -> i64 {
    let before = sender.sent;
    let (wide, large) = ("\u{10ffff}".repeat(400).into_bytes(), vec![b'k'; 1 << 20]);
    for key in [b"\0".to_vec(), b"a\0b".to_vec(), b"\xff\xfe".to_vec(), Vec::new(), wide, large] {
        sender.send(Raw { key: Some(key), ..good(&format!("key-{}", sender.sent)) });
    }
    let many = (0..5000).map(|n| (format!("h-{n}"), Some(vec![b'v'; 20]))).collect();
    let odd = ["", "\u{1}", "é", "name with = and\nnewline", &"n".repeat(30_000)];
    for headers in [
        many,
        odd.map(|name| (name.to_owned(), Some(b"\0\xff".to_vec()))).to_vec(),
        vec![("tenant-ish".to_owned(), None), ("tenant-ish".to_owned(), Some(Vec::new()))],
        vec![("large".to_owned(), Some(vec![0; 500_000]))],
    ] {
        sender.send(Raw { headers, ..good(&format!("headers-{}", sender.sent)) });
    }
    for at in [0, 1, 253_402_300_799_999, i64::MAX] {
        sender.send(Raw { at: Some(at), ..good(&format!("at-{}", sender.sent)) });
    }
    for (n, name) in [&b"\xff\xfe"[..], b"\xc3", b"eventType\x80"].into_iter().enumerate() {
        sender.send_with_odd_header(&n.to_string(), name, &session_of(&format!("name-{n}")).to_string());
    }
    i64::from(sender.sent - before) + 3
}

/// Values that are wrong, and values that are right and as extreme as the contract allows. What of it must be a dead letter is for each
/// lane to say; nothing may stop.
fn odd_values(sender: &mut Sender) {
    sender.send(Raw { key: Some(b"\0".to_vec()), ..Raw::default() });
    for value in [&b""[..], b"\0", b"\xff\xfe", b"null", b"[]", b"\"text\"", b"{}", b"{\"data\":{}}"] {
        sender.send(Raw { key: Some(b"\xff\0".to_vec()), value: Some(value.to_vec()), ..Raw::default() });
    }
    for header in [&b"\xff"[..], b"", b"TaskAssigned"] {
        let headers = vec![("eventType".to_owned(), Some(header.to_vec()))];
        sender.send(Raw { headers, ..good(&format!("header-{}", sender.sent)) });
    }
    let nul = session_of("nul").to_string().replace("module", "mod\\u0000ule");
    let surrogate = session_of("surrogate").to_string().replace("module", "mod\\ud800ule");
    for value in [nul, surrogate] {
        sender.send(Raw { value: Some(value.into_bytes()), ..Raw::default() });
    }
    let longest = "\u{10ffff}".repeat(255);
    sender.send(assessment("huge", |data| (data["score"], data["maxScore"]) = (json!(1e300), json!(1e300))));
    sender.send(assessment("tiny", |data| (data["score"], data["maxScore"]) = (json!(5e-324), json!(1e-300))));
    sender.send(assessment("long", |data| (data["assessmentId"], data["userId"]) = (json!(longest), json!(longest))));
    sender.send(assessment(&"\u{10ffff}".repeat(200), |_| ()));
    sender.send(assessment("integers", |data| data["answers"] = json!([{"at": 18_446_744_073_709_551_615_u64}])));
    for (n, number) in ["1e400", "-1e400", "123456789012345678901234567890", "0.1e-4000"].into_iter().enumerate() {
        let text = String::from_utf8(
            assessment(&format!("n-{n}"), |data| data["extraneous"] = json!("NUMBER")).value.unwrap(),
        );
        let value = text.unwrap().replace("\"NUMBER\"", number).into_bytes();
        sender.send(Raw { value: Some(value), ..Raw::default() });
    }
    let paths = json!({"a.b": 1, "a": {"b": {"c": [1, "x", null, {"": {"": 0}}]}}, "": 1, ".": {"..": 2}, "`": "'"});
    sender.send(assessment("paths", |data| data["odd"] = paths));
    let mut deep = json!(1);
    (0..100).for_each(|_| deep = json!({"a": [deep.take()]}));
    sender.send(assessment("deep", |data| data["deep"] = deep));
    sender.send(assessment("ends", |data| data["timestamp"] = json!("1970-01-01T00:00:00Z")));
}

/// One good record behind everything else in each partition, which must arrive.
fn last_ones(sender: &mut Sender) {
    for n in 0..12 {
        sender.send(good(&format!("last-{n}")));
    }
}

/// Everything that reads goes on too.
async fn readers_go_on(up: &Up<'_>, weir: &Weir, server: &ClickHouse) {
    let token = up.token("default", "read");
    let client = reqwest::Client::new();
    for list in ["/v1/users", "/v1/sessions", "/v1/contents", "/v1/tasks", "/v1/assessments/assessment_1/results"] {
        let mut path = format!("{list}?limit=7");
        loop {
            let answer = client.get(format!("{}{path}", up.api)).bearer_auth(&token).send().await.unwrap();
            assert_eq!(answer.status(), 200, "{path}: {}", answer.text().await.unwrap());
            let page: Value = answer.json().await.unwrap();
            let Some(next) = page["next"].as_str() else { break };
            path = format!("{list}?limit=7&cursor={next}");
        }
    }
    for question in weir_query::questions().unwrap() {
        // What a question cannot do without: any one of them.
        let required = question.parameters.iter().filter(|parameter| parameter.default.is_none());
        let arguments: Vec<String> = required.map(|parameter| format!("{}=user-1", parameter.name)).collect();
        for store in ["history", "clickhouse"] {
            let words = ["ask", question.name, "--on", store];
            weir.json(&words.into_iter().chain(arguments.iter().map(String::as_str)).collect::<Vec<_>>());
        }
    }
    weir.json(&["sql", "SELECT * FROM events"]);
    for view in ["analytics_events", "events", "assessment_completed"] {
        server.sql(&format!("SELECT * FROM weir.{view} FORMAT Null")).await;
    }
    weir.ok(&["dead-letters", "list", "--limit", "1000"]);
    weir.ok(&["status"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_header_or_value_stops_anything() {
    let server = ClickHouse::start();
    let kafka = Kafka::start();
    let weir = on(&kafka).with_all(server.settings()).with("kafka.topics.learning_events.bytes_max=4000000");
    apply_topics(&weir);
    // Times far ahead are refused by the brokers otherwise, and records of 1970 are removed half a minute after a broker's start.
    let brokers = kafka.brokers();
    let config = ["--bootstrap-server", &brokers, "--alter", "--topic", "learning_events", "--add-config"];
    let altered = tool(CONFIG_TOOL)
        .args(config)
        .arg(format!("message.timestamp.after.max.ms={},retention.ms=-1", i64::MAX))
        .output();
    let altered = altered.unwrap();
    assert!(altered.status.success(), "{}", String::from_utf8_lossy(&altered.stdout));
    let mut sender = Sender::new(&kafka);
    let mut expected = odd_envelopes(&mut sender);
    odd_values(&mut sender);
    last_ones(&mut sender);
    expected += 12;
    let up = weir.up();
    until(&weir, 120, async || {
        let found = sessions(&weir).await;
        let last = "SELECT count() FROM weir.events WHERE session_id LIKE 'last-%'";
        let inserted = server.try_sql(last).await;
        // Of the odd values a lane may take some: what it has beyond is no loss.
        if found.iter().all(|found| *found >= expected) && inserted.as_deref() == Some("12") {
            Ok(())
        } else {
            Err((found, inserted, expected))
        }
    })
    .await;
    readers_go_on(&up, &weir, &server).await;
    weir.verify();
    let kept = "SELECT count(*) FILTER (WHERE key_bytes = '\\xff00'), \
                count(*) FILTER (WHERE header_bytes = '\\x00000009' || convert_to('eventType', 'UTF8') || '\\x00000001ff'::bytea) \
                FROM dead_letters WHERE lane = 'history'";
    let kept = weir.owner().await.query_one(kept, &[]).await.unwrap();
    assert_eq!((kept.get(0), kept.get(1)), (8_i64, 1_i64), "keys and headers, as they were sent");
    // Tried again, each is where it was.
    weir.ok(&["dead-letters", "redrive"]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    sender.send(good("after"));
    until(&weir, 60, async || {
        let rows = weir.json(&["sql", "SELECT session_id FROM events WHERE session_id = 'after'"]);
        if rows.as_array().unwrap().len() == 1 { Ok(()) } else { Err(rows) }
    })
    .await;
    readers_go_on(&up, &weir, &server).await;
    weir.verify();
    up.terminate();
    weir.verify();
}

/// What came in before the door had its rule: the topic is made to take it, and positions have no hole. Brokers that refuse that are
/// waited for, with the cure in words.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_larger_than_its_topic_takes_is_published_once_it_may() {
    let kafka = Kafka::start_with_acls();
    let stream = Stream::on(kafka, "kafka::oversized");
    let acl = |args: &[&str]| stream.tool(ACL_TOOL, &[args, &["--force", "--topic", "learning_events"]].concat());
    acl(&["--add", "--allow-principal", "User:*", "--operation", "All"]);
    acl(&["--add", "--deny-principal", "User:*", "--operation", "AlterConfigs"]);
    stream.import();
    let (lanes, weir) = (stream.run_lanes(), &stream.weir);
    weir.until("SELECT count(*) > 0 FROM ledger").await;
    // Behind the door: two events, one of them the last.
    const GROWN: &str = "UPDATE events SET event_json = (event_json::jsonb || jsonb_build_object('note', \
         (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 190000) n)))::json WHERE id IN ( \
         (SELECT min(id) FROM events WHERE event_type = 'LearningSessionStarted' AND id > 1000), \
         (SELECT max(id) FROM events WHERE event_type = 'AssessmentCompleted'))";
    assert_eq!(weir.owner().await.execute(GROWN, &[]).await.unwrap(), 2);
    let published = weir.start(&["publish"]);
    until(weir, 90, async || {
        let output = weir.run(&["status"]);
        let table = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        let is_told = table.contains("larger than its topic takes")
            && table.contains("weir topics apply --set kafka.topics.learning_events.bytes_max=61");
        if is_told && output.status.code() == Some(1) { Ok(()) } else { Err(table) }
    })
    .await;
    acl(&["--remove", "--deny-principal", "User:*", "--operation", "AlterConfigs"]);
    stream.published().await;
    let described = stream.tool(TOPIC_TOOL, &["--describe", "--topic", "learning_events"]);
    assert!(described.contains("max.message.bytes=61"), "{described}");
    terminate(published);
    terminate(lanes);
    stream.agrees().await;
}
