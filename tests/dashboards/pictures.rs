//! Pictures of the dashboards, for readers of the documentation: drawn from the answers to the panels' queries by a page of our own, in a
//! browser without a window. Grafana has no part in them, and they say so. `DASHBOARD_PICTURES=1 cargo test --test weir dashboards::pictures` draws
//! them again.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use weir_tests::grafana::{FROM, TO, Variables, clickhouse, expand_in, pages, postgres};
use weir_tests::weir::connect;
use weir_tests::{ClickHouse, Fixture, Postgres, Prometheus, Weir, cache, root};

use super::{dashboards, panels};

/// Draws lines and their axes (MIT).
const UPLOT: &str = "uplot@1.6.32";

/// How long something happens while Prometheus looks, and between two points.
const WATCHED_S: u64 = 180;
const STEP_S: u64 = 3;

fn uplot() -> PathBuf {
    let dir = cache().join("weir").join(UPLOT);
    if !dir.join("complete").exists() {
        std::fs::create_dir_all(&dir).unwrap();
        let npm =
            Command::new("npm").args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(&dir).arg(UPLOT).output();
        let npm = npm.expect("npm runs");
        assert!(npm.status.success(), "{}", String::from_utf8_lossy(&npm.stderr));
        std::fs::write(dir.join("complete"), "").unwrap();
    }
    dir.join("node_modules/uplot/dist")
}

/// The made-up learners learned in these years; content and tasks are of today.
fn time_of(uid: &str) -> (&'static str, &'static str) {
    match uid {
        "weir-overview" | "weir-outcomes" | "weir-at-risk" | "weir-learner" | "weir-path" => {
            ("2013-01-01T00:00:00Z", "2014-11-01T00:00:00Z")
        }
        _ => (FROM, TO),
    }
}

/// The names of a query's columns, in their order: rows come as objects, which have none.
async fn columns(reader: &tokio_postgres::Client, server: &ClickHouse, source: &str, query: &str) -> Vec<String> {
    match source {
        "weir-postgres" => {
            let prepared = reader.prepare(query).await.unwrap();
            prepared.columns().iter().map(|column| column.name().to_owned()).collect()
        }
        "weir-clickhouse" => {
            let described = clickhouse(server, &format!("DESCRIBE (\n{query}\n)")).await.unwrap().0;
            described.iter().map(|column| column["name"].as_str().unwrap().to_owned()).collect()
        }
        _ => Vec::new(),
    }
}

/// Rows of SQL, series over time, or series as they are now, as the panel asks for them.
async fn frames(
    panel: &Value,
    (reader, server, prometheus): (&tokio_postgres::Client, &ClickHouse, &Prometheus),
    variables: &Variables,
    time: (&str, &str),
) -> Vec<Value> {
    let mut frames = Vec::new();
    for target in panel["targets"].as_array().unwrap() {
        let text = target["rawSql"].as_str().or_else(|| target["expr"].as_str()).unwrap();
        let query = expand_in(text, variables, time);
        let source = target["datasource"]["uid"].as_str().unwrap();
        let rows = match source {
            "weir-postgres" => postgres(reader, &query).await.unwrap(),
            "weir-clickhouse" => clickhouse(server, &query).await.unwrap().0,
            _ if target["range"] == true => prometheus.range(&query, WATCHED_S, STEP_S).await,
            _ => prometheus.query(&query).await.unwrap_or_default(),
        };
        let columns = columns(reader, server, source, &query).await;
        frames
            .push(json!({"legend": target["legendFormat"], "title": panel["title"], "columns": columns, "rows": rows}));
    }
    frames
}

/// What the drawing needs to know of a panel.
fn described(panel: &Value, frames: Vec<Value>) -> Value {
    let (defaults, grid) = (&panel["fieldConfig"]["defaults"], &panel["gridPos"]);
    let units: serde_json::Map<String, Value> = panel["fieldConfig"]["overrides"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|matched| {
            let name = matched["matcher"]["options"].as_str()?.to_owned();
            let unit = matched["properties"].as_array()?.iter().find(|property| property["id"] == "unit")?;
            Some((name, unit["value"].clone()))
        })
        .collect();
    json!({"title": panel["title"], "type": panel["type"], "x": grid["x"], "y": grid["y"], "w": grid["w"], "h": grid["h"],
        "unit": defaults["unit"], "units": units, "thresholds": defaults["thresholds"]["steps"], "noValue": defaults["noValue"], "frames": frames})
}

/// Of whom there is something to see: a learner at risk who did much, and the two paths that most sessions were in.
async fn shown(reader: &tokio_postgres::Client) -> Variables {
    const LEARNER: &str = "SELECT user_id FROM workflows.learners_at_risk JOIN learner_progress_read_model p USING (tenant, user_id) \
         WHERE reason LIKE '%scores%' AND p.last_activity < '2015-01-01' GROUP BY user_id ORDER BY sum(p.attempts + p.sessions) DESC LIMIT 1";
    const PATHS: &str = "SELECT learning_path_id FROM learning_session_read_model WHERE started_at < '2015-01-01' \
         GROUP BY 1 ORDER BY count(*) DESC LIMIT 2";
    let learner = reader.query_one(LEARNER, &[]).await.unwrap().get(0);
    let paths = reader.query(PATHS, &[]).await.unwrap();
    Variables::from([("user", learner), ("path", paths[0].get(0)), ("other", paths[1].get(0))])
}

/// A page that draws itself.
fn html(page: &Value) -> String {
    let read = |path: PathBuf| std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let ours = root().join("tests/dashboards/pictures");
    format!(
        "<!doctype html><meta charset=utf-8><style>{}{}</style><body><script>{}</script><script>{}</script><script>draw({})</script>",
        read(uplot().join("uPlot.min.css")),
        read(ours.join("draw.css")),
        read(uplot().join("uPlot.iife.min.js")),
        read(ours.join("draw.js")),
        page.to_string().replace("</", "<\\/")
    )
}

/// The dashboards as they are, as `sha256sum` prints it: beside the pictures it says of which they were drawn.
fn drawn_from() -> String {
    let directory = dashboards().join("grafana/dashboards");
    let line = |(uid, _): (String, Value)| {
        let sum = openssl::sha::sha256(&std::fs::read(directory.join(format!("{uid}.json"))).unwrap());
        let hex: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{hex}  {uid}.json\n")
    };
    pages().into_iter().map(line).collect()
}

#[test]
fn pictures_are_of_the_dashboards_as_they_are() {
    let drawn = std::fs::read_to_string(dashboards().join("pictures/drawn-from.txt")).unwrap();
    assert_eq!(
        drawn,
        drawn_from(),
        "draw them again: DASHBOARD_PICTURES=1 cargo test --test weir dashboards::pictures"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures() {
    if std::env::var_os("DASHBOARD_PICTURES").is_none() {
        eprintln!("NOT RUN: pictures are drawn with DASHBOARD_PICTURES=1, with Debian's chromium and npm");
        return;
    }
    let fixture = Fixture::new(20_000, 20);
    let (server, database) = (ClickHouse::start(), Postgres::start());
    let weir = Weir::new().on(&database.url()).with_all(server.settings());
    weir.ok(&["import", "oulad", fixture.arg()]);
    weir.ok(&["demo", "--events", "5000", "--rate", "1500"]);
    let up = weir.up();
    let prometheus = Prometheus::watching(&up);
    up.lanes_caught_up(4).await;
    for job in ["workflows", "verify", "compact-history"] {
        // The schedule may be at it.
        drop(weir.run(&["jobs", "run", job]));
    }
    let token = up.token("default", "command,read");
    for n in 0..WATCHED_S / 10 {
        panels::keep_busy(&up.api, &token, &format!("picture-{n}")).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let reader = connect(&database.url()).await;
    let mut variables = panels::of_events(&weir).await;
    variables.extend(shown(&reader).await);
    let (directory, pages_dir) = (dashboards().join("pictures"), tempfile::tempdir().unwrap());
    std::fs::create_dir_all(&directory).unwrap();
    for (uid, page) in pages() {
        let (mut drawn, mut height) = (Vec::new(), 0);
        for panel in page["panels"].as_array().unwrap() {
            let grid = &panel["gridPos"];
            height = height.max(grid["y"].as_u64().unwrap() + grid["h"].as_u64().unwrap());
            drawn.push(described(
                panel,
                frames(panel, (&reader, &server, &prometheus), &variables, time_of(&uid)).await,
            ));
        }
        let file = pages_dir.path().join(format!("{uid}.html"));
        std::fs::write(&file, html(&json!({"title": page["title"], "panels": drawn}))).unwrap();
        let picture = directory.join(format!("{uid}.png"));
        let browser = Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=2000"])
            .arg(format!("--window-size=1280,{}", 80 + 38 * height))
            .arg(format!("--user-data-dir={}", pages_dir.path().join("profile").display()))
            .arg(format!("--screenshot={}", picture.display()))
            .arg(&file)
            .output()
            .expect("chromium runs; install Debian's chromium");
        assert!(browser.status.success() && picture.exists(), "{}", String::from_utf8_lossy(&browser.stderr));
    }
    std::fs::write(directory.join("drawn-from.txt"), drawn_from()).unwrap();
    up.terminate();
}
