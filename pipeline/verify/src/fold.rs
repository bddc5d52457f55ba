//! What the read models should hold: events sorted by the row that they touch, on disk where they are many, and each row folded by
//! the pure projections.

use std::cmp::Ordering;
use std::io::{Read, Write};
use std::path::PathBuf;

use bytes::Bytes;
use extsort::{ExternalSorter, Sortable};
use tokio::sync::mpsc;
use weir_engine::{Located, Partition};
use weir_history::rows::Coordinates;
use weir_model::project::{FoldedRow, ReadModel, RecordPlace, Units, attempt_key, rows_of};
use weir_model::{Event, wire};

/// Items that the external sort holds in memory at a time.
const SORT_SEGMENT: usize = 40_000;

/// Events that are handed to the sort together, at most.
pub(crate) const HELD_MAX: usize = 1000;

/// How often so many may wait for it.
pub(crate) const HELD_QUEUE_MAX: usize = 2;

/// As lanes name it.
pub(crate) fn partition_of(at: &Coordinates) -> Partition {
    let number = i32::try_from(at.partition).unwrap_or(-1);
    Partition { source: at.source.as_str().into(), topic: at.topic.as_str().into(), number }
}

/// An event that the lane read-models holds, on its way to the rows that it touches.
#[derive(Debug)]
pub(crate) struct HeldEvent {
    pub(crate) event: Event,
    /// What decodes to it.
    pub(crate) payload: Bytes,
    pub(crate) at: Coordinates,
    /// Where its key's records come from, one place after the other.
    pub(crate) rank: u8,
}

impl HeldEvent {
    fn attempt(&self) -> String {
        let Coordinates { source, topic, partition, offset } = &self.at;
        attempt_key(&self.event, RecordPlace { source, topic, partition: *partition, offset: *offset })
    }

    /// As the lane had it.
    pub(crate) fn located(self) -> Located {
        let partition = partition_of(&self.at);
        let head = weir_engine::RecordHead {
            partition,
            offset: self.at.offset,
            key: Some(self.event.stream.aggregate_id().into()),
            odd_key: None,
            headers: weir_engine::Headers::default(),
            recorded_at: None,
        };
        Located::new(weir_engine::Record { head, payload: self.payload }, self.event)
    }
}

/// An event and one of the rows that it touches.
#[derive(Debug)]
struct Item {
    model: u8,
    rank: u8,
    tenant: String,
    key: String,
    /// The event's own key, should it be an attempt.
    attempt: String,
    offset: i64,
    payload: Bytes,
}

impl Item {
    fn of(held: &HeldEvent) -> Vec<Self> {
        let attempt = held.attempt();
        let item = |(model, tenant, key): (ReadModel, String, String)| Self {
            model: model.index(),
            rank: held.rank,
            tenant,
            key,
            attempt: attempt.clone(),
            offset: held.at.offset,
            payload: held.payload.clone(),
        };
        rows_of(&held.event, &attempt).into_iter().map(item).collect()
    }

    fn row(&self) -> (u8, &str, &str) {
        (self.model, &self.tenant, &self.key)
    }

    fn order(&self, other: &Self) -> Ordering {
        (self.row(), self.rank, self.offset).cmp(&(other.row(), other.rank, other.offset))
    }
}

impl Sortable for Item {
    fn encode<W: Write>(&self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(&[self.model, self.rank])?;
        writer.write_all(&self.offset.to_le_bytes())?;
        for bytes in [self.tenant.as_bytes(), self.key.as_bytes(), self.attempt.as_bytes(), &self.payload] {
            writer.write_all(&u64::try_from(bytes.len()).unwrap_or(0).to_le_bytes())?;
            writer.write_all(bytes)?;
        }
        Ok(())
    }

    fn decode<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        let (mut model, mut offset) = ([0; 2], [0; 8]);
        reader.read_exact(&mut model)?;
        reader.read_exact(&mut offset)?;
        let mut part = || -> std::io::Result<Vec<u8>> {
            let mut length = [0; 8];
            reader.read_exact(&mut length)?;
            let mut bytes = vec![0; usize::try_from(u64::from_le_bytes(length)).map_err(std::io::Error::other)?];
            reader.read_exact(&mut bytes)?;
            Ok(bytes)
        };
        let (tenant, key, attempt, payload) = (part()?, part()?, part()?, part()?);
        let text = |bytes| String::from_utf8(bytes).map_err(std::io::Error::other);
        Ok(Self {
            model: model[0],
            rank: model[1],
            tenant: text(tenant)?,
            key: text(key)?,
            attempt: text(attempt)?,
            offset: i64::from_le_bytes(offset),
            payload: payload.into(),
        })
    }
}

/// A row that is whole, or an event that no row can take in.
pub(crate) enum Folded {
    Row(ReadModel, Box<FoldedRow>),
    Refused(String),
}

/// Sorts by row and offset, spilling to disk, folds each row with the pure projections, and hands them on. Ends early when `take`
/// has had enough.
pub(crate) fn fold_sorted(
    mut held: mpsc::Receiver<Vec<HeldEvent>>,
    units: Units,
    spill: PathBuf,
    mut take: impl FnMut(Folded) -> bool,
) -> std::io::Result<()> {
    let mut ready: Vec<Item> = Vec::new();
    let items = std::iter::from_fn(move || {
        loop {
            if let Some(item) = ready.pop() {
                return Some(item);
            }
            ready = held.blocking_recv()?.iter().flat_map(Item::of).collect();
        }
    });
    let sorter = ExternalSorter::new().with_segment_size(SORT_SEGMENT).with_sort_dir(spill);
    let mut fold: Option<(Item, ReadModel, FoldedRow)> = None;
    for item in sorter.sort_by(items, Item::order)? {
        let item = item?;
        if fold.as_ref().is_none_or(|(first, ..)| first.row() != item.row())
            && let Some((_, model, row)) = fold.take()
            && !take(Folded::Row(model, Box::new(row)))
        {
            return Ok(());
        }
        let event = wire::decode(&item.payload).map_err(std::io::Error::other)?;
        let model = ReadModel::at(item.model).ok_or_else(|| std::io::Error::other("no read model of this number"))?;
        let attempt = item.attempt.clone();
        let (_, _, row) = fold.get_or_insert_with(|| (item, model, FoldedRow::new(model, &event)));
        if let Err(refusal) = row.apply(&event, &attempt, units)
            && !take(Folded::Refused(format!("event {} cannot be applied: {refusal}", event.event_id)))
        {
            return Ok(());
        }
    }
    if let Some((_, model, row)) = fold {
        take(Folded::Row(model, Box::new(row)));
    }
    Ok(())
}
