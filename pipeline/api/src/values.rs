//! How many values a JSON text holds, told without building them: a text of `{"":0}` a hundred times over costs a hundredfold as a tree.

use std::cell::Cell;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Counts the values of a text. Errors are those of its form.
pub(crate) fn count(text: &[u8]) -> serde_json::Result<usize> {
    let counted = Cell::new(0);
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    Counter(&counted).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(counted.get())
}

#[derive(Clone, Copy)]
struct Counter<'c>(&'c Cell<usize>);

impl<'de> DeserializeSeed<'de> for Counter<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.0.set(self.0.get() + 1);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Counter<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while members.next_key::<Name>()?.is_some() {
            members.next_value_seed(self)?;
        }
        Ok(())
    }
}

/// A member's name, which is not kept.
struct Name;

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_counts_once_and_broken_texts_are_refused() {
        for (text, values) in [
            ("1", 1),
            ("{}", 1),
            (r#"{"a": [1, "x", null, {"b": true, "c": 1.5}]}"#, 8),
            (r#"{"": 0, "": 0}"#, 3),
            ("[[[[]]]]", 4),
        ] {
            assert_eq!(count(text.as_bytes()).ok(), Some(values), "{text}");
        }
        for text in ["", "{", "[1,]", "1 2", "\u{0}"] {
            assert!(count(text.as_bytes()).is_err(), "{text}");
        }
        assert!(count("[".repeat(200).as_bytes()).is_err(), "too deep");
    }
}
