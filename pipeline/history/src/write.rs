//! A batch's events as Parquet files of the table, which no reader sees until they are committed.

use buoyant_kernel::expressions::Scalar;
use deltalake_core::kernel::Add;
use deltalake_core::parquet::basic::{Compression, ZstdLevel};
use deltalake_core::parquet::file::properties::WriterProperties;
use deltalake_core::writer::{DeltaWriter, RecordBatchWriter, WriteMode};
use indexmap::IndexMap;
use weir_engine::{Located, SharedEvent};
use weir_model::{EventType, Month, OtherEvent, Timestamp};

use crate::rows;
use crate::schema::PARTITION_COLUMNS;
use crate::table::{HistoryError, HistoryTable, during};

/// Rows in a row group at most; with some 1 kB a row this bounds a group to tens of megabytes.
const ROW_GROUP_ROWS_MAX: usize = 65_536;

/// Rows made into columns at once.
const CHUNK_ROWS: usize = 8192;

/// The events' indexes in the order in which they are written: one partition of the table after the other, so that no batch
/// has to be taken apart again, and by time within each, as readers want it. In chunks, so that a large batch is not held
/// twice over, as events and as columns.
fn chunks(events: &[SharedEvent]) -> Vec<(PartitionOfTable, Vec<usize>)> {
    let place = |l: &Located| (l.event.event_type, l.event.timestamp.month());
    let located = events.iter().enumerate().filter_map(|(n, shared)| Some((n, shared.located()?)));
    let mut keyed: Vec<_> = located.map(|(n, l)| (place(l), l.event.timestamp, l.record.offset, n)).collect();
    keyed.sort_unstable();
    let parts = keyed.chunk_by(|a, b| a.0 == b.0).flat_map(|part| part.chunks(CHUNK_ROWS));
    let places = |chunk: &[(PartitionOfTable, Timestamp, i64, usize)]| chunk.iter().map(|(.., n)| *n).collect();
    parts.filter_map(|chunk| Some((chunk.first()?.0, places(chunk)))).collect()
}

/// A value of each of [`PARTITION_COLUMNS`].
type PartitionOfTable = (EventType, Month);

pub(crate) fn values((event_type, month): PartitionOfTable) -> IndexMap<String, Scalar> {
    let values = [event_type.as_str().to_owned(), month.to_string()];
    PARTITION_COLUMNS.iter().map(ToString::to_string).zip(values.map(Scalar::String)).collect()
}

/// How Parquet is written.
pub(crate) fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
        .build()
}

pub(crate) async fn write(
    table: &HistoryTable,
    events: &[SharedEvent],
    others: &[&Located<OtherEvent>],
) -> Result<Vec<Add>, HistoryError> {
    const ACTION: &str = "writing history files";
    if events.is_empty() && others.is_empty() {
        return Ok(Vec::new());
    }
    let mut writer =
        RecordBatchWriter::for_table(table.delta()).map_err(during(ACTION))?.with_writer_properties(properties());
    // The next chunk becomes columns while one is encoded.
    let mut ahead = None;
    for chunk in chunks(events).into_iter().map(Some).chain([None]) {
        let next = chunk.map(|(partition, chunk)| {
            let chunk: Vec<SharedEvent> = chunk.into_iter().map(|index| events[index].clone()).collect();
            let columns = move || rows::to_batch(chunk.iter().filter_map(SharedEvent::located));
            (partition, tokio::task::spawn_blocking(columns))
        });
        if let Some((partition, columns)) = std::mem::replace(&mut ahead, next) {
            let batch = columns.await.map_err(during(ACTION))?.map_err(during(ACTION))?;
            // Said rather than found: the writer would look for the partition of each row, and copy every column.
            let written = writer.write_partition(batch, &values(partition), WriteMode::Default).await;
            written.map_err(during(ACTION))?;
        }
    }
    if !others.is_empty() {
        let columns = rows::others_to_batch(others.iter().copied()).map_err(during(ACTION))?;
        writer.write(columns).await.map_err(during(ACTION))?;
    }
    writer.flush().await.map_err(during(ACTION))
}
