//! An event's payload: the text as it came, and where each field stands in it.
//!
//! A tree of values would cost more than everything else about an event: some twenty allocations and three times the
//! payload's size, for lanes that look at two or three fields. So the text is kept, shared with the record that it came in,
//! and each top-level field is a span of it; numbers and times are kept as they were read when the contract was checked.

#![allow(clippy::wildcard_enum_match_arm, reason = "who asks for one kind of value takes all others alike")]

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;

use bytestring::ByteString;
use serde::de::{DeserializeSeed, Error as _, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::Object;
use crate::canonical::{self, Name, proof};
use crate::columns::{COLUMNS, Column, NO_COLUMN};
use crate::contract;
use crate::event_type::EventType;

/// A piece of the text, or what an escaped string of it means.
#[derive(Debug, Clone)]
pub(crate) enum Piece {
    Span(u32, u32),
    Owned(Box<str>),
}

/// A field's value.
#[derive(Debug, Clone)]
pub(crate) enum FieldData {
    Null,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(Piece),
    /// A time of the contract: milliseconds, and its one form as text.
    Time(i64, Piece),
    /// An object or an array.
    Nested(Piece),
}

#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) name: Piece,
    /// Index into [`COLUMNS`].
    pub(crate) column: u8,
    pub(crate) held: FieldData,
}

/// A value as it is looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FieldValue<'a> {
    /// null
    Null,
    /// true or false
    Boolean(bool),
    /// A whole number, written as one.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// A string.
    Text(&'a str),
    /// A string that the contract knows for a time, in its one form, and its milliseconds.
    Time(i64, &'a str),
    /// An object or array, as JSON text.
    Nested(&'a str),
}

impl FieldValue<'_> {
    /// As a tree.
    #[must_use]
    pub fn to_value(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Boolean(b) => b.into(),
            Self::Integer(n) => n.into(),
            Self::Float(n) => n.into(),
            Self::Text(text) | Self::Time(_, text) => text.into(),
            // It was parsed when the contract was checked.
            Self::Nested(text) => serde_json::from_str(text).unwrap_or_default(),
        }
    }
}

/// The payload of an event that passed its contract.
#[derive(Clone)]
pub struct Data {
    text: ByteString,
    fields: Vec<Field>,
    /// Made when it is first asked for, once for all who hold the event.
    canonical: OnceLock<Box<CanonicalForm>>,
}

/// The RFC 8785 text of the whole.
#[derive(Debug, Clone)]
enum CanonicalForm {
    /// Where it stands in the text as it came, nested values with it.
    AsItCame(Range<usize>),
    /// Where in it the nested values stand, in the order of the fields; others stand nowhere.
    Made { text: String, nested: Vec<Range<usize>> },
}

impl Data {
    pub(crate) fn new(text: ByteString, fields: Vec<Field>) -> Self {
        Self { text, fields, canonical: OnceLock::new() }
    }

    /// The beginning of the text, as long as `data`, which it must be.
    #[must_use]
    pub fn text_of(&self, data: &str) -> ByteString {
        debug_assert!(self.text.starts_with(data));
        self.text.slice_ref(&self.text[..data.len()])
    }

    /// Bytes of memory beside the text.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.fields.capacity() * size_of::<Field>()
    }

    /// Bytes of memory that the canonical text takes, or may take later.
    #[must_use]
    pub fn memory_of_canonical(&self) -> usize {
        match self.canonical.get().map(|form| &**form) {
            Some(CanonicalForm::AsItCame(_)) => 0,
            Some(CanonicalForm::Made { text, .. }) => text.capacity(),
            None => self.text.len(),
        }
    }

    /// Looks whether the text is canonical as it came: then no other is made, ever.
    pub fn look_for_canonical(&self) {
        if let Some(place) = self.canonical_as_it_came() {
            self.canonical.get_or_init(|| Box::new(CanonicalForm::AsItCame(place)));
        }
    }

    fn canonical_as_it_came(&self) -> Option<Range<usize>> {
        // A time that came in another spelling than its one form.
        if self.fields.iter().any(|field| matches!(field.held, FieldData::Time(_, Piece::Owned(_)))) {
            return None;
        }
        let first = self.fields.first()?;
        let Piece::Span(name, _) = first.name else { return None };
        let start = usize::try_from(name).ok()?.checked_sub("{\"".len())?;
        let (length, members) = proof::canonical_object(self.text.get(start..)?)?;
        // A null of the contract is no field, and not in the canonical text.
        (members == self.fields.len()).then_some(start..start + length)
    }

    /// Finds the fields in the text of a JSON object; names them by the newest contract of `event_type`. A name that
    /// stands twice counts once, with its last value.
    pub fn index(event_type: EventType, text: ByteString) -> Result<Self, serde_json::Error> {
        let mut fields: Vec<Field> = Vec::new();
        let mut json = serde_json::Deserializer::from_str(&text);
        Index { event_type, text: &text, fields: &mut fields }.deserialize(&mut json)?;
        json.end()?;
        Ok(Self::new(text, fields))
    }

    /// From a tree.
    #[must_use]
    pub fn from_object(event_type: EventType, object: &Object) -> Self {
        // Our own canonical text is a JSON object.
        let text = ByteString::from(canonical::object_text(object));
        Self::index(event_type, text).unwrap_or_else(|_| Self::new(ByteString::new(), Vec::new()))
    }

    /// As a tree.
    #[must_use]
    pub fn to_object(&self) -> Object {
        self.iter().map(|(name, _, value)| (name.to_owned(), value.to_value())).collect()
    }

    fn piece<'a>(&'a self, piece: &'a Piece) -> &'a str {
        match piece {
            Piece::Span(start, end) => span(&self.text, *start, *end),
            Piece::Owned(text) => text,
        }
    }

    fn value<'a>(&'a self, held: &'a FieldData) -> FieldValue<'a> {
        match held {
            FieldData::Null => FieldValue::Null,
            FieldData::Boolean(b) => FieldValue::Boolean(*b),
            FieldData::Integer(n) => FieldValue::Integer(*n),
            FieldData::Float(n) => FieldValue::Float(*n),
            FieldData::Text(piece) => FieldValue::Text(self.piece(piece)),
            FieldData::Time(millis, piece) => FieldValue::Time(*millis, self.piece(piece)),
            FieldData::Nested(piece) => FieldValue::Nested(self.piece(piece)),
        }
    }

    /// Every field: its name, the column that takes it, its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<(usize, &'static Column)>, FieldValue<'_>)> {
        self.fields.iter().map(|field| {
            let index = usize::from(field.column);
            let column = COLUMNS.get(index).map(|column| (index, column));
            (self.piece(&field.name), column, self.value(&field.held))
        })
    }

    /// [`Self::iter`] whose nested values are in RFC 8785 form.
    pub fn iter_canonical(&self) -> impl Iterator<Item = (&str, Option<(usize, &'static Column)>, FieldValue<'_>)> {
        let form = self.canonical_form();
        self.iter().enumerate().map(move |(index, (name, column, value))| match (value, form) {
            (FieldValue::Nested(_), CanonicalForm::Made { text, nested }) => {
                let at = nested.get(index).cloned().unwrap_or_default();
                (name, column, FieldValue::Nested(text.get(at).unwrap_or_default()))
            }
            (plain, _) => (name, column, plain),
        })
    }

    /// A field's value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<FieldValue<'_>> {
        let field = self.fields.iter().find(|field| self.piece(&field.name) == name)?;
        Some(self.value(&field.held))
    }

    /// A text field.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            FieldValue::Text(text) | FieldValue::Time(_, text) => Some(text),
            _ => None,
        }
    }

    /// A number field.
    #[must_use]
    #[allow(clippy::as_conversions, reason = "whole numbers are within ±2^53, where f64 and i64 agree exactly")]
    pub fn number(&self, name: &str) -> Option<f64> {
        match self.get(name)? {
            FieldValue::Integer(n) => Some(n as f64),
            FieldValue::Float(n) => Some(n),
            _ => None,
        }
    }

    /// A true-or-false field.
    #[must_use]
    pub fn boolean(&self, name: &str) -> Option<bool> {
        match self.get(name)? {
            FieldValue::Boolean(b) => Some(b),
            _ => None,
        }
    }

    /// Any field, as a tree.
    #[must_use]
    pub fn json(&self, name: &str) -> Option<Value> {
        self.get(name).map(FieldValue::to_value)
    }

    /// The RFC 8785 text of the whole.
    #[must_use]
    pub fn canonical(&self) -> &str {
        match self.canonical_form() {
            CanonicalForm::AsItCame(place) => self.text.get(place.clone()).unwrap_or_default(),
            CanonicalForm::Made { text, .. } => text,
        }
    }

    /// Where a nested value of [`Self::iter_canonical`] stands in [`Self::canonical`], in bytes; `None` for any other text.
    #[must_use]
    pub fn place_in_canonical(&self, nested: &str) -> Option<Range<usize>> {
        let whole = self.canonical();
        let start = nested.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
        let place = start..start + nested.len();
        (place.end <= whole.len()).then_some(place)
    }

    fn canonical_form(&self) -> &CanonicalForm {
        self.canonical.get_or_init(|| {
            let found = self.canonical_as_it_came().map(CanonicalForm::AsItCame);
            Box::new(found.unwrap_or_else(|| self.make_canonical()))
        })
    }

    fn make_canonical(&self) -> CanonicalForm {
        let mut order: Vec<usize> = (0..self.fields.len()).collect();
        let name = |index: &usize| self.piece(&self.fields[*index].name);
        order.sort_unstable_by(|a, b| canonical::utf16_order(name(a), name(b)));
        let mut nested = vec![0..0; self.fields.len()];
        let mut out = String::with_capacity(self.text.len());
        out.push('{');
        for (turn, index) in order.into_iter().enumerate() {
            let field = &self.fields[index];
            if turn > 0 {
                out.push(',');
            }
            self.write_text(&mut out, &field.name);
            out.push(':');
            match &field.held {
                FieldData::Null => out.push_str("null"),
                FieldData::Boolean(b) => out.push_str(if *b { "true" } else { "false" }),
                FieldData::Integer(n) => out.push_str(&n.to_string()),
                FieldData::Float(n) => out.push_str(ryu_js::Buffer::new().format(*n)),
                FieldData::Text(piece) | FieldData::Time(_, piece) => self.write_text(&mut out, piece),
                FieldData::Nested(piece) => {
                    let start = out.len();
                    out.push_str(&canonical::nested(self.piece(piece)));
                    nested[index] = start..out.len();
                }
            }
        }
        out.push('}');
        out.shrink_to_fit();
        CanonicalForm::Made { text: out, nested }
    }

    /// A string of the text that has no escapes is its own canonical form.
    fn write_text(&self, out: &mut String, piece: &Piece) {
        match piece {
            Piece::Span(start, end) => {
                out.push('"');
                out.push_str(span(&self.text, *start, *end));
                out.push('"');
            }
            Piece::Owned(text) => out.push_str(&canonical::string(text)),
        }
    }
}

fn span(text: &str, start: u32, end: u32) -> &str {
    let place = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    text.get(place(start)..place(end)).unwrap_or_default()
}

/// Where `part`, a piece of `whole`, stands in it.
pub(crate) fn place_of(whole: &str, part: &str) -> Option<Piece> {
    let start = part.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
    let end = start + part.len();
    (end <= whole.len()).then_some(())?;
    Some(Piece::Span(u32::try_from(start).ok()?, u32::try_from(end).ok()?))
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.canonical())
    }
}

/// Two payloads are equal when they say the same, whatever their spaces and order.
impl PartialEq for Data {
    fn eq(&self, other: &Self) -> bool {
        self.canonical() == other.canonical()
    }
}

struct Index<'a, 'de> {
    event_type: EventType,
    text: &'de str,
    fields: &'a mut Vec<Field>,
}

impl<'de> DeserializeSeed<'de> for Index<'_, 'de> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Index<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let outside = || A::Error::custom("a part is outside the whole");
        let mut places: HashMap<Cow<'de, str>, usize> = HashMap::new();
        while let Some(Name(name)) = map.next_key::<Name<'de>>()? {
            let raw = map.next_value::<&'de RawValue>()?.get();
            let held = hold(self.text, self.event_type, &name, raw).ok_or_else(outside)?;
            let column = contract::standard().map_or(NO_COLUMN, |contracts| contracts.column(self.event_type, &name));
            let piece = match &name {
                Cow::Borrowed(part) if !part.contains(['"', '\\']) => place_of(self.text, part).ok_or_else(outside)?,
                _ => Piece::Owned(name.as_ref().into()),
            };
            // By a map, not by looking through: a hostile object has a hundred thousand names.
            let field = Field { name: piece, column, held };
            match places.entry(name) {
                Entry::Occupied(known) => self.fields[*known.get()] = field,
                Entry::Vacant(new) => {
                    new.insert(self.fields.len());
                    self.fields.push(field);
                }
            }
        }
        Ok(())
    }
}

/// A value from its JSON text, which is a piece of `whole`.
pub(crate) fn hold(whole: &str, event_type: EventType, name: &str, raw: &str) -> Option<FieldData> {
    Some(match raw.as_bytes().first()? {
        b'{' | b'[' => FieldData::Nested(place_of(whole, raw)?),
        b'"' => {
            let inside = raw.get(1..raw.len().checked_sub(1)?)?;
            let piece = match inside.contains('\\') {
                true => Piece::Owned(serde_json::from_str::<String>(raw).ok()?.into()),
                false => place_of(whole, inside)?,
            };
            let is_time = contract::standard().is_ok_and(|contracts| contracts.is_time(event_type, name));
            match (is_time, &piece) {
                (true, Piece::Span(..)) => match inside.parse::<crate::Timestamp>() {
                    Ok(at) => FieldData::Time(at.as_millis(), piece),
                    Err(_) => FieldData::Text(piece),
                },
                _ => FieldData::Text(piece),
            }
        }
        _ => match serde_json::from_str::<Value>(raw).ok()? {
            Value::Null => FieldData::Null,
            Value::Bool(b) => FieldData::Boolean(b),
            Value::Number(n) => {
                n.as_i64().map_or_else(|| n.as_f64().map_or(FieldData::Null, FieldData::Float), FieldData::Integer)
            }
            _ => return None,
        },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::wire::samples;

    #[test]
    fn the_canonical_text_is_that_of_the_tree() {
        for (event_type, mut data) in samples::all() {
            data["\u{10000}\u{e000}é"] = json!([null, 1.0, {"b": 2, "a": "\u{1}\"\\/"}]);
            data["q\"uote\n"] = json!("tab\there");
            data["zero"] = json!(-0.0);
            data["tiny"] = json!(5e-324);
            let Value::Object(object) = data else { panic!("an object") };
            let held = Data::from_object(event_type, &object);
            assert_eq!(held.canonical(), canonical::object_text(&object));
            let spaced = serde_json::to_string_pretty(&object).expect("json");
            let held = Data::index(event_type, spaced.into()).expect("an object");
            assert_eq!(held.canonical(), canonical::object_text(&object));
            assert_eq!(canonical::object_text(&held.to_object()), canonical::object_text(&object));
        }
    }

    #[test]
    fn text_that_is_canonical_as_it_came_is_kept_and_any_other_is_made_so() {
        for (event_type, data) in samples::all() {
            let Value::Object(object) = &data else { panic!("an object") };
            let text = canonical::object_text(object);
            let version = contract::standard().expect("contracts").newest(event_type);
            let record = format!(
                r#"{{"eventId":"e","eventType":"{event_type}","version":"{version}","timestamp":"2024-01-15T10:30:00Z","source":"s",
                "data":{text}, "aggregateId":"a"}}"#
            );
            let within = crate::wire::decode(&record.clone().into()).expect("an event").data;
            assert!(matches!(within.canonical_form(), CanonicalForm::AsItCame(_)), "{event_type}");
            assert_eq!(within.canonical(), text);
            let other = record.replace("2024-01-15T10:30:00.000Z", "2024-01-15T10:30:00Z");
            let other = crate::wire::decode(&other.into()).expect("an event").data;
            assert!(matches!(other.canonical_form(), CanonicalForm::Made { .. }), "{event_type}");
            assert_eq!(other.canonical(), text, "its times are in their one form");
            let spaced = Data::index(event_type, data.to_string().replace(':', ": ").into()).expect("an object");
            assert!(matches!(spaced.canonical_form(), CanonicalForm::Made { .. }), "{event_type}");
            let (a, b): (Vec<_>, Vec<_>) = (within.iter_canonical().collect(), within.iter().collect());
            assert_eq!(a, b);
        }
    }

    #[test]
    fn the_last_of_equal_names_counts() {
        let data = Data::index(EventType::TaskAssigned, r#"{"a": 1, "b": 2, "\u0061": 3}"#.into()).expect("json");
        assert_eq!((data.canonical(), data.number("a")), (r#"{"a":3,"b":2}"#, Some(3.0)));
    }

    /// The number of names is the sender's choice, within a megabyte: if reading took its square, this test would take minutes.
    #[test]
    fn a_hundred_thousand_names_are_read_at_once() {
        let members: Vec<String> = (0..100_000).map(|n| format!("\"{n}\":{n}")).collect();
        let object = format!("{{{}}}", members.join(","));
        let payload = format!(
            r#"{{"eventId":"e","eventType":"LearningSessionStarted","version":"1.0.0","timestamp":"2024-01-15T10:30:00Z","source":"s",
            "data":{{"sessionId":"s","userId":"u","learningPathId":"p","moduleId":"m","timestamp":"2024-01-15T10:30:00Z",
            "nested":{object},{}}}}}"#,
            members.join(",")
        );
        let event = crate::wire::decode(&payload.into()).expect("an event");
        assert_eq!(event.data.iter().count(), 100_006);
        assert!(event.canonical_data().len() > object.len());
    }

    #[test]
    fn names_sort_by_utf16_units() {
        let data = Data::index(EventType::TaskAssigned, "{\"\u{e000}\": 1, \"\u{10000}\": 2, \"a\": 3}".into());
        assert_eq!(data.expect("json").canonical(), "{\"a\":3,\"\u{10000}\":2,\"\u{e000}\":1}");
    }
}
