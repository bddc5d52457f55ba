//! Counted events by fingerprint: the newest in memory, older ones in sorted runs whose blocks stand in Postgres.
//!
//! As in a log-structured merge tree (O'Neil and others, 1996): each batch is a small run of level 0; together they become one of level 1,
//! and [`super::merge`] makes eight of a level one of the next.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use deadpool_postgres::Transaction;

use super::filter::Filter;
use super::store::{self, BLOCK_ENTRIES, Entry, Head, RunRow};
use crate::error::DbError;

/// Entries of level 0 that become a run of level 1.
const RECENT_MAX: usize = 32_768;

/// Runs of level 0 that become one.
const SMALL_MAX: usize = 256;

/// Runs of one level that are merged.
pub(super) const FAN: usize = 8;

/// Spans are joined and let go so often, if runs give no reason to look before.
const MAINTAIN_EVERY: Duration = Duration::from_secs(600);

/// Blocks read or written at once.
pub(super) const BLOCKS_AT_ONCE: usize = 512;

/// What a process has of the runs in memory.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// Of which head; `None`: of nothing.
    generation: Option<i64>,
    window: i64,
    next_number: i64,
    /// All of level 0: fingerprints and numbers.
    recent: HashMap<u128, i64>,
    small: Vec<i64>,
    large: Vec<LargeRun>,
    maintained_at: Option<Instant>,
}

/// Where the blocks of a run begin, and the filter before them.
#[derive(Debug)]
pub(super) struct LargeRun {
    row: RunRow,
    fences: Vec<u128>,
    filter: Filter,
}

/// What a transaction makes of the runs, to be applied once it is committed.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) generation: i64,
    next_number: i64,
    small: Option<i64>,
    added: Vec<Entry>,
    /// All of level 0 went into it.
    flushed: Option<Flushed>,
}

#[derive(Debug)]
enum Flushed {
    Large(LargeRun),
    Small(i64, Vec<Entry>),
}

impl LargeRun {
    /// Collects what stands before the blocks of a run, while they are written or read.
    pub(super) fn builder(entries: usize, window: i64) -> (Vec<u128>, Filter) {
        (Vec::with_capacity(entries.div_ceil(BLOCK_ENTRIES)), Filter::new(entries, window))
    }

    async fn load(transaction: &Transaction<'_>, row: RunRow, window: i64) -> Result<Self, DbError> {
        if let Some((fences, filter)) = store::filter_of(&**transaction, row.run).await?
            && let Some(filter) = Filter::from_bytes(&filter)
        {
            return Ok(Self { row, fences: fences_of(&fences), filter });
        }
        // Written by the migration, which knows no filters.
        let (mut fences, mut filter) = Self::builder(usize::try_from(row.entries).unwrap_or(0), window);
        loop {
            let from = i32::try_from(fences.len()).unwrap_or(i32::MAX);
            let blocks = store::blocks_from(&**transaction, row.run, from, many()).await?;
            for block in &blocks {
                take_block(block, &mut fences, &mut filter);
            }
            if blocks.len() < BLOCKS_AT_ONCE {
                break;
            }
        }
        store::keep_filter(&**transaction, row.run, &bytes_of(&fences), &filter.to_bytes()).await?;
        Ok(Self { row, fences, filter })
    }
}

pub(super) fn many() -> i64 {
    i64::try_from(BLOCKS_AT_ONCE).unwrap_or(1)
}

/// Notes where a block begins, and what is in it.
pub(super) fn take_block(block: &[Entry], fences: &mut Vec<u128>, filter: &mut Filter) {
    fences.extend(block.first().map(|entry| entry.fingerprint));
    block.iter().for_each(|entry| filter.insert(entry.fingerprint));
}

pub(super) fn bytes_of(fences: &[u128]) -> Vec<u8> {
    fences.iter().flat_map(|fence| fence.to_be_bytes()).collect()
}

fn fences_of(bytes: &[u8]) -> Vec<u128> {
    bytes.as_chunks().0.iter().map(|fence| u128::from_be_bytes(*fence)).collect()
}

impl Runs {
    /// Brings what is in memory to what the head says; the caller holds it.
    pub(super) async fn follow(
        &mut self,
        transaction: &Transaction<'_>,
        head: &Head,
        window: i64,
    ) -> Result<(), DbError> {
        self.window = window;
        if self.generation == Some(head.generation) {
            return Ok(());
        }
        // Whatever ends this half way begins again.
        self.generation = None;
        let rows = store::runs(&**transaction).await?;
        self.large.retain(|run| rows.iter().any(|row| row.run == run.row.run));
        if !self.small.iter().all(|run| rows.iter().any(|row| row.run == *run)) {
            self.recent.clear();
            self.small.clear();
        }
        for row in rows {
            if row.level == 0 && !self.small.contains(&row.run) {
                let blocks = usize::try_from(row.entries).unwrap_or(0).div_ceil(BLOCK_ENTRIES);
                let blocks_max = i64::try_from(blocks).unwrap_or(1);
                let blocks = store::blocks_from(&**transaction, row.run, 0, blocks_max).await?;
                blocks.iter().flatten().for_each(|entry| self.remember(*entry));
                self.small.push(row.run);
            } else if row.level > 0 && self.large.iter().all(|run| run.row.run != row.run) {
                self.large.push(LargeRun::load(transaction, row, window).await?);
            }
        }
        (self.generation, self.next_number) = (Some(head.generation), head.next_number);
        Ok(())
    }

    /// Of two copies that were counted, which lie further apart than the window, the newer one stands for the event.
    fn remember(&mut self, entry: Entry) {
        let number = self.recent.entry(entry.fingerprint).or_insert(entry.number);
        *number = (*number).max(entry.number);
    }

    /// The numbers under which these were counted last.
    pub(super) async fn find(
        &self,
        transaction: &Transaction<'_>,
        fingerprints: &[u128],
    ) -> Result<HashMap<u128, i64>, DbError> {
        let (mut found, mut asked, mut wanted) = (HashMap::new(), Vec::new(), Vec::new());
        for fingerprint in fingerprints {
            if let Some(number) = self.recent.get(fingerprint) {
                found.insert(*fingerprint, *number);
                continue;
            }
            for run in self.large.iter().filter(|run| run.filter.may_hold(*fingerprint)) {
                let before = run.fences.partition_point(|fence| fence <= fingerprint);
                let Some(block) = before.checked_sub(1).and_then(|block| i32::try_from(block).ok()) else { continue };
                asked.push((*fingerprint, (run.row.run, block)));
                wanted.push((run.row.run, block));
            }
        }
        wanted.sort_unstable();
        wanted.dedup();
        let blocks = store::blocks(transaction, &wanted).await?;
        for (fingerprint, place) in asked {
            let Some(block) = blocks.get(&place) else { continue };
            let Ok(at) = block.binary_search_by_key(&fingerprint, |entry| entry.fingerprint) else { continue };
            let number = found.entry(fingerprint).or_insert(block[at].number);
            *number = (*number).max(block[at].number);
        }
        Ok(found)
    }

    /// Writes newly counted events; the caller's transaction also raises the head to `next_number`.
    pub(super) async fn write(
        &self,
        transaction: &Transaction<'_>,
        mut entries: Vec<Entry>,
        head: &Head,
        next_number: i64,
    ) -> Result<Change, DbError> {
        let mut change =
            Change { generation: head.generation, next_number, small: None, added: Vec::new(), flushed: None };
        if entries.is_empty() {
            return Ok(change);
        }
        change.generation = store::draw();
        let run = store::draw();
        if self.recent.len() + entries.len() < RECENT_MAX && self.small.len() < SMALL_MAX {
            entries.sort_unstable();
            write_blocks(transaction, run, &entries, |_| ()).await?;
            store::insert_run(&**transaction, &row(run, 0, &entries)).await?;
            (change.small, change.added) = (Some(run), entries);
            return Ok(change);
        }
        let mut all = self.recent.clone();
        all.extend(entries.iter().map(|entry| (entry.fingerprint, entry.number)));
        let forgotten = next_number - self.window;
        let all = all.into_iter().filter(|(_, number)| *number >= forgotten);
        let mut all: Vec<Entry> = all.map(|(fingerprint, number)| Entry { fingerprint, number }).collect();
        all.sort_unstable();
        store::delete_runs(&**transaction, &self.small).await?;
        store::delete_blocks(&**transaction, &self.small).await?;
        if all.len() < RECENT_MAX {
            write_blocks(transaction, run, &all, |_| ()).await?;
            store::insert_run(&**transaction, &row(run, 0, &all)).await?;
            change.flushed = Some(Flushed::Small(run, all));
            return Ok(change);
        }
        let (mut fences, mut filter) = LargeRun::builder(all.len(), self.window);
        write_blocks(transaction, run, &all, |block| take_block(block, &mut fences, &mut filter)).await?;
        let row = row(run, 1, &all);
        store::insert_run(&**transaction, &row).await?;
        store::keep_filter(&**transaction, run, &bytes_of(&fences), &filter.to_bytes()).await?;
        change.flushed = Some(Flushed::Large(LargeRun { row, fences, filter }));
        Ok(change)
    }

    /// The transaction is committed.
    pub(super) fn apply(&mut self, change: Change) {
        (self.generation, self.next_number) = (Some(change.generation), change.next_number);
        self.small.extend(change.small);
        change.added.into_iter().for_each(|entry| self.remember(entry));
        if let Some(flushed) = change.flushed {
            self.recent.clear();
            self.small.clear();
            match flushed {
                Flushed::Large(run) => self.large.push(run),
                Flushed::Small(run, entries) => {
                    self.small.push(run);
                    entries.into_iter().for_each(|entry| self.remember(entry));
                }
            }
        }
    }

    /// The set of runs may be another one than it was.
    pub(super) fn look_again(&mut self) {
        self.generation = None;
    }

    /// Merging was done.
    pub(super) fn maintained(&mut self, now: Instant) {
        self.maintained_at = Some(now);
    }

    /// Whether runs are to be merged, or hold nothing within the window, or it is time to look.
    pub(super) fn wants_merging(&mut self, now: Instant) -> bool {
        if now.duration_since(*self.maintained_at.get_or_insert(now)) >= MAINTAIN_EVERY {
            return true;
        }
        let rows: Vec<&RunRow> = self.large.iter().map(|run| &run.row).collect();
        to_merge(&rows).is_some() || rows.iter().any(|row| row.newest < self.next_number - self.window)
    }
}

/// The runs of the lowest level that has enough of them.
pub(super) fn to_merge<'a>(rows: &[&'a RunRow]) -> Option<Vec<&'a RunRow>> {
    let levels = rows.iter().map(|row| row.level).filter(|level| *level > 0);
    let mut levels: Vec<i32> = levels.collect();
    levels.sort_unstable();
    levels.dedup();
    let of = |level: i32| rows.iter().copied().filter(move |row| row.level == level);
    levels.into_iter().find(|level| of(*level).count() >= FAN).map(|level| of(level).collect())
}

fn row(run: i64, level: i32, entries: &[Entry]) -> RunRow {
    let newest = entries.iter().map(|entry| entry.number).max().unwrap_or(0);
    RunRow { run, level, entries: i64::try_from(entries.len()).unwrap_or(i64::MAX), newest }
}

async fn write_blocks(
    transaction: &Transaction<'_>,
    run: i64,
    entries: &[Entry],
    mut take: impl FnMut(&[Entry]),
) -> Result<(), DbError> {
    let mut first = 0;
    for some in entries.chunks(BLOCKS_AT_ONCE * BLOCK_ENTRIES) {
        store::insert_blocks(&**transaction, run, first, some).await?;
        some.chunks(BLOCK_ENTRIES).for_each(&mut take);
        first += i32::try_from(some.len().div_ceil(BLOCK_ENTRIES)).unwrap_or(0);
    }
    Ok(())
}
