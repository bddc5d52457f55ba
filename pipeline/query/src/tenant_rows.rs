//! The rows of one tenant, as a table that no query sees past.
//!
//! A condition beside the user's own would not do: an optimizer is free to evaluate both together or in either order, and a cast or a division
//! that fails tells of rows that it should never have been given. So the tenant's rows are taken out before anything of the query's is
//! evaluated, but for comparisons of a column with a constant, which cannot fail.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, Operator, TableProviderFilterPushDown, TableType, col, lit};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::filter::FilterExecBuilder;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};

/// Whose a row is.
const TENANT: &str = "tenant";

/// A table's rows of one tenant.
#[derive(Debug)]
pub(crate) struct TenantRows {
    stored: Arc<dyn TableProvider>,
    tenant: String,
}

impl TenantRows {
    pub(crate) fn new(stored: Arc<dyn TableProvider>, tenant: &str) -> Self {
        Self { stored, tenant: tenant.to_owned() }
    }
}

/// Whether evaluating it on any row says nothing but whether it holds.
#[expect(clippy::wildcard_enum_match_arm, reason = "an enum of a library: what it adds later may fail")]
fn cannot_fail(condition: &Expr) -> bool {
    use Operator::{And, Eq, Gt, GtEq, Lt, LtEq, NotEq, Or};
    match condition {
        Expr::Column(_) | Expr::Literal(..) => true,
        Expr::BinaryExpr(both) => {
            matches!(both.op, And | Eq | Gt | GtEq | Lt | LtEq | NotEq | Or)
                && cannot_fail(&both.left)
                && cannot_fail(&both.right)
        }
        Expr::Not(of) | Expr::IsNull(of) | Expr::IsNotNull(of) => cannot_fail(of),
        Expr::Between(of) => cannot_fail(&of.expr) && cannot_fail(&of.low) && cannot_fail(&of.high),
        Expr::InList(of) => cannot_fail(&of.expr) && of.list.iter().all(cannot_fail),
        _ => false,
    }
}

#[async_trait]
impl TableProvider for TenantRows {
    fn schema(&self) -> SchemaRef {
        self.stored.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>, DataFusionError> {
        let pushed = |filter: &&Expr| match cannot_fail(filter) {
            // To leave out files; evaluated again above.
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(pushed).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let schema = self.schema();
        let wanted: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..schema.fields().len()).collect());
        let (mut read, tenant) = (wanted.clone(), schema.index_of(TENANT)?);
        if !read.contains(&tenant) {
            read.push(tenant);
        }
        let is_ours = col(TENANT).eq(lit(self.tenant.as_str()));
        let filters: Vec<Expr> =
            filters.iter().filter(|filter| cannot_fail(filter)).cloned().chain([is_ours.clone()]).collect();
        let rows = self.stored.scan(state, Some(&read), &filters, None).await?;
        let predicate = state.create_physical_expr(is_ours, &DFSchema::try_from(rows.schema())?)?;
        let ours = FilterExecBuilder::new(predicate, rows);
        let ours = ours.apply_projection(Some((0..wanted.len()).collect()))?.build()?;
        Ok(Arc::new(Barrier::new(Arc::new(ours))))
    }
}

/// Passes rows on, and lets nothing of what is above it be moved below.
#[derive(Debug)]
struct Barrier {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl Barrier {
    fn new(input: Arc<dyn ExecutionPlan>) -> Self {
        let properties = input.properties().clone();
        Self { input, properties }
    }
}

impl DisplayAs for Barrier {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TenantRows")
    }
}

impl ExecutionPlan for Barrier {
    fn name(&self) -> &'static str {
        "TenantRows"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion, DataFusionError>,
    ) -> Result<TreeNodeRecursion, DataFusionError> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(Self::new(input))),
            _ => Err(DataFusionError::Internal("a tenant's rows have one source".to_owned())),
        }
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream, DataFusionError> {
        self.input.execute(partition, context)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
    use datafusion::datasource::MemTable;
    use datafusion::prelude::SessionContext;

    use super::*;

    /// Ours and others' rows by turns in one batch.
    fn stored() -> Arc<dyn TableProvider> {
        let tenants: StringArray = (0..100).map(|n| Some(if n % 2 == 0 { "school" } else { "other" })).collect();
        let ids: StringArray = (0..100).map(|n| Some(if n % 2 == 0 { "1" } else { "secret" })).collect();
        let columns: [(&str, ArrayRef); 2] = [(TENANT, Arc::new(tenants)), ("id", Arc::new(ids))];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap())
    }

    async fn asked(rows: &str, sql: &str) -> Result<usize, DataFusionError> {
        let context = SessionContext::new();
        context.register_table("stored", stored())?;
        context.register_table("barred", Arc::new(TenantRows::new(stored(), "school")))?;
        context.sql(&format!("CREATE VIEW events AS {rows}")).await?.collect().await?;
        context.sql(sql).await?.count().await
    }

    #[tokio::test]
    async fn what_fails_on_other_tenants_rows_is_not_evaluated_on_them() {
        const CONDITION: &str = "SELECT * FROM stored WHERE tenant = 'school'";
        let mut told = 0;
        for sql in [
            "SELECT * FROM events WHERE CAST(id AS INT) = 1",
            "SELECT * FROM events WHERE 1 / (CASE WHEN tenant = 'school' THEN 1 ELSE 0 END) = 1",
            "SELECT * FROM events WHERE 1 / (length(id) - 6) < 0",
            "SELECT a.id FROM events a JOIN events b ON a.id = b.id AND CAST(b.id AS INT) = 1",
            "SELECT CAST(id AS INT) FROM events ORDER BY 1",
        ] {
            assert!(asked("SELECT * FROM barred", sql).await.is_ok(), "{sql}");
            told += usize::from(asked(CONDITION, sql).await.is_err());
        }
        // Else this would find nothing.
        assert!(told > 0, "a condition would do");
    }
}
