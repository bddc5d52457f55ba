//! The event store as what a process's tap reads.

use std::time::Duration;

use async_trait::async_trait;
use weir_engine::{Chunk, Partition, Reader, Row, SourceError};

use crate::database::Database;
use crate::error::DbError;
use crate::event_store::EventStore;
use crate::notify::AppendSignal;
use crate::pager::Pager;
use crate::source::{EventStoreSource, FIRST_POSITION, row_to_event};

/// Events of one chunk.
const CHUNK_ROWS: usize = 4_000;

/// Bytes of data of one chunk; one event may exceed it.
const CHUNK_BYTES: i64 = 2 << 20;

/// Reads the event store in position order, decoded.
pub struct EventStoreReader {
    database: Database,
    partition: Partition,
    signal: AppendSignal,
    pager: Pager<Row>,
}

impl EventStoreReader {
    /// Reads the event store's id.
    pub async fn open(database: Database, signal: AppendSignal) -> Result<Self, DbError> {
        let partition = EventStoreSource::partition(&database).await?;
        let of_row = partition.clone();
        let pager = Pager::new(database.clone(), CHUNK_BYTES, move |row| row_to_event(&of_row, row));
        Ok(Self { database, partition, signal, pager })
    }
}

/// The event store's rows in position order, decoded, for work that reads all of it.
pub struct StoredRows {
    pager: Pager<Row>,
}

impl StoredRows {
    /// Reads the event store's id.
    pub async fn open(database: Database) -> Result<Self, DbError> {
        let partition = EventStoreSource::partition(&database).await?;
        let pager = Pager::new(database, CHUNK_BYTES, move |row| row_to_event(&partition, row));
        Ok(Self { pager })
    }

    /// The next rows from a position on; none at the end.
    pub async fn page(&mut self, from: i64) -> Result<Vec<Row>, DbError> {
        self.pager.page(from, CHUNK_ROWS).await
    }
}

#[async_trait]
impl Reader for EventStoreReader {
    fn partition(&self) -> &Partition {
        &self.partition
    }

    async fn read(&mut self, from: i64) -> Result<Chunk, SourceError> {
        Ok(Chunk::new(self.pager.page(from, CHUNK_ROWS).await?))
    }

    async fn changed(&mut self, wait: Duration) {
        drop(tokio::time::timeout(wait, self.signal.changed()).await);
    }

    async fn end(&self) -> Result<i64, SourceError> {
        Ok(EventStore::new(self.database.clone()).head().await?.0 + 1)
    }

    fn first(&self) -> i64 {
        FIRST_POSITION
    }

    fn another(&self) -> Self {
        let (database, partition) = (self.database.clone(), self.partition.clone());
        Self { database, partition, signal: self.signal.clone(), pager: self.pager.another() }
    }
}
