//! Where the rows of a batch of history were read.

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;
use weir_engine::Partition;

/// Where a record is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Source, topic and number.
    pub partition: Partition,
    /// In it.
    pub offset: i64,
}

/// A column of whole numbers, as 64 bits.
pub(crate) fn integers(batch: &RecordBatch, name: &str) -> Result<ArrayRef, ArrowError> {
    column(batch, name, &DataType::Int64)
}

/// A column of text.
pub(crate) fn texts(batch: &RecordBatch, name: &str) -> Result<ArrayRef, ArrowError> {
    column(batch, name, &DataType::Utf8)
}

fn column(batch: &RecordBatch, name: &str, to: &DataType) -> Result<ArrayRef, ArrowError> {
    let column =
        batch.column_by_name(name).ok_or_else(|| ArrowError::SchemaError(format!("there is no column {name}")))?;
    cast(column, to)
}

/// Where each row of a batch that has the columns of history was read.
pub fn places(batch: &RecordBatch) -> Result<Vec<Place>, ArrowError> {
    let (source, topic) = (texts(batch, "source")?, texts(batch, "topic")?);
    let (source, topic) = (source.as_string::<i32>(), topic.as_string::<i32>());
    let (number, offset) = (integers(batch, "partition")?, integers(batch, "offset")?);
    let (number, offset) = (number.as_primitive::<Int64Type>(), offset.as_primitive::<Int64Type>());
    let mut found: Vec<Place> = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let number = i32::try_from(number.value(row)).unwrap_or(-1);
        let is_same =
            |p: &&Partition| p.number == number && *p.topic == *topic.value(row) && *p.source == *source.value(row);
        let same = found.last().map(|place| &place.partition).filter(is_same).cloned();
        let partition = same.unwrap_or_else(|| Partition {
            source: source.value(row).into(),
            topic: topic.value(row).into(),
            number,
        });
        found.push(Place { partition, offset: offset.value(row) });
    }
    Ok(found)
}
