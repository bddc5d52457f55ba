//! The dashboards' files: made from their source, and kept to rules as those of Grafana's own linter for dashboards.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;
use weir_engine::metric::ALL;
use weir_model::project::{COUNTERS, EXECUTION_TIME};

use super::dashboards;
use weir_tests::grafana::pages;

/// Grafana's own builders.
const SDK: &str = "grafana-foundation-sdk==1769699379!11.6.0";

#[test]
fn the_files_are_what_their_source_makes() {
    let python = weir_tests::python::with("grafana", &[SDK]).join("bin/python");
    let (made, kept) = (tempfile::tempdir().unwrap(), dashboards().join("grafana/dashboards"));
    let into = if std::env::var_os("WEIR_WRITE").is_some() { kept.as_path() } else { made.path() };
    let output = Command::new(python)
        .arg(dashboards().join("grafana/source/write.py"))
        .arg(into)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for file in std::fs::read_dir(into).unwrap().map(|entry| entry.unwrap().file_name()) {
        let read = |dir: &std::path::Path| std::fs::read_to_string(dir.join(&file)).unwrap_or_default();
        assert!(
            read(into) == read(&kept),
            "WEIR_WRITE=1 cargo test --test weir dashboards::pages writes {file:?} again"
        );
    }
    assert_eq!(pages().len(), 9);
}

fn panels() -> Vec<(String, Value)> {
    let of = |(uid, page): (String, Value)| {
        page["panels"].as_array().unwrap().iter().map(|panel| (uid.clone(), panel.clone())).collect::<Vec<_>>()
    };
    pages().into_iter().flat_map(of).collect()
}

#[test]
fn every_page_keeps_the_rules() {
    let uids: BTreeSet<String> = pages().into_iter().map(|(uid, _)| uid).collect();
    for (uid, page) in pages() {
        assert_eq!(page["editable"], false, "{uid}: a provisioned dashboard is not edited");
        assert!(page["description"].as_str().is_some_and(|text| text.len() > 20), "{uid} says what it is");
        assert_eq!(
            (&page["links"][0]["keepTime"], &page["links"][0]["includeVars"]),
            (&true.into(), &true.into()),
            "{uid}"
        );
        for variable in page["templating"]["list"].as_array().into_iter().flatten() {
            let is_well = variable["type"] == "textbox" || (variable["type"] == "query" && variable["refresh"] == 2);
            assert!(
                is_well && variable["label"].is_string(),
                "{uid}: a variable is typed, or asked for again: {variable}"
            );
        }
    }
    let mut titles = BTreeSet::new();
    for (uid, panel) in panels() {
        let title = panel["title"].as_str().unwrap_or_default();
        assert!(titles.insert((uid.clone(), title.to_owned())), "{uid} has two panels of the title {title}");
        let words = |key: &str| panel[key].as_str().is_some_and(|text| text.len() > 3);
        assert!(words("title") && words("description"), "{uid}: {title} has a title and says what it shows");
        let defaults = &panel["fieldConfig"]["defaults"];
        assert!(
            defaults["unit"].is_string() && defaults["noValue"].is_string(),
            "{uid}: {title} has a unit, and words for no data"
        );
        assert!(defaults["thresholds"]["steps"].is_array(), "{uid}: {title}");
        let place = &panel["gridPos"];
        assert!(
            place["x"].as_u64().unwrap_or(0) + place["w"].as_u64().unwrap() <= 24,
            "{uid}: {title} is wider than the page"
        );
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{uid}: {title} asks nothing");
        for target in targets {
            assert_eq!(target["datasource"]["uid"], panel["datasource"]["uid"], "{uid}: {title}");
            asks_well(&uid, &panel, target);
        }
        for links in panel["fieldConfig"]["overrides"].as_array().into_iter().flatten() {
            for url in links["properties"].as_array().unwrap().iter().filter_map(|p| p["value"][0]["url"].as_str()) {
                let to = url.strip_prefix("/d/").unwrap().split('?').next().unwrap();
                assert!(uids.contains(to) && url.contains("${__url_time_range}"), "{uid}: {title} leads to {url}");
            }
        }
    }
}

fn asks_well(uid: &str, panel: &Value, target: &Value) {
    let title = panel["title"].as_str().unwrap();
    if let Some(expression) = target["expr"].as_str() {
        let is_rate = ["rate(", "increase("].iter().any(|name| expression.contains(name));
        let is_bounded = expression.contains("[$__rate_interval]") || expression.contains("[15m]");
        assert!(
            !is_rate || is_bounded,
            "{uid}: {title}: a rate is over $__rate_interval, or over what its alert looks at"
        );
        // Counters are shown as rates: what they have come to since a process began says little.
        for name in expression.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|name| name.ends_with("_total"))
        {
            assert!(is_rate, "{uid}: {title} shows the counter {name} itself");
        }
        assert!(target["legendFormat"].is_string(), "{uid}: {title} has a legend");
        return;
    }
    let sql = target["rawSql"].as_str().unwrap();
    // The read models as they stand are bounded by themselves: a learner, a workflow's table, what is open now.
    let is_bounded =
        ["$__timeFrom()", "$__fromTime", "= 'active'", "= 'processing'", "= 'failed'", "= 'assigned'", "${user:"];
    let is_bounded = is_bounded.iter().any(|bound| sql.contains(bound)) || sql.contains("FROM workflows.");
    assert!(is_bounded, "{uid}: {title} asks over unbounded time: {sql}");
    if panel["type"] == "table" {
        assert!(sql.contains("LIMIT"), "{uid}: {title}");
    }
}

/// Names of metrics in a text: what stands before a label's braces, a range, or a bracket.
fn metrics(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let is_ours = |word: &&str| {
        word.starts_with("weir_")
            || word.starts_with("process_")
            || COUNTERS.iter().any(|c| c.name == *word)
            || word.starts_with("tasks_execution")
    };
    words.filter(is_ours).map(|word| word.trim_end_matches("_bucket").trim_end_matches("_count").to_owned()).collect()
}

#[test]
fn what_is_exported_is_shown_and_what_is_shown_is_exported() {
    let read = |path: &str| std::fs::read_to_string(dashboards().join(path)).unwrap();
    let shown: String = panels()
        .iter()
        .flat_map(|(_, panel)| panel["targets"].as_array().unwrap().clone())
        .filter_map(|t| t["expr"].as_str().map(|e| e.to_owned() + " "))
        .collect();
    let named = metrics(&format!("{shown} {} {}", read("prometheus/alerts.yml"), read("slo/weir.yml")));
    let exported: BTreeSet<String> = ALL
        .iter()
        .map(|metric| metric.name.to_owned())
        .chain(COUNTERS.iter().map(|counter| counter.name.to_owned()))
        .chain([EXECUTION_TIME.name.to_owned()])
        .collect();
    let unknown: Vec<_> = named.difference(&exported).filter(|name| !name.starts_with("process_")).collect();
    assert!(unknown.is_empty(), "nothing exports {unknown:?}");
    let unseen: Vec<_> = exported.difference(&named).collect();
    assert!(unseen.is_empty(), "no panel and no alert looks at {unseen:?}");
}

/// Each dashboard has its picture.
#[test]
fn there_is_a_picture_of_each() {
    let readme = std::fs::read_to_string(dashboards().join("README.md")).unwrap();
    for (uid, _) in pages() {
        let picture = format!("pictures/{uid}.png");
        assert!(dashboards().join(&picture).exists() && readme.contains(&picture), "{picture}");
    }
}

/// Where a panel names an alert, its threshold is the alert's number.
#[test]
fn thresholds_are_those_of_the_alerts() {
    let alerts = std::fs::read_to_string(dashboards().join("prometheus/alerts.yml")).unwrap();
    let mut compared = 0;
    for (uid, panel) in panels() {
        let (title, about) = (panel["title"].as_str().unwrap(), panel["description"].as_str().unwrap());
        let steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"].as_array().unwrap();
        for alert in
            about.split(|c: char| !c.is_alphanumeric()).filter(|word| word.starts_with("Weir") && word.len() > 4)
        {
            let Some(rule) = alerts.split("- alert: ").find(|rule| rule.starts_with(&format!("{alert}\n"))) else {
                assert!(
                    dashboards().join(format!("runbooks/{alert}.md")).exists(),
                    "{uid}: {title}: there is no alert {alert}"
                );
                continue;
            };
            for step in steps.iter().filter_map(|step| step["value"].as_f64()) {
                // One of something is what `> 0` begins with.
                let words = if step == 1.0 { "> 0".to_owned() } else { format!("> {step}") };
                assert!(rule.contains(&words), "{uid}: {title} turns at {step}, {alert} does not");
                compared += 1;
            }
        }
    }
    assert!(compared >= 10, "{compared}");
}
