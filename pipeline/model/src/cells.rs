//! The data of an event as cells of the typed columns, and back. Splitting and joining again loses nothing; `weir verify` stands on that.

use serde_json::{Number, Value};

use crate::Object;
use crate::canonical::INTEGER_MAX;
use crate::clock::Timestamp;
use crate::columns::{COLUMNS, ColumnType};
use crate::data::{Data, FieldValue};

/// One cell; the column's type says which variant.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// [`ColumnType::Text`] and [`ColumnType::Json`].
    Text(String),
    /// [`ColumnType::Double`].
    Double(f64),
    /// [`ColumnType::Integer`].
    Integer(i64),
    /// [`ColumnType::Boolean`].
    Boolean(bool),
    /// [`ColumnType::Timestamp`], milliseconds.
    Timestamp(i64),
}

/// The cells of an event in the order of [`COLUMNS`], and the fields that no column takes: those that the newest contract
/// of the type does not name, and values that their column cannot hold (a newer minor version may widen a type).
#[must_use]
pub fn split(data: &Data) -> (Vec<Option<Cell>>, Object) {
    let mut cells: Vec<Option<Cell>> = vec![None; COLUMNS.len()];
    let mut rest = Object::new();
    for (name, column, value) in data.iter_canonical() {
        match column.and_then(|(index, column)| Some((index, cell(column.column_type, value)?))) {
            Some((index, cell)) => cells[index] = Some(cell),
            None => {
                rest.insert(name.to_owned(), value.to_value());
            }
        }
    }
    (cells, rest)
}

/// A value as its column holds it, if it can. Nested values are canonical already: see [`Data::iter_canonical`].
#[must_use]
#[allow(clippy::as_conversions, reason = "whole numbers are within ±2^53, where f64 and i64 agree exactly")]
pub fn cell(column_type: ColumnType, value: FieldValue<'_>) -> Option<Cell> {
    match (column_type, value) {
        (ColumnType::Text, FieldValue::Text(text)) => Some(Cell::Text(text.to_owned())),
        (ColumnType::Double, FieldValue::Integer(n)) => Some(Cell::Double(n as f64)),
        (ColumnType::Double, FieldValue::Float(n)) => Some(Cell::Double(n)),
        (ColumnType::Integer, FieldValue::Integer(n)) => Some(Cell::Integer(n)),
        (ColumnType::Integer, FieldValue::Float(n)) => whole(n).map(Cell::Integer),
        (ColumnType::Boolean, FieldValue::Boolean(b)) => Some(Cell::Boolean(b)),
        (ColumnType::Timestamp, FieldValue::Time(millis, _)) => Some(Cell::Timestamp(millis)),
        (ColumnType::Json, FieldValue::Nested(text)) => Some(Cell::Text(text.to_owned())),
        _ => None,
    }
}

/// JSON Schema takes `5.0` for an integer, and so does canonical JSON.
#[allow(clippy::as_conversions, reason = "the value is whole and within ±2^53, where f64 and i64 agree exactly")]
fn whole(n: f64) -> Option<i64> {
    (n.fract() == 0.0 && n.abs() <= INTEGER_MAX as f64).then_some(n as i64)
}

/// The data again; `cells` in the order of [`COLUMNS`]. `None` when a cell holds no JSON or time where it should.
#[must_use]
pub fn join(cells: Vec<Option<Cell>>, mut rest: Object) -> Option<Object> {
    for (column, cell) in COLUMNS.iter().zip(cells) {
        let Some(cell) = cell else { continue };
        let value = match (column.column_type, cell) {
            (ColumnType::Json, Cell::Text(text)) => serde_json::from_str(&text).ok()?,
            (_, Cell::Text(text)) => Value::String(text),
            (_, Cell::Double(n)) => Value::Number(Number::from_f64(n)?),
            (_, Cell::Integer(n)) => Value::from(n),
            (_, Cell::Boolean(b)) => Value::Bool(b),
            (_, Cell::Timestamp(ms)) => Value::String(Timestamp::from_millis(ms).ok()?.to_string()),
        };
        if rest.insert(column.field.to_owned(), value).is_some() {
            return None;
        }
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::wire::samples;
    use crate::{canonical, contract};

    #[test]
    fn split_and_join_give_back_every_sample_with_its_unknown_fields() {
        for (event_type, mut data) in samples::all() {
            data["unknown"] = json!({"deep": [1, null, {"x": 0.1}]});
            let fields = contract::standard().expect("contracts").fields(event_type);
            let foreign = COLUMNS.iter().find(|c| !fields.iter().any(|f| f == c.field)).expect("another type's column");
            data[foreign.field] = json!(["not", "what", "the", "column", "holds"]);
            let Value::Object(data) = data else { panic!("an object") };
            let (cells, rest) = split(&Data::from_object(event_type, &data));
            assert_eq!(rest.len(), 2, "{event_type}: {rest:?}");
            let joined = join(cells, rest).expect("joins");
            assert_eq!(canonical::object_text(&joined), canonical::object_text(&data));
        }
    }
}
