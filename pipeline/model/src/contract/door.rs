//! What binds new events alone. Decoding takes whatever it always took: a rule that came later must not make a dead letter of what
//! was accepted before it.

use serde_json::{Number, Value};

use super::Violation;
use crate::event_type::EventType;
use crate::{Object, profile};

/// Bytes of an event's data as what is made of it may have them (see [`stored_size`]).
pub const DATA_MAX: usize = 1 << 20;

/// Values of an event's data: objects, lists and what is in them. A tree of them costs far more memory than their text, and everybody
/// who reads the event builds one.
pub const VALUES_MAX: usize = 10_000;

/// Why new data is not taken, though its contract is fulfilled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// More than [`DATA_MAX`].
    TooLarge {
        /// As it would be stored.
        bytes: usize,
    },
    /// More than [`VALUES_MAX`].
    TooManyValues {
        /// So many.
        values: usize,
    },
    /// Rules of its type.
    Violations(Vec<Violation>),
}

/// Holds new data, which its contract has accepted, against the rules of the door.
pub fn check(event_type: EventType, data: &Object) -> Result<(), Refusal> {
    let bytes = stored_size(data);
    if bytes > DATA_MAX {
        return Err(Refusal::TooLarge { bytes });
    }
    let values = data.values().map(count).sum::<usize>();
    if values > VALUES_MAX {
        return Err(Refusal::TooManyValues { values });
    }
    let violations = match event_type {
        EventType::UserProfileUpdated => profile::violations(data),
        EventType::UserRegistered
        | EventType::UserDeactivated
        | EventType::ContentUploaded
        | EventType::ContentProcessingStarted
        | EventType::ContentProcessingCompleted
        | EventType::LearningSessionStarted
        | EventType::AssessmentCompleted
        | EventType::TaskAssigned
        | EventType::TaskCompleted => Vec::new(),
    };
    if violations.is_empty() { Ok(()) } else { Err(Refusal::Violations(violations)) }
}

fn count(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Object(object) => 1 + object.values().map(count).sum::<usize>(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 1,
    }
}

/// Bytes of data as the longest text that is made of it: Postgres' own of a jsonb, as read models and SQL have it, with a space after
/// each comma and colon, and every number spelled out (1e300 is 301 digits).
#[must_use]
pub fn stored_size(data: &Object) -> usize {
    object_size(data)
}

fn object_size(object: &Object) -> usize {
    let members = object.iter().map(|(name, value)| text_size(name) + 2 + value_size(value));
    2 + members.sum::<usize>() + 2 * object.len().saturating_sub(1)
}

fn value_size(value: &Value) -> usize {
    match value {
        Value::Null => 4,
        Value::Bool(yes) => 5 - usize::from(*yes),
        Value::Number(number) => number_size(number),
        Value::String(text) => text_size(text),
        Value::Array(items) => 2 + items.iter().map(value_size).sum::<usize>() + 2 * items.len().saturating_sub(1),
        Value::Object(object) => object_size(object),
    }
}

/// Quotes included. What has no short escape is six characters.
fn text_size(text: &str) -> usize {
    let size = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..=0x1f => 6,
        _ => 1,
    };
    2 + text.bytes().map(size).sum::<usize>()
}

fn number_size(number: &Number) -> usize {
    match (number.is_f64(), number.as_f64()) {
        (true, Some(number)) => double_size(number),
        _ => number.to_string().len(),
    }
}

/// Of a double without exponent: its shortest digits (`d.ddde±x`), and the zeros that the exponent stands for.
fn double_size(number: f64) -> usize {
    let text = format!("{number:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let sign = usize::from(mantissa.starts_with('-'));
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count();
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let places = usize::try_from(exponent.unsigned_abs()).unwrap_or(0);
    let spelled = match exponent {
        0.. if digits > places + 1 => digits + 1,
        0.. => places + 1,
        _ => 2 + places - 1 + digits,
    };
    sign + spelled
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_counted_as_they_are_spelled_out() {
        let cases = [
            (json!(0), 1),
            (json!(-17), 3),
            (json!(5.0), 1),
            (json!(1.5), 3),
            (json!(-0.25), 5),
            (json!(1e300), 301),
            (json!(1.5e300), 301),
            (json!(1e-7), 9),
            (json!(1.25e-7), 11),
            (json!(5e-324), 326),
            (json!(123_456.75), 9),
        ];
        for (value, size) in cases {
            assert_eq!(value_size(&value), size, "{value}");
        }
    }

    #[test]
    fn texts_are_counted_with_escapes_and_spaces() {
        // As `SELECT octet_length(x::jsonb::text)` has them.
        let cases = [
            (json!({}), 2),
            (json!({"a": 1}), 8),
            (json!({"a": [1, 2], "b": {"c": null}}), 31),
            (json!({"a": "\u{1}\n\"é"}), 21),
            (json!({"a": [], "b": {}}), 18),
        ];
        for (value, size) in cases {
            assert_eq!(value_size(&value), size, "{value}");
        }
    }

    #[test]
    fn what_grows_on_its_way_is_refused_at_the_door() {
        let Value::Object(data) = json!({"note": vec![1e300; 150_000]}) else { panic!("an object") };
        assert!(matches!(check(EventType::UserRegistered, &data), Err(Refusal::TooLarge { bytes: 45_000_000.. })));
    }
}
