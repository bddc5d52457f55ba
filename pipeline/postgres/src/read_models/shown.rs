//! The read models as the HTTP side shows them: one row by its key, or some in the order of their keys.

use tokio_postgres::types::ToSql;
use tokio_postgres::{GenericClient, Row};
use weir_model::TenantId;

use crate::error::{DbError, During};

const ACTION: &str = "reading a read model";

/// How a column is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// As JSON has it.
    Plain,
    /// RFC 3339 in UTC, with milliseconds.
    Time,
}

use Kind::{Plain, Time};

/// A read model that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// What it is called: `user`, `users` in lists.
    pub name: &'static str,
    table: &'static str,
    /// The rows' own key within a tenant; lists are in its order.
    key: &'static str,
    /// Columns, and how they are shown; the names are put into camelCase.
    columns: &'static [(&'static str, Kind)],
    /// What lists can be narrowed by: the parameter, the column.
    pub filters: &'static [(&'static str, &'static str)],
}

/// Accounts.
pub const USERS: Shown = Shown {
    name: "user",
    table: "user_read_model",
    key: "id",
    columns: &[
        ("id", Plain),
        ("email", Plain),
        ("username", Plain),
        ("first_name", Plain),
        ("last_name", Plain),
        ("status", Plain),
        ("preferences", Plain),
        ("registration_source", Plain),
        ("created_at", Time),
        ("updated_at", Time),
        ("deactivated_at", Time),
        ("version", Plain),
    ],
    filters: &[("status", "status"), ("username", "username"), ("email", "email")],
};

/// What a learner's sessions and attempts come to.
pub const PROGRESS: Shown = Shown {
    name: "progress",
    table: "learner_progress_read_model",
    key: "user_id",
    columns: &[
        ("user_id", Plain),
        ("sessions", Plain),
        ("learning_paths", Plain),
        ("attempts", Plain),
        ("attempts_passed", Plain),
        ("assessments_taken", Plain),
        ("assessments_passed", Plain),
        ("average_score_percent", Plain),
        ("time_spent_seconds", Plain),
        ("last_activity", Time),
    ],
    filters: &[],
};

/// Sessions.
pub const SESSIONS: Shown = Shown {
    name: "session",
    table: "learning_session_read_model",
    key: "id",
    columns: &[
        ("id", Plain),
        ("user_id", Plain),
        ("learning_path_id", Plain),
        ("module_id", Plain),
        ("device_info", Plain),
        ("started_at", Time),
        ("version", Plain),
    ],
    filters: &[("user", "user_id"), ("path", "learning_path_id"), ("module", "module_id")],
};

/// What learners' attempts at assessments come to.
pub const RESULTS: Shown = Shown {
    name: "result",
    table: "assessment_results",
    key: "id",
    columns: &[
        ("assessment_id", Plain),
        ("user_id", Plain),
        ("attempts", Plain),
        ("passes", Plain),
        ("passed", Plain),
        ("first_passed_at", Time),
        ("best_score_percent", Plain),
        ("last_score", Plain),
        ("last_max_score", Plain),
        ("last_score_percent", Plain),
        ("last_completed_at", Time),
    ],
    filters: &[("user", "user_id"), ("passed", "passed")],
};

/// Attempts at assessments.
pub const ATTEMPTS: Shown = Shown {
    name: "attempt",
    table: "assessment_attempts",
    key: "key",
    columns: &[
        ("key", Plain),
        ("event_id", Plain),
        ("assessment_id", Plain),
        ("user_id", Plain),
        ("attempt", Plain),
        ("session_id", Plain),
        ("score", Plain),
        ("max_score", Plain),
        ("score_percent", Plain),
        ("passed", Plain),
        ("time_spent_seconds", Plain),
        ("analytics", Plain),
        ("completed_at", Time),
    ],
    filters: &[("user", "user_id"), ("passed", "passed")],
};

/// Files.
pub const CONTENTS: Shown = Shown {
    name: "content",
    table: "content_read_model",
    key: "id",
    columns: &[
        ("id", Plain),
        ("user_id", Plain),
        ("content_type", Plain),
        ("file_name", Plain),
        ("mime_type", Plain),
        ("file_size", Plain),
        ("status", Plain),
        ("processing_type", Plain),
        ("uploaded_at", Time),
        ("processing_started_at", Time),
        ("processing_completed_at", Time),
        ("processing_seconds", Plain),
        ("failures", Plain),
        ("updated_at", Time),
        ("version", Plain),
    ],
    filters: &[("status", "status"), ("type", "content_type"), ("user", "user_id")],
};

/// Agents' tasks.
pub const TASKS: Shown = Shown {
    name: "task",
    table: "task_read_model",
    key: "id",
    columns: &[
        ("id", Plain),
        ("agent_id", Plain),
        ("agent_type", Plain),
        ("task_type", Plain),
        ("priority", Plain),
        ("status", Plain),
        ("assigned_at", Time),
        ("deadline", Time),
        ("deadline_met", Plain),
        ("expected_seconds", Plain),
        ("completed_at", Time),
        ("execution_seconds", Plain),
        ("updated_at", Time),
        ("version", Plain),
    ],
    filters: &[
        ("status", "status"),
        ("agent", "agent_id"),
        ("type", "task_type"),
        ("priority", "priority"),
        ("deadline_met", "deadline_met"),
    ],
};

/// A row: its key, for a cursor, and itself as JSON text.
pub type Item = (String, String);

fn camel(column: &str) -> String {
    let mut words = column.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let (head, tail) = word.split_at(word.len().min(1));
        name + &head.to_uppercase() + tail
    })
}

impl Shown {
    /// The names of what is shown, in order, and whether it is a time.
    pub fn fields(&self) -> impl Iterator<Item = (String, bool)> {
        self.columns.iter().map(|(column, kind)| (camel(column), *kind == Time))
    }

    fn select(&self) -> String {
        const TIME: &str = "AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'";
        let member = |(column, kind): &(&str, Kind)| match kind {
            Plain => format!("'{}', {column}", camel(column)),
            Time => format!("'{}', to_char({column} {TIME})", camel(column)),
        };
        let members: Vec<String> = self.columns.iter().map(member).collect();
        format!(
            "SELECT {} AS key, json_build_object({})::text AS item FROM {}",
            self.key,
            members.join(", "),
            self.table
        )
    }

    /// The row of a key.
    pub async fn find(
        &self,
        client: &impl GenericClient,
        tenant: &TenantId,
        key: &str,
    ) -> Result<Option<String>, DbError> {
        let sql = format!("{} WHERE tenant = $1 AND {} = $2", self.select(), self.key);
        let row = client.query_opt(&sql, &[&tenant.as_str(), &key]).await.during(ACTION)?;
        row.map(|row| row.try_get("item")).transpose().during(ACTION)
    }

    /// Rows after a key, in the order of their keys, that have these values in these columns.
    pub async fn page(
        &self,
        client: &impl GenericClient,
        tenant: &TenantId,
        equal: &[(&str, String)],
        after: Option<&str>,
        limit: i64,
    ) -> Result<Vec<Item>, DbError> {
        let mut sql = format!("{} WHERE tenant = $1 AND ($2::text IS NULL OR {} > $2)", self.select(), self.key);
        let tenant = tenant.as_str();
        let mut values: Vec<&(dyn ToSql + Sync)> = vec![&tenant, &after, &limit];
        for (n, (column, value)) in equal.iter().enumerate() {
            // As text: flags too.
            let compared = if is_flag(column) { format!("{column}::text") } else { (*column).to_owned() };
            sql.push_str(&format!(" AND {compared} = ${}", n + 4));
            values.push(value);
        }
        sql.push_str(&format!(" ORDER BY {} LIMIT $3", self.key));
        let rows = client.query(&sql, &values).await.during(ACTION)?;
        let item = |row: &Row| Ok((row.try_get("key").during(ACTION)?, row.try_get("item").during(ACTION)?));
        rows.iter().map(item).collect()
    }
}

/// Whether a column holds true or false.
#[must_use]
pub fn is_flag(column: &str) -> bool {
    ["passed", "deadline_met"].contains(&column)
}
