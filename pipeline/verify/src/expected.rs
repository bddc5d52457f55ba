//! What every sink should hold, from one pass over the source.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use extsort::{ExternalSorter, Sortable};
use tokio::sync::mpsc;
use weir_engine::{BoxError, Partition, Record};
use weir_history::rows::Coordinates;
use weir_history::verify::add_record;
use weir_model::canonical::SetHash;
use weir_model::project::{AssessmentRow, Progress, SessionRow, Units, UserRow, progress_of};
use weir_model::{Event, wire};
use weir_postgres::Database;
use weir_postgres::metric_totals::MetricTotals;
use weir_postgres::verify::{TABLES, reference_page};

use weir_kafka::TopicLog;

use crate::{Cut, Cuts, HISTORY, LANES, METRICS, READ_MODELS, VerifyError};

const PAGE: i64 = 2000;

/// Items that the external sort holds in memory at a time.
const SORT_SEGMENT: usize = 40_000;

/// A key's records come from one place after the other: first the event store, and from topics once the lane was moved over.
const EVENT_STORE_RANK: u8 = 0;
const TOPICS_RANK: u8 = 1;

/// Items between the reader and the sorter.
const QUEUE_MAX: usize = 1000;

/// What every sink should hold below its cut.
#[derive(Default)]
pub(crate) struct Expected {
    pub(crate) history: BTreeMap<String, SetHash>,
    pub(crate) metrics: MetricTotals,
    pub(crate) read_models: BTreeMap<&'static str, SetHash>,
    /// Dead letters by lane and subject.
    pub(crate) dead: HashMap<(&'static str, String), u64>,
    pub(crate) differences: Vec<String>,
}

impl Expected {
    pub(crate) async fn read(
        database: &Database,
        event_store: &Partition,
        topics: Option<&TopicLog>,
        cuts: &Cuts,
        units: Units,
        spill: &Path,
    ) -> Result<Self, VerifyError> {
        let (sender, items) = mpsc::channel(QUEUE_MAX);
        let path = spill.to_owned();
        let folding = tokio::task::spawn_blocking(move || fold_sorted(items, units, path));
        let mut expected = Self::default();
        let mut below: BTreeMap<Partition, i64> = BTreeMap::new();
        for ((_, partition), cut) in cuts {
            let end = below.entry(partition.clone()).or_default();
            *end = cut.below.max(*end);
        }
        let end = below.get(event_store).copied().unwrap_or(0);
        let mut from = 0;
        while from < end {
            let records = reference_page(database, event_store, from, PAGE).await?;
            let Some(last) = records.last() else { break };
            from = last.offset + 1;
            for record in records {
                expected.take(record, EVENT_STORE_RANK, cuts, units, &sender).await?;
            }
        }
        if let Some(topics) = topics {
            let mut chunks = topics.read(&below);
            while let Some(chunk) = chunks.recv().await {
                for record in chunk? {
                    expected.take(record, TOPICS_RANK, cuts, units, &sender).await?;
                }
            }
        }
        drop(sender);
        let failed = |source: BoxError| VerifyError::Sort { path: spill.to_owned(), source };
        let folded = folding.await.map_err(|e| failed(e.into()))?;
        expected.read_models = folded.map_err(|e| failed(e.into()))?;
        Ok(expected)
    }

    async fn take(
        &mut self,
        record: Record,
        rank: u8,
        cuts: &Cuts,
        units: Units,
        sorter: &mpsc::Sender<Item>,
    ) -> Result<(), VerifyError> {
        let of_lane: HashMap<&str, &Cut> = LANES
            .into_iter()
            .filter_map(|lane| Some((lane, cuts.get(&(lane, record.partition.clone()))?)))
            .filter(|(_, cut)| cut.below > 0)
            .collect();
        let cut = |lane| of_lane.get(lane);
        let holds = |lane| cut(lane).is_some_and(|cut| cut.holds(record.offset));
        let is_dead = |lane| cut(lane).is_some_and(|cut| cut.is_dead(record.offset));
        let event = match wire::decode(&record.payload) {
            Ok(event) => event,
            Err(error) => {
                for lane in [HISTORY, METRICS, READ_MODELS] {
                    if is_dead(lane) {
                        *self.dead.entry((lane, claimed_type(&record))).or_default() += 1;
                    } else if holds(lane) {
                        self.differences.push(format!(
                            "{lane}: offset {} of {} is no event ({error}), and no dead letter",
                            record.offset, record.partition
                        ));
                    }
                }
                return Ok(());
            }
        };
        let subject = event.event_type.as_str().to_owned();
        if holds(HISTORY) {
            let at = Coordinates {
                source: record.partition.source.to_string(),
                topic: record.partition.topic.to_string(),
                partition: record.partition.number.into(),
                offset: record.offset,
            };
            add_record(self.history.entry(subject.clone()).or_default(), &at, &wire::canonical_document(&event));
        } else if is_dead(HISTORY) {
            *self.dead.entry((HISTORY, subject.clone())).or_default() += 1;
        }
        if holds(METRICS) {
            self.metrics.count(&event, units);
        } else if is_dead(METRICS) {
            *self.dead.entry((METRICS, subject)).or_default() += 1;
        }
        for (table, tenant, key) in targets(&event, units) {
            if holds(READ_MODELS) {
                let item = Item {
                    table: u8::try_from(table).unwrap_or(u8::MAX),
                    rank,
                    tenant,
                    key,
                    offset: record.offset,
                    payload: record.payload.to_vec(),
                };
                // The receiver ends early only on an error of its own, which is reported when it is joined.
                if sorter.send(item).await.is_err() {
                    return Ok(());
                }
            } else if is_dead(READ_MODELS) {
                *self.dead.entry((READ_MODELS, TABLES[table].to_owned())).or_default() += 1;
            }
        }
        Ok(())
    }
}

/// The type that a record claims, which may be no event.
fn claimed_type(record: &Record) -> String {
    let value: serde_json::Value = serde_json::from_slice(&record.payload).unwrap_or_default();
    value["eventType"].as_str().unwrap_or_default().to_owned()
}

/// The rows that an event touches: index into [`TABLES`], tenant, key.
fn targets(event: &Event, units: Units) -> Vec<(usize, String, String)> {
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
struct Item {
    table: u8,
    rank: u8,
    tenant: String,
    key: String,
    offset: i64,
    payload: Vec<u8>,
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
fn fold_sorted(
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
