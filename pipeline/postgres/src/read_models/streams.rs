//! Rows that events of one stream make, one after the other: users, contents, tasks. Each batch reads the rows that it touches, and
//! writes them whole.

use std::collections::BTreeMap;

use deadpool_postgres::Transaction;
use tokio_postgres::Row;
use weir_engine::Located;
use weir_model::Event;
use weir_model::project::{ContentRow, TaskRow, Unappliable, Units, UserRow};

use super::stored::{CONTENT_COLUMNS, TASK_COLUMNS, USER_COLUMNS, content_row, task_row, user_row};
use super::{ACTION, column, decimal, execute, jiff};
use crate::error::{DbError, During};
use crate::projection::ApplyError;

/// A row of a stream.
pub(super) trait StreamRow: Sized + Sync {
    /// Its table.
    const TABLE: &str;
    /// What [`Self::from_row`] reads.
    const COLUMNS: &str;
    fn concerns(event: &Event) -> bool;
    fn new(event: &Event) -> Self;
    fn take(&mut self, event: &Event, units: Units) -> Result<(), Unappliable>;
    fn key(&self) -> (String, String);
    fn from_row(row: &Row) -> Result<Self, DbError>;
    fn write(transaction: &Transaction<'_>, rows: &[Self]) -> impl Future<Output = Result<(), DbError>> + Send;
}

/// Takes in those of the events that concern a read model.
pub(super) async fn apply<T: StreamRow + Send>(
    transaction: &Transaction<'_>,
    events: &[&Located],
    units: Units,
) -> Result<(), ApplyError> {
    let events: Vec<_> = events.iter().map(|l| &l.event).filter(|e| T::concerns(e)).collect();
    if events.is_empty() {
        return Ok(());
    }
    let (tenants, ids): (Vec<&str>, Vec<&str>) =
        events.iter().map(|e| (e.tenant.as_str(), e.stream.aggregate_id())).unzip();
    let sql = format!(
        "SELECT {} FROM {} WHERE (tenant, id) IN (SELECT * FROM unnest($1::text[], $2::text[]))",
        T::COLUMNS,
        T::TABLE
    );
    let statement = transaction.prepare_cached(&sql).await.during(ACTION)?;
    let found = transaction.query(&statement, &[&tenants, &ids]).await.during(ACTION)?;
    let mut rows = BTreeMap::new();
    for row in &found {
        let row = T::from_row(row)?;
        rows.insert(row.key(), row);
    }
    for event in events {
        let key = (event.tenant.to_string(), event.stream.aggregate_id().to_owned());
        let row = rows.entry(key).or_insert_with(|| T::new(event));
        row.take(event, units).map_err(|refusal| ApplyError::Refused(refusal.into()))?;
    }
    let rows: Vec<T> = rows.into_values().collect();
    Ok(write(transaction, &rows).await?)
}

/// Writes rows whole.
pub(super) async fn write<T: StreamRow>(transaction: &Transaction<'_>, rows: &[T]) -> Result<(), DbError> {
    if rows.is_empty() { Ok(()) } else { T::write(transaction, rows).await }
}

impl StreamRow for UserRow {
    const TABLE: &str = "user_read_model";
    const COLUMNS: &str = USER_COLUMNS;

    fn concerns(event: &Event) -> bool {
        Self::concerns(event)
    }

    fn new(event: &Event) -> Self {
        Self::new(event)
    }

    fn take(&mut self, event: &Event, _: Units) -> Result<(), Unappliable> {
        self.apply(event)
    }

    fn key(&self) -> (String, String) {
        (self.tenant.clone(), self.id.clone())
    }

    fn from_row(row: &Row) -> Result<Self, DbError> {
        user_row(row)
    }

    async fn write(transaction: &Transaction<'_>, rows: &[Self]) -> Result<(), DbError> {
        const SQL: &str = "INSERT INTO user_read_model (tenant, id, email, username, first_name, last_name, status, \
               preferences, registration_source, created_at, updated_at, deactivated_at, version) \
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], \
               $8::jsonb[], $9::text[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[], $13::bigint[]) \
             ON CONFLICT (tenant, id) DO UPDATE SET email = excluded.email, username = excluded.username, \
               first_name = excluded.first_name, last_name = excluded.last_name, status = excluded.status, \
               preferences = excluded.preferences, registration_source = excluded.registration_source, \
               created_at = excluded.created_at, updated_at = excluded.updated_at, \
               deactivated_at = excluded.deactivated_at, version = excluded.version";
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
}

impl StreamRow for ContentRow {
    const TABLE: &str = "content_read_model";
    const COLUMNS: &str = CONTENT_COLUMNS;

    fn concerns(event: &Event) -> bool {
        Self::concerns(event)
    }

    fn new(event: &Event) -> Self {
        Self::new(event)
    }

    fn take(&mut self, event: &Event, units: Units) -> Result<(), Unappliable> {
        self.apply(event, units);
        Ok(())
    }

    fn key(&self) -> (String, String) {
        (self.tenant.clone(), self.id.clone())
    }

    fn from_row(row: &Row) -> Result<Self, DbError> {
        content_row(row)
    }

    async fn write(transaction: &Transaction<'_>, rows: &[Self]) -> Result<(), DbError> {
        const SQL: &str = "INSERT INTO content_read_model (tenant, id, user_id, content_type, file_name, mime_type, file_size, \
               status, processing_type, uploaded_at, processing_started_at, processing_completed_at, processing_seconds, \
               failures, updated_at, version) \
             SELECT t, i, u, kind, name, mime, size, status, work, uploaded, started, completed, took::numeric, failures, at, v \
             FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::text[], \
               $9::text[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[], $13::text[], $14::bigint[], \
               $15::timestamptz[], $16::bigint[]) \
               AS x(t, i, u, kind, name, mime, size, status, work, uploaded, started, completed, took, failures, at, v) \
             ON CONFLICT (tenant, id) DO UPDATE SET user_id = excluded.user_id, content_type = excluded.content_type, \
               file_name = excluded.file_name, mime_type = excluded.mime_type, file_size = excluded.file_size, \
               status = excluded.status, processing_type = excluded.processing_type, uploaded_at = excluded.uploaded_at, \
               processing_started_at = excluded.processing_started_at, \
               processing_completed_at = excluded.processing_completed_at, \
               processing_seconds = excluded.processing_seconds, failures = excluded.failures, \
               updated_at = excluded.updated_at, version = excluded.version";
        execute(
            transaction,
            SQL,
            &[
                &column!(rows, r => r.tenant.as_str()),
                &column!(rows, r => r.id.as_str()),
                &column!(rows, r => r.user_id.as_deref()),
                &column!(rows, r => r.content_type.as_deref()),
                &column!(rows, r => r.file_name.as_deref()),
                &column!(rows, r => r.mime_type.as_deref()),
                &column!(rows, r => r.file_size),
                &column!(rows, r => r.status.as_str()),
                &column!(rows, r => r.processing_type.as_deref()),
                &column!(rows, r => jiff(r.uploaded_at)),
                &column!(rows, r => jiff(r.processing_started_at)),
                &column!(rows, r => jiff(r.processing_completed_at)),
                &column!(rows, r => r.processing_micros.map(decimal)),
                &column!(rows, r => r.failures),
                &column!(rows, r => r.updated_at.to_jiff()),
                &column!(rows, r => r.version),
            ],
        )
        .await
    }
}

impl StreamRow for TaskRow {
    const TABLE: &str = "task_read_model";
    const COLUMNS: &str = TASK_COLUMNS;

    fn concerns(event: &Event) -> bool {
        Self::concerns(event)
    }

    fn new(event: &Event) -> Self {
        Self::new(event)
    }

    fn take(&mut self, event: &Event, units: Units) -> Result<(), Unappliable> {
        self.apply(event, units);
        Ok(())
    }

    fn key(&self) -> (String, String) {
        (self.tenant.clone(), self.id.clone())
    }

    fn from_row(row: &Row) -> Result<Self, DbError> {
        task_row(row)
    }

    async fn write(transaction: &Transaction<'_>, rows: &[Self]) -> Result<(), DbError> {
        const SQL: &str = "INSERT INTO task_read_model (tenant, id, agent_id, agent_type, task_type, priority, status, \
               assigned_at, deadline, expected_seconds, completed_at, execution_seconds, deadline_met, updated_at, version) \
             SELECT t, i, agent, kind, task, priority, status, assigned, deadline, expected::numeric, completed, \
               took::numeric, met, at, v \
             FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], \
               $8::timestamptz[], $9::timestamptz[], $10::text[], $11::timestamptz[], $12::text[], $13::bool[], \
               $14::timestamptz[], $15::bigint[]) \
               AS x(t, i, agent, kind, task, priority, status, assigned, deadline, expected, completed, took, met, at, v) \
             ON CONFLICT (tenant, id) DO UPDATE SET agent_id = excluded.agent_id, agent_type = excluded.agent_type, \
               task_type = excluded.task_type, priority = excluded.priority, status = excluded.status, \
               assigned_at = excluded.assigned_at, deadline = excluded.deadline, \
               expected_seconds = excluded.expected_seconds, completed_at = excluded.completed_at, \
               execution_seconds = excluded.execution_seconds, deadline_met = excluded.deadline_met, \
               updated_at = excluded.updated_at, version = excluded.version";
        execute(
            transaction,
            SQL,
            &[
                &column!(rows, r => r.tenant.as_str()),
                &column!(rows, r => r.id.as_str()),
                &column!(rows, r => r.agent_id.as_deref()),
                &column!(rows, r => r.agent_type.as_deref()),
                &column!(rows, r => r.task_type.as_deref()),
                &column!(rows, r => r.priority.as_deref()),
                &column!(rows, r => r.status.as_str()),
                &column!(rows, r => jiff(r.assigned_at)),
                &column!(rows, r => jiff(r.deadline)),
                &column!(rows, r => r.expected_micros.map(decimal)),
                &column!(rows, r => jiff(r.completed_at)),
                &column!(rows, r => r.execution_micros.map(decimal)),
                &column!(rows, r => r.deadline_met),
                &column!(rows, r => r.updated_at.to_jiff()),
                &column!(rows, r => r.version),
            ],
        )
        .await
    }
}
