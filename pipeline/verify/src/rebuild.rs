//! What a lane keeps in Postgres made again from whatever it has read: the event store, the topics, and history for what topics hold
//! no longer. The same reader and the same folds as the comparison's, so a rebuild is what `weir verify` expects.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use weir_engine::{BoxError, Located, Partition, Row};
use weir_history::{HistoryError, HistoryTable};
use weir_model::project::{FoldedRow, Units};
use weir_postgres::read_models::Part;
use weir_postgres::rebuild::{Rebuilt, Scratch, Stand, Subject};
use weir_postgres::{DbError, StoredRows};

use crate::expected::{Expected, Walk};
use crate::fold::{Folded, HELD_QUEUE_MAX, HeldEvent, fold_sorted};
use crate::lost::Lost;
use crate::{Cut, Cuts, HISTORY, Sources, Stores, VerifyError};

/// How often it begins again when the lane's dead letters, or the topics' beginnings, changed meanwhile.
const ATTEMPTS_MAX: usize = 5;

/// Items between the reader and the folds, and rows between those and the second copy.
const QUEUE_MAX: usize = 1000;

/// Events that are read and applied together.
const PAGE_MAX: usize = 16_000;

/// Rows written together.
const ROWS_MAX: usize = 2000;

/// Events that several tasks apply.
type Page = Arc<Vec<Located>>;

/// Why nothing was rebuilt. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// Reading failed.
    #[error(transparent)]
    Read(#[from] VerifyError),
    /// Postgres.
    #[error(transparent)]
    Db(#[from] DbError),
    /// History, where it is what is made again.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// Another process is at it.
    #[error("another process rebuilds something already")]
    Busy,
    /// Something that they were made of cannot be read.
    #[error("it cannot be rebuilt, and nothing was changed: {0}")]
    Refused(String),
}

/// How a lane's tables are rebuilt.
#[derive(Debug, Clone, Copy)]
pub struct Rebuilding<'a> {
    /// Which lane's.
    pub subject: Subject,
    /// The units in which producers send durations.
    pub units: Units,
    /// Takes the sort's temporary files.
    pub spill: &'a Path,
    /// Counters may fall.
    pub accepts_reset: bool,
}

/// Rebuilds read models or metrics while they serve.
pub async fn rebuild(stores: Stores<'_>, asked: Rebuilding<'_>) -> Result<Rebuilt, RebuildError> {
    let Rebuilding { subject, units, spill, accepts_reset } = asked;
    let scratch = Scratch::begin(stores.database, subject, units).await?.ok_or(RebuildError::Busy)?;
    let work = Rebuild { stores, subject, scratch: &scratch, units };
    for _ in 0..ATTEMPTS_MAX {
        let before = scratch.stand().await?;
        if !work.fill(&before, spill).await? {
            scratch.clear().await?;
            continue;
        }
        let after = scratch.hold().await?;
        match work.follow(&before, &after).await {
            Ok(true) => return Ok(scratch.take_over(&after, accepts_reset).await?),
            Ok(false) => {}
            Err(error) => {
                scratch.let_go().await?;
                return Err(error);
            }
        }
        scratch.let_go().await?;
        scratch.clear().await?;
    }
    Err(RebuildError::Refused("dead letters or topics change faster than they are read; try again".to_owned()))
}

/// Lets the version before serve again, once it has what the lane did since.
pub async fn roll_back(stores: Stores<'_>, asked: Rebuilding<'_>) -> Result<Rebuilt, RebuildError> {
    let Rebuilding { subject, units, accepts_reset, .. } = asked;
    let begun = Scratch::begin_with_previous(stores.database, subject, units).await?;
    let (scratch, then) = begun.ok_or(RebuildError::Busy)?;
    let work = Rebuild { stores, subject, scratch: &scratch, units };
    // Most of it while the lane goes on.
    let before = scratch.stand().await?;
    let mut is_there = work.follow(&then, &before).await?;
    let after = scratch.hold().await?;
    if is_there {
        is_there = match work.follow(&before, &after).await {
            Ok(is_there) => is_there,
            Err(error) => {
                scratch.let_go().await?;
                return Err(error);
            }
        };
    }
    if is_there {
        return Ok(scratch.take_over(&after, accepts_reset).await?);
    }
    scratch.let_go().await?;
    let words = "dead letters were resolved, the ledger was set back, or topics let go of records since the version before stopped serving: it cannot \
                 catch up. `weir rebuild` makes all of it again";
    Err(RebuildError::Refused(words.to_owned()))
}

/// One rebuild under way.
struct Rebuild<'a> {
    stores: Stores<'a>,
    subject: Subject,
    scratch: &'a Scratch,
    units: Units,
}

impl Rebuild<'_> {
    /// What the lane holds, in the words of the comparison.
    fn cuts(&self, stand: &Stand) -> Cuts {
        let cut = |row: &weir_postgres::LedgerRow| {
            let dead = stand.dead.get(&row.partition).cloned().unwrap_or_default();
            Cut::of(row, dead, stand.repeats.get(&row.partition).cloned().unwrap_or_default())
        };
        stand.ledger.iter().map(|row| ((self.subject.lane(), row.partition.clone()), cut(row))).collect()
    }

    /// Everything that the lane has read, into the second copy. `false` where topics let go of some of it meanwhile.
    async fn fill(&self, stand: &Stand, spill: &Path) -> Result<bool, RebuildError> {
        let cuts = self.cuts(stand);
        let (sources, lost, table) = sources(self.stores, &cuts).await?;
        let (starts, units, database) = (Cuts::new(), self.units, self.stores.database);
        let (sources, lost, table) = (&sources, &lost, table.as_ref());
        let walk = Walk { database, sources, cuts: &cuts, starts: &starts, lost, table, units };
        match self.subject {
            // In the order in which their lane reads them.
            Subject::ReadModels if sources.topics.is_none() && lost.is_empty() => {
                self.apply_event_store(&cuts).await?;
                Ok(true)
            }
            Subject::ReadModels => self.fill_read_models(walk, spill).await,
            Subject::Metrics => self.count(walk).await,
        }
    }

    /// The event store's events one after the other, as the lane does it: nothing has to be sorted. Tables that do not depend on each other are
    /// written by tasks of their own.
    async fn apply_event_store(&self, cuts: &Cuts) -> Result<(), RebuildError> {
        let Some(cut) = cuts.values().max_by_key(|cut| cut.below) else { return Ok(()) };
        let mut stored = StoredRows::open(self.stores.database.clone()).await?;
        let (senders, applying): (Vec<_>, Vec<_>) = Part::ALL.map(|part| self.apply_pages(part)).into_iter().unzip();
        let (mut from, mut page) = (0, Vec::with_capacity(PAGE_MAX));
        let mut is_end = false;
        while !is_end {
            let rows = stored.page(from).await?;
            from = rows.last().map_or(cut.below, |last| last.record().offset + 1);
            let held = rows.into_iter().filter_map(|row| match row {
                Row::Event(event) => Some(event),
                Row::Other(_) | Row::Dead(_) => None,
            });
            page.extend(held.filter(|l| l.record.offset < cut.below && !cut.dead.contains(&l.record.offset)));
            is_end = from >= cut.below;
            if is_end || page.len() >= PAGE_MAX {
                let page = Arc::new(std::mem::take(&mut page));
                for sender in &senders {
                    // A receiver that is gone ended with an error, which is found below.
                    is_end |= sender.send(page.clone()).await.is_err();
                }
            }
        }
        drop(senders);
        for applied in applying {
            applied.await.map_err(|error| RebuildError::Refused(error.to_string()))??;
        }
        Ok(())
    }

    /// A task that applies pages to one part of the tables.
    fn apply_pages(&self, part: Part) -> (mpsc::Sender<Page>, AbortOnDropHandle<Result<(), DbError>>) {
        let (sender, mut pages) = mpsc::channel::<Page>(1);
        let applier = self.scratch.applier(part, self.units);
        let applying = async move {
            while let Some(page) = pages.recv().await {
                applier.apply(&page).await?;
            }
            Ok(())
        };
        (sender, AbortOnDropHandle::new(tokio::spawn(applying)))
    }

    async fn fill_read_models(&self, walk: Walk<'_>, spill: &Path) -> Result<bool, RebuildError> {
        let (units, path) = (self.units, spill.to_owned());
        let (sender, held) = mpsc::channel(HELD_QUEUE_MAX);
        let (rows, folded) = mpsc::channel::<FoldedRow>(QUEUE_MAX);
        let folding = tokio::task::spawn_blocking(move || {
            let mut refused = Vec::new();
            fold_sorted(held, units, path, |folded| match folded {
                Folded::Row(_, row) => rows.blocking_send(*row).is_ok(),
                Folded::Refused(words) => {
                    refused.push(words);
                    true
                }
            })?;
            Ok::<_, std::io::Error>(refused)
        });
        let walking = Expected::walk(walk, sender);
        let (walked, written) = tokio::join!(Box::pin(walking), write(self.scratch, folded));
        let (walked, _) = walked?;
        written?;
        let failed = |source: BoxError| VerifyError::Sort { path: spill.to_owned(), source };
        let refused = folding.await.map_err(|e| failed(e.into()))?.map_err(|e| failed(e.into()))?;
        if refused.is_empty() { Ok(walked.let_go.is_empty()) } else { Err(RebuildError::Refused(refused.join("; "))) }
    }

    /// Counts do not depend on the order, so nothing has to be sorted.
    async fn count(&self, walk: Walk<'_>) -> Result<bool, RebuildError> {
        let (sender, held) = mpsc::channel(1);
        let (expected, _) = Box::pin(Expected::walk(walk, sender)).await?;
        drop(held);
        self.scratch.add(&expected.metrics).await?;
        Ok(expected.let_go.is_empty())
    }

    /// Adds to the second copy what the lane did between `before` and `after`, while the lane is held. `false` where what was read is no
    /// longer so (a dead letter was resolved, the ledger was set back, records are gone): all is to be read again.
    async fn follow(&self, before: &Stand, after: &Stand) -> Result<bool, RebuildError> {
        let (starts, ends) = (self.cuts(before), self.cuts(after));
        for (key, start) in &starts {
            // A dead letter that was resolved meanwhile is in the serving copy alone.
            let Some(end) = ends.get(key) else { return Ok(false) };
            if start.dead.iter().any(|offset| *offset < start.below && !end.dead.contains(offset))
                || end.below < start.below
            {
                return Ok(false);
            }
        }
        let moved = ends.iter().any(|(key, end)| starts.get(key).map_or(0, |start| start.below) < end.below);
        if !moved {
            return Ok(true);
        }
        let (mut sources, lost, _) = sources(self.stores, &ends).await?;
        // The publisher's part is not read again.
        sources.published = 0;
        let is_lost = |((lane, partition), end): (&(&str, Partition), &Cut)| {
            let start = starts.get(&(lane, partition.clone())).map_or(0, |start| start.below);
            start < end.below && lost.holds(partition, start)
        };
        if ends.iter().any(is_lost) {
            return Ok(false);
        }
        // What topics lost before was read; from here on everything is there.
        let nothing = Lost::default();
        let (sources, cuts, lost) = (&sources, &ends, &nothing);
        let (database, units) = (self.stores.database, self.units);
        let walk = Walk { database, sources, cuts, starts: &starts, lost, table: None, units };
        match self.subject {
            Subject::ReadModels => self.apply(walk).await,
            Subject::Metrics => self.count(walk).await,
        }
    }

    async fn apply(&self, walk: Walk<'_>) -> Result<bool, RebuildError> {
        let (sender, held) = mpsc::channel(HELD_QUEUE_MAX);
        let walking = Expected::walk(walk, sender);
        let applying = async {
            // Here, so that an error ends the reading too.
            let mut held = held;
            while let Some(some) = held.recv().await {
                let events: Vec<_> = some.into_iter().map(HeldEvent::located).collect();
                self.scratch.apply(&events, self.units).await?;
            }
            Ok::<_, DbError>(())
        };
        let (walked, applied) = tokio::join!(Box::pin(walking), applying);
        let (walked, _) = walked?;
        applied?;
        Ok(walked.let_go.is_empty())
    }
}

async fn write(scratch: &Scratch, mut folded: mpsc::Receiver<FoldedRow>) -> Result<(), DbError> {
    let mut rows = Vec::with_capacity(ROWS_MAX);
    while folded.recv_many(&mut rows, ROWS_MAX).await > 0 {
        scratch.write(std::mem::take(&mut rows)).await?;
    }
    Ok(())
}

/// Opens what the lane has read. Refuses what cannot be had.
async fn sources(stores: Stores<'_>, cuts: &Cuts) -> Result<(Sources, Lost, Option<HistoryTable>), RebuildError> {
    let mut sources = Sources::open(stores, None).await?;
    let mut words = Vec::new();
    let mut lost = Lost::find(cuts, &sources.event_store, sources.topics.as_ref(), &mut words);
    if !words.is_empty() {
        return Err(RebuildError::Refused(words.join("; ")));
    }
    lost.is_read(cuts).map_err(RebuildError::Refused)?;
    if lost.is_empty() {
        // The event store is read as far as the lane read it itself.
        sources.published = 0;
        return Ok((sources, lost, None));
    }
    lost.find_dead(&**stores.database.get().await?, cuts).await?;
    let table = HistoryTable::open(stores.history).await.map_err(VerifyError::from)?;
    if let Some(words) = missing_in_history(stores, &lost, cuts).await? {
        return Err(RebuildError::Refused(words));
    }
    Ok((sources, lost, table))
}

/// Other services' records that topics hold no longer must all be in history.
async fn missing_in_history(stores: Stores<'_>, lost: &Lost, cuts: &Cuts) -> Result<Option<String>, RebuildError> {
    let of_lane: Vec<Partition> = cuts.keys().map(|(_, partition)| partition.clone()).collect();
    let (_, of_history) = crate::history::history_cuts(stores.database, stores.history, of_lane).await?;
    for ((_, partition), cut) in cuts {
        let gone = lost.gone_below(partition).min(cut.below);
        let kept = of_history.get(partition).map_or(0, |cut| cut.below);
        if kept < gone {
            return Ok(Some(format!(
                "{partition} holds nothing below {gone} any more, and the lane {HISTORY} has it below {kept} only: what other \
                 services sent there is nowhere else"
            )));
        }
    }
    Ok(None)
}
