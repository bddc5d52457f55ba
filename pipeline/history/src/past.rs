//! Whether the event store still has the past that history was written from.
//!
//! A Postgres that was restored to an older copy gives positions a second time, to other events. History would take them
//! for what it holds already and leave them out, in silence. The last event that history holds tells the two pasts apart.

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use deltalake_core::datafusion::prelude::{SessionContext, col, lit};
use weir_engine::Partition;

use crate::table::{HistoryError, HistoryTable, during};

/// How far below the end the last event is looked for first: behind it only dead letters would stand.
const WINDOW: i64 = 100_000;

/// Offset and event id of the last event of a partition below an offset.
pub(crate) async fn last_event(
    table: &HistoryTable,
    partition: &Partition,
    below: i64,
) -> Result<Option<(i64, String)>, HistoryError> {
    const ACTION: &str = "looking for the last event of history";
    let context = SessionContext::new();
    let provider = table.delta().table_provider().await.map_err(during(ACTION))?;
    table.delta().update_datafusion_session(&context.state()).map_err(during(ACTION))?;
    let ours = col("source")
        .eq(lit(&*partition.source))
        .and(col("topic").eq(lit(&*partition.topic)))
        .and(col("partition").eq(lit(partition.number)))
        .and(col("offset").gt_eq(lit(below.saturating_sub(WINDOW))));
    let last = context
        .read_table(provider)
        .and_then(|rows| rows.filter(ours))
        .and_then(|rows| rows.sort(vec![col("offset").sort(false, false)]))
        .and_then(|rows| rows.limit(0, Some(1)))
        .and_then(|rows| rows.select_columns(&["offset", "event_id"]))
        .map_err(during(ACTION))?;
    let batches = last.collect().await.map_err(during(ACTION))?;
    let Some(batch) = batches.iter().find(|batch| batch.num_rows() > 0) else { return Ok(None) };
    let offsets = cast(batch.column(0), &DataType::Int64).map_err(during(ACTION))?;
    let ids = cast(batch.column(1), &DataType::Utf8).map_err(during(ACTION))?;
    let (offsets, ids) = (offsets.as_primitive::<Int64Type>(), ids.as_string::<i32>());
    Ok(Some((offsets.value(0), ids.value(0).to_owned())))
}
