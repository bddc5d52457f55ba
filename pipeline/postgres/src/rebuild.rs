//! The read models anew from the event store, beside those that serve.
//!
//! 1. A scratch schema gets tables like those that serve; a lane of its own fills them up to where the serving lane stands.
//! 2. One transaction holds the serving lane's ledger row, so that the lane stands still; the scratch lane does the rest.
//! 3. The same transaction compares the two copies, takes over into the serving tables what differs, and with it the dead
//!    letters of the scratch lane in place of the serving one's.
//!
//! What differs is merged row by row instead of tables being renamed: a reader with an older snapshot (a long `SELECT`, `weir
//! verify`) would find a renamed table empty, and views and grants would stay with the old one.

use std::collections::BTreeMap;

use deadpool_postgres::Transaction;
use weir_engine::{Batch, Partition, Sink, SinkError, Span, failpoint};
use weir_model::project::Units;

use crate::database::Database;
use crate::dead_letters::RecordPolicy;
use crate::error::{DbError, During, ErrorKind};
use crate::ledger::Ledger;
use crate::projection::ProjectionSink;
use crate::read_models::ReadModelsProjection;
use crate::source::records_from;

const ACTION: &str = "rebuilding the read models";

/// The lane that is rebuilt, and the one that fills the second copy.
const LANE: &str = "read-models";
const SCRATCH_LANE: &str = "read-models-rebuild";

/// Where the second copy is.
pub const SCHEMA: &str = "weir_rebuild";

/// One rebuild at a time.
const LOCK: (i32, i32) = (8626, 3);

/// Events in one commit of the second copy.
const PAGE: i64 = 4000;

/// The tables of the read models, and their keys.
const TABLES: [(&str, &[&str]); 5] = [
    ("user_read_model", &["tenant", "id"]),
    ("learning_session_read_model", &["tenant", "id"]),
    ("assessment_read_model", &["tenant", "id"]),
    ("learner_progress_read_model", &["tenant", "user_id"]),
    ("learner_learning_paths", &["tenant", "user_id", "learning_path_id"]),
];

/// What a rebuild found and did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    /// Everything below this offset is in both copies.
    pub below: i64,
    /// By table: rows that only one copy had, or had otherwise.
    pub different: BTreeMap<&'static str, i64>,
}

impl Rebuilt {
    /// Rows that differed.
    #[must_use]
    pub fn rows_different(&self) -> i64 {
        self.different.values().sum()
    }
}

fn permanent(reason: impl std::fmt::Display) -> DbError {
    DbError::new(ACTION, ErrorKind::Permanent, reason.to_string())
}

/// Rebuilds the read models. `scratch` is the same database with [`SCHEMA`] first on its search path.
pub async fn rebuild(
    database: &Database,
    scratch: &Database,
    partition: &Partition,
    units: Units,
    policy: &RecordPolicy,
) -> Result<Rebuilt, DbError> {
    let mut client = database.get().await?;
    client
        .batch_execute("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0")
        .await
        .during(ACTION)?;
    let lock = "SELECT pg_try_advisory_lock($1, $2)";
    if !client.query_one(lock, &[&LOCK.0, &LOCK.1]).await.during(ACTION)?.try_get::<_, bool>(0).during(ACTION)? {
        return Err(permanent("another process rebuilds them already"));
    }
    let done = guarded(database, &mut client, scratch, partition, units, policy).await;
    // Back to the pool only as it was: the connection ends here.
    drop(deadpool_postgres::Object::take(client));
    done
}

async fn guarded(
    database: &Database,
    client: &mut deadpool_postgres::Object,
    scratch: &Database,
    partition: &Partition,
    units: Units,
    policy: &RecordPolicy,
) -> Result<Rebuilt, DbError> {
    client.batch_execute(&clean()).await.during(ACTION)?;
    client.batch_execute(&make()).await.during(ACTION)?;
    let ledger = Ledger::new(SCRATCH_LANE, "rebuild");
    let projection = ReadModelsProjection { units };
    let mut second = Second {
        sink: ProjectionSink::new(scratch.clone(), ledger, projection, policy.clone()),
        database: database.clone(),
        partition: partition.clone(),
        next: 1,
    };
    second.sink.claim(std::slice::from_ref(partition)).await.map_err(stopped)?;
    // Without holding anything up; what the lane does meanwhile is little.
    let first = serving_offset(&***client, partition, "").await?;
    second.fill(first).await?;
    let transaction = client.transaction().await.during(ACTION)?;
    transaction.batch_execute("SET LOCAL lock_timeout = '60s'").await.during(ACTION)?;
    let below = serving_offset(&*transaction, partition, "FOR UPDATE").await?;
    second.fill(below).await?;
    let rebuilt = take_over(&transaction, below).await?;
    failpoint::hit("rebuild.before_commit");
    transaction.commit().await.during(ACTION)?;
    failpoint::hit("rebuild.after_commit");
    client.batch_execute(&clean()).await.during(ACTION)?;
    Ok(rebuilt)
}

/// Removes what an earlier rebuild left.
fn clean() -> String {
    format!(
        "DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; DELETE FROM ledger WHERE lane = '{SCRATCH_LANE}'; \
         DELETE FROM dead_letters WHERE lane = '{SCRATCH_LANE}'"
    )
}

/// Unlogged: a crash loses the second copy, and the next rebuild begins anew anyway.
fn make() -> String {
    let tables =
        TABLES.map(|(table, _)| format!("CREATE UNLOGGED TABLE {SCHEMA}.{table} (LIKE public.{table} INCLUDING ALL)"));
    format!("CREATE SCHEMA {SCHEMA}; {}", tables.join("; "))
}

async fn serving_offset(
    client: &impl tokio_postgres::GenericClient,
    partition: &Partition,
    lock: &str,
) -> Result<i64, DbError> {
    let sql = format!(
        "SELECT next_offset FROM ledger WHERE lane = $1 AND source = $2 AND topic = $3 AND partition = $4 {lock}"
    );
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&LANE, &&*partition.source, &&*partition.topic, &partition.number];
    let row = client.query_opt(&sql, &values).await.during(ACTION)?;
    let next: Option<i64> = row.map(|row| row.try_get(0)).transpose().during(ACTION)?.flatten();
    next.ok_or_else(|| permanent("the lane read-models has not applied anything yet: there is nothing to rebuild"))
}

/// The second copy and how far it goes.
struct Second {
    sink: ProjectionSink<ReadModelsProjection>,
    database: Database,
    partition: Partition,
    next: i64,
}

impl Second {
    /// Applies everything below `end`.
    async fn fill(&mut self, end: i64) -> Result<(), DbError> {
        while self.next < end {
            let records = records_from(&self.database, &self.partition, self.next, PAGE.min(end - self.next)).await?;
            let mut batch = Batch::default();
            batch.begin(self.partition.clone(), self.next);
            for record in records {
                batch.push(record, None);
            }
            let Some(Span { end: reached, .. }) = batch.spans().pop() else {
                return Err(permanent(format!("the event store ends before {end}, where the lane stands")));
            };
            self.sink.commit(&batch).await.map_err(stopped)?;
            self.next = reached;
        }
        Ok(())
    }
}

fn stopped(error: SinkError) -> DbError {
    let kind = match &error {
        SinkError::Retry(_) => ErrorKind::Unavailable,
        SinkError::Fenced { .. } | SinkError::Fatal(_) => ErrorKind::Permanent,
    };
    DbError::new(ACTION, kind, error)
}

/// Counts what differs, and makes the serving copy like the second one.
async fn take_over(transaction: &Transaction<'_>, below: i64) -> Result<Rebuilt, DbError> {
    let mut rebuilt = Rebuilt { below, ..Rebuilt::default() };
    for (table, key) in TABLES {
        let columns = columns(transaction, table).await?;
        let list = columns.join(", ");
        let (old, new) = (format!("public.{table}"), format!("{SCHEMA}.{table}"));
        let on = key.iter().map(|k| format!("o.{k} = n.{k}")).collect::<Vec<_>>().join(" AND ");
        let row = |alias: &str| columns.iter().map(|c| format!("{alias}.{c}")).collect::<Vec<_>>().join(", ");
        let sql = format!(
            "SELECT count(*) FROM {old} o FULL JOIN {new} n ON {on} WHERE ROW({}) IS DISTINCT FROM ROW({})",
            row("o"),
            row("n")
        );
        let count: i64 = transaction.query_one(&sql, &[]).await.during(ACTION)?.try_get(0).during(ACTION)?;
        if count == 0 {
            continue;
        }
        rebuilt.different.insert(table, count);
        let wrong = format!(
            "DELETE FROM {old} o WHERE NOT EXISTS (SELECT FROM {new} n WHERE {on} AND ROW({}) IS NOT DISTINCT FROM ROW({}))",
            row("o"),
            row("n")
        );
        let missing = format!(
            "INSERT INTO {old} ({list}) SELECT {list} FROM {new} n WHERE NOT EXISTS (SELECT FROM {old} o WHERE {on})"
        );
        transaction.batch_execute(&format!("{wrong}; {missing}")).await.during(ACTION)?;
    }
    let letters = format!(
        "DELETE FROM dead_letters WHERE lane = '{LANE}'; UPDATE dead_letters SET lane = '{LANE}' WHERE lane = '{SCRATCH_LANE}'"
    );
    transaction.batch_execute(&letters).await.during(ACTION)?;
    Ok(rebuilt)
}

/// The columns that are written; those that Postgres computes follow.
async fn columns(transaction: &Transaction<'_>, table: &str) -> Result<Vec<String>, DbError> {
    const SQL: &str = "SELECT quote_ident(column_name) FROM information_schema.columns \
         WHERE table_schema = 'public' AND table_name = $1 AND is_generated = 'NEVER' ORDER BY ordinal_position";
    let rows = transaction.query(SQL, &[&table]).await.during(ACTION)?;
    rows.iter().map(|row| row.try_get(0).during(ACTION)).collect()
}
