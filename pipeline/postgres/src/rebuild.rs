//! The tables of a lane in Postgres again, beside those that serve: the second copy and how it takes over. What goes into it is read and folded by
//! `weir_verify`, which knows every source.
//!
//! 1. [`Scratch::begin`]: a scratch schema gets tables like those that serve, and is filled with whole rows.
//! 2. [`Scratch::hold`] locks every row of the lane's ledger, so that the lane stands still in all processes; the caller applies what
//!    the lane did meanwhile.
//! 3. [`Scratch::take_over`] compares the two copies in the same transaction, and makes the serving one like the second.
//!
//! What differs is merged row by row instead of tables being renamed: a reader with an older snapshot (a long `SELECT`, `weir
//! verify`) would find a renamed table empty, and views and grants would stay with the old one.

use std::collections::{BTreeMap, HashMap};

use deadpool_postgres::ClientWrapper;
use weir_engine::{LaneKind, Located, Partition, failpoint};
use weir_model::project::{FoldedRow, ReadModel, Units};

use crate::database::Database;
use crate::dead_letters;
use crate::error::{DbError, During, ErrorKind};
use crate::ledger::{Ledger, LedgerRow};
use crate::metric_totals::MetricTotals;
use crate::projection::Projection as _;
use crate::read_models::{self, LAYOUT, ReadModelsProjection};
use crate::{locks, repeats};

const ACTION: &str = "rebuilding a lane's tables";

/// What is rebuilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// What the lane `read-models` keeps.
    ReadModels,
    /// What the lane `metrics` keeps.
    Metrics,
}

impl Subject {
    /// The lane that keeps it.
    #[must_use]
    pub fn lane(self) -> &'static str {
        match self {
            Self::ReadModels => LaneKind::ReadModels.name(),
            Self::Metrics => LaneKind::Metrics.name(),
        }
    }

    fn tables(self) -> Vec<&'static str> {
        match self {
            Self::ReadModels => {
                ReadModel::ALL.into_iter().map(ReadModel::table).chain(["learner_learning_paths"]).collect()
            }
            Self::Metrics => vec!["metric_counters", "metric_histogram_buckets"],
        }
    }
}

/// Where the second copy is.
const SCHEMA: &str = "weir_rebuild";

/// Rows written at once.
const ROWS_MAX: usize = 2000;

/// What a rebuild found and did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    /// By table: rows that only one copy had, or had otherwise.
    pub different: BTreeMap<String, i64>,
}

impl Rebuilt {
    /// Rows that differed.
    #[must_use]
    pub fn rows_different(&self) -> i64 {
        self.different.values().sum()
    }
}

/// What the lane stands at: its ledger, and what it left out below it.
#[derive(Debug, Clone, Default)]
pub struct Stand {
    /// Its rows of the ledger, retired ones too.
    pub ledger: Vec<LedgerRow>,
    /// Dead letters by partition and offset, and whether a redrive was asked for.
    pub dead: HashMap<Partition, HashMap<i64, bool>>,
    /// Repeats by partition and offset, with their event ids.
    pub repeats: HashMap<Partition, HashMap<i64, String>>,
}

/// The second copy.
pub struct Scratch {
    subject: Subject,
    /// Holds the lock; in a transaction from [`Scratch::hold`] on.
    client: ClientWrapper,
    /// Looks into [`SCHEMA`] first.
    database: Database,
}

fn permanent(reason: impl std::fmt::Display) -> DbError {
    DbError::new(ACTION, ErrorKind::Permanent, reason.to_string())
}

impl Scratch {
    /// Makes the second copy, empty; `None` while another process rebuilds. What an earlier rebuild left is removed.
    pub async fn begin(database: &Database, subject: Subject) -> Result<Option<Self>, DbError> {
        // Of its own: with this rebuild the connection ends, and with it the lock and what was not committed.
        let client = deadpool_postgres::Object::take(database.get().await?);
        let settings = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0";
        client.batch_execute(settings).await.during(ACTION)?;
        let lock = client
            .query_one("SELECT pg_try_advisory_lock($1, $2)", &[&locks::REBUILD.0, &locks::REBUILD.1])
            .await
            .during(ACTION)?;
        if !lock.try_get::<_, bool>(0).during(ACTION)? {
            return Ok(None);
        }
        let scratch = Self { subject, client, database: database.through(SCHEMA)? };
        scratch.clear().await?;
        Ok(Some(scratch))
    }

    /// Empties the second copy.
    pub async fn clear(&self) -> Result<(), DbError> {
        // Unlogged: a crash loses the second copy, and the next rebuild begins again anyway.
        let tables = self.subject.tables().into_iter();
        let tables = tables
            .map(|table| format!("CREATE UNLOGGED TABLE {SCHEMA}.{table} (LIKE public.{table} INCLUDING ALL)"))
            .collect::<Vec<_>>();
        let sql = format!("DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; CREATE SCHEMA {SCHEMA}; {}", tables.join("; "));
        self.client.batch_execute(&sql).await.during(ACTION)
    }

    /// Where the lane stands now, at one moment.
    pub async fn stand(&self) -> Result<Stand, DbError> {
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        self.client.batch_execute(begin).await.during(ACTION)?;
        let stand = self.read_stand().await;
        self.client.batch_execute("COMMIT").await.during(ACTION)?;
        stand
    }

    async fn read_stand(&self) -> Result<Stand, DbError> {
        let mut ledger = Ledger::rows(&*self.client).await?;
        ledger.retain(|row| row.lane == self.subject.lane());
        let dead = dead_letters::offsets(&*self.client, self.subject.lane()).await?;
        let repeats = repeats::left_out(&*self.client, self.subject.lane()).await?;
        Ok(Stand { ledger, dead, repeats })
    }

    /// Writes whole rows.
    pub async fn write(&self, mut rows: Vec<FoldedRow>) -> Result<(), DbError> {
        while !rows.is_empty() {
            let some = rows.split_off(rows.len().saturating_sub(ROWS_MAX));
            let mut client = self.database.get().await?;
            let transaction = client.transaction().await.during(ACTION)?;
            read_models::write(&transaction, some).await?;
            transaction.commit().await.during(ACTION)?;
        }
        Ok(())
    }

    /// Adds counts to those of the second copy.
    pub async fn add(&self, totals: &MetricTotals) -> Result<(), DbError> {
        let mut client = self.database.get().await?;
        let transaction = client.transaction().await.during(ACTION)?;
        totals.add_to(&transaction).await?;
        transaction.commit().await.during(ACTION)
    }

    /// Applies events as the lane does.
    pub async fn apply(&self, events: &[Located], units: Units) -> Result<(), DbError> {
        let mut client = self.database.get().await?;
        for some in events.chunks(ROWS_MAX) {
            let transaction = client.transaction().await.during(ACTION)?;
            let some: Vec<&Located> = some.iter().collect();
            ReadModelsProjection { units }.apply(&transaction, &some).await.map_err(permanent_apply)?;
            transaction.commit().await.during(ACTION)?;
        }
        Ok(())
    }

    /// Lets the lane stand still, wherever it runs, until [`Self::take_over`] or [`Self::let_go`]; where it stands.
    pub async fn hold(&self) -> Result<Stand, DbError> {
        self.client.batch_execute("BEGIN; SET LOCAL lock_timeout = '60s'").await.during(ACTION)?;
        const SQL: &str = "SELECT 1 FROM ledger WHERE lane = $1 ORDER BY source, topic, partition FOR UPDATE";
        self.client.query(SQL, &[&self.subject.lane()]).await.during(ACTION)?;
        self.read_stand().await
    }

    /// Ends what [`Self::hold`] began, with nothing changed.
    pub async fn let_go(&self) -> Result<(), DbError> {
        self.client.batch_execute("ROLLBACK").await.during(ACTION)
    }

    /// Counts what differs, makes the serving copy like the second one, and lets the lane go on.
    pub async fn take_over(self) -> Result<Rebuilt, DbError> {
        let mut rebuilt = Rebuilt::default();
        for table in self.subject.tables() {
            let different = self.merge(table).await?;
            if different > 0 {
                rebuilt.different.insert(table.to_owned(), different);
            }
        }
        const BUILT: &str = "UPDATE read_models_layout SET layout = $1, built_at = now()";
        if self.subject == Subject::ReadModels {
            self.client.execute(BUILT, &[&LAYOUT]).await.during(ACTION)?;
        }
        failpoint::hit("rebuild.before_commit");
        self.client.batch_execute("COMMIT").await.during(ACTION)?;
        failpoint::hit("rebuild.after_commit");
        self.client.batch_execute(&format!("DROP SCHEMA {SCHEMA} CASCADE")).await.during(ACTION)?;
        Ok(rebuilt)
    }

    async fn merge(&self, table: &str) -> Result<i64, DbError> {
        let (columns, key) = (self.columns(table).await?, self.key(table).await?);
        let list = columns.join(", ");
        let (old, new) = (format!("public.{table}"), format!("{SCHEMA}.{table}"));
        let on = key.iter().map(|k| format!("o.{k} = n.{k}")).collect::<Vec<_>>().join(" AND ");
        let row = |alias: &str| columns.iter().map(|c| format!("{alias}.{c}")).collect::<Vec<_>>().join(", ");
        let same = format!("ROW({}) IS NOT DISTINCT FROM ROW({})", row("o"), row("n"));
        let sql = format!("SELECT count(*) FROM {old} o FULL JOIN {new} n ON {on} WHERE NOT ({same})");
        let count: i64 = self.client.query_one(&sql, &[]).await.during(ACTION)?.try_get(0).during(ACTION)?;
        if count == 0 {
            return Ok(0);
        }
        let wrong = format!("DELETE FROM {old} o WHERE NOT EXISTS (SELECT FROM {new} n WHERE {on} AND {same})");
        let missing = format!(
            "INSERT INTO {old} ({list}) SELECT {list} FROM {new} n WHERE NOT EXISTS (SELECT FROM {old} o WHERE {on})"
        );
        self.client.batch_execute(&format!("{wrong}; {missing}")).await.during(ACTION)?;
        Ok(count)
    }

    /// The columns that are written; those that Postgres computes follow.
    async fn columns(&self, table: &str) -> Result<Vec<String>, DbError> {
        const SQL: &str = "SELECT quote_ident(column_name) FROM information_schema.columns \
             WHERE table_schema = 'public' AND table_name = $1 AND is_generated = 'NEVER' ORDER BY ordinal_position";
        let rows = self.client.query(SQL, &[&table]).await.during(ACTION)?;
        rows.iter().map(|row| row.try_get(0).during(ACTION)).collect()
    }

    async fn key(&self, table: &str) -> Result<Vec<String>, DbError> {
        const SQL: &str = "SELECT quote_ident(a.attname) FROM pg_index i \
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey) \
             WHERE i.indisprimary AND i.indrelid = ('public.' || $1)::text::regclass";
        let rows = self.client.query(SQL, &[&table]).await.during(ACTION)?;
        rows.iter().map(|row| row.try_get(0).during(ACTION)).collect()
    }
}

fn permanent_apply(error: crate::projection::ApplyError) -> DbError {
    match error {
        crate::projection::ApplyError::Db(error) => error,
        refused @ crate::projection::ApplyError::Refused(_) => permanent(weir_engine::retry::chain(&refused)),
    }
}
