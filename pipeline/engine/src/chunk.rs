//! Records that were read together, each decoded once, however many lanes hold them.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use weir_model::wire::{self, Decoded};
use weir_model::{Event, OtherEvent};

use crate::record::{Record, RecordHead};

/// An event and the record it came from.
#[derive(Debug, Clone)]
pub struct Located<E = Event> {
    /// Coordinates, key and headers.
    pub record: RecordHead,
    /// What it means.
    pub event: E,
    raw: Raw,
}

/// What a dead letter keeps of an event.
#[derive(Debug, Clone)]
enum Raw {
    /// The record's bytes.
    Bytes(Bytes),
    /// The data of an event that the event store holds in columns; the rest stands in its envelope.
    Data(ByteString),
}

impl<E> Located<E> {
    /// An event and its record.
    #[must_use]
    pub fn new(record: Record, event: E) -> Self {
        Self { record: record.head, event, raw: Raw::Bytes(record.payload) }
    }

    /// Bytes of the record's payload; of an event that the event store holds in columns, of its data's text.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.raw {
            Raw::Bytes(bytes) => bytes.len(),
            Raw::Data(text) => text.len(),
        }
    }
}

impl Located {
    /// An event that the event store holds in columns, with the text of its data.
    #[must_use]
    pub fn stored(record: RecordHead, event: Event, data: ByteString) -> Self {
        Self { record, event, raw: Raw::Data(data) }
    }

    /// The record with its bytes, made again where the event store holds them in columns.
    pub fn whole_record(&self) -> Result<Record, serde_json::Error> {
        let payload = match &self.raw {
            Raw::Bytes(bytes) => bytes.clone(),
            Raw::Data(data) => wire::encode_event(&self.event, data)?.into(),
        };
        Ok(Record { head: self.record.clone(), payload })
    }
}

impl Located<OtherEvent> {
    /// The record with its bytes.
    #[must_use]
    pub fn whole_record(&self) -> Record {
        let payload = match &self.raw {
            Raw::Bytes(bytes) => bytes.clone(),
            Raw::Data(text) => text.as_bytes().clone(),
        };
        Record { head: self.record.clone(), payload }
    }
}

/// A record that no lane can apply.
#[derive(Debug, Clone)]
pub struct DeadRecord {
    /// Coordinates and bytes.
    pub record: Record,
    /// Why.
    pub reason: String,
}

/// A record and what it turned out to be.
#[derive(Debug, Clone)]
pub enum Row {
    /// An event of a type that has a contract.
    Event(Located),
    /// Of a type that this build does not know: for lanes that keep everything; to all others it means nothing.
    Other(Located<OtherEvent>),
    /// To keep as a dead letter.
    Dead(DeadRecord),
}

impl Row {
    /// Decodes a record.
    #[must_use]
    pub fn of(record: Record) -> Self {
        match record.decode() {
            Ok(Decoded::Event(event)) => Self::Event(Located::new(record, event)),
            Ok(Decoded::Other(event)) => Self::Other(Located::new(record, event)),
            Err(error) => Self::Dead(DeadRecord { record, reason: error.to_string() }),
        }
    }

    /// Coordinates, key and headers.
    #[must_use]
    pub fn record(&self) -> &RecordHead {
        match self {
            Self::Event(located) => &located.record,
            Self::Other(located) => &located.record,
            Self::Dead(dead) => &dead.record.head,
        }
    }

    /// Whether it is an event that did not come through our publisher, which gives each its position.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        match self {
            Self::Event(located) => located.event.position.is_none(),
            Self::Other(located) => located.event.position.is_none(),
            Self::Dead(_) => false,
        }
    }

    /// Bytes as [`Located::bytes`] has them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Event(located) => located.bytes(),
            Self::Other(located) => located.bytes(),
            Self::Dead(dead) => dead.record.payload.len(),
        }
    }
}

/// An event of a chunk, for work that outlives the batch it is in.
#[derive(Debug, Clone)]
pub struct SharedEvent {
    chunk: Arc<Chunk>,
    place: usize,
}

impl SharedEvent {
    /// The row at a place of a chunk, if it is an event.
    pub(crate) fn of(chunk: &Arc<Chunk>, place: usize) -> Option<Self> {
        let shared = Self { chunk: chunk.clone(), place };
        shared.located().is_some().then_some(shared)
    }

    /// The event.
    #[must_use]
    pub fn located(&self) -> Option<&Located> {
        match self.chunk.rows.get(self.place)? {
            Row::Event(located) => Some(located),
            Row::Other(_) | Row::Dead(_) => None,
        }
    }
}

/// Records in order within each partition. Never changed once it is made, so lanes share it.
#[derive(Debug, Default)]
pub struct Chunk {
    rows: Vec<Row>,
    bytes: usize,
    memory: usize,
    has_foreign: bool,
}

impl Chunk {
    /// Of rows in the order in which they were read.
    #[must_use]
    pub fn new(rows: Vec<Row>) -> Self {
        Self::of(rows, true)
    }

    /// Without `keeps_text` nothing asks for canonical text, and none is reckoned with.
    fn of(rows: Vec<Row>, keeps_text: bool) -> Self {
        let bytes = rows.iter().map(Row::bytes).sum();
        let decoded = |row: &Row| match row {
            Row::Event(located) if keeps_text => located.event.data.memory() + located.event.data.memory_of_canonical(),
            Row::Event(located) => located.event.data.memory(),
            // Of canonical text there is a copy.
            Row::Other(located) => located.event.document.len(),
            Row::Dead(_) => 0,
        };
        let beside = |row: &Row| {
            let record = row.record();
            record.headers.written().len() + record.key_bytes().map_or(0, <[u8]>::len)
        };
        let memory = bytes + size_of_val(&*rows) + rows.iter().map(|row| decoded(row) + beside(row)).sum::<usize>();
        let has_foreign = rows.iter().any(Row::is_foreign);
        Self { rows, bytes, memory, has_foreign }
    }

    /// Decodes records.
    #[must_use]
    pub fn decode(records: Vec<Record>) -> Self {
        Self::of(records.into_iter().map(Row::of).collect(), false)
    }

    /// The same for lanes that keep the events' text: whether it is canonical as it came is looked for once.
    #[must_use]
    pub fn decode_with_text(records: Vec<Record>) -> Self {
        let rows: Vec<Row> = records.into_iter().map(Row::of).collect();
        for row in &rows {
            if let Row::Event(located) = row {
                located.event.data.look_for_canonical();
            }
        }
        Self::new(rows)
    }

    /// All of them.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The places of all rows.
    #[must_use]
    pub fn all(&self) -> Range<usize> {
        0..self.rows.len()
    }

    /// Whether any of them [`Row::is_foreign`].
    #[must_use]
    pub fn has_foreign(&self) -> bool {
        self.has_foreign
    }

    /// Bytes of payload.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// About how many bytes of memory it needs, decoded rows included.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.memory
    }
}
