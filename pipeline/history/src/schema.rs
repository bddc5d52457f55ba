//! The columns of history: envelope, coordinates, the typed columns that all event types share, and what no column takes.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use deltalake_core::kernel::{DataType as DeltaType, PrimitiveType, StructField};
use weir_model::columns::{COLUMNS, ColumnType};
use weir_model::envelope::{self, EnvelopeColumn};

/// The number of what stands in the table and how: raised when an older build could no longer read or write it rightly. It is a property
/// of the table, [`FORMAT_PROPERTY`]; tables without it are of format 1.
pub const FORMAT: u32 = 2;

/// Where the table says its [`FORMAT`].
pub const FORMAT_PROPERTY: &str = "weir.format";

/// The property of a table that an older build began: from which offset on each lane's partition has [`KAFKA_RECORD`], as JSON by the
/// ids of its transactions. Rows below it were written without.
pub(crate) const RECORDS_FROM_PROPERTY: &str = "weir.recordsFrom";

/// Key and headers of the record that an event came in: see [`crate::kafka_record`]. Since format 2, and of history alone.
pub const KAFKA_RECORD: &str = "kafka_record";

/// Files are laid out by type, then by the month in which things happened.
pub const PARTITION_COLUMNS: [&str; 2] = ["event_type", MONTH];

/// The month of an event's time: files are laid out by it.
pub(crate) const MONTH: &str = "event_month";

/// Where a record was read: name, type, whether it may be null.
const COORDINATES: [(&str, ColumnType, bool); 4] = [
    ("source", ColumnType::Text, false),
    ("topic", ColumnType::Text, false),
    ("partition", ColumnType::Integer, false),
    ("offset", ColumnType::Integer, false),
];

/// Columns after the typed ones: the fields that have none, and the whole canonical payload.
const REST: &[(&str, ColumnType, bool)] = &[("extra", ColumnType::Json, false), ("data", ColumnType::Json, false)];

/// The columns whose least and greatest values stand in the log, for readers to leave files out by. Of all other columns they
/// would say little, and each commit's every file would carry them for ever.
pub(crate) const STATS_COLUMNS: &str = "timestamp,recorded_at,position,partition,offset";

/// Every column: name, type, whether it may be null. New ones go to the end.
pub fn columns() -> impl Iterator<Item = (&'static str, ColumnType, bool)> {
    event_columns().chain([(KAFKA_RECORD, ColumnType::Json, true)])
}

/// The columns of the event and of its coordinates, which ClickHouse has too.
pub fn event_columns() -> impl Iterator<Item = (&'static str, ColumnType, bool)> {
    let envelope = |column: &EnvelopeColumn| (column.name, column.column_type, column.is_optional);
    // The type comes first, and the month behind it: they name the directories.
    let (first, others) = envelope::COLUMNS.split_at(1);
    let month = (MONTH, ColumnType::Text, false);
    let lead = first.iter().map(envelope).chain([month]).chain(others.iter().map(envelope)).chain(COORDINATES);
    let typed = COLUMNS.iter().map(|column| (column.name, column.column_type, true));
    lead.chain(typed).chain(REST.iter().copied())
}

/// How a column is held in Arrow.
#[must_use]
pub fn arrow_type(column_type: ColumnType) -> DataType {
    match column_type {
        ColumnType::Text | ColumnType::Json => DataType::Utf8,
        ColumnType::Double => DataType::Float64,
        ColumnType::Integer => DataType::Int64,
        ColumnType::Boolean => DataType::Boolean,
        // Delta knows microseconds only.
        ColumnType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
    }
}

/// The Arrow schema of a batch on its way into the table.
#[must_use]
pub fn arrow_schema() -> SchemaRef {
    Arc::new(Schema::new(columns().map(|(name, t, null)| Field::new(name, arrow_type(t), null)).collect::<Vec<_>>()))
}

/// The Delta schema.
pub(crate) fn delta_columns() -> Vec<StructField> {
    let delta_type = |column_type| {
        DeltaType::Primitive(match column_type {
            ColumnType::Text | ColumnType::Json => PrimitiveType::String,
            ColumnType::Double => PrimitiveType::Double,
            ColumnType::Integer => PrimitiveType::Long,
            ColumnType::Boolean => PrimitiveType::Boolean,
            ColumnType::Timestamp => PrimitiveType::Timestamp,
        })
    };
    columns().map(|(name, column_type, null)| StructField::new(name, delta_type(column_type), null)).collect()
}
