//! Rows that sum events up, whatever their order: results of assessments and learners' progress.

use std::collections::BTreeMap;

use deadpool_postgres::Transaction;
use weir_model::project::{AssessmentResult, LastAttempt, Progress, ResultKey};

use super::{ACTION, column, decimal, execute, jiff};
use crate::error::{DbError, During};

/// Tenant and user.
pub(super) type Learner = (String, String);

/// By learner: how many assessments were taken for the first time, and how many were passed for the first time.
pub(super) type Counted = BTreeMap<Learner, (i64, i64)>;

/// Adds to results, and gives which of them are new. What a row was before is what it is now without what was added: of two
/// transactions that write at the same time, one finds the row new.
pub(super) async fn write_results(
    transaction: &Transaction<'_>,
    results: &BTreeMap<ResultKey, AssessmentResult>,
) -> Result<Counted, DbError> {
    const SQL: &str = "WITH d AS MATERIALIZED ( \
           SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::timestamptz[], \
             $8::text[], $9::timestamptz[], $10::text[], $11::float8[], $12::float8[], $13::text[]) \
           AS d(tenant, id, assessment_id, user_id, attempts, passes, first_passed, best, last_at, last_key, score, max, percent) \
         ), up AS ( \
           INSERT INTO assessment_results AS r (tenant, id, assessment_id, user_id, attempts, passes, first_passed_at, \
             best_score_percent, last_completed_at, last_key, last_score, last_max_score, last_score_percent) \
           SELECT tenant, id, assessment_id, user_id, attempts, passes, first_passed, best::numeric, last_at, last_key, score, \
             max, percent::numeric FROM d \
           ON CONFLICT (tenant, id) DO UPDATE SET attempts = r.attempts + excluded.attempts, \
             passes = r.passes + excluded.passes, first_passed_at = least(r.first_passed_at, excluded.first_passed_at), \
             best_score_percent = greatest(r.best_score_percent, excluded.best_score_percent), \
             (last_completed_at, last_key, last_score, last_max_score, last_score_percent) = ( \
               SELECT * FROM (VALUES (r.last_completed_at, r.last_key, r.last_score, r.last_max_score, r.last_score_percent), \
                 (excluded.last_completed_at, excluded.last_key, excluded.last_score, excluded.last_max_score, \
                  excluded.last_score_percent)) AS a(at, key, score, max, percent) \
               ORDER BY at DESC, key COLLATE \"C\" DESC LIMIT 1) \
           RETURNING r.tenant, r.id, r.attempts, r.passes \
         ) SELECT d.tenant, d.user_id, count(*) FILTER (WHERE up.attempts = d.attempts), \
             count(*) FILTER (WHERE d.passes > 0 AND up.passes = d.passes) \
         FROM up JOIN d ON d.tenant = up.tenant AND d.id = up.id GROUP BY 1, 2";
    let rows: Vec<(&ResultKey, &AssessmentResult, &LastAttempt)> =
        results.iter().filter_map(|(key, result)| Some((key, result, result.last.as_ref()?))).collect();
    if rows.is_empty() {
        return Ok(Counted::new());
    }
    let statement = transaction.prepare_cached(SQL).await.during(ACTION)?;
    let found = transaction
        .query(
            &statement,
            &[
                &column!(rows, r => r.0.tenant.as_str()),
                &column!(rows, r => r.0.id.as_str()),
                &column!(rows, r => r.0.assessment_id.as_str()),
                &column!(rows, r => r.0.user_id.as_str()),
                &column!(rows, r => r.1.attempts),
                &column!(rows, r => r.1.passes),
                &column!(rows, r => jiff(r.1.first_passed_at)),
                &column!(rows, r => decimal(r.1.best_percent_micros)),
                &column!(rows, r => r.2.completed_at.to_jiff()),
                &column!(rows, r => r.2.key.as_str()),
                &column!(rows, r => r.2.score),
                &column!(rows, r => r.2.max_score),
                &column!(rows, r => decimal(r.2.score_percent_micros)),
            ],
        )
        .await
        .during(ACTION)?;
    let read = |row: &tokio_postgres::Row| {
        let learner = (row.try_get(0).during(ACTION)?, row.try_get(1).during(ACTION)?);
        Ok((learner, (row.try_get(2).during(ACTION)?, row.try_get(3).during(ACTION)?)))
    };
    found.iter().map(read).collect()
}

/// Adds to progress, with the assessments that [`write_results`] found new.
pub(super) async fn write_progress(
    transaction: &Transaction<'_>,
    progress: &BTreeMap<Learner, Progress>,
    counted: &Counted,
) -> Result<(), DbError> {
    // A path counts for the learner when its row is new: that decides, also if another transaction writes at the same time.
    const SQL: &str = "WITH paths AS ( \
           INSERT INTO learner_learning_paths (tenant, user_id, learning_path_id) \
           SELECT * FROM unnest($11::text[], $12::text[], $13::text[]) ON CONFLICT DO NOTHING RETURNING tenant, user_id \
         ), new_paths AS (SELECT tenant, user_id, count(*) AS n FROM paths GROUP BY 1, 2) \
         INSERT INTO learner_progress_read_model AS p (tenant, user_id, sessions, learning_paths, attempts, attempts_passed, \
           score_percent_sum, time_spent_seconds, last_activity, assessments_taken, assessments_passed) \
         SELECT d.t, d.u, d.sessions, coalesce(n.n, 0), d.attempts, d.attempts_passed, d.score::numeric, d.spent::numeric, d.at, \
           d.taken, d.passed \
         FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], \
           $8::timestamptz[], $9::bigint[], $10::bigint[]) \
           AS d(t, u, sessions, attempts, attempts_passed, score, spent, at, taken, passed) \
         LEFT JOIN new_paths n ON n.tenant = d.t AND n.user_id = d.u \
         ON CONFLICT (tenant, user_id) DO UPDATE SET sessions = p.sessions + excluded.sessions, \
           learning_paths = p.learning_paths + excluded.learning_paths, \
           attempts = p.attempts + excluded.attempts, attempts_passed = p.attempts_passed + excluded.attempts_passed, \
           score_percent_sum = p.score_percent_sum + excluded.score_percent_sum, \
           time_spent_seconds = p.time_spent_seconds + excluded.time_spent_seconds, \
           last_activity = greatest(p.last_activity, excluded.last_activity), \
           assessments_taken = p.assessments_taken + excluded.assessments_taken, \
           assessments_passed = p.assessments_passed + excluded.assessments_passed";
    if progress.is_empty() {
        return Ok(());
    }
    let new = |learner: &Learner| counted.get(learner).copied().unwrap_or_default();
    let rows: Vec<_> = progress.iter().map(|(learner, sum)| (learner, sum, new(learner))).collect();
    let paths: Vec<_> = rows
        .iter()
        .flat_map(|((t, u), p, _)| p.learning_paths.iter().map(move |path| (t.as_str(), u.as_str(), path.as_str())))
        .collect();
    execute(
        transaction,
        SQL,
        &[
            &column!(rows, r => r.0.0.as_str()),
            &column!(rows, r => r.0.1.as_str()),
            &column!(rows, r => r.1.sessions),
            &column!(rows, r => r.1.attempts),
            &column!(rows, r => r.1.attempts_passed),
            &column!(rows, r => decimal(r.1.score_percent_micros_sum)),
            &column!(rows, r => decimal(r.1.time_spent_micros)),
            &column!(rows, r => jiff(r.1.last_activity)),
            &column!(rows, r => r.2.0),
            &column!(rows, r => r.2.1),
            &column!(paths, p => p.0),
            &column!(paths, p => p.1),
            &column!(paths, p => p.2),
        ],
    )
    .await
}
