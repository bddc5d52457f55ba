//! Does every query of the dashboards and alerts run against the real servers, and do the alerts fire when they must?

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

mod live;
mod objectives;
mod pages;
mod panels;
mod pictures;

use weir_engine::metric::{
    ALL, BUILD, FRESHNESS, HTTP_REQUESTS, HTTP_SECONDS, Kind, POOL, SQL_SECONDS, SQL_STATEMENTS,
};
use weir_model::project::{COUNTERS, EXECUTION_TIME};
use weir_tests::grafana::pages;
use weir_tests::{Prometheus, Up, Weir, root};

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
    promtool(&["test", "rules", "alerts_test.yml", "slo_test.yml"]);
    // Each alert has its cases and its runbook.
    let read = |name: &str| std::fs::read_to_string(dashboards().join("prometheus").join(name)).unwrap();
    let uids: Vec<String> = pages().into_iter().map(|(uid, _)| uid).collect();
    let (mut names, mut runbooks) = (Vec::new(), Vec::new());
    for (rules, cases) in [("alerts.yml", "alerts_test.yml"), ("slo.yml", "slo_test.yml")] {
        let cases = read(cases);
        for rule in read(rules).split("- alert: ").skip(1) {
            let name = rule.lines().next().unwrap().to_owned();
            assert!(cases.matches(&format!("alertname: {name}\n")).count() >= 2, "{name} must fire once and once not");
            let value = |key: &str| {
                let line = rule.lines().find_map(|line| line.trim().strip_prefix(key));
                line.unwrap_or_else(|| panic!("{name} has no {key}")).trim().trim_matches('"').to_owned()
            };
            assert!(["critical", "warning"].contains(&value("severity:").as_str()), "{name}");
            assert!(value("summary:").len() > 10 && value("description:").len() > 10, "{name}");
            let dashboard = value("dashboard:");
            assert!(uids.iter().any(|uid| dashboard.starts_with(&format!("/d/{uid}"))), "{name} leads to {dashboard}");
            let runbook = value("runbook_url:");
            let page = std::fs::read_to_string(root().join(&runbook)).unwrap_or_else(|e| panic!("{runbook}: {e}"));
            for part in ["\n## Check and do\n", "\n## Over when\n", "`"] {
                assert!(page.contains(part), "{runbook} has no {part:?}");
            }
            runbooks.push(runbook.rsplit('/').next().unwrap().to_owned());
            names.push(name);
        }
    }
    names.dedup();
    assert_eq!(names.len(), 17 + 7);
    for file in std::fs::read_dir(dashboards().join("runbooks")).unwrap().map(|entry| entry.unwrap().file_name()) {
        assert!(runbooks.iter().any(|name| *name == *file.to_string_lossy()), "no alert leads to {file:?}");
    }
}

/// Commands that runbooks name exist, by their first two words.
#[test]
fn runbooks_name_commands_that_there_are() {
    let mut commands = std::collections::BTreeSet::new();
    for file in std::fs::read_dir(dashboards().join("runbooks")).unwrap().map(|entry| entry.unwrap().path()) {
        for command in std::fs::read_to_string(file).unwrap().split("`weir ").skip(1) {
            let command = command.split('`').next().unwrap();
            let is_name =
                |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-');
            commands.insert(command.split(' ').take_while(is_name).take(2).map(str::to_owned).collect::<Vec<_>>());
        }
    }
    assert!(commands.len() > 20, "{commands:?}");
    let weir = Weir::new();
    for command in commands {
        let mut words: Vec<&str> = command.iter().map(String::as_str).collect();
        words.push("--help");
        assert!(weir.run(&words).status.success(), "there is no `weir {}`", command.join(" "));
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
        (SQL_SECONDS, "SQL_SECONDS"),
        (SQL_STATEMENTS, "SQL_STATEMENTS"),
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
        "weir_lane_skipped_records{lane=\"history\"} 0",
        "weir_part_errors_total{part=\"history\"}",
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

/// The rules are loaded, and with a target that answers none of them fires.
async fn rules_are_well(prometheus: &Prometheus) {
    let rules: Value = reqwest::get(format!("{}/api/v1/rules", prometheus.url)).await.unwrap().json().await.unwrap();
    let groups = rules["data"]["groups"].as_array().unwrap();
    let rules: Vec<&Value> = groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
    assert!(rules.iter().all(|rule| rule["health"] != "err"), "{rules:?}");
    let alerts: Vec<&&Value> = rules.iter().filter(|rule| rule["type"] == "alerting").collect();
    assert_eq!(alerts.len(), 17 + 2 * 7);
    let firing: Vec<_> = alerts.iter().filter(|rule| rule["state"] == "firing").map(|rule| &rule["name"]).collect();
    assert!(firing.is_empty(), "{firing:?}");
}
