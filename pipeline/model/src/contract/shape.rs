//! A contract in the form in which the fast way of decoding asks for it: the few JSON Schema keywords that the contracts
//! use, compiled into checks on a stream of tokens.
//!
//! A shape only says yes. Whatever it does not know, or does not like, goes the slow way through the JSON Schema library,
//! which then finds the words; so a keyword that is missing here costs time, never a wrong answer.

#![allow(clippy::wildcard_enum_match_arm, reason = "who asks for one kind of value takes all others alike")]

use serde_json::Value;

use crate::Object;
use crate::canonical::INTEGER_MAX;
use crate::columns::{COLUMNS, NO_COLUMN};

/// Fields that are held against rules beyond the schema, whichever contract they belong to.
pub(crate) const RULED: [&str; 4] = ["timestamp", "deadline", "score", "maxScore"];

const TIMES: [&str; 2] = ["timestamp", "deadline"];

/// What a value must be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Check {
    Anything,
    Text { min: usize, max: usize },
    OneOf(Vec<String>),
    Time,
    Number(Range),
    Integer(Range),
    Boolean,
    Object(Shape),
    Array(Box<Check>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Range {
    min: f64,
    max: f64,
    above: f64,
}

impl Range {
    pub(crate) fn holds(&self, n: f64) -> bool {
        n >= self.min && n <= self.max && n > self.above
    }
}

/// An object's fields.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shape {
    pub(crate) properties: Vec<Property>,
    /// A bit for each property.
    pub(crate) required: u64,
    /// Where score and maxScore are, if it has both.
    pub(crate) score: Option<(usize, usize)>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Property {
    pub(crate) name: String,
    pub(crate) check: Check,
    pub(crate) column: u8,
}

impl Shape {
    /// `None` when the schema says something that no check here says.
    pub(crate) fn compile(schema: &Value) -> Option<Self> {
        match check("", schema, true)? {
            Check::Object(shape) => Some(shape),
            _ => None,
        }
    }

    /// The property of this name. Names mostly come in one order: the search begins behind the last one found.
    pub(crate) fn find(&self, name: &str, after: &mut usize) -> Option<usize> {
        let (before, from) = self.properties.split_at((*after).min(self.properties.len()));
        let is_it = |property: &Property| property.name == name;
        let found = from.iter().position(is_it).map(|n| n + before.len()).or_else(|| before.iter().position(is_it))?;
        *after = found + 1;
        Some(found)
    }

    fn of(schema: &Object, top: bool) -> Option<Self> {
        let empty = Object::new();
        let given = schema.get("properties").map_or(Some(&empty), Value::as_object)?;
        let mut properties = Vec::with_capacity(given.len());
        for (name, property) in given {
            let column = COLUMNS.iter().position(|column| top && column.field == name);
            let column = column.and_then(|index| u8::try_from(index).ok()).unwrap_or(NO_COLUMN);
            properties.push(Property { name: name.clone(), check: check(name, property, false)?, column });
            if !top && matches!(properties.last()?.check, Check::Time) {
                return None;
            }
        }
        // The order in which Postgres writes the names of a jsonb object.
        properties.sort_by(|a, b| (a.name.len(), &a.name).cmp(&(b.name.len(), &b.name)));
        let place = |name: &str| properties.iter().position(|property| property.name == name);
        let mut required = 0;
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            required |= 1_u64.checked_shl(u32::try_from(place(name.as_str()?)?).ok()?)?;
        }
        let score = place("score").zip(place("maxScore"));
        (properties.len() <= 64).then_some(Self { properties, required, score })
    }
}

fn check(name: &str, schema: &Value, top: bool) -> Option<Check> {
    let schema = schema.as_object()?;
    let known: &[&str] = match schema.get("type").map(Value::as_str) {
        None => &[],
        Some(kind) => match kind? {
            "string" => &["minLength", "maxLength", "enum", "format"],
            "number" | "integer" => &["minimum", "maximum", "exclusiveMinimum"],
            "boolean" => &[],
            "object" => &["properties", "required"],
            "array" => &["items"],
            _ => return None,
        },
    };
    let words = ["$schema", "$id", "title", "description", "type"];
    if !schema.keys().all(|key| words.contains(&key.as_str()) || known.contains(&key.as_str())) {
        return None;
    }
    let number = |key: &str, otherwise: f64| schema.get(key).map_or(Some(otherwise), Value::as_f64);
    let range = || {
        Some(Range {
            min: number("minimum", f64::NEG_INFINITY)?,
            max: number("maximum", f64::INFINITY)?,
            above: number("exclusiveMinimum", f64::NEG_INFINITY)?,
        })
    };
    Some(match schema.get("type").and_then(Value::as_str) {
        Some("string") => text(name, schema)?,
        Some("number") => Check::Number(range()?),
        Some("integer") => Check::Integer(range()?),
        Some("boolean") => Check::Boolean,
        Some("array") => {
            Check::Array(Box::new(schema.get("items").map_or(Some(Check::Anything), |s| check("", s, false))?))
        }
        Some("object") => Check::Object(Shape::of(schema, top)?),
        _ => Check::Anything,
    })
}

fn text(name: &str, schema: &Object) -> Option<Check> {
    if TIMES.contains(&name) {
        let plain = schema.keys().all(|key| ["type", "format", "description", "title"].contains(&key.as_str()));
        return plain.then_some(Check::Time);
    }
    if schema.contains_key("format") {
        return None;
    }
    let length = |key: &str, otherwise: usize| match schema.get(key) {
        Some(n) => n.as_u64().and_then(|n| usize::try_from(n).ok()),
        None => Some(otherwise),
    };
    let (min, max) = (length("minLength", 0)?, length("maxLength", usize::MAX)?);
    match schema.get("enum") {
        None => Some(Check::Text { min, max }),
        Some(_) if (min, max) != (0, usize::MAX) => None,
        Some(choices) => {
            let choices = choices.as_array()?.iter().map(|choice| choice.as_str().map(str::to_owned));
            Some(Check::OneOf(choices.collect::<Option<_>>()?))
        }
    }
}

impl Check {
    /// Whether a string without U+0000 is right. Times are read by who asks.
    pub(crate) fn takes_text(&self, text: &str) -> bool {
        match self {
            Self::Anything => true,
            Self::Text { min, max } => {
                // Characters are never more than bytes, and count only where that does not decide.
                (text.len() <= *max || text.chars().count() <= *max)
                    && (*min == 0 || (*min == 1 && !text.is_empty()) || text.chars().count() >= *min)
            }
            Self::OneOf(choices) => choices.iter().any(|choice| choice == text),
            _ => false,
        }
    }

    /// Whether a whole number is right.
    #[allow(clippy::as_conversions, reason = "held to ±2^53 first, where f64 and i64 agree exactly")]
    pub(crate) fn takes_integer(&self, n: i64) -> bool {
        if n.unsigned_abs() > INTEGER_MAX {
            return false;
        }
        match self {
            Self::Anything => true,
            Self::Number(range) | Self::Integer(range) => range.holds(n as f64),
            _ => false,
        }
    }

    /// Whether a number that was written with a fraction or an exponent is right.
    #[allow(clippy::as_conversions, reason = "a bound for comparison")]
    pub(crate) fn takes_float(&self, n: f64) -> bool {
        if n.fract() == 0.0 && n.abs() > INTEGER_MAX as f64 {
            return false;
        }
        match self {
            Self::Anything => true,
            Self::Number(range) => range.holds(n),
            Self::Integer(range) => n.fract() == 0.0 && range.holds(n),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::CONTRACT_FILES;

    #[test]
    fn every_contract_has_its_shape() {
        for (event_type, version, text) in CONTRACT_FILES {
            let schema: Value = serde_json::from_str(text).expect("json");
            assert!(Shape::compile(&schema).is_some(), "{event_type} {version} is decoded the slow way");
        }
    }

    #[test]
    fn a_schema_that_says_more_has_none() {
        for more in [
            serde_json::json!({"type": "object", "minProperties": 1}),
            serde_json::json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "x"}}}),
            serde_json::json!({"type": "object", "properties": {"a": {"type": ["string", "null"]}}}),
            serde_json::json!({"type": "object", "properties": {"a": {"type": "string", "format": "email"}}}),
            serde_json::json!({"type": "object", "properties": {"a": {"items": {}}}}),
        ] {
            assert_eq!(Shape::compile(&more), None, "{more}");
        }
    }
}
