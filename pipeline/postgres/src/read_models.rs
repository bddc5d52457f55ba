//! The read models as rows: pure projections from `weir_model::project`, written in one statement per table and batch.

use std::collections::BTreeMap;

use async_trait::async_trait;
use deadpool_postgres::Transaction;
use jiff::Timestamp as JiffTimestamp;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use weir_engine::Located;
use weir_model::Timestamp;
use weir_model::project::{AssessmentRow, Progress, SessionRow, Units, UserRow, UserStatus, progress_of};

use crate::error::{DbError, During, ErrorKind};
use crate::projection::{ApplyError, Projection};

const ACTION: &str = "writing read models";

/// The lane `read-models`.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadModelsProjection {
    /// The units in which producers send durations.
    pub units: Units,
}

#[async_trait]
impl Projection for ReadModelsProjection {
    fn ordered(&self) -> bool {
        true
    }

    async fn apply(&self, transaction: &Transaction<'_>, events: &[&Located]) -> Result<(), ApplyError> {
        apply_users(transaction, events).await?;
        // One row per key and statement; the last event of a key wins, as it would one by one.
        let sessions =
            by_key(events.iter().filter_map(|l| SessionRow::of(&l.event)), |r| (r.tenant.clone(), r.id.clone()));
        write_sessions(transaction, &sessions).await?;
        let assessments = events.iter().filter_map(|l| AssessmentRow::of(&l.event, self.units));
        write_assessments(transaction, &by_key(assessments, |r| (r.tenant.clone(), r.id.clone()))).await?;
        let mut progress: BTreeMap<(String, String), Progress> = BTreeMap::new();
        for (key, part) in events.iter().filter_map(|l| progress_of(&l.event, self.units)) {
            progress.entry(key).or_default().merge(part);
        }
        write_progress(transaction, &progress).await?;
        Ok(())
    }
}

/// Sorted by key, so that two processes lock rows in the same order.
fn by_key<T>(rows: impl Iterator<Item = T>, key: impl Fn(&T) -> (String, String)) -> Vec<T> {
    rows.map(|row| (key(&row), row)).collect::<BTreeMap<_, _>>().into_values().collect()
}

async fn apply_users(transaction: &Transaction<'_>, events: &[&Located]) -> Result<(), DbError> {
    let events: Vec<_> = events.iter().map(|l| &l.event).filter(|e| UserRow::concerns(e)).collect();
    if events.is_empty() {
        return Ok(());
    }
    let (tenants, ids): (Vec<&str>, Vec<&str>) =
        events.iter().map(|e| (e.tenant.as_str(), e.stream.aggregate_id())).unzip();
    let sql = format!(
        "SELECT {USER_COLUMNS} FROM user_read_model WHERE (tenant, id) IN (SELECT * FROM unnest($1::text[], $2::text[]))"
    );
    let statement = transaction.prepare_cached(&sql).await.during(ACTION)?;
    let found = transaction.query(&statement, &[&tenants, &ids]).await.during(ACTION)?;
    let mut rows = BTreeMap::new();
    for row in &found {
        let row = user_row(row)?;
        rows.insert((row.tenant.clone(), row.id.clone()), row);
    }
    for event in events {
        let key = (event.tenant.to_string(), event.stream.aggregate_id().to_owned());
        rows.entry(key).or_insert_with(|| UserRow::new(event)).apply(event);
    }
    let rows: Vec<UserRow> = rows.into_values().collect();
    write_users(transaction, &rows).await
}

fn jiff(at: Option<Timestamp>) -> Option<JiffTimestamp> {
    at.map(Timestamp::to_jiff)
}

/// Millionths as a decimal text, which Postgres reads as NUMERIC without rounding.
fn decimal(micros: i128) -> String {
    let (sign, abs) = (if micros < 0 { "-" } else { "" }, micros.unsigned_abs());
    format!("{sign}{}.{:06}", abs / 1_000_000, abs % 1_000_000)
}

macro_rules! column {
    ($rows:expr, $row:ident => $value:expr) => {
        $rows.iter().map(|$row| $value).collect::<Vec<_>>()
    };
}

async fn execute(transaction: &Transaction<'_>, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<(), DbError> {
    let statement = transaction.prepare_cached(sql).await.during(ACTION)?;
    transaction.execute(&statement, values).await.during(ACTION)?;
    Ok(())
}

async fn write_users(transaction: &Transaction<'_>, rows: &[UserRow]) -> Result<(), DbError> {
    const SQL: &str = "INSERT INTO user_read_model (tenant, id, email, username, first_name, last_name, status, \
           preferences, registration_source, created_at, updated_at, deactivated_at, version) \
         SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], \
           $8::jsonb[], $9::text[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[], $13::bigint[]) \
         ON CONFLICT (tenant, id) DO UPDATE SET email = excluded.email, username = excluded.username, \
           first_name = excluded.first_name, last_name = excluded.last_name, status = excluded.status, \
           preferences = excluded.preferences, registration_source = excluded.registration_source, \
           created_at = excluded.created_at, updated_at = excluded.updated_at, deactivated_at = excluded.deactivated_at, \
           version = excluded.version";
    execute(
        transaction,
        SQL,
        &[
            &column!(rows, r => r.tenant.as_str()),
            &column!(rows, r => r.id.as_str()),
            &column!(rows, r => r.email.as_deref()),
            &column!(rows, r => r.username.as_deref()),
            &column!(rows, r => r.first_name.as_deref()),
            &column!(rows, r => r.last_name.as_deref()),
            &column!(rows, r => r.status.as_str()),
            &column!(rows, r => serde_json::Value::Object(r.preferences.clone())),
            &column!(rows, r => r.registration_source.as_deref()),
            &column!(rows, r => jiff(r.created_at)),
            &column!(rows, r => r.updated_at.to_jiff()),
            &column!(rows, r => jiff(r.deactivated_at)),
            &column!(rows, r => r.version),
        ],
    )
    .await
}

async fn write_sessions(transaction: &Transaction<'_>, rows: &[SessionRow]) -> Result<(), DbError> {
    const SQL: &str = "INSERT INTO learning_session_read_model (tenant, id, user_id, learning_path_id, module_id, \
           device_info, started_at, version) \
         SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::jsonb[], \
           $7::timestamptz[], $8::bigint[]) \
         ON CONFLICT (tenant, id) DO UPDATE SET user_id = excluded.user_id, learning_path_id = excluded.learning_path_id, \
           module_id = excluded.module_id, device_info = excluded.device_info, started_at = excluded.started_at, \
           version = excluded.version";
    if rows.is_empty() {
        return Ok(());
    }
    execute(
        transaction,
        SQL,
        &[
            &column!(rows, r => r.tenant.as_str()),
            &column!(rows, r => r.id.as_str()),
            &column!(rows, r => r.user_id.as_str()),
            &column!(rows, r => r.learning_path_id.as_str()),
            &column!(rows, r => r.module_id.as_str()),
            &column!(rows, r => r.device_info.clone()),
            &column!(rows, r => r.started_at.to_jiff()),
            &column!(rows, r => r.version),
        ],
    )
    .await
}

async fn write_assessments(transaction: &Transaction<'_>, rows: &[AssessmentRow]) -> Result<(), DbError> {
    const SQL: &str = "INSERT INTO assessment_read_model (tenant, id, user_id, session_id, score, max_score, \
           score_percent, passed, time_spent_seconds, analytics, completed_at, version) \
         SELECT t, i, u, s, score, max, percent::numeric, passed, spent::numeric, analytics, at, v \
         FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::float8[], $6::float8[], $7::text[], \
           $8::bool[], $9::text[], $10::jsonb[], $11::timestamptz[], $12::bigint[]) \
           AS x(t, i, u, s, score, max, percent, passed, spent, analytics, at, v) \
         ON CONFLICT (tenant, id) DO UPDATE SET user_id = excluded.user_id, session_id = excluded.session_id, \
           score = excluded.score, max_score = excluded.max_score, score_percent = excluded.score_percent, \
           passed = excluded.passed, time_spent_seconds = excluded.time_spent_seconds, analytics = excluded.analytics, \
           completed_at = excluded.completed_at, version = excluded.version";
    if rows.is_empty() {
        return Ok(());
    }
    execute(
        transaction,
        SQL,
        &[
            &column!(rows, r => r.tenant.as_str()),
            &column!(rows, r => r.id.as_str()),
            &column!(rows, r => r.user_id.as_str()),
            &column!(rows, r => r.session_id.as_deref()),
            &column!(rows, r => r.score),
            &column!(rows, r => r.max_score),
            &column!(rows, r => decimal(r.score_percent_micros.into())),
            &column!(rows, r => r.passed),
            &column!(rows, r => decimal(r.time_spent_micros.into())),
            &column!(rows, r => r.analytics.clone()),
            &column!(rows, r => r.completed_at.to_jiff()),
            &column!(rows, r => r.version),
        ],
    )
    .await
}

async fn write_progress(
    transaction: &Transaction<'_>,
    progress: &BTreeMap<(String, String), Progress>,
) -> Result<(), DbError> {
    // A path counts for the learner when its row is new: that decides, whoever else writes at the same time.
    const SQL: &str = "WITH paths AS ( \
           INSERT INTO learner_learning_paths (tenant, user_id, learning_path_id) \
           SELECT * FROM unnest($9::text[], $10::text[], $11::text[]) ON CONFLICT DO NOTHING RETURNING tenant, user_id \
         ), new_paths AS (SELECT tenant, user_id, count(*) AS n FROM paths GROUP BY 1, 2) \
         INSERT INTO learner_progress_read_model AS p (tenant, user_id, sessions, learning_paths, assessments_taken, \
           assessments_passed, score_percent_sum, time_spent_seconds, last_activity) \
         SELECT d.t, d.u, d.sessions, coalesce(n.n, 0), d.taken, d.passed, d.score::numeric, d.spent::numeric, d.at \
         FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], \
           $8::timestamptz[]) AS d(t, u, sessions, taken, passed, score, spent, at) \
         LEFT JOIN new_paths n ON n.tenant = d.t AND n.user_id = d.u \
         ON CONFLICT (tenant, user_id) DO UPDATE SET sessions = p.sessions + excluded.sessions, \
           learning_paths = p.learning_paths + excluded.learning_paths, \
           assessments_taken = p.assessments_taken + excluded.assessments_taken, \
           assessments_passed = p.assessments_passed + excluded.assessments_passed, \
           score_percent_sum = p.score_percent_sum + excluded.score_percent_sum, \
           time_spent_seconds = p.time_spent_seconds + excluded.time_spent_seconds, \
           last_activity = greatest(p.last_activity, excluded.last_activity)";
    if progress.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = progress.iter().collect();
    let paths: Vec<_> = rows
        .iter()
        .flat_map(|((t, u), p)| p.learning_paths.iter().map(move |path| (t.as_str(), u.as_str(), path.as_str())))
        .collect();
    execute(
        transaction,
        SQL,
        &[
            &column!(rows, r => r.0.0.as_str()),
            &column!(rows, r => r.0.1.as_str()),
            &column!(rows, r => r.1.sessions),
            &column!(rows, r => r.1.assessments_taken),
            &column!(rows, r => r.1.assessments_passed),
            &column!(rows, r => decimal(r.1.score_percent_micros_sum)),
            &column!(rows, r => decimal(r.1.time_spent_micros)),
            &column!(rows, r => jiff(r.1.last_activity)),
            &column!(paths, p => p.0),
            &column!(paths, p => p.1),
            &column!(paths, p => p.2),
        ],
    )
    .await
}

// Reading the rows back: the lane needs users, and `weir verify` needs everything.

/// Columns that [`user_row`] reads.
pub(crate) const USER_COLUMNS: &str = "tenant, id, email, username, first_name, last_name, status, preferences, \
     registration_source, created_at, updated_at, deactivated_at, version";

fn broken(what: impl std::fmt::Display) -> DbError {
    DbError::new("reading a read model", ErrorKind::Permanent, format!("a row is broken: {what}"))
}

pub(crate) fn time(row: &Row, column: &str) -> Result<Option<Timestamp>, DbError> {
    let at: Option<JiffTimestamp> = row.try_get(column).during(ACTION)?;
    at.map(Timestamp::from_jiff).transpose().map_err(broken)
}

pub(crate) fn some_time(row: &Row, column: &str) -> Result<Timestamp, DbError> {
    time(row, column)?.ok_or_else(|| broken(format!("{column} is null")))
}

pub(crate) fn user_row(row: &Row) -> Result<UserRow, DbError> {
    let preferences: serde_json::Value = row.try_get("preferences").during(ACTION)?;
    let serde_json::Value::Object(preferences) = preferences else { return Err(broken("preferences is no object")) };
    let status: &str = row.try_get("status").during(ACTION)?;
    Ok(UserRow {
        tenant: row.try_get("tenant").during(ACTION)?,
        id: row.try_get("id").during(ACTION)?,
        email: row.try_get("email").during(ACTION)?,
        username: row.try_get("username").during(ACTION)?,
        first_name: row.try_get("first_name").during(ACTION)?,
        last_name: row.try_get("last_name").during(ACTION)?,
        status: if status == "active" { UserStatus::Active } else { UserStatus::Deactivated },
        preferences,
        registration_source: row.try_get("registration_source").during(ACTION)?,
        created_at: time(row, "created_at")?,
        updated_at: some_time(row, "updated_at")?,
        deactivated_at: time(row, "deactivated_at")?,
        version: row.try_get("version").during(ACTION)?,
    })
}
