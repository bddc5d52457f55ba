//! Records, where they are in their source, and what orders them.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;
use weir_model::wire::{DecodeError, Decoded};
use weir_model::{Position, Timestamp, wire};

use crate::headers::Headers;

/// An ordered log of records with offsets of its own: a Kafka topic partition, or the whole event store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    /// Where offsets mean something: the event store's UUID, or Kafka's cluster and topic id. A recreated topic is a new
    /// source.
    pub source: Arc<str>,
    /// The topic; `events` for the event store.
    pub topic: Arc<str>,
    /// The partition's number; 0 for the event store.
    pub number: i32,
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.number)
    }
}

/// A stretch of a partition; it starts where the last one ended, gaps included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Of which partition.
    pub partition: Partition,
    /// The first offset.
    pub start: i64,
    /// The next offset to read afterwards.
    pub end: i64,
    /// The highest position in the event store among its events, as far as they name one.
    pub position: Option<Position>,
}

/// Where a record is, and what it has besides its bytes.
#[derive(Debug, Clone)]
pub struct RecordHead {
    /// The partition that it was read from.
    pub partition: Partition,
    /// Its offset in that partition.
    pub offset: i64,
    /// The key's text, made by [`ordering_key`]: records of one key stay in order. `None` for records without key.
    pub key: Option<Arc<str>>,
    /// The key's bytes, where they are not those of `key`.
    pub odd_key: Option<Box<[u8]>>,
    /// The headers.
    pub headers: Headers,
    /// When it was appended, for lag in seconds.
    pub recorded_at: Option<Timestamp>,
}

/// A record as it was read, before anyone looked inside.
#[derive(Debug, Clone)]
pub struct Record {
    /// All but the bytes.
    pub head: RecordHead,
    /// The bytes.
    pub payload: Bytes,
}

impl Deref for Record {
    type Target = RecordHead;

    fn deref(&self) -> &RecordHead {
        &self.head
    }
}

impl RecordHead {
    /// The key as it was written.
    #[must_use]
    pub fn key_bytes(&self) -> Option<&[u8]> {
        self.odd_key.as_deref().or_else(|| self.key.as_ref().map(|key| key.as_bytes()))
    }
}

impl Record {
    /// What it means. Consumers route by headers: a record whose headers say something else than its body is no event.
    pub fn decode(&self) -> Result<Decoded, DecodeError> {
        let decoded = wire::decode_any(&self.payload)?;
        wire::check_headers(&decoded, self.headers.iter())?;
        Ok(decoded)
    }
}

/// The text that stands for a record's key. UTF-8 of at most 255 characters without U+0000 and U+FFFD stands for itself. Any other
/// key becomes its first 200 characters (U+FFFD for what is no text), `~`, and the version 5 UUID of all its bytes, in hexadecimal.
#[must_use]
pub fn ordering_key(key: &[u8]) -> Arc<str> {
    const LENGTH_MAX: usize = 255;
    const HEAD: usize = 200;
    let text = String::from_utf8_lossy(key);
    let is_plain = text.len() == key.len() && !text.contains(['\0', '\u{fffd}']);
    if is_plain && (key.len() <= LENGTH_MAX || text.chars().count() <= LENGTH_MAX) {
        return Arc::from(text);
    }
    let head: String = text.chars().take(HEAD).map(|c| if c == '\0' { '\u{fffd}' } else { c }).collect();
    Arc::from(format!("{head}~{}", Uuid::new_v5(&KEY_NAMESPACE, key).hyphenated()))
}

/// Separates keys that are no plain text from every other use of version 5 UUIDs.
const KEY_NAMESPACE: Uuid = Uuid::from_u128(0x0bad_5e71_8626_4c6e_9d1a_57e1_0a5c_0c4e);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_no_plain_text_are_told_apart_and_bounded() {
        for plain in ["user_7", "final-exam/u 1", "", "é", &"🎓".repeat(255)] {
            assert_eq!(&*ordering_key(plain.as_bytes()), plain);
        }
        let long = vec![b'x'; 1 << 20];
        let odd: [&[u8]; 7] = [b"a\0b", b"a\0c", b"\xff", b"\xfe", "\u{fffd}".as_bytes(), &long, &long[1..]];
        let keys: Vec<Arc<str>> = odd.iter().map(|key| ordering_key(key)).collect();
        for (n, key) in keys.iter().enumerate() {
            assert!(!key.contains('\0') && key.chars().count() <= 255, "{key}");
            assert!(keys.iter().skip(n + 1).all(|other| other != key), "{key}");
        }
    }
}
