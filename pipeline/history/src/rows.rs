//! Events to Arrow rows, and rows back to events: `weir verify` rebuilds each event from its own columns.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayBuilder, ArrayRef, BooleanArray, BooleanBuilder, Float64Array, Float64Builder, Int64Array,
    Int64Builder, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray, TimestampMicrosecondBuilder,
};
use arrow::error::ArrowError;
use serde_json::Value;
use weir_engine::{Located, RecordHead};
use weir_model::cells::{self, Cell};
use weir_model::columns::{COLUMNS, ColumnType};
use weir_model::envelope::{self, EnvelopeColumn, EnvelopeValue, Enveloped};
use weir_model::wire::{self, DecodeError};
use weir_model::{Data, Envelope, Event, Month, OTHER_EVENT, Object, OtherEvent, StreamId, Timestamp};

use crate::kafka_record::{self, KafkaRecord};
use crate::schema::{self, KAFKA_RECORD, MONTH, arrow_schema, arrow_type};

/// The events as columns, in the order given. One pass over each event's fields, straight into the builders.
pub fn to_batch<'a>(events: impl Iterator<Item = &'a Located>) -> Result<RecordBatch, ArrowError> {
    let mut builders = Builders::new(events.size_hint().1.unwrap_or_default());
    for located in events {
        builders.append(located);
    }
    RecordBatch::try_new(arrow_schema(), builders.finish())
}

/// Events of unknown types as columns: the envelope, and the whole record as their data.
pub fn others_to_batch<'a>(
    events: impl ExactSizeIterator<Item = &'a Located<OtherEvent>>,
) -> Result<RecordBatch, ArrowError> {
    let mut builders = Builders::new(events.len());
    for located in events {
        builders.append_other(located);
    }
    RecordBatch::try_new(arrow_schema(), builders.finish())
}

/// A builder for each column.
struct Builders {
    /// In the order of [`envelope::COLUMNS`].
    envelope: Vec<Typed>,
    month: StringBuilder,
    /// The month of the row before, and its text: a file holds one month.
    last_month: Option<(Month, String)>,
    source: StringBuilder,
    topic: StringBuilder,
    partition: Int64Builder,
    offset: Int64Builder,
    typed: Vec<Typed>,
    extra: StringBuilder,
    data: StringBuilder,
    kafka_record: StringBuilder,
}

/// A typed column's builder.
enum Typed {
    Text(StringBuilder),
    Double(Float64Builder),
    Integer(Int64Builder),
    Boolean(BooleanBuilder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl Typed {
    fn new(column_type: ColumnType, rows: usize) -> Self {
        match column_type {
            // Most columns are empty in most rows.
            ColumnType::Text | ColumnType::Json => Self::Text(StringBuilder::with_capacity(rows, 0)),
            ColumnType::Double => Self::Double(Float64Builder::with_capacity(rows)),
            ColumnType::Integer => Self::Integer(Int64Builder::with_capacity(rows)),
            ColumnType::Boolean => Self::Boolean(BooleanBuilder::with_capacity(rows)),
            ColumnType::Timestamp => Self::Timestamp(time_builder(rows)),
        }
    }

    /// Takes the cell of row `row`; the rows since the last one have none.
    fn append(&mut self, row: usize, cell: Cell) {
        self.fill(row);
        match (self, cell) {
            (Self::Text(builder), Cell::Text(text)) => builder.append_value(text),
            (Self::Double(builder), Cell::Double(n)) => builder.append_value(n),
            (Self::Integer(builder), Cell::Integer(n)) => builder.append_value(n),
            (Self::Boolean(builder), Cell::Boolean(b)) => builder.append_value(b),
            (Self::Timestamp(builder), Cell::Timestamp(millis)) => builder.append_value(millis * 1000),
            // `cells::cell` makes no others.
            _ => {}
        }
    }

    /// Takes a value of the envelope.
    fn append_value(&mut self, value: Option<EnvelopeValue<'_>>) {
        match (self, value) {
            (Self::Text(builder), Some(EnvelopeValue::Text(text))) => builder.append_value(text),
            (Self::Integer(builder), Some(EnvelopeValue::Integer(n))) => builder.append_value(n),
            (Self::Timestamp(builder), Some(EnvelopeValue::Time(at))) => builder.append_value(at.as_millis() * 1000),
            // Nothing, or a value of another type than the column's, which no column of the table has.
            (Self::Text(builder), _) => builder.append_null(),
            (Self::Integer(builder), _) => builder.append_null(),
            (Self::Timestamp(builder), _) => builder.append_null(),
            (Self::Double(builder), _) => builder.append_null(),
            (Self::Boolean(builder), _) => builder.append_null(),
        }
    }

    /// Nulls up to a row.
    fn fill(&mut self, rows: usize) {
        match self {
            Self::Text(builder) => builder.append_nulls(rows - builder.len()),
            Self::Double(builder) => builder.append_nulls(rows - builder.len()),
            Self::Integer(builder) => builder.append_nulls(rows - builder.len()),
            Self::Boolean(builder) => builder.append_nulls(rows - builder.len()),
            Self::Timestamp(builder) => builder.append_nulls(rows - builder.len()),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(builder) => Arc::new(builder.finish()),
            Self::Double(builder) => Arc::new(builder.finish()),
            Self::Integer(builder) => Arc::new(builder.finish()),
            Self::Boolean(builder) => Arc::new(builder.finish()),
            Self::Timestamp(builder) => Arc::new(builder.finish()),
        }
    }
}

fn time_builder(rows: usize) -> TimestampMicrosecondBuilder {
    TimestampMicrosecondBuilder::with_capacity(rows).with_timezone("UTC")
}

impl Builders {
    fn new(rows: usize) -> Self {
        let text = || StringBuilder::with_capacity(rows, rows * 24);
        let of_envelope = |column: &EnvelopeColumn| match column.column_type == ColumnType::Text {
            true => Typed::Text(text()),
            false => Typed::new(column.column_type, rows),
        };
        Self {
            envelope: envelope::COLUMNS.iter().map(of_envelope).collect(),
            month: text(),
            last_month: None,
            source: text(),
            topic: text(),
            partition: Int64Builder::with_capacity(rows),
            offset: Int64Builder::with_capacity(rows),
            typed: COLUMNS.iter().map(|column| Typed::new(column.column_type, rows)).collect(),
            extra: text(),
            data: StringBuilder::with_capacity(rows, rows * 256),
            kafka_record: StringBuilder::with_capacity(rows, 0),
        }
    }

    fn append(&mut self, Located { record, event, .. }: &Located) {
        let row = self.data.len();
        self.append_envelope(&event.enveloped(), record);
        let mut rest = Object::new();
        for (name, column, value) in event.data.iter_canonical() {
            match column.and_then(|(index, column)| Some((index, cells::cell(column.column_type, value)?))) {
                Some((index, cell)) => self.typed[index].append(row, cell),
                None => {
                    rest.insert(name.to_owned(), value.to_value());
                }
            }
        }
        match rest.is_empty() {
            true => self.extra.append_value("{}"),
            false => self.extra.append_value(weir_model::canonical::object_text(&rest)),
        }
        self.data.append_value(event.canonical_data());
        self.kafka_record.append_option(kafka_record::column(record, &event.enveloped()));
    }

    fn append_other(&mut self, Located { record, event, .. }: &Located<OtherEvent>) {
        self.append_envelope(&Enveloped { event_type: OTHER_EVENT, ..event.enveloped() }, record);
        self.extra.append_value("{}");
        self.data.append_value(&*event.document);
        self.kafka_record.append_option(kafka_record::column(record, &event.enveloped()));
    }

    fn append_envelope(&mut self, row: &Enveloped<'_>, record: &RecordHead) {
        for (builder, column) in self.envelope.iter_mut().zip(envelope::COLUMNS) {
            builder.append_value((column.value)(row));
        }
        let month = row.envelope.timestamp.month();
        let (last, text) = self.last_month.get_or_insert_with(|| (month, month.to_string()));
        if *last != month {
            (*last, *text) = (month, month.to_string());
        }
        self.month.append_value(&*text);
        self.source.append_value(&record.partition.source);
        self.topic.append_value(&record.partition.topic);
        self.partition.append_value(record.partition.number.into());
        self.offset.append_value(record.offset);
    }

    /// The arrays in the order of [`crate::schema`].
    fn finish(mut self) -> Vec<ArrayRef> {
        let rows = self.data.len();
        let mut arrays: Vec<ArrayRef> = self.envelope.iter_mut().map(Typed::finish).collect();
        arrays.insert(1, Arc::new(self.month.finish()));
        for mut texts in [self.source, self.topic] {
            arrays.push(Arc::new(texts.finish()));
        }
        for mut integers in [self.partition, self.offset] {
            arrays.push(Arc::new(integers.finish()));
        }
        for typed in &mut self.typed {
            typed.fill(rows);
            arrays.push(typed.finish());
        }
        for mut texts in [self.extra, self.data, self.kafka_record] {
            arrays.push(Arc::new(texts.finish()));
        }
        arrays
    }
}

/// A batch read back, its columns by name and in their declared types.
pub struct BatchRows {
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

impl BatchRows {
    /// Takes a batch with any of the physical types that readers choose (dictionaries, views).
    pub fn new(batch: &RecordBatch) -> Result<Self, ArrowError> {
        let mut columns = HashMap::new();
        for (name, column_type, _) in schema::columns() {
            match batch.column_by_name(name) {
                Some(array) => {
                    drop(columns.insert(name.to_owned(), arrow::compute::cast(array, &arrow_type(column_type))?))
                }
                // Tables of before have none, and neither has ClickHouse.
                None if name == KAFKA_RECORD => {}
                None => return Err(ArrowError::SchemaError(format!("history has no column {name}"))),
            }
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

    fn integer(&self, name: &str, row: usize) -> Result<i64, BrokenRow> {
        match self.cell(name, ColumnType::Integer, row) {
            Some(Cell::Integer(n)) => Ok(n),
            _ => Err(broken(name, "is null")),
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

    /// The record that the row's event came in, where it was kept.
    pub fn kafka_record(&self, row: usize, event: &Enveloped<'_>) -> Result<Option<KafkaRecord>, BrokenRow> {
        let Some(text) = self.optional_text(KAFKA_RECORD, row) else { return Ok(None) };
        let read = kafka_record::read(&text, event);
        read.map(Some).ok_or_else(|| broken(KAFKA_RECORD, "is not what the lane writes"))
    }

    /// The envelope, made again as a record has it.
    fn envelope(&self, row: usize) -> Result<Envelope, BrokenRow> {
        let mut record = Object::new();
        for column in envelope::COLUMNS {
            let value = match self.cell(column.name, column.column_type, row) {
                Some(Cell::Text(text)) => Value::String(text),
                Some(Cell::Integer(n)) => Value::from(n),
                Some(Cell::Timestamp(ms)) => {
                    Value::String(Timestamp::from_millis(ms).map_err(|e| broken(column.name, e))?.to_string())
                }
                Some(_) => return Err(broken(column.name, "is of another type")),
                None if column.is_optional => continue,
                None => return Err(broken(column.name, "is null")),
            };
            match column.wire.split_once('/') {
                None => record.insert(column.wire.to_owned(), value),
                Some((outer, inner)) => {
                    let within = record.entry(outer).or_insert_with(|| Value::Object(Object::new()));
                    within.as_object_mut().and_then(|within| within.insert(inner.to_owned(), value))
                }
            };
        }
        wire::read_envelope(&record).map_err(|error| {
            let DecodeError::Envelope(violation) = &error else { return broken("data", error) };
            let place = violation.pointer.trim_start_matches('/');
            let column = envelope::COLUMNS.iter().find(|column| column.wire == place);
            broken(column.map_or(place, |column| column.name), &violation.reason)
        })
    }

    /// The event, from the row's own typed columns. The payload kept beside them must say the same.
    pub fn event(&self, row: usize) -> Result<Event, BrokenRow> {
        let event_type = self.text("event_type", row)?.parse().map_err(|e| broken("event_type", e))?;
        let extra: Object = serde_json::from_str(&self.text("extra", row)?).map_err(|e| broken("extra", e))?;
        let cells = COLUMNS.iter().map(|column| self.cell(column.name, column.column_type, row)).collect();
        let data = cells::join(cells, extra).ok_or_else(|| broken("extra", "does not fit the typed columns"))?;
        let data = Data::from_object(event_type, &data);
        let aggregate_type = self.text("aggregate_type", row)?.parse().map_err(|e| broken("aggregate_type", e))?;
        let stream = StreamId::new(aggregate_type, self.text("aggregate_id", row)?);
        let stream = stream.map_err(|e| broken("aggregate_id", e))?;
        let event = Event { envelope: self.envelope(row)?, event_type, stream, data };
        if self.text(MONTH, row)? != event.timestamp.month().to_string() {
            return Err(broken(MONTH, "is not the month of timestamp"));
        }
        if event.canonical_data() != self.text("data", row)? {
            return Err(broken("data", "is not what the typed columns say"));
        }
        Ok(event)
    }
}

impl BatchRows {
    /// Whether a row is of a type that its writer did not know.
    pub fn is_other(&self, row: usize) -> Result<bool, BrokenRow> {
        Ok(self.text("event_type", row)? == OTHER_EVENT)
    }

    /// The event of an unknown type. The columns beside the record must say what it says.
    pub fn other(&self, row: usize) -> Result<OtherEvent, BrokenRow> {
        let document = self.text("data", row)?;
        let event = OtherEvent::read(document.as_bytes()).map_err(|e| broken("data", e))?;
        let text = |column| self.optional_text(column, row);
        let said = event.enveloped();
        let differs =
            |column: &&EnvelopeColumn| match ((column.value)(&said), self.cell(column.name, column.column_type, row)) {
                (None, None) => false,
                (Some(EnvelopeValue::Text(said)), Some(Cell::Text(held))) => said != held,
                (Some(EnvelopeValue::Integer(said)), Some(Cell::Integer(held))) => said != held,
                (Some(EnvelopeValue::Time(said)), Some(Cell::Timestamp(held))) => said.as_millis() != held,
                _ => true,
            };
        // The type is not what the record says: that is what `other_event` means.
        let differing = envelope::COLUMNS.iter().skip(1).find(differs).map(|column| column.name);
        if let Some(column) = differing {
            return Err(broken(column, "is not what the record says"));
        }
        for (column, agrees) in [
            ("data", text("data").as_deref() == Some(&*event.document)),
            (MONTH, text(MONTH) == Some(event.timestamp.month().to_string())),
        ] {
            if !agrees {
                return Err(broken(column, "is not what the record says"));
            }
        }
        Ok(event)
    }
}

fn broken(column: &str, reason: impl std::fmt::Display) -> BrokenRow {
    BrokenRow { column: column.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weir_engine::Headers;
    use weir_engine::{Partition, Record};
    use weir_model::EventType;

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
        let event = wire::decode(&payload.clone().into()).expect("valid");
        let head =
            RecordHead { partition, offset, key: None, odd_key: None, headers: Headers::default(), recorded_at: None };
        Located::new(Record { head, payload: payload.into() }, event)
    }

    #[test]
    fn every_event_comes_back_from_its_columns() {
        let events: Vec<_> = EventType::ALL.into_iter().zip(1..).map(|(t, offset)| located(t, offset)).collect();
        let rows = BatchRows::new(&to_batch(events.iter()).expect("batch")).expect("rows");
        assert_eq!(rows.len, events.len());
        for (row, located) in events.iter().enumerate() {
            let event = rows.event(row).expect("whole");
            assert_eq!(wire::canonical_document(&event), wire::canonical_document(&located.event));
            assert_eq!(rows.coordinates(row).expect("whole").offset, located.record.offset);
        }
    }

    #[test]
    fn an_event_of_an_unknown_type_comes_back_whole() {
        let payload = r#"{"eventId":"e","eventType":"BadgeAwarded","version":2,"timestamp":"2024-01-15T10:30:00Z","source":"s",
            "metadata":{"userId":"u"},"data":{"b":[1.0]}}"#;
        let event = OtherEvent::decode(payload.as_bytes()).expect("an event");
        let head = located(EventType::TaskAssigned, 9).record;
        let record = Record { head, payload: payload.into() };
        let batch = others_to_batch([Located::new(record, event.clone())].iter()).expect("batch");
        let rows = BatchRows::new(&batch).expect("rows");
        assert_eq!((rows.is_other(0), rows.other(0)), (Ok(true), Ok(event)));
        let index = batch.schema().index_of("actor_id").expect("an actor");
        let mut columns = batch.columns().to_vec();
        columns[index] = Arc::new(StringArray::from(vec!["v"]));
        let changed = RecordBatch::try_new(batch.schema(), columns).expect("batch");
        assert_eq!(BatchRows::new(&changed).expect("rows").other(0).expect_err("changed").column, "actor_id");
    }

    #[test]
    fn a_changed_score_is_found() {
        let batch = to_batch([located(EventType::AssessmentCompleted, 1)].iter()).expect("batch");
        let index = batch.schema().index_of("score").expect("a score");
        let mut columns = batch.columns().to_vec();
        columns[index] = Arc::new(Float64Array::from(vec![79.5]));
        let changed = RecordBatch::try_new(batch.schema(), columns).expect("batch");
        assert_eq!(BatchRows::new(&changed).expect("rows").event(0).expect_err("changed").column, "data");
        assert_eq!(located(EventType::AssessmentCompleted, 1).event.data.number("score"), Some(78.5));
    }
}
