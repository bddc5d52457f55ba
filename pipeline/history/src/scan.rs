//! Rows of history by when they were recorded: for jobs that carry them elsewhere.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use deltalake_core::datafusion::execution::runtime_env::RuntimeEnvBuilder;
use deltalake_core::datafusion::functions::expr_fn::{coalesce, date_trunc};
use deltalake_core::datafusion::functions_aggregate::expr_fn::{count, max, min};
use deltalake_core::datafusion::prelude::{DataFrame, Expr, SessionConfig, SessionContext, col, lit};
use deltalake_core::datafusion::scalar::ScalarValue;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use weir_model::{Envelope, Timestamp};

use crate::compact::aligned;
use crate::schema::columns;
use crate::table::{HistoryError, HistoryTable, during};

const ACTION: &str = "reading rows of history";

/// Memory of one query, in bytes.
const MEMORY_MAX: usize = 256 << 20;

/// Rows read together.
const ROWS: usize = 8192;

/// Batches that are read ahead.
const AHEAD: usize = 2;

/// Which rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Recorded at or after; a row that does not say when it was recorded counts by the time of its event.
    pub from: Option<Timestamp>,
    /// Recorded before.
    pub to: Option<Timestamp>,
    /// At these positions of the event store and above.
    pub from_position: Option<i64>,
    /// Below this position.
    pub below_position: Option<i64>,
    /// Of these types only, as history names them; empty for all.
    pub event_types: Vec<String>,
    /// Of this tenant only.
    pub tenant: Option<String>,
}

/// Rows that were recorded between two moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The first moment.
    pub from: Timestamp,
    /// The first moment after them.
    pub to: Timestamp,
    /// How many.
    pub rows: u64,
    /// The earliest and the latest time of their events.
    pub happened: (Timestamp, Timestamp),
}

fn time(at: Timestamp) -> Expr {
    lit(ScalarValue::TimestampMicrosecond(Some(at.as_millis() * 1000), Some("UTC".into())))
}

fn recorded() -> Expr {
    coalesce(vec![col("recorded_at"), col("timestamp")])
}

impl Filter {
    /// Whether an event is one of them; `event_type` as history names it.
    #[must_use]
    pub fn takes(&self, event_type: &str, of: &Envelope) -> bool {
        let recorded = of.recorded_at.unwrap_or(of.timestamp);
        let position = of.position.map(|position| position.0);
        self.from_position.is_none_or(|from| position.is_some_and(|at| at >= from))
            && self.below_position.is_none_or(|below| position.is_some_and(|at| at < below))
            && self.from.is_none_or(|from| recorded >= from)
            && self.to.is_none_or(|to| recorded < to)
            && (self.event_types.is_empty() || self.event_types.iter().any(|name| name == event_type))
            && self.tenant.as_ref().is_none_or(|tenant| tenant == of.tenant.as_str())
    }

    fn expression(&self) -> Option<Expr> {
        // In a form that files are left out by.
        let from = self.from.map(|at| {
            let recorded = col("recorded_at").gt_eq(time(at));
            recorded.or(col("recorded_at").is_null().and(col("timestamp").gt_eq(time(at))))
        });
        let to = self.to.map(|at| {
            let recorded = col("recorded_at").lt(time(at));
            recorded.or(col("recorded_at").is_null().and(col("timestamp").lt(time(at))))
        });
        let types = (!self.event_types.is_empty()).then(|| {
            col("event_type").in_list(self.event_types.iter().map(|name| lit(name.as_str())).collect(), false)
        });
        let tenant = self.tenant.as_ref().map(|tenant| col("tenant").eq(lit(tenant.as_str())));
        let at_least = self.from_position.map(|position| col("position").gt_eq(lit(position)));
        let below = self.below_position.map(|position| col("position").lt(lit(position)));
        [from, to, at_least, below, types, tenant].into_iter().flatten().reduce(Expr::and)
    }
}

impl HistoryTable {
    pub(crate) async fn frame(&self, filter: &Filter) -> Result<DataFrame, HistoryError> {
        let config = SessionConfig::new()
            .with_target_partitions(1)
            .with_batch_size(ROWS)
            .set_bool("datafusion.execution.parquet.pushdown_filters", true)
            .set_bool("datafusion.execution.parquet.schema_force_view_types", false);
        let runtime =
            RuntimeEnvBuilder::new().with_memory_limit(MEMORY_MAX, 1.0).build_arc().map_err(during(ACTION))?;
        let context = SessionContext::new_with_config_rt(config, runtime);
        // It takes how to read from the session.
        let provider = self.delta().table_provider().with_session(Arc::new(context.state()));
        let provider = provider.await.map_err(during(ACTION))?;
        self.delta().update_datafusion_session(&context.state()).map_err(during(ACTION))?;
        let rows = context.read_table(provider).map_err(during(ACTION))?;
        match filter.expression() {
            Some(expression) => rows.filter(expression).map_err(during(ACTION)),
            None => Ok(rows),
        }
    }

    /// How many rows there are, by units of time, `hour` or `minute`, in order; a stretch begins and ends with its unit.
    pub async fn stretches(&self, filter: &Filter, unit: &str) -> Result<Vec<Stretch>, HistoryError> {
        let millis = |expression: Expr| deltalake_core::datafusion::prelude::cast(expression, DataType::Int64);
        let by = date_trunc(lit(unit), recorded());
        let rows = self
            .frame(filter)
            .await?
            .aggregate(
                vec![by.alias("unit")],
                vec![
                    count(lit(1)).alias("rows"),
                    min(col("timestamp")).alias("first"),
                    max(col("timestamp")).alias("last"),
                ],
            )
            .and_then(|rows| rows.sort(vec![col("unit").sort(true, false)]))
            .and_then(|rows| {
                rows.select(vec![millis(col("unit")), millis(col("rows")), millis(col("first")), millis(col("last"))])
            })
            .map_err(during(ACTION))?;
        let length = if unit == "minute" { 60_000 } else { 3_600_000 };
        let mut found = Vec::new();
        for batch in rows.collect().await.map_err(during(ACTION))? {
            let columns: Vec<_> = batch
                .columns()
                .iter()
                .map(|column| cast(column, &DataType::Int64))
                .collect::<Result<_, _>>()
                .map_err(during(ACTION))?;
            for row in 0..batch.num_rows() {
                let value = |column: usize| columns[column].as_primitive::<Int64Type>().value(row);
                let at = |micros: i64| Timestamp::from_millis(micros.div_euclid(1000)).map_err(during(ACTION));
                let from = at(value(0))?;
                found.push(Stretch {
                    from,
                    to: Timestamp::from_millis(from.as_millis() + length).map_err(during(ACTION))?,
                    rows: u64::try_from(value(1)).unwrap_or(0),
                    happened: (at(value(2))?, at(value(3))?),
                });
            }
        }
        Ok(found)
    }

    /// The rows, with the columns of [`crate::schema`] in their declared types.
    pub async fn rows(
        &self,
        filter: &Filter,
    ) -> Result<BoxStream<'static, Result<RecordBatch, HistoryError>>, HistoryError> {
        let rows = self.frame(filter).await?;
        let there = rows.schema().clone();
        let names: Vec<&str> =
            columns().map(|(name, ..)| name).filter(|name| there.has_column_with_unqualified_name(name)).collect();
        let rows = rows.select_columns(&names).map_err(during(ACTION))?;
        let mut rows = rows.execute_stream().await.map_err(during(ACTION))?;
        let schema = crate::schema::arrow_schema();
        // On a task of its own: files are read while what was read is worked on.
        let (sender, batches) = mpsc::channel(AHEAD);
        let reading = AbortOnDropHandle::new(tokio::spawn(async move {
            while let Some(batch) = rows.next().await {
                let batch = batch.map_err(during(ACTION));
                let batch = batch.and_then(|batch| aligned(&batch, &schema).map_err(during(ACTION)));
                if sender.send(batch).await.is_err() {
                    break;
                }
            }
        }));
        Ok(futures::stream::unfold((batches, reading), async |(mut batches, reading)| {
            let batch = batches.recv().await?;
            Some((batch, (batches, reading)))
        })
        .boxed())
    }
}
