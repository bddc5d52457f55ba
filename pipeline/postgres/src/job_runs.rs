//! Runs of scheduled jobs: one row each, and one process at a time for each job.

use jiff::Timestamp as JiffTimestamp;
use tokio_postgres::{GenericClient, Row};

use crate::database::Database;
use crate::error::{DbError, During};

/// Group of the advisory locks that running jobs hold.
const LOCK_GROUP: i32 = 8627;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Ok,
    /// It found a difference.
    Different,
    /// It could not be done.
    Failed,
}

impl Outcome {
    /// As stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Different => "different",
            Self::Failed => "failed",
        }
    }
}

/// Every way in which a run can have ended, as stored; of the last no process was left to tell.
pub const OUTCOMES: [&str; 4] = ["ok", "different", "failed", "abandoned"];

/// A run, for people.
#[derive(Debug, Clone)]
pub struct JobRun {
    /// Its number.
    pub id: i64,
    /// Which job.
    pub job: String,
    /// The moment of the schedule; `None` when someone asked for it.
    pub due_at: Option<JiffTimestamp>,
    /// The process.
    pub owner: String,
    /// When it began.
    pub started_at: JiffTimestamp,
    /// When it ended.
    pub ended_at: Option<JiffTimestamp>,
    /// ok, different, failed or abandoned; `None` while it runs.
    pub outcome: Option<String>,
    /// What there is to say.
    pub detail: String,
}

/// A run under way. It holds the job's lock through a connection of its own, so a process that dies holds it no longer.
pub struct RunningJob {
    client: deadpool_postgres::ClientWrapper,
    id: i64,
}

impl RunningJob {
    /// Begins a run; `None` when another process runs the job, or has run it for this moment of the schedule.
    pub async fn begin(
        database: &Database,
        job: &str,
        due_at: Option<JiffTimestamp>,
        owner: &str,
    ) -> Result<Option<Self>, DbError> {
        const ACTION: &str = "beginning a job";
        const ABANDONED: &str = "UPDATE job_runs SET ended_at = now(), outcome = 'abandoned', detail = 'its process died' \
             WHERE job = $1 AND ended_at IS NULL";
        const BEGIN: &str = "INSERT INTO job_runs (job, due_at, owner) VALUES ($1, $2, $3) \
             ON CONFLICT (job, due_at) DO NOTHING RETURNING id";
        let client = deadpool_postgres::Object::take(database.get().await?);
        client.batch_execute("SET statement_timeout = 0").await.during(ACTION)?;
        let lock = "SELECT pg_try_advisory_lock($1, hashtext($2))";
        let row = client.query_one(lock, &[&LOCK_GROUP, &job]).await.during(ACTION)?;
        if !row.try_get::<_, bool>(0).during(ACTION)? {
            return Ok(None);
        }
        // A run that has no end, and not the lock, has died.
        client.execute(ABANDONED, &[&job]).await.during(ACTION)?;
        let begun = client.query_opt(BEGIN, &[&job, &due_at, &owner]).await.during(ACTION)?;
        match begun {
            Some(row) => Ok(Some(Self { id: row.try_get(0).during(ACTION)?, client })),
            None => Ok(None),
        }
    }

    /// Ends the run, and the lock with its connection.
    pub async fn end(self, outcome: Outcome, detail: &str) -> Result<(), DbError> {
        const SQL: &str = "UPDATE job_runs SET ended_at = now(), outcome = $2, detail = $3 WHERE id = $1";
        let detail = detail.replace('\0', "\\0");
        self.client.execute(SQL, &[&self.id, &outcome.as_str(), &detail]).await.during("ending a job")?;
        Ok(())
    }
}

fn run(row: &Row) -> Result<JobRun, DbError> {
    const ACTION: &str = "reading the runs of jobs";
    Ok(JobRun {
        id: row.try_get("id").during(ACTION)?,
        job: row.try_get("job").during(ACTION)?,
        due_at: row.try_get("due_at").during(ACTION)?,
        owner: row.try_get("owner").during(ACTION)?,
        started_at: row.try_get("started_at").during(ACTION)?,
        ended_at: row.try_get("ended_at").during(ACTION)?,
        outcome: row.try_get("outcome").during(ACTION)?,
        detail: row.try_get("detail").during(ACTION)?,
    })
}

/// Runs, newest first, of one job or of all.
pub async fn history(client: &impl GenericClient, job: Option<&str>, limit: i64) -> Result<Vec<JobRun>, DbError> {
    const SQL: &str = "SELECT * FROM job_runs WHERE job = coalesce($1, job) ORDER BY id DESC LIMIT $2";
    let rows = client.query(SQL, &[&job, &limit]).await.during("reading the runs of jobs")?;
    rows.iter().map(run).collect()
}

/// The last run of each job that has ended.
pub async fn last(client: &impl GenericClient) -> Result<Vec<JobRun>, DbError> {
    const SQL: &str = "SELECT DISTINCT ON (job) * FROM job_runs WHERE ended_at IS NOT NULL ORDER BY job, id DESC";
    let rows = client.query(SQL, &[]).await.during("reading the runs of jobs")?;
    rows.iter().map(run).collect()
}

/// When each job last ended well.
pub async fn last_ok(client: &impl GenericClient) -> Result<Vec<(String, JiffTimestamp)>, DbError> {
    const ACTION: &str = "reading the runs of jobs";
    const SQL: &str = "SELECT job, max(ended_at) FROM job_runs WHERE outcome = 'ok' GROUP BY job ORDER BY job";
    let rows = client.query(SQL, &[]).await.during(ACTION)?;
    rows.iter().map(|row| Ok((row.try_get(0).during(ACTION)?, row.try_get(1).during(ACTION)?))).collect()
}
