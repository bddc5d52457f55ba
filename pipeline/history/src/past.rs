//! Whether the event store still has the past that history was written from.
//!
//! A Postgres that was restored to an older copy gives positions a second time, to other events. History would take them
//! for what it holds already and leave them out, in silence. The last event that history holds tells the two pasts apart.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use deltalake_core::datafile::DataFileReader;
use deltalake_core::datafile::reader::ParquetFileReader;
use deltalake_core::datafusion::prelude::{SessionContext, col, lit};
use deltalake_core::logstore::object_store::{Error as StoreError, ObjectStoreExt};
use futures::TryStreamExt;
use weir_engine::Partition;

use crate::compact::rows_of;
use crate::places::{integers, places, texts};
use crate::table::{HistoryError, HistoryTable, during};

/// How far below the end the last event is looked for first: behind it only dead letters would stand.
const WINDOW: i64 = 100_000;

const ACTION: &str = "looking for the last event of history";

/// Offset and event id of the last event of a partition below an offset.
pub(crate) async fn last_event(
    table: &HistoryTable,
    partition: &Partition,
    below: i64,
) -> Result<Option<(i64, String)>, HistoryError> {
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
    let offsets = integers(batch, "offset").map_err(during(ACTION))?;
    let ids = texts(batch, "event_id").map_err(during(ACTION))?;
    let (offsets, ids) = (offsets.as_primitive::<Int64Type>(), ids.as_string::<i32>());
    Ok(Some((offsets.value(0), ids.value(0).to_owned())))
}

/// Files that are there and cannot be opened, or are not as long as the log says.
pub(crate) async fn unreadable_files(table: &HistoryTable) -> Result<Vec<String>, HistoryError> {
    let store = table.delta().log_store().object_store(None);
    let snapshot = table.delta().snapshot().map_err(during(ACTION))?;
    let named: Vec<_> = snapshot.log_data().into_iter().map(|view| (view.object_store_path(), view.size())).collect();
    let mut unreadable = Vec::new();
    for (path, size) in named {
        let is_as_long = match store.head(&path).await {
            Ok(found) => i64::try_from(found.size) == Ok(size),
            Err(StoreError::NotFound { .. }) => continue,
            Err(error) => return Err(during(ACTION)(error)),
        };
        if !is_as_long || ParquetFileReader::new(Arc::clone(&store)).read_file(path.clone()).await.is_err() {
            tracing::warn!(file = %path, "a file of history cannot be read");
            unreadable.push(path.to_string());
        }
    }
    Ok(unreadable)
}

/// The same as `last_event` for a table of which some files may not be readable any more, and the paths of those: each file is read for itself.
pub(crate) async fn last_readable_event(
    table: &HistoryTable,
    partition: &Partition,
    below: i64,
) -> Result<(Option<(i64, String)>, Vec<String>), HistoryError> {
    let store = table.delta().log_store().object_store(None);
    let snapshot = table.delta().snapshot().map_err(during(ACTION))?;
    let paths: Vec<_> = snapshot.log_data().into_iter().map(|view| view.object_store_path()).collect();
    let from = below.saturating_sub(WINDOW);
    let (mut last, mut unreadable): (Option<(i64, String)>, _) = (None, Vec::new());
    for path in paths {
        let batches = rows_of(Arc::clone(&store), vec![path.clone()], Arc::default());
        match batches.try_collect::<Vec<_>>().await {
            Ok(batches) => {
                for batch in batches {
                    let found = last_of(&batch, partition)?.filter(|(offset, _)| *offset >= from);
                    last = last.max(found);
                }
            }
            Err(error) => {
                tracing::warn!(file = %path, %error, "a file of history cannot be read");
                unreadable.push(path.to_string());
            }
        }
    }
    Ok((last, unreadable))
}

fn last_of(batch: &RecordBatch, partition: &Partition) -> Result<Option<(i64, String)>, HistoryError> {
    let ids = texts(batch, "event_id").map_err(during(ACTION))?;
    let ids = ids.as_string::<i32>();
    let rows = places(batch).map_err(during(ACTION))?.into_iter().enumerate();
    let ours = rows.filter(|(_, place)| place.partition == *partition);
    Ok(ours.map(|(row, place)| (place.offset, ids.value(row).to_owned())).max())
}
