//! Reading the event store, and snapshots. Position order is commit order, so a reader that pages by position never
//! misses an event (P2).

use std::sync::LazyLock;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;
use weir_model::Metadata;
use weir_model::decide::STATE_FIELDS;
use weir_model::ids::takes_id;
use weir_model::wire::OutgoingMetadata;
use weir_model::{Object, Position, StreamId, TenantId, Timestamp};

use crate::database::Database;
use crate::error::{DbError, During, ErrorKind};

/// A stored event.
#[derive(Debug, Clone)]
pub struct RecordedEvent {
    /// Its place in the total order.
    pub position: Position,
    /// Its own id.
    pub event_id: Uuid,
    /// The event's tenant.
    pub tenant: String,
    /// `AggregateType-aggregateId`.
    pub stream: String,
    /// Its number in the stream, from 1.
    pub version: i64,
    /// The event's type.
    pub event_type: String,
    /// The version of the contract that its data fulfils.
    pub schema_version: String,
    /// The service that sent it.
    pub source: String,
    /// The payload.
    pub data: Box<RawValue>,
    /// Cause, correlation, actor.
    pub metadata: Metadata,
    /// When it happened.
    pub timestamp: Timestamp,
    /// When it was appended.
    pub recorded_at: Timestamp,
}

/// The columns that [`RecordedEvent::from_row`] reads.
pub(crate) const EVENT_COLUMNS: &str = "id, event_id, tenant, stream_id, version, event_type, schema_version, source, \
     coalesce(event_json::text, event_jsonb::text) AS data, metadata::text AS metadata, timestamp, recorded_at";

const READING: &str = "reading events";

/// Bytes of event data read at once (P8); one event may exceed it.
pub(crate) const BYTES_MAX: i64 = 8 << 20;

/// A query for the events of a condition in an order, `$1` of them at most, cut before `$2` bytes of data. The data becomes
/// text once, below the limit, where no planner pulls it apart.
pub(crate) fn bounded(condition: &str, order: &str, more: &str) -> String {
    format!(
        "SELECT * FROM (SELECT *, sum(octet_length(data)) OVER (ORDER BY {order}) - octet_length(data) AS bytes_before{more} \
         FROM (SELECT {EVENT_COLUMNS} FROM events WHERE {condition} ORDER BY {order} LIMIT $1) page) sized \
         WHERE bytes_before < $2 ORDER BY {order}"
    )
}

/// Some events in order, and whether there are more.
#[derive(Debug, Clone)]
pub struct Page {
    /// In order.
    pub events: Vec<RecordedEvent>,
    /// Whether there are more behind them.
    pub more: bool,
}

fn broken(what: impl std::fmt::Display) -> DbError {
    DbError::new(READING, ErrorKind::Permanent, format!("a stored event is broken: {what}"))
}

fn time(row: &Row, column: &str) -> Result<Timestamp, DbError> {
    Timestamp::from_jiff(row.try_get(column).during(READING)?).map_err(broken)
}

impl RecordedEvent {
    /// From a row with [`EVENT_COLUMNS`].
    pub(crate) fn from_row(row: &Row) -> Result<Self, DbError> {
        let data: String = row.try_get("data").during(READING)?;
        let metadata: &str = row.try_get("metadata").during(READING)?;
        Ok(Self {
            position: Position(row.try_get("id").during(READING)?),
            event_id: row.try_get("event_id").during(READING)?,
            tenant: row.try_get("tenant").during(READING)?,
            stream: row.try_get("stream_id").during(READING)?,
            version: row.try_get("version").during(READING)?,
            event_type: row.try_get("event_type").during(READING)?,
            schema_version: row.try_get("schema_version").during(READING)?,
            source: row.try_get("source").during(READING)?,
            data: RawValue::from_string(data).map_err(broken)?,
            metadata: serde_json::from_str(metadata).map_err(broken)?,
            timestamp: time(row, "timestamp")?,
            recorded_at: time(row, "recorded_at")?,
        })
    }

    /// The aggregate's id: the stream without its type.
    #[must_use]
    pub fn aggregate_id(&self) -> &str {
        self.stream.split_once('-').map_or("", |(_, id)| id)
    }
}

/// The specification's DomainEvent, with what weir knows besides.
impl Serialize for RecordedEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Shown<'a> {
            position: Position,
            event_id: Uuid,
            tenant: &'a str,
            stream: &'a str,
            aggregate_id: &'a str,
            aggregate_type: &'a str,
            version: i64,
            event_type: &'a str,
            schema_version: &'a str,
            source: &'a str,
            data: &'a RawValue,
            metadata: OutgoingMetadata<'a>,
            timestamp: Timestamp,
            recorded_at: Timestamp,
        }
        Shown {
            position: self.position,
            event_id: self.event_id,
            tenant: &self.tenant,
            stream: &self.stream,
            aggregate_id: self.aggregate_id(),
            aggregate_type: self.stream.split_once('-').map_or("", |(name, _)| name),
            version: self.version,
            event_type: &self.event_type,
            schema_version: &self.schema_version,
            source: &self.source,
            data: &self.data,
            metadata: OutgoingMetadata { metadata: &self.metadata, tenant_id: &self.tenant, source: &self.source },
            timestamp: self.timestamp,
            recorded_at: self.recorded_at,
        }
        .serialize(serializer)
    }
}

/// The state of a stream at a version, to spare the reading of everything before.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// The version it stands for.
    pub version: i64,
    /// The layout of `data`.
    pub state_version: i32,
    /// The state.
    pub data: serde_json::Value,
}

/// What the command side remembers of an event.
pub(crate) struct TailEvent {
    /// Which of the streams asked for.
    pub(crate) stream: usize,
    pub(crate) version: i64,
    pub(crate) event_type: String,
    /// [`STATE_FIELDS`] of its data; null for what it does not have.
    pub(crate) known: Object,
}

/// The event store's reading side.
#[derive(Clone)]
pub struct EventStore {
    database: Database,
}

impl EventStore {
    /// On this database.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// The UUID that names this event store in every ledger.
    pub async fn id(&self) -> Result<Uuid, DbError> {
        let client = self.database.get().await?;
        client.query_one("SELECT id FROM event_store", &[]).await.during(READING)?.try_get(0).during(READING)
    }

    /// The position of the last event, 0 for an empty store.
    pub async fn head(&self) -> Result<Position, DbError> {
        let client = self.database.get().await?;
        let row = client.query_one("SELECT coalesce(max(id), 0) FROM events", &[]).await.during(READING)?;
        row.try_get(0).during(READING).map(Position)
    }

    /// Events of a stream after a version, in order, at most `limit`.
    pub async fn get_events(
        &self,
        tenant: &TenantId,
        stream: &StreamId,
        after_version: i64,
        limit: i64,
    ) -> Result<Page, DbError> {
        let condition = "tenant = $3 AND stream_id = $4 AND version > $5";
        self.page(condition, "version", limit, &[&tenant.as_str(), &stream.to_string(), &after_version]).await
    }

    /// A tenant's events after a position, in order, at most `limit`.
    pub async fn get_all_events(&self, tenant: &TenantId, after: Position, limit: i64) -> Result<Page, DbError> {
        self.page("tenant = $3 AND id > $4", "id", limit, &[&tenant.as_str(), &after.0]).await
    }

    /// A tenant's events of one type after a position, in order, at most `limit`.
    pub async fn get_events_by_type(
        &self,
        tenant: &TenantId,
        event_type: &str,
        after: Position,
        limit: i64,
    ) -> Result<Page, DbError> {
        let condition = "tenant = $3 AND event_type = $4 AND id > $5";
        self.page(condition, "id", limit, &[&tenant.as_str(), &event_type, &after.0]).await
    }

    /// The event at a position, if it is this tenant's.
    pub async fn at(&self, tenant: &TenantId, position: Position) -> Result<Option<RecordedEvent>, DbError> {
        Ok(self.read("id = $1 AND tenant = $2", &[&position.0, &tenant.as_str()]).await?.pop())
    }

    /// The event with this id, of whatever tenant: for operators, never for a tenant's request.
    pub async fn find(&self, event_id: Uuid) -> Result<Option<RecordedEvent>, DbError> {
        Ok(self.read("event_id = $1", &[&event_id]).await?.pop())
    }

    /// Seconds since the event at a position was appended.
    pub async fn age_of(&self, position: Position) -> Result<Option<f64>, DbError> {
        const SQL: &str = "SELECT extract(epoch FROM now() - recorded_at)::float8 FROM events WHERE id = $1";
        let client = self.database.get().await?;
        let row = client.query_opt(SQL, &[&position.0]).await.during(READING)?;
        Ok(row.map(|row| row.try_get::<_, f64>(0).during(READING)).transpose()?.map(|age| age.max(0.0)))
    }

    /// The id of the event at a position.
    pub async fn event_id_at(&self, position: Position) -> Result<Option<Uuid>, DbError> {
        let client = self.database.get().await?;
        let row =
            client.query_opt("SELECT event_id FROM events WHERE id = $1", &[&position.0]).await.during(READING)?;
        row.map(|row| row.try_get(0).during(READING)).transpose()
    }

    /// How often learners took assessments in streams of the old form, which were one for all learners: tenant, assessment and
    /// user, in their order. Nothing is appended to those any more.
    pub(crate) async fn earlier_attempts(&self, takes: &[(&str, &str, &str)]) -> Result<Vec<i64>, DbError> {
        const SQL: &str = "SELECT (SELECT count(*) FROM event_log e WHERE e.tenant = w.t AND e.stream_id = 'Assessment-' || w.a \
               AND e.event_type = 'AssessmentCompleted' AND e.event_data->>'assessmentId' = w.a AND e.event_data->>'userId' = w.u \
               AND e.stream_id <> w.own) \
             FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) WITH ORDINALITY AS w(t, a, u, own, i) ORDER BY w.i";
        let own: Vec<String> = takes.iter().map(|(_, a, u)| format!("Assessment-{}", takes_id(a, u))).collect();
        let column = |n: fn(&(&str, &str, &str)) -> String| takes.iter().map(n).collect::<Vec<_>>();
        let (tenants, assessments) = (column(|t| t.0.to_owned()), column(|t| t.1.to_owned()));
        let users = column(|t| t.2.to_owned());
        let client = self.database.get().await?;
        let statement = client.prepare_cached(SQL).await.during(READING)?;
        let rows = client.query(&statement, &[&tenants, &assessments, &users, &own]).await.during(READING)?;
        rows.iter().map(|row| row.try_get(0).during(READING)).collect()
    }

    /// What the command side remembers of the events of several streams (tenant, stream, version to begin after), in the
    /// order of the streams and of each stream's versions.
    pub(crate) async fn get_tails(&self, streams: &[(&str, String, i64)]) -> Result<Vec<TailEvent>, DbError> {
        static SQL: LazyLock<String> = LazyLock::new(|| {
            // OFFSET keeps the planner from making jsonb of the data once for each field.
            let fields = STATE_FIELDS.map(|field| format!("'{field}', event_data -> '{field}'")).join(", ");
            format!(
                "SELECT w.i - 1, e.version, e.event_type, e.known FROM unnest($1::text[], $2::text[], $3::bigint[]) \
                 WITH ORDINALITY AS w(t, s, after, i) CROSS JOIN LATERAL (SELECT version, event_type, \
                 jsonb_build_object({fields})::text AS known FROM (SELECT version, event_type, event_data FROM event_log \
                 WHERE tenant = w.t AND stream_id = w.s AND version > w.after ORDER BY version OFFSET 0) d) e \
                 ORDER BY w.i, e.version"
            )
        });
        let tenants: Vec<&str> = streams.iter().map(|(tenant, ..)| *tenant).collect();
        let names: Vec<&str> = streams.iter().map(|(_, stream, _)| stream.as_str()).collect();
        let after: Vec<i64> = streams.iter().map(|(.., version)| *version).collect();
        let client = self.database.get().await?;
        let statement = client.prepare_cached(&SQL).await.during(READING)?;
        let rows = client.query(&statement, &[&tenants, &names, &after]).await.during(READING)?;
        rows.iter()
            .map(|row| {
                let known: &str = row.try_get(3).during(READING)?;
                Ok(TailEvent {
                    stream: usize::try_from(row.try_get::<_, i64>(0).during(READING)?).map_err(broken)?,
                    version: row.try_get(1).during(READING)?,
                    event_type: row.try_get(2).during(READING)?,
                    known: serde_json::from_str(known).map_err(broken)?,
                })
            })
            .collect()
    }

    /// Keeps a snapshot, unless a newer one is kept already.
    pub async fn create_snapshot(
        &self,
        tenant: &TenantId,
        stream: &StreamId,
        snapshot: &Snapshot,
    ) -> Result<(), DbError> {
        const SQL: &str = "INSERT INTO snapshots (tenant, stream_id, version, state_version, data) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (tenant, stream_id) DO UPDATE \
             SET version = excluded.version, state_version = excluded.state_version, data = excluded.data, created_at = now() \
             WHERE (snapshots.state_version, snapshots.version) < (excluded.state_version, excluded.version)";
        let client = self.database.get().await?;
        let values: [&(dyn ToSql + Sync); 5] =
            [&tenant.as_str(), &stream.to_string(), &snapshot.version, &snapshot.state_version, &snapshot.data];
        client.execute(SQL, &values).await.during("keeping a snapshot")?;
        Ok(())
    }

    /// The snapshot of a stream, if there is one.
    pub async fn get_snapshot(&self, tenant: &TenantId, stream: &StreamId) -> Result<Option<Snapshot>, DbError> {
        Ok(self.get_snapshots(&[(tenant.as_str(), stream.to_string())]).await?.pop().flatten())
    }

    /// Snapshots of several streams, in their order.
    pub(crate) async fn get_snapshots(&self, streams: &[(&str, String)]) -> Result<Vec<Option<Snapshot>>, DbError> {
        const ACTION: &str = "reading snapshots";
        const SQL: &str = "SELECT w.i - 1, s.version, s.state_version, s.data FROM unnest($1::text[], $2::text[]) \
             WITH ORDINALITY AS w(t, s, i) JOIN snapshots s ON s.tenant = w.t AND s.stream_id = w.s";
        let (tenants, names): (Vec<&str>, Vec<&str>) = streams.iter().map(|(t, s)| (*t, s.as_str())).unzip();
        let client = self.database.get().await?;
        let statement = client.prepare_cached(SQL).await.during(ACTION)?;
        let rows = client.query(&statement, &[&tenants, &names]).await.during(ACTION)?;
        let mut found = vec![None; streams.len()];
        for row in rows {
            let index = usize::try_from(row.try_get::<_, i64>(0).during(ACTION)?).map_err(broken)?;
            if let Some(place) = found.get_mut(index) {
                *place = Some(Snapshot {
                    version: row.try_get(1).during(ACTION)?,
                    state_version: row.try_get(2).during(ACTION)?,
                    data: row.try_get(3).during(ACTION)?,
                });
            }
        }
        Ok(found)
    }

    /// At most `limit` events and [`BYTES_MAX`] bytes of data, but at least one event if there is any. `$1` and `$2` are the
    /// page's own.
    async fn page(
        &self,
        condition: &str,
        order: &str,
        limit: i64,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Page, DbError> {
        let sql = bounded(condition, order, ", count(*) OVER () AS found");
        let client = self.database.get().await?;
        let statement = client.prepare_cached(&sql).await.during(READING)?;
        // One more than asked for tells whether there is more.
        let asked = limit.saturating_add(1);
        let own: [&(dyn ToSql + Sync); 2] = [&asked, &BYTES_MAX];
        let values: Vec<_> = own.into_iter().chain(values.iter().copied()).collect();
        let rows = client.query(&statement, &values).await.during(READING)?;
        let found = rows.first().map_or(Ok(0_i64), |row| row.try_get("found")).during(READING)?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let events: Vec<_> = rows.iter().take(limit).map(RecordedEvent::from_row).collect::<Result<_, _>>()?;
        let more = usize::try_from(found).is_ok_and(|found| found > events.len());
        Ok(Page { events, more })
    }

    async fn read(&self, condition: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<RecordedEvent>, DbError> {
        let client = self.database.get().await?;
        let sql = format!("SELECT {EVENT_COLUMNS} FROM events WHERE {condition}");
        let statement = client.prepare_cached(&sql).await.during(READING)?;
        let rows = client.query(&statement, values).await.during(READING)?;
        rows.iter().map(RecordedEvent::from_row).collect()
    }
}
