//! One group commit: many commands, one autocommit call of one function. See `sql/postgres/V1__event_store.sql`.

use jiff::Timestamp as JiffTimestamp;
use tokio_postgres::Client;
use uuid::Uuid;
use weir_model::Metadata;
use weir_model::{EventType, Position, StreamId, TenantId, Timestamp};

use crate::error::{DbError, During, ErrorKind};

/// What a command expects of its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Anything.
    Any,
    /// That it does not exist.
    None,
    /// That it exists.
    Exists,
    /// Exactly this version; 0 is the same as `None`.
    Exact(i64),
}

impl Expected {
    /// Whether a stream at this version is as expected.
    #[must_use]
    pub fn fits(self, version: i64) -> bool {
        match self {
            Self::Any => true,
            Self::None => version == 0,
            Self::Exists => version > 0,
            Self::Exact(expected) => version == expected,
        }
    }

    pub(crate) fn code(self) -> i64 {
        match self {
            Self::Any => -1,
            Self::Exists => -2,
            Self::None => 0,
            Self::Exact(version) => version,
        }
    }
}

/// An event to store.
#[derive(Debug, Clone)]
pub struct NewStoredEvent {
    /// Its type.
    pub event_type: EventType,
    /// The contract it fulfils.
    pub schema_version: String,
    /// Its data, canonical JSON.
    pub data: String,
    /// When it happened.
    pub timestamp: Timestamp,
}

/// One command's events: stored together or not at all.
#[derive(Debug, Clone)]
pub struct Append {
    /// The tenant whose events they are.
    pub tenant: TenantId,
    /// The stream that they are appended to.
    pub stream: StreamId,
    /// What the stream must be like, or nothing is appended.
    pub expected: Expected,
    /// Event n gets the id uuidv5(command id, n): a repeat of the command makes the same ids.
    pub command_id: Uuid,
    /// SHA-256 of what was asked; `None` when the caller gave no key to repeat it by.
    pub request_hash: Option<[u8; 32]>,
    /// At least one.
    pub events: Vec<NewStoredEvent>,
    /// Cause, correlation, actor; the same for all events.
    pub metadata: Metadata,
    /// The service that asked.
    pub source: String,
}

/// Event n (from 0) of a command.
#[must_use]
pub(crate) fn event_id(command_id: Uuid, n: usize) -> Uuid {
    Uuid::new_v5(&command_id, n.to_string().as_bytes())
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// It is in the event store.
    Stored {
        /// The stream's version after it.
        version: i64,
        /// Its first event.
        first: Position,
        /// Its last event.
        last: Position,
        /// When it was appended.
        recorded_at: Timestamp,
        /// True when an earlier call had stored it.
        repeated: bool,
    },
    /// The command id was used for something else.
    KeyReused,
    /// The stream is not as expected.
    Conflict {
        /// The stream's version.
        actual: i64,
    },
}

/// Columns for `append_events`.
#[derive(Default)]
struct Columns<'a> {
    tenant: Vec<&'a str>,
    stream: Vec<String>,
    expected: Vec<i64>,
    first_event: Vec<Uuid>,
    request_hash: Vec<Option<&'a [u8]>>,
    events: Vec<i32>,
    command: Vec<i32>,
    ordinal: Vec<i32>,
    event_id: Vec<Uuid>,
    event_type: Vec<&'a str>,
    schema_version: Vec<&'a str>,
    source: Vec<&'a str>,
    data: Vec<&'a str>,
    metadata: Vec<String>,
    timestamp: Vec<JiffTimestamp>,
}

fn index(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn columns(commands: &[Append]) -> Columns<'_> {
    let mut to = Columns::default();
    for (i, command) in commands.iter().enumerate() {
        to.tenant.push(command.tenant.as_str());
        to.stream.push(command.stream.to_string());
        to.expected.push(command.expected.code());
        to.first_event.push(event_id(command.command_id, 0));
        to.request_hash.push(command.request_hash.as_ref().map(|hash| hash.as_slice()));
        to.events.push(index(command.events.len()));
        let metadata = serde_json::to_string(&command.metadata).unwrap_or_else(|_| "{}".to_owned());
        for (n, event) in command.events.iter().enumerate() {
            to.command.push(index(i + 1));
            to.ordinal.push(index(n + 1));
            to.event_id.push(event_id(command.command_id, n));
            to.event_type.push(event.event_type.as_str());
            to.schema_version.push(&event.schema_version);
            to.source.push(&command.source);
            to.data.push(&event.data);
            to.metadata.push(metadata.clone());
            to.timestamp.push(event.timestamp.to_jiff());
        }
    }
    to
}

const APPEND: &str = "SELECT * FROM append_events($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";

/// Stores the commands in order; one answer for each. Either all of them were judged and stored, or none.
pub(crate) async fn append(
    client: &deadpool_postgres::ClientWrapper,
    commands: &[Append],
) -> Result<Vec<Appended>, DbError> {
    const ACTION: &str = "appending to the event store";
    let c = columns(commands);
    let statement = client.prepare_cached(APPEND).await.during(ACTION)?;
    let client: &Client = client;
    let rows = client
        .query(
            &statement,
            &[
                &c.tenant,
                &c.stream,
                &c.expected,
                &c.first_event,
                &c.request_hash,
                &c.events,
                &c.command,
                &c.ordinal,
                &c.event_id,
                &c.event_type,
                &c.schema_version,
                &c.source,
                &c.data,
                &c.metadata,
                &c.timestamp,
            ],
        )
        .await
        .during(ACTION)?;
    rows.iter().map(answer).collect()
}

/// Whether commands could be stored: their order's lock can be had, and what is written reaches the disk.
pub(crate) async fn probe(client: &Client) -> Result<(), DbError> {
    const SQL: &str = "DO $$ BEGIN LOCK TABLE append_order IN SHARE UPDATE EXCLUSIVE MODE; INSERT INTO append_order DEFAULT VALUES; \
         DELETE FROM append_order; END $$";
    client.batch_execute(SQL).await.during("trying whether commands can be stored")
}

fn answer(row: &tokio_postgres::Row) -> Result<Appended, DbError> {
    const ACTION: &str = "reading the event store's answer";
    let wrong = |what: String| DbError::new(ACTION, ErrorKind::Permanent, what);
    let outcome: &str = row.try_get("outcome").during(ACTION)?;
    let version: i64 = row.try_get("version").during(ACTION)?;
    match outcome {
        "appended" | "repeated" => {
            let recorded: JiffTimestamp = row.try_get("recorded").during(ACTION)?;
            Ok(Appended::Stored {
                version,
                first: Position(row.try_get("first_position").during(ACTION)?),
                last: Position(row.try_get("last_position").during(ACTION)?),
                recorded_at: Timestamp::from_jiff(recorded).map_err(|e| wrong(e.to_string()))?,
                repeated: outcome == "repeated",
            })
        }
        "key_reused" => Ok(Appended::KeyReused),
        "conflict" => Ok(Appended::Conflict { actual: version }),
        other => Err(wrong(format!("unknown outcome `{other}`"))),
    }
}
