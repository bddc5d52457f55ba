//! The columns of `events_raw`, named and typed as in history, in ClickHouse's types.

use weir_history::schema;
use weir_model::columns::ColumnType;
use weir_model::envelope;

/// Columns of the data and of the coordinates with few values, over and over.
const LOW_CARDINALITY: [&str; 12] = [
    "source",
    "topic",
    "registration_source",
    "content_type",
    "mime_type",
    "processing_type",
    "status",
    "module_id",
    "agent_type",
    "task_type",
    "priority",
    "learning_path_id",
];

/// A column that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredColumn {
    pub(crate) name: &'static str,
    /// As `system.columns` writes it.
    pub(crate) data_type: String,
}

/// Every column that the lane writes. The month is a function of the time here, and needs no column; whether a type was unknown does.
pub(crate) fn columns() -> Vec<StoredColumn> {
    let own = [("is_other", ColumnType::Boolean, false)];
    let of_history = schema::event_columns().filter(|(name, ..)| *name != "event_month");
    of_history.chain(own).map(|(name, column_type, null)| stored(name, column_type, null)).collect()
}

fn stored(name: &'static str, column_type: ColumnType, null: bool) -> StoredColumn {
    let plain = plain_type(column_type, null);
    let of_envelope = envelope::COLUMNS.iter().any(|column| column.name == name && column.repeats);
    let data_type =
        if of_envelope || LOW_CARDINALITY.contains(&name) { format!("LowCardinality({plain})") } else { plain };
    StoredColumn { name, data_type }
}

/// A type as a client sends it.
pub(crate) fn plain_type(column_type: ColumnType, null: bool) -> String {
    let plain = match column_type {
        ColumnType::Text | ColumnType::Json => "String",
        ColumnType::Double => "Float64",
        ColumnType::Integer => "Int64",
        ColumnType::Boolean => "Bool",
        ColumnType::Timestamp => "DateTime64(3, 'UTC')",
    };
    if null { format!("Nullable({plain})") } else { plain.to_owned() }
}
