//! Events to Arrow rows, and rows back to events: `weir verify` rebuilds each event from its own columns.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::error::ArrowError;
use weir_engine::Located;
use weir_model::columns::{self, COLUMNS, Cell, ColumnType};
use weir_model::event::Metadata;
use weir_model::{Event, EventId, Object, Position, StreamId, TenantId, Timestamp};

use crate::schema::{arrow_schema, arrow_type};

/// Sorted by time, as readers want it within a file.
pub fn to_batch(events: &[Located]) -> Result<RecordBatch, ArrowError> {
    let mut events: Vec<&Located> = events.iter().collect();
    events.sort_by_key(|l| (l.event.timestamp, l.record.offset));
    let text = |get: &dyn Fn(&Located) -> Option<String>| -> ArrayRef {
        Arc::new(StringArray::from_iter(events.iter().map(|l| get(l))))
    };
    let integer = |get: &dyn Fn(&Located) -> Option<i64>| -> ArrayRef {
        Arc::new(Int64Array::from_iter(events.iter().map(|l| get(l))))
    };
    let time =
        |get: &dyn Fn(&Located) -> Option<Timestamp>| times(events.iter().map(|l| get(l).map(Timestamp::as_millis)));
    let mut arrays = vec![
        text(&|l| Some(l.event.event_type.as_str().to_owned())),
        text(&|l| Some(l.event.timestamp.month())),
        text(&|l| Some(l.event.event_id.to_string())),
        text(&|l| Some(l.event.schema_version.clone())),
        time(&|l| Some(l.event.timestamp)),
        time(&|l| l.event.recorded_at),
        text(&|l| Some(l.event.source.clone())),
        text(&|l| Some(l.event.tenant.to_string())),
        text(&|l| Some(l.event.stream.aggregate_type().as_str().to_owned())),
        text(&|l| Some(l.event.stream.aggregate_id().to_owned())),
        integer(&|l| l.event.version),
        integer(&|l| l.event.position.map(|p| p.0)),
        text(&|l| l.event.metadata.causation_id.clone()),
        text(&|l| l.event.metadata.correlation_id.clone()),
        text(&|l| l.event.metadata.user_id.clone()),
        text(&|l| Some(l.record.partition.source.to_string())),
        text(&|l| Some(l.record.partition.topic.to_string())),
        integer(&|l| Some(l.record.partition.number.into())),
        integer(&|l| Some(l.record.offset)),
    ];
    let (mut cells, extras): (Vec<_>, Vec<_>) =
        events.iter().map(|l| columns::split(l.event.event_type, &l.event.data)).unzip();
    for (index, column) in COLUMNS.iter().enumerate() {
        arrays.push(typed(column.column_type, cells.iter_mut().map(|row| row[index].take())));
    }
    arrays.push(Arc::new(StringArray::from_iter_values(extras.iter().map(weir_model::canonical::object_text))));
    arrays.push(Arc::new(StringArray::from_iter_values(events.iter().map(|l| l.event.canonical_data()))));
    RecordBatch::try_new(arrow_schema(), arrays)
}

fn times(millis: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    let micros = millis.map(|ms| ms.map(|ms| ms * 1000));
    Arc::new(TimestampMicrosecondArray::from_iter(micros).with_timezone("UTC"))
}

fn typed(column_type: ColumnType, cells: impl Iterator<Item = Option<Cell>>) -> ArrayRef {
    macro_rules! pick {
        ($variant:ident) => {
            cells.map(|cell| match cell {
                Some(Cell::$variant(value)) => Some(value),
                _ => None,
            })
        };
    }
    match column_type {
        ColumnType::Text | ColumnType::Json => Arc::new(StringArray::from_iter(pick!(Text))),
        ColumnType::Double => Arc::new(Float64Array::from_iter(pick!(Double))),
        ColumnType::Integer => Arc::new(Int64Array::from_iter(pick!(Integer))),
        ColumnType::Boolean => Arc::new(BooleanArray::from_iter(pick!(Boolean))),
        ColumnType::Timestamp => times(pick!(Timestamp)),
    }
}

/// A batch read back, its columns by name and in their declared types.
pub struct Rows {
    columns: HashMap<String, ArrayRef>,
    /// Number of rows.
    pub len: usize,
}

/// A row that is not what the lane wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {reason}")]
pub struct BrokenRow {
    /// Which column.
    pub column: String,
    /// What is wrong.
    pub reason: String,
}

/// Where a row came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coordinates {
    /// Where offsets mean something.
    pub source: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i64,
    /// The offset.
    pub offset: i64,
}

impl Rows {
    /// Takes a batch with any of the physical types that readers choose (dictionaries, views).
    pub fn new(batch: &RecordBatch) -> Result<Self, ArrowError> {
        let mut columns = HashMap::new();
        for field in arrow_schema().fields() {
            let array = batch
                .column_by_name(field.name())
                .ok_or_else(|| ArrowError::SchemaError(format!("history has no column {}", field.name())))?;
            columns.insert(field.name().clone(), arrow::compute::cast(array, field.data_type())?);
        }
        Ok(Self { columns, len: batch.num_rows() })
    }

    fn cell(&self, name: &str, column_type: ColumnType, row: usize) -> Option<Cell> {
        let array = self
            .columns
            .get(name)
            .filter(|array| array.is_valid(row) && *array.data_type() == arrow_type(column_type))?;
        let any = array.as_any();
        match column_type {
            ColumnType::Text | ColumnType::Json => {
                any.downcast_ref::<StringArray>().map(|a| Cell::Text(a.value(row).to_owned()))
            }
            ColumnType::Double => any.downcast_ref::<Float64Array>().map(|a| Cell::Double(a.value(row))),
            ColumnType::Integer => any.downcast_ref::<Int64Array>().map(|a| Cell::Integer(a.value(row))),
            ColumnType::Boolean => any.downcast_ref::<BooleanArray>().map(|a| Cell::Boolean(a.value(row))),
            ColumnType::Timestamp => {
                any.downcast_ref::<TimestampMicrosecondArray>().map(|a| Cell::Timestamp(a.value(row).div_euclid(1000)))
            }
        }
    }

    fn optional_text(&self, name: &str, row: usize) -> Option<String> {
        match self.cell(name, ColumnType::Text, row) {
            Some(Cell::Text(text)) => Some(text),
            _ => None,
        }
    }

    fn text(&self, name: &str, row: usize) -> Result<String, BrokenRow> {
        self.optional_text(name, row).ok_or_else(|| broken(name, "is null"))
    }

    fn optional_integer(&self, name: &str, row: usize) -> Option<i64> {
        match self.cell(name, ColumnType::Integer, row) {
            Some(Cell::Integer(n)) => Some(n),
            _ => None,
        }
    }

    fn integer(&self, name: &str, row: usize) -> Result<i64, BrokenRow> {
        self.optional_integer(name, row).ok_or_else(|| broken(name, "is null"))
    }

    fn time(&self, name: &str, row: usize) -> Result<Option<Timestamp>, BrokenRow> {
        match self.cell(name, ColumnType::Timestamp, row) {
            Some(Cell::Timestamp(ms)) => Timestamp::from_millis(ms).map(Some).map_err(|e| broken(name, e)),
            _ => Ok(None),
        }
    }

    /// Where the row came from.
    pub fn coordinates(&self, row: usize) -> Result<Coordinates, BrokenRow> {
        Ok(Coordinates {
            source: self.text("source", row)?,
            topic: self.text("topic", row)?,
            partition: self.integer("partition", row)?,
            offset: self.integer("offset", row)?,
        })
    }

    /// The event, from the row's own typed columns. The payload kept beside them must say the same.
    pub fn event(&self, row: usize) -> Result<Event, BrokenRow> {
        let event_type = self.text("event_type", row)?.parse().map_err(|e| broken("event_type", e))?;
        let extra: Object = serde_json::from_str(&self.text("extra", row)?).map_err(|e| broken("extra", e))?;
        let cells = COLUMNS.iter().map(|column| self.cell(column.name, column.column_type, row)).collect();
        let data = columns::join(cells, extra).ok_or_else(|| broken("extra", "does not fit the typed columns"))?;
        let aggregate_type = self.text("aggregate_type", row)?.parse().map_err(|e| broken("aggregate_type", e))?;
        let stream = StreamId::new(aggregate_type, self.text("aggregate_id", row)?);
        let timestamp = self.time("timestamp", row)?.ok_or_else(|| broken("timestamp", "is null"))?;
        if self.text("event_month", row)? != timestamp.month() {
            return Err(broken("event_month", "is not the month of timestamp"));
        }
        let event = Event {
            event_id: EventId::new(self.text("event_id", row)?).map_err(|e| broken("event_id", e))?,
            event_type,
            schema_version: self.text("schema_version", row)?,
            timestamp,
            recorded_at: self.time("recorded_at", row)?,
            source: self.text("producer", row)?,
            tenant: TenantId::new(self.text("tenant", row)?).map_err(|e| broken("tenant", e))?,
            stream: stream.map_err(|e| broken("aggregate_id", e))?,
            version: self.optional_integer("aggregate_version", row),
            position: self.optional_integer("position", row).map(Position),
            metadata: Metadata {
                causation_id: self.optional_text("causation_id", row),
                correlation_id: self.optional_text("correlation_id", row),
                user_id: self.optional_text("actor_id", row),
            },
            data,
        };
        if event.canonical_data() != self.text("data", row)? {
            return Err(broken("data", "is not what the typed columns say"));
        }
        Ok(event)
    }
}

fn broken(column: &str, reason: impl std::fmt::Display) -> BrokenRow {
    BrokenRow { column: column.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weir_engine::{Partition, Record};
    use weir_model::{EventType, wire};

    use super::*;

    fn located(event_type: EventType, offset: i64) -> Located {
        let mut data = wire::samples::one(event_type);
        data["unknown"] = json!([null, {"x": 1.5}]);
        let version = weir_model::contract::standard().expect("contracts").newest(event_type);
        let payload =
            json!({"eventId": format!("e{offset}"), "eventType": event_type, "version": version, "source": "lms",
            "timestamp": "2024-01-15T10:30:00.123Z", "recordedAt": "2024-01-15T10:30:01Z", "position": offset,
            "aggregateVersion": 3, "metadata": {"causationId": "c", "userId": "actor"}, "data": data})
            .to_string();
        let partition = Partition { source: "store".into(), topic: "events".into(), number: 0 };
        let event = wire::decode(payload.as_bytes()).expect("valid");
        let record =
            Record { partition, offset, key: None, payload: payload.into(), headers: Vec::new(), recorded_at: None };
        Located { record, event }
    }

    #[test]
    fn every_event_comes_back_from_its_columns() {
        let events: Vec<_> = EventType::ALL.into_iter().zip(1..).map(|(t, offset)| located(t, offset)).collect();
        let rows = Rows::new(&to_batch(&events).expect("batch")).expect("rows");
        assert_eq!(rows.len, events.len());
        for (row, located) in events.iter().enumerate() {
            let event = rows.event(row).expect("whole");
            assert_eq!(wire::canonical_document(&event), wire::canonical_document(&located.event));
            assert_eq!(rows.coordinates(row).expect("whole").offset, located.record.offset);
        }
    }

    #[test]
    fn a_changed_score_is_found() {
        let batch = to_batch(&[located(EventType::AssessmentCompleted, 1)]).expect("batch");
        let index = batch.schema().index_of("score").expect("a score");
        let mut columns = batch.columns().to_vec();
        columns[index] = Arc::new(Float64Array::from(vec![79.5]));
        let changed = RecordBatch::try_new(batch.schema(), columns).expect("batch");
        assert_eq!(Rows::new(&changed).expect("rows").event(0).expect_err("changed").column, "data");
        assert_eq!(located(EventType::AssessmentCompleted, 1).event.data["score"], Value::from(78.5));
    }
}
