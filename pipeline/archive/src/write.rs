//! Events to parts, and parts read back.

use std::ops::Range;

use deltalake_core::datafile::DataFileReader;
use deltalake_core::datafile::reader::ParquetFileReader;
use deltalake_core::logstore::object_store::ObjectStoreExt;
use deltalake_core::logstore::object_store::buffered::BufWriter;
use futures::TryStreamExt;
use parquet::arrow::AsyncArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use weir_engine::failpoint;
use weir_model::Position;
use weir_model::canonical::SetHash;
use weir_postgres::{Database, EventStore};

use crate::error::{ArchiveError, during};
use crate::rows::{self, Column};
use crate::store::{Archive, Part, file_name};

/// Events of a part at most.
const PART_ROWS: i64 = 500_000;

/// Rows in a row group: some tens of megabytes.
const ROW_GROUP_ROWS: usize = 32_768;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Parts.
    pub parts: usize,
    /// Events.
    pub rows: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// The first position that is not archived.
    pub below: i64,
}

/// Archives what is new. `positions` are refused unless they begin where the last part ended; `told` is called after each part, with it and the
/// position at which this ends.
pub async fn write(
    archive: &Archive,
    database: &Database,
    positions: (Option<i64>, Option<i64>),
    mut told: impl FnMut(&Part, i64),
) -> Result<Written, ArchiveError> {
    let store = EventStore::new(database.clone());
    let event_store = store.id().await.map_err(during("reading the event store's id"))?.to_string();
    archive.begin(&event_store).await?;
    let range = range(archive, &store, positions).await?;
    let client = database.get().await.map_err(during("reading the event store"))?;
    client
        .batch_execute("SET TIME ZONE 'UTC'; SET DateStyle = 'ISO'")
        .await
        .map_err(during("reading the event store"))?;
    let columns = rows::columns(&**client).await?;
    let mut written = Written { below: range.start, ..Written::default() };
    while written.below < range.end {
        let below = range.end.min(written.below + PART_ROWS);
        let part = write_part(archive, &**client, &columns, written.below..below).await?;
        failpoint::hit("archive.before_part");
        archive.add(&part).await?;
        failpoint::hit("archive.after_part");
        told(&part, range.end);
        written = Written {
            parts: written.parts + 1,
            rows: written.rows + part.rows,
            bytes: written.bytes + part.bytes,
            below: part.below,
        };
    }
    Ok(written)
}

async fn range(
    archive: &Archive,
    store: &EventStore,
    (from, below): (Option<i64>, Option<i64>),
) -> Result<Range<i64>, ArchiveError> {
    let head = store.head().await.map_err(during("reading the event store's end"))?.0;
    let parts = archive.parts().await?;
    let ended = parts.last().map(|part| part.below);
    if let Some(last) = parts.last() {
        let now = store.event_id_at(Position(last.below - 1)).await.map_err(during("reading the event store"))?;
        if now.map(|id| id.to_string()) != last.last_event {
            return Err(ArchiveError::Refused(format!(
                "{} ends with another event at {} than the event store has there: Postgres was restored to an older copy. Load the archive \
                 into a new one, or take another address",
                archive.address(),
                last.below - 1
            )));
        }
    }
    let start = from.or(ended).unwrap_or(1);
    if let Some(ended) = ended.filter(|ended| *ended != start) {
        return Err(ArchiveError::Refused(format!(
            "{} ends below {ended}: the next part begins there, not at {start}",
            archive.address()
        )));
    }
    let end = below.unwrap_or(head + 1);
    if end > head + 1 {
        return Err(ArchiveError::Refused(format!(
            "the event store ends with {head}: --below is {} at most",
            head + 1
        )));
    }
    if from.is_some() && start >= end {
        return Err(ArchiveError::Refused(format!("there is nothing from {start} and below {end}")));
    }
    Ok(start..end.max(start))
}

async fn write_part(
    archive: &Archive,
    client: &impl tokio_postgres::GenericClient,
    columns: &[Column],
    positions: Range<i64>,
) -> Result<Part, ArchiveError> {
    const ACTION: &str = "writing a part of the archive";
    let name = file_name(positions.start, positions.end);
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .build();
    let object = BufWriter::new(archive.store.clone(), archive.path(&name));
    let mut writer =
        AsyncArrowWriter::try_new(object, rows::schema(columns), Some(properties)).map_err(during(ACTION))?;
    let mut hash = SetHash::default();
    let mut page = rows::page(client, columns, positions.start, positions.end).await?;
    while let Some(batch) = page {
        let Some((_, last)) = rows::ends(&batch) else { break };
        // The server is at the next page while this one is encoded.
        let following = rows::page(client, columns, last + 1, positions.end);
        let writing = async {
            rows::hash(&batch, &mut hash);
            writer.write(&batch).await.map_err(during(ACTION))
        };
        let (following, written) = tokio::join!(following, writing);
        written?;
        page = following?;
    }
    writer.close().await.map_err(during(ACTION))?;
    archive.sync(&name).await?;
    let bytes = archive.store.head(&archive.path(&name)).await.map_err(during(ACTION))?.size;
    let last_event = "SELECT event_id::text FROM events WHERE id = $1";
    let last_event = client.query_opt(last_event, &[&(positions.end - 1)]).await.map_err(during(ACTION))?;
    let part = Part {
        last_event: last_event.map(|row| row.get(0)),
        from: positions.start,
        below: positions.end,
        rows: hash.count(),
        hash: hash.hex(),
        bytes,
        columns: columns.to_vec(),
    };
    read_back(archive, &part).await?;
    Ok(part)
}

/// Reads a part; gives its rows one batch after the other to `take`. Refused where it is not what was written.
pub(crate) async fn read(
    archive: &Archive,
    part: &Part,
    mut take: impl AsyncFnMut(arrow::array::RecordBatch) -> Result<(), ArchiveError>,
) -> Result<(), ArchiveError> {
    const ACTION: &str = "reading a part of the archive";
    let reader = ParquetFileReader::new(archive.store.clone());
    let mut batches = reader.read_file(archive.path(&part.file())).await.map_err(during(ACTION))?;
    let mut hash = SetHash::default();
    while let Some(batch) = batches.try_next().await.map_err(during(ACTION))? {
        rows::hash(&batch, &mut hash);
        take(batch).await?;
    }
    if hash.count() != part.rows || hash.hex() != part.hash {
        return Err(ArchiveError::Broken(format!(
            "{} of {} has {} rows with the hash {}, and should have {} with {}",
            part.file(),
            archive.address(),
            hash.count(),
            hash.hex(),
            part.rows,
            part.hash
        )));
    }
    Ok(())
}

async fn read_back(archive: &Archive, part: &Part) -> Result<(), ArchiveError> {
    read(archive, part, async |_| Ok(())).await
}

/// Reads every part back; gives what there is.
pub async fn check(archive: &Archive) -> Result<Written, ArchiveError> {
    if archive.event_store().await?.is_none() {
        return Err(ArchiveError::Refused(format!("{} is no archive: it has no archive.json", archive.address())));
    }
    let mut found = Written::default();
    for part in archive.parts().await? {
        read_back(archive, &part).await?;
        found = Written {
            parts: found.parts + 1,
            rows: found.rows + part.rows,
            bytes: found.bytes + part.bytes,
            below: part.below,
        };
    }
    Ok(found)
}
