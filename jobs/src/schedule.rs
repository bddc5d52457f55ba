//! Jobs that run by themselves inside `weir up`, by cron expressions, and when someone asks.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use croner::Cron;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use weir_clickhouse::ClickHouse;
use weir_engine::BoxError;
use weir_engine::retry::chain;
use weir_history::HistoryRoot;
use weir_kafka::KafkaOptions;
use weir_model::project::Units;
use weir_postgres::job_runs::{Outcome, RunningJob};
use weir_postgres::{Database, read_models};
use weir_verify::{Asked, Stores, Subject};

use crate::attached::Attached;
use crate::cron::{next, parse};
use crate::data_dir::DataDir;

/// Sleeps are cut, so that a clock that was set is noticed.
const SLEEP_MAX: Duration = Duration::from_secs(30);

/// How long a scheduled `verify` waits for lanes that are at work.
const VERIFY_WAIT: Duration = Duration::from_secs(60);

/// What there is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Job {
    /// Does every number agree?
    Verify,
    /// The read models again from all that their lane has read, beside those that serve
    RebuildReadModels,
    /// The counters and histograms again, likewise
    RebuildMetrics,
}

impl Job {
    pub(crate) const ALL: [Self; 3] = [Self::Verify, Self::RebuildReadModels, Self::RebuildMetrics];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::RebuildReadModels => "rebuild-read-models",
            Self::RebuildMetrics => "rebuild-metrics",
        }
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What jobs work with.
#[derive(Clone)]
pub(crate) struct Runner {
    database: Database,
    history: HistoryRoot,
    kafka: Option<KafkaOptions>,
    clickhouse: Option<ClickHouse>,
    dir: DataDir,
    units: Units,
    lanes: Vec<&'static str>,
    owner: Arc<str>,
}

impl Runner {
    pub(crate) fn new(attached: &Attached) -> Self {
        Self {
            database: attached.database.clone(),
            history: attached.history.clone(),
            kafka: attached.settings.kafka.options(),
            clickhouse: attached.settings.clickhouse.server(),
            dir: attached.dir.clone(),
            units: attached.settings.durations,
            lanes: attached.settings.enabled_lanes(),
            owner: format!("process {}", std::process::id()).into(),
        }
    }

    /// Runs a job and keeps its row; `None` when another process has it.
    pub(crate) async fn run(&self, job: Job, due_at: Option<Timestamp>) -> Result<Option<(Outcome, String)>, BoxError> {
        let Some(running) = RunningJob::begin(&self.database, job.name(), due_at, &self.owner).await? else {
            return Ok(None);
        };
        let (outcome, detail) = match Box::pin(self.work(job)).await {
            Ok(done) => done,
            Err(error) => (Outcome::Failed, chain(error.as_ref())),
        };
        match outcome {
            Outcome::Ok => tracing::info!(%job, detail, "a job is done"),
            Outcome::Different | Outcome::Failed => tracing::error!(%job, outcome = outcome.as_str(), detail, "a job"),
        }
        running.end(outcome, &detail).await?;
        Ok(Some((outcome, detail)))
    }

    async fn work(&self, job: Job) -> Result<(Outcome, String), BoxError> {
        match job {
            Job::Verify => self.verify().await,
            Job::RebuildReadModels => self.rebuild(Subject::ReadModels).await,
            Job::RebuildMetrics => self.rebuild(Subject::Metrics).await,
        }
    }

    fn stores(&self) -> Stores<'_> {
        Stores {
            database: &self.database,
            history: &self.history,
            kafka: self.kafka.as_ref(),
            clickhouse: self.clickhouse.as_ref(),
        }
    }

    async fn verify(&self) -> Result<(Outcome, String), BoxError> {
        let spill = self.dir.spill()?;
        let asked = Asked { units: self.units, lanes: &self.lanes, wait: VERIFY_WAIT, spill: &spill };
        let report = weir_verify::verify(self.stores(), asked).await?;
        let different: Vec<String> = report
            .comparisons
            .iter()
            .filter(|comparison| !comparison.is_equal())
            .map(|c| format!("{} {}: {} in the source, {} in the sink", c.lane, c.subject, c.expected, c.actual))
            .chain(report.differences.iter().cloned())
            .collect();
        let cuts: Vec<_> = report.cuts.iter().map(|(lane, below)| format!("{lane} below {below}")).collect();
        let missing: Vec<_> = report
            .unreached
            .iter()
            .map(|u| format!("{} is at {} of {}: {}", u.part, u.reached, u.end, u.words))
            .collect();
        // What was not there to be compared is no difference, and no proof either.
        Ok(match (different.is_empty(), missing.is_empty()) {
            (true, true) => (Outcome::Ok, format!("all equal; compared {}", cuts.join(", "))),
            (true, false) => (Outcome::Failed, format!("not all was there to be compared: {}", missing.join("; "))),
            (false, _) => (Outcome::Different, [different, missing].concat().join("; ")),
        })
    }

    async fn rebuild(&self, subject: Subject) -> Result<(Outcome, String), BoxError> {
        let spill = self.dir.spill()?;
        let done = Box::pin(weir_verify::rebuild(self.stores(), subject, self.units, &spill)).await?;
        let tables: Vec<_> = done.different.iter().map(|(table, rows)| format!("{rows} rows of {table}")).collect();
        let words =
            if tables.is_empty() { "nothing differed".to_owned() } else { format!("put right: {}", tables.join(", ")) };
        Ok((Outcome::Ok, format!("rebuilt; {words}")))
    }

    /// Rebuilds read models of an older layout; the run stands among those of its job.
    pub(crate) async fn carry_over(&self) -> Result<Carried, BoxError> {
        if !read_models::are_outdated(&**self.database.get().await?).await? {
            return Ok(Carried::Current);
        }
        tracing::info!("the read models are of an older layout: they are rebuilt before their lane goes on");
        match Box::pin(self.run(Job::RebuildReadModels, None)).await? {
            None => Ok(Carried::Elsewhere),
            Some((Outcome::Ok, _)) => Ok(Carried::Current),
            Some((Outcome::Different | Outcome::Failed, detail)) => Err(detail.into()),
        }
    }
}

/// What became of read models of an older layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carried {
    /// They are of this build's layout.
    Current,
    /// Another process is at it.
    Elsewhere,
}

/// Runs what is due, until told to stop.
pub(crate) struct Scheduler;

impl Scheduler {
    pub(crate) fn start(attached: &Attached, stop: CancellationToken) {
        let runner = Runner::new(attached);
        for job in Job::ALL {
            let cron = attached.settings.jobs.get(job.name()).and_then(|settings| parse(&settings.cron).ok());
            let Some(cron) = cron else { continue };
            let (runner, stop) = (runner.clone(), stop.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = follow(&runner, job, &cron) => {}
                }
            });
        }
    }
}

async fn follow(runner: &Runner, job: Job, cron: &Cron) {
    let mut after = Timestamp::now();
    while let Some(due) = next(cron, after) {
        loop {
            let left = Duration::try_from(Timestamp::now().duration_until(due)).unwrap_or_default();
            if left.is_zero() {
                break;
            }
            tokio::time::sleep(left.min(SLEEP_MAX)).await;
        }
        if let Err(error) = runner.run(job, Some(due)).await {
            tracing::warn!(%job, error = chain(error.as_ref()), "a job did not run");
        }
        // Moments that passed meanwhile are not made up for.
        after = due.max(Timestamp::now());
    }
}
