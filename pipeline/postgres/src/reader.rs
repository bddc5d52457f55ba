//! The event store as what a process's tap reads.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use weir_engine::{Chunk, Partition, Reader, Row, SourceError};

use crate::database::Database;
use crate::error::DbError;
use crate::event_store::EventStore;
use crate::handover::{Handover, StoredCommand};
use crate::notify::AppendSignal;
use crate::pager::{self, Pager};
use crate::source::{EventStoreSource, FIRST_POSITION, row_to_event, to_event};

/// Events of one chunk.
const CHUNK_ROWS: usize = 4_000;

/// Bytes of data of one chunk; one event may exceed it.
const CHUNK_BYTES: usize = 2 << 20;

/// Reads the event store in position order, decoded; what this process appended, without asking Postgres.
pub struct EventStoreReader {
    database: Database,
    partition: Partition,
    signal: AppendSignal,
    pager: Pager<Row>,
    handover: Handover,
    handed: watch::Receiver<i64>,
    /// From which position on it takes what is handed over.
    since: i64,
    /// Where it has looked last.
    next: i64,
}

/// Pages of so many bytes as a chunk has.
fn pager(database: Database, partition: Partition) -> Pager<Row> {
    let bytes_max = i64::try_from(CHUNK_BYTES).unwrap_or(i64::MAX);
    Pager::new(database, bytes_max, move |row| row_to_event(&partition, row))
}

impl EventStoreReader {
    /// Reads the event store's id. `handover` is what the appender of this process gives to its readers, if there is one.
    pub async fn open(database: Database, signal: AppendSignal, handover: Handover) -> Result<Self, DbError> {
        let partition = EventStoreSource::partition(&database).await?;
        let pager = pager(database.clone(), partition.clone());
        let handed = handover.watch();
        let since = *handed.borrow();
        Ok(Self { database, partition, signal, pager, handover, handed, since, next: FIRST_POSITION })
    }

    /// The events from a position on that were handed over; on a thread for such work, since there may be thousands.
    async fn decode(&self, commands: Vec<Arc<StoredCommand>>, from: i64) -> Result<Vec<Row>, DbError> {
        let partition = self.partition.clone();
        let decoding = tokio::task::spawn_blocking(move || {
            let mut rows = Vec::new();
            for command in commands {
                rows.extend(command.each(from, |event| to_event(&partition, event))?);
            }
            Ok(rows)
        });
        decoding.await.map_err(pager::gone)?
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
        Ok(Self { pager: pager(database, partition) })
    }

    /// The next rows from a position on; none at the end.
    pub async fn page(&mut self, from: i64) -> Result<Vec<Row>, DbError> {
        self.pager.page(from, CHUNK_ROWS).await
    }
}

/// Waits until so much was handed over since the last call.
async fn goes_beyond(handed: &mut watch::Receiver<i64>, position: i64) {
    while handed.changed().await.is_ok() {
        if *handed.borrow_and_update() > position {
            return;
        }
    }
    // The sender lives as long as the reader's own handover.
    std::future::pending::<()>().await;
}

#[async_trait]
impl Reader for EventStoreReader {
    fn partition(&self) -> &Partition {
        &self.partition
    }

    async fn read(&mut self, from: i64) -> Result<Chunk, SourceError> {
        self.next = from;
        let handed = (from >= self.since).then(|| self.handover.from(from, CHUNK_ROWS, CHUNK_BYTES)).flatten();
        let rows = match handed {
            Some(commands) => self.decode(commands, from).await?,
            None => self.pager.page(from, CHUNK_ROWS).await?,
        };
        Ok(Chunk::new(rows))
    }

    async fn changed(&mut self, wait: Duration) {
        let (next, signal, handed) = (self.next, &mut self.signal, &mut self.handed);
        let changed = async {
            tokio::select! {
                () = signal.reaches(next) => {}
                () = goes_beyond(handed, next) => {}
            }
        };
        drop(tokio::time::timeout(wait, changed).await);
    }

    async fn end(&self) -> Result<i64, SourceError> {
        Ok(EventStore::new(self.database.clone()).head().await?.0 + 1)
    }

    fn first(&self) -> i64 {
        FIRST_POSITION
    }

    fn another(&self) -> Self {
        let handed = self.handover.watch();
        let since = *handed.borrow();
        Self {
            database: self.database.clone(),
            partition: self.partition.clone(),
            signal: self.signal.clone(),
            pager: self.pager.another(),
            handover: self.handover.clone(),
            handed,
            since,
            next: self.next,
        }
    }
}
