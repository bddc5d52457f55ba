//! `backfill-clickhouse --source events|kafka`: the rows that ClickHouse lacks, out of what the lane itself read. For a weir that keeps no
//! history, or lost it.
//!
//! Sources are read from end to end, in their own order. Of some rows at a time it is asked which places are there. An event that stands in for a
//! record which topics hold no longer has the place that history knows, else its position in the event store, and is looked for by its id. A run
//! that stopped is begun again, and finds what it inserted.

use std::collections::{BTreeMap, HashMap, HashSet};

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant};
use weir_clickhouse::{ClickHouse, Insertion};
use weir_engine::retry::chain;
use weir_engine::{BoxError, LaneKind, Located, Partition, Row, failpoint};
use weir_history::{Filter, HistoryTable, Place, places, rows};
use weir_model::{OTHER_EVENT, OtherEvent, Timestamp};
use weir_postgres::job_run::{JobFence, Progress};
use weir_verify::{FillFrom, LaneRows};

use super::Work;
use super::backfill::{ROLLUPS_EVERY, ROLLUPS_PAUSE};
use super::backfill_asked::{Backfill, Reprocess};
use super::copies::{leave_out, leave_out_copies};

/// Rows, and bytes of their events, that are looked at together.
const ROWS_MAX: usize = 20_000;
const BYTES_MAX: usize = 16 << 20;

/// Items between the reader and the server.
const QUEUE_MAX: usize = 1000;

/// What was done, or in a dry run would be.
#[derive(Debug, Default)]
pub(crate) struct Filled {
    /// Rows that were inserted.
    pub(crate) rows: u64,
    /// By event type.
    pub(crate) by_type: BTreeMap<String, u64>,
    /// Rows that were looked at.
    pub(crate) looked_at: u64,
    /// What to know.
    pub(crate) notes: Vec<String>,
}

impl Work {
    /// Without a fence nothing is inserted, only counted.
    pub(crate) async fn fill_clickhouse(
        &self,
        asked: &Backfill,
        from: FillFrom,
        progress: &Progress,
        fence: Option<&JobFence>,
    ) -> Result<Filled, BoxError> {
        let server = self.clickhouse.as_ref().ok_or("there is no ClickHouse: set clickhouse.url")?;
        if fence.is_some() {
            server.migrate(&self.database).await?;
        }
        let source = LaneRows::open(self.stores(), LaneKind::ClickHouse.name(), from).await?;
        progress.expect(Some(source.total()), "rows");
        let epochs = self.clickhouse_lane().await?.epochs;
        let filling = Filling {
            work: self,
            server,
            asked,
            filter: asked.filter()?,
            source: &source,
            history: HistoryTable::open(&self.history).await?,
            epochs,
            progress,
            fence,
            events: Vec::new(),
            others: Vec::new(),
            bytes: 0,
            insertion: None,
            happened: None,
            began: Instant::now(),
            count_after: Instant::now() + ROLLUPS_EVERY,
            filled: Filled { notes: source.notes(), ..Filled::default() },
        };
        let (taker, rows) = mpsc::channel(QUEUE_MAX);
        let (read, filled) = tokio::join!(Box::pin(source.read(taker)), Box::pin(filling.run(rows)));
        let mut filled = filled?;
        filled.notes.extend(read?);
        for note in &filled.notes {
            progress.say(note);
        }
        Ok(filled)
    }
}

/// One run under way.
struct Filling<'a> {
    work: &'a Work,
    server: &'a ClickHouse,
    asked: &'a Backfill,
    filter: Filter,
    source: &'a LaneRows<'a>,
    history: Option<HistoryTable>,
    epochs: HashMap<Partition, i64>,
    progress: &'a Progress,
    fence: Option<&'a JobFence>,
    /// What is looked at together.
    events: Vec<Located>,
    others: Vec<Located<OtherEvent>>,
    bytes: usize,
    insertion: Option<Insertion<'a>>,
    /// When the events happened that were looked at: rows may be there that a run before did not count.
    happened: Option<(Timestamp, Timestamp)>,
    began: Instant,
    /// When the rollups are counted again.
    count_after: Instant,
    filled: Filled,
}

impl Filling<'_> {
    async fn run(mut self, mut rows: mpsc::Receiver<Row>) -> Result<Filled, BoxError> {
        while let Some(row) = rows.recv().await {
            self.take(row);
            if self.events.len() + self.others.len() >= ROWS_MAX || self.bytes >= BYTES_MAX {
                self.insert().await?;
                self.throttle().await;
            }
            if Instant::now() >= self.count_after {
                self.count().await?;
            }
        }
        self.insert().await?;
        self.count().await?;
        Ok(self.filled)
    }

    fn take(&mut self, row: Row) {
        self.filled.looked_at += 1;
        self.progress.advance(1);
        let bytes = row.bytes();
        match row {
            Row::Event(event) if self.filter.takes(event.event.event_type.as_str(), &event.event.envelope) => {
                self.note_time(event.event.timestamp);
                self.bytes += bytes;
                self.events.push(event);
            }
            Row::Other(event) if self.filter.takes(OTHER_EVENT, &event.event.envelope) => {
                self.note_time(event.event.timestamp);
                self.bytes += bytes;
                self.others.push(event);
            }
            // The lane holds no dead letter.
            Row::Event(_) | Row::Other(_) | Row::Dead(_) => {}
        }
    }

    fn note_time(&mut self, at: Timestamp) {
        let (first, last) = self.happened.unwrap_or((at, at));
        self.happened = Some((first.min(at), last.max(at)));
    }

    /// Inserts those of the rows at hand that are not there.
    async fn insert(&mut self) -> Result<(), BoxError> {
        self.bytes = 0;
        let (mut events, others) = (std::mem::take(&mut self.events), std::mem::take(&mut self.others));
        if !events.is_empty() {
            let stand_ins = (0..events.len()).filter(|n| self.source.is_stand_in(&events[*n])).collect();
            self.place(&mut events).await?;
            let batch = rows::to_batch(events.iter())?;
            let keep = self.missing(&batch, stand_ins).await?;
            self.note_types(events.iter().map(|event| event.event.event_type.as_str()), &keep);
            self.push(&batch, keep).await?;
        }
        if !others.is_empty() {
            let batch = rows::others_to_batch(others.iter())?;
            let keep = self.missing(&batch, Vec::new()).await?;
            self.note_types(others.iter().map(|_| OTHER_EVENT), &keep);
            self.push(&batch, keep).await?;
        }
        Ok(())
    }

    /// Where history has an event that stands in for a record, it has the record's place.
    async fn place(&self, events: &mut [Located]) -> Result<(), BoxError> {
        let Some(table) = &self.history else { return Ok(()) };
        let stand_ins =
            || events.iter().filter(|event| self.source.is_stand_in(event)).map(|event| event.record.offset);
        let (Some(first), Some(last)) = (stand_ins().min(), stand_ins().max()) else { return Ok(()) };
        let places = table.places_of(first, last + 1).await.map_err(|error| {
            format!(
                "history, which may know where records stood, cannot be read (move it aside, if it is lost): {}",
                chain(&error)
            )
        })?;
        for event in events.iter_mut().filter(|event| self.source.is_stand_in(event)) {
            if let Some((partition, offset)) = places.get(&event.record.offset) {
                (event.record.partition, event.record.offset) = (partition.clone(), *offset);
            }
        }
        Ok(())
    }

    /// Which rows of a batch are to be inserted.
    async fn missing(&self, batch: &RecordBatch, stand_ins: Vec<usize>) -> Result<Vec<bool>, BoxError> {
        let places: Vec<Place> = places(batch)?;
        let there = match self.asked.reprocess {
            Reprocess::All => HashSet::new(),
            Reprocess::Missing | Reprocess::Failed => self.server.places_among(batch).await?,
        };
        let mut keep: Vec<bool> = places.iter().map(|place| !there.contains(place)).collect();
        leave_out_copies(self.server, batch, &places, &mut keep).await?;
        leave_out(self.server, batch, &places, &stand_ins, &mut keep).await?;
        Ok(keep)
    }

    fn note_types<'n>(&mut self, names: impl Iterator<Item = &'n str>, keep: &[bool]) {
        for (name, _) in names.zip(keep).filter(|(_, is_kept)| **is_kept) {
            *self.filled.by_type.entry(name.to_owned()).or_default() += 1;
            self.filled.rows += 1;
        }
    }

    async fn push(&mut self, batch: &RecordBatch, keep: Vec<bool>) -> Result<(), BoxError> {
        let batch = filter_record_batch(batch, &BooleanArray::from(keep))?;
        let Some(fence) = self.fence.filter(|_| batch.num_rows() > 0) else { return Ok(()) };
        let insertion = match &mut self.insertion {
            Some(insertion) => insertion,
            None => {
                // A run that was replaced inserts nothing more.
                let mut client = self.work.database.get().await?;
                let transaction = client.transaction().await?;
                fence.hold(&*transaction).await?;
                self.insertion.insert(self.server.insertion())
            }
        };
        let epoch = |partition: &Partition| self.epochs.get(partition).copied().unwrap_or(0);
        insertion.push(&batch, &epoch).await?;
        self.progress.wrote(i64::try_from(batch.num_rows()).unwrap_or(0), 0);
        Ok(())
    }

    /// Sends what waits, and counts the rollups again.
    async fn count(&mut self) -> Result<(), BoxError> {
        if let Some(insertion) = self.insertion.take() {
            let (_, bytes) = insertion.finish().await?;
            self.progress.wrote(0, i64::try_from(bytes).unwrap_or(0));
        }
        failpoint::hit("backfill.before_rollups");
        let began = Instant::now();
        if let (Some(happened), Some(_)) = (self.happened, self.fence) {
            self.server.mend_rollups(happened).await?;
        }
        self.count_after = Instant::now() + ROLLUPS_EVERY.max(ROLLUPS_PAUSE * began.elapsed());
        Ok(())
    }

    /// Waits where rows were written faster than was asked for.
    async fn throttle(&self) {
        let Some(rate) = self.asked.rate.filter(|_| self.fence.is_some()) else { return };
        let due = self.began + Duration::from_millis(self.filled.rows.saturating_mul(1000) / rate);
        tokio::time::sleep_until(due).await;
    }
}
