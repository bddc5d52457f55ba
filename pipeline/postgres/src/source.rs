//! The event store as a source: one partition, offsets are positions.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::value::RawValue;
use tokio::task::JoinError;
use tokio_postgres::Row;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;
use weir_engine::{Headers, Partition, Record, Source, SourceError, SourceEvent, Started};
use weir_model::wire::{self, Outgoing, OutgoingMetadata};
use weir_model::{Metadata, Position, Timestamp};

use crate::database::Database;
use crate::error::{DbError, During, ErrorKind};
use crate::event_store::{BYTES_MAX, EventStore, bounded};
use crate::notify::AppendSignal;

/// The topic name under which the event store stands in the ledger.
pub const EVENT_STORE_TOPIC: &str = "events";

/// Positions begin here.
const FIRST_POSITION: i64 = 1;

/// How long a poll may sleep without a signal.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Tails the event store in position order.
pub struct EventStoreSource {
    database: Database,
    partition: Partition,
    signal: AppendSignal,
    headers: bool,
    assigned: bool,
    next: Option<i64>,
    ahead: Option<Ahead>,
}

type Fetch = AbortOnDropHandle<Result<Vec<Row>, DbError>>;

/// A page that is made while the lane works on the one before: on the way, or waiting to be taken. While its rows become
/// records, Postgres is at work on the rows of the page after it, and no further.
struct Ahead {
    from: i64,
    limit: i64,
    page: AbortOnDropHandle<Result<Page, DbError>>,
}

struct Page {
    records: Vec<Record>,
    further: Option<Fetch>,
}

impl Ahead {
    fn start(source: &EventStoreSource, rows: Fetch, from: i64, limit: i64) -> Self {
        let (database, partition, headers) = (source.database.clone(), source.partition.clone(), source.headers);
        let page = tokio::spawn(async move {
            let rows = rows.await.map_err(gone)??;
            let full = usize::try_from(limit).is_ok_and(|limit| rows.len() == limit);
            let further = match rows.last().filter(|_| full) {
                // Positions are in commit order, so whatever this finds is what comes next, however late it is taken.
                Some(last) => Some(fetch(&database, last.try_get::<_, i64>("id").during(TAILING)? + 1, limit)),
                None => None,
            };
            // On a thread of its own: here it would hold up the very task that was just started.
            let converting =
                move || rows.iter().map(|row| row_to_record(&partition, row, headers)).collect::<Result<_, _>>();
            let records = tokio::task::spawn_blocking(converting).await.map_err(gone)??;
            Ok(Page { records, further })
        });
        Self { from, limit, page: AbortOnDropHandle::new(page) }
    }
}

const TAILING: &str = "tailing the event store";

fn gone(error: JoinError) -> DbError {
    DbError::new(TAILING, ErrorKind::Unavailable, error)
}

fn fetch(database: &Database, from: i64, limit: i64) -> Fetch {
    let database = database.clone();
    AbortOnDropHandle::new(tokio::spawn(async move { rows_from(&database, from, limit).await }))
}

impl EventStoreSource {
    /// Reads the event store's id; nothing else happens until the lane asks.
    pub async fn open(database: Database, signal: AppendSignal) -> Result<Self, DbError> {
        let partition = Self::partition(&database).await?;
        Ok(Self { database, partition, signal, headers: false, assigned: false, next: None, ahead: None })
    }

    /// Gives records the specification's five headers, as they go to a broker.
    #[must_use]
    pub fn with_headers(mut self) -> Self {
        self.headers = true;
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

    /// A call that is dropped leaves its page on the way, and the next call takes it.
    async fn page(&mut self, from: i64, records_max: usize) -> Result<Vec<Record>, DbError> {
        let limit = i64::try_from(records_max).unwrap_or(i64::MAX);
        if self.ahead.as_ref().is_none_or(|ahead| (ahead.from, ahead.limit) != (from, limit)) {
            let rows = fetch(&self.database, from, limit);
            self.ahead = Some(Ahead::start(self, rows, from, limit));
        }
        let Some(ahead) = &mut self.ahead else { return Ok(Vec::new()) };
        let page = (&mut ahead.page).await;
        self.ahead = None;
        let Page { records, further } = page.map_err(gone)??;
        if let (Some(rows), Some(last)) = (further, records.last()) {
            self.ahead = Some(Ahead::start(self, rows, last.offset + 1, limit));
        }
        Ok(records)
    }
}

/// A page of events from a position on, bounded in rows and bytes; at least one event if there is any.
async fn rows_from(database: &Database, from: i64, limit: i64) -> Result<Vec<Row>, DbError> {
    let client = database.get().await?;
    let statement = client.prepare_cached(&bounded("id >= $3", "id", "")).await.during(TAILING)?;
    client.query(&statement, &[&limit, &BYTES_MAX, &from]).await.during(TAILING)
}

/// The same as records.
pub(crate) async fn records_from(
    database: &Database,
    partition: &Partition,
    from: i64,
    limit: i64,
) -> Result<Vec<Record>, DbError> {
    rows_from(database, from, limit).await?.iter().map(|row| row_to_record(partition, row, false)).collect()
}

/// The row as a record, as it would stand in a topic: nothing of an event that is only passed on is taken apart on the way.
/// Headers are for a broker's consumers, which route by them; here everything stands in the payload.
fn row_to_record(partition: &Partition, row: &Row, with_headers: bool) -> Result<Record, DbError> {
    let broken =
        |what: String| DbError::new(TAILING, ErrorKind::Permanent, format!("a stored event is broken: {what}"));
    let text = |column: &str| row.try_get::<_, &str>(column).during(TAILING);
    let time =
        |column: &str| Timestamp::from_jiff(row.try_get(column).during(TAILING)?).map_err(|e| broken(e.to_string()));
    let (stream, event_type, schema_version) = (text("stream_id")?, text("event_type")?, text("schema_version")?);
    let (aggregate_type, aggregate_id) = stream.split_once('-').unwrap_or((stream, ""));
    let data: &RawValue = serde_json::from_str(text("data")?).map_err(|e| broken(e.to_string()))?;
    let metadata: Metadata = serde_json::from_str(text("metadata")?).map_err(|e| broken(e.to_string()))?;
    let mut id = Uuid::encode_buffer();
    let event_id: Uuid = row.try_get("event_id").during(TAILING)?;
    let (position, recorded_at) = (Position(row.try_get("id").during(TAILING)?), time("recorded_at")?);
    let payload = wire::encode(&Outgoing {
        event_id: event_id.hyphenated().encode_lower(&mut id),
        event_type,
        version: schema_version,
        timestamp: time("timestamp")?,
        source: text("source")?,
        data,
        schema: wire::schema_name(event_type, schema_version),
        aggregate_id,
        aggregate_type,
        aggregate_version: row.try_get("version").during(TAILING)?,
        position,
        recorded_at,
        metadata: OutgoingMetadata { metadata: &metadata, tenant_id: text("tenant")?, source: text("source")? },
    });
    let mut payload = payload.map_err(|e| broken(e.to_string()))?;
    let headers = match with_headers {
        true => headers([
            ("eventType", event_type),
            ("version", schema_version),
            ("source", text("source")?),
            ("correlationId", metadata.correlation_id.as_deref().unwrap_or_default()),
            ("timestamp", &time("timestamp")?.to_string()),
        ]),
        false => Headers::default(),
    };
    // It grew by doubling, and is kept for as long as its batch.
    payload.shrink_to_fit();
    Ok(Record {
        partition: partition.clone(),
        offset: position.0,
        key: Some(Arc::from(aggregate_id)),
        payload: payload.into(),
        headers,
        recorded_at: Some(recorded_at),
    })
}

fn headers(pairs: [(&str, &str); 5]) -> Headers {
    pairs.iter().map(|(name, value)| (*name, value.as_bytes())).collect()
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
