//! How far each lane is, as a table.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;

use super::logins::Logins;

/// Its name.
pub(crate) const TABLE: &str = "freshness";

/// `lane`, and when it last committed.
#[must_use]
pub fn schema() -> SchemaRef {
    let at = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![Field::new("lane", DataType::Utf8, false), Field::new("committed_at", at, false)]))
}

/// The ledger, asked when it is read.
#[derive(Debug)]
pub(crate) struct Freshness(pub(crate) Arc<dyn Logins>);

#[async_trait]
impl TableProvider for Freshness {
    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let rows = self.0.freshness().await.map_err(DataFusionError::External)?;
        MemTable::try_new(schema(), vec![vec![rows]])?.scan(state, projection, filters, limit).await
    }
}
