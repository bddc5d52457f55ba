//! A record's headers in one piece of memory, since most lanes never look at them. Each is its name and its value, one after the
//! other, and each of those is its length in bytes (32 bits, big-endian) and then its bytes.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use weir_model::Timestamp;

/// Names and values, in the order in which they came.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Bytes);

impl Headers {
    /// Appends a header to those written before.
    pub fn write(to: &mut BytesMut, name: &str, value: &[u8]) {
        for part in [name.as_bytes(), value] {
            // A record is far smaller than 4 GiB.
            to.put_u32(u32::try_from(part.len()).unwrap_or(0));
            to.put_slice(part);
        }
    }

    /// What [`Self::write`] made.
    #[must_use]
    pub fn from_written(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The bytes that [`Self::from_written`] takes.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        &self.0
    }

    /// The specification's five headers, as weir's publisher gives them to an event.
    #[must_use]
    pub fn published(
        event_type: &str,
        version: &str,
        source: &str,
        correlation_id: Option<&str>,
        timestamp: Timestamp,
    ) -> Self {
        let timestamp = timestamp.to_string();
        let pairs = [
            ("eventType", event_type),
            ("version", version),
            ("source", source),
            ("correlationId", correlation_id.unwrap_or_default()),
            ("timestamp", &timestamp),
        ];
        pairs.iter().map(|(name, value)| (*name, value.as_bytes())).collect()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let mut rest = &*self.0;
        let mut part = move || {
            let length = usize::try_from(rest.try_get_u32().ok()?).ok()?;
            let (part, after) = rest.split_at_checked(length)?;
            rest = after;
            Some(part)
        };
        std::iter::from_fn(move || Some((std::str::from_utf8(part()?).unwrap_or_default(), part()?)))
    }

    /// The last header of a name, as Kafka's clients take it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().filter(|(n, _)| *n == name).last().map(|(_, value)| value)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> FromIterator<(&'a str, &'a [u8])> for Headers {
    fn from_iter<T: IntoIterator<Item = (&'a str, &'a [u8])>>(headers: T) -> Self {
        let mut bytes = BytesMut::new();
        for (name, value) in headers {
            Self::write(&mut bytes, name, value);
        }
        Self(bytes.freeze())
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(name, value)| (name, String::from_utf8_lossy(value)))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let pairs: [(&str, &[u8]); 4] =
            [("eventType", b"UserRegistered"), ("", b""), ("odd", b"\xff\0"), ("odd", b"2")];
        let headers: Headers = pairs.into_iter().collect();
        assert_eq!(headers.iter().collect::<Vec<_>>(), pairs);
        assert_eq!((headers.get("odd"), headers.get("none")), (Some(&b"2"[..]), None));
        assert!(Headers::default().is_empty() && Headers::default().iter().next().is_none());
    }
}
