//! The typed columns of columnar sinks: one name, one meaning, one type for each field of any contract.
//! Splitting an event's data into columns and joining it again loses nothing; `weir verify` stands on that.

use serde_json::{Number, Value};

use crate::clock::Timestamp;
use crate::data::{Data, FieldValue, canonical_nested};
use crate::{Object, canonical};

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// UTF-8 text.
    Text,
    /// A double.
    Double,
    /// A 64-bit integer.
    Integer,
    /// True or false.
    Boolean,
    /// UTC milliseconds.
    Timestamp,
    /// An object or array as canonical JSON text.
    Json,
}

/// One column and the field it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// The field in the event's data.
    pub field: &'static str,
    /// The column, snake_case.
    pub name: &'static str,
    /// Its type.
    pub column_type: ColumnType,
}

macro_rules! columns {
    ($($field:literal => $name:literal $column_type:ident),+ $(,)?) => {
        &[$(Column { field: $field, name: $name, column_type: ColumnType::$column_type }),+]
    };
}

/// Every column, in the order in which sinks lay them out; new ones go to the end.
pub const COLUMNS: &[Column] = columns![
    "userId" => "user_id" Text,
    "email" => "email" Text,
    "username" => "username" Text,
    "profile" => "profile" Json,
    "registrationSource" => "registration_source" Text,
    "changedFields" => "changed_fields" Json,
    "previousValues" => "previous_values" Json,
    "newValues" => "new_values" Json,
    "reason" => "reason" Text,
    "contentId" => "content_id" Text,
    "contentType" => "content_type" Text,
    "fileName" => "file_name" Text,
    "fileSize" => "file_size" Integer,
    "mimeType" => "mime_type" Text,
    "fileUrl" => "file_url" Text,
    "metadata" => "content_metadata" Json,
    "processingOptions" => "processing_options" Json,
    "processingType" => "processing_type" Text,
    "status" => "status" Text,
    "results" => "results" Json,
    "processingDuration" => "processing_duration" Double,
    "sessionId" => "session_id" Text,
    "learningPathId" => "learning_path_id" Text,
    "moduleId" => "module_id" Text,
    "deviceInfo" => "device_info" Json,
    "assessmentId" => "assessment_id" Text,
    "score" => "score" Double,
    "maxScore" => "max_score" Double,
    "passed" => "passed" Boolean,
    "timeSpent" => "time_spent" Double,
    "answers" => "answers" Json,
    "analytics" => "analytics" Json,
    "taskId" => "task_id" Text,
    "agentId" => "agent_id" Text,
    "agentType" => "agent_type" Text,
    "taskType" => "task_type" Text,
    "priority" => "priority" Text,
    "payload" => "task_payload" Json,
    "expectedDuration" => "expected_duration" Double,
    "deadline" => "deadline" Timestamp,
    "result" => "result" Json,
    "executionTime" => "execution_time" Double,
    "resourceUsage" => "resource_usage" Json,
    "qualityMetrics" => "quality_metrics" Json,
    "timestamp" => "data_timestamp" Timestamp,
];

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
    for (name, column, value) in data.iter() {
        match column.and_then(|(index, column)| Some((index, cell(column.column_type, value)?))) {
            Some((index, cell)) => cells[index] = Some(cell),
            None => {
                rest.insert(name.to_owned(), value.to_value());
            }
        }
    }
    (cells, rest)
}

/// A value as its column holds it, if it can.
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
        (ColumnType::Json, FieldValue::Nested(text)) => Some(Cell::Text(canonical_nested(text).into_owned())),
        _ => None,
    }
}

/// JSON Schema takes `5.0` for an integer, and so does canonical JSON.
#[allow(clippy::as_conversions, reason = "the value is whole and within ±2^53, where f64 and i64 agree exactly")]
fn whole(n: f64) -> Option<i64> {
    (n.fract() == 0.0 && n.abs() <= canonical::INTEGER_MAX as f64).then_some(n as i64)
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
    use std::collections::HashSet;

    use serde_json::json;

    use super::*;
    use crate::contract;
    use crate::event::EventType;
    use crate::wire::samples;

    #[test]
    fn one_name_one_meaning_one_type() {
        let fields: HashSet<_> = COLUMNS.iter().map(|c| c.field).collect();
        let names: HashSet<_> = COLUMNS.iter().map(|c| c.name).collect();
        assert_eq!((fields.len(), names.len()), (COLUMNS.len(), COLUMNS.len()));
        let named: HashSet<&str> = EventType::ALL
            .iter()
            .flat_map(|t| contract::standard().expect("contracts").fields(*t))
            .map(String::as_str)
            .collect();
        assert_eq!(named, fields, "each field of a contract has a column and each column a field");
    }

    #[test]
    fn each_contracts_type_is_its_columns_type() {
        for (event_type, _, text) in contract::CONTRACT_FILES {
            let schema: Value = serde_json::from_str(text).expect("json");
            for (field, property) in schema["properties"].as_object().expect("properties") {
                let Some(column) = COLUMNS.iter().find(|c| c.field == field) else { continue };
                let expected = match (property["type"].as_str(), property.get("format")) {
                    (Some("string"), Some(_)) => ColumnType::Timestamp,
                    (Some("string"), None) => ColumnType::Text,
                    (Some("number"), _) => ColumnType::Double,
                    (Some("integer"), _) => ColumnType::Integer,
                    (Some("boolean"), _) => ColumnType::Boolean,
                    _ => ColumnType::Json,
                };
                assert_eq!(column.column_type, expected, "{event_type}.{field}");
            }
        }
    }

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
