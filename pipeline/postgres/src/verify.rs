//! What `weir verify` reads from Postgres: everything from one snapshot, row by row, so that lanes may run meanwhile and
//! memory stays bounded.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;

use deadpool_postgres::ClientWrapper;
use futures::TryStreamExt;
use tokio_postgres::Row;
use weir_engine::{Partition, Record};
use weir_model::canonical::SetHash;
use weir_model::project::{AssessmentRow, Progress, SessionRow};

use crate::database::Database;
use crate::dead_letters;
use crate::error::{DbError, During, ErrorKind};
use crate::ledger::{Ledger, LedgerRow};
use crate::metric_totals::MetricTotals;
use crate::read_models::{USER_COLUMNS, some_time, time, user_row};
use crate::repeats;

const ACTION: &str = "reading a sink for verification";

/// The read models, as `weir verify` names them.
pub const TABLES: [&str; 4] =
    ["user_read_model", "learning_session_read_model", "assessment_read_model", "learner_progress_read_model"];

/// A REPEATABLE READ snapshot: the ledger, the dead letters and every table at one cut.
pub struct SinkSnapshot {
    client: ClientWrapper,
}

impl SinkSnapshot {
    /// Takes the snapshot. The connection is its own and closes with it.
    pub async fn open(database: &Database) -> Result<Self, DbError> {
        let client = deadpool_postgres::Object::take(database.get().await?);
        client
            .batch_execute(
                "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
                 BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT 1 FROM event_store",
            )
            .await
            .during(ACTION)?;
        Ok(Self { client })
    }

    /// The ledger at the cut.
    pub async fn ledger(&self) -> Result<Vec<LedgerRow>, DbError> {
        Ledger::rows(&*self.client).await
    }

    /// Offsets that are a lane's dead letters, by partition.
    pub async fn dead_offsets(&self, lane: &str) -> Result<HashMap<Partition, HashMap<i64, bool>>, DbError> {
        dead_letters::offsets(&*self.client, lane).await
    }

    /// What a lane left out because it came before, by partition: offsets and event ids.
    pub async fn left_out(&self, lane: &str) -> Result<HashMap<Partition, HashMap<i64, String>>, DbError> {
        repeats::left_out(&*self.client, lane).await
    }

    /// The metrics at the cut.
    pub async fn metrics(&self) -> Result<MetricTotals, DbError> {
        MetricTotals::read(&*self.client).await
    }

    /// Count and hash of each read model.
    pub async fn read_models(&self) -> Result<BTreeMap<&'static str, SetHash>, DbError> {
        let [users, sessions, assessments, progress] = TABLES;
        let mut hashes = BTreeMap::new();
        let sql = format!("SELECT {USER_COLUMNS} FROM user_read_model");
        hashes.insert(users, self.hash(&sql, |row| Ok(user_row(row)?.canonical())).await?);
        hashes.insert(sessions, self.hash(SESSIONS, |row| Ok(session_row(row)?.canonical())).await?);
        hashes.insert(assessments, self.hash(ASSESSMENTS, |row| Ok(assessment_row(row)?.canonical())).await?);
        let mut hash = self.hash(PROGRESS, progress_text).await?;
        hash.merge(self.hash(PATHS_OF_NOBODY, |row| row.try_get(0).during(ACTION)).await?);
        hashes.insert(progress, hash);
        Ok(hashes)
    }

    async fn hash(&self, sql: &str, text: impl Fn(&Row) -> Result<String, DbError>) -> Result<SetHash, DbError> {
        let mut hash = SetHash::default();
        let mut rows = pin!(self.client.query_raw(sql, std::iter::empty::<&str>()).await.during(ACTION)?);
        while let Some(row) = rows.try_next().await.during(ACTION)? {
            hash.add(&[text(&row)?.as_bytes()]);
        }
        Ok(hash)
    }
}

const SESSIONS: &str = "SELECT tenant, id, user_id, learning_path_id, module_id, device_info, started_at, version \
     FROM learning_session_read_model";

fn session_row(row: &Row) -> Result<SessionRow, DbError> {
    Ok(SessionRow {
        tenant: row.try_get("tenant").during(ACTION)?,
        id: row.try_get("id").during(ACTION)?,
        user_id: row.try_get("user_id").during(ACTION)?,
        learning_path_id: row.try_get("learning_path_id").during(ACTION)?,
        module_id: row.try_get("module_id").during(ACTION)?,
        device_info: row.try_get("device_info").during(ACTION)?,
        started_at: some_time(row, "started_at")?,
        version: row.try_get("version").during(ACTION)?,
    })
}

// A value finer than a millionth cannot have come from the lane: it makes the text, and so the hash, differ.
const ASSESSMENTS: &str = "SELECT tenant, id, user_id, session_id, score, max_score, passed, analytics, completed_at, \
     version, trim_scale(score_percent * 1000000)::text AS score_percent_micros, \
     trim_scale(time_spent_seconds * 1000000)::text AS time_spent_micros FROM assessment_read_model";

fn whole<T: std::str::FromStr>(row: &Row, column: &str) -> Result<T, DbError> {
    let text: &str = row.try_get(column).during(ACTION)?;
    text.parse().map_err(|_| {
        DbError::new(ACTION, ErrorKind::Data, format!("{column} is {text}, no whole number of millionths"))
    })
}

fn assessment_row(row: &Row) -> Result<AssessmentRow, DbError> {
    Ok(AssessmentRow {
        tenant: row.try_get("tenant").during(ACTION)?,
        id: row.try_get("id").during(ACTION)?,
        user_id: row.try_get("user_id").during(ACTION)?,
        session_id: row.try_get("session_id").during(ACTION)?,
        score: row.try_get("score").during(ACTION)?,
        max_score: row.try_get("max_score").during(ACTION)?,
        score_percent_micros: whole(row, "score_percent_micros").unwrap_or(-1),
        passed: row.try_get("passed").during(ACTION)?,
        time_spent_micros: whole(row, "time_spent_micros").unwrap_or(-1),
        analytics: row.try_get("analytics").during(ACTION)?,
        completed_at: some_time(row, "completed_at")?,
        version: row.try_get("version").during(ACTION)?,
    })
}

const PROGRESS: &str = "SELECT p.*, trim_scale(score_percent_sum * 1000000)::text AS score_micros, \
     trim_scale(time_spent_seconds * 1000000)::text AS spent_micros, \
     coalesce(l.paths, '{}') AS paths FROM learner_progress_read_model p \
     LEFT JOIN (SELECT tenant, user_id, array_agg(learning_path_id) AS paths FROM learner_learning_paths GROUP BY 1, 2) l \
     USING (tenant, user_id)";

/// Paths without a row of progress: nothing expects them, so each is a difference.
const PATHS_OF_NOBODY: &str = "SELECT concat_ws(' ', 'a path of nobody', tenant, user_id, learning_path_id) \
     FROM learner_learning_paths l WHERE NOT EXISTS \
     (SELECT FROM learner_progress_read_model p WHERE p.tenant = l.tenant AND p.user_id = l.user_id)";

fn progress_text(row: &Row) -> Result<String, DbError> {
    let (tenant, user): (&str, &str) = (row.try_get("tenant").during(ACTION)?, row.try_get("user_id").during(ACTION)?);
    let paths: Vec<String> = row.try_get("paths").during(ACTION)?;
    let counted: i64 = row.try_get("learning_paths").during(ACTION)?;
    let progress = Progress {
        sessions: row.try_get("sessions").during(ACTION)?,
        learning_paths: paths.into_iter().collect(),
        assessments_taken: row.try_get("assessments_taken").during(ACTION)?,
        assessments_passed: row.try_get("assessments_passed").during(ACTION)?,
        score_percent_micros_sum: whole(row, "score_micros").unwrap_or(-1),
        time_spent_micros: whole(row, "spent_micros").unwrap_or(-1),
        last_activity: time(row, "last_activity")?,
    };
    let text = progress.canonical(tenant, user);
    // The count beside the set must be the set's.
    match i64::try_from(progress.learning_paths.len()) == Ok(counted) {
        true => Ok(text),
        false => Ok(format!("{text} but learning_paths = {counted}")),
    }
}

/// A page of the event store as records, from an offset on: the reference of every comparison.
pub async fn reference_page(
    database: &Database,
    partition: &Partition,
    from: i64,
    limit: i64,
) -> Result<Vec<Record>, DbError> {
    crate::source::records_from(database, partition, from, limit).await
}
