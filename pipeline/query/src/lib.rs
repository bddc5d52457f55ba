//! SQL over history: DataFusion on the Delta table, with a view per event type and JSON functions.

mod arguments;
mod error;
mod functions;
mod question;
mod questions;
mod serve;
mod tables;
mod tenant_rows;
mod yielding;

pub use arguments::{Arguments, Dialect, Parameter, moment};
pub use error::QueryError;
pub use question::{Column, HeadError, Question};
pub use questions::questions;
pub use serve::{Login, Logins, Options, freshness_schema, serve};
pub use tables::view_name;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::execution::context::SQLOptions;
use datafusion::prelude::SessionContext;
use weir_history::{HistoryRoot, HistoryTable};

use error::suggesting;

/// A session over the last commit of a history.
pub struct History {
    context: SessionContext,
}

impl History {
    /// Opens the table as it stands now. A history that does not exist yet is an empty one.
    pub async fn open(root: &HistoryRoot, memory_max: usize) -> Result<Self, QueryError> {
        let context = tables::context(tables::runtime(memory_max)?)?;
        let stored = match HistoryTable::open(root).await? {
            Some(table) => tables::rows_of(&table, &context).await?,
            None => tables::empty()?,
        };
        tables::register(&context, stored, None).await?;
        Ok(Self { context })
    }

    /// Runs a query to its end. Queries only: nothing that writes a file, reads another one, or changes a setting.
    pub async fn sql(&self, query: &str) -> Result<(SchemaRef, Vec<RecordBatch>), QueryError> {
        let only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let frame = self.context.sql_with_options(query, only).await.map_err(suggesting)?;
        let schema = frame.schema().inner().clone();
        Ok((schema, frame.collect().await?))
    }
}
