//! The commit of history that a statement reads.

use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::DataFusionError;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use tokio::sync::Mutex;
use weir_history::{HistoryRoot, HistoryTable};

use crate::error::QueryError;
use crate::tables::{self, rows_of};

/// The table, opened once for all connections.
pub(crate) struct Snapshots {
    root: HistoryRoot,
    pub(crate) runtime: Arc<RuntimeEnv>,
    table: Mutex<Option<HistoryTable>>,
}

impl Snapshots {
    pub(crate) fn new(root: HistoryRoot, memory_max: usize) -> Result<Self, QueryError> {
        Ok(Self { root, runtime: tables::runtime(memory_max)?, table: Mutex::default() })
    }

    /// The rows of the last commit, and its number.
    pub(crate) async fn last(
        &self,
        context: &SessionContext,
    ) -> Result<(Option<i64>, Arc<dyn TableProvider>), QueryError> {
        let mut held = self.table.lock().await;
        // A table that was put aside and made again is another one: its log does not go on where ours stood.
        let is_current = match held.as_mut() {
            Some(table) => table.refresh().await.is_ok(),
            None => false,
        };
        if !is_current {
            *held = HistoryTable::open(&self.root).await?;
        }
        let Some(table) = held.as_ref() else { return Ok((None, tables::empty()?)) };
        let version = table.delta().version().and_then(|version| i64::try_from(version).ok());
        Ok((version, rows_of(table, context).await?))
    }
}

/// The table of a session: what its views and prepared statements read is exchanged between statements.
#[derive(Debug)]
pub(crate) struct Current(RwLock<Arc<dyn TableProvider>>);

impl Current {
    pub(crate) fn new(rows: Arc<dyn TableProvider>) -> Self {
        Self(RwLock::new(rows))
    }

    pub(crate) fn set(&self, rows: Arc<dyn TableProvider>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = rows;
    }

    fn now(&self) -> Arc<dyn TableProvider> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl TableProvider for Current {
    fn schema(&self) -> SchemaRef {
        self.now().schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>, DataFusionError> {
        self.now().supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let rows = self.now();
        rows.scan(state, projection, filters, limit).await
    }
}
