//! Key and headers of the record that an event came in, as a column: with them any lane can be made again from history alone.
//!
//! - null: the event was read from the event store, or its row was written before format 2;
//! - `{}`: they are what weir's publisher gives the event: the id of its aggregate, and the five headers;
//! - otherwise `{"headers":[["name","value"],…],"key":"text"}`, with `{"hex":"ff00"}` in place of a text that is no UTF-8, and
//!   null as the key of a record without one.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use weir_engine::{Headers, RecordHead};
use weir_model::envelope::Enveloped;
use weir_postgres::EVENT_STORE_TOPIC;

/// What the publisher gives an event.
const PUBLISHED: &str = "{}";

/// Key and headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaRecord {
    /// As it was written.
    pub key: Option<Vec<u8>>,
    /// In their order; what was no text in a name is replaced.
    pub headers: Headers,
}

#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    headers: Vec<(Cow<'a, str>, Part<'a>)>,
    key: Option<Part<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Part<'a> {
    Text(Cow<'a, str>),
    Hex { hex: String },
}

impl<'a> Part<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.into()),
            Err(_) => Self::Hex { hex: hex::encode(bytes) },
        }
    }

    fn bytes(&self) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::Text(text) => Some(text.as_bytes().into()),
            Self::Hex { hex } => hex::decode(hex).ok().map(Cow::Owned),
        }
    }
}

/// Which rows of a table have the column.
#[derive(Debug, Clone, Default)]
pub struct Kept(Option<BTreeMap<String, i64>>);

impl Kept {
    /// Of a table with the column, that an older build began: rows from these offsets on, by [`partition_id`]; all of partitions that are
    /// not among them.
    pub(crate) fn from(offsets: BTreeMap<String, i64>) -> Self {
        Self(Some(offsets))
    }

    /// Whether the row of a record has it.
    #[must_use]
    pub fn has(&self, source: &str, topic: &str, partition: i64, offset: i64) -> bool {
        let Some(from) = self.0.as_ref().filter(|_| *topic != *EVENT_STORE_TOPIC) else { return false };
        from.is_empty() || from.get(&partition_id(source, topic, partition)).is_none_or(|from| *from <= offset)
    }
}

/// How a partition is named in a property of the table.
pub(crate) fn partition_id(source: &str, topic: &str, partition: i64) -> String {
    format!("{source}/{topic}/{partition}")
}

fn published_headers(event: &Enveloped<'_>) -> Headers {
    let envelope = event.envelope;
    let correlation_id = envelope.metadata.correlation_id.as_deref();
    Headers::published(event.event_type, &envelope.schema_version, &envelope.source, correlation_id, envelope.timestamp)
}

/// The column of a record.
pub(crate) fn column(record: &RecordHead, event: &Enveloped<'_>) -> Option<Cow<'static, str>> {
    if *record.partition.topic == *EVENT_STORE_TOPIC {
        return None;
    }
    let key = record.key_bytes();
    if key == Some(event.aggregate_id.as_bytes()) && record.headers == published_headers(event) {
        return Some(PUBLISHED.into());
    }
    let headers = record.headers.iter().map(|(name, value)| (name.into(), Part::of(value))).collect();
    let stored = Stored { headers, key: key.map(Part::of) };
    // Texts and lists of texts are always JSON.
    Some(serde_json::to_string(&stored).unwrap_or_default().into())
}

/// What [`column`] was made of; `None` for what it did not make.
pub(crate) fn read(text: &str, event: &Enveloped<'_>) -> Option<KafkaRecord> {
    if text == PUBLISHED {
        let key = Some(event.aggregate_id.as_bytes().to_vec());
        return Some(KafkaRecord { key, headers: published_headers(event) });
    }
    let stored: Stored<'_> = serde_json::from_str(text).ok()?;
    let mut headers = BytesMut::new();
    for (name, value) in &stored.headers {
        Headers::write(&mut headers, name, &value.bytes()?);
    }
    let key = match &stored.key {
        Some(key) => Some(key.bytes()?.into_owned()),
        None => None,
    };
    Some(KafkaRecord { key, headers: Headers::from_written(headers.freeze()) })
}

#[cfg(test)]
mod tests {
    use weir_engine::{Partition, ordering_key};
    use weir_model::{Envelope, EventId, Metadata, TenantId};

    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            event_id: EventId::new("e".to_owned()).expect("an id"),
            schema_version: "1.0".into(),
            timestamp: "2024-01-15T10:30:00.123Z".parse().expect("a time"),
            recorded_at: None,
            source: "lms".into(),
            tenant: TenantId::new("default".to_owned()).expect("a tenant"),
            version: None,
            position: None,
            metadata: Metadata { correlation_id: Some("c".into()), ..Metadata::default() },
        }
    }

    fn record(topic: &str, key: Option<&[u8]>, headers: Headers) -> RecordHead {
        let stands_for = key.map(ordering_key);
        RecordHead {
            partition: Partition { source: "cluster".into(), topic: topic.into(), number: 0 },
            offset: 7,
            odd_key: key.filter(|key| stands_for.as_ref().is_some_and(|text| text.as_bytes() != *key)).map(Into::into),
            key: stands_for,
            headers,
            recorded_at: None,
        }
    }

    #[test]
    fn rows_of_a_table_from_before_have_it_from_an_offset_on() {
        let upgraded = Kept::from([("c/users/3".to_owned(), 40)].into());
        assert!(
            upgraded.has("c", "users", 3, 40) && upgraded.has("c", "users", 4, 0) && upgraded.has("d", "users", 3, 0)
        );
        assert!(!upgraded.has("c", "users", 3, 39) && !upgraded.has("store", "events", 0, 50));
        assert!(Kept::from(BTreeMap::new()).has("c", "users", 3, 0) && !Kept::default().has("c", "users", 3, 50));
    }

    #[test]
    fn key_and_headers_come_back_as_they_were() {
        let envelope = envelope();
        let event = Enveloped { event_type: "T", aggregate_type: "user", aggregate_id: "u", envelope: &envelope };
        let published = published_headers(&event);
        assert_eq!(column(&record("events", Some(b"u"), Headers::default()), &event), None);
        assert_eq!(column(&record("users", Some(b"u"), published.clone()), &event).as_deref(), Some("{}"));
        let odd: Headers =
            [("eventType", &b"T"[..]), ("", b""), ("odd", b"\xff\0"), ("odd", b"\"\0")].into_iter().collect();
        for key in [None, Some(&b""[..]), Some(b"u"), Some(b"v"), Some(b"\xff"), Some(b"a\0b"), Some(b"{}")] {
            for headers in [&published, &odd, &Headers::default()] {
                let written = column(&record("users", key, headers.clone()), &event).expect("of a topic");
                let found = read(&written, &event).expect("readable");
                assert_eq!((found.key.as_deref(), &found.headers), (key, headers), "{written}");
            }
        }
        let written = column(&record("users", Some(b"\xff"), odd), &event).expect("of a topic");
        assert_eq!(
            written,
            r#"{"headers":[["eventType","T"],["",""],["odd",{"hex":"ff00"}],["odd","\"\u0000"]],"key":{"hex":"ff"}}"#
        );
        assert!(["", "{", "[]", r#"{"key":{"hex":"f"},"headers":[]}"#].iter().all(|text| read(text, &event).is_none()));
    }
}
