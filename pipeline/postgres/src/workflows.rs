//! Workflows: tables that are computed out of the read models, by a file of SQL each.
//!
//! 1. in a transaction that only reads, as `weir_workflows`: where the lane read-models stands, which windows its records have touched since the
//!    table was computed last, and the rows of those windows;
//! 2. in another: if no other run has come between, the rows in the place of those that were there, and how far they go.
//!
//! The first is one snapshot, in which the read models hold exactly what the ledger says, so a row and the offsets beside it never disagree; a
//! watermark over times would skip what commits late. A crash before the second leaves the table as it was. Which windows are touched is known
//! where the lane reads the event store; on topics all windows within the lookback are computed again.

mod export;
mod head;

pub use export::{Column, Export};
pub use head::{HeadError, Trigger, Window, Workflow};

use std::collections::BTreeMap;
use std::time::Instant;

use deadpool_postgres::ClientWrapper;
use jiff::Timestamp as JiffTimestamp;
use tokio_postgres::{GenericClient, IsolationLevel, Transaction};
use weir_engine::failpoint;

use crate::database::Database;
use crate::error::{DbError, During, ErrorKind};
use crate::job_run::JobFence;
use crate::source::EVENT_STORE_TOPIC;

const ACTION: &str = "computing a workflow's table";

/// Rows that are carried over together.
const ROWS: i32 = 1000;

/// Where a workflow's table stands.
#[derive(Debug, Clone)]
pub struct State {
    /// Of the file that computed it.
    pub fingerprint: String,
    /// The ledger offsets of the lane read-models that its rows are of, by partition.
    pub read_to: BTreeMap<String, i64>,
    /// Rows written by the last run.
    pub rows: i64,
    /// Windows that it computed; 0 for the whole table.
    pub windows: i64,
    /// When.
    pub computed_at: JiffTimestamp,
}

impl State {
    /// Names the computation.
    #[must_use]
    pub fn version(&self) -> String {
        format!("{} {}", self.computed_at, self.fingerprint)
    }
}

/// What a run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Computed {
    /// Windows; 0 for the whole table.
    pub windows: usize,
    /// Rows written.
    pub rows: u64,
}

/// Which windows are computed.
enum Scope {
    All,
    /// From this one on.
    From(JiffTimestamp),
    These(Vec<JiffTimestamp>),
}

/// What [`compute`] begins with, of one snapshot.
struct Before {
    state: Option<State>,
    read_to: BTreeMap<String, i64>,
    scope: Scope,
}

/// The states of all tables.
pub async fn states(client: &impl GenericClient) -> Result<BTreeMap<String, State>, DbError> {
    let rows = client.query("SELECT * FROM workflow_state", &[]).await.during(ACTION)?;
    let mut states = BTreeMap::new();
    for row in rows {
        let read_to: serde_json::Value = row.try_get("read_to").during(ACTION)?;
        let state = State {
            fingerprint: row.try_get("fingerprint").during(ACTION)?,
            read_to: serde_json::from_value(read_to).unwrap_or_default(),
            rows: row.try_get("rows").during(ACTION)?,
            windows: row.try_get("windows").during(ACTION)?,
            computed_at: row.try_get("computed_at").during(ACTION)?,
        };
        states.insert(row.try_get("name").during(ACTION)?, state);
    }
    Ok(states)
}

/// Beside the partitions in what a table was read to: which records are dead letters, and the last rebuild. A redrive and a rebuild change read
/// models, and move no offset.
const DEAD_LETTERS: &str = "(dead letters)";
const REBUILT: &str = "(rebuilt)";

/// Where the lane read-models stands, by partition, and what else its tables depend on; empty while it has read nothing.
pub async fn read_to(client: &impl GenericClient) -> Result<BTreeMap<String, i64>, DbError> {
    const SQL: &str = "SELECT source || '/' || topic || '/' || partition, next_offset FROM ledger \
         WHERE lane = 'read-models' AND next_offset IS NOT NULL AND retired_at IS NULL";
    // What changes read models and moves no offset.
    const BESIDE: &str = "SELECT (SELECT coalesce(sum(id), 0)::bigint FROM dead_letters WHERE lane = 'read-models'), \
         (SELECT coalesce(max(id), 0) FROM job_runs WHERE job = 'rebuild-read-models' AND outcome = 'ok')";
    let rows = client.query(SQL, &[]).await.during(ACTION)?;
    let of_row = |row: &tokio_postgres::Row| Ok((row.try_get(0).during(ACTION)?, row.try_get(1).during(ACTION)?));
    let mut standing = rows.iter().map(of_row).collect::<Result<BTreeMap<String, i64>, DbError>>()?;
    if !standing.is_empty() {
        let beside = client.query_one(BESIDE, &[]).await.during(ACTION)?;
        standing.insert(DEAD_LETTERS.to_owned(), beside.try_get(0).during(ACTION)?);
        standing.insert(REBUILT.to_owned(), beside.try_get(1).during(ACTION)?);
    }
    Ok(standing)
}

/// The stretch of the event store between two standings of the lane, where that is all that it reads.
#[must_use]
pub fn stretch(from: &BTreeMap<String, i64>, to: &BTreeMap<String, i64>) -> Option<(i64, i64)> {
    let is_beside = |name: &str| name == DEAD_LETTERS || name == REBUILT;
    if from.iter().zip(to).any(|(old, new)| is_beside(old.0) && old != new) || from.len() != 3 || to.len() != 3 {
        return None;
    }
    let ((name, start), (same, end)) = from.iter().zip(to).find(|(old, _)| !is_beside(old.0))?;
    let is_event_store = name.ends_with(&format!("/{EVENT_STORE_TOPIC}/0"));
    (name == same && is_event_store && start <= end).then_some((*start, *end))
}

/// When the newest event of these types was appended that is not in a table yet.
pub async fn newest_event(
    client: &impl GenericClient,
    event_types: &[String],
    (from, to): (i64, i64),
) -> Result<Option<JiffTimestamp>, DbError> {
    const SQL: &str = "SELECT max(recorded_at) FROM events WHERE id >= $1 AND id < $2 AND event_type = ANY($3)";
    client.query_one(SQL, &[&from, &to, &event_types]).await.during(ACTION)?.try_get(0).during(ACTION)
}

/// Checks a workflow's SQL against the tables that are there; gives the tables that it reads.
pub async fn check(database: &Database, workflow: &Workflow) -> Result<Vec<String>, DbError> {
    let mut client = session(database).await?;
    let reading = begin_reading(&mut client).await?;
    let sql = workflow.query();
    let prepared = reading.prepare(&sql).await.map_err(|error| misplaced(workflow, error))?;
    let names: Vec<&str> = prepared.columns().iter().map(tokio_postgres::Column::name).collect();
    let wanted = workflow.keys.iter().map(String::as_str).chain(workflow.window.map(|_| "window_start"));
    if let Some(missing) = wanted.into_iter().find(|key| !names.contains(key)) {
        let words = format!("{}: its SQL gives no column {missing}; it gives {}", workflow.name, names.join(", "));
        return Err(DbError::new(ACTION, ErrorKind::Permanent, words));
    }
    let plan: serde_json::Value = reading
        .query_one(&format!("EXPLAIN (FORMAT JSON) {sql}"), &[])
        .await
        .during(ACTION)?
        .try_get(0)
        .during(ACTION)?;
    let mut tables = std::collections::BTreeSet::new();
    relations(&plan, &mut tables);
    Ok(tables.into_iter().collect())
}

fn relations(plan: &serde_json::Value, into: &mut std::collections::BTreeSet<String>) {
    match plan {
        serde_json::Value::Object(node) => {
            if let Some(name) = node.get("Relation Name").and_then(serde_json::Value::as_str) {
                into.insert(name.to_owned());
            }
            node.values().for_each(|value| relations(value, into));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| relations(item, into)),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => {}
    }
}

/// Postgres' words with the place in the file.
fn misplaced(workflow: &Workflow, error: tokio_postgres::Error) -> DbError {
    let Some(db) = error.as_db_error() else { return DbError::of(ACTION, error) };
    let place = match db.position() {
        Some(tokio_postgres::error::ErrorPosition::Original(at)) => {
            let at = usize::try_from(*at).unwrap_or(0).saturating_sub(Workflow::BEFORE.chars().count() + 1);
            let before: String = workflow.sql.chars().take(at).collect();
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().map_or(1, |rest| rest.chars().count() + 1);
            format!(" line {line}, column {column}")
        }
        _ => String::new(),
    };
    let hint = db.hint().map_or_else(String::new, |hint| format!(" ({hint})"));
    let words = format!("{}{place}: {}{hint}", workflow.origin, db.message());
    DbError::new(ACTION, ErrorKind::Permanent, words)
}

/// A session that ends with what uses it: a run that is stopped in the middle of a long query must not leave that to the next user of a pool's.
async fn session(database: &Database) -> Result<ClientWrapper, DbError> {
    let client = deadpool_postgres::Object::take(database.get().await?);
    // One of the two waits while the other works.
    let patience = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0";
    client.batch_execute(patience).await.during(ACTION)?;
    Ok(client)
}

/// Lets `weir_workflows` read what `weir_reader` may, tables of one's own too.
const SHARE: &str = "DO $$ DECLARE t regclass; BEGIN \
     IF NOT has_schema_privilege('weir_workflows', 'workflows', 'USAGE') THEN \
       GRANT USAGE ON SCHEMA public, workflows TO weir_workflows; END IF; \
     FOR t IN SELECT oid FROM pg_class WHERE relnamespace IN ('public'::regnamespace, 'workflows'::regnamespace) \
       AND relkind IN ('r', 'v', 'm', 'p') AND pg_has_role(relowner, 'USAGE') AND has_table_privilege('weir_reader', oid, 'SELECT') \
       AND NOT has_table_privilege('weir_workflows', oid, 'SELECT') LOOP \
       EXECUTE format('GRANT SELECT ON %s TO weir_workflows', t); END LOOP; \
     EXCEPTION WHEN undefined_object THEN NULL; END $$";

async fn begin_reading(client: &mut ClientWrapper) -> Result<deadpool_postgres::Transaction<'_>, DbError> {
    client.batch_execute(SHARE).await.during(ACTION)?;
    let reading = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await
        .during(ACTION)?;
    if let Err(error) = reading.batch_execute("SET LOCAL ROLE weir_workflows").await {
        let words = format!(
            "a workflow reads as weir_workflows: an administrator makes that role, and grants it to the user of postgres.url ({error})"
        );
        return Err(DbError::new(ACTION, ErrorKind::Permanent, words));
    }
    Ok(reading)
}

/// Computes a workflow's table as far as the lane read-models is. `fence` is the right of the job's run to do so.
pub async fn compute(database: &Database, workflow: &Workflow, fence: &JobFence) -> Result<Computed, DbError> {
    let began = Instant::now();
    let (mut reader, mut writer) = (session(database).await?, session(database).await?);
    let reading = begin_reading(&mut reader).await?;
    // What is wrong with the file is said with its place.
    reading.prepare(&workflow.query()).await.map_err(|error| misplaced(workflow, error))?;
    let before = before(&*reading, workflow).await?;
    let writing = writer.transaction().await.during(ACTION)?;
    fence.hold(&*writing).await?;
    take_turn(&*writing, workflow, before.state.as_ref()).await?;
    make_table(&*writing, workflow, before.state.as_ref()).await?;
    let computed = carry(&reading, &*writing, workflow, &before.scope).await?;
    let read_to = serde_json::to_value(&before.read_to).unwrap_or_default();
    let (windows, rows) = (i64::try_from(computed.windows).unwrap_or(0), i64::try_from(computed.rows).unwrap_or(0));
    const STATE: &str = "INSERT INTO workflow_state (name, fingerprint, read_to, windows, rows, computed_at, took) \
         VALUES ($1, $2, $3, $4, $5, clock_timestamp(), make_interval(secs => $6)) ON CONFLICT (name) DO UPDATE SET \
         fingerprint = excluded.fingerprint, read_to = excluded.read_to, windows = excluded.windows, rows = excluded.rows, \
         computed_at = excluded.computed_at, took = excluded.took";
    let took = began.elapsed().as_secs_f64();
    writing
        .execute(STATE, &[&workflow.name, &workflow.fingerprint, &read_to, &windows, &rows, &took])
        .await
        .during(ACTION)?;
    failpoint::hit("workflow.before_commit");
    writing.commit().await.during(ACTION)?;
    failpoint::hit("workflow.after_commit");
    drop(reading.rollback().await);
    Ok(computed)
}

async fn before(reading: &impl GenericClient, workflow: &Workflow) -> Result<Before, DbError> {
    let state = states(reading).await?.remove(&workflow.name);
    let read_to = read_to(reading).await?;
    let scope = match (&state, workflow.window) {
        (Some(state), Some(window)) if state.fingerprint == workflow.fingerprint => {
            let touched = match stretch(&state.read_to, &read_to) {
                Some((from, to)) => Some(touched(reading, window, from, to).await?),
                None => None,
            };
            let newest =
                newest_window(reading, workflow).await?.into_iter().chain(touched.iter().flatten().copied()).max();
            let from = newest.and_then(|newest| window.back(newest, workflow.lookback_days));
            match (touched, from) {
                (Some(touched), Some(from)) => {
                    Scope::These(touched.into_iter().filter(|start| *start >= from).collect())
                }
                (None, Some(from)) => Scope::From(from),
                (_, None) => Scope::All,
            }
        }
        _ => Scope::All,
    };
    Ok(Before { state, read_to, scope })
}

/// The windows of the events between two positions.
async fn touched(
    reading: &impl GenericClient,
    window: Window,
    from: i64,
    to: i64,
) -> Result<Vec<JiffTimestamp>, DbError> {
    const SQL: &str = "SELECT DISTINCT date_trunc($1, timestamp, 'UTC') FROM events WHERE id >= $2 AND id < $3";
    let rows = reading.query(SQL, &[&window.as_str(), &from, &to]).await.during(ACTION)?;
    rows.iter().map(|row| row.try_get(0).during(ACTION)).collect()
}

async fn newest_window(reading: &impl GenericClient, workflow: &Workflow) -> Result<Option<JiffTimestamp>, DbError> {
    let sql = format!("SELECT max(window_start) FROM workflows.{}", workflow.name);
    reading.query_one(&sql, &[]).await.during(ACTION)?.try_get(0).during(ACTION)
}

/// Refuses to go on where another run has computed the table since it was looked at.
async fn take_turn(writing: &impl GenericClient, workflow: &Workflow, seen: Option<&State>) -> Result<(), DbError> {
    let now = states(writing).await?.remove(&workflow.name);
    let as_seen = |state: &State| (state.fingerprint.clone(), state.read_to.clone(), state.computed_at);
    if now.as_ref().map(as_seen) == seen.map(as_seen) {
        return Ok(());
    }
    Err(DbError::new(ACTION, ErrorKind::Permanent, "another run has computed it meanwhile"))
}

/// The table, as its SQL has it; made again where the file is another one.
async fn make_table(writing: &impl GenericClient, workflow: &Workflow, state: Option<&State>) -> Result<(), DbError> {
    if state.is_some_and(|state| state.fingerprint == workflow.fingerprint) {
        return Ok(());
    }
    let Workflow { name, keys, .. } = workflow;
    let create = format!(
        "DROP TABLE IF EXISTS workflows.{name}; CREATE TABLE workflows.{name} AS {} WITH NO DATA; \
         ALTER TABLE workflows.{name} ADD PRIMARY KEY ({}); GRANT SELECT ON workflows.{name} TO weir_reader, weir_workflows",
        workflow.query(),
        keys.join(", ")
    );
    writing.batch_execute(&create).await.during(ACTION)
}

/// Rows of these windows from the snapshot to the table.
async fn carry(
    reading: &Transaction<'_>,
    writing: &impl GenericClient,
    workflow: &Workflow,
    scope: &Scope,
) -> Result<Computed, DbError> {
    let name = &workflow.name;
    let (condition, windows) = match scope {
        Scope::All => (String::new(), 0),
        Scope::From(_) => (" WHERE window_start >= $1".to_owned(), 0),
        Scope::These(these) => (" WHERE window_start = ANY($1)".to_owned(), these.len()),
    };
    let values: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> = match scope {
        Scope::All => Vec::new(),
        Scope::From(from) => vec![from],
        Scope::These(these) => vec![these],
    };
    writing.execute(&format!("DELETE FROM workflows.{name}{condition}"), &values).await.during(ACTION)?;
    let select = format!("SELECT to_jsonb(r)::text FROM ({}{condition}) r", workflow.query());
    let portal = reading.bind(&select, &values).await.map_err(|error| misplaced(workflow, error))?;
    let insert = format!(
        "INSERT INTO workflows.{name} SELECT (jsonb_populate_record(NULL::workflows.{name}, r::jsonb)).* FROM unnest($1::text[]) r"
    );
    let mut rows = 0;
    loop {
        let some = reading.query_portal(&portal, ROWS).await.during(ACTION)?;
        if some.is_empty() {
            break;
        }
        let texts: Vec<&str> = some.iter().map(|row| row.try_get(0).during(ACTION)).collect::<Result<_, _>>()?;
        rows += writing.execute(&insert, &[&texts]).await.during(ACTION)?;
    }
    Ok(Computed { windows, rows })
}
