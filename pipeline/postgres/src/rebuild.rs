//! The tables of a lane in Postgres again, beside those that serve: the next version and how it takes over. What goes into it is read and folded by
//! `weir_verify`, which knows every source.
//!
//! 1. [`Scratch::begin`]: a scratch schema gets tables like those that serve, and is filled with whole rows, or by [`Scratch::begin_with_previous`] with
//!    those of the version before.
//! 2. [`Scratch::hold`] locks every row of the lane's ledger, so that the lane stands still in all processes; the caller applies what
//!    the lane did meanwhile.
//! 3. [`Scratch::take_over`] compares the two copies in the same transaction and exchanges what differs: the serving tables hold the new version then, and
//!    the scratch schema the one before, which is kept under another name. The lane's epochs are raised, so that a process with another projection is
//!    refused from then on.
//!
//! Rows are exchanged instead of tables being renamed: a reader with an older snapshot (a long `SELECT`, `weir verify`) would find a renamed table
//! empty, and views and grants would stay with the old one.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use futures::future::try_join_all;
use weir_engine::{LaneKind, Located, Partition, failpoint};
use weir_model::project::{FoldedRow, ReadModel, Units};

use crate::database::Database;
use crate::dead_letters;
use crate::error::{DbError, During, ErrorKind};
use crate::job_run::STALE_AFTER;
use crate::ledger::{Ledger, LedgerRow};
use crate::metric_totals::MetricTotals;
use crate::projection::Projection as _;
use crate::read_models::{self, LAYOUT, Part, ReadModelsProjection};
use crate::versions::{self, StandKept, previous_schema};
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
        self.kind().name()
    }

    fn kind(self) -> LaneKind {
        match self {
            Self::ReadModels => LaneKind::ReadModels,
            Self::Metrics => LaneKind::Metrics,
        }
    }

    /// Of the projection that this build fills it with.
    #[must_use]
    pub fn fingerprint(self, units: Units) -> String {
        versions::fingerprint(self.kind(), units)
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

/// What a version before that is in the way is called until it is dropped.
const DROPPED: &str = "weir_rebuild_dropped";

/// How often the lock is tried after a session was ended, and the wait between.
const TRIES: usize = 50;
const TRY_AFTER: Duration = Duration::from_millis(100);

/// Rows written at once.
const ROWS_MAX: usize = 2000;

/// Events applied in one transaction, as a lane's batch.
const APPLIED_MAX: usize = 20_000;

/// What a rebuild found and did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    /// By table: rows that only one copy had, or had otherwise.
    pub different: BTreeMap<String, i64>,
    /// The version that serves now, and the one before; `None` where nothing differed.
    pub versions: Option<(i32, i32)>,
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

impl Stand {
    /// What is kept of it beside a version.
    fn kept(&self) -> StandKept {
        let dead = |partition| self.dead.get(partition).into_iter().flatten().map(|(offset, _)| *offset).collect();
        StandKept::of(
            self.ledger.iter().map(|row| (row.partition.clone(), row.next_offset.unwrap_or(0), dead(&row.partition))),
        )
    }

    /// Where the lane stood then, in the partitions of now: in those that it did not read yet, at nothing.
    fn set_back(mut self, then: &StandKept) -> Self {
        let then = then.by_partition();
        for row in &mut self.ledger {
            row.next_offset = then.get(&row.partition).map(|(next, _)| *next);
        }
        let dead = |(_, dead): &(i64, Vec<i64>)| dead.iter().map(|offset| (*offset, false)).collect();
        self.dead = then.iter().map(|(partition, stand)| (partition.clone(), dead(stand))).collect();
        self
    }
}

/// The next version.
pub struct Scratch {
    subject: Subject,
    /// Of the projection that fills it.
    fingerprint: String,
    /// Holds the lock; in a transaction from [`Scratch::hold`] on.
    client: ClientWrapper,
    /// Looks into [`SCHEMA`] first.
    database: Database,
    /// Its number, where it is the version before that comes back.
    version: Option<i32>,
}

/// Applies events to some tables of the second copy.
pub struct Applier {
    database: Database,
    part: Part,
    projection: ReadModelsProjection,
}

impl Applier {
    /// Applies events, in the order of their lane.
    pub async fn apply(&self, events: &[Located]) -> Result<(), DbError> {
        let mut client = self.database.get().await?;
        let transaction = client.transaction().await.during(ACTION)?;
        let events: Vec<&Located> = events.iter().collect();
        self.projection.apply_part(self.part, &transaction, &events).await.map_err(permanent_apply)?;
        transaction.commit().await.during(ACTION)
    }
}

fn permanent(reason: impl std::fmt::Display) -> DbError {
    DbError::new(ACTION, ErrorKind::Permanent, reason.to_string())
}

/// By this name a session of a rebuild is known to others: it ends in the job's.
fn session_of(subject: Subject) -> String {
    format!("weir rebuild-{}", subject.lane())
}

/// Takes the lock of rebuilds; `false` while another process has it. A session of a run that was replaced, or of which nothing was heard, is
/// ended: it may hold the lane's ledger, and a process that stands still would hold it for ever.
async fn lock(client: &ClientWrapper, subject: Subject) -> Result<bool, DbError> {
    const LOCK: &str = "SELECT pg_try_advisory_lock($1, $2)";
    const END: &str = "SELECT pg_terminate_backend(a.pid) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid \
         WHERE l.locktype = 'advisory' AND l.classid = $1::int::oid AND l.objid = $2::int::oid AND l.granted \
           AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
           AND a.pid <> pg_backend_pid() AND a.application_name LIKE 'weir rebuild-%' \
           AND (a.application_name = $3 OR NOT EXISTS (SELECT FROM job_runs r WHERE a.application_name = 'weir ' || r.job \
             AND r.ended_at IS NULL AND r.seen_at > now() - make_interval(secs => $4)))";
    let (group, number) = locks::REBUILD;
    let (session, stale) = (session_of(subject), STALE_AFTER.as_secs_f64());
    for _ in 0..TRIES {
        if client.query_one(LOCK, &[&group, &number]).await.during(ACTION)?.try_get(0).during(ACTION)? {
            return Ok(true);
        }
        // Of this subject there is no other run but this one.
        if client.query(END, &[&group, &number, &session, &stale]).await.during(ACTION)?.is_empty() {
            return Ok(false);
        }
        tokio::time::sleep(TRY_AFTER).await;
    }
    Ok(false)
}

impl Scratch {
    /// Makes the next version, empty; `None` while another process rebuilds. What an earlier rebuild left is removed.
    pub async fn begin(database: &Database, subject: Subject, units: Units) -> Result<Option<Self>, DbError> {
        // Of its own: with this rebuild the connection ends, and with it the lock and what was not committed.
        let client = deadpool_postgres::Object::take(database.get().await?);
        let settings = format!(
            "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET application_name = '{}'",
            session_of(subject)
        );
        client.batch_execute(&settings).await.during(ACTION)?;
        if !lock(&client, subject).await? {
            return Ok(None);
        }
        let fingerprint = subject.fingerprint(units);
        let scratch =
            Self { subject, fingerprint, client, database: database.through(SCHEMA, Part::ALL.len())?, version: None };
        scratch.clear().await?;
        Ok(Some(scratch))
    }

    /// [`Self::begin`] with the rows of the version before, and where the lane stood with them. Refused where they are not there, or another
    /// projection's.
    pub async fn begin_with_previous(
        database: &Database,
        subject: Subject,
        units: Units,
    ) -> Result<Option<(Self, Stand)>, DbError> {
        let Some(mut scratch) = Self::begin(database, subject, units).await? else { return Ok(None) };
        let (lane, schema) = (subject.lane(), previous_schema(subject.lane()));
        let versions = versions::of_lane(&*scratch.client, lane).await?;
        let previous = versions.and_then(|versions| versions.previous);
        let previous =
            previous.ok_or_else(|| permanent(format!("no version before the one that serves is kept of {lane}")))?;
        if previous.fingerprint != scratch.fingerprint {
            return Err(permanent(format!(
                "version {} of {lane} was made by another projection ({}): roll back with the weir that made it, or with its `durations`",
                previous.version, previous.fingerprint
            )));
        }
        // Until they are logged, a crash of Postgres, or a failover, empties them.
        const UNLOGGED: &str = "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = $1 AND c.relkind = 'r' AND c.relpersistence = 'u')";
        let unlogged = scratch.client.query_one(UNLOGGED, &[&schema]).await.during(ACTION)?;
        if unlogged.try_get(0).during(ACTION)? {
            let words = "its rebuild died before that was safe from a crash of Postgres";
            return Err(permanent(format!("version {} of {lane} is not whole: {words}", previous.version)));
        }
        for table in subject.tables() {
            let list = scratch.columns(table).await?.join(", ");
            let copy = format!("INSERT INTO {SCHEMA}.{table} ({list}) SELECT {list} FROM {schema}.{table}");
            scratch.client.batch_execute(&copy).await.during(ACTION)?;
        }
        scratch.version = Some(previous.version);
        let now = scratch.stand().await?;
        Ok(Some((scratch, now.set_back(&previous.stand))))
    }

    /// Empties the next version.
    pub async fn clear(&self) -> Result<(), DbError> {
        // Unlogged: a crash loses the copy, and the next rebuild begins again anyway.
        let tables = self.subject.tables().into_iter();
        let tables = tables
            .map(|table| format!("CREATE UNLOGGED TABLE {SCHEMA}.{table} (LIKE public.{table} INCLUDING ALL)"))
            .collect::<Vec<_>>();
        let sql = format!(
            "DROP SCHEMA IF EXISTS {DROPPED} CASCADE; DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; CREATE SCHEMA {SCHEMA}; {}",
            tables.join("; ")
        );
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
        for some in events.chunks(APPLIED_MAX) {
            let transaction = client.transaction().await.during(ACTION)?;
            let some: Vec<&Located> = some.iter().collect();
            ReadModelsProjection { units }.apply(&transaction, &some).await.map_err(permanent_apply)?;
            transaction.commit().await.during(ACTION)?;
        }
        Ok(())
    }

    /// What applies events to one part of the read models, for a task of its own.
    #[must_use]
    pub fn applier(&self, part: Part, units: Units) -> Applier {
        Applier { database: self.database.clone(), part, projection: ReadModelsProjection { units } }
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

    /// Exchanges what differs between the serving version and this one, keeps that as the version before, and lets the lane go on. `stand` is
    /// where the lane is held. Counters that would fall are refused unless `accepts_reset`, and nothing is changed then.
    pub async fn take_over(self, stand: &Stand, accepts_reset: bool) -> Result<Rebuilt, DbError> {
        let mut rebuilt = Rebuilt::default();
        if self.subject == Subject::Metrics && !accepts_reset {
            self.refuse_falling().await?;
        }
        // Side by side: the lane stands still, so all sessions see the same.
        let tables = self.subject.tables();
        let counts = try_join_all(tables.iter().map(|table| self.different(table))).await?;
        for (table, different) in tables.into_iter().zip(counts).filter(|(_, different)| *different > 0) {
            self.exchange(table).await?;
            rebuilt.different.insert(table.to_owned(), different);
        }
        const BUILT: &str = "UPDATE read_models_layout SET layout = $1, built_at = now()";
        if self.subject == Subject::ReadModels {
            self.client.execute(BUILT, &[&LAYOUT]).await.during(ACTION)?;
        }
        let is_another = self.swap(stand, &mut rebuilt).await?;
        failpoint::hit("rebuild.before_commit");
        self.client.batch_execute("COMMIT").await.during(ACTION)?;
        failpoint::hit("rebuild.after_commit");
        let mut sql = format!("DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; DROP SCHEMA IF EXISTS {DROPPED} CASCADE");
        if is_another {
            let schema = previous_schema(self.subject.lane());
            let logged = |table| format!("; ALTER TABLE {schema}.{table} SET LOGGED");
            sql.extend(self.subject.tables().into_iter().map(logged));
        }
        // It has taken over: what fails here is only tidied up later.
        if let Err(error) = self.client.batch_execute(&sql).await {
            tracing::warn!(%error, "the version before cannot be rolled back to");
        }
        Ok(rebuilt)
    }

    /// Makes this version the serving one, if it is another one at all.
    async fn swap(&self, stand: &Stand, rebuilt: &mut Rebuilt) -> Result<bool, DbError> {
        const FENCE: &str =
            "UPDATE ledger SET epoch = epoch + 1, owner = 'rebuilt' WHERE lane = $1 AND retired_at IS NULL";
        let lane = self.subject.lane();
        let found = versions::of_lane(&*self.client, lane).await?;
        let is_ours = found.is_none_or(|found| found.fingerprint == self.fingerprint);
        if rebuilt.different.is_empty() && is_ours && self.version.is_none() {
            return Ok(false);
        }
        let (fingerprint, kept) = (&self.fingerprint, stand.kept());
        let versions = versions::swap(&*self.client, lane, fingerprint, self.version, &kept).await?;
        self.client.execute(FENCE, &[&lane]).await.during(ACTION)?;
        let schema = previous_schema(lane);
        // Renamed, since dropping waits for those who look into it.
        const THERE: &str = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)";
        if self.client.query_one(THERE, &[&schema]).await.during(ACTION)?.try_get(0).during(ACTION)? {
            self.client.batch_execute(&format!("ALTER SCHEMA {schema} RENAME TO {DROPPED}")).await.during(ACTION)?;
        }
        self.client.batch_execute(&format!("ALTER SCHEMA {SCHEMA} RENAME TO {schema}")).await.during(ACTION)?;
        rebuilt.versions = Some(versions);
        Ok(true)
    }

    /// To Prometheus a counter that falls began again from nothing.
    async fn refuse_falling(&self) -> Result<(), DbError> {
        let sql = format!(
            "SELECT o.name || CASE WHEN o.label = '' THEN '' ELSE '{{' || o.label || '}}' END, o.value::text, coalesce(n.value, 0)::text \
             FROM public.metric_counters o LEFT JOIN {SCHEMA}.metric_counters n USING (name, label) WHERE coalesce(n.value, 0) < o.value \
             UNION ALL SELECT o.name || ' bucket ' || o.bucket, o.observations::text || ' (' || o.sum_micros || ' us)', \
               coalesce(n.observations, 0)::text || ' (' || coalesce(n.sum_micros, 0) || ' us)' \
             FROM public.metric_histogram_buckets o LEFT JOIN {SCHEMA}.metric_histogram_buckets n USING (name, bucket) \
             WHERE coalesce(n.observations, 0) < o.observations OR coalesce(n.sum_micros, 0) < o.sum_micros ORDER BY 1"
        );
        let mut falling = Vec::new();
        for row in self.client.query(&sql, &[]).await.during(ACTION)? {
            let of = |column: usize| row.try_get::<_, String>(column).during(ACTION);
            falling.push(format!("{} from {} to {}", of(0)?, of(1)?, of(2)?));
        }
        if falling.is_empty() {
            return Ok(());
        }
        Err(permanent(format!(
            "counters would fall, which Prometheus takes for a restart: {}; nothing was changed. `weir rebuild metrics --accept-reset` lets them",
            falling.join(", ")
        )))
    }

    /// Rows of the serving table that this one has not, or has otherwise, and the other way round.
    async fn different(&self, table: &str) -> Result<i64, DbError> {
        let (columns, key) = (self.columns(table).await?, self.key(table).await?);
        let (at, same) = (is_same("o", "n", &key), is_alike(&columns));
        let sql =
            format!("SELECT count(*) FROM public.{table} o FULL JOIN {SCHEMA}.{table} n ON {at} WHERE NOT ({same})");
        let mut client = self.database.get().await?;
        let transaction = client.transaction().await.during(ACTION)?;
        transaction.batch_execute("SET LOCAL statement_timeout = 0").await.during(ACTION)?;
        transaction.query_one(&sql, &[]).await.during(ACTION)?.try_get(0).during(ACTION)
    }

    /// What differs changes places.
    async fn exchange(&self, table: &str) -> Result<(), DbError> {
        let (columns, key) = (self.columns(table).await?, self.key(table).await?);
        let list = columns.join(", ");
        let (old, new) = (format!("public.{table}"), format!("{SCHEMA}.{table}"));
        let on = |a: &str, b: &str| is_same(a, b, &key);
        let (at, same) = (on("o", "n"), is_alike(&columns));
        let (goes, comes) = (format!("{SCHEMA}.goes"), format!("{SCHEMA}.comes"));
        let (going, coming) = (on("o", "g"), on("n", "c"));
        let sql = format!(
            "CREATE UNLOGGED TABLE {goes} AS SELECT {list} FROM {old} o WHERE NOT EXISTS (SELECT FROM {new} n WHERE {at} AND {same}); \
             CREATE UNLOGGED TABLE {comes} AS SELECT {list} FROM {new} n WHERE NOT EXISTS (SELECT FROM {old} o WHERE {at} AND {same}); \
             DELETE FROM {old} o USING {goes} g WHERE {going}; DELETE FROM {new} n USING {comes} c WHERE {coming}; \
             INSERT INTO {old} ({list}) SELECT {list} FROM {comes}; INSERT INTO {new} ({list}) SELECT {list} FROM {goes}; \
             DROP TABLE {goes}; DROP TABLE {comes}"
        );
        self.client.batch_execute(&sql).await.during(ACTION)
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

/// That two rows have the same key.
fn is_same(a: &str, b: &str, key: &[String]) -> String {
    key.iter().map(|k| format!("{a}.{k} = {b}.{k}")).collect::<Vec<_>>().join(" AND ")
}

/// That the rows `o` and `n` have the same values.
fn is_alike(columns: &[String]) -> String {
    let row = |alias: &str| columns.iter().map(|c| format!("{alias}.{c}")).collect::<Vec<_>>().join(", ");
    format!("ROW({}) IS NOT DISTINCT FROM ROW({})", row("o"), row("n"))
}

fn permanent_apply(error: crate::projection::ApplyError) -> DbError {
    match error {
        crate::projection::ApplyError::Db(error) => error,
        refused @ crate::projection::ApplyError::Refused(_) => permanent(weir_engine::retry::chain(&refused)),
    }
}
