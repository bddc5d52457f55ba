//! A row of `events` as an archive keeps it: numbers as numbers, everything else as the text that Postgres writes for it in UTC.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use tokio_postgres::types::ToSql;
use tokio_postgres::{GenericClient, Row};
use weir_model::canonical::SetHash;

use crate::error::{ArchiveError, during};

/// Rows that are read, or loaded, together; and bytes of event data, after which a page ends.
const PAGE_ROWS: i64 = 5000;
const PAGE_BYTES: i64 = 8 << 20;

/// A column of `events`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// As Postgres writes it.
    pub(crate) data_type: String,
}

impl Column {
    fn is_number(&self) -> bool {
        matches!(self.data_type.as_str(), "bigint" | "integer")
    }
}

/// The columns of `events`, in order.
pub(crate) async fn columns(client: &impl GenericClient) -> Result<Vec<Column>, ArchiveError> {
    const SQL: &str = "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute \
         WHERE attrelid = 'events'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
    let rows = client.query(SQL, &[]).await.map_err(during("reading the columns of events"))?;
    Ok(rows.iter().map(|row| Column { name: row.get(0), data_type: row.get(1) }).collect())
}

/// The schema of a file.
pub(crate) fn schema(columns: &[Column]) -> SchemaRef {
    let field = |column: &Column| {
        let data_type = if column.is_number() { DataType::Int64 } else { DataType::Utf8 };
        Field::new(&column.name, data_type, column.name != "id")
    };
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

/// The next rows from a position on and below another; `None` where there are none.
pub(crate) async fn page(
    client: &impl GenericClient,
    columns: &[Column],
    from: i64,
    below: i64,
) -> Result<Option<RecordBatch>, ArchiveError> {
    const ACTION: &str = "reading the event store";
    let list: Vec<String> = columns
        .iter()
        .map(|column| match column.is_number() {
            true => format!("{}::bigint", column.name),
            false => format!("{}::text", column.name),
        })
        .collect();
    let sql = format!(
        "SELECT {} FROM (SELECT *, sum(pg_column_size(event_json)) OVER (ORDER BY id) AS so_far, row_number() OVER (ORDER BY id) AS nth FROM events \
         WHERE id >= $1 AND id < $2 ORDER BY id LIMIT $3) e WHERE so_far IS NULL OR so_far <= $4 OR nth = 1 ORDER BY id",
        list.join(", ")
    );
    let rows = client.query(&sql, &[&from, &below, &PAGE_ROWS, &PAGE_BYTES]).await.map_err(during(ACTION))?;
    if rows.is_empty() {
        return Ok(None);
    }
    Ok(Some(batch(&rows, columns).map_err(during(ACTION))?))
}

fn batch(rows: &[Row], columns: &[Column]) -> Result<RecordBatch, ArrowError> {
    let array = |(index, column): (usize, &Column)| -> ArrayRef {
        match column.is_number() {
            true => Arc::new(rows.iter().map(|row| row.get::<_, Option<i64>>(index)).collect::<Int64Array>()),
            false => Arc::new(rows.iter().map(|row| row.get::<_, Option<&str>>(index)).collect::<StringArray>()),
        }
    };
    RecordBatch::try_new(schema(columns), columns.iter().enumerate().map(array).collect())
}

/// The positions of the first and the last row.
pub(crate) fn ends(batch: &RecordBatch) -> Option<(i64, i64)> {
    let ids = batch.column_by_name("id")?.as_primitive_opt::<Int64Type>()?;
    Some((ids.values().first().copied()?, ids.values().last().copied()?))
}

/// Takes rows into a hash that does not depend on their order.
pub(crate) fn hash(batch: &RecordBatch, into: &mut SetHash) {
    for row in 0..batch.num_rows() {
        let cells: Vec<Vec<u8>> = batch
            .columns()
            .iter()
            .map(|column| match (column.is_valid(row), column.as_string_opt::<i32>()) {
                (false, _) => vec![0],
                (true, Some(texts)) => [&[1], texts.value(row).as_bytes()].concat(),
                (true, None) => [&[2][..], &column.as_primitive::<Int64Type>().value(row).to_le_bytes()].concat(),
            })
            .collect();
        into.add(&cells.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
}

/// Inserts rows into `events`, whose columns these must be.
pub(crate) async fn insert(
    client: &impl GenericClient,
    columns: &[Column],
    batch: &RecordBatch,
) -> Result<(), ArchiveError> {
    const ACTION: &str = "loading events";
    for from in (0..batch.num_rows()).step_by(1000) {
        let some = batch.slice(from, 1000.min(batch.num_rows() - from));
        let (mut numbers, mut texts) = (Vec::new(), Vec::new());
        for column in some.columns() {
            match column.as_string_opt::<i32>() {
                Some(array) => texts.push(array.iter().map(|cell| cell.map(str::to_owned)).collect::<Vec<_>>()),
                None => numbers.push(column.as_primitive::<Int64Type>().iter().collect::<Vec<Option<i64>>>()),
            }
        }
        let (mut next_number, mut next_text) = (numbers.iter(), texts.iter());
        let mut values: Vec<&(dyn ToSql + Sync)> = Vec::new();
        for column in columns {
            let value: Option<&(dyn ToSql + Sync)> = match column.is_number() {
                true => next_number.next().map(erased),
                false => next_text.next().map(erased),
            };
            values.extend(value);
        }
        client.execute(&statement(columns), &values).await.map_err(during(ACTION))?;
    }
    Ok(())
}

fn erased<T: ToSql + Sync>(values: &Vec<T>) -> &(dyn ToSql + Sync) {
    values
}

fn statement(columns: &[Column]) -> String {
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let arrays: Vec<String> = columns
        .iter()
        .zip(1..)
        .map(|(column, n)| format!("${n}::{}[]", if column.is_number() { "bigint" } else { "text" }))
        .collect();
    let casts: Vec<String> = columns.iter().map(|column| format!("u.{}::{}", column.name, column.data_type)).collect();
    format!(
        "INSERT INTO events ({}) SELECT {} FROM unnest({}) AS u({})",
        names.join(", "),
        casts.join(", "),
        arrays.join(", "),
        names.join(", ")
    )
}
