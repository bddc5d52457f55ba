//! Each panel's queries against the real servers, with what Grafana makes of its variables and macros, and exact values from plain models: all but
//! Grafana itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use weir_query::Question;
use weir_tests::grafana::{ALL, Variables, clickhouse, expand, named, normal, pages, postgres};
use weir_tests::{ClickHouse, Fixture, Prometheus, Weir, seed};

use super::exported;
use crate::queries::{PlainInput, Stored, expected_of, of_type, own_answers, stored};

/// Panels whose values are held against a model.
const EXACT_MIN: usize = 60;

/// How long it is waited for series, of all panels together: a rate needs scrapes before and after.
const PATIENCE: Duration = Duration::from_secs(60);

/// So often may ClickHouse read an event for one panel.
const READS_MAX: u64 = 5;

type Expected = BTreeMap<String, (Vec<String>, Vec<Value>)>;

/// What variables are, where models were asked for one learner and two paths.
fn variables(expected: &Expected) -> Variables {
    let said = |question: &str, name: &str| {
        let words = &expected[question].0;
        words.iter().find_map(|word| word.strip_prefix(&format!("{name}="))).unwrap().to_owned()
    };
    BTreeMap::from([
        ("tenant", ALL.to_owned()),
        ("assessment", ALL.to_owned()),
        ("lane", ".*".to_owned()),
        ("days", said("learners_inactive", "days")),
        ("user", said("learner_scores", "user")),
        ("path", said("learning_paths_compared", "path")),
        ("other", said("learning_paths_compared", "other")),
    ])
}

/// [`variables`] of the events that a weir has.
pub(super) async fn of_events(weir: &Weir) -> Variables {
    let events = stored(weir).await;
    let mut expected = expected_of(PlainInput::Events(&events));
    expected.extend(own_answers(&events));
    variables(&expected)
}

/// A panel of a question shows the question's rows, or sums of them.
fn agrees(question: &Question, rows: &[Vec<Value>], shown: &[Value], title: &str) {
    let expected: Vec<Map<String, Value>> = rows.iter().map(|row| named(question, row)).collect();
    let first = shown[0].as_object().unwrap();
    let kind = |name: &str| question.columns.iter().find(|column| column.name == name).map(|c| c.kind.as_str());
    let label = first.keys().find_map(|key| key.strip_suffix("_label"));
    let by_time = first.contains_key("time");
    if label.is_none() && !by_time {
        let of = |row: &Value| -> String {
            let row = row.as_object().unwrap();
            let cells: Map<String, Value> =
                row.iter().map(|(name, value)| (name.clone(), normal(kind(name).unwrap(), value))).collect();
            Value::Object(cells).to_string()
        };
        let all: BTreeSet<String> = expected.iter().map(|row| Value::Object(row.clone()).to_string()).collect();
        let found: BTreeSet<String> = shown.iter().map(of).collect();
        assert!(shown.len() == rows.len() || shown.len() >= 200, "{title}: {} of {}", shown.len(), rows.len());
        let strange: Vec<_> = found.difference(&all).take(2).collect();
        assert!(strange.is_empty(), "{title}: {strange:?} are not among {:?}", all.iter().next());
        return;
    }
    let key = label.unwrap_or_else(|| &question.columns.iter().find(|column| column.kind == "date").unwrap().name);
    let values: Vec<&String> =
        first.keys().filter(|name| !["time", "metric"].contains(&name.as_str()) && !name.ends_with("_label")).collect();
    let mut sums: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for row in &expected {
        let sum = sums.entry(words(&row[key])).or_insert_with(|| vec![0.0; values.len()]);
        values.iter().zip(sum).for_each(|(name, sum)| *sum += row[*name].as_f64().unwrap());
    }
    let mut found: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for row in shown {
        let at = match by_time {
            true => row["time"].as_str().unwrap()[..10].to_owned(),
            false => row[&format!("{key}_label")].as_str().unwrap().to_owned(),
        };
        let sum = found.entry(at).or_insert_with(|| vec![0.0; values.len()]);
        values.iter().zip(sum).for_each(|(name, sum)| *sum += row[*name].as_f64().unwrap());
    }
    assert!(found.len() == sums.len() || found.len() >= 20, "{title}: {} of {}", found.len(), sums.len());
    for (at, sum) in found {
        let expected = &sums[&at];
        let is_near = sum.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6 * b.abs().max(1.0));
        assert!(is_near, "{title} at {at}: {sum:?}, {expected:?} expected");
    }
}

fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => (number.as_f64().unwrap() as i64).to_string(),
        other => other.to_string(),
    }
}

/// Numbers that dashboards show, by a plain reading of the events: dashboard, title, number.
fn numbers(events: &[Stored], variables: &Variables) -> BTreeMap<(&'static str, &'static str), f64> {
    let all = |event_type: &str| of_type(events, event_type);
    let (taken, sessions) = (all("AssessmentCompleted"), all("LearningSessionStarted"));
    let share = |part: usize, of: usize| part as f64 / of as f64;
    let passed = share(taken.iter().filter(|e| e.data["passed"] == true).count(), taken.len());
    let learners = |list: &[&Stored]| list.iter().map(|e| e.text("userId")).collect::<BTreeSet<_>>().len() as f64;
    let gone: BTreeSet<String> = all("UserDeactivated").iter().map(|e| e.text("userId")).collect();
    let known: BTreeSet<String> = all("UserRegistered").iter().map(|e| e.text("userId")).collect();
    let of_path: Vec<&Stored> =
        sessions.iter().copied().filter(|e| e.text("learningPathId") == variables["path"]).collect();
    let mine = |list: &[&Stored]| list.iter().filter(|e| e.text("userId") == variables["user"]).count() as f64;
    let (tasks, uploads) = (all("TaskCompleted"), all("ContentUploaded"));
    let bytes: f64 = uploads.iter().map(|e| e.number("fileSize")).sum();
    let failed = tasks.iter().filter(|e| e.text("status") == "failed").count();
    let count = |list: &[&Stored]| list.len() as f64;
    let of_mine = taken.iter().filter(|e| e.text("userId") == variables["user"] && e.data["passed"] == true);
    let mine_passed = of_mine.map(|e| e.text("assessmentId")).collect::<BTreeSet<_>>().len() as f64;
    let modules = of_path.iter().map(|e| e.text("moduleId")).collect::<BTreeSet<_>>().len() as f64;
    BTreeMap::from([
        (("weir-overview", "Learners"), known.difference(&gone).count() as f64),
        (("weir-overview", "Sessions"), count(&sessions)),
        (("weir-overview", "Attempts at assessments"), count(&taken)),
        (("weir-overview", "Passed"), passed),
        (("weir-overview", "Uploads"), count(&uploads)),
        (("weir-overview", "Tasks completed"), count(&tasks)),
        (("weir-outcomes", "Attempts"), count(&taken)),
        (("weir-outcomes", "Learners"), learners(&taken)),
        (("weir-outcomes", "Passed"), passed),
        (("weir-path", "Sessions"), count(&of_path)),
        (("weir-path", "Learners"), learners(&of_path)),
        (("weir-path", "Modules"), modules),
        (("weir-content", "Items"), count(&uploads)),
        (("weir-content", "Bytes"), bytes),
        (("weir-agents", "Completed"), count(&tasks)),
        (("weir-agents", "Failed"), share(failed, tasks.len())),
        (("weir-agents", "Open tasks"), count(&all("TaskAssigned")) - count(&tasks)),
        (("weir-learner", "Sessions"), mine(&sessions)),
        (("weir-learner", "Attempts"), mine(&taken)),
        (("weir-learner", "Assessments passed"), mine_passed),
        (("weir-pipeline", "Furthest behind"), 0.0),
        (("weir-pipeline", "Waiting parts"), 0.0),
        (("weir-pipeline", "Dead letters"), 0.0),
        (("weir-pipeline", "Verify found a difference"), 0.0),
        (("weir-pipeline", "Skipped records"), 0.0),
        (("weir-stores", "Answers Prometheus"), 1.0),
        (("weir-stores", "Postgres is readable"), 1.0),
        (("weir-stores", "Builds"), 1.0),
    ])
}

/// Everything that the panels look at.
struct Servers<'a> {
    postgres: tokio_postgres::Client,
    clickhouse: &'a ClickHouse,
    prometheus: &'a Prometheus,
    events: u64,
}

impl Servers<'_> {
    /// Rows of SQL, or the last values of series.
    async fn answer(&self, target: &Value, variables: &Variables, title: &str) -> Vec<Value> {
        let source = target["datasource"]["uid"].as_str().unwrap();
        let text = target["rawSql"].as_str().or_else(|| target["expr"].as_str()).unwrap();
        let query = expand(text, variables);
        match source {
            "weir-postgres" => {
                postgres(&self.postgres, &query).await.unwrap_or_else(|e| panic!("{title}: {e}\n{query}"))
            }
            "weir-clickhouse" => {
                let (rows, read) =
                    clickhouse(self.clickhouse, &query).await.unwrap_or_else(|e| panic!("{title}: {e}\n{query}"));
                assert!(read <= READS_MAX * self.events, "{title} reads {read} rows for {} events", self.events);
                rows
            }
            _ => self.prometheus.query(&query).await.unwrap_or_default(),
        }
    }
}

fn is_allowed_to_be_empty(panel: &Value) -> bool {
    let about = panel["description"].as_str().unwrap().to_lowercase();
    about.contains("empty without") || about.contains("empty if")
}

/// The units and links of a table are those of columns that it has.
fn shows_its_columns(panel: &Value, rows: &[Value], title: &str) {
    let Some(first) = rows.first().and_then(Value::as_object) else { return };
    for matcher in panel["fieldConfig"]["overrides"].as_array().into_iter().flatten() {
        let column = matcher["matcher"]["options"].as_str().unwrap();
        assert!(first.contains_key(column), "{title} has no column {column}: {first:?}");
    }
    if panel["targets"][0]["format"] == "time_series" || panel["targets"][0]["queryType"] == "timeseries" {
        assert!(first.contains_key("time"), "{title}: {first:?}");
        let is_number =
            |(name, value): (&String, &Value)| ["time", "metric"].contains(&name.as_str()) || value.is_number();
        assert!(first.iter().all(is_number), "{title}: {first:?}");
    }
}

/// Something happens while Prometheus looks.
pub(super) async fn keep_busy(api: &str, token: &str, name: &str) {
    for n in 0..40 {
        let mut data = weir_model::wire::samples::one(weir_model::EventType::TaskAssigned);
        data["taskId"] = json!(format!("{name}-{n}"));
        let mut done = weir_model::wire::samples::one(weir_model::EventType::TaskCompleted);
        (done["taskId"], done["agentId"]) = (data["taskId"].clone(), data["agentId"].clone());
        for (command, data) in [("AssignTask", &data), ("CompleteTask", &done)] {
            let post =
                reqwest::Client::new().post(format!("{api}/v1/commands/{command}")).bearer_auth(token).json(data);
            assert_eq!(post.send().await.unwrap().status(), 201);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Looks at every panel; how many there are, and how many were held against a model.
async fn look_at_all(
    servers: &Servers<'_>,
    variables: &Variables,
    expected: &Expected,
    numbers: &BTreeMap<(&'static str, &'static str), f64>,
) -> (usize, usize) {
    let (mut panels, mut exact, mut empty, started) = (0, 0, Vec::new(), Instant::now());
    for (uid, page) in pages() {
        for panel in page["panels"].as_array().unwrap() {
            panels += 1;
            let title = format!("{uid}: {}", panel["title"].as_str().unwrap());
            for target in panel["targets"].as_array().unwrap() {
                let mut rows = servers.answer(target, variables, &title).await;
                let is_awaited = target["expr"].is_string() && !is_allowed_to_be_empty(panel);
                while rows.is_empty() && is_awaited && started.elapsed() < PATIENCE {
                    tokio::time::sleep(Duration::from_millis(250)).await;
                    rows = servers.answer(target, variables, &title).await;
                }
                if rows.is_empty() {
                    empty.extend((!is_allowed_to_be_empty(panel)).then(|| format!("{title}: {target}")));
                    continue;
                }
                if target["rawSql"].is_string() {
                    shows_its_columns(panel, &rows, &title);
                }
                let asked = target["rawSql"].as_str().and_then(|sql| sql.strip_prefix("-- weir ask "));
                if let Some(name) = asked.map(|sql| sql.lines().next().unwrap()) {
                    // Its bound is in minutes here, and in the model's question one minute; when an event was recorded goes on.
                    if !["late_events"].contains(&name) {
                        let question = weir_query::questions().unwrap().iter().find(|q| q.name == name).unwrap();
                        let mut rows_of: Vec<Vec<Value>> =
                            expected[name].1.iter().map(|row| row.as_array().unwrap().clone()).collect();
                        if name == "engagement_by_module" {
                            // Here of one path; the model was asked for all.
                            rows_of.retain(|row| row[1] == variables["path"].as_str());
                        }
                        agrees(question, &rows_of, &rows, &title);
                        exact += 1;
                    }
                } else if let Some(number) = numbers.get(&(uid.as_str(), panel["title"].as_str().unwrap())) {
                    let shown = match rows[0].get("value") {
                        Some(value) => value[1].as_str().unwrap().parse().unwrap(),
                        None => rows[0].as_object().unwrap().values().next().unwrap().as_f64().unwrap(),
                    };
                    assert!((number - shown).abs() < 1e-9, "{title}: {shown}, {number} expected");
                    exact += 1;
                }
            }
        }
    }
    assert!(empty.is_empty(), "these show nothing:\n{}", empty.join("\n"));
    (panels, exact)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_panel_shows_what_it_says() {
    let fixture = Fixture::new(3000, seed("dashboards"));
    let server = ClickHouse::start();
    let weir = Weir::new().with_all(server.settings());
    weir.ok(&["import", "oulad", fixture.arg()]);
    weir.ok(&["demo", "--events", "3000", "--rate", "1500"]);
    let up = weir.up();
    let prometheus = Prometheus::watching(&up);
    keep_busy(&up.api, &up.token("default", "command,read"), "dashboard").await;
    up.caught_up().await;
    weir.ok(&["jobs", "run", "workflows"]);
    weir.ok(&["jobs", "run", "verify"]);
    let events = stored(&weir).await;
    let mut expected = expected_of(PlainInput::Events(&events));
    expected.extend(own_answers(&events));
    let variables = variables(&expected);
    let numbers = numbers(&events, &variables);
    let servers = Servers {
        postgres: weir_tests::weir::connect(&up.postgres()).await,
        clickhouse: &server,
        prometheus: &prometheus,
        events: u64::try_from(events.len()).unwrap(),
    };
    let (panels, exact) = look_at_all(&servers, &variables, &expected, &numbers).await;
    println!("{panels} panels, {exact} of them exact");
    assert!(panels > 100 && exact >= EXACT_MIN, "{panels} panels, {exact} of them exact");
    hostile(&servers, &variables).await;
    exported(&up).await;
    super::rules_are_well(&prometheus).await;
    too_fine(&servers).await;
    server_away(servers, &variables, &up.api, &up.token("default", "command")).await;
    up.terminate();
}

/// Ten years by the second: each store says no, or answers within its limits, and goes on.
async fn too_fine(servers: &Servers<'_>) {
    let url = &servers.prometheus.url;
    let asked = [("query", "up"), ("start", "1420070400"), ("end", "1735689600"), ("step", "1")];
    let refused = reqwest::Client::new().get(format!("{url}/api/v1/query_range")).query(&asked).send().await.unwrap();
    assert_eq!(refused.status(), 400);
    assert!(refused.text().await.unwrap().contains("exceeded maximum resolution of 11,000 points"));
    let seconds = "SELECT toDateTime('2015-01-01 00:00:00') + number AS time, 1 AS value FROM numbers(315360000)";
    let refused = clickhouse(servers.clickhouse, seconds).await.unwrap_err();
    assert!(refused.contains("max_result_rows") || refused.contains("Limit for result exceeded"), "{refused}");
    assert_eq!(clickhouse(servers.clickhouse, "SELECT 1 AS one").await.unwrap().0, [json!({"one": 1})]);
    // Grafana's reader has a minute and a bounded room; here three seconds, so that the test is short.
    let sql = "SET statement_timeout = '3s'; \
         SELECT count(*) FROM (SELECT s FROM generate_series('2015-01-01'::timestamptz, '2025-01-01', '1 second') s ORDER BY s DESC OFFSET 0) q";
    let refused = servers.postgres.batch_execute(sql).await.unwrap_err();
    let words = refused.as_db_error().map_or_else(|| refused.to_string(), |error| error.message().to_owned());
    assert!(["temporary file size exceeds", "statement timeout"].iter().any(|part| words.contains(part)), "{words}");
}

/// ClickHouse is away while dashboards load: its panels fail at once, the others show what they showed, and commands go on.
async fn server_away(servers: Servers<'_>, variables: &Variables, api: &str, token: &str) {
    servers.clickhouse.signal(rustix::process::Signal::KILL);
    let mut shown = 0;
    for (uid, page) in pages() {
        for panel in page["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                match target["datasource"]["uid"].as_str().unwrap() {
                    "weir-clickhouse" => {}
                    _ => {
                        servers.answer(target, variables, &format!("{uid}: {}", panel["title"])).await;
                        shown += 1;
                    }
                }
            }
        }
    }
    assert!(shown > 60, "{shown}");
    let data = weir_model::wire::samples::one(weir_model::EventType::UserRegistered);
    let post = reqwest::Client::new().post(format!("{api}/v1/commands/RegisterUser")).bearer_auth(token);
    assert_eq!(post.json(&data).send().await.unwrap().status(), 201);
    let (id, started) = (data["userId"].as_str().unwrap().to_owned(), Instant::now());
    while servers.postgres.query_opt("SELECT FROM user_read_model WHERE id = $1", &[&id]).await.unwrap().is_none() {
        assert!(started.elapsed() < PATIENCE, "the read models wait for ClickHouse");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A variable with quotes and SQL in it is a value like any other.
async fn hostile(servers: &Servers<'_>, variables: &Variables) {
    for words in ["x' OR '1'='1", "\\' OR 1=1 --", "'; DROP TABLE events_stored; --", "*'", "%27%20OR%201=1"] {
        let mut variables = variables.clone();
        for name in ["tenant", "user", "path", "other", "assessment"] {
            variables.insert(name, words.to_owned());
        }
        for (uid, page) in pages() {
            for panel in page["panels"].as_array().unwrap() {
                let asked = panel["targets"][0]["rawSql"].as_str().unwrap_or_default();
                if asked.starts_with("-- weir ask ") {
                    let title = format!("{uid}: {}", panel["title"]);
                    let rows = servers.answer(&panel["targets"][0], &variables, &title).await;
                    assert!(rows.is_empty(), "{title} with {words}: {rows:?}");
                }
            }
        }
    }
}
