//! Rows that one event makes: sessions and attempts.

use deadpool_postgres::Transaction;
use weir_model::project::{AttemptRow, SessionRow};

use super::{column, decimal, execute};
use crate::error::DbError;

pub(super) async fn write_sessions(transaction: &Transaction<'_>, rows: &[SessionRow]) -> Result<(), DbError> {
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

/// An attempt never takes another's place. Its key comes twice only in a batch that is written again, and then with the same row.
pub(super) async fn write_attempts(transaction: &Transaction<'_>, rows: &[AttemptRow]) -> Result<(), DbError> {
    const SQL: &str = "INSERT INTO assessment_read_model (tenant, key, event_id, assessment_id, user_id, session_id, score, \
           max_score, score_percent, passed, time_spent_seconds, analytics, completed_at, version) \
         SELECT t, k, e, a, u, s, score, max, percent::numeric, passed, spent::numeric, analytics, at, v \
         FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::float8[], $8::float8[], \
           $9::text[], $10::bool[], $11::text[], $12::jsonb[], $13::timestamptz[], $14::bigint[]) \
           AS x(t, k, e, a, u, s, score, max, percent, passed, spent, analytics, at, v) \
         ON CONFLICT (tenant, key) DO NOTHING";
    if rows.is_empty() {
        return Ok(());
    }
    execute(
        transaction,
        SQL,
        &[
            &column!(rows, r => r.tenant.as_str()),
            &column!(rows, r => r.key.as_str()),
            &column!(rows, r => r.event_id.as_str()),
            &column!(rows, r => r.assessment_id.as_str()),
            &column!(rows, r => r.user_id.as_str()),
            &column!(rows, r => r.session_id.as_deref()),
            &column!(rows, r => r.score),
            &column!(rows, r => r.max_score),
            &column!(rows, r => decimal(r.score_percent_micros)),
            &column!(rows, r => r.passed),
            &column!(rows, r => decimal(r.time_spent_micros)),
            &column!(rows, r => r.analytics.clone()),
            &column!(rows, r => r.completed_at.to_jiff()),
            &column!(rows, r => r.version),
        ],
    )
    .await
}
