//! A run of a job under way: one at a time for each job, seen by all, and out once another has taken its place.
//!
//! A run holds the job's advisory lock through a session of its own, so a process that dies holds it no longer. One that stands still keeps
//! session and lock; when it has not been heard of for [`STALE_AFTER`], the next one ends its session and raises the job's epoch. What a run
//! changes in Postgres it changes while it holds that epoch ([`JobFence::hold`]); what it changes elsewhere has rules of its own.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp as JiffTimestamp;
use serde_json::Value;
use tokio_postgres::GenericClient;

use crate::database::Database;
use crate::error::{DbError, During, ErrorKind};
use crate::job_runs::{self, JobRun, Outcome};

/// Group of the advisory locks that running jobs hold.
const LOCK_GROUP: i32 = 8627;

/// A run that was not heard of for so long may be replaced.
pub const STALE_AFTER: Duration = Duration::from_secs(60);

/// How often the lock is tried after a session was ended, and the waits between.
const TRIES: usize = 50;
const TRY_AFTER: Duration = Duration::from_millis(100);

/// Lines of a run's log that are kept.
const TAIL_LINES: usize = 20;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct RunRequest<'a> {
    /// Which job.
    pub job: &'a str,
    /// The moment of the schedule; `None` when someone asked for it.
    pub due_at: Option<JiffTimestamp>,
    /// From 1; of those that the schedule makes for one moment.
    pub attempt: i32,
    /// The process, for people.
    pub owner: &'a str,
    /// What the job is to do.
    pub arguments: &'a Value,
    /// A second request with the same key is the first.
    pub run_key: Option<&'a str>,
}

/// What became of a request.
pub enum Begun {
    /// It runs here.
    Running(RunningJob),
    /// Another run of the job goes on.
    Busy(Box<JobRun>),
    /// This was asked for before, by its key or for its moment of the schedule.
    Known(Box<JobRun>),
    /// The job is paused, for this reason: the schedule leaves it out.
    Paused(String),
}

/// Whether a run may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// It may.
    GoOn,
    /// Someone asked for its end.
    Cancel,
    /// Another run took its place, or its session is gone.
    Lost,
}

/// How far a run is, in any of its parts.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    done: AtomicI64,
    total: Mutex<(Option<i64>, &'static str)>,
    rows: AtomicI64,
    bytes: AtomicI64,
    tail: Mutex<VecDeque<String>>,
}

/// [`Progress`] at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Of `total`, in `unit`.
    pub done: i64,
    /// `None` where it is not known beforehand.
    pub total: Option<i64>,
    /// rows, slices, files
    pub unit: &'static str,
    /// Rows written.
    pub rows: i64,
    /// Bytes written.
    pub bytes: i64,
}

impl Progress {
    /// What there is to do, and in what it is counted.
    pub fn expect(&self, total: Option<i64>, unit: &'static str) {
        *self.0.total.lock().unwrap_or_else(PoisonError::into_inner) = (total, unit);
    }

    /// So many more are done.
    pub fn advance(&self, done: i64) {
        self.0.done.fetch_add(done, Ordering::Relaxed);
    }

    /// So much more is written.
    pub fn wrote(&self, rows: i64, bytes: i64) {
        self.0.rows.fetch_add(rows, Ordering::Relaxed);
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A line of the run's log.
    pub fn say(&self, words: &str) {
        tracing::info!("{words}");
        let mut tail = self.0.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(format!("{} {}", JiffTimestamp::now().strftime("%H:%M:%S"), words.replace('\0', "\\0")));
    }

    /// Now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let (total, unit) = *self.0.total.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |of: &AtomicI64| of.load(Ordering::Relaxed);
        Standing { done: count(&self.0.done), total, unit, rows: count(&self.0.rows), bytes: count(&self.0.bytes) }
    }

    fn tail(&self) -> String {
        let tail = self.0.tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

/// A run under way.
pub struct RunningJob {
    client: deadpool_postgres::ClientWrapper,
    id: i64,
    fence: JobFence,
}

/// The right of one run to act.
#[derive(Debug, Clone)]
pub struct JobFence {
    job: Arc<str>,
    epoch: i64,
}

impl JobFence {
    /// The number of the run among those of its job.
    #[must_use]
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Until the transaction ends no other run of the job begins; refused where one has.
    pub async fn hold(&self, transaction: &impl GenericClient) -> Result<(), DbError> {
        const ACTION: &str = "looking whether a job's run is the last one";
        let sql = "SELECT 1 FROM jobs WHERE job = $1 AND epoch = $2 FOR SHARE";
        match transaction.query_opt(sql, &[&&*self.job, &self.epoch]).await.during(ACTION)? {
            Some(_) => Ok(()),
            None => {
                let words = format!("another run of {} has taken the place of this one", self.job);
                Err(DbError::new(ACTION, ErrorKind::Permanent, words))
            }
        }
    }
}

impl RunningJob {
    /// Begins a run, if none goes on.
    pub async fn begin(database: &Database, request: RunRequest<'_>) -> Result<Begun, DbError> {
        const ACTION: &str = "beginning a job";
        const ABANDONED: &str = "UPDATE job_runs SET ended_at = now(), outcome = 'abandoned', detail = 'its process died or stood still' \
             WHERE job = $1 AND ended_at IS NULL";
        const EPOCH: &str = "INSERT INTO jobs (job, epoch) VALUES ($1, 1) ON CONFLICT (job) DO UPDATE SET epoch = jobs.epoch + 1 \
             RETURNING epoch, CASE WHEN paused_at IS NOT NULL THEN paused_why END";
        const BEGIN: &str = "INSERT INTO job_runs (job, due_at, owner, attempt, arguments, run_key, epoch, backend) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, pg_backend_pid()) ON CONFLICT DO NOTHING RETURNING id";
        let client = deadpool_postgres::Object::take(database.get().await?);
        client.batch_execute("SET statement_timeout = 0").await.during(ACTION)?;
        // One without an end goes on, or its process died: who gets the lock will know.
        if let Some(run) = known(&*client, &request).await?.filter(|run| run.ended_at.is_some()) {
            return Ok(Begun::Known(Box::new(run)));
        }
        if let Some(busy) = lock(&*client, request.job).await? {
            return Ok(Begun::Busy(Box::new(busy)));
        }
        if request.due_at.is_some() {
            let paused = "SELECT paused_why FROM jobs WHERE job = $1 AND paused_at IS NOT NULL";
            if let Some(row) = client.query_opt(paused, &[&request.job]).await.during(ACTION)? {
                return Ok(Begun::Paused(row.try_get(0).during(ACTION)?));
            }
        }
        // A run that has no end, and not the lock, is no more.
        client.execute(ABANDONED, &[&request.job]).await.during(ACTION)?;
        if let Some(run) = known(&*client, &request).await? {
            return Ok(Begun::Known(Box::new(run)));
        }
        let epoch: i64 = client.query_one(EPOCH, &[&request.job]).await.during(ACTION)?.try_get(0).during(ACTION)?;
        let RunRequest { job, due_at, attempt, owner, arguments, run_key } = request;
        let begun = client
            .query_opt(BEGIN, &[&job, &due_at, &owner, &attempt, arguments, &run_key, &epoch])
            .await
            .during(ACTION)?;
        let Some(row) = begun else {
            // Another process was quicker, and is through.
            let run = known(&*client, &RunRequest { job, due_at, attempt, owner, arguments, run_key }).await?;
            let words = "another process begins it at this moment; try again";
            let missing = || DbError::new(ACTION, ErrorKind::Permanent, words);
            return Ok(Begun::Known(Box::new(run.ok_or_else(missing)?)));
        };
        let fence = JobFence { job: job.into(), epoch };
        Ok(Begun::Running(Self { id: row.try_get(0).during(ACTION)?, client, fence }))
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Its right to act.
    #[must_use]
    pub fn fence(&self) -> &JobFence {
        &self.fence
    }

    /// Says how far it is, and hears whether it may go on. To be called every second or so.
    pub async fn beat(&self, progress: &Progress) -> Beat {
        const SQL: &str = "UPDATE job_runs r SET seen_at = now(), done = $2, total = $3, unit = $4, rows = $5, bytes = $6, log_tail = $7 \
             WHERE id = $1 AND ended_at IS NULL AND epoch = (SELECT epoch FROM jobs j WHERE j.job = r.job) \
             RETURNING cancel_asked_at IS NOT NULL";
        let Standing { done, total, unit, rows, bytes } = progress.standing();
        let tail = progress.tail();
        match self.client.query_opt(SQL, &[&self.id, &done, &total, &unit, &rows, &bytes, &tail]).await {
            Ok(Some(row)) if row.try_get(0).unwrap_or(false) => Beat::Cancel,
            Ok(Some(_)) => Beat::GoOn,
            Ok(None) => Beat::Lost,
            Err(error) => {
                tracing::warn!(%error, "the session of a job's run is gone");
                Beat::Lost
            }
        }
    }

    /// Ends the run, and the lock with its session.
    pub async fn end(self, outcome: Outcome, detail: &str, progress: &Progress) -> Result<(), DbError> {
        const SQL: &str =
            "UPDATE job_runs SET ended_at = now(), outcome = $2, detail = $3 WHERE id = $1 AND ended_at IS NULL";
        const ACTION: &str = "ending a job";
        let beat = self.beat(progress).await;
        let detail = detail.replace('\0', "\\0");
        let ended = self.client.execute(SQL, &[&self.id, &outcome.as_str(), &detail]).await.during(ACTION)?;
        if ended == 0 || beat == Beat::Lost {
            let words = "another run has taken its place meanwhile; its own says how that went";
            return Err(DbError::new(ACTION, ErrorKind::Permanent, words));
        }
        Ok(())
    }
}

/// The run that a request was before.
async fn known(client: &impl GenericClient, request: &RunRequest<'_>) -> Result<Option<JobRun>, DbError> {
    const SQL: &str =
        "SELECT * FROM job_runs WHERE run_key = $1 OR (job = $2 AND due_at = $3 AND attempt = $4) ORDER BY id LIMIT 1";
    let RunRequest { job, due_at, attempt, run_key, .. } = request;
    let row = client.query_opt(SQL, &[run_key, job, due_at, attempt]).await.during("looking for a run of a job")?;
    row.as_ref().map(job_runs::run).transpose()
}

/// Takes the job's lock for this session; gives the run that has it otherwise. A session that has not been heard of is ended.
async fn lock(client: &impl GenericClient, job: &str) -> Result<Option<JobRun>, DbError> {
    const ACTION: &str = "beginning a job";
    const LOCK: &str = "SELECT pg_try_advisory_lock($1, hashtext($2))";
    const HOLDER: &str = "SELECT * FROM job_runs WHERE job = $1 AND ended_at IS NULL ORDER BY id DESC LIMIT 1";
    const END: &str = "SELECT pg_terminate_backend(backend) FROM job_runs r \
         WHERE id = $1 AND seen_at < now() - make_interval(secs => $2) AND EXISTS (SELECT FROM pg_locks l WHERE l.pid = r.backend \
           AND locktype = 'advisory' AND classid = $3::int::oid AND granted)";
    for attempt in 0..TRIES {
        if client.query_one(LOCK, &[&LOCK_GROUP, &job]).await.during(ACTION)?.try_get(0).during(ACTION)? {
            return Ok(None);
        }
        let holder = client.query_opt(HOLDER, &[&job]).await.during(ACTION)?;
        let holder = holder.as_ref().map(job_runs::run).transpose()?;
        let stale = STALE_AFTER.as_secs_f64();
        let ended = match &holder {
            Some(run) => client.query_opt(END, &[&run.id, &stale, &LOCK_GROUP]).await.during(ACTION)?.is_some(),
            // Between its lock and its row, or between its end and its session's.
            None => true,
        };
        if let Some(run) = holder.filter(|_| !ended && attempt == 0 || attempt == TRIES - 1) {
            return Ok(Some(run));
        }
        tokio::time::sleep(TRY_AFTER).await;
    }
    Err(DbError::new(
        ACTION,
        ErrorKind::Permanent,
        "its lock is held by a session that has no run; `weir jobs history` shows the last ones",
    ))
}
