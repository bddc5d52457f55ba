//! An event after decoding.

use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::data::Data;
use crate::event_type::EventType;
use crate::ids::{EventId, Position, StreamId, TenantId};

/// Where an event comes from and on whose behalf: the specification's EventMetadata, the tenant apart.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// The event or command that caused this event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<ByteString>,
    /// The request or session that set it off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<ByteString>,
    /// Who acted; not always whom the event is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<ByteString>,
}

/// A decoded event: contract checked, upcast to the newest version of its type, ids and times typed.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its own id.
    pub event_id: EventId,
    /// What happened.
    pub event_type: EventType,
    /// The version of the contract that `data` now fulfils.
    pub schema_version: ByteString,
    /// When it happened.
    pub timestamp: Timestamp,
    /// When the event store took it; absent from services that publish for themselves.
    pub recorded_at: Option<Timestamp>,
    /// The service that said so.
    pub source: ByteString,
    /// Whose event it is.
    pub tenant: TenantId,
    /// The aggregate.
    pub stream: StreamId,
    /// Its number in the stream, 1 for the first; absent from services that publish for themselves.
    pub version: Option<i64>,
    /// Its place in the event store; absent from services that publish for themselves.
    pub position: Option<Position>,
    /// Cause, correlation, actor.
    pub metadata: Metadata,
    /// The payload, unknown fields included.
    pub data: Data,
}

impl Event {
    /// Whom the event is about, else who acted.
    #[must_use]
    pub fn user_id(&self) -> Option<&str> {
        self.data.text("userId").or(self.metadata.user_id.as_deref())
    }

    /// A text field of the payload.
    #[must_use]
    pub fn text(&self, field: &str) -> Option<&str> {
        self.data.text(field)
    }

    /// A number of the payload.
    #[must_use]
    pub fn number(&self, field: &str) -> Option<f64> {
        self.data.number(field)
    }

    /// The payload in RFC 8785 form: what history keeps and hashes stand on.
    #[must_use]
    pub fn canonical_data(&self) -> String {
        self.data.canonical()
    }
}
