//! Events of types that this build does not know. A platform's services invent types before weir learns of them: such a record
//! is no mistake, so it is kept whole, in history alone, and means nothing to anyone else here.

use std::ops::Deref;

use bytestring::ByteString;
use serde_json::Value;

use crate::canonical;
use crate::envelope::{Envelope, Enveloped};
use crate::event_type::EventType;
use crate::wire::error::{DecodeError, broken, cleaned};
use crate::wire::record_fields::RecordFields;

/// What stands in history where a known event has its type.
pub const OTHER_EVENT: &str = "other_event";

/// An envelope like any other's around data without a contract; `schema_version` is one that only its producer knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherEvent {
    /// What every event has.
    pub envelope: Envelope,
    /// What its producer calls it.
    pub event_type: ByteString,
    /// The kind of thing that it is about; empty if its producer does not say.
    pub aggregate_type: ByteString,
    /// The thing; empty if its producer does not say.
    pub aggregate_id: ByteString,
    /// The whole record, canonical (RFC 8785).
    pub document: ByteString,
}

impl Deref for OtherEvent {
    type Target = Envelope;

    fn deref(&self) -> &Envelope {
        &self.envelope
    }
}

impl OtherEvent {
    /// Bytes from anywhere. For those of a known type [`crate::wire::decode`] is the authority.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let event = Self::read(bytes)?;
        match event.event_type.parse::<EventType>() {
            Ok(known) => Err(broken("/eventType", format!("is {known}, which has a contract"))),
            Err(_) => Ok(event),
        }
    }

    /// [`Self::decode`] of what an older build kept, which may have known fewer types.
    pub fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let value: Value = serde_json::from_slice(bytes).map_err(|e| DecodeError::NotJson { detail: e.to_string() })?;
        if let Some((pointer, reason)) = canonical::find_unrepresentable(&value) {
            return Err(broken(pointer, reason));
        }
        let document = ByteString::from(canonical::text(&value));
        let Value::Object(fields) = value else { return Err(broken("", "is no JSON object")) };
        let record = RecordFields { fields: &fields };
        let event_type = cleaned("/eventType", record.required("eventType")?)?;
        let named = |field: &str| match record.optional(field)? {
            Some(text) => cleaned(&format!("/{field}"), text),
            None => Ok(ByteString::new()),
        };
        let (envelope, (aggregate_type, aggregate_id)) = record.envelope(
            || cleaned("/version", &record.version()?),
            || Ok((named("aggregateType")?, named("aggregateId")?)),
        )?;
        Ok(Self { envelope, event_type, aggregate_type, aggregate_id, document })
    }

    /// As a row of the envelope's columns, under its own type's name.
    #[must_use]
    pub fn enveloped(&self) -> Enveloped<'_> {
        Enveloped {
            event_type: &self.event_type,
            aggregate_type: &self.aggregate_type,
            aggregate_id: &self.aggregate_id,
            envelope: &self.envelope,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn badge() -> Value {
        json!({"eventId": "e-1", "eventType": "BadgeAwarded", "version": 2, "timestamp": "2024-01-15T10:30:00Z",
            "source": "badges", "data": {"badge": "gold", "n": 1.0}, "more": [null]})
    }

    #[test]
    fn a_type_that_nobody_knows_is_kept_whole() {
        let event = OtherEvent::decode(badge().to_string().as_bytes()).expect("an event");
        assert_eq!(
            (&*event.event_type, &*event.schema_version, event.tenant.as_str()),
            ("BadgeAwarded", "2", "default")
        );
        let again = OtherEvent::decode(event.document.as_bytes()).expect("the document is the event");
        assert_eq!(again, event);
        assert!(
            event.document.contains(r#""more":[null]"#) && event.document.contains(r#""n":1"#),
            "{}",
            event.document
        );
    }

    #[test]
    fn an_envelope_must_be_whole_all_the_same() {
        for (field, value, words) in [
            ("eventId", Value::Null, "/eventId"),
            ("timestamp", json!("yesterday"), "/timestamp"),
            ("source", json!("a\0b"), "U+0000"),
            ("eventType", json!("UserRegistered"), "has a contract"),
            ("more", json!("a\0b"), "U+0000"),
        ] {
            let mut event = badge();
            event[field] = value;
            let error = OtherEvent::decode(event.to_string().as_bytes()).expect_err(field).to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
