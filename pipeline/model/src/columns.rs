//! The typed columns of columnar sinks: one name, one meaning, one type for each field of any contract.

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

/// In place of an index into [`COLUMNS`]: no column takes the field.
pub(crate) const NO_COLUMN: u8 = u8::MAX;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::Value;

    use super::*;
    use crate::contract;
    use crate::event_type::EventType;

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
}
