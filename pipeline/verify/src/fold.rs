//! What the read models should hold: events sorted by the row that they touch, on disk where they are many, and each row folded by
//! the pure projections.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::PathBuf;

use extsort::{ExternalSorter, Sortable};
use tokio::sync::mpsc;
use weir_model::canonical::SetHash;
use weir_model::project::{AssessmentRow, Progress, SessionRow, Units, UserRow, progress_of};
use weir_model::{Event, wire};
use weir_postgres::verify::TABLES;

/// Items that the external sort holds in memory at a time.
const SORT_SEGMENT: usize = 40_000;

/// The rows that an event touches: index into [`TABLES`], tenant, key.
pub(crate) fn targets(event: &Event, units: Units) -> Vec<(usize, String, String)> {
    let own = || (event.tenant.to_string(), event.stream.aggregate_id().to_owned());
    let mut targets = Vec::new();
    let mut add = |table, (tenant, key): (String, String)| targets.push((table, tenant, key));
    if UserRow::concerns(event) {
        add(0, own());
    }
    if SessionRow::of(event).is_some() {
        add(1, own());
    }
    if AssessmentRow::of(event, units).is_some() {
        add(2, own());
    }
    if let Some((key, _)) = progress_of(event, units) {
        add(3, key);
    }
    targets
}

/// An event on its way to the row it touches.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) table: u8,
    pub(crate) rank: u8,
    pub(crate) tenant: String,
    pub(crate) key: String,
    pub(crate) offset: i64,
    pub(crate) payload: Vec<u8>,
}

impl Item {
    fn row(&self) -> (u8, &str, &str) {
        (self.table, &self.tenant, &self.key)
    }

    fn order(&self, other: &Self) -> Ordering {
        (self.row(), self.rank, self.offset).cmp(&(other.row(), other.rank, other.offset))
    }
}

impl Sortable for Item {
    fn encode<W: Write>(&self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(&[self.table, self.rank])?;
        writer.write_all(&self.offset.to_le_bytes())?;
        for bytes in [self.tenant.as_bytes(), self.key.as_bytes(), &self.payload] {
            writer.write_all(&u64::try_from(bytes.len()).unwrap_or(0).to_le_bytes())?;
            writer.write_all(bytes)?;
        }
        Ok(())
    }

    fn decode<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        let (mut table, mut offset) = ([0; 2], [0; 8]);
        reader.read_exact(&mut table)?;
        reader.read_exact(&mut offset)?;
        let mut part = || -> std::io::Result<Vec<u8>> {
            let mut length = [0; 8];
            reader.read_exact(&mut length)?;
            let mut bytes = vec![0; usize::try_from(u64::from_le_bytes(length)).map_err(std::io::Error::other)?];
            reader.read_exact(&mut bytes)?;
            Ok(bytes)
        };
        let (tenant, key, payload) = (part()?, part()?, part()?);
        let text = |bytes| String::from_utf8(bytes).map_err(std::io::Error::other);
        Ok(Self {
            table: table[0],
            rank: table[1],
            tenant: text(tenant)?,
            key: text(key)?,
            offset: i64::from_le_bytes(offset),
            payload,
        })
    }
}

/// Sorts by row and offset, spilling to disk, and folds each row with the pure projections.
pub(crate) fn fold_sorted(
    mut items: mpsc::Receiver<Item>,
    units: Units,
    spill: PathBuf,
) -> std::io::Result<BTreeMap<&'static str, SetHash>> {
    let sorter = ExternalSorter::new().with_segment_size(SORT_SEGMENT).with_sort_dir(spill);
    let sorted = sorter.sort_by(std::iter::from_fn(move || items.blocking_recv()), Item::order)?;
    let mut hashes = BTreeMap::new();
    let mut fold: Option<Fold> = None;
    for item in sorted {
        let item = item?;
        if fold.as_ref().is_none_or(|fold| fold.item.row() != item.row())
            && let Some(done) = fold.take()
        {
            done.finish(&mut hashes);
        }
        let event = wire::decode(&item.payload.clone().into()).map_err(std::io::Error::other)?;
        match &mut fold {
            Some(fold) => fold.row.apply(&event, units),
            None => {
                let mut row = Row::new(item.table, &event);
                row.apply(&event, units);
                fold = Some(Fold { item, row });
            }
        }
    }
    if let Some(done) = fold {
        done.finish(&mut hashes);
    }
    Ok(hashes)
}

struct Fold {
    item: Item,
    row: Row,
}

enum Row {
    User(Box<UserRow>),
    Session(Option<Box<SessionRow>>),
    Assessment(Option<Box<AssessmentRow>>),
    Progress(Progress),
}

impl Row {
    fn new(table: u8, event: &Event) -> Self {
        match table {
            0 => Self::User(Box::new(UserRow::new(event))),
            1 => Self::Session(None),
            2 => Self::Assessment(None),
            _ => Self::Progress(Progress::default()),
        }
    }

    fn apply(&mut self, event: &Event, units: Units) {
        match self {
            Self::User(row) => row.apply(event),
            Self::Session(row) => *row = SessionRow::of(event).map(Box::new),
            Self::Assessment(row) => *row = AssessmentRow::of(event, units).map(Box::new),
            Self::Progress(progress) => {
                if let Some((_, part)) = progress_of(event, units) {
                    progress.merge(part);
                }
            }
        }
    }
}

impl Fold {
    fn finish(self, hashes: &mut BTreeMap<&'static str, SetHash>) {
        let text = match self.row {
            Row::User(row) => row.canonical(),
            Row::Session(row) => row.map(|row| row.canonical()).unwrap_or_default(),
            Row::Assessment(row) => row.map(|row| row.canonical()).unwrap_or_default(),
            Row::Progress(progress) => progress.canonical(&self.item.tenant, &self.item.key),
        };
        hashes.entry(TABLES[usize::from(self.item.table)]).or_default().add(&[text.as_bytes()]);
    }
}
