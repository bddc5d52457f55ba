//! The commit of history that a statement reads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::DataFusionError;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use tokio::sync::{Mutex, MutexGuard};
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

    /// The table at its last commit.
    pub(crate) async fn refresh(&self) -> Result<MutexGuard<'_, Option<HistoryTable>>, QueryError> {
        let mut held = self.table.lock().await;
        // A table that was put aside and made again is another one: its log does not go on where ours stood.
        let is_current = match held.as_mut() {
            Some(table) => table.refresh().await.is_ok(),
            None => false,
        };
        if !is_current {
            *held = HistoryTable::open(&self.root).await?;
        }
        Ok(held)
    }

    /// The rows of the last commit, and its number.
    pub(crate) async fn last(
        &self,
        context: &SessionContext,
    ) -> Result<(Option<i64>, Arc<dyn TableProvider>), QueryError> {
        let held = self.refresh().await?;
        let Some(table) = held.as_ref() else { return Ok((None, tables::empty()?)) };
        let version = table.delta().version().and_then(|version| i64::try_from(version).ok());
        Ok((version, rows_of(table, context).await?))
    }
}

/// What Postgres says as well, so that drivers prepare the statement again.
const OUTDATED: &str = "cached plan must not change result type";

/// The table of a session: what its views and prepared statements read is exchanged between statements.
#[derive(Debug)]
pub(crate) struct Current {
    rows: RwLock<Arc<dyn TableProvider>>,
    is_outdated: AtomicBool,
}

impl Current {
    pub(crate) fn new(rows: Arc<dyn TableProvider>) -> Self {
        Self { rows: RwLock::new(rows), is_outdated: AtomicBool::new(false) }
    }

    /// History has other columns now: plans on these fail from here on.
    pub(crate) fn end(&self) {
        self.is_outdated.store(true, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, rows: Arc<dyn TableProvider>) {
        *self.rows.write().unwrap_or_else(PoisonError::into_inner) = rows;
    }

    fn now(&self) -> Arc<dyn TableProvider> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner).clone()
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
        if self.is_outdated.load(Ordering::Relaxed) {
            return Err(DataFusionError::NotImplemented(OUTDATED.to_owned()));
        }
        let rows = self.now();
        rows.scan(state, projection, filters, limit).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_plan_on_columns_that_are_no_more_fails_as_in_postgres() {
        let context = SessionContext::new();
        let current = Arc::new(Current::new(tables::empty().unwrap()));
        context.register_table("events", current.clone()).unwrap();
        let prepared = context.table("events").await.unwrap();
        assert!(prepared.clone().collect().await.is_ok());
        current.end();
        let error = prepared.collect().await.unwrap_err();
        assert!(matches!(error.find_root(), DataFusionError::NotImplemented(words) if words == OUTDATED), "{error}");
    }
}
