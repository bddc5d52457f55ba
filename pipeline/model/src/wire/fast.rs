//! The fast way of decoding: one pass over the text, no tree, for events that are as they should be. Anything else (an old
//! version, an escaped name, a name that stands twice, a value that breaks its contract) is no event here, and goes the
//! slow way, which either takes it or finds the words for what is wrong. A property test holds the two against each other.

#![allow(clippy::wildcard_enum_match_arm, reason = "who asks for one kind of value takes all others alike")]

use std::borrow::Cow;
use std::fmt;

use bytestring::ByteString;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::error::clean;
use super::stored::StoredEvent;
use crate::canonical::{DEPTH_MAX, Name};
use crate::clock::Timestamp;
use crate::columns::NO_COLUMN;
use crate::contract;
use crate::contract::shape::{Check, RULED, Shape};
use crate::data::{Data, Field, FieldData, Piece, place_of};
use crate::envelope::{Envelope, Metadata};
use crate::event::Event;
use crate::event_type::EventType;
use crate::ids::{EventId, Position, StreamId, TenantId};

/// Fields that no contract names, at most: each is held against those before it.
const UNKNOWN_MAX: usize = 32;

/// The event, if it needs nothing but reading.
pub(super) fn decode(payload: &ByteString) -> Option<Event> {
    let mut json = serde_json::Deserializer::from_str(payload);
    let event = json.deserialize_map(EventVisitor { payload }).ok()?;
    json.end().ok()?;
    Some(event)
}

/// The way is not this one.
fn slow<E: Error>() -> E {
    E::custom("")
}

struct EventVisitor<'de> {
    payload: &'de ByteString,
}

/// What the envelope said, each field at most once.
#[derive(Default)]
struct Fields<'de> {
    event_id: Option<&'de str>,
    event_type: Option<EventType>,
    version: Option<&'de str>,
    timestamp: Option<Timestamp>,
    recorded_at: Option<Timestamp>,
    source: Option<&'de str>,
    aggregate_id: Option<&'de str>,
    aggregate_type: Option<&'de str>,
    aggregate_version: Option<i64>,
    position: Option<i64>,
    metadata: Option<Tags<'de>>,
    schema: Option<&'de str>,
    data: Option<Vec<Field>>,
    data_text: Option<&'de RawValue>,
}

fn once<'de, T, A: MapAccess<'de>>(map: &mut A, place: &mut Option<T>) -> Result<(), A::Error>
where
    T: Deserialize<'de>,
{
    match place.replace(map.next_value()?) {
        None => Ok(()),
        Some(_) => Err(slow()),
    }
}

/// [`once`] for a time.
fn time<'de, A: MapAccess<'de>>(map: &mut A, place: &mut Option<Timestamp>) -> Result<(), A::Error> {
    let at = map.next_value::<&'de str>()?.parse().map_err(|_| slow())?;
    if place.replace(at).is_some() { Err(slow()) } else { Ok(()) }
}

/// An event whose envelope stands beside its data; `text` is all of it in one piece.
pub(super) fn decode_stored(event: &StoredEvent<'_>) -> Option<Event> {
    let event_type: EventType = event.event_type.parse().ok()?;
    let (_, shape) = newest(event_type)?;
    let tags: Tags<'_> = serde_json::from_str(event.metadata).ok()?;
    let optional = [tags.causation_id, tags.correlation_id, tags.user_id];
    // One allocation for everything that the event keeps; the data first, as it is by far the longest.
    let parts = [event.data, event.event_id, event.source, event.tenant, event.aggregate_id];
    let all = parts.into_iter().chain(optional.into_iter().flatten());
    let mut text = String::with_capacity(all.clone().map(str::len).sum());
    all.for_each(|part| text.push_str(part));
    let text = ByteString::from(text);
    let mut at = 0;
    let mut next = |part: &str| {
        let from = at;
        at += part.len();
        text.get(from..at)
    };
    let [data, event_id, source, tenant, aggregate_id] = parts.map(&mut next);
    let [causation_id, correlation_id, user_id] = optional.map(|part| part.and_then(&mut next));
    let mut json = serde_json::Deserializer::from_str(data?);
    let found = Payload { text: &text, shape }.deserialize(&mut json).ok()?;
    json.end().ok()?;
    let fields = Fields {
        event_id,
        event_type: Some(event_type),
        version: Some(event.schema_version),
        timestamp: Some(event.timestamp),
        recorded_at: Some(event.recorded_at),
        source,
        aggregate_id,
        aggregate_type: Some(event.aggregate_type),
        aggregate_version: Some(event.aggregate_version),
        position: Some(event.position.0),
        metadata: Some(Tags { causation_id, correlation_id, user_id, tenant, source: None }),
        schema: None,
        data: Some(found),
        data_text: None,
    };
    EventVisitor { payload: &text }.event(fields)
}

impl<'de> Visitor<'de> for EventVisitor<'de> {
    type Value = Event;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Event, A::Error> {
        let mut fields = Fields::default();
        while let Some(name) = map.next_key::<&'de str>()? {
            match name {
                "eventId" => once(&mut map, &mut fields.event_id)?,
                "eventType" => {
                    let parsed = map.next_value::<&'de str>()?.parse().map_err(|_| slow())?;
                    if fields.event_type.replace(parsed).is_some() {
                        return Err(slow());
                    }
                }
                "version" => once(&mut map, &mut fields.version)?,
                "timestamp" => time(&mut map, &mut fields.timestamp)?,
                "recordedAt" => time(&mut map, &mut fields.recorded_at)?,
                "source" => once(&mut map, &mut fields.source)?,
                "aggregateId" => once(&mut map, &mut fields.aggregate_id)?,
                "aggregateType" => once(&mut map, &mut fields.aggregate_type)?,
                "aggregateVersion" => once(&mut map, &mut fields.aggregate_version)?,
                "position" => once(&mut map, &mut fields.position)?,
                "metadata" => once(&mut map, &mut fields.metadata)?,
                "schema" => once(&mut map, &mut fields.schema)?,
                "data" if fields.data.is_some() || fields.data_text.is_some() => return Err(slow()),
                "data" => match fields.event_type.and_then(newest) {
                    Some((_, shape)) => {
                        let seed = Payload { text: self.payload, shape };
                        fields.data = Some(map.next_value_seed(seed)?);
                    }
                    None => fields.data_text = Some(map.next_value()?),
                },
                _ => return Err(slow()),
            }
        }
        self.event(fields).ok_or_else(slow)
    }
}

fn newest(event_type: EventType) -> Option<(&'static ByteString, &'static Shape)> {
    contract::standard().ok()?.fast(event_type)
}

impl EventVisitor<'_> {
    fn event(&self, fields: Fields<'_>) -> Option<Event> {
        let event_type = fields.event_type?;
        let (version, shape) = newest(event_type)?;
        if fields.version? != &**version {
            return None;
        }
        let found = match (fields.data, fields.data_text) {
            (Some(found), _) => found,
            (None, Some(raw)) => {
                let seed = Payload { text: self.payload, shape };
                seed.deserialize(&mut serde_json::Deserializer::from_str(raw.get())).ok()?
            }
            (None, None) => return None,
        };
        let data = Data::new(self.payload.clone(), found);
        let aggregate_type = event_type.aggregate_type();
        if fields.aggregate_type.is_some_and(|named| named != aggregate_type.as_str()) {
            return None;
        }
        let id = match fields.aggregate_id {
            Some(named) => self.shared(named),
            None => ByteString::from(data.text(aggregate_type.id_field())?),
        };
        let positive = |n: Option<i64>| if n.is_some_and(|n| n <= 0) { None } else { Some(n) };
        let tags = fields.metadata.unwrap_or_default();
        let tag = |field: &str, text: Option<&str>| match text {
            None => Some(None),
            Some(text) => clean(field, text).ok().map(|()| Some(self.shared(text))),
        };
        let source = fields.source?;
        clean("", source).ok()?;
        // Everything that may fail first: an event is large, and is not to be put together twice.
        let (event_id, stream) =
            (EventId::new(self.shared(fields.event_id?)).ok()?, StreamId::new(aggregate_type, id).ok()?);
        let tenant = match tags.tenant {
            Some(tenant) => clean("", tenant).ok().and_then(|()| TenantId::new(self.shared(tenant)).ok())?,
            None => TenantId::default(),
        };
        let (aggregate_version, position) = (positive(fields.aggregate_version)?, positive(fields.position)?);
        let (causation_id, correlation_id) = (tag("", tags.causation_id)?, tag("", tags.correlation_id)?);
        let (user_id, timestamp) = (tag("", tags.user_id)?, fields.timestamp?);
        Some(Event {
            envelope: Envelope {
                event_id,
                schema_version: version.clone(),
                timestamp,
                recorded_at: fields.recorded_at,
                source: self.shared(source),
                tenant,
                version: aggregate_version,
                position: position.map(Position),
                metadata: Metadata { causation_id, correlation_id, user_id },
            },
            event_type,
            stream,
            data,
        })
    }

    /// A piece of the payload, without a copy.
    fn shared(&self, part: &str) -> ByteString {
        self.payload.slice_ref(part)
    }
}

/// `metadata`: all of it optional.
#[derive(Default)]
struct Tags<'de> {
    causation_id: Option<&'de str>,
    correlation_id: Option<&'de str>,
    user_id: Option<&'de str>,
    tenant: Option<&'de str>,
    source: Option<&'de str>,
}

impl<'de> Deserialize<'de> for Tags<'de> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Tags<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("metadata")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tags<'de>, A::Error> {
                let mut tags = Tags::default();
                while let Some(name) = map.next_key::<&'de str>()? {
                    match name {
                        "causationId" => once(&mut map, &mut tags.causation_id)?,
                        "correlationId" => once(&mut map, &mut tags.correlation_id)?,
                        "userId" => once(&mut map, &mut tags.user_id)?,
                        "tenantId" => once(&mut map, &mut tags.tenant)?,
                        "source" => once(&mut map, &mut tags.source)?,
                        _ => return Err(slow()),
                    }
                }
                Ok(tags)
            }
        }
        json.deserialize_map(Read)
    }
}

/// `data`, held against the shape of its contract.
struct Payload<'de> {
    text: &'de str,
    shape: &'static Shape,
}

impl<'de> DeserializeSeed<'de> for Payload<'de> {
    type Value = Vec<Field>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Vec<Field>, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Payload<'de> {
    type Value = Vec<Field>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the data of an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Field>, A::Error> {
        let mut fields: Vec<Field> = Vec::with_capacity(self.shape.properties.len());
        let (mut seen, mut after, mut unknown) = (0_u64, 0, Vec::new());
        let (mut score, mut score_max) = (None, None);
        while let Some(name) = map.next_key::<&'de str>()? {
            let place = || place_of(self.text, name).ok_or_else(slow);
            let Some(index) = self.shape.find(name, &mut after) else {
                // Rules hold for these wherever they stand.
                if unknown.len() == UNKNOWN_MAX || RULED.contains(&name) || unknown.contains(&name) {
                    return Err(slow());
                }
                unknown.push(name);
                let held = map.next_value_seed(Value { text: self.text, check: &Check::Anything })?;
                fields.push(Field { name: place()?, column: NO_COLUMN, held });
                continue;
            };
            let (property, bit) = (&self.shape.properties[index], 1_u64 << index);
            if seen & bit != 0 {
                return Err(slow());
            }
            let held = map.next_value_seed(Value { text: self.text, check: &property.check })?;
            seen |= bit;
            if self.shape.score.is_some_and(|(at, _)| at == index) {
                score = number(&held);
            } else if self.shape.score.is_some_and(|(_, at)| at == index) {
                score_max = number(&held);
            }
            if matches!(held, FieldData::Null) {
                // Absent, unless it must be there.
                if self.shape.required & bit != 0 {
                    return Err(slow());
                }
                continue;
            }
            fields.push(Field { name: place()?, column: property.column, held });
        }
        let complete = seen & self.shape.required == self.shape.required;
        let within = score.zip(score_max).is_none_or(|(score, max)| score <= max);
        if complete && within { Ok(fields) } else { Err(slow()) }
    }
}

#[allow(clippy::as_conversions, reason = "whole numbers are within ±2^53, where f64 and i64 agree exactly")]
fn number(held: &FieldData) -> Option<f64> {
    match held {
        FieldData::Integer(n) => Some(*n as f64),
        FieldData::Float(n) => Some(*n),
        _ => None,
    }
}

/// One value of the data.
struct Value<'de> {
    text: &'de str,
    check: &'static Check,
}

impl<'de> DeserializeSeed<'de> for Value<'de> {
    type Value = FieldData;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<FieldData, D::Error> {
        if !matches!(self.check, Check::Anything | Check::Object(_) | Check::Array(_)) {
            return json.deserialize_any(self);
        }
        // What may be nested is cut out whole first: only the raw text knows its own ends.
        let raw = <&'de RawValue>::deserialize(json)?.get();
        let mut inner = serde_json::Deserializer::from_str(raw);
        if !raw.starts_with(['{', '[']) {
            return inner.deserialize_any(self).map_err(|_| slow());
        }
        Nested { check: self.check, depth: 1 }.deserialize(&mut inner).map_err(|_| slow())?;
        Ok(FieldData::Nested(place_of(self.text, raw).ok_or_else(slow)?))
    }
}

impl<'de> Visitor<'de> for Value<'de> {
    type Value = FieldData;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<FieldData, E> {
        let piece = place_of(self.text, text).ok_or_else(slow)?;
        if *self.check != Check::Time {
            return if self.check.takes_text(text) { Ok(FieldData::Text(piece)) } else { Err(slow()) };
        }
        let at: Timestamp = text.parse().map_err(|_| slow())?;
        // The one form that times are put into; any other is written again.
        let normal =
            text.len() == 24 && text.ends_with('Z') && text.get(17..20) != Some("60.") && text.get(19..20) == Some(".");
        let piece = if normal { piece } else { Piece::Owned(at.to_string().into()) };
        Ok(FieldData::Time(at.as_millis(), piece))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<FieldData, E> {
        // It had escapes, and one of them may have been U+0000.
        match *self.check != Check::Time && !text.contains('\0') && self.check.takes_text(text) {
            true => Ok(FieldData::Text(Piece::Owned(text.into()))),
            false => Err(slow()),
        }
    }

    fn visit_i64<E: Error>(self, n: i64) -> Result<FieldData, E> {
        if self.check.takes_integer(n) { Ok(FieldData::Integer(n)) } else { Err(slow()) }
    }

    fn visit_u64<E: Error>(self, n: u64) -> Result<FieldData, E> {
        self.visit_i64(i64::try_from(n).map_err(|_| slow())?)
    }

    #[allow(clippy::as_conversions, reason = "the value is whole and within ±2^53, where f64 and i64 agree exactly")]
    fn visit_f64<E: Error>(self, n: f64) -> Result<FieldData, E> {
        match self.check.takes_float(n) {
            // Written `5.0` it is the same number, and canonical JSON writes it `5`.
            true if n.fract() == 0.0 => Ok(FieldData::Integer(n as i64)),
            true => Ok(FieldData::Float(n)),
            false => Err(slow()),
        }
    }

    fn visit_bool<E: Error>(self, b: bool) -> Result<FieldData, E> {
        if matches!(self.check, Check::Anything | Check::Boolean) { Ok(FieldData::Boolean(b)) } else { Err(slow()) }
    }

    /// Whether null may stand here, the property decides.
    fn visit_unit<E: Error>(self) -> Result<FieldData, E> {
        Ok(FieldData::Null)
    }
}

/// Whatever is nested: looked at, not kept.
struct Nested {
    check: &'static Check,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Nested {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Nested {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a nested value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let shape = match self.check {
            Check::Anything => None,
            Check::Object(shape) => Some(shape),
            _ => return Err(slow()),
        };
        if self.depth >= DEPTH_MAX {
            return Err(slow());
        }
        let (mut seen, mut after) = (0_u64, 0);
        while let Some(Name(name)) = map.next_key::<Name<'de>>()? {
            if matches!(name, Cow::Owned(_)) && name.contains('\0') {
                return Err(slow());
            }
            let known = shape.and_then(|shape| shape.find(&name, &mut after).map(|index| (shape, index)));
            let check = match known {
                Some((shape, index)) => {
                    seen |= 1 << index;
                    &shape.properties[index].check
                }
                None => &Check::Anything,
            };
            map.next_value_seed(Nested { check, depth: self.depth + 1 })?;
        }
        match shape.is_none_or(|shape| seen & shape.required == shape.required) {
            true => Ok(()),
            false => Err(slow()),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let check: &'static Check = match self.check {
            Check::Anything => &Check::Anything,
            Check::Array(check) => check,
            _ => return Err(slow()),
        };
        if self.depth >= DEPTH_MAX {
            return Err(slow());
        }
        while items.next_element_seed(Nested { check, depth: self.depth + 1 })?.is_some() {}
        Ok(())
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<(), E> {
        if self.check.takes_text(text) { Ok(()) } else { Err(slow()) }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        if !text.contains('\0') && self.check.takes_text(text) { Ok(()) } else { Err(slow()) }
    }

    fn visit_i64<E: Error>(self, n: i64) -> Result<(), E> {
        if self.check.takes_integer(n) { Ok(()) } else { Err(slow()) }
    }

    fn visit_u64<E: Error>(self, n: u64) -> Result<(), E> {
        self.visit_i64(i64::try_from(n).map_err(|_| slow())?)
    }

    fn visit_f64<E: Error>(self, n: f64) -> Result<(), E> {
        if self.check.takes_float(n) { Ok(()) } else { Err(slow()) }
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        if matches!(self.check, Check::Anything | Check::Boolean) { Ok(()) } else { Err(slow()) }
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        if *self.check == Check::Anything { Ok(()) } else { Err(slow()) }
    }
}
