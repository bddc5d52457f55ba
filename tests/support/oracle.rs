//! What must come out, computed from the input files alone, without any of weir's code; and the same read from each sink.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::weir::{Up, Weir, connect};

/// Numbers that every sink must agree on.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Events by type.
    pub events: BTreeMap<String, i64>,
    /// Sum of all scores; they are whole numbers in this data set.
    pub scores: i64,
    /// Users by final result.
    pub results: BTreeMap<String, i64>,
    /// By user: sessions, learning paths, assessments taken, passed.
    pub progress: BTreeMap<String, (i64, i64, i64, i64)>,
    /// By assessment and user: attempts, of those passed, the best score.
    pub takes: BTreeMap<(String, String), (i64, i64, i64)>,
    /// Users that are deactivated.
    pub deactivated: i64,
}

fn rows(dir: &Path, name: &str) -> Vec<BTreeMap<String, String>> {
    let plain = dir.join(format!("{name}.csv"));
    let text = if plain.exists() {
        std::fs::read_to_string(plain).unwrap()
    } else {
        let output = std::process::Command::new("zcat").arg(dir.join(format!("{name}.csv.gz"))).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    csv::Reader::from_reader(text.as_bytes()).deserialize().map(Result::unwrap).collect()
}

impl Facts {
    /// From the input files.
    #[must_use]
    pub fn of_input(dir: &Path) -> Self {
        let mut facts = Self::default();
        let mut progress: BTreeMap<String, (i64, BTreeSet<String>)> = BTreeMap::new();
        let mut count = |event_type: &str| *facts.events.entry(event_type.to_owned()).or_default() += 1;
        for row in rows(dir, "studentRegistration") {
            count("UserRegistered");
            if !row["date_unregistration"].is_empty() {
                count("UserDeactivated");
                facts.deactivated += 1;
            }
        }
        for row in rows(dir, "studentInfo") {
            count("UserProfileUpdated");
            *facts.results.entry(row["final_result"].clone()).or_default() += 1;
        }
        for row in rows(dir, "studentVle") {
            count("LearningSessionStarted");
            let path = format!("{}-{}", row["code_module"], row["code_presentation"]);
            let entry = progress.entry(format!("{}-{path}", row["id_student"])).or_default();
            entry.0 += 1;
            entry.1.insert(path);
        }
        let assessments: BTreeMap<_, _> = rows(dir, "assessments")
            .into_iter()
            .map(|row| (row["id_assessment"].clone(), format!("{}-{}", row["code_module"], row["code_presentation"])))
            .collect();
        for row in rows(dir, "studentAssessment") {
            let Ok(score) = row["score"].parse::<i64>() else { continue };
            count("AssessmentCompleted");
            facts.scores += score;
            let user = format!("{}-{}", row["id_student"], assessments[&row["id_assessment"]]);
            let take = facts.takes.entry((row["id_assessment"].clone(), user.clone())).or_default();
            *take = (take.0 + 1, take.1 + i64::from(score >= 40), take.2.max(score));
            progress.entry(user).or_default();
        }
        let count_paths = |(user, (sessions, paths)): (String, (i64, BTreeSet<_>))| {
            (user, (sessions, i64::try_from(paths.len()).unwrap(), 0, 0))
        };
        facts.progress = progress.into_iter().map(count_paths).collect();
        for ((_, user), (_, passed, _)) in &facts.takes {
            let taken = facts.progress.get_mut(user).unwrap();
            (taken.2, taken.3) = (taken.2 + 1, taken.3 + i64::from(*passed > 0));
        }
        facts
    }

    /// All events together.
    #[must_use]
    pub fn total(&self) -> i64 {
        self.events.values().sum()
    }

    /// Holds every sink of a caught-up instance against these facts.
    pub async fn hold(&self, weir: &Weir, up: &Up<'_>) {
        let postgres = connect(&up.postgres()).await;
        let pairs = |sql: &'static str| {
            let postgres = &postgres;
            async move {
                let rows = postgres.query(sql, &[]).await.unwrap();
                rows.iter().map(|row| (row.get::<_, String>(0), row.get::<_, i64>(1))).collect::<BTreeMap<_, _>>()
            }
        };
        assert_eq!(pairs("SELECT event_type::text, count(*) FROM events GROUP BY 1").await, self.events, "event store");
        let applied = pairs("SELECT label, value FROM metric_counters WHERE name = 'events_applied_total'").await;
        assert_eq!(applied, self.events, "metrics");
        let results = pairs("SELECT preferences->>'finalResult', count(*) FROM user_read_model GROUP BY 1").await;
        assert_eq!(results, self.results, "user_read_model");
        let status = pairs("SELECT 'deactivated', count(*) FROM user_read_model WHERE status = 'deactivated'").await;
        assert_eq!(status["deactivated"], self.deactivated, "user_read_model");
        let scores = pairs("SELECT 'sum', coalesce(sum(score), 0)::bigint FROM assessment_read_model").await;
        assert_eq!(scores["sum"], self.scores, "assessment_read_model");
        let rows = pairs(
            "SELECT 'LearningSessionStarted', count(*) FROM learning_session_read_model \
             UNION ALL SELECT 'AssessmentCompleted', count(*) FROM assessment_read_model",
        )
        .await;
        for (event_type, n) in rows {
            assert_eq!(n, self.events.get(&event_type).copied().unwrap_or(0), "the read model of {event_type}");
        }
        let sql = "SELECT user_id, sessions, learning_paths, assessments_taken, assessments_passed FROM learner_progress_read_model";
        let rows = postgres.query(sql, &[]).await.unwrap();
        let progress: BTreeMap<String, _> =
            rows.iter().map(|r| (r.get(0), (r.get(1), r.get(2), r.get(3), r.get(4)))).collect();
        assert!(progress == self.progress, "learner_progress_read_model differs");

        let sql = "SELECT assessment_id, user_id, attempts, passes, best_score_percent::bigint FROM assessment_results";
        let rows = postgres.query(sql, &[]).await.unwrap();
        let takes: BTreeMap<(String, String), _> =
            rows.iter().map(|r| ((r.get(0), r.get(1)), (r.get(2), r.get(3), r.get(4)))).collect();
        assert!(takes == self.takes, "assessment_results differs");

        let sql =
            "SELECT event_type, count(*) AS n, cast(coalesce(sum(score), 0) AS bigint) AS score FROM events GROUP BY 1";
        let history = weir.json(&["sql", sql]);
        let by_type: BTreeMap<String, i64> = history
            .as_array()
            .unwrap()
            .iter()
            .map(|r| (r["event_type"].as_str().unwrap().to_owned(), r["n"].as_i64().unwrap()))
            .collect();
        assert_eq!(by_type, self.events, "history");
        let scores: i64 = history.as_array().unwrap().iter().filter_map(|r| r["score"].as_i64()).sum();
        assert_eq!(scores, self.scores, "history");

        let text = reqwest::get(format!("{}/metrics", up.api)).await.unwrap().text().await.unwrap();
        for (event_type, n) in &self.events {
            let line = format!("events_applied_total{{event_type=\"{event_type}\"}} {n}");
            assert!(text.lines().any(|l| l == line), "`{line}` is not among the metrics:\n{text}");
        }
    }
}

/// The rows of `weir verify` that are about history, by event type.
#[must_use]
pub fn history_counts(table: &Value) -> BTreeMap<String, i64> {
    let rows = table.as_array().unwrap().iter().filter(|row| row["lane"] == "history");
    rows.map(|row| (row["subject"].as_str().unwrap().to_owned(), row["sink_count"].as_i64().unwrap())).collect()
}
