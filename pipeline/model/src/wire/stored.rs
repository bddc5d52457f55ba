//! An event as the event store holds it: its envelope in columns, its data as text.

use serde_json::value::RawValue;

use super::{Outgoing, OutgoingMetadata, encode, schema_name};
use crate::clock::Timestamp;
use crate::envelope::Metadata;
use crate::ids::Position;

/// A row of the event store.
#[derive(Debug, Clone, Copy)]
pub struct StoredEvent<'a> {
    /// Own id.
    pub event_id: &'a str,
    /// Type.
    pub event_type: &'a str,
    /// Contract version.
    pub schema_version: &'a str,
    /// When it happened.
    pub timestamp: Timestamp,
    /// When the event store took it.
    pub recorded_at: Timestamp,
    /// The service that said so.
    pub source: &'a str,
    /// Whose event it is.
    pub tenant: &'a str,
    /// The aggregate.
    pub aggregate_id: &'a str,
    /// Its kind.
    pub aggregate_type: &'a str,
    /// The event's number in the stream.
    pub aggregate_version: i64,
    /// Its place in the event store.
    pub position: Position,
    /// The payload, as JSON text.
    pub data: &'a str,
    /// Cause, correlation, actor, as JSON text.
    pub metadata: &'a str,
}

impl StoredEvent<'_> {
    /// The event's wire form.
    pub fn render(&self) -> Result<Vec<u8>, serde_json::Error> {
        let data: &RawValue = serde_json::from_str(self.data)?;
        let metadata: Metadata = serde_json::from_str(self.metadata)?;
        encode(&Outgoing {
            event_id: self.event_id,
            event_type: self.event_type,
            version: self.schema_version,
            timestamp: self.timestamp,
            source: self.source,
            data,
            schema: schema_name(self.event_type, self.schema_version),
            aggregate_id: self.aggregate_id,
            aggregate_type: self.aggregate_type,
            aggregate_version: self.aggregate_version,
            position: self.position,
            recorded_at: self.recorded_at,
            metadata: OutgoingMetadata { metadata: &metadata, tenant_id: self.tenant, source: self.source },
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{decode, encode_event, samples};
    use super::*;
    use crate::contract;
    use crate::event_type::EventType;

    /// Both ways of each type, and of what may stand in a row that the fast way does not take: the same event, or no verdict.
    #[test]
    fn a_row_is_the_event_that_its_wire_form_is() {
        let at = "2024-01-15T10:30:00.123Z".parse().expect("time");
        for event_type in EventType::ALL {
            let mut data = samples::one(event_type);
            data["unknown"] = json!([1, {"a": null, "b": "\u{1f393}\"\n"}]);
            let (data, version) = (data.to_string(), contract::standard().expect("contracts").newest(event_type));
            let plain = StoredEvent {
                event_id: "0190",
                event_type: event_type.as_str(),
                schema_version: &version,
                timestamp: at,
                recorded_at: at,
                source: "lms",
                tenant: "acme",
                aggregate_id: "one \"quoted\" é",
                aggregate_type: event_type.aggregate_type().as_str(),
                aggregate_version: 2,
                position: Position(7),
                data: &data,
                metadata: r#"{"causationId": "c", "userId": "u"}"#,
            };
            let event = plain.decode().unwrap_or_else(|| panic!("{event_type}"));
            assert_eq!(encode_event(&event, &data).expect("renders"), plain.render().expect("renders"));
            let odd = [
                plain,
                StoredEvent { metadata: "{}", ..plain },
                StoredEvent { metadata: r#"{"causationId": "\u00e9", "more": 1}"#, ..plain },
                StoredEvent { metadata: r#"{"userId": null}"#, ..plain },
                StoredEvent { schema_version: "0.9.0", ..plain },
                StoredEvent { event_type: "BadgeAwarded", ..plain },
                StoredEvent { aggregate_type: "Nothing", ..plain },
                StoredEvent { aggregate_id: "", ..plain },
                StoredEvent { tenant: "", ..plain },
                StoredEvent { event_id: "", ..plain },
                StoredEvent { data: "{}", ..plain },
                StoredEvent { data: "[]", ..plain },
                StoredEvent { aggregate_version: 0, ..plain },
            ];
            for stored in odd {
                let rendered = decode(&stored.render().expect("renders").into());
                if let Some(event) = stored.decode() {
                    assert_eq!(Ok(event), rendered, "{stored:?}");
                }
            }
        }
    }
}
