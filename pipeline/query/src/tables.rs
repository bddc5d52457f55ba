//! What a session over history has: the stored rows, a view of all events, one of each event type, and functions.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};
use weir_history::HistoryTable;
use weir_model::{EventType, OTHER_EVENT};

use crate::functions;
use crate::tenant_rows::TenantRows;
use crate::yielding::Yielding;

/// The catalog, which a client of Postgres' protocol sees as its database.
pub(crate) const CATALOG: &str = "history";

/// The schema of all tables.
pub(crate) const SCHEMA: &str = "public";

/// The rows as they are stored. The views' `user_id` is whom an event is about or, where its type names no user, the user who acted.
const STORED: &str = "events_raw";

/// Memory that queries may take together.
pub(crate) fn runtime(memory_max: usize) -> Result<Arc<RuntimeEnv>, DataFusionError> {
    RuntimeEnvBuilder::new().with_memory_limit(memory_max, 1.0).build_arc()
}

/// A session without tables.
pub(crate) fn context(runtime: Arc<RuntimeEnv>) -> Result<SessionContext, DataFusionError> {
    let config = SessionConfig::new()
        .with_information_schema(true)
        .with_default_catalog_and_schema(CATALOG, SCHEMA)
        .set_str("datafusion.sql_parser.collect_spans", "true")
        .set_bool("datafusion.execution.parquet.schema_force_view_types", false);
    let state = SessionStateBuilder::new().with_config(config).with_runtime_env(runtime).with_default_features();
    let mut context = SessionContext::new_with_state(state.with_physical_optimizer_rule(Arc::new(Yielding)).build());
    datafusion_functions_json::register_all(&mut context)?;
    for function in functions::all() {
        context.register_udf(function);
    }
    Ok(context)
}

/// The rows of a table as it stands.
pub(crate) async fn rows_of(
    table: &HistoryTable,
    context: &SessionContext,
) -> Result<Arc<dyn TableProvider>, DataFusionError> {
    let provider = table.delta().table_provider().await.map_err(|e| DataFusionError::External(e.into()))?;
    let known = table.delta().update_datafusion_session(&context.state());
    known.map_err(|e| DataFusionError::External(e.into()))?;
    Ok(provider)
}

/// A history that does not exist yet.
pub(crate) fn empty() -> Result<Arc<dyn TableProvider>, DataFusionError> {
    Ok(Arc::new(MemTable::try_new(weir_history::schema::arrow_schema(), vec![Vec::new()])?))
}

/// Makes the tables of a session. With a tenant it has that tenant's rows, and no way to the others.
pub(crate) async fn register(
    context: &SessionContext,
    stored: Arc<dyn TableProvider>,
    tenant: Option<&str>,
) -> Result<(), DataFusionError> {
    let stored = match tenant {
        Some(tenant) => Arc::new(TenantRows::new(stored, tenant)),
        None => stored,
    };
    context.register_table(STORED, stored)?;
    let events = "SELECT * REPLACE (coalesce(user_id, actor_id) AS user_id)";
    context.sql(&format!("CREATE VIEW events AS {events} FROM {STORED}")).await?;
    for (view, event_type) in views() {
        let sql = format!("CREATE VIEW {view} AS SELECT * FROM events WHERE event_type = '{event_type}'");
        context.sql(&sql).await?;
    }
    Ok(())
}

/// Names of the views of event types, and the types.
fn views() -> impl Iterator<Item = (String, &'static str)> {
    let known = EventType::ALL.into_iter().map(|event_type| (view_name(event_type), event_type.as_str()));
    known.chain([(OTHER_EVENT.to_owned(), OTHER_EVENT)])
}

/// The table of nearly this name.
pub(crate) fn nearest(missing: &str) -> Option<String> {
    const ALIKE: f64 = 0.8;
    let likeness = |name: &String| strsim::jaro_winkler(missing, name);
    let names = views().map(|(view, _)| view).chain(["events".to_owned(), STORED.to_owned()]);
    names.filter(|name| likeness(name) > ALIKE).max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}

/// The table that DataFusion's words say is not there.
pub(crate) fn missing_table(words: &str) -> Option<&str> {
    let prefix = format!("table '{CATALOG}.{SCHEMA}.");
    let (_, rest) = words.split_once(prefix.as_str())?;
    Some(rest.split_once("' not found")?.0)
}

/// The view of an event type: `AssessmentCompleted` → `assessment_completed`.
#[must_use]
pub fn view_name(event_type: EventType) -> String {
    let mut name = String::new();
    for c in event_type.as_str().chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}
