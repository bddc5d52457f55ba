//! What every event has, whatever its type, and the columns in which stores keep it: declared once. A new column is a field of
//! [`Envelope`], its reading in `wire/record_fields.rs`, a line of [`COLUMNS`], and a migration of each store.

use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::columns::ColumnType;
use crate::ids::{EventId, Position, TenantId};

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

/// What an event of any type says besides its type, what it is about, and its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Its own id.
    pub event_id: EventId,
    /// The version of the contract that the data fulfils.
    pub schema_version: ByteString,
    /// When it happened.
    pub timestamp: Timestamp,
    /// When the event store took it; absent from services that publish for themselves.
    pub recorded_at: Option<Timestamp>,
    /// The service that said so.
    pub source: ByteString,
    /// Whose event it is.
    pub tenant: TenantId,
    /// Its number in the stream, 1 for the first; absent from services that publish for themselves.
    pub version: Option<i64>,
    /// Its place in the event store; absent from services that publish for themselves.
    pub position: Option<Position>,
    /// Cause, correlation, actor.
    pub metadata: Metadata,
}

/// An event's type and aggregate by their names, and its envelope: one row's worth of [`COLUMNS`].
#[derive(Debug, Clone, Copy)]
pub struct Enveloped<'a> {
    /// The type's name.
    pub event_type: &'a str,
    /// The kind of thing that it is about.
    pub aggregate_type: &'a str,
    /// The thing.
    pub aggregate_id: &'a str,
    /// The rest.
    pub envelope: &'a Envelope,
}

/// What a column of the envelope holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvelopeValue<'a> {
    /// [`ColumnType::Text`].
    Text(&'a str),
    /// [`ColumnType::Integer`].
    Integer(i64),
    /// [`ColumnType::Timestamp`].
    Time(Timestamp),
}

/// One column.
#[derive(Debug, Clone, Copy)]
pub struct EnvelopeColumn {
    /// Its name in history and ClickHouse.
    pub name: &'static str,
    /// Where it stands in a record: a field's name, or `metadata/NAME`.
    pub wire: &'static str,
    /// The header that must say the same, where a record has it.
    pub header: Option<&'static str>,
    /// Its column in the event store's table, or the field of its `metadata`.
    pub postgres: &'static str,
    /// Its type.
    pub column_type: ColumnType,
    /// Whether an event may be without it: null in columns, no field on the wire.
    pub is_optional: bool,
    /// Whether few values stand there over and over; ClickHouse keeps those in a dictionary.
    pub repeats: bool,
    /// Its value.
    pub value: for<'a> fn(&Enveloped<'a>) -> Option<EnvelopeValue<'a>>,
}

impl EnvelopeColumn {
    /// The field's own name on the wire.
    #[must_use]
    pub fn field(&self) -> &'static str {
        self.wire.rsplit('/').next().unwrap_or(self.wire)
    }
}

macro_rules! columns {
    ($($name:literal <- $wire:literal, $postgres:literal, $column_type:ident, $optional:ident [$($header:literal)?] $($repeats:ident)?: $value:expr;)+) => {
        &[$(EnvelopeColumn {
            name: $name,
            wire: $wire,
            header: columns!(@header $($header)?),
            postgres: $postgres,
            column_type: ColumnType::$column_type,
            is_optional: columns!(@optional $optional),
            repeats: columns!(@repeats $($repeats)?),
            value: $value,
        }),+]
    };
    (@header) => { None };
    (@header $header:literal) => { Some($header) };
    (@optional optional) => { true };
    (@optional required) => { false };
    (@repeats) => { false };
    (@repeats repeats) => { true };
}

fn text(text: &str) -> Option<EnvelopeValue<'_>> {
    Some(EnvelopeValue::Text(text))
}

/// Every column, in the order in which stores lay them out.
pub const COLUMNS: &[EnvelopeColumn] = columns![
    "event_type" <- "eventType", "event_type", Text, required ["eventType"] repeats: |row| text(row.event_type);
    "event_id" <- "eventId", "event_id", Text, required []: |row| text(row.envelope.event_id.as_str());
    "schema_version" <- "version", "schema_version", Text, required [] repeats: |row| text(&row.envelope.schema_version);
    "timestamp" <- "timestamp", "timestamp", Timestamp, required ["timestamp"]:
        |row| Some(EnvelopeValue::Time(row.envelope.timestamp));
    "recorded_at" <- "recordedAt", "recorded_at", Timestamp, optional []: |row| row.envelope.recorded_at.map(EnvelopeValue::Time);
    "producer" <- "source", "source", Text, required ["source"] repeats: |row| text(&row.envelope.source);
    "tenant" <- "metadata/tenantId", "tenant", Text, required [] repeats: |row| text(row.envelope.tenant.as_str());
    "aggregate_type" <- "aggregateType", "stream_id", Text, required [] repeats: |row| text(row.aggregate_type);
    "aggregate_id" <- "aggregateId", "stream_id", Text, required []: |row| text(row.aggregate_id);
    "aggregate_version" <- "aggregateVersion", "version", Integer, optional []: |row| row.envelope.version.map(EnvelopeValue::Integer);
    "position" <- "position", "id", Integer, optional []: |row| row.envelope.position.map(|at| EnvelopeValue::Integer(at.0));
    "causation_id" <- "metadata/causationId", "metadata.causationId", Text, optional []:
        |row| row.envelope.metadata.causation_id.as_deref().map(EnvelopeValue::Text);
    "correlation_id" <- "metadata/correlationId", "metadata.correlationId", Text, optional ["correlationId"]:
        |row| row.envelope.metadata.correlation_id.as_deref().map(EnvelopeValue::Text);
    "actor_id" <- "metadata/userId", "metadata.userId", Text, optional []:
        |row| row.envelope.metadata.user_id.as_deref().map(EnvelopeValue::Text);
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_column_has_one_name_and_one_place_on_the_wire() {
        let names: HashSet<_> = COLUMNS.iter().map(|column| column.name).collect();
        let fields: HashSet<_> = COLUMNS.iter().map(EnvelopeColumn::field).collect();
        assert_eq!((names.len(), fields.len()), (COLUMNS.len(), COLUMNS.len()));
        let typed: HashSet<_> = crate::columns::COLUMNS.iter().map(|column| column.name).collect();
        assert!(names.is_disjoint(&typed), "no column of the data has the name of one of the envelope");
    }
}
