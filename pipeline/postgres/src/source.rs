//! The event store as a source: one partition, offsets are positions.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use weir_engine::{Partition, Record, Source, SourceError, SourceEvent};

use crate::database::Database;
use crate::error::{DbError, During, ErrorKind};
use crate::event_store::{BYTES_MAX, EventStore, RecordedEvent, bounded};
use crate::notify::AppendSignal;

/// The topic name under which the event store stands in the ledger.
pub const EVENT_STORE_TOPIC: &str = "events";

/// How long a poll may sleep without a signal.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Tails the event store in position order.
pub struct EventStoreSource {
    database: Database,
    partition: Partition,
    signal: AppendSignal,
    assigned: bool,
    next: Option<i64>,
}

impl EventStoreSource {
    /// Reads the event store's id; nothing else happens until the lane asks.
    pub async fn open(database: Database, signal: AppendSignal) -> Result<Self, DbError> {
        let partition = Self::partition(&database).await?;
        Ok(Self { database, partition, signal, assigned: false, next: None })
    }

    /// The event store's only partition.
    pub async fn partition(database: &Database) -> Result<Partition, DbError> {
        let id = EventStore::new(database.clone()).id().await?;
        Ok(Partition { source: id.to_string().into(), topic: EVENT_STORE_TOPIC.into(), number: 0 })
    }

    async fn page(&self, from: i64, records_max: usize) -> Result<Vec<Record>, DbError> {
        let limit = i64::try_from(records_max).unwrap_or(i64::MAX);
        events_from(&self.database, from, limit).await?.iter().map(|event| to_record(&self.partition, event)).collect()
    }
}

/// A page of events from a position on, bounded in rows and bytes; at least one event if there is any.
pub(crate) async fn events_from(database: &Database, from: i64, limit: i64) -> Result<Vec<RecordedEvent>, DbError> {
    const ACTION: &str = "tailing the event store";
    let client = database.get().await?;
    let statement = client.prepare_cached(&bounded("id >= $3", "id", "")).await.during(ACTION)?;
    let rows = client.query(&statement, &[&limit, &BYTES_MAX, &from]).await.during(ACTION)?;
    rows.iter().map(RecordedEvent::from_row).collect()
}

/// The event as a record, as it would stand in a topic.
pub(crate) fn to_record(partition: &Partition, event: &RecordedEvent) -> Result<Record, DbError> {
    let payload = event.to_wire().map_err(|e| DbError::new("encoding an event", ErrorKind::Permanent, e))?;
    let header = |name: &str, value: &str| (name.to_owned(), Bytes::copy_from_slice(value.as_bytes()));
    Ok(Record {
        partition: partition.clone(),
        offset: event.position.0,
        key: Some(Arc::from(event.aggregate_id())),
        payload: payload.into(),
        headers: vec![
            header("eventType", &event.event_type),
            header("version", &event.schema_version),
            header("source", &event.source),
            header("correlationId", event.metadata.correlation_id.as_deref().unwrap_or_default()),
            header("timestamp", &event.timestamp.to_string()),
        ],
        recorded_at: Some(event.recorded_at),
    })
}

#[async_trait]
impl Source for EventStoreSource {
    async fn next(&mut self, records_max: usize, wait: Duration) -> Result<SourceEvent, SourceError> {
        if !self.assigned {
            self.assigned = true;
            return Ok(SourceEvent::Assigned(vec![self.partition.clone()]));
        }
        let Some(from) = self.next else {
            tokio::time::sleep(wait).await;
            return Ok(SourceEvent::Idle);
        };
        let mut records = self.page(from, records_max).await?;
        if records.is_empty() && !wait.is_zero() {
            let signalled = tokio::time::timeout(wait.min(POLL_INTERVAL), self.signal.changed()).await;
            if signalled.is_ok() {
                records = self.page(from, records_max).await?;
            }
        }
        match records.last() {
            Some(last) => {
                self.next = Some(last.offset + 1);
                Ok(SourceEvent::Records(records))
            }
            None => Ok(SourceEvent::Idle),
        }
    }

    async fn start(&mut self, positions: &[(Partition, i64)]) -> Result<(), SourceError> {
        for (partition, offset) in positions {
            if *partition == self.partition {
                self.next = Some(*offset);
            }
        }
        Ok(())
    }

    async fn end(&mut self, _: &Partition) -> Result<i64, SourceError> {
        Ok(EventStore::new(self.database.clone()).head().await?.0 + 1)
    }
}
