//! A batch's events as Parquet files of the table, which no reader sees until they are committed.

use deltalake_core::kernel::Add;
use deltalake_core::parquet::basic::{Compression, ZstdLevel};
use deltalake_core::parquet::file::properties::WriterProperties;
use deltalake_core::writer::{DeltaWriter, RecordBatchWriter};
use weir_engine::Located;
use weir_model::OtherEvent;

use crate::rows;
use crate::table::{HistoryError, HistoryTable, during};

/// Rows in a row group at most; with some 1 kB a row this bounds a group to tens of megabytes.
const ROW_GROUP_ROWS_MAX: usize = 65_536;

/// Rows made into columns at once.
const CHUNK_ROWS: usize = 8192;

/// The events' indexes in the order in which they are written: one partition of the table after the other, so that no batch
/// has to be taken apart again, and by time within each, as readers want it. In chunks, so that a large batch is not held
/// twice over, as events and as columns.
fn chunks(events: &[&Located]) -> Vec<Vec<usize>> {
    let place = |l: &&Located| (l.event.event_type, l.event.timestamp.month());
    let mut keyed: Vec<_> =
        events.iter().enumerate().map(|(n, l)| (place(l), l.event.timestamp, l.record.offset, n)).collect();
    keyed.sort_unstable();
    let parts = keyed.chunk_by(|a, b| a.0 == b.0).flat_map(|part| part.chunks(CHUNK_ROWS));
    parts.map(|chunk| chunk.iter().map(|(.., n)| *n).collect()).collect()
}

pub(crate) async fn write(
    table: &HistoryTable,
    events: &[&Located],
    others: &[&Located<OtherEvent>],
) -> Result<Vec<Add>, HistoryError> {
    const ACTION: &str = "writing history files";
    if events.is_empty() && others.is_empty() {
        return Ok(Vec::new());
    }
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
        .build();
    let mut writer =
        RecordBatchWriter::for_table(table.delta()).map_err(during(ACTION))?.with_writer_properties(properties);
    // The next chunk becomes columns while one is encoded.
    let mut ahead = None;
    for chunk in chunks(events).into_iter().map(Some).chain([None]) {
        let next = chunk.map(|chunk| {
            // A copy of an event shares its payload.
            let chunk: Vec<Located> = chunk.into_iter().map(|index| Located::clone(events[index])).collect();
            tokio::task::spawn_blocking(move || rows::to_batch(chunk.iter()))
        });
        if let Some(columns) = std::mem::replace(&mut ahead, next) {
            let batch = columns.await.map_err(during(ACTION))?.map_err(during(ACTION))?;
            writer.write(batch).await.map_err(during(ACTION))?;
        }
    }
    if !others.is_empty() {
        let columns = rows::others_to_batch(others.iter().copied()).map_err(during(ACTION))?;
        writer.write(columns).await.map_err(during(ACTION))?;
    }
    writer.flush().await.map_err(during(ACTION))
}
