//! Runs of jobs, one row each, for people, metrics and other schedulers; and what is said to them from outside.

use jiff::Timestamp as JiffTimestamp;
use serde_json::Value;
use tokio_postgres::{GenericClient, Row};

use crate::error::{DbError, During};

const READING: &str = "reading the runs of jobs";

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Ok,
    /// It found a difference.
    Different,
    /// It could not be done.
    Failed,
    /// It was told to stop, and can be gone on with.
    Stopped,
    /// It was cancelled.
    Cancelled,
}

impl Outcome {
    /// As stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Different => "different",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Every way in which a run can have ended, as stored; of an abandoned one no process was left to tell.
pub const OUTCOMES: [&str; 6] = ["ok", "different", "failed", "abandoned", "stopped", "cancelled"];

/// A run, for people.
#[derive(Debug, Clone)]
pub struct JobRun {
    /// Its number.
    pub id: i64,
    /// Which job.
    pub job: String,
    /// The moment of the schedule; `None` when someone asked for it.
    pub due_at: Option<JiffTimestamp>,
    /// From 1; of those for one moment of the schedule.
    pub attempt: i32,
    /// The process.
    pub owner: String,
    /// What it was asked to do.
    pub arguments: Value,
    /// What it was asked for by, where a key was given.
    pub run_key: Option<String>,
    /// When it began.
    pub started_at: JiffTimestamp,
    /// When its process last said that it goes on.
    pub seen_at: JiffTimestamp,
    /// When it ended.
    pub ended_at: Option<JiffTimestamp>,
    /// One of [`OUTCOMES`]; `None` while it runs.
    pub outcome: Option<String>,
    /// What there is to say.
    pub detail: String,
    /// How much is done.
    pub done: i64,
    /// Of how much, where that is known.
    pub total: Option<i64>,
    /// What `done` and `total` count.
    pub unit: String,
    /// Rows written.
    pub rows: i64,
    /// Bytes written.
    pub bytes: i64,
    /// The last lines of its log.
    pub log_tail: String,
}

pub(crate) fn run(row: &Row) -> Result<JobRun, DbError> {
    Ok(JobRun {
        id: row.try_get("id").during(READING)?,
        job: row.try_get("job").during(READING)?,
        due_at: row.try_get("due_at").during(READING)?,
        attempt: row.try_get("attempt").during(READING)?,
        owner: row.try_get("owner").during(READING)?,
        arguments: row.try_get("arguments").during(READING)?,
        run_key: row.try_get("run_key").during(READING)?,
        started_at: row.try_get("started_at").during(READING)?,
        seen_at: row.try_get("seen_at").during(READING)?,
        ended_at: row.try_get("ended_at").during(READING)?,
        outcome: row.try_get("outcome").during(READING)?,
        detail: row.try_get("detail").during(READING)?,
        done: row.try_get("done").during(READING)?,
        total: row.try_get("total").during(READING)?,
        unit: row.try_get("unit").during(READING)?,
        rows: row.try_get("rows").during(READING)?,
        bytes: row.try_get("bytes").during(READING)?,
        log_tail: row.try_get("log_tail").during(READING)?,
    })
}

/// One run.
pub async fn find(client: &impl GenericClient, id: i64) -> Result<Option<JobRun>, DbError> {
    let row = client.query_opt("SELECT * FROM job_runs WHERE id = $1", &[&id]).await.during(READING)?;
    row.as_ref().map(run).transpose()
}

/// Runs, newest first, of one job or of all.
pub async fn history(client: &impl GenericClient, job: Option<&str>, limit: i64) -> Result<Vec<JobRun>, DbError> {
    const SQL: &str = "SELECT * FROM job_runs WHERE job = coalesce($1, job) ORDER BY id DESC LIMIT $2";
    let rows = client.query(SQL, &[&job, &limit]).await.during(READING)?;
    rows.iter().map(run).collect()
}

/// The last run of each job that has ended.
pub async fn last(client: &impl GenericClient) -> Result<Vec<JobRun>, DbError> {
    const SQL: &str = "SELECT DISTINCT ON (job) * FROM job_runs WHERE ended_at IS NOT NULL ORDER BY job, id DESC";
    let rows = client.query(SQL, &[]).await.during(READING)?;
    rows.iter().map(run).collect()
}

/// The runs that go on.
pub async fn running(client: &impl GenericClient) -> Result<Vec<JobRun>, DbError> {
    let rows = client.query("SELECT * FROM job_runs WHERE ended_at IS NULL ORDER BY id", &[]).await.during(READING)?;
    rows.iter().map(run).collect()
}

/// When each job last ended well.
pub async fn last_ok(client: &impl GenericClient) -> Result<Vec<(String, JiffTimestamp)>, DbError> {
    const SQL: &str = "SELECT job, max(ended_at) FROM job_runs WHERE outcome = 'ok' GROUP BY job ORDER BY job";
    let rows = client.query(SQL, &[]).await.during(READING)?;
    rows.iter().map(|row| Ok((row.try_get(0).during(READING)?, row.try_get(1).during(READING)?))).collect()
}

/// Asks a run to end; `false` when it does not run.
pub async fn cancel(client: &impl GenericClient, id: i64) -> Result<bool, DbError> {
    const SQL: &str =
        "UPDATE job_runs SET cancel_asked_at = coalesce(cancel_asked_at, now()) WHERE id = $1 AND ended_at IS NULL";
    Ok(client.execute(SQL, &[&id]).await.during("cancelling a run of a job")? > 0)
}

/// Has the schedule leave a job out, for a reason.
pub async fn pause(client: &impl GenericClient, job: &str, why: &str) -> Result<(), DbError> {
    const SQL: &str = "INSERT INTO jobs (job, paused_at, paused_why) VALUES ($1, now(), $2) \
         ON CONFLICT (job) DO UPDATE SET paused_at = coalesce(jobs.paused_at, now()), paused_why = excluded.paused_why";
    client.execute(SQL, &[&job, &why]).await.during("pausing a job")?;
    Ok(())
}

/// Has the schedule run a job again; `false` when it was not paused.
pub async fn unpause(client: &impl GenericClient, job: &str) -> Result<bool, DbError> {
    const SQL: &str = "UPDATE jobs SET paused_at = NULL, paused_why = '' WHERE job = $1 AND paused_at IS NOT NULL";
    Ok(client.execute(SQL, &[&job]).await.during("resuming a job")? > 0)
}

/// The jobs that are paused, since when and why.
pub async fn paused(client: &impl GenericClient) -> Result<Vec<(String, JiffTimestamp, String)>, DbError> {
    const SQL: &str = "SELECT job, paused_at, paused_why FROM jobs WHERE paused_at IS NOT NULL ORDER BY job";
    let rows = client.query(SQL, &[]).await.during(READING)?;
    let read = |row: &Row| {
        Ok((row.try_get(0).during(READING)?, row.try_get(1).during(READING)?, row.try_get(2).during(READING)?))
    };
    rows.iter().map(read).collect()
}

/// Up to where the schedule of a job was seen to; where it never was, up to `now` from here on.
pub async fn scheduled_to(
    client: &impl GenericClient,
    job: &str,
    now: JiffTimestamp,
) -> Result<JiffTimestamp, DbError> {
    const SQL: &str = "INSERT INTO jobs (job, scheduled_to) VALUES ($1, $2) \
         ON CONFLICT (job) DO UPDATE SET scheduled_to = coalesce(jobs.scheduled_to, excluded.scheduled_to) RETURNING scheduled_to";
    client.query_one(SQL, &[&job, &now]).await.during(READING)?.try_get(0).during(READING)
}

/// A moment of the schedule was seen to. It never goes back, and never beyond the database's own time, whatever a clock does.
pub async fn see_to(client: &impl GenericClient, job: &str, moment: JiffTimestamp) -> Result<(), DbError> {
    const SQL: &str = "UPDATE jobs SET scheduled_to = greatest(scheduled_to, least($2, now())) WHERE job = $1";
    client.execute(SQL, &[&job, &moment]).await.during("noting a moment of the schedule")?;
    Ok(())
}

/// The slices of a plan that are done, with their rows.
pub async fn slices_done(client: &impl GenericClient, plan: &str) -> Result<Vec<(String, i64)>, DbError> {
    let rows = client.query("SELECT slice, rows FROM job_slices WHERE plan = $1", &[&plan]).await.during(READING)?;
    rows.iter().map(|row| Ok((row.try_get(0).during(READING)?, row.try_get(1).during(READING)?))).collect()
}

/// A slice of a plan is done.
pub async fn slice_done(
    client: &impl GenericClient,
    plan: &str,
    slice: &str,
    rows: i64,
    bytes: i64,
) -> Result<(), DbError> {
    const SQL: &str =
        "INSERT INTO job_slices (plan, slice, rows, bytes) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
    client.execute(SQL, &[&plan, &slice, &rows, &bytes]).await.during("noting a slice of a job")?;
    Ok(())
}

/// A plan that is through: the same command begins again.
pub async fn forget_slices(client: &impl GenericClient, plan: &str) -> Result<(), DbError> {
    client.execute("DELETE FROM job_slices WHERE plan = $1", &[&plan]).await.during("ending a plan of a job")?;
    Ok(())
}

/// Drops what is older than so many days; gives how many runs.
pub async fn clean_up(client: &impl GenericClient, days: i32) -> Result<u64, DbError> {
    const RUNS: &str = "DELETE FROM job_runs WHERE ended_at < now() - make_interval(days => $1)";
    const SLICES: &str = "DELETE FROM job_slices WHERE done_at < now() - make_interval(days => $1)";
    client.execute(SLICES, &[&days]).await.during("dropping old slices of jobs")?;
    client.execute(RUNS, &[&days]).await.during("dropping old runs of jobs")
}
