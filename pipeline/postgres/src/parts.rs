//! What each process does, told by itself in the database, where all others can see it: a row for each of its lanes, and one for its
//! publisher, with a sign of life. A process that hangs tells nothing, and that is seen too.

use std::time::Duration;

use jiff::Timestamp as JiffTimestamp;
use serde::Serialize;
use tokio_postgres::types::ToSql;
use tokio_postgres::{GenericClient, Row};
use weir_engine::{LaneStatus, StatusBoard};

use crate::error::{DbError, During};

const ACTION: &str = "telling what this process does";

/// How often a process tells.
pub const TOLD_EVERY: Duration = Duration::from_secs(2);

/// A process that has said nothing for so long hangs, or is gone.
pub const SILENT_AFTER: Duration = Duration::from_secs(15);

/// Rows of silent processes are kept for so long, for people.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// A process, as it tells of itself.
#[derive(Debug, Clone)]
pub struct Process {
    /// The owner, as in the ledger.
    pub id: String,
    /// What was started: `up`, `run`, `publish`.
    pub command: &'static str,
    /// The machine's name.
    pub host: String,
    /// Its process id on that machine.
    pub pid: i32,
    /// The version of weir.
    pub build: String,
    /// The URL that its health and metrics are served at.
    pub address: String,
}

/// A part of a process as it was last told.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// The owner, as in the ledger.
    pub process: String,
    /// A lane, or `publisher`.
    pub part: String,
    /// What was started.
    pub command: String,
    /// The machine's name.
    pub host: String,
    /// Its process id on that machine.
    pub pid: i32,
    /// The version of weir.
    pub build: String,
    /// The URL that its health and metrics are served at.
    pub address: String,
    /// See [`weir_engine::LanePhase::as_str`].
    pub phase: String,
    /// What it waits for, or stopped at.
    pub trouble: Option<String>,
    /// Since when it has been in this phase.
    pub since: String,
    /// Partitions that it reads.
    pub partitions: i32,
    /// Seconds since it last told.
    pub silent_seconds: f64,
}

impl Part {
    /// Whether the process tells nothing any more.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.silent_seconds > SILENT_AFTER.as_secs_f64()
    }

    fn from_row(row: &Row) -> Result<Self, DbError> {
        let since: JiffTimestamp = row.try_get("since").during(ACTION)?;
        Ok(Self {
            process: row.try_get("process").during(ACTION)?,
            part: row.try_get("part").during(ACTION)?,
            command: row.try_get("command").during(ACTION)?,
            host: row.try_get("host").during(ACTION)?,
            pid: row.try_get("pid").during(ACTION)?,
            build: row.try_get("build").during(ACTION)?,
            address: row.try_get("address").during(ACTION)?,
            phase: row.try_get("phase").during(ACTION)?,
            trouble: row.try_get("trouble").during(ACTION)?,
            since: since.to_string(),
            partitions: row.try_get("partitions").during(ACTION)?,
            silent_seconds: row.try_get("silent_seconds").during(ACTION)?,
        })
    }
}

/// Tells what the parts of this process do. A part that works replaces what earlier processes said of theirs when they stopped.
pub async fn tell(client: &impl GenericClient, process: &Process, board: &StatusBoard) -> Result<(), DbError> {
    const TELL: &str = "INSERT INTO parts AS p (process, part, command, host, pid, build, address, phase, trouble, since, partitions) \
         SELECT $1, part, $2, $3, $4, $5, $6, phase, trouble, now() - make_interval(secs => age), partitions \
         FROM unnest($7::text[], $8::text[], $9::text[], $10::float8[], $11::int[]) AS t(part, phase, trouble, age, partitions) \
         ON CONFLICT (process, part) DO UPDATE SET phase = excluded.phase, trouble = excluded.trouble, since = excluded.since, \
           partitions = excluded.partitions, address = excluded.address, heartbeat = now()";
    const FORGET: &str = "DELETE FROM parts WHERE heartbeat < now() - make_interval(secs => $1) \
         OR (phase = 'stopped' AND process <> $2 AND part = ANY($3) AND heartbeat < now() - make_interval(secs => $4))";
    let parts: Vec<(String, LaneStatus)> = board.read().into_iter().collect();
    let column = |of: fn(&(String, LaneStatus)) -> String| parts.iter().map(of).collect::<Vec<_>>();
    let (names, phases) = (column(|p| p.0.clone()), column(|p| p.1.phase.as_str().to_owned()));
    let troubles: Vec<Option<String>> =
        parts.iter().map(|p| p.1.trouble.as_ref().map(|t| t.replace('\0', "\\0"))).collect();
    let ages: Vec<f64> = parts.iter().map(|p| p.1.since.elapsed().as_secs_f64()).collect();
    let partitions: Vec<i32> = parts.iter().map(|p| i32::try_from(p.1.partitions).unwrap_or(i32::MAX)).collect();
    let values: [&(dyn ToSql + Sync); 11] = [
        &process.id,
        &process.command,
        &process.host,
        &process.pid,
        &process.build,
        &process.address,
        &names,
        &phases,
        &troubles,
        &ages,
        &partitions,
    ];
    client.execute(TELL, &values).await.during(ACTION)?;
    let works = |p: &&(String, LaneStatus)| p.1.phase == weir_engine::LanePhase::Running;
    let working: Vec<&str> = parts.iter().filter(works).map(|p| p.0.as_str()).collect();
    let silent = SILENT_AFTER.as_secs_f64();
    client.execute(FORGET, &[&KEPT.as_secs_f64(), &process.id, &working, &silent]).await.during(ACTION)?;
    Ok(())
}

/// A process that was stopped takes its rows with it, but those of parts that trouble had stopped before.
pub async fn leave(client: &impl GenericClient, process: &Process) -> Result<(), DbError> {
    const SQL: &str = "DELETE FROM parts WHERE process = $1 AND NOT (phase = 'stopped' AND trouble IS NOT NULL)";
    client.execute(SQL, &[&process.id]).await.during(ACTION)?;
    Ok(())
}

/// Everything that was told, by part.
pub async fn list(client: &impl GenericClient) -> Result<Vec<Part>, DbError> {
    const SQL: &str = "SELECT *, extract(epoch FROM now() - heartbeat)::float8 AS silent_seconds FROM parts \
         ORDER BY part, started_at, process";
    let rows = client.query(SQL, &[]).await.during("reading what processes tell")?;
    rows.iter().map(Part::from_row).collect()
}

/// Removes what a process told that ended without a word.
pub async fn forget(client: &impl GenericClient, process: &str) -> Result<(), DbError> {
    client.execute("DELETE FROM parts WHERE process = $1", &[&process]).await.during(ACTION)?;
    Ok(())
}

async fn counts(client: &impl GenericClient, parts: &[String], condition: &str) -> Result<Vec<(String, i64)>, DbError> {
    let sql = format!(
        "SELECT w.part, count(p.part) FROM unnest($1::text[]) AS w(part) LEFT JOIN parts p ON p.part = w.part AND {condition} \
         GROUP BY 1 ORDER BY 1"
    );
    let rows = client.query(&sql, &[&parts, &SILENT_AFTER.as_secs_f64()]).await.during("counting processes")?;
    rows.iter().map(|row| Ok((row.try_get(0).during(ACTION)?, row.try_get(1).during(ACTION)?))).collect()
}

/// Of each part: processes that say that they do its work.
pub async fn live(client: &impl GenericClient, parts: &[String]) -> Result<Vec<(String, i64)>, DbError> {
    let condition = "p.heartbeat >= now() - make_interval(secs => $2) AND p.phase <> 'stopped'";
    counts(client, parts, condition).await
}

/// Of each part: processes that say nothing any more, and did not stop.
pub async fn silent(client: &impl GenericClient, parts: &[String]) -> Result<Vec<(String, i64)>, DbError> {
    counts(client, parts, "p.heartbeat < now() - make_interval(secs => $2) AND p.phase <> 'stopped'").await
}
