//! History made again out of its sources: rows that are missing, or all of them. Read by the comparison's own walk, so that what is written is
//! what `weir verify` expects.
//!
//! The event store stands in for what topics hold no longer. Where history has such an event, it keeps the coordinates that it has there; where
//! history lost it too, it takes those of the event store. What other services sent and topics hold no longer is in history alone, and is kept
//! as it is.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use tokio::sync::mpsc;
use weir_engine::{Headers, Located, Partition, Row};
use weir_history::{Filter, Held, HistoryTable, Refill, transaction_id};
use weir_model::project::Units;
use weir_model::{Envelope, OTHER_EVENT, OtherEvent, Position};
use weir_postgres::job_run::Progress;
use weir_postgres::{EVENT_STORE_TOPIC, EventStore, EventStoreSource, Ledger};

use crate::expected::{Expected, Walk, publishing};
use crate::fill_from::{FillFrom, Taker};
use crate::history::{ATTEMPTS_MAX, cuts_at, dead_now};
use crate::lost::{LetGo, Lost};
use crate::rebuild::RebuildError;
use crate::{Cut, Cuts, HISTORY, Sources, Stores, VerifyError};

/// Rows between the reader and the writer.
const QUEUE_MAX: usize = 1000;

/// Events whose places in topics are looked for together.
const PLACES_MAX: usize = 20_000;

/// Which rows are written.
#[derive(Debug, Clone)]
pub enum Fill {
    /// Those that history lacks, of a range.
    Missing(Filter),
    /// All, in the place of those that are there.
    Everything,
}

/// How history is filled.
#[derive(Debug, Clone)]
pub struct HistoryFilling {
    /// Which rows.
    pub fill: Fill,
    /// Out of which sources.
    pub from: FillFrom,
    /// Nothing is written, only counted.
    pub is_dry: bool,
    /// Rows a second at most.
    pub rate: Option<u64>,
}

/// What was done, or in a dry run would be.
#[derive(Debug, Default, Clone)]
pub struct HistoryFilled {
    /// Rows that were written.
    pub rows: u64,
    /// By event type.
    pub by_type: BTreeMap<String, u64>,
    /// Rows that were looked at.
    pub looked_at: u64,
    /// New files.
    pub files: usize,
    /// Files that they replace.
    pub replaced: usize,
    /// Files that the table's log named and that were not there.
    pub lost_files: Vec<String>,
    /// Files of the table that cannot be read; a rebuild alone looks for them.
    pub damaged_files: Vec<String>,
    /// What to know.
    pub notes: Vec<String>,
}

/// Fills history, beside the live lane.
pub async fn fill_history(
    stores: Stores<'_>,
    asked: &HistoryFilling,
    progress: &Progress,
) -> Result<HistoryFilled, RebuildError> {
    let partitions = partitions(stores).await?;
    let mut table = open(stores, asked).await?;
    let mut filled = HistoryFilled::default();
    let (refill, cuts) = begin(stores, asked, &mut table, &partitions, &mut filled).await?;
    refuse_another_past(stores, &table, &asked.fill, &mut filled).await?;
    let of_lane: Cuts = cuts.into_iter().map(|(partition, cut)| ((HISTORY, partition), cut)).collect();
    let mut sources = Sources::open(stores, None).await?;
    let mut words = Vec::new();
    let mut lost = Lost::find(&of_lane, &sources.event_store, sources.topics.as_ref(), &mut words);
    if !words.is_empty() {
        return Err(RebuildError::Refused(words.join("; ")));
    }
    lost.is_read(&of_lane).map_err(RebuildError::Refused)?;
    match lost.is_empty() {
        // The event store is read as far as the lane read it itself.
        true => sources.published = 0,
        false => lost.find_dead(&**stores.database.get().await?, &of_lane).await?,
    }
    let total: i64 = of_lane.values().map(|cut| cut.below).sum();
    progress.expect(Some(total), "rows");
    let held = match &asked.fill {
        // Of whatever type: an older build may have written it under another.
        Fill::Missing(filter) => Some(table.held(&Filter { event_types: Vec::new(), ..filter.clone() }).await?),
        Fill::Everything => None,
    };
    let stand_ins_from = publishing(&sources, &of_lane).start;
    let work = Work { asked, progress, table, refill, held, stand_ins: Vec::new(), stand_ins_from, filled };
    let starts = Cuts::new();
    let (database, units) = (stores.database, Units::default());
    let walk = Walk { database, sources: &sources, cuts: &of_lane, starts: &starts, lost: &lost, table: None, units };
    work.run(walk, &lost, &of_lane).await
}

/// Each partition of the lane, and how far the ledger says that it goes.
async fn partitions(stores: Stores<'_>) -> Result<Vec<(Partition, i64)>, RebuildError> {
    let client = stores.database.get().await?;
    let rows = Ledger::rows(&**client).await?.into_iter().filter(|row| row.lane == HISTORY);
    let partitions: Vec<_> = rows.map(|row| (row.partition, row.next_offset.unwrap_or(0))).collect();
    if partitions.iter().all(|(_, next)| *next == 0) {
        let words = "the lane history has read nothing yet, and would come to all of it: start it (`weir up`, or `weir run history`)";
        return Err(RebuildError::Refused(words.to_owned()));
    }
    Ok(partitions)
}

async fn open(stores: Stores<'_>, asked: &HistoryFilling) -> Result<HistoryTable, RebuildError> {
    if let Some(table) = HistoryTable::open(stores.history).await? {
        return Ok(table);
    }
    match &asked.fill {
        Fill::Everything if !asked.is_dry => Ok(HistoryTable::open_or_create(stores.history).await?),
        Fill::Everything => Err(RebuildError::Refused(
            "there is no table, so all of it would be written; a plan counts what differs from one".to_owned(),
        )),
        Fill::Missing(_) => {
            Err(RebuildError::Refused("there is no table: `weir rebuild history` makes it again".to_owned()))
        }
    }
}

/// An event store that was restored to an older copy would take rows of the past that it lost out of history, and what is to say so with them.
/// Files that cannot be read say nothing of it; where all of history is written again, they are what it is written again for, and are named.
async fn refuse_another_past(
    stores: Stores<'_>,
    table: &HistoryTable,
    fill: &Fill,
    filled: &mut HistoryFilled,
) -> Result<(), RebuildError> {
    let partition = EventStoreSource::partition(stores.database).await?;
    let below = table.transaction(&transaction_id(HISTORY, &partition)).await?.unwrap_or(0);
    if matches!(fill, Fill::Everything) {
        filled.damaged_files = table.unreadable_files().await?;
    }
    let last = match table.last_event(&partition, below).await {
        Ok(last) => last,
        Err(_) if matches!(fill, Fill::Everything) => {
            let (last, damaged) = table.last_readable_event(&partition, below).await?;
            filled.damaged_files = damaged;
            last
        }
        Err(error) => return Err(error.into()),
    };
    let Some((offset, id)) = last else {
        if !filled.damaged_files.is_empty() {
            filled.notes.push(
                "no event of history could be read: nothing says whether the event store still has the past that history was written from".to_owned(),
            );
        }
        return Ok(());
    };
    let stored = EventStore::new(stores.database.clone()).event_id_at(Position(offset)).await?;
    if stored.is_some_and(|stored| stored.to_string() == id) {
        return Ok(());
    }
    Err(RebuildError::Refused(format!(
        "the event store does not hold the event that history has at position {offset}: Postgres was restored to an older copy than history"
    )))
}

/// Begins the run, and reads how far history goes in the snapshot that it begins with.
async fn begin(
    stores: Stores<'_>,
    asked: &HistoryFilling,
    table: &mut HistoryTable,
    partitions: &[(Partition, i64)],
    filled: &mut HistoryFilled,
) -> Result<(Option<Refill>, HashMap<Partition, Cut>), RebuildError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let before = dead_now(stores.database).await?;
        let refill = if asked.is_dry {
            let lost = table.lost_files().await?;
            if let Some(first) = lost.first() {
                return Err(RebuildError::Refused(format!(
                    "{} files that the table names are gone, {} first: no reader gets past them, and a plan neither. Without --dry-run they are dropped \
                     from the log, and what was in them is filled",
                    lost.len(),
                    first.path
                )));
            }
            None
        } else {
            let (refill, lost) = table.begin_refill(matches!(asked.fill, Fill::Everything)).await?;
            filled.lost_files.extend(lost);
            Some(refill)
        };
        // One that the lane began meanwhile may be in the snapshot.
        let now = self::partitions(stores).await?.into_iter();
        let new = now.filter(|(partition, _)| partitions.iter().all(|(known, _)| known != partition));
        let all: Vec<_> = partitions.iter().cloned().chain(new.map(|(partition, _)| (partition, 0))).collect();
        if let Some(cuts) = cuts_at(stores.database, Some(table), &all, &before, false).await? {
            return Ok((refill, cuts));
        }
        if attempts == ATTEMPTS_MAX {
            let words = "dead letters of history are redriven faster than they are read; try again";
            return Err(RebuildError::Refused(words.to_owned()));
        }
    }
}

/// One run under way.
struct Work<'a> {
    asked: &'a HistoryFilling,
    progress: &'a Progress,
    table: HistoryTable,
    /// `None` in a dry run.
    refill: Option<Refill>,
    /// What is there, where only missing rows are written.
    held: Option<Held>,
    /// Events of the event store whose records topics hold no longer.
    stand_ins: Vec<Located>,
    /// From this position on the event store stands in for topics.
    stand_ins_from: i64,
    filled: HistoryFilled,
}

impl Work<'_> {
    async fn run(mut self, walk: Walk<'_>, lost: &Lost, cuts: &Cuts) -> Result<HistoryFilled, RebuildError> {
        self.keep_foreign_rows(lost, cuts).await?;
        let (taker, rows) = mpsc::channel(QUEUE_MAX);
        let taker = Taker { lane: HISTORY, from: self.asked.from, rows: taker };
        let walking = Box::pin(Expected::walk_for(walk, taker));
        let taking = async {
            // Here, so that an error ends the reading too.
            let mut rows = rows;
            let began = Instant::now();
            while let Some(row) = rows.recv().await {
                self.take(row).await?;
                self.commit_if_full(began).await?;
            }
            self.place_stand_ins().await
        };
        let (walked, taken) = tokio::join!(walking, taking);
        taken?;
        let walked = walked?;
        if matches!(self.asked.fill, Fill::Everything) && !walked.undecodable.is_empty() {
            // What is there may be the work of a build that knew them.
            return Err(RebuildError::Refused(walked.undecodable.join("; ")));
        }
        self.filled.notes.extend(walked.differences.iter().chain(&walked.undecodable).cloned());
        match (&self.asked.fill, walked.let_go.first()) {
            // Other services' among them are in the files that would be replaced, and were not kept.
            (Fill::Everything, Some(gone)) => {
                return Err(RebuildError::Refused(format!(
                    "{}; the same command once more goes on without them",
                    gone.words()
                )));
            }
            _ => self.filled.notes.extend(walked.let_go.iter().map(LetGo::note)),
        }
        if let Some(refill) = &mut self.refill {
            self.filled.replaced = refill.replaced();
        }
        let behind = self.behind(cuts).await?;
        self.commit(&behind).await?;
        Ok(self.filled)
    }

    /// What other services sent and topics hold no longer is in history alone.
    async fn keep_foreign_rows(&mut self, lost: &Lost, cuts: &Cuts) -> Result<(), RebuildError> {
        let gone: BTreeMap<Partition, i64> = cuts
            .iter()
            .map(|((_, partition), cut)| (partition.clone(), lost.gone_below(partition).min(cut.below)))
            .filter(|(_, below)| *below > 0)
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        let mut kept = 0;
        let mut rows = self.table.foreign_rows(&gone).await?;
        while let Some(batch) = rows.try_next().await? {
            kept += batch.num_rows();
            if let (Some(refill), Fill::Everything) = (&mut self.refill, &self.asked.fill) {
                self.progress.wrote(i64::try_from(batch.num_rows()).unwrap_or(0), 0);
                refill.push_rows(&self.table, batch).await?;
            }
        }
        self.filled.notes.push(format!(
            "topics hold no longer what is below {}: weir's own events come from the event store; of other services {kept} rows are in \
             history, and are kept as they are",
            gone.iter().map(|(partition, below)| format!("{below} of {partition}")).collect::<Vec<_>>().join(", ")
        ));
        Ok(())
    }

    async fn take(&mut self, row: Row) -> Result<(), RebuildError> {
        self.filled.looked_at += 1;
        self.progress.advance(1);
        match row {
            Row::Event(event) if self.is_stand_in(&event) => {
                if let Some(held) = &self.held
                    && held.has_position(event.record.offset)
                {
                    return Ok(());
                }
                self.stand_ins.push(event);
                if self.stand_ins.len() >= PLACES_MAX { self.place_stand_ins().await } else { Ok(()) }
            }
            Row::Event(event) => self.keep(event),
            Row::Other(event) => self.keep_other(event),
            // The lane holds none.
            Row::Dead(_) => Ok(()),
        }
    }

    fn is_stand_in(&self, event: &Located) -> bool {
        *event.record.partition.topic == *EVENT_STORE_TOPIC && event.record.offset >= self.stand_ins_from
    }

    /// Where history has such an event, it keeps its place.
    async fn place_stand_ins(&mut self) -> Result<(), RebuildError> {
        let events = std::mem::take(&mut self.stand_ins);
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(()) };
        let places = match &self.asked.fill {
            Fill::Everything => self.table.places_of(first.record.offset, last.record.offset + 1).await?,
            // Those that have a place are there.
            Fill::Missing(_) => HashMap::new(),
        };
        for mut event in events {
            if let Some((partition, offset)) =
                places.get(&event.record.offset).filter(|(p, _)| *p.topic != *EVENT_STORE_TOPIC)
            {
                let aggregate_id = event.event.stream.aggregate_id();
                event.record.key = Some(aggregate_id.into());
                event.record.headers = published_headers(&event);
                (event.record.partition, event.record.offset) = (partition.clone(), *offset);
            }
            self.keep(event)?;
        }
        Ok(())
    }

    fn is_missing(&self, partition: &Partition, offset: i64) -> bool {
        self.held.as_ref().is_none_or(|held| !held.has(partition, offset))
    }

    fn is_wanted(&self, event_type: &str, of: &Envelope) -> bool {
        match &self.asked.fill {
            Fill::Missing(filter) => filter.takes(event_type, of),
            Fill::Everything => true,
        }
    }

    fn keep(&mut self, event: Located) -> Result<(), RebuildError> {
        let of = &event.event;
        if !self.is_missing(&event.record.partition, event.record.offset)
            || !self.is_wanted(of.event_type.as_str(), &of.envelope)
        {
            return Ok(());
        }
        *self.filled.by_type.entry(of.event_type.as_str().to_owned()).or_default() += 1;
        if let Some(refill) = &mut self.refill {
            let bytes = event.bytes();
            refill.push(event, bytes);
        }
        Ok(())
    }

    fn keep_other(&mut self, event: Located<OtherEvent>) -> Result<(), RebuildError> {
        let of = &event.event;
        if !self.is_missing(&event.record.partition, event.record.offset) || !self.is_wanted(OTHER_EVENT, &of.envelope)
        {
            return Ok(());
        }
        *self.filled.by_type.entry(OTHER_EVENT.to_owned()).or_default() += 1;
        let bytes = of.document.len();
        if let Some(refill) = &mut self.refill {
            refill.push_other(event, bytes);
        }
        Ok(())
    }

    /// Missing rows are committed as they come; where everything is replaced, all at the end.
    async fn commit_if_full(&mut self, began: Instant) -> Result<(), RebuildError> {
        let Some(refill) = self.refill.as_mut().filter(|refill| refill.is_full()) else { return Ok(()) };
        match self.asked.fill {
            Fill::Missing(_) => self.commit(&[]).await?,
            Fill::Everything => {
                refill.flush(&self.table).await?;
                let rows = i64::try_from(self.filled.by_type.values().sum::<u64>()).unwrap_or(i64::MAX);
                self.progress.wrote(rows - self.progress.standing().rows, 0);
            }
        }
        if let Some(rate) = self.asked.rate {
            let written = u64::try_from(self.progress.standing().rows).unwrap_or(0);
            let due = began + Duration::from_millis(written.saturating_mul(1000) / rate);
            tokio::time::sleep_until(due.into()).await;
        }
        Ok(())
    }

    async fn commit(&mut self, transactions: &[(String, i64)]) -> Result<(), RebuildError> {
        let Some(refill) = &mut self.refill else {
            self.filled.rows = self.filled.by_type.values().sum();
            return Ok(());
        };
        let done = self.table.commit_refill(refill, transactions).await?;
        self.filled.rows += done.rows;
        self.filled.files += done.files;
        let rows = i64::try_from(self.filled.rows).unwrap_or(i64::MAX);
        self.progress.wrote(rows - self.progress.standing().rows, i64::try_from(done.bytes).unwrap_or(0));
        Ok(())
    }

    /// Partitions of which the table's log says less than what it holds now.
    async fn behind(&self, cuts: &Cuts) -> Result<Vec<(String, i64)>, VerifyError> {
        let mut behind = Vec::new();
        for ((lane, partition), cut) in cuts {
            let id = transaction_id(lane, partition);
            if self.table.transaction(&id).await?.unwrap_or(0) < cut.below {
                behind.push((id, cut.below));
            }
        }
        Ok(behind)
    }
}

/// What weir's publisher gives an event.
fn published_headers(event: &Located) -> Headers {
    let of = &event.event;
    let correlation_id = of.metadata.correlation_id.as_deref();
    Headers::published(of.event_type.as_str(), &of.schema_version, &of.source, correlation_id, of.timestamp)
}
