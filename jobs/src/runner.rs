//! Runs a job: one run at a time, recorded from its beginning, told to stop by the process, by someone, or by its limit
//! of time. What a run is in the middle of when it ends is what a crash would leave, and the next run goes on from there.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weir_engine::BoxError;
use weir_engine::retry::chain;
use weir_postgres::job_run::{Beat, Begun, Progress, RunRequest, RunningJob};
use weir_postgres::job_runs::{JobRun, Outcome};
use weir_postgres::read_models;

use crate::attached::Attached;
use crate::job::Job;
use crate::show::Show;
use crate::work::Work;

/// How often a run says how far it is, and hears whether it may go on.
const BEAT: Duration = Duration::from_secs(1);

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) job: Job,
    /// The moment of the schedule; `None` when someone asked for it.
    pub(crate) due_at: Option<Timestamp>,
    pub(crate) attempt: i32,
    pub(crate) arguments: Value,
    pub(crate) run_key: Option<String>,
    /// After so long the run ends; `None` for as long as it takes.
    pub(crate) timeout: Option<Duration>,
}

impl Ask {
    /// Here and now.
    pub(crate) fn now(job: Job, arguments: Value) -> Self {
        Self { job, due_at: None, attempt: 1, arguments, run_key: None, timeout: None }
    }
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Ran {
    /// It ran here, and so it went.
    Here(Outcome, String),
    /// Another run of the job goes on.
    Busy(Box<JobRun>),
    /// This was asked for before.
    Known(Box<JobRun>),
    /// The schedule leaves the job out, for this reason.
    Paused(String),
}

/// Runs jobs for one process.
#[derive(Clone)]
pub(crate) struct Runner {
    work: Work,
    owner: Arc<str>,
}

impl Runner {
    pub(crate) fn new(attached: &Attached) -> Self {
        Self::of(Work::new(attached))
    }

    /// For a process that does nothing else.
    pub(crate) fn alone(attached: &Attached) -> Self {
        Self::of(Work::alone(attached))
    }

    fn of(work: Work) -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { work, owner: format!("{host} process {}", std::process::id()).into() }
    }

    /// Whether this process has what a job needs: of several processes with one schedule, one that has it runs the job.
    pub(crate) async fn can(&self, job: Job) -> Result<bool, BoxError> {
        self.work.can(job).await
    }

    /// What is wrong with what is asked for.
    pub(crate) fn check(job: Job, arguments: &Value) -> Result<(), BoxError> {
        Work::check(job, arguments)
    }

    /// Begins a run, which [`Self::go_on`] then drives.
    pub(crate) async fn begin(&self, ask: &Ask) -> Result<Begun, BoxError> {
        let request = RunRequest {
            job: ask.job.name(),
            due_at: ask.due_at,
            attempt: ask.attempt,
            owner: &self.owner,
            arguments: &ask.arguments,
            run_key: ask.run_key.as_deref(),
        };
        Ok(RunningJob::begin(&self.work.database, request).await?)
    }

    /// Runs a job and keeps its row.
    pub(crate) async fn run(&self, ask: Ask, stop: &CancellationToken, show: &Show) -> Result<Ran, BoxError> {
        match self.begin(&ask).await? {
            Begun::Running(running) => {
                let (outcome, detail) = self.go_on(running, &ask, stop, show).await?;
                Ok(Ran::Here(outcome, detail))
            }
            Begun::Busy(run) => Ok(Ran::Busy(run)),
            Begun::Known(run) => Ok(Ran::Known(run)),
            Begun::Paused(why) => Ok(Ran::Paused(why)),
        }
    }

    /// Drives a run to its end, and keeps how it went.
    pub(crate) async fn go_on(
        &self,
        running: RunningJob,
        ask: &Ask,
        stop: &CancellationToken,
        show: &Show,
    ) -> Result<(Outcome, String), BoxError> {
        let (progress, id) = (Progress::default(), running.id());
        let work = self.work.run(ask.job, &ask.arguments, &progress, running.fence()).boxed();
        let (outcome, detail) = drive(&running, &progress, work, (ask.timeout, stop), show).await?;
        match outcome {
            Outcome::Ok => tracing::info!(job = %ask.job, id, detail, "a job is done"),
            Outcome::Stopped | Outcome::Cancelled => tracing::warn!(job = %ask.job, id, detail, "a job was stopped"),
            Outcome::Different | Outcome::Failed => {
                tracing::error!(job = %ask.job, id, outcome = outcome.as_str(), detail, "a job");
            }
        }
        running.end(outcome, &detail, &progress).await?;
        Ok((outcome, detail))
    }

    /// Rebuilds read models of an older layout; the run stands among those of its job.
    pub(crate) async fn carry_over(&self) -> Result<Carried, BoxError> {
        if !read_models::are_outdated(&**self.work.database.get().await?).await? {
            return Ok(Carried::Current);
        }
        tracing::info!("the read models are of an older layout: they are rebuilt before their lane goes on");
        let ask = Ask::now(Job::RebuildReadModels, Value::Object(serde_json::Map::new()));
        match Box::pin(self.run(ask, &CancellationToken::new(), &Show::Nothing)).await? {
            Ran::Here(Outcome::Ok, _) => Ok(Carried::Current),
            Ran::Here(_, detail) => Err(detail.into()),
            Ran::Busy(_) | Ran::Known(_) | Ran::Paused(_) => Ok(Carried::Elsewhere),
        }
    }
}

/// Works until it is done, or told to end.
async fn drive(
    running: &RunningJob,
    progress: &Progress,
    mut work: impl Future<Output = Result<(Outcome, String), BoxError>> + Unpin,
    (timeout, stop): (Option<Duration>, &CancellationToken),
    show: &Show,
) -> Result<(Outcome, String), BoxError> {
    let began = Instant::now();
    let shown = show.begin();
    let mut beats = tokio::time::interval(BEAT);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            done = &mut work => {
                return Ok(done.unwrap_or_else(|error| (Outcome::Failed, chain(error.as_ref()))));
            }
            _ = beats.tick() => {
                shown.show(&progress.standing(), began.elapsed());
                match running.beat(progress).await {
                    Beat::GoOn => {}
                    Beat::Cancel => return Ok((Outcome::Cancelled, "cancelled; what it has done stays done".to_owned())),
                    Beat::Lost => return Err("another run has taken its place, or its session in Postgres ended: it acts no more".into()),
                }
                if timeout.is_some_and(|timeout| began.elapsed() > timeout) {
                    let limit = timeout.unwrap_or_default().as_secs();
                    return Ok((Outcome::Failed, format!("it took longer than its {limit} s; what it has done stays done")));
                }
            }
            () = stop.cancelled() => {
                let words = format!("told to stop; `weir jobs resume {}` goes on with it", running.id());
                return Ok((Outcome::Stopped, words));
            }
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
