//! The wire form: the specification's IntegrationEvent as JSON, with five headers. Other services publish it too, so
//! decoding takes any bytes, never panics, and says what is wrong.

use std::sync::LazyLock;

use bytes::Bytes;
use bytestring::ByteString;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::clock::Timestamp;
use crate::contract::{self, Violation};
use crate::data::Data;
use crate::envelope::{self, Envelope, EnvelopeColumn, EnvelopeValue, Enveloped, Metadata};
use crate::event::Event;
use crate::event_type::EventType;
use crate::ids::{Position, StreamId};
use crate::other::OtherEvent;
use crate::{Object, canonical};

pub(crate) mod error;
mod fast;
pub(crate) mod record_fields;
mod stored;

pub use error::DecodeError;
pub use stored::StoredEvent;

use error::{broken, cleaned};
use record_fields::RecordFields;

/// An event on its way out; the data goes through as the text it is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outgoing<'a> {
    /// Own id.
    pub event_id: &'a str,
    /// Type.
    pub event_type: &'a str,
    /// Contract version.
    pub version: &'a str,
    /// When it happened.
    pub timestamp: Timestamp,
    /// The service that said so.
    pub source: &'a str,
    /// The payload.
    pub data: &'a RawValue,
    /// `weir:TYPE:VERSION`.
    pub schema: String,
    /// The aggregate.
    pub aggregate_id: &'a str,
    /// Its kind.
    pub aggregate_type: &'a str,
    /// The event's number in the stream.
    pub aggregate_version: i64,
    /// Its place in the event store.
    pub position: Position,
    /// When the event store took it.
    pub recorded_at: Timestamp,
    /// Cause, correlation, actor, tenant.
    pub metadata: OutgoingMetadata<'a>,
}

/// Every EventMetadata field of the specification.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OutgoingMetadata<'a> {
    /// Cause, correlation, actor.
    #[serde(flatten)]
    pub metadata: &'a Metadata,
    /// The tenant.
    pub tenant_id: &'a str,
    /// The service, again: the specification has it in both places.
    pub source: &'a str,
}

/// `weir:TYPE:VERSION`.
#[must_use]
pub fn schema_name(event_type: &str, version: &str) -> String {
    format!("weir:{event_type}:{version}")
}

/// The wire form of an event, as compact JSON.
pub fn encode(event: &Outgoing<'_>) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(event)
}

/// The wire form of an event of the event store, from the event and the text of its data.
pub fn encode_event(event: &Event, data: &str) -> Result<Vec<u8>, serde_json::Error> {
    encode(&Outgoing {
        event_id: event.event_id.as_str(),
        event_type: event.event_type.as_str(),
        version: &event.schema_version,
        timestamp: event.timestamp,
        source: &event.source,
        data: serde_json::from_str(data)?,
        schema: schema_name(event.event_type.as_str(), &event.schema_version),
        aggregate_id: event.stream.aggregate_id(),
        aggregate_type: event.stream.aggregate_type().as_str(),
        aggregate_version: event.version.unwrap_or_default(),
        position: event.position.unwrap_or(Position(0)),
        recorded_at: event.recorded_at.unwrap_or(event.timestamp),
        metadata: OutgoingMetadata {
            metadata: &event.metadata,
            tenant_id: event.tenant.as_str(),
            source: &event.source,
        },
    })
}

/// Bytes from anywhere to an event: envelope, contract, newest version. The event shares the payload's memory.
pub fn decode(payload: &Bytes) -> Result<Event, DecodeError> {
    let event = ByteString::try_from(payload.clone()).ok().and_then(|text| fast::decode(&text));
    event.map_or_else(|| decode_slowly(payload), Ok)
}

impl StoredEvent<'_> {
    /// The event, if it is as it should be; `None` is no verdict: [`Self::render`] it, and decode that. What this gives, that gives too.
    #[must_use]
    pub fn decode(&self) -> Option<Event> {
        fast::decode_stored(self)
    }
}

/// What a record turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded {
    /// An event of a type that has a contract.
    Event(Event),
    /// Another service's event, of a type that this build does not know.
    Other(OtherEvent),
}

impl Decoded {
    fn enveloped(&self) -> Enveloped<'_> {
        match self {
            Self::Event(event) => event.enveloped(),
            Self::Other(event) => event.enveloped(),
        }
    }
}

/// [`decode`], and what a lane that keeps everything keeps besides.
pub fn decode_any(payload: &Bytes) -> Result<Decoded, DecodeError> {
    match decode(payload) {
        Ok(event) => Ok(Decoded::Event(event)),
        Err(DecodeError::UnknownType(_)) => OtherEvent::decode(payload).map(Decoded::Other),
        Err(error) => Err(error),
    }
}

/// [`decode`] by way of a tree and the JSON Schema library: the authority on what an event is, and on the words for what
/// is wrong.
pub fn decode_slowly(bytes: &[u8]) -> Result<Event, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::NoValue);
    }
    let value: Value = serde_json::from_slice(bytes).map_err(|e| DecodeError::NotJson { detail: e.to_string() })?;
    let Value::Object(mut envelope) = value else {
        return Err(DecodeError::Envelope(Violation::new("", "is no JSON object")));
    };
    let data = envelope.remove("data");
    read_event(&RecordFields { fields: &envelope }, data)
}

fn read_event(record: &RecordFields<'_>, data: Option<Value>) -> Result<Event, DecodeError> {
    let event_type: EventType = record.required("eventType")?.parse().map_err(DecodeError::UnknownType)?;
    let version = record.version()?;
    let data = match data {
        Some(Value::Object(data)) => data,
        Some(_) => return Err(broken("/data", "is no JSON object")),
        None => return Err(broken("/data", "is missing")),
    };
    let contracts = contract::standard().map_err(|e| broken("", e.to_string()))?;
    let accepted = contracts.accept(event_type, &version, data).map_err(DecodeError::Contract)?;
    let (envelope, stream) =
        record.envelope(|| Ok(accepted.version.into()), || stream(record, event_type, &accepted.data))?;
    Ok(Event { envelope, event_type, stream, data: Data::from_object(event_type, &accepted.data) })
}

/// The envelope alone, of a record as a tree: how stores that keep it in columns make it again.
pub fn read_envelope(record: &Object) -> Result<Envelope, DecodeError> {
    let record = RecordFields { fields: record };
    record.envelope(|| cleaned("/version", &record.version()?), || Ok(())).map(|(envelope, ())| envelope)
}

/// The aggregate: named, or by the type's id field.
fn stream(record: &RecordFields<'_>, event_type: EventType, data: &Object) -> Result<StreamId, DecodeError> {
    let aggregate_type = event_type.aggregate_type();
    if let Some(named) = record.optional("aggregateType")?
        && named != aggregate_type.as_str()
    {
        let reason = format!("is `{named}`, but {event_type} is about a {aggregate_type}");
        return Err(broken("/aggregateType", reason));
    }
    let by_field = data.get(aggregate_type.id_field()).and_then(Value::as_str);
    let id = match record.optional("aggregateId")? {
        Some(named) => named,
        None => by_field.ok_or_else(|| broken("/aggregateId", "is missing"))?,
    };
    StreamId::new(aggregate_type, id.to_owned()).map_err(|e| broken("/aggregateId", e.to_string()))
}

/// Headers may be missing, for the body decides; those that are there must say the same. The version is not among them: the
/// event has been lifted to the newest.
pub fn check_headers<'a>(
    event: &Decoded,
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> Result<(), DecodeError> {
    /// Looked through for each header of each record.
    static HELD: LazyLock<Vec<&EnvelopeColumn>> =
        LazyLock::new(|| envelope::COLUMNS.iter().filter(|column| column.header.is_some()).collect());
    let row = event.enveloped();
    for (name, value) in headers {
        let Some(column) = HELD.iter().find(|column| column.header == Some(name)) else { continue };
        let said = || std::str::from_utf8(value).ok().and_then(|text| text.parse::<Timestamp>().ok());
        let agrees = match (column.value)(&row) {
            // The specification writes an empty one where there is none.
            _ if column.is_optional && value.is_empty() => true,
            Some(EnvelopeValue::Text(text)) => value == text.as_bytes(),
            Some(EnvelopeValue::Time(at)) => said() == Some(at),
            Some(EnvelopeValue::Integer(_)) | None => false,
        };
        if !agrees {
            let body = match (column.value)(&row) {
                Some(EnvelopeValue::Text(text)) => text.to_owned(),
                Some(EnvelopeValue::Time(at)) => at.to_string(),
                Some(EnvelopeValue::Integer(n)) => n.to_string(),
                None => String::new(),
            };
            let header = String::from_utf8_lossy(value).chars().take(100).collect();
            return Err(DecodeError::Header { name: column.field(), header, body });
        }
    }
    Ok(())
}

/// The canonical document of an event (RFC 8785: names sorted, no spaces): every sink's copy is rebuilt into this text and
/// hashed by `weir verify`. By way of a tree, not by what sinks go by: it is to find their mistakes.
#[must_use]
pub fn canonical_document(event: &Event) -> String {
    /// Columns by the name of their field; without one, the data.
    static ORDER: LazyLock<Vec<(&str, Option<&EnvelopeColumn>)>> = LazyLock::new(|| {
        let mut fields: Vec<_> = envelope::COLUMNS.iter().map(|column| (column.field(), Some(column))).collect();
        fields.push(("data", None));
        fields.sort_unstable_by_key(|(field, _)| *field);
        fields
    });
    let row = event.enveloped();
    let mut out = String::with_capacity(1024);
    for (field, column) in ORDER.iter() {
        let value = match column {
            None => canonical::object_text(&event.data.to_object()),
            Some(column) => match (column.value)(&row) {
                Some(EnvelopeValue::Text(text)) => canonical::string(text),
                Some(EnvelopeValue::Time(at)) => canonical::string(&at.to_string()),
                Some(EnvelopeValue::Integer(n)) => n.to_string(),
                None => continue,
            },
        };
        let opening = if out.is_empty() { '{' } else { ',' };
        out.push_str(&format!("{opening}\"{field}\":{value}"));
    }
    out.push('}');
    out
}

pub mod samples;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plain(event_type: EventType) -> Value {
        json!({"eventId": "e-1", "eventType": event_type, "version": contract::standard().expect("contracts").newest(event_type),
               "timestamp": "2024-01-15T10:30:00Z", "source": "lms", "data": samples::one(event_type), "schema": "x"})
    }

    fn decoded(value: &Value) -> Result<Event, DecodeError> {
        read(value.to_string().as_bytes())
    }

    fn read(bytes: &[u8]) -> Result<Event, DecodeError> {
        decode(&Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn the_bare_form_of_another_service_decodes_with_defaults() {
        let event = decoded(&plain(EventType::AssessmentCompleted)).expect("valid");
        assert_eq!(event.stream.to_string(), "Assessment-assessment_1");
        assert_eq!((event.tenant.as_str(), event.user_id()), ("default", Some("user_12345")));
        assert_eq!((event.version, event.position, event.recorded_at), (None, None, None));
    }

    #[test]
    fn what_we_encode_we_decode() {
        let data = RawValue::from_string(samples::one(EventType::TaskCompleted).to_string()).expect("json");
        let metadata =
            Metadata { causation_id: Some("c".into()), correlation_id: Some("r".into()), user_id: Some("u".into()) };
        let at = "2024-01-15T10:30:00Z".parse().expect("time");
        let bytes = encode(&Outgoing {
            event_id: "0190",
            event_type: "TaskCompleted",
            version: "1.1.0",
            timestamp: at,
            source: "weir",
            data: &data,
            schema: schema_name("TaskCompleted", "1.1.0"),
            aggregate_id: "task_1",
            aggregate_type: "Task",
            aggregate_version: 2,
            position: Position(7),
            recorded_at: at,
            metadata: OutgoingMetadata { metadata: &metadata, tenant_id: "acme", source: "weir" },
        })
        .expect("encodes");
        let event = decode(&bytes.into()).expect("decodes");
        assert_eq!((&event.metadata, event.tenant.as_str()), (&metadata, "acme"));
        assert_eq!((event.version, event.position, event.recorded_at), (Some(2), Some(Position(7)), Some(at)));
    }

    #[test]
    fn each_mistake_is_named() {
        let with = |field: &str, value: Value| {
            let mut event = plain(EventType::UserRegistered);
            event[field] = value;
            decoded(&event).expect_err(field).to_string()
        };
        assert!(with("eventType", json!("UserVanished")).contains("`UserVanished` is no event type"));
        assert!(with("eventType", json!(3)).contains("/eventType: is no string"));
        assert!(with("version", json!("2.0.0")).contains("newer than 1.0.0"));
        assert!(with("timestamp", json!("9999-01-01T00:00:00Z")).contains("/timestamp"));
        assert!(with("data", json!([])).contains("/data: is no JSON object"));
        assert!(with("aggregateVersion", json!(0)).contains("/aggregateVersion"));
        assert!(with("aggregateType", json!("Task")).contains("is about a User"));
        assert!(with("metadata", json!({"tenantId": ""})).contains("/metadata/tenantId"));
        assert!(read(b"{").expect_err("truncated").to_string().contains("not JSON"));
        assert!(read(b"\xff\xfe").is_err() && read(b"null").is_err() && read(b"").is_err());
        let deep = format!("{{\"data\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(read(deep.as_bytes()).expect_err("too deep").to_string().contains("recursion"));
    }

    #[test]
    fn every_plain_event_and_every_event_of_ours_goes_the_fast_way() {
        for event_type in EventType::ALL {
            let mut event = plain(event_type);
            for more in [
                json!({}),
                json!({"aggregateVersion": 1, "position": 7, "recordedAt": "2024-01-15T10:30:00.000Z",
                "metadata": {"causationId": "c", "correlationId": "r", "userId": "u", "tenantId": "acme", "source": "s"}}),
            ] {
                event.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
                event["data"]["unknown"] = json!([1, {"a": null}]);
                let text = ByteString::from(event.to_string());
                let fast = fast::decode(&text).unwrap_or_else(|| panic!("{text}"));
                assert_eq!(Ok(fast), decode_slowly(text.as_bytes()));
            }
        }
    }

    #[test]
    fn a_version_may_be_a_number() {
        let mut event = plain(EventType::UserRegistered);
        event["version"] = json!(1);
        assert_eq!(decoded(&event).expect("valid").schema_version, "1.0.0");
    }
}
