//! Events to one block of ClickHouse's Native format, column by column: what is not in the contract of a type costs a byte a row.

use std::borrow::Cow;

use clickhouse::native::builder::BlockBuilder;
use clickhouse::native::encode::{Encode, ValueWriter};
use clickhouse::native::{Block, DataTypeNode};

use weir_engine::{BoxError, Located, LocatedOther, Record};
use weir_model::columns::{COLUMNS, Cell, ColumnType, cell};
use weir_model::data::FieldValue;
use weir_model::event::Metadata;
use weir_model::{Object, Position, Timestamp};

/// Milliseconds of UTC.
struct Millis(i64);

impl Encode for Millis {
    fn produces() -> DataTypeNode {
        DataTypeNode::new("DateTime64(3, 'UTC')").unwrap_or(DataTypeNode::Int64)
    }

    fn encode(&self, writer: &mut ValueWriter<'_>) -> Result<(), BoxError> {
        Ok(writer.write_fixed(&self.0.to_le_bytes())?)
    }
}

/// What all rows have, whatever their type.
struct Envelope<'a> {
    record: &'a Record,
    event_type: &'a str,
    is_other: bool,
    event_id: &'a str,
    schema_version: &'a str,
    timestamp: Timestamp,
    recorded_at: Option<Timestamp>,
    producer: &'a str,
    tenant: &'a str,
    aggregate_type: &'a str,
    aggregate_id: &'a str,
    version: Option<i64>,
    position: Option<Position>,
    metadata: &'a Metadata,
    extra: Cow<'a, str>,
}

impl<'a> Envelope<'a> {
    fn of(Located { record, event }: &'a Located, extra: Cow<'a, str>) -> Self {
        Self {
            record,
            event_type: event.event_type.as_str(),
            is_other: false,
            event_id: event.event_id.as_str(),
            schema_version: &event.schema_version,
            timestamp: event.timestamp,
            recorded_at: event.recorded_at,
            producer: &event.source,
            tenant: event.tenant.as_str(),
            aggregate_type: event.stream.aggregate_type().as_str(),
            aggregate_id: event.stream.aggregate_id(),
            version: event.version,
            position: event.position,
            metadata: &event.metadata,
            extra,
        }
    }

    fn of_other(LocatedOther { record, event }: &'a LocatedOther) -> Self {
        Self {
            record,
            event_type: &event.event_type,
            is_other: true,
            event_id: event.event_id.as_str(),
            schema_version: &event.schema_version,
            timestamp: event.timestamp,
            recorded_at: event.recorded_at,
            producer: &event.source,
            tenant: event.tenant.as_str(),
            aggregate_type: &event.aggregate_type,
            aggregate_id: &event.aggregate_id,
            version: event.version,
            position: event.position,
            metadata: &event.metadata,
            extra: Cow::Borrowed("{}"),
        }
    }
}

/// A typed column's cells, those of rows that have one.
type Sparse<'a> = Vec<(usize, FieldValue<'a>)>;

/// One block of all of it. At least one row is needed.
pub fn block(events: &[&Located], others: &[&LocatedOther]) -> Result<Block, BoxError> {
    let mut typed: Vec<Sparse<'_>> = COLUMNS.iter().map(|_| Vec::new()).collect();
    let mut rows = Vec::with_capacity(events.len() + others.len());
    for (row, located) in events.iter().enumerate() {
        let mut rest = Object::new();
        for (name, column, value) in located.event.data.iter() {
            match column.filter(|(_, column)| fits(column.column_type, &value)) {
                Some((index, _)) => typed[index].push((row, value)),
                None => drop(rest.insert(name.to_owned(), value.to_value())),
            }
        }
        let extra = match rest.is_empty() {
            true => Cow::Borrowed("{}"),
            false => Cow::Owned(weir_model::canonical::object_text(&rest)),
        };
        rows.push(Envelope::of(located, extra));
    }
    rows.extend(others.iter().map(|located| Envelope::of_other(located)));
    let mut builder = BlockBuilder::new();
    envelope_columns(&mut builder, &rows)?;
    for (column, cells) in COLUMNS.iter().zip(typed) {
        typed_column(&mut builder, column.name, column.column_type, &cells, rows.len())?;
    }
    texts(&mut builder, "extra", &rows, |row| &row.extra)?;
    // The largest column by far: one payload at a time, never all of them beside the column.
    let payloads = events.iter().map(|located| located.event.canonical_data());
    let payloads = payloads.chain(others.iter().map(|located| located.event.document.to_string()));
    builder.upsert_column::<String>("data")?.add_all(payloads)?;
    Ok(builder.build()?)
}

/// Whether a column can hold a value: `columns::cell` decides, and makes no copies of texts for it.
fn fits(column_type: ColumnType, value: &FieldValue<'_>) -> bool {
    match (column_type, value) {
        (ColumnType::Text, FieldValue::Text(_)) | (ColumnType::Json, FieldValue::Nested(_)) => true,
        (ColumnType::Text | ColumnType::Json, _) => false,
        (_, value) => cell(column_type, *value).is_some(),
    }
}

fn texts<'a>(
    builder: &mut BlockBuilder,
    name: &str,
    rows: &'a [Envelope<'a>],
    of: impl Fn(&'a Envelope<'a>) -> &'a str,
) -> Result<(), BoxError> {
    builder.upsert_column::<&str>(name)?.add_all(rows.iter().map(of))?;
    Ok(())
}

fn envelope_columns(builder: &mut BlockBuilder, rows: &[Envelope<'_>]) -> Result<(), BoxError> {
    texts(builder, "event_type", rows, |row| row.event_type)?;
    builder.upsert_column::<bool>("is_other")?.add_all(rows.iter().map(|row| row.is_other))?;
    texts(builder, "event_id", rows, |row| row.event_id)?;
    texts(builder, "schema_version", rows, |row| row.schema_version)?;
    let millis = |at: Timestamp| Millis(at.as_millis());
    builder.upsert_column::<Millis>("timestamp")?.add_all(rows.iter().map(|row| millis(row.timestamp)))?;
    let recorded_at = rows.iter().map(|row| row.recorded_at.map(millis));
    builder.upsert_column::<Option<Millis>>("recorded_at")?.add_all(recorded_at)?;
    texts(builder, "producer", rows, |row| row.producer)?;
    texts(builder, "tenant", rows, |row| row.tenant)?;
    texts(builder, "aggregate_type", rows, |row| row.aggregate_type)?;
    texts(builder, "aggregate_id", rows, |row| row.aggregate_id)?;
    builder.upsert_column::<Option<i64>>("aggregate_version")?.add_all(rows.iter().map(|row| row.version))?;
    builder.upsert_column::<Option<i64>>("position")?.add_all(rows.iter().map(|row| row.position.map(|p| p.0)))?;
    let causation_ids = rows.iter().map(|row| row.metadata.causation_id.as_deref());
    builder.upsert_column::<Option<&str>>("causation_id")?.add_all(causation_ids)?;
    let correlation_ids = rows.iter().map(|row| row.metadata.correlation_id.as_deref());
    builder.upsert_column::<Option<&str>>("correlation_id")?.add_all(correlation_ids)?;
    let actor_ids = rows.iter().map(|row| row.metadata.user_id.as_deref());
    builder.upsert_column::<Option<&str>>("actor_id")?.add_all(actor_ids)?;
    texts(builder, "source", rows, |row| &row.record.partition.source)?;
    texts(builder, "topic", rows, |row| &row.record.partition.topic)?;
    let partitions = rows.iter().map(|row| i64::from(row.record.partition.number));
    builder.upsert_column::<i64>("partition")?.add_all(partitions)?;
    builder.upsert_column::<i64>("offset")?.add_all(rows.iter().map(|row| row.record.offset))?;
    Ok(())
}

/// Each row's cell in turn, most of them none.
fn dense<'c, 'a, T>(
    cells: &'c Sparse<'a>,
    rows: usize,
    take: impl Fn(FieldValue<'a>) -> Option<T> + 'c,
) -> impl Iterator<Item = Option<T>> + 'c
where
    'a: 'c,
{
    let mut cells = cells.iter().peekable();
    (0..rows).map(move |row| cells.next_if(|(at, _)| *at == row).and_then(|(_, value)| take(*value)))
}

fn typed_column(
    builder: &mut BlockBuilder,
    name: &str,
    column_type: ColumnType,
    cells: &Sparse<'_>,
    rows: usize,
) -> Result<(), BoxError> {
    match column_type {
        ColumnType::Text => {
            let text = |value| if let FieldValue::Text(text) = value { Some(text) } else { None };
            builder.upsert_column::<Option<&str>>(name)?.add_all(dense(cells, rows, text))?;
        }
        ColumnType::Json => {
            let text = |value| match cell(ColumnType::Json, value) {
                Some(Cell::Text(text)) => Some(text),
                _ => None,
            };
            builder.upsert_column::<Option<String>>(name)?.add_all(dense(cells, rows, text))?;
        }
        ColumnType::Double => {
            let number = |value| if let Some(Cell::Double(n)) = cell(column_type, value) { Some(n) } else { None };
            builder.upsert_column::<Option<f64>>(name)?.add_all(dense(cells, rows, number))?;
        }
        ColumnType::Integer => {
            let number = |value| if let Some(Cell::Integer(n)) = cell(column_type, value) { Some(n) } else { None };
            builder.upsert_column::<Option<i64>>(name)?.add_all(dense(cells, rows, number))?;
        }
        ColumnType::Boolean => {
            let boolean = |value| if let Some(Cell::Boolean(b)) = cell(column_type, value) { Some(b) } else { None };
            builder.upsert_column::<Option<bool>>(name)?.add_all(dense(cells, rows, boolean))?;
        }
        ColumnType::Timestamp => {
            let at =
                |value| if let Some(Cell::Timestamp(at)) = cell(column_type, value) { Some(Millis(at)) } else { None };
            builder.upsert_column::<Option<Millis>>(name)?.add_all(dense(cells, rows, at))?;
        }
    }
    Ok(())
}
