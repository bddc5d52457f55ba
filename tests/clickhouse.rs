//! Does ClickHouse hold what the other sinks hold, also after everything that can go wrong between it and weir?

mod carried;
mod faults;
mod refusals;

use serde_json::{Value, json};
use weir_model::EventType;
use weir_model::wire::samples;
use weir_tests::{ClickHouse, Facts, Fixture, Postgres, Up, Weir, python, seed};

fn fixture(test: &str, events: usize) -> (Fixture, Facts) {
    let fixture = Fixture::new(events, seed(test));
    let facts = Facts::of_input(fixture.path());
    (fixture, facts)
}

fn weir(settings: [String; 5]) -> Weir {
    Weir::new().with_all(settings)
}

/// What is polled at once is never cut.
fn small_inserts(rows: usize) -> [String; 2] {
    ["records_max", "poll_records_max"].map(|name| format!("lanes.clickhouse.{name}={rows}"))
}

async fn caught_up(up: &Up<'_>) {
    up.lanes_caught_up(4).await;
}

/// The lane's place in the event store.
async fn next_offset(weir: &Weir) -> i64 {
    let sql = "SELECT coalesce(max(next_offset), 1) FROM ledger WHERE lane = 'clickhouse'";
    weir.owner().await.query_one(sql, &[]).await.unwrap().get(0)
}

/// What the view shows is what the input holds, each record once, and `verify` says so too.
pub(crate) async fn holds(server: &ClickHouse, weir: &Weir, facts: &Facts) {
    for (event_type, count) in &facts.events {
        let sql = format!("SELECT count() FROM weir.analytics_events WHERE event_type = '{event_type}'");
        assert_eq!(server.sql(&sql).await, count.to_string(), "{event_type}");
    }
    let sql = "SELECT count() = uniqExact(source, topic, partition, offset), count(), sum(score) FROM weir.analytics_events \
               WHERE event_type = 'AssessmentCompleted'";
    let scores = format!("1\t{}\t{}", facts.events["AssessmentCompleted"], facts.scores);
    assert_eq!(server.sql(sql).await, scores);
    let rollup = "SELECT sum(events) FROM weir.events_per_minute FINAL";
    assert_eq!(server.sql(rollup).await, facts.total().to_string());
    let table = weir.verify();
    let of_lane = |row: &&Value| row["lane"] == "clickhouse";
    let compared: Vec<&Value> = table.as_array().unwrap().iter().filter(of_lane).collect();
    assert_eq!(compared.len(), 14, "ten types and four rollups: {table}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_holds_what_the_others_hold_and_other_clients_read_it() {
    let (fixture, facts) = fixture("clickhouse", 5000);
    let server = ClickHouse::start();
    let weir = weir(server.settings());
    let up = weir.up();
    weir.ok(&["import", "oulad", fixture.arg()]);
    caught_up(&up).await;
    holds(&server, &weir, &facts).await;
    facts.hold(&weir, &up).await;
    // Nothing to do, and nothing done.
    assert!(weir.ok(&["clickhouse", "migrate", "--dry-run"]).is_empty());
    weir.ok(&["clickhouse", "migrate"]);
    let environment = python::with("clickhouse", &["clickhouse-connect==0.8.18", "clickhouse-driver==0.2.9"]);
    let script = format!(
        "import clickhouse_connect, clickhouse_driver\n\
         sql = \"SELECT count(), sum(score) FROM weir.analytics_events WHERE event_type = 'AssessmentCompleted'\"\n\
         http = clickhouse_connect.get_client(host='127.0.0.1', port={}, username='dashboards', password='{}')\n\
         native = clickhouse_driver.Client('127.0.0.1', port={}, user='dashboards', password='{}')\n\
         print(http.query(sql).result_rows[0], native.execute(sql)[0])\n",
        server.port,
        weir_tests::clickhouse::DASHBOARDS_PASSWORD,
        server.native_port,
        weir_tests::clickhouse::DASHBOARDS_PASSWORD,
    );
    let read = std::process::Command::new(environment.join("bin/python")).args(["-c", &script]).output().unwrap();
    let pair = format!("({}, {:.1})", facts.events["AssessmentCompleted"], facts.scores as f64);
    assert_eq!(
        String::from_utf8_lossy(&read.stdout).trim(),
        format!("{pair} {pair}"),
        "{}",
        String::from_utf8_lossy(&read.stderr)
    );
    // A reader within limits only reads.
    let password = weir_tests::clickhouse::DASHBOARDS_PASSWORD;
    for forbidden in [
        "DROP TABLE weir.events_stored",
        "INSERT INTO weir.sessions_per_minute VALUES ('x', 0, 1, 1)",
        "SET max_result_rows = 0",
    ] {
        let refused = server.ask("dashboards", password, forbidden).await.unwrap_err();
        assert!(refused.contains("(READONLY)") || refused.contains("(ACCESS_DENIED)"), "{forbidden}: {refused}");
    }
    traced(&server, &weir).await;
    one_path_twice(&server, &up).await;
    prunes(&server).await;
    statements_for_stored_users_parse(&server).await;
    up.terminate();
    weir.verify();
}

/// An event's place in ClickHouse shows beside its others, and in `weir status` the lane.
async fn traced(server: &ClickHouse, weir: &Weir) {
    let id = server.sql("SELECT any(event_id) FROM weir.assessment_completed").await;
    let trace = weir.json(&["trace", &id]);
    let places: Vec<&Value> = trace.as_array().unwrap().iter().filter(|row| row["place"] == "clickhouse").collect();
    assert_eq!(places.len(), 1, "{trace}");
    assert!(places[0]["detail"].as_str().unwrap().starts_with("events/0 offset "), "{trace}");
    let status = weir.json(&["status"]);
    let parts = status["parts"].as_array().unwrap();
    assert!(parts.iter().any(|part| part["part"] == "clickhouse" && part["lag"] == 0), "{status}");
}

/// What JSON takes for one path twice is no reason for the view to fail, and the canonical text beside it has both.
async fn one_path_twice(server: &ClickHouse, up: &Up<'_>) {
    let token = up.token("default", "command,read");
    let mut data = samples::one(EventType::LearningSessionStarted);
    data["sessionId"] = json!("twice");
    data["x"] = json!({"b": 1});
    data["x.b"] = json!(2);
    let post = reqwest::Client::new().post(format!("{}/v1/commands/StartLearningSession", up.api)).bearer_auth(token);
    assert_eq!(post.json(&data).send().await.unwrap().status(), 201);
    caught_up(up).await;
    let sql = "SELECT count() FROM weir.analytics_events WHERE length(toString(payload)) > 2 AND length(data) > 2";
    assert_eq!(server.sql(sql).await, server.sql("SELECT count() FROM weir.analytics_events").await);
}

/// Through the view and its FINAL: what is sorted elsewhere is not read, nor another year's.
async fn prunes(server: &ClickHouse) {
    for (condition, index) in [
        ("event_type = 'Zzz' AND tenant = 'default'", "PrimaryKey"),
        ("`timestamp` >= '2031-01-01 00:00:00'", "Partition"),
    ] {
        let sql = format!("EXPLAIN indexes = 1 SELECT count() FROM weir.analytics_events WHERE {condition}");
        let plan = server.sql(&sql).await;
        assert!(plan.contains(index) && plan.contains("Ranges: 0"), "{condition}: {plan}");
    }
}

/// The README's statements for servers that store users themselves, which this one does not.
async fn statements_for_stored_users_parse(server: &ClickHouse) {
    let readme = std::fs::read_to_string(weir_tests::root().join("pipeline/clickhouse/README.md")).unwrap();
    let statements: Vec<&str> = readme
        .lines()
        .filter(|line| {
            ["CREATE SETTINGS PROFILE", "CREATE USER", "GRANT SELECT"].iter().any(|start| line.starts_with(start))
        })
        .collect();
    assert_eq!(statements.len(), 3);
    for statement in statements {
        let parsed = server.sql(&format!("EXPLAIN AST {}", statement.trim_end_matches(';'))).await;
        assert!(parsed.contains("Query"), "{statement}: {parsed}");
    }
}

#[tokio::test]
async fn one_changed_score_and_one_missing_row_are_noticed() {
    let (fixture, _) = fixture("clickhouse_tampered", 1000);
    let server = ClickHouse::start();
    let weir = weir(server.settings());
    weir.ok(&["import", "oulad", fixture.arg()]);
    weir.ok(&["up", "--until-caught-up"]);
    weir.verify();
    let one = "event_id = (SELECT min(event_id) FROM weir.analytics_events WHERE event_type = 'AssessmentCompleted')";
    let change = |what: &str| format!("ALTER TABLE weir.events_stored {what} WHERE {one} SETTINGS mutations_sync = 1");
    server.sql(&change("UPDATE score = score + 1")).await;
    let different = weir.verify_fails();
    assert!(!different.is_empty() && different.iter().all(|row| row["lane"] == "clickhouse"), "{different:?}");
    server.sql(&change("UPDATE score = score - 1")).await;
    weir.verify();
    server.sql(&change("DELETE")).await;
    let different = weir.verify_fails();
    assert!(different.iter().any(|row| row["subject"] == "AssessmentCompleted"), "{different:?}");
    // And the way back: from the beginning, which changes nothing where the rows are.
    weir.ok(&["ledger", "reset", "clickhouse", "--topic", "events", "--to", "earliest", "--yes"]);
    weir.ok(&["up", "--until-caught-up"]);
    weir.verify();
}

/// The lane is added to a system that has run for a while, and compared all the time that it catches up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_added_late_and_equal_at_any_moment() {
    let (fixture, facts) = fixture("clickhouse_late", 5000);
    let server = ClickHouse::start();
    let before = Weir::new();
    before.ok(&["import", "oulad", fixture.arg()]);
    before.ok(&["up", "--until-caught-up"]);
    let weir =
        before.with_all(server.settings()).with_all(small_inserts(100)).with("clickhouse.insert_interval_ms=400");
    let up = weir.up();
    let mut moments = 0;
    while next_offset(&weir).await <= facts.total() {
        weir.verify();
        moments += 1;
    }
    assert!(moments > 1, "it was quicker than one look");
    caught_up(&up).await;
    holds(&server, &weir, &facts).await;
    up.terminate();
}

/// What the TTL drops is missed by nobody; what is missing otherwise is.
#[tokio::test]
async fn what_its_ttl_drops_is_no_difference() {
    let (fixture, facts) = fixture("clickhouse_expired", 1000);
    let (server, postgres) = (ClickHouse::start(), Postgres::start());
    let weir = weir(server.settings()).on(&postgres.url());
    weir.ok(&["import", "oulad", fixture.arg()]);
    let old = "UPDATE events SET recorded_at = recorded_at - interval '40 days' WHERE id % 3 = 0";
    weir.owner().await.batch_execute(old).await.unwrap();
    weir.ok(&["up", "--until-caught-up"]);
    weir.verify();
    let short = weir.with("clickhouse.ttl_days=30");
    short.ok(&["clickhouse", "migrate"]);
    server.sql("OPTIMIZE TABLE weir.events_stored FINAL").await;
    let kept = facts.total() - facts.total() / 3;
    assert_eq!(server.sql("SELECT count() FROM weir.analytics_events").await, kept.to_string());
    short.verify();
    let output = short.run(&["verify"]);
    let words = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(words.contains(&format!("{} records are not compared in clickhouse", facts.total() / 3)), "{words}");
    server
        .sql("DELETE FROM weir.events_stored WHERE event_id = (SELECT min(event_id) FROM weir.analytics_events)")
        .await;
    let different = short.verify_fails();
    assert!(!different.is_empty() && different.iter().all(|row| row["lane"] == "clickhouse"), "{different:?}");
}
