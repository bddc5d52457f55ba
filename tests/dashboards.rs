//! Does every query of the dashboards and alerts run against the real servers, and do the alerts fire when they must?

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use weir_engine::metric::{ALL, BUILD, FRESHNESS, HTTP_REQUESTS, HTTP_SECONDS, Kind, POOL};
use weir_model::project::{COUNTERS, EXECUTION_TIME};
use weir_tests::postgres::free_port;
use weir_tests::{Fixture, Up, Weir, root, seed};

fn dashboards() -> PathBuf {
    root().join("dashboards")
}

fn promtool(args: &[&str]) {
    let output = Command::new("promtool").args(args).current_dir(dashboards().join("prometheus")).output();
    let output = output.expect("promtool runs; install Debian's prometheus");
    let words = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{words}");
}

#[test]
fn alerts_fire_when_they_must_and_not_when_they_must_not() {
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["test", "rules", "alerts_test.yml"]);
    // Each alert has its cases and its runbook.
    let read = |name: &str| std::fs::read_to_string(dashboards().join("prometheus").join(name)).unwrap();
    let (alerts, cases, runbooks) = (read("alerts.yml"), read("alerts_test.yml"), read("runbooks.md"));
    let names: Vec<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert_eq!(names.len(), 10);
    for name in names {
        assert!(cases.matches(&format!("alertname: {name}\n")).count() >= 2, "{name} must fire once and once not");
        assert!(runbooks.contains(&format!("## {name}\n")), "{name} has no runbook");
        assert!(alerts.contains(&format!("runbooks.md#{}", name.to_lowercase())), "{name} does not name its runbook");
    }
}

/// The catalogue as a document.
fn catalogue() -> String {
    let kind = |kind: Kind| match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let mut text = "# Metrics\n\nMade from the code by a test, which fails when this file is older: `WEIR_WRITE=1 cargo test --test weir dashboards::the_catalogue` writes it again.\n\n\
        ## Committed totals\n\nThe same from every process, and they never go back: what counts is what the lane metrics has committed.\n\n\
        | metric | kind | label | what it says |\n|---|---|---|---|\n"
        .to_owned();
    for counter in COUNTERS {
        let label = counter.label.map_or("", |(name, _)| name);
        text += &format!("| `{}` | counter | {label} | {} |\n", counter.name, counter.help);
    }
    text += &format!("| `{}` | histogram | | {} |\n", EXECUTION_TIME.name, EXECUTION_TIME.help);
    text += "\n## Of one process\n\nThey begin at nothing with each process. Besides, each has the usual `process_*`: processor time, memory, files, threads, start time.\n\n\
        | metric | kind | labels | what it says |\n|---|---|---|---|\n";
    for metric in ALL {
        text += &format!(
            "| `{}` | {} | {} | {} |\n",
            metric.name,
            kind(metric.kind),
            metric.labels.join(", "),
            metric.help
        );
    }
    text
}

#[test]
fn the_catalogue_is_what_the_code_declares() {
    let path = dashboards().join("METRICS.md");
    if std::env::var_os("WEIR_WRITE").is_some() {
        std::fs::write(&path, catalogue()).unwrap();
    }
    let words = "run it with WEIR_WRITE=1 to write dashboards/METRICS.md again";
    assert!(std::fs::read_to_string(path).unwrap_or_default() == catalogue(), "{words}");
    // Declared and used: each name stands in the code that sets it.
    let mut code = String::new();
    let mut open = vec![root().join("pipeline"), root().join("jobs")];
    while let Some(dir) = open.pop() {
        for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            match path.is_dir() {
                true => open.push(path),
                false if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("engine/src/metric.rs") => {
                    code += &std::fs::read_to_string(path).unwrap();
                }
                false => {}
            }
        }
    }
    let constants = [
        (FRESHNESS, "FRESHNESS"),
        (HTTP_REQUESTS, "HTTP_REQUESTS"),
        (HTTP_SECONDS, "HTTP_SECONDS"),
        (POOL, "POOL"),
        (BUILD, "BUILD"),
    ];
    for metric in ALL {
        let constant = constants.iter().find(|(name, _)| *name == metric.name);
        let is_set =
            code.contains(&format!("\"{}\"", metric.name)) || constant.is_some_and(|(_, name)| code.contains(name));
        assert!(is_set, "{} is declared and nothing sets it", metric.name);
    }
}

/// What a process exports is declared, and in Prometheus' form.
async fn exported(up: &Up<'_>) {
    let text = reqwest::get(format!("{}/metrics", up.api)).await.unwrap().text().await.unwrap();
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    for family in families {
        let is_total = COUNTERS.iter().any(|counter| counter.name == family) || family == EXECUTION_TIME.name;
        let is_declared = ALL.iter().any(|metric| metric.name == family);
        assert!(is_total || is_declared || family.starts_with("process_"), "{family} is exported and not declared");
    }
    for wanted in [
        "weir_build_info{version=",
        "weir_lane_freshness_seconds_bucket{lane=\"history\",le=\"30\"}",
        "weir_http_requests_total{method=\"GET\",route=\"/metrics\",class=\"2xx\"}",
        "weir_http_request_seconds_count{route=\"/metrics\"}",
        "weir_postgres_pool_connections{state=\"in_use\"}",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
    ] {
        assert!(text.contains(wanted), "{wanted} is not in\n{text}");
    }
    let mut check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut check.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A Prometheus of the test's own, that scrapes often.
struct Prometheus {
    child: Child,
    url: String,
    _dir: tempfile::TempDir,
}

impl Prometheus {
    fn watching(up: &Up<'_>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let target = up.api.trim_start_matches("http://");
        let config = std::fs::read_to_string(dashboards().join("prometheus/prometheus.yml")).unwrap();
        let config = config.replace("127.0.0.1:8626", target).replace("scrape_interval: 15s", "scrape_interval: 1s");
        std::fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        std::fs::copy(dashboards().join("prometheus/alerts.yml"), dir.path().join("alerts.yml")).unwrap();
        let port = free_port();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new("prometheus")
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus runs; install Debian's prometheus");
        Self { child, url: format!("http://127.0.0.1:{port}"), _dir: dir }
    }

    async fn query(&self, expression: &str) -> Option<Vec<Value>> {
        let request = reqwest::Client::new().get(format!("{}/api/v1/query", self.url)).query(&[("query", expression)]);
        let answer: Value = request.send().await.ok()?.json().await.ok()?;
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"]["result"].as_array().cloned()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What Grafana makes of its macros.
fn expand(sql: &str) -> String {
    let mut sql = sql.to_owned();
    for (name, expanded) in [
        ("$__timeGroupAlias(", "floor(extract(epoch FROM {})/86400)*86400 AS \"time\""),
        ("$__timeFilter(", "{} BETWEEN '2000-01-01T00:00:00Z' AND '2100-01-01T00:00:00Z'"),
    ] {
        while let Some(start) = sql.find(name) {
            let end = start + sql[start..].find(')').unwrap();
            let inside = sql[start + name.len()..end].split(',').next().unwrap().to_owned();
            sql.replace_range(start..=end, &expanded.replace("{}", &inside));
        }
    }
    assert!(!sql.contains("$__"), "an unknown macro: {sql}");
    sql
}

#[tokio::test]
async fn every_panels_query_has_an_answer() {
    let fixture = Fixture::new(3000, seed("dashboards"));
    let weir = Weir::new();
    weir.ok(&["import", "oulad", fixture.arg()]);
    weir.ok(&["demo", "--events", "300", "--rate", "1000"]);
    let up = weir.up();
    up.caught_up().await;
    let prometheus = Prometheus::watching(&up);
    let postgres = weir_tests::weir::connect(&up.postgres()).await;
    let dashboard: Value =
        serde_json::from_str(&std::fs::read_to_string(dashboards().join("grafana/weir.json")).unwrap()).unwrap();
    // Something happens while Prometheus looks.
    let token = up.token("default", "command,read");
    for n in 0..30 {
        let mut data = weir_model::wire::samples::one(weir_model::EventType::TaskAssigned);
        data["taskId"] = serde_json::json!(format!("dashboard-{n}"));
        let post = |command: &str, data: &Value| {
            reqwest::Client::new()
                .post(format!("{}/v1/commands/{command}", up.api))
                .bearer_auth(&token)
                .json(data)
                .send()
        };
        assert_eq!(post("AssignTask", &data).await.unwrap().status(), 201);
        let mut done = weir_model::wire::samples::one(weir_model::EventType::TaskCompleted);
        (done["taskId"], done["agentId"]) = (data["taskId"].clone(), data["agentId"].clone());
        assert_eq!(post("CompleteTask", &done).await.unwrap().status(), 201);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut queries = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            queries += 1;
            let title = &panel["title"];
            if let Some(sql) = target["rawSql"].as_str() {
                let rows = postgres.query(&expand(sql), &[]).await.unwrap_or_else(|e| panic!("{title}: {e}: {sql}"));
                assert!(!rows.is_empty(), "{title} shows nothing");
                continue;
            }
            let expression = target["expr"].as_str().unwrap();
            let started = Instant::now();
            while prometheus.query(expression).await.is_none_or(|series| series.is_empty()) {
                assert!(started.elapsed() < Duration::from_secs(60), "{title} shows nothing: {expression}");
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        }
    }
    assert!(queries > 15);
    exported(&up).await;
    // The rules are loaded, and with a target that answers none of them fires.
    let rules: Value = reqwest::get(format!("{}/api/v1/rules", prometheus.url)).await.unwrap().json().await.unwrap();
    let rules = rules["data"]["groups"][0]["rules"].as_array().unwrap().clone();
    assert_eq!(rules.len(), 10);
    assert!(rules.iter().all(|rule| rule["health"] != "err"), "{rules:?}");
    for lane in ["history", "metrics", "read-models"] {
        // A scrape that took too long leaves a gap.
        let (started, lag) = (Instant::now(), format!("weir_lane_lag_records{{lane=\"{lane}\"}}"));
        while prometheus.query(&lag).await.is_none_or(|series| series.len() != 1) {
            assert!(started.elapsed() < Duration::from_secs(60), "{lane}");
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }
    up.terminate();
}
