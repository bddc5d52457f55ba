//! SQL over history: DataFusion on the Delta table, with a view per event type and JSON functions.

mod arguments;
mod functions;
mod question;
mod questions;

pub use arguments::{Arguments, Dialect, Parameter, moment};
pub use question::{Column, HeadError, Question};
pub use questions::questions;

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::prelude::{SessionConfig, SessionContext};
use weir_history::{HistoryError, HistoryRoot, HistoryTable};
use weir_model::{EventType, OTHER_EVENT};

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The history table.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// DataFusion; for bad SQL its words hold line and column.
    #[error("{}", plain(.0))]
    Sql(#[from] DataFusionError),
    /// There is no such table, but one of nearly the same name.
    #[error("{}; did you mean `{nearest}`?", plain(.source))]
    Table {
        /// DataFusion's words.
        source: DataFusionError,
        /// The table that was meant, perhaps.
        nearest: String,
    },
}

/// The words without their layers, and where in the query; the parser's own words say it already.
fn plain(error: &DataFusionError) -> String {
    let words = error.strip_backtrace();
    match error.diagnostic().and_then(|diagnostic| diagnostic.span) {
        Some(span) => format!("{words} (line {}, column {})", span.start.line, span.start.column),
        None => words,
    }
}

/// The table as it is stored. The views' `user_id` is whom an event is about or, where its type names no user, the user who acted.
const STORED: &str = "events_raw";

/// A session over the last commit of a history.
pub struct History {
    context: SessionContext,
}

impl History {
    /// Opens the table as it stands now. A history that does not exist yet is an empty one.
    pub async fn open(root: &HistoryRoot, memory_max: usize) -> Result<Self, QueryError> {
        let config = SessionConfig::new()
            .with_information_schema(true)
            .set_str("datafusion.sql_parser.collect_spans", "true")
            .set_bool("datafusion.execution.parquet.schema_force_view_types", false);
        let runtime = datafusion::execution::runtime_env::RuntimeEnvBuilder::new()
            .with_memory_limit(memory_max, 1.0)
            .build_arc()?;
        let mut context = SessionContext::new_with_config_rt(config, runtime);
        datafusion_functions_json::register_all(&mut context)?;
        for function in functions::all() {
            context.register_udf(function);
        }
        match HistoryTable::open(root).await? {
            Some(table) => {
                let provider = table.delta().table_provider().await.map_err(|e| DataFusionError::External(e.into()))?;
                table
                    .delta()
                    .update_datafusion_session(&context.state())
                    .map_err(|e| DataFusionError::External(e.into()))?;
                context.register_table(STORED, provider)?;
            }
            None => {
                let schema = weir_history::schema::arrow_schema();
                context.register_table(STORED, Arc::new(MemTable::try_new(schema, vec![Vec::new()])?))?;
            }
        }
        let events = "SELECT * REPLACE (coalesce(user_id, actor_id) AS user_id)";
        context.sql(&format!("CREATE VIEW events AS {events} FROM {STORED}")).await?;
        let known = EventType::ALL.map(|event_type| (view_name(event_type), event_type.as_str()));
        for (view, event_type) in known.into_iter().chain([(OTHER_EVENT.to_owned(), OTHER_EVENT)]) {
            let sql = format!("CREATE VIEW {view} AS SELECT * FROM events WHERE event_type = '{event_type}'");
            context.sql(&sql).await?;
        }
        Ok(Self { context })
    }

    /// Runs a query to its end. Queries only: nothing that writes a file, reads another one, or changes a setting.
    pub async fn sql(&self, query: &str) -> Result<(SchemaRef, Vec<RecordBatch>), QueryError> {
        let only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let frame = self.context.sql_with_options(query, only).await.map_err(|error| self.suggesting(error))?;
        let schema = frame.schema().inner().clone();
        Ok((schema, frame.collect().await?))
    }

    /// For columns DataFusion suggests one by itself.
    fn suggesting(&self, source: DataFusionError) -> QueryError {
        const ALIKE: f64 = 0.8;
        let words = source.strip_backtrace();
        let missing =
            words.split_once("table 'datafusion.public.").and_then(|(_, rest)| rest.split_once("' not found"));
        let Some((missing, _)) = missing else { return source.into() };
        let likeness = |name: &String| strsim::jaro_winkler(missing, name);
        let schema = self.context.catalog("datafusion").and_then(|catalog| catalog.schema("public"));
        let names = schema.map(|schema| schema.table_names()).unwrap_or_default();
        let nearest = names.into_iter().filter(|name| likeness(name) > ALIKE);
        match nearest.max_by(|a, b| likeness(a).total_cmp(&likeness(b))) {
            Some(nearest) => QueryError::Table { source, nearest },
            None => source.into(),
        }
    }
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
