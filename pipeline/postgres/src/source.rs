//! The event store as a source: one partition, offsets are positions.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::Row;
use uuid::Uuid;
use weir_engine::{
    self as engine, Headers, Located, Partition, Record, RecordHead, Source, SourceError, SourceEvent, Started,
};
use weir_model::wire::StoredEvent;
use weir_model::{Metadata, Position, Timestamp};

use crate::database::Database;
use crate::error::{DbError, During, ErrorKind};
use crate::event_store::{BYTES_MAX, EventStore};
use crate::notify::AppendSignal;
use crate::pager::{self, Pager, TAILING};

/// The topic name under which the event store stands in the ledger.
pub const EVENT_STORE_TOPIC: &str = "events";

/// Positions begin here.
pub(crate) const FIRST_POSITION: i64 = 1;

/// How long a poll may sleep without a signal.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Tails the event store in position order.
pub struct EventStoreSource {
    database: Database,
    partition: Partition,
    signal: AppendSignal,
    pager: Pager<Record>,
    assigned: bool,
    next: Option<i64>,
}

impl EventStoreSource {
    /// Reads the event store's id; nothing else happens until the lane asks.
    pub async fn open(database: Database, signal: AppendSignal) -> Result<Self, DbError> {
        let partition = Self::partition(&database).await?;
        let pager = Self::pager(&database, &partition, false);
        Ok(Self { database, partition, signal, pager, assigned: false, next: None })
    }

    fn pager(database: &Database, partition: &Partition, with_headers: bool) -> Pager<Record> {
        let partition = partition.clone();
        Pager::new(database.clone(), BYTES_MAX, move |row| row_to_record(&partition, row, with_headers))
    }

    /// Gives records the specification's five headers, as they go to a broker.
    #[must_use]
    pub fn with_headers(mut self) -> Self {
        self.pager = Self::pager(&self.database, &self.partition, true);
        self
    }

    /// This event store's only partition.
    #[must_use]
    pub fn identity(&self) -> &Partition {
        &self.partition
    }

    /// The event store's only partition.
    pub async fn partition(database: &Database) -> Result<Partition, DbError> {
        let id = EventStore::new(database.clone()).id().await?;
        Ok(Partition { source: id.to_string().into(), topic: EVENT_STORE_TOPIC.into(), number: 0 })
    }
}

/// At most `limit` events from a position on, as records without headers; fewer where [`BYTES_MAX`] cuts the page.
pub(crate) async fn records_from(
    database: &Database,
    partition: &Partition,
    from: i64,
    limit: i64,
) -> Result<Vec<Record>, DbError> {
    pager::rows_from(database, from, limit, BYTES_MAX)
        .await?
        .iter()
        .map(|row| row_to_record(partition, row, false))
        .collect()
}

fn broken(what: impl std::fmt::Display) -> DbError {
    DbError::new(TAILING, ErrorKind::Permanent, format!("a stored event is broken: {what}"))
}

/// A row with [`EVENT_COLUMNS`], in their order.
fn stored<'a>(row: &'a Row, event_id: &'a str) -> Result<StoredEvent<'a>, DbError> {
    let text = |column: usize| row.try_get::<_, &str>(column).during(TAILING);
    let time = |column: usize| Timestamp::from_jiff(row.try_get(column).during(TAILING)?).map_err(broken);
    let (aggregate_type, aggregate_id) = text(3)?.split_once('-').unwrap_or((text(3)?, ""));
    Ok(StoredEvent {
        event_id,
        event_type: text(5)?,
        schema_version: text(6)?,
        timestamp: time(10)?,
        recorded_at: time(11)?,
        source: text(7)?,
        tenant: text(2)?,
        aggregate_id,
        aggregate_type,
        aggregate_version: row.try_get(4).during(TAILING)?,
        position: Position(row.try_get(0).during(TAILING)?),
        data: text(8)?,
        metadata: text(9)?,
    })
}

fn event_id<'a>(row: &Row, buffer: &'a mut [u8]) -> Result<&'a str, DbError> {
    let id: Uuid = row.try_get(1).during(TAILING)?;
    Ok(id.hyphenated().encode_lower(buffer))
}

fn head(partition: &Partition, event: &StoredEvent<'_>, headers: Headers) -> RecordHead {
    RecordHead {
        partition: partition.clone(),
        offset: event.position.0,
        key: Some(Arc::from(event.aggregate_id)),
        odd_key: None,
        headers,
        recorded_at: Some(event.recorded_at),
    }
}

/// The row as a record, as it would stand in a topic.
pub(crate) fn row_to_record(partition: &Partition, row: &Row, with_headers: bool) -> Result<Record, DbError> {
    let mut id = Uuid::encode_buffer();
    to_record(partition, &stored(row, event_id(row, &mut id)?)?, with_headers)
}

/// Nothing of an event that is only passed on is taken apart on the way. Headers are for a broker's consumers, which route by them; here
/// everything stands in the payload.
fn to_record(partition: &Partition, event: &StoredEvent<'_>, with_headers: bool) -> Result<Record, DbError> {
    let mut payload = event.render().map_err(broken)?;
    // It grew by doubling, and is kept for as long as its batch.
    payload.shrink_to_fit();
    let headers = if with_headers { headers(event)? } else { Headers::default() };
    Ok(Record { head: head(partition, event, headers), payload: payload.into() })
}

/// The row as an event, without its wire form where it is as it should be.
pub(crate) fn row_to_event(partition: &Partition, row: &Row) -> Result<engine::Row, DbError> {
    let mut id = Uuid::encode_buffer();
    to_event(partition, &stored(row, event_id(row, &mut id)?)?)
}

/// An event as the event store holds it.
pub(crate) fn to_event(partition: &Partition, stored: &StoredEvent<'_>) -> Result<engine::Row, DbError> {
    let Some(event) = stored.decode() else { return Ok(engine::Row::of(to_record(partition, stored, false)?)) };
    event.data.look_for_canonical();
    let (head, data) = (head(partition, stored, Headers::default()), event.data.text_of(stored.data));
    Ok(engine::Row::Event(Located::stored(head, event, data)))
}

fn headers(event: &StoredEvent<'_>) -> Result<Headers, DbError> {
    let metadata: Metadata = serde_json::from_str(event.metadata).map_err(broken)?;
    let correlation_id = metadata.correlation_id.as_deref();
    Ok(Headers::published(event.event_type, event.schema_version, event.source, correlation_id, event.timestamp))
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
        let mut records = self.pager.page(from, records_max).await?;
        if records.is_empty() && !wait.is_zero() {
            let signalled = tokio::time::timeout(wait.min(POLL_INTERVAL), self.signal.changed()).await;
            if signalled.is_ok() {
                records = self.pager.page(from, records_max).await?;
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

    async fn start(&mut self, positions: &[(Partition, Option<i64>)]) -> Result<Vec<Started>, SourceError> {
        let Some((partition, next)) = positions.iter().find(|(partition, _)| *partition == self.partition) else {
            return Ok(Vec::new());
        };
        let offset = next.unwrap_or(FIRST_POSITION);
        self.next = Some(offset);
        Ok(vec![Started::At { partition: partition.clone(), offset }])
    }

    async fn end(&mut self, _: &Partition) -> Result<i64, SourceError> {
        Ok(EventStore::new(self.database.clone()).head().await?.0 + 1)
    }
}
