//! Reading the rows back: the lane needs those that it goes on with, and `weir verify` needs everything.

use jiff::Timestamp as JiffTimestamp;
use tokio_postgres::Row;
use weir_model::Timestamp;
use weir_model::project::{
    AssessmentResult, AttemptRow, ContentRow, ContentRowStatus, FoldedRow, LastAttempt, Progress, ReadModel, ResultKey,
    SessionRow, TaskRow, TaskRowStatus, UserRow, UserStatus,
};

use crate::error::{DbError, During, ErrorKind};

const ACTION: &str = "reading a read model";

pub(super) const USER_COLUMNS: &str = "tenant, id, email, username, first_name, last_name, status, preferences, \
     registration_source, created_at, updated_at, deactivated_at, version";

// A value finer than a millionth cannot have come from the lane: it makes the text, and so the hash, differ.
pub(super) const CONTENT_COLUMNS: &str = "tenant, id, user_id, content_type, file_name, mime_type, file_size, status, \
     processing_type, uploaded_at, processing_started_at, processing_completed_at, \
     trim_scale(processing_seconds * 1000000)::text AS processing_micros, failures, updated_at, version";

pub(super) const TASK_COLUMNS: &str = "tenant, id, agent_id, agent_type, task_type, priority, status, assigned_at, deadline, \
     trim_scale(expected_seconds * 1000000)::text AS expected_micros, completed_at, \
     trim_scale(execution_seconds * 1000000)::text AS execution_micros, deadline_met, updated_at, version";

const ATTEMPTS: &str = "SELECT tenant, key, event_id, assessment_id, user_id, session_id, score, max_score, passed, analytics, \
     completed_at, version, trim_scale(score_percent * 1000000)::text AS score_percent_micros, \
     trim_scale(time_spent_seconds * 1000000)::text AS time_spent_micros FROM assessment_read_model";

const SESSIONS: &str = "SELECT tenant, id, user_id, learning_path_id, module_id, device_info, started_at, version \
     FROM learning_session_read_model";

const RESULTS: &str = "SELECT tenant, id, assessment_id, user_id, attempts, passes, first_passed_at, last_completed_at, \
     last_key, last_score, last_max_score, trim_scale(best_score_percent * 1000000)::text AS best_micros, \
     trim_scale(last_score_percent * 1000000)::text AS last_micros FROM assessment_results";

const PROGRESS: &str = "SELECT p.*, trim_scale(score_percent_sum * 1000000)::text AS score_micros, \
     trim_scale(time_spent_seconds * 1000000)::text AS spent_micros, coalesce(l.paths, '{}') AS paths, \
     coalesce(r.taken, '{}') AS taken, coalesce(r.passed, '{}') AS passed FROM learner_progress_read_model p \
     LEFT JOIN (SELECT tenant, user_id, array_agg(learning_path_id) AS paths FROM learner_learning_paths GROUP BY 1, 2) l \
       USING (tenant, user_id) \
     LEFT JOIN (SELECT tenant, user_id, array_agg(assessment_id) AS taken, \
                  coalesce(array_agg(assessment_id) FILTER (WHERE passed), '{}') AS passed \
                FROM assessment_results GROUP BY 1, 2) r USING (tenant, user_id)";

/// Everything of a read model, for [`canonical`].
pub(crate) fn query(model: ReadModel) -> String {
    match model {
        ReadModel::Users => format!("SELECT {USER_COLUMNS} FROM user_read_model"),
        ReadModel::Sessions => SESSIONS.to_owned(),
        ReadModel::Attempts => ATTEMPTS.to_owned(),
        ReadModel::Results => RESULTS.to_owned(),
        ReadModel::Progress => PROGRESS.to_owned(),
        ReadModel::Contents => format!("SELECT {CONTENT_COLUMNS} FROM content_read_model"),
        ReadModel::Tasks => format!("SELECT {TASK_COLUMNS} FROM task_read_model"),
    }
}

/// The canonical text of a row of [`query`].
pub(crate) fn canonical(model: ReadModel, row: &Row) -> Result<String, DbError> {
    let folded = match model {
        ReadModel::Users => FoldedRow::User(Box::new(user_row(row)?)),
        ReadModel::Sessions => FoldedRow::Session(Some(Box::new(session_row(row)?))),
        ReadModel::Attempts => FoldedRow::Attempt(Some(Box::new(attempt_row(row)?))),
        ReadModel::Results => FoldedRow::Result(Some(result_row(row)?)),
        ReadModel::Progress => return progress_text(row),
        ReadModel::Contents => FoldedRow::Content(Box::new(content_row(row)?)),
        ReadModel::Tasks => FoldedRow::Task(Box::new(task_row(row)?)),
    };
    Ok(folded.canonical())
}

fn broken(what: impl std::fmt::Display) -> DbError {
    DbError::new(ACTION, ErrorKind::Permanent, format!("a row is broken: {what}"))
}

pub(crate) fn time(row: &Row, column: &str) -> Result<Option<Timestamp>, DbError> {
    let at: Option<JiffTimestamp> = row.try_get(column).during(ACTION)?;
    at.map(Timestamp::from_jiff).transpose().map_err(broken)
}

fn some_time(row: &Row, column: &str) -> Result<Timestamp, DbError> {
    time(row, column)?.ok_or_else(|| broken(format!("{column} is null")))
}

/// A whole number of millionths; -1 for what is none, which no lane writes.
fn micros<T: std::str::FromStr + From<i8>>(row: &Row, column: &str) -> Result<Option<T>, DbError> {
    let text: Option<&str> = row.try_get(column).during(ACTION)?;
    Ok(text.map(|text| text.parse().unwrap_or_else(|_| T::from(-1))))
}

fn some_micros<T: std::str::FromStr + From<i8>>(row: &Row, column: &str) -> Result<T, DbError> {
    Ok(micros(row, column)?.unwrap_or_else(|| T::from(-1)))
}

pub(super) fn user_row(row: &Row) -> Result<UserRow, DbError> {
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

fn attempt_row(row: &Row) -> Result<AttemptRow, DbError> {
    Ok(AttemptRow {
        tenant: row.try_get("tenant").during(ACTION)?,
        key: row.try_get("key").during(ACTION)?,
        event_id: row.try_get("event_id").during(ACTION)?,
        assessment_id: row.try_get("assessment_id").during(ACTION)?,
        user_id: row.try_get("user_id").during(ACTION)?,
        session_id: row.try_get("session_id").during(ACTION)?,
        score: row.try_get("score").during(ACTION)?,
        max_score: row.try_get("max_score").during(ACTION)?,
        score_percent_micros: some_micros(row, "score_percent_micros")?,
        passed: row.try_get("passed").during(ACTION)?,
        time_spent_micros: some_micros(row, "time_spent_micros")?,
        analytics: row.try_get("analytics").during(ACTION)?,
        completed_at: some_time(row, "completed_at")?,
        version: row.try_get("version").during(ACTION)?,
    })
}

fn result_row(row: &Row) -> Result<(ResultKey, AssessmentResult), DbError> {
    let key = ResultKey {
        tenant: row.try_get("tenant").during(ACTION)?,
        id: row.try_get("id").during(ACTION)?,
        assessment_id: row.try_get("assessment_id").during(ACTION)?,
        user_id: row.try_get("user_id").during(ACTION)?,
    };
    let last = LastAttempt {
        completed_at: some_time(row, "last_completed_at")?,
        key: row.try_get("last_key").during(ACTION)?,
        score: row.try_get("last_score").during(ACTION)?,
        max_score: row.try_get("last_max_score").during(ACTION)?,
        score_percent_micros: some_micros(row, "last_micros")?,
    };
    let result = AssessmentResult {
        attempts: row.try_get("attempts").during(ACTION)?,
        passes: row.try_get("passes").during(ACTION)?,
        best_percent_micros: some_micros(row, "best_micros")?,
        last: Some(last),
        first_passed_at: time(row, "first_passed_at")?,
    };
    Ok((key, result))
}

fn progress_text(row: &Row) -> Result<String, DbError> {
    let (tenant, user): (&str, &str) = (row.try_get("tenant").during(ACTION)?, row.try_get("user_id").during(ACTION)?);
    let set = |column: &str| {
        let items: Vec<String> = row.try_get(column).during(ACTION)?;
        Ok::<std::collections::BTreeSet<String>, DbError>(items.into_iter().collect())
    };
    let progress = Progress {
        sessions: row.try_get("sessions").during(ACTION)?,
        learning_paths: set("paths")?,
        attempts: row.try_get("attempts").during(ACTION)?,
        attempts_passed: row.try_get("attempts_passed").during(ACTION)?,
        assessments_taken: set("taken")?,
        assessments_passed: set("passed")?,
        score_percent_micros_sum: some_micros(row, "score_micros")?,
        time_spent_micros: some_micros(row, "spent_micros")?,
        last_activity: time(row, "last_activity")?,
    };
    let mut text = progress.canonical(tenant, user);
    // The counts beside the sets must be the sets'.
    for (column, set) in [
        ("learning_paths", &progress.learning_paths),
        ("assessments_taken", &progress.assessments_taken),
        ("assessments_passed", &progress.assessments_passed),
    ] {
        let counted: i64 = row.try_get(column).during(ACTION)?;
        if i64::try_from(set.len()) != Ok(counted) {
            text.push_str(&format!(" but {column} = {counted}"));
        }
    }
    Ok(text)
}

pub(super) fn content_row(row: &Row) -> Result<ContentRow, DbError> {
    let status: &str = row.try_get("status").during(ACTION)?;
    Ok(ContentRow {
        tenant: row.try_get("tenant").during(ACTION)?,
        id: row.try_get("id").during(ACTION)?,
        user_id: row.try_get("user_id").during(ACTION)?,
        content_type: row.try_get("content_type").during(ACTION)?,
        file_name: row.try_get("file_name").during(ACTION)?,
        mime_type: row.try_get("mime_type").during(ACTION)?,
        file_size: row.try_get("file_size").during(ACTION)?,
        status: ContentRowStatus::from_stored(status).ok_or_else(|| broken(status))?,
        processing_type: row.try_get("processing_type").during(ACTION)?,
        uploaded_at: time(row, "uploaded_at")?,
        processing_started_at: time(row, "processing_started_at")?,
        processing_completed_at: time(row, "processing_completed_at")?,
        processing_micros: micros(row, "processing_micros")?,
        failures: row.try_get("failures").during(ACTION)?,
        updated_at: some_time(row, "updated_at")?,
        version: row.try_get("version").during(ACTION)?,
    })
}

pub(super) fn task_row(row: &Row) -> Result<TaskRow, DbError> {
    let status: &str = row.try_get("status").during(ACTION)?;
    Ok(TaskRow {
        tenant: row.try_get("tenant").during(ACTION)?,
        id: row.try_get("id").during(ACTION)?,
        agent_id: row.try_get("agent_id").during(ACTION)?,
        agent_type: row.try_get("agent_type").during(ACTION)?,
        task_type: row.try_get("task_type").during(ACTION)?,
        priority: row.try_get("priority").during(ACTION)?,
        status: TaskRowStatus::from_stored(status).ok_or_else(|| broken(status))?,
        assigned_at: time(row, "assigned_at")?,
        deadline: time(row, "deadline")?,
        expected_micros: micros(row, "expected_micros")?,
        completed_at: time(row, "completed_at")?,
        execution_micros: micros(row, "execution_micros")?,
        deadline_met: row.try_get("deadline_met").during(ACTION)?,
        updated_at: some_time(row, "updated_at")?,
        version: row.try_get("version").during(ACTION)?,
    })
}
