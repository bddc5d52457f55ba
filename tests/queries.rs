//! The same question, the same answer: of history, of ClickHouse, of the read models, of DuckDB on history's files, and of plain models over the
//! event store's JSON: twelve questions here, the others in `queries/model.py`, which also reads the Open University's files for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};
use weir_query::Question;
use weir_tests::{ClickHouse, Fixture, Weir, seed};

/// An event as the event store has it.
pub(crate) struct Stored {
    event_id: String,
    producer: String,
    version: String,
    event_type: String,
    tenant: String,
    pub(crate) data: Value,
    timestamp: String,
    recorded_at: String,
    /// The canonical payload's characters.
    characters: usize,
}

impl Stored {
    pub(crate) fn text(&self, field: &str) -> String {
        self.data[field].as_str().unwrap().to_owned()
    }

    pub(crate) fn number(&self, field: &str) -> f64 {
        self.data[field].as_f64().unwrap()
    }

    fn day(&self) -> String {
        self.timestamp[..10].to_owned()
    }
}

pub(crate) async fn stored(weir: &Weir) -> Vec<Stored> {
    const SQL: &str = "SELECT event_type, tenant, event_data, \
         to_char(timestamp AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'), \
         to_char(recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'), event_id::text, \
         source, schema_version FROM event_log ORDER BY id";
    let rows = weir.owner().await.query(SQL, &[]).await.unwrap();
    let of = |row: &tokio_postgres::Row| {
        let data: Value = row.get(2);
        let canonical = weir_model::canonical::object_text(data.as_object().unwrap());
        Stored {
            event_id: row.get(5),
            producer: row.get(6),
            version: row.get(7),
            event_type: row.get(0),
            tenant: row.get(1),
            characters: canonical.chars().count(),
            data,
            timestamp: row.get(3),
            recorded_at: row.get(4),
        }
    };
    rows.iter().map(of).collect()
}

type Rows = Vec<Value>;

/// Groups by what `key` gives (columns in their order), and makes a row of each group.
fn grouped<'a>(
    events: impl IntoIterator<Item = &'a Stored>,
    names: &[&str],
    key: impl Fn(&Stored) -> Vec<String>,
    row: impl Fn(&[&Stored]) -> Value,
) -> Rows {
    let mut groups: BTreeMap<Vec<String>, Vec<&Stored>> = BTreeMap::new();
    for event in events {
        groups.entry(key(event)).or_default().push(event);
    }
    let merged = |(key, events): (Vec<String>, Vec<&Stored>)| {
        let mut object: Map<String, Value> =
            names.iter().zip(key).map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        object.extend(row(&events).as_object().unwrap().clone());
        Value::Object(object)
    };
    groups.into_iter().map(merged).collect()
}

pub(crate) fn of_type<'a>(events: &'a [Stored], event_type: &str) -> Vec<&'a Stored> {
    events.iter().filter(|event| event.event_type == event_type).collect()
}

/// The least value that is not less than so many percent of all.
fn quantile(mut values: Vec<f64>, percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() * percent).div_ceil(100) - 1]
}

fn sum(events: &[&Stored], field: &str) -> f64 {
    // Exact in thousandths of thousandths, as DECIMAL(18, 6) is.
    events.iter().map(|event| (event.number(field) * 1e6).round() as i64).sum::<i64>() as f64 / 1e6
}

fn count(events: &[&Stored], keep: impl Fn(&Stored) -> bool) -> usize {
    events.iter().filter(|event| keep(event)).count()
}

fn by_tenant_and(field: &'static str) -> impl Fn(&Stored) -> Vec<String> {
    move |event| vec![event.tenant.clone(), event.text(field)]
}

fn learning(question: &str, events: &[Stored]) -> Rows {
    match question {
        "active_learners_per_day" => {
            let active = ["LearningSessionStarted", "AssessmentCompleted"];
            let active = events.iter().filter(|event| active.contains(&event.event_type.as_str()));
            grouped(
                active,
                &["tenant", "day"],
                |e| vec![e.tenant.clone(), e.day()],
                |group| {
                    let learners: BTreeSet<String> = group.iter().map(|event| event.text("userId")).collect();
                    json!({"learners": learners.len()})
                },
            )
        }
        "registrations_per_day" => grouped(
            of_type(events, "UserRegistered"),
            &["tenant", "day", "registration_source"],
            |e| vec![e.tenant.clone(), e.day(), e.text("registrationSource")],
            |group| json!({"registrations": group.len()}),
        ),
        "learners_at_risk" => {
            let known = |event_type| -> BTreeSet<(String, String)> {
                of_type(events, event_type).iter().map(|e| (e.tenant.clone(), e.text("userId"))).collect()
            };
            let (registered, gone) = (known("UserRegistered"), known("UserDeactivated"));
            let of_learners = of_type(events, "AssessmentCompleted").into_iter().filter(|event| {
                let learner = (event.tenant.clone(), event.text("userId"));
                registered.contains(&learner) && !gone.contains(&learner)
            });
            let mut rows = grouped(
                of_learners,
                &["tenant", "user_id"],
                by_tenant_and("userId"),
                |group| json!({"assessments": group.len(), "score_sum": sum(group, "score"), "max_score_sum": sum(group, "maxScore")}),
            );
            rows.retain(|row| {
                row["score_sum"].as_f64().unwrap() * 100.0 < row["max_score_sum"].as_f64().unwrap() * 40.0
            });
            rows
        }
        "attempts_by_assessment" => attempts(events),
        _ => results(events),
    }
}

fn attempts(events: &[Stored]) -> Rows {
    let names = ["tenant", "assessment_id"];
    grouped(of_type(events, "AssessmentCompleted"), &names, by_tenant_and("assessmentId"), |group| {
        let mut takes: BTreeMap<String, Vec<(&String, &String, bool)>> = BTreeMap::new();
        for event in group {
            let taken = (&event.timestamp, &event.event_id, event.data["passed"] == true);
            takes.entry(event.text("userId")).or_default().push(taken);
        }
        takes.values_mut().for_each(|taken| taken.sort());
        let learners = |keep: fn(&[(&String, &String, bool)]) -> bool| takes.values().filter(|t| keep(t)).count();
        json!({
            "learners": takes.len(), "attempts": group.len(), "attempts_max": takes.values().map(Vec::len).max(),
            "passed_first": learners(|taken| taken[0].2), "passed": learners(|taken| taken.iter().any(|one| one.2)),
        })
    })
}

fn results(events: &[Stored]) -> Rows {
    let mut paths: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for event in of_type(events, "LearningSessionStarted") {
        let learner = (event.tenant.clone(), event.text("userId"));
        paths.entry(learner).or_default().insert(event.text("learningPathId"));
    }
    let mut pairs: BTreeMap<(String, String), Vec<&Stored>> = BTreeMap::new();
    for event in of_type(events, "AssessmentCompleted") {
        let none = || BTreeSet::from(["(none)".to_owned()]);
        let of_learner = paths.get(&(event.tenant.clone(), event.text("userId"))).cloned().unwrap_or_else(none);
        for path in of_learner {
            pairs.entry((event.tenant.clone(), path)).or_default().push(event);
        }
    }
    let percent = |event: &Stored| event.number("score") * 100.0;
    let at = |event: &Stored, percents: f64| event.number("maxScore") * percents;
    let row = |((tenant, path), group): ((String, String), Vec<&Stored>)| {
        json!({
            "tenant": tenant, "learning_path_id": path, "assessments": group.len(),
            "passed": count(&group, |e| e.data["passed"] == true),
            "below_40": count(&group, |e| percent(e) < at(e, 40.0)),
            "from_40": count(&group, |e| percent(e) >= at(e, 40.0) && percent(e) < at(e, 60.0)),
            "from_60": count(&group, |e| percent(e) >= at(e, 60.0) && percent(e) < at(e, 80.0)),
            "from_80": count(&group, |e| percent(e) >= at(e, 80.0)),
            "score_sum": sum(&group, "score"),
        })
    };
    pairs.into_iter().map(row).collect()
}

fn platform(question: &str, events: &[Stored]) -> Rows {
    match question {
        "uploads_by_type" => {
            let uploads = of_type(events, "ContentUploaded");
            grouped(uploads, &["tenant", "content_type"], by_tenant_and("contentType"), |group| {
                let bytes: i64 = group.iter().map(|event| event.data["fileSize"].as_i64().unwrap()).sum();
                json!({"uploads": group.len(), "bytes": bytes})
            })
        }
        "processing" => grouped(
            of_type(events, "ContentProcessingCompleted"),
            &["tenant", "processing_type", "status"],
            |e| vec![e.tenant.clone(), e.text("processingType"), e.text("status")],
            |group| {
                let longest = group.iter().map(|event| event.number("processingDuration")).fold(0.0, f64::max);
                json!({"processed": group.len(), "duration_sum": sum(group, "processingDuration"), "duration_max": longest})
            },
        ),
        "volume_per_tenant" => grouped(
            events,
            &["tenant"],
            |e| vec![e.tenant.clone()],
            |group| {
                let of = |event_type: &str| count(group, |event| event.event_type == event_type);
                json!({
                    "events": group.len(), "characters": group.iter().map(|event| event.characters).sum::<usize>(),
                    "registrations": of("UserRegistered"), "sessions": of("LearningSessionStarted"),
                    "assessments": of("AssessmentCompleted"),
                })
            },
        ),
        "freshness" => grouped(
            events,
            &["event_type"],
            |e| vec![e.event_type.clone()],
            |group| {
                let newest = |of: fn(&Stored) -> &String| group.iter().map(|event| of(event)).max().unwrap().clone();
                json!({"events": group.len(), "happened_at": newest(|e| &e.timestamp), "recorded_at": newest(|e| &e.recorded_at)})
            },
        ),
        _ => tasks(question, events),
    }
}

fn tasks(question: &str, events: &[Stored]) -> Rows {
    let completed = of_type(events, "TaskCompleted");
    let by_task = |list: &[&Stored]| -> BTreeMap<(String, String), usize> {
        list.iter().enumerate().map(|(n, e)| ((e.tenant.clone(), e.text("taskId")), n)).collect()
    };
    let assigned = of_type(events, "TaskAssigned");
    let (assignments, completions) = (by_task(&assigned), by_task(&completed));
    let times = |group: &[&Stored]| {
        let values: Vec<f64> = group.iter().map(|event| event.number("executionTime")).collect();
        json!({"tasks": group.len(), "p50": quantile(values.clone(), 50), "p90": quantile(values, 90)})
    };
    let task_type = |event: &Stored| {
        let place = assignments.get(&(event.tenant.clone(), event.text("taskId")));
        place.map(|place| assigned[*place].text("taskType"))
    };
    match question {
        "execution_time_by_agent" => grouped(completed, &["tenant", "agent_id"], by_tenant_and("agentId"), times),
        "execution_time_by_task_type" => {
            let known = completed.iter().copied().filter(|event| task_type(event).is_some());
            grouped(known, &["tenant", "task_type"], |e| vec![e.tenant.clone(), task_type(e).unwrap()], times)
        }
        "deadlines_kept" => {
            let limited = assigned.iter().copied().filter(|event| event.data["deadline"].is_string());
            grouped(limited, &["tenant", "task_type"], by_tenant_and("taskType"), |group| {
                let at = |event: &Stored| {
                    let place = completions.get(&(event.tenant.clone(), event.text("taskId")))?;
                    Some(millis(&completed[*place].text("timestamp")))
                };
                let deadline = |event: &Stored| millis(&event.text("deadline"));
                json!({
                    "tasks": group.len(),
                    "kept": count(group, |e| at(e).is_some_and(|at| at <= deadline(e))),
                    "missed": count(group, |e| at(e).is_some_and(|at| at > deadline(e))),
                    "open": count(group, |e| at(e).is_none()),
                })
            })
        }
        other => panic!("no model for {other}"),
    }
}

fn millis(text: &str) -> i64 {
    text.parse::<weir_model::Timestamp>().unwrap().as_millis()
}

fn model(question: &str, events: &[Stored]) -> Rows {
    match question {
        "active_learners_per_day"
        | "registrations_per_day"
        | "learners_at_risk"
        | "results_by_learning_path"
        | "attempts_by_assessment" => learning(question, events),
        _ => platform(question, events),
    }
}

/// `5` and `5.0` are one number.
fn plain(value: &Value) -> Value {
    match value {
        Value::Array(values) => values.iter().map(plain).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), plain(value))).collect(),
        Value::Number(number) => json!(number.as_f64()),
        other => other.clone(),
    }
}

const QUESTIONS: usize = 34;

/// Questions that have their model here.
const OWN: [&str; 12] = [
    "active_learners_per_day",
    "attempts_by_assessment",
    "deadlines_kept",
    "execution_time_by_agent",
    "execution_time_by_task_type",
    "freshness",
    "learners_at_risk",
    "processing",
    "registrations_per_day",
    "results_by_learning_path",
    "uploads_by_type",
    "volume_per_tenant",
];

/// Answers of `queries/model.py`, by question: its arguments and rows of values.
fn plain_answers(input: PlainInput<'_>) -> Map<String, Value> {
    let model = weir_tests::root().join("tests/queries/model.py");
    let mut command = Command::new("python3");
    command.arg(model).stdin(Stdio::piped()).stdout(Stdio::piped());
    if let PlainInput::Files(dir) = input {
        command.arg(dir);
    }
    let mut child = command.spawn().expect("python3 runs; install Debian's python3");
    let mut stdin = child.stdin.take().unwrap();
    if let PlainInput::Events(events) = input {
        for event in events {
            let row = json!({"id": event.event_id, "type": event.event_type, "tenant": event.tenant, "data": event.data,
                "producer": event.producer, "version": event.version, "timestamp": event.timestamp, "recorded_at": event.recorded_at});
            writeln!(stdin, "{row}").unwrap();
        }
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "model.py failed");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[derive(Clone, Copy)]
pub(crate) enum PlainInput<'a> {
    Events(&'a [Stored]),
    /// The Open University's, in this directory.
    Files(&'a Path),
}

/// An answer as rows of values in the order of the head's columns; each value is of the kind that its column says.
fn as_declared(question: &Question, answer: &Value) -> Vec<Value> {
    let row = |row: &Value| {
        let object = row.as_object().unwrap();
        let names: Vec<&String> = question.columns.iter().map(|column| &column.name).collect();
        assert_eq!(object.keys().collect::<BTreeSet<_>>(), names.iter().copied().collect(), "{}", question.name);
        let values = question.columns.iter().map(|column| {
            let value = &object[&column.name];
            let is_right = match column.kind.as_str() {
                "integer" => value.is_i64() || value.is_u64(),
                "number" => value.is_number(),
                "flag" => value.is_boolean(),
                _ => value.is_string(),
            };
            assert!(is_right || value.is_null(), "{} says {} of {value}", question.name, column.kind);
            plain(value)
        });
        Value::Array(values.collect())
    };
    answer.as_array().unwrap().iter().map(row).collect()
}

/// Every question that `expected` has answers of, asked of each store that can tell.
pub(crate) fn agree(weir: &Weir, stores: &[&str], expected: &BTreeMap<String, (Vec<String>, Vec<Value>)>) {
    let questions = weir_query::questions().unwrap();
    let ask = |question: &Question| {
        let Some((arguments, rows)) = expected.get(question.name) else { return };
        let on_read_models = question.read_models_sql.map(|_| "read-models");
        for store in stores.iter().copied().chain(on_read_models) {
            let mut words = vec!["ask", question.name, "--on", store];
            words.extend(arguments.iter().map(String::as_str));
            let answer = as_declared(question, &weir.json(&words));
            let differs = answer.iter().zip(rows).find(|(a, b)| a != b);
            assert!(
                answer == *rows,
                "{} on {store}: {} rows, {} expected, first {differs:?}",
                question.name,
                answer.len(),
                rows.len()
            );
        }
    };
    // Two at a time.
    std::thread::scope(|scope| {
        let (even, odd): (Vec<_>, Vec<_>) = questions.iter().enumerate().partition(|(n, _)| n % 2 == 0);
        scope.spawn(|| even.into_iter().for_each(|(_, question)| ask(question)));
        scope.spawn(|| odd.into_iter().for_each(|(_, question)| ask(question)));
    });
}

/// Of `queries/model.py`.
pub(crate) fn expected_of(input: PlainInput<'_>) -> BTreeMap<String, (Vec<String>, Vec<Value>)> {
    let of = |(name, answer): (String, Value)| {
        let arguments = answer["arguments"].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned());
        (name, (arguments.collect(), answer["rows"].as_array().unwrap().iter().map(plain).collect()))
    };
    plain_answers(input).into_iter().map(of).collect()
}

/// Of this module's own models.
pub(crate) fn own_answers(events: &[Stored]) -> BTreeMap<String, (Vec<String>, Vec<Value>)> {
    let of = |question: &Question| {
        let rows = Value::Array(model(question.name, events));
        (question.name.to_owned(), (Vec::new(), as_declared(question, &rows)))
    };
    weir_query::questions().unwrap().iter().filter(|question| OWN.contains(&question.name)).map(of).collect()
}

const DUCKDB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/queries/duckdb_answers.py");

/// The same text, by DuckDB on history's files.
pub(crate) fn duckdb_agrees(history: &str, expected: &BTreeMap<String, (Vec<String>, Vec<Value>)>) {
    let views = weir_model::EventType::ALL.map(|kind| (weir_query::view_name(kind), kind.as_str()));
    let mut texts = Map::new();
    for (name, (arguments, _)) in expected {
        let question = weir_query::questions().unwrap().iter().find(|question| question.name == name).unwrap();
        let arguments = question.arguments(arguments).unwrap();
        texts.insert(name.clone(), question.statement(weir_query::Dialect::DataFusion, &arguments).into());
    }
    let mut child = Command::new(crate::readers::python())
        .args([DUCKDB, history])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let asked = json!({"views": views, "questions": texts});
    child.stdin.take().unwrap().write_all(asked.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "DuckDB has no answer");
    let answers: Map<String, Value> = serde_json::from_slice(&output.stdout).unwrap();
    for (name, (_, rows)) in expected {
        let answer = plain(&answers[name]);
        let differs = answer.as_array().unwrap().iter().zip(rows).find(|(a, b)| a != b);
        assert!(answer == json!(rows), "{name} by DuckDB, first {differs:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_question_has_one_answer() {
    let fixture = Fixture::new(3000, seed("queries"));
    let server = ClickHouse::start();
    let weir = Weir::new().with_all(server.settings());
    weir.ok(&["import", "oulad", fixture.arg()]);
    // All ten types, agents and their tasks among them.
    weir.ok(&["demo", "--events", "3000", "--rate", "2000"]);
    let up = weir.up();
    let events = stored(&weir).await;
    let questions = weir.json(&["ask"]);
    let questions = questions.as_array().unwrap();
    assert_eq!(questions.len(), QUESTIONS);
    let mut expected = expected_of(PlainInput::Events(&events));
    expected.extend(own_answers(&events));
    for question in weir_query::questions().unwrap() {
        assert!(!expected[question.name].1.is_empty(), "{}: an empty answer shows nothing", question.name);
    }
    assert_eq!(expected.len(), QUESTIONS);
    agree(&weir, &["history", "clickhouse"], &expected);
    duckdb_agrees(up.status()["addresses"]["history"].as_str().unwrap(), &expected);
    let files = std::fs::read_dir(weir_tests::root().join("sql/queries")).unwrap();
    assert_eq!(files.count(), questions.len(), "every file is a question");
    up.terminate();
}

/// Nothing that a question is told becomes SQL, and what it cannot be told has an error that says how to mend it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_takes_words_as_words() {
    let server = ClickHouse::start();
    let weir = Weir::new().with_all(server.settings());
    weir.ok(&["demo", "--events", "300", "--rate", "1000"]);
    let up = weir.up();
    for hostile in ["x' OR '1'='1", "\\' OR 1=1 --", "?", "{n:String}", "$from", "';DROP TABLE events_stored --"] {
        for store in ["history", "clickhouse"] {
            let tenant = format!("tenant={hostile}");
            assert_eq!(weir.json(&["ask", "freshness", &tenant, "--on", store]), json!([]), "{hostile} on {store}");
        }
        let tenant = format!("tenant={hostile}");
        assert_eq!(
            weir.json(&["ask", "registrations_per_day", &tenant, "--on", "read-models"]),
            json!([]),
            "{hostile}"
        );
    }
    for (words, error) in [
        (vec!["learner_scores"], "learner_scores needs user=…: the learner"),
        (vec!["learners_inactive", "days=many"], "days: `many` is no whole number"),
        (
            vec!["learners_inactive", "weeks=2"],
            "learners_inactive knows no weeks; it takes tenant=… from=… to=… days=14",
        ),
        (vec!["learners_inactive", "14"], "`14`: write NAME=VALUE"),
        (vec!["freshness", "from=yesterday"], "write 2024-01-31 or 2024-01-31T10:00:00Z"),
        (vec!["learner_at_risk"], "did you mean learners_at_risk?"),
        (vec!["freshness", "--on", "read-models"], "the read models cannot answer freshness"),
    ] {
        let mut all = vec!["ask"];
        all.extend(words);
        let refused = weir.run(&all);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(error), "{all:?}: {said}");
    }
    up.terminate();
}
