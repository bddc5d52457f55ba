//! The columns of `events_stored`, named and typed as in history, in ClickHouse's types.

use weir_history::schema;
use weir_model::columns::{COLUMNS, Column, ColumnType};
use weir_model::envelope;

/// The table of events, behind the views. In a cluster: the distributed one.
pub(crate) const TABLE: &str = "events_stored";

/// The table of events of migration 1, before it was carried over, and the name that it has then. `events_raw` is a view today.
pub(crate) const OLD_TABLE: &str = "events_raw";
pub(crate) const OLD_TABLE_ASIDE: &str = "events_format_1";

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

/// A column of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredColumn {
    pub(crate) name: &'static str,
    /// As `system.columns` writes it.
    pub(crate) data_type: String,
    /// Of a nested value, which is not stored but shown out of the canonical text: its bit in `nested`.
    pub(crate) nested: Option<u32>,
}

/// The columns that show a nested value out of the canonical text, each with its index in [`COLUMNS`] and its bit in `nested`.
pub(crate) fn nested_columns() -> impl Iterator<Item = (usize, &'static Column, u32)> {
    let nested = COLUMNS.iter().enumerate().filter(|(_, column)| column.column_type == ColumnType::Json);
    nested.zip(0_u32..).map(|((index, column), bit)| (index, column, bit))
}

/// The columns of an event and of its place, which history has too. The month is a function of the time here, and needs none.
pub(crate) fn event_columns() -> Vec<StoredColumn> {
    let of_history = schema::event_columns().filter(|(name, ..)| *name != "event_month");
    of_history.map(|(name, column_type, null)| stored(name, column_type, null)).collect()
}

/// Every column: [`event_columns`], and whether a type was unknown, whose owner wrote the row, and where nested values are.
pub(crate) fn columns() -> Vec<StoredColumn> {
    let own = [("is_other", "Bool"), ("epoch", "Int64"), ("nested", "UInt32"), ("nested_places", "Array(UInt32)")];
    let own = own.map(|(name, data_type)| StoredColumn { name, data_type: data_type.to_owned(), nested: None });
    event_columns().into_iter().chain(own).collect()
}

fn stored(name: &'static str, column_type: ColumnType, null: bool) -> StoredColumn {
    let plain = plain_type(column_type, null);
    let of_envelope = envelope::COLUMNS.iter().any(|column| column.name == name && column.repeats);
    let data_type =
        if of_envelope || LOW_CARDINALITY.contains(&name) { format!("LowCardinality({plain})") } else { plain };
    let nested = nested_columns().find(|(_, column, _)| column.name == name).map(|(_, _, bit)| bit);
    StoredColumn { name, data_type, nested }
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
