//! The questions over history: by weir for a client of Postgres' protocol, and by DuckDB on the same Delta table, each a process that stays.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::json;
use weir_query::{Dialect, questions};

use crate::all_lanes::{Stage, high_water_mark, stop};
use crate::fill::{events_or, runtime};
use crate::measure::{Pairs, median, pairs, round, row};

const EVENTS: i64 = 1_000_000;
const TURNS: usize = 5;

/// Another program that answers, one line for one.
struct Answering {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Answering {
    fn start(arguments: &[&str]) -> Self {
        let packages = ["duckdb==1.5.5", "duckdb-extension-delta==1.5.5", "psycopg[binary]==3.3.4", "pytz==2026.6"];
        let python = weir_tests::python::with("questions", &packages).join("bin/python");
        let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(python);
        command.arg(tests.join("benches/questions.py")).args(arguments).env("PYTHONPATH", tests.join("queries"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut answering = Self { child, lines };
        let views = weir_model::EventType::ALL.map(|kind| (weir_query::view_name(kind), kind.as_str()));
        assert_eq!(answering.say(&json!(views).to_string()), "ready");
        answering
    }

    fn say(&mut self, line: &str) -> String {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
        self.lines.next().expect("an answer").unwrap()
    }

    /// Rows, and seconds.
    fn ask(&mut self, sql: &str) -> (usize, f64) {
        let answer = self.say(&json!(sql).to_string());
        let (rows, seconds) = answer.split_once(' ').unwrap();
        (rows.parse().unwrap(), seconds.parse().unwrap())
    }
}

/// The first value of a column of events.
fn value(stage: &Stage, column: &str) -> String {
    let sql = format!("SELECT {column} AS v FROM events WHERE {column} IS NOT NULL ORDER BY 1 LIMIT 1");
    let output = stage.command(&["sql", &sql, "--format", "json"]).stdout(Stdio::piped()).output().unwrap();
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    rows[0]["v"].as_str().unwrap().to_owned()
}

/// Every question, with values of the data where it wants some.
fn statements(stage: &Stage) -> Vec<(&'static str, String)> {
    let (user, path) = (value(stage, "user_id"), value(stage, "learning_path_id"));
    let values = [("user", &user), ("path", &path), ("other", &path)];
    let all = questions().unwrap().iter().map(|question| {
        let is_asked = |name: &str| question.parameters.iter().any(|parameter| parameter.name == name);
        let words = values.iter().filter(|(name, _)| is_asked(name)).map(|(name, value)| format!("{name}={value}"));
        let arguments = question.arguments(&words.collect::<Vec<_>>()).unwrap();
        let sql = question.statement(Dialect::DataFusion, &arguments).unwrap();
        (question.name, sql)
    });
    all.collect()
}

pub(crate) fn run() {
    let stage = Stage::start();
    runtime().block_on(stage.fill(events_or(EVENTS)));
    assert!(stage.command(&["up", "--until-caught-up"]).status().unwrap().success());
    let port = weir_tests::postgres::free_port();
    let address = format!("127.0.0.1:{port}");
    let mut make = stage.command(&["token", "create", "--scopes", "operator", "--format", "json"]);
    let made = make.stdout(Stdio::piped()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    let token = made["token"].as_str().unwrap();
    let mut serving = stage.command(&["sql", "--serve", &address]).stdout(Stdio::null()).spawn().unwrap();
    while std::net::TcpStream::connect(&address).is_err() {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let user = token.split('_').nth(1).unwrap();
    let mut weir =
        Answering::start(&["postgres", &format!("postgres://{user}:{token}@{address}/history?sslmode=require")]);
    let history = stage.data().join("history/events");
    let mut duckdb = Answering::start(&["duckdb", history.to_str().unwrap()]);
    let (mut all, mut totals) = (Vec::new(), (0.0, 0.0));
    for (name, sql) in statements(&stage) {
        assert_eq!(weir.ask(&sql).0, duckdb.ask(&sql).0, "{name}: another number of rows");
        let Pairs { measured, floor, ratio } = pairs(TURNS, || 1.0 / weir.ask(&sql).1, || 1.0 / duckdb.ask(&sql).1);
        println!("  {name}: {} ms, DuckDB {} ms, {ratio:.2}", round(1e3 / measured), round(1e3 / floor));
        totals = (totals.0 + 1e3 / measured, totals.1 + 1e3 / floor);
        all.push(ratio);
    }
    let most = |pid: u32| format!("{} MiB at most", round(high_water_mark(pid)));
    row(
        &format!("the {} questions over history, by Postgres' protocol, summed", all.len()),
        &format!("{} ms, {}", round(totals.0), most(serving.id())),
        &format!("{} ms, {}, DuckDB in Python on the same table", round(totals.1), most(duckdb.child.id())),
        &format!("{:.2}; median {:.2}", totals.1 / totals.0, median(all)),
        "≥ 0.9, in time and in memory",
    );
    for mut child in [weir.child, duckdb.child] {
        drop(child.stdin.take());
        child.wait().unwrap();
    }
    stop(&mut serving);
}
