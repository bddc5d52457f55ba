//! A real Prometheus of the tests' own, with the rules that the repository has.

use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use weir_model::{Clock, SystemClock};

use crate::postgres::free_port;
use crate::{Up, root};

/// One that scrapes often.
pub struct Prometheus {
    child: Child,
    /// Its base URL.
    pub url: String,
    _dir: TempDir,
}

impl Prometheus {
    /// Watches a running `weir up`.
    #[must_use]
    pub fn watching(up: &Up<'_>) -> Self {
        Self::watching_with(up, |rules| rules)
    }

    /// With rules that are not quite as they stand.
    #[must_use]
    pub fn watching_with(up: &Up<'_>, edit: impl Fn(String) -> String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let target = up.api.trim_start_matches("http://");
        let config = std::fs::read_to_string(root().join("dashboards/prometheus/prometheus.yml")).unwrap();
        let config = config
            .replace("127.0.0.1:8626", target)
            .replace("scrape_interval: 15s", "scrape_interval: 1s\n  evaluation_interval: 2s");
        std::fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        for rules in ["alerts.yml", "slo.yml"] {
            let text = std::fs::read_to_string(root().join("dashboards/prometheus").join(rules)).unwrap();
            std::fs::write(dir.path().join(rules), edit(text)).unwrap();
        }
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

    /// What an expression was over the last seconds; nothing while the server does not answer.
    pub async fn range(&self, expression: &str, seconds: u64, step: u64) -> Vec<Value> {
        let now = SystemClock.now().as_millis().unsigned_abs() / 1000;
        let (start, end, step) = ((now - seconds).to_string(), now.to_string(), step.to_string());
        let query = [("query", expression), ("start", &start), ("end", &end), ("step", &step)];
        let request = reqwest::Client::new().get(format!("{}/api/v1/query_range", self.url)).query(&query);
        let Ok(answer) = request.send().await else { return Vec::new() };
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"]["result"].as_array().cloned().unwrap_or_default()
    }

    /// What an expression is now; `None` while the server does not answer.
    pub async fn query(&self, expression: &str) -> Option<Vec<Value>> {
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
