//! Events to one block of ClickHouse's Native format, column by column: what is not in the contract of a type costs a byte a row.
//!
//! The format is at <https://clickhouse.com/docs/interfaces/formats/Native>: the number of columns and of rows, then for each column
//! its name, its type, for a nullable one a byte for each row that says whether it is null, and the values. The client's own blocks
//! are not used: they send each text of 128 bytes and more as a chunk of HTTP of its own, which took several times the CPU.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use bytes::{BufMut, Bytes, BytesMut};
use integer_encoding::VarInt;
use weir_engine::{Located, Partition, RecordHead};
use weir_model::canonical;
use weir_model::cells::{Cell, cell};
use weir_model::columns::{COLUMNS, ColumnType};
use weir_model::data::FieldValue;
use weir_model::envelope::{self, EnvelopeColumn, EnvelopeValue, Enveloped};
use weir_model::{Event, Object, OtherEvent};

use crate::schema::{nested_columns, plain_type};

/// Bytes that are sent at once; a block is never in memory as a whole.
const PIECE: usize = 256 << 10;
/// Rows of a column that are written before the next look at the piece's size.
const ROWS: usize = 512;

/// What all rows have, whatever their type.
struct RowHead<'a> {
    record: &'a RecordHead,
    enveloped: Enveloped<'a>,
    is_other: bool,
    /// Of the owner who writes it.
    epoch: i64,
    extra: Cow<'a, str>,
    /// A bit for each nested value that has a column.
    nested: u32,
    /// The end of the row's part of [`Block::places`].
    places_end: usize,
}

/// What a typed column holds.
enum CellValue<'a> {
    Text(&'a str),
    Double(f64),
    /// An integer, or a time in milliseconds since 1970.
    Integer(i64),
    Boolean(bool),
}

impl CellValue<'_> {
    fn write(&self, out: &mut BytesMut) {
        match self {
            Self::Text(value) => text(out, value),
            Self::Double(value) => out.put_f64_le(*value),
            Self::Integer(value) => out.put_i64_le(*value),
            Self::Boolean(value) => out.put_u8(u8::from(*value)),
        }
    }
}

/// A typed column's cells, those of rows that have one.
type Sparse<'a> = Vec<(usize, CellValue<'a>)>;

/// A column of every block.
struct Column {
    name: &'static str,
    data_type: String,
    source: Source,
}

/// Where the values of a column come from.
enum Source {
    Envelope(&'static EnvelopeColumn),
    Text(for<'e> fn(&'e RowHead<'_>) -> &'e str),
    Flag(fn(&RowHead<'_>) -> bool),
    Integer(fn(&RowHead<'_>) -> i64),
    /// The one of [`COLUMNS`] with this index.
    Typed(usize),
    Payload,
    Nested,
    NestedPlaces,
}

impl Source {
    fn data_type(&self) -> String {
        match self {
            Self::Envelope(column) => plain_type(column.column_type, column.is_optional),
            Self::Text(_) | Self::Payload => plain_type(ColumnType::Text, false),
            Self::Flag(_) => plain_type(ColumnType::Boolean, false),
            Self::Integer(_) => plain_type(ColumnType::Integer, false),
            Self::Typed(index) => plain_type(COLUMNS[*index].column_type, true),
            Self::Nested => "UInt32".to_owned(),
            Self::NestedPlaces => "Array(UInt32)".to_owned(),
        }
    }
}

/// The columns of a block, in order. Those that the server keeps as `LowCardinality` are sent as plain text; it converts them.
static LAYOUT: LazyLock<Vec<Column>> = LazyLock::new(|| {
    let envelope = envelope::COLUMNS.iter().map(|column| (column.name, Source::Envelope(column)));
    let own = [
        ("is_other", Source::Flag(|row| row.is_other)),
        ("source", Source::Text(|row| &row.record.partition.source)),
        ("topic", Source::Text(|row| &row.record.partition.topic)),
        ("partition", Source::Integer(|row| row.record.partition.number.into())),
        ("offset", Source::Integer(|row| row.record.offset)),
        ("epoch", Source::Integer(|row| row.epoch)),
    ];
    let typed = COLUMNS.iter().enumerate().filter(|(_, column)| column.column_type != ColumnType::Json);
    let typed = typed.map(|(index, column)| (column.name, Source::Typed(index)));
    let tail = [
        ("extra", Source::Text(|row| &row.extra)),
        ("data", Source::Payload),
        ("nested", Source::Nested),
        ("nested_places", Source::NestedPlaces),
    ];
    let column = |(name, source): (&'static str, Source)| Column { name, data_type: source.data_type(), source };
    envelope.chain(own).chain(typed).chain(tail).map(column).collect()
});

/// The bit in `nested` of each of [`COLUMNS`] that has one.
static BITS: LazyLock<Vec<Option<u32>>> = LazyLock::new(|| {
    let mut bits = vec![None; COLUMNS.len()];
    nested_columns().for_each(|(index, _, bit)| bits[index] = Some(bit));
    bits
});

/// One block.
pub struct Block<'a> {
    events: &'a [&'a Located],
    others: &'a [&'a Located<OtherEvent>],
    envelopes: Vec<RowHead<'a>>,
    /// In the order of [`COLUMNS`].
    typed: Vec<Sparse<'a>>,
    /// Of each row, in the order of its bits, where nested values begin in its canonical text, from 1, and how many bytes they take.
    places: Vec<u32>,
}

impl<'a> Block<'a> {
    /// All of it; a block has at least one row. `epoch` is that of the owner who writes a partition's rows.
    #[must_use]
    pub fn of(
        events: &'a [&'a Located],
        others: &'a [&'a Located<OtherEvent>],
        epoch: impl Fn(&Partition) -> i64,
    ) -> Self {
        let mut block = Self {
            events,
            others,
            envelopes: Vec::with_capacity(events.len() + others.len()),
            typed: COLUMNS.iter().map(|_| Vec::new()).collect(),
            places: Vec::new(),
        };
        for (row, located) in events.iter().enumerate() {
            block.push(row, located, epoch(&located.record.partition));
        }
        let places_end = block.places.len();
        block.envelopes.extend(others.iter().map(|Located { record, event, .. }| RowHead {
            record,
            enveloped: event.enveloped(),
            is_other: true,
            epoch: epoch(&record.partition),
            extra: Cow::Borrowed("{}"),
            nested: 0,
            places_end,
        }));
        block
    }

    fn push(&mut self, row: usize, Located { record, event, .. }: &'a Located, epoch: i64) {
        let mut rest = Object::new();
        let mut nested: [Option<(u32, u32)>; 32] = [None; 32];
        let mut bits = 0;
        for (name, column, value) in event.data.iter_canonical() {
            let held = column.and_then(|(index, column)| {
                if let (Some(bit), FieldValue::Nested(text)) = (BITS[index], value) {
                    nested[usize::try_from(bit).ok()?] = Some(place(event, text)?);
                    bits |= 1 << bit;
                    return Some(());
                }
                self.typed[index].push((row, held(column.column_type, value)?));
                Some(())
            });
            if held.is_none() {
                rest.insert(name.to_owned(), value.to_value());
            }
        }
        let extra = match rest.is_empty() {
            true => Cow::Borrowed("{}"),
            false => Cow::Owned(canonical::object_text(&rest)),
        };
        self.places.extend(nested.into_iter().flatten().flat_map(|(start, length)| [start, length]));
        let places_end = self.places.len();
        let enveloped = event.enveloped();
        self.envelopes.push(RowHead { record, enveloped, is_other: false, epoch, extra, nested: bits, places_end });
    }

    /// The block's bytes, in pieces that are made when they are asked for.
    pub fn pieces(&self) -> impl Iterator<Item = Bytes> + Send + '_ {
        let rows = self.envelopes.len();
        let mut buffer = BytesMut::new();
        length(&mut buffer, LAYOUT.len());
        length(&mut buffer, rows);
        let ranges = move || (0..rows).step_by(ROWS).map(move |from| from..(from + ROWS).min(rows));
        let mut steps = LAYOUT.iter().flat_map(move |column| ranges().map(move |range| (column, range)));
        std::iter::from_fn(move || {
            buffer.reserve(2 * PIECE);
            while buffer.len() < PIECE {
                let Some((column, range)) = steps.next() else { break };
                self.write(column, range, &mut buffer);
            }
            (!buffer.is_empty()).then(|| buffer.split().freeze())
        })
    }

    /// These rows of a column, after what comes before the first of them.
    fn write(&self, column: &Column, range: Range<usize>, out: &mut BytesMut) {
        if range.start == 0 {
            text(out, column.name);
            text(out, &column.data_type);
            self.write_prefix(&column.source, out);
        }
        let rows = &self.envelopes[range.clone()];
        match column.source {
            Source::Envelope(column) => rows.iter().for_each(|row| match (column.value)(&row.enveloped) {
                Some(EnvelopeValue::Text(value)) => text(out, value),
                Some(EnvelopeValue::Integer(n)) => out.put_i64_le(n),
                Some(EnvelopeValue::Time(at)) => out.put_i64_le(at.as_millis()),
                // Of a null, that is skipped: an empty text, or a zero.
                None if column.column_type == ColumnType::Text => text(out, ""),
                None => out.put_i64_le(0),
            }),
            Source::Text(of) => rows.iter().for_each(|row| text(out, of(row))),
            Source::Flag(of) => rows.iter().for_each(|row| out.put_u8(u8::from(of(row)))),
            Source::Integer(of) => rows.iter().for_each(|row| out.put_i64_le(of(row))),
            Source::Typed(index) => self.write_typed(index, range, out),
            Source::Payload => self.write_payloads(range, out),
            Source::Nested => rows.iter().for_each(|row| out.put_u32_le(row.nested)),
            Source::NestedPlaces => {
                let start = range.start.checked_sub(1).map_or(0, |before| self.envelopes[before].places_end);
                let end = rows.last().map_or(start, |row| row.places_end);
                self.places[start..end].iter().for_each(|place| out.put_u32_le(*place));
            }
        }
    }

    /// What stands before a column's values: a byte for each row of the block, where it can be null; of lists the ends.
    fn write_prefix(&self, source: &Source, out: &mut BytesMut) {
        let rows = self.envelopes.iter();
        match source {
            Source::Envelope(column) if column.is_optional => {
                out.extend(rows.map(|row| u8::from((column.value)(&row.enveloped).is_none())));
            }
            Source::Typed(index) => {
                let start = out.len();
                out.put_bytes(1, rows.len());
                self.typed[*index].iter().for_each(|(row, _)| out[start + row] = 0);
            }
            Source::NestedPlaces => rows.for_each(|row| out.put_u64_le(row.places_end.try_into().unwrap_or(u64::MAX))),
            Source::Envelope(_) | Source::Text(_) | Source::Flag(_) | Source::Integer(_) => {}
            Source::Payload | Source::Nested => {}
        }
    }

    fn write_typed(&self, index: usize, range: Range<usize>, out: &mut BytesMut) {
        let column_type = COLUMNS[index].column_type;
        // Of a null, that is skipped: an empty text, or a zero.
        let width = match column_type {
            ColumnType::Text | ColumnType::Json | ColumnType::Boolean => 1,
            ColumnType::Double | ColumnType::Integer | ColumnType::Timestamp => 8,
        };
        let cells = &self.typed[index];
        let cells = &cells[cells.partition_point(|(row, _)| *row < range.start)..];
        let mut next = range.start;
        for (row, value) in cells.iter().take_while(|(row, _)| *row < range.end) {
            out.put_bytes(0, (row - next) * width);
            value.write(out);
            next = row + 1;
        }
        out.put_bytes(0, (range.end - next) * width);
    }

    fn write_payloads(&self, range: Range<usize>, out: &mut BytesMut) {
        for row in range {
            match row.checked_sub(self.events.len()) {
                None => text(out, self.events[row].event.canonical_data()),
                Some(other) => text(out, &self.others[other].event.document),
            }
        }
    }
}

/// Where a nested value stands in the canonical text of the event's data: from 1, and how many bytes.
fn place(event: &Event, nested: &str) -> Option<(u32, u32)> {
    let place = event.data.place_in_canonical(nested)?;
    Some((u32::try_from(place.start + 1).ok()?, u32::try_from(place.len()).ok()?))
}

/// A value as its column holds it, if it can: as `cells::cell` decides, without copies of texts.
fn held(column_type: ColumnType, value: FieldValue<'_>) -> Option<CellValue<'_>> {
    match (column_type, value) {
        (ColumnType::Text, FieldValue::Text(value)) => Some(CellValue::Text(value)),
        (ColumnType::Text | ColumnType::Json, _) => None,
        (_, value) => match cell(column_type, value)? {
            Cell::Double(value) => Some(CellValue::Double(value)),
            Cell::Integer(value) | Cell::Timestamp(value) => Some(CellValue::Integer(value)),
            Cell::Boolean(value) => Some(CellValue::Boolean(value)),
            Cell::Text(_) => None,
        },
    }
}

fn text(out: &mut BytesMut, value: &str) {
    length(out, value.len());
    out.put_slice(value.as_bytes());
}

/// A count or a length, as LEB128.
fn length(out: &mut BytesMut, value: usize) {
    let mut bytes = [0; 10];
    let used = value.encode_var(&mut bytes);
    out.put_slice(&bytes[..used]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_little_endian_groups_of_seven_bits() {
        let written = |value| {
            let mut out = BytesMut::new();
            length(&mut out, value);
            out.to_vec()
        };
        assert_eq!(written(0), [0]);
        assert_eq!(written(127), [127]);
        assert_eq!(written(300), [0xac, 0x02]);
    }

    #[test]
    fn the_block_has_the_columns_of_the_table() {
        let names = |mut names: Vec<&'static str>| {
            names.sort_unstable();
            names
        };
        let columns = crate::schema::columns();
        let stored = columns.iter().filter(|column| column.nested.is_none()).map(|column| column.name).collect();
        assert_eq!(names(LAYOUT.iter().map(|column| column.name).collect()), names(stored));
    }
}
