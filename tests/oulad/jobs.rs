//! Every job by the schedule, on the real learning records and with live lanes at work; then each killed in the middle. Some minutes, so a
//! command of its own: `tests/README.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use weir_tests::{ClickHouse, Facts, Fixture, Postgres, Weir, seed};

/// Jobs that the schedule runs here, each within the minute.
const JOBS: [&str; 8] = [
    "backfill-clickhouse",
    "rebuild-read-models",
    "rebuild-metrics",
    "rebuild-clickhouse",
    "rebuild-history",
    "compact-history",
    "archive-events",
    "workflows",
];

const PATIENCE: Duration = Duration::from_secs(900);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_job_by_the_schedule_and_each_killed_in_the_middle() {
    let dir = std::env::var_os("WEIR_OULAD").filter(|_| std::env::var_os("OULAD_JOBS").is_some());
    let Some(dir) = dir.map(std::path::PathBuf::from) else {
        let words = "NOT RUN: oulad::jobs; WEIR_OULAD=DIR and OULAD_JOBS=1 run it, for some minutes";
        writeln!(std::io::stderr(), "{words}").unwrap();
        return;
    };
    let (server, postgres, archive) = (ClickHouse::start(), Postgres::start(), tempfile::tempdir().unwrap());
    let url = format!("file://{}", archive.path().display());
    let weir = Weir::new().with_all(server.settings()).on(&postgres.url()).with(&format!("archive.url={url}"));
    weir.ok(&["import", "oulad", dir.to_str().unwrap()]);
    weir.ok(&["up", "--until-caught-up"]);
    let facts = Facts::of_input(&dir);
    // An empty ClickHouse, a year of it by hand, and all that the schedule does beside an import and the lanes.
    server.sql("TRUNCATE TABLE weir.events_stored SYNC").await;
    let year = weir.ok(&["backfill", "clickhouse", "--event-type", "AssessmentCompleted", "--from", "2000-01-01"]);
    assert!(year.starts_with(&format!("ok: {} rows inserted", facts.events["AssessmentCompleted"])), "{year}");
    let often = JOBS.iter().map(|job| format!("jobs.{job}.schedule=\"* * * * *\""));
    let weir = weir.with_all(often);
    let up = weir.up();
    let more = Fixture::new(20_000, seed("oulad::jobs"));
    weir.ok(&["import", "oulad", more.arg()]);
    let started = Instant::now();
    for job in JOBS {
        let done =
            format!("SELECT count(*) > 0 FROM job_runs WHERE job = '{job}' AND due_at IS NOT NULL AND outcome = 'ok'");
        let client = weir.owner().await;
        while !client.query_one(&done, &[]).await.unwrap().get::<_, bool>(0) {
            assert!(started.elapsed() < PATIENCE, "{job}: {}", weir.json(&["jobs", "history", "--limit", "30"]));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    up.terminate();
    weir.ok(&["up", "--until-caught-up", "--set", "jobs.verify.schedule="]);
    weir.verify();
    at_risk(&weir).await;
    killed(&weir).await;
    // The archive, into an empty event store that every sink is made of again.
    weir.ok(&["archive", "events"]);
    let (other_server, other) = (ClickHouse::start(), Postgres::start());
    let loaded = Weir::new().with_all(other_server.settings()).on(&other.url());
    loaded.ok(&["archive", "load", "--from", &url]);
    loaded.ok(&["up", "--until-caught-up"]);
    loaded.verify();
    let count = "SELECT count(*) FROM events";
    let of = async |weir: &Weir| weir.owner().await.query_one(count, &[]).await.unwrap().get::<_, i64>(0);
    assert_eq!(of(&weir).await, of(&loaded).await);
}

/// Each job dies at a random moment, is run again, and everything is equal.
async fn killed(weir: &Weir) {
    let seed = seed("oulad::jobs killed");
    let mut random = StdRng::seed_from_u64(seed);
    let up = weir.up();
    for job in JOBS {
        let moment = Duration::from_millis(random.random_range(300..4000));
        let mut child = weir.start(&["jobs", "run", job]);
        tokio::time::sleep(moment).await;
        child.kill().unwrap();
        child.wait().unwrap();
        // The schedule may have come first.
        let client = weir.owner().await;
        let running =
            "SELECT count(*) FROM job_runs WHERE job = $1 AND ended_at IS NULL AND seen_at > now() - interval '10 s'";
        while client.query_one(running, &[&job]).await.unwrap().get::<_, i64>(0) > 0 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        weir.ok(&["jobs", "run", job]);
    }
    up.terminate();
    weir.verify();
}

/// A learner as plain arithmetic sees him: scores in millionths.
#[derive(Default)]
struct Learner {
    last_session: Option<i64>,
    /// When, key, score, maximum.
    attempts: Vec<(i64, String, f64, f64)>,
    registered: bool,
    deactivated: bool,
}

impl Learner {
    fn reasons(&mut self, last: i64) -> BTreeSet<&'static str> {
        const DAY_MS: i64 = 86_400_000;
        self.attempts.sort_by(|a, b| (b.0, &b.1).cmp(&(a.0, &a.1)));
        let percent: Vec<f64> = self.attempts.iter().map(|(.., score, most)| 100.0 * score / most).collect();
        let mean = |of: &[f64]| (!of.is_empty()).then(|| of.iter().sum::<f64>() / of.len() as f64);
        let (recent, earlier) = percent.split_at(percent.len().min(3));
        let (score, most): (f64, f64) = self.attempts.iter().fold((0.0, 0.0), |(s, m), (.., a, b)| (s + a, m + b));
        let mut reasons = BTreeSet::new();
        if self.last_session.is_some_and(|at| at < last - 30 * DAY_MS) {
            reasons.insert("no session for 30 days");
        }
        if !self.attempts.is_empty() && score * 100.0 < most * 40.0 {
            reasons.insert("low scores");
        }
        if mean(recent).zip(mean(earlier)).is_some_and(|(recent, earlier)| recent < earlier - 15.0 - 1e-9) {
            reasons.insert("falling scores");
        }
        reasons
    }
}

/// The workflow's table against a plain model over the event store, and against the question of the same name.
async fn at_risk(weir: &Weir) {
    weir.ok(&["workflows", "run", "learners_at_risk"]);
    let client = weir.owner().await;
    let sql = "SELECT event_type, event_data->>'userId', (extract(epoch FROM timestamp) * 1000)::bigint, event_id::text, \
               (event_data->>'score')::float8, (event_data->>'maxScore')::float8 FROM event_log ORDER BY id";
    let mut learners: BTreeMap<String, Learner> = BTreeMap::new();
    let mut last = i64::MIN;
    for row in client.query(sql, &[]).await.unwrap() {
        let (event_type, at): (&str, i64) = (row.get(0), row.get(2));
        let learner = learners.entry(row.get(1)).or_default();
        match event_type {
            "UserRegistered" => learner.registered = true,
            "UserDeactivated" => learner.deactivated = true,
            "LearningSessionStarted" => {
                learner.last_session = learner.last_session.max(Some(at));
                last = last.max(at);
            }
            "AssessmentCompleted" => learner.attempts.push((at, row.get(3), row.get(4), row.get(5))),
            _ => {}
        }
    }
    let mut expected = BTreeMap::new();
    for (user, learner) in learners.iter_mut().filter(|(_, l)| l.registered && !l.deactivated) {
        let reasons = learner.reasons(last);
        if !reasons.is_empty() {
            expected.insert(user.clone(), reasons.into_iter().map(str::to_owned).collect::<BTreeSet<_>>());
        }
    }
    let rows = client.query("SELECT user_id, reason FROM workflows.learners_at_risk", &[]).await.unwrap();
    let found: BTreeMap<String, BTreeSet<String>> =
        rows.iter().map(|row| (row.get(0), row.get::<_, &str>(1).split(", ").map(str::to_owned).collect())).collect();
    assert!(expected.len() > 1000);
    assert_eq!(found.len(), expected.len());
    assert!(found == expected, "{:?}", found.iter().find(|(user, reasons)| expected.get(*user) != Some(reasons)));
    let asked = weir.json(&["ask", "learners_at_risk"]);
    let asked: BTreeSet<&str> = asked.as_array().unwrap().iter().map(|row| row["user_id"].as_str().unwrap()).collect();
    let low = |reasons: &BTreeSet<String>| reasons.contains("low scores");
    let low: BTreeSet<&str> =
        expected.iter().filter(|(_, reasons)| low(reasons)).map(|(user, _)| user.as_str()).collect();
    assert_eq!(asked, low);
}
