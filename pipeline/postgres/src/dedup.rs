//! Which records of other services came before: one index of the log, for all lanes. The rule and its edges are in this crate's README.
//!
//! - `part.rs`, `candidate.rs`: what of a batch may be a repeat, and its fingerprint;
//! - `runs.rs`: fingerprints in sorted runs, filters before them;
//! - `store.rs`: spans, runs and verdicts in Postgres;
//! - `merge.rs`: runs merged, and what lies behind the window let go;
//! - `exceptions.rs`: what a lane that left out the first copy counts all the same.
//!
//! Indexing is a transaction of its own under the lock of the index, before the batch's: it is a fact of the log, and no lane's, so a
//! process that was fenced harms nothing. A crash, or a lost reply, leaves a span that is indexed, and whose verdicts are read.

mod candidate;
mod exceptions;
mod filter;
mod known;
mod merge;
mod part;
mod runs;
mod store;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::{Mutex, MutexGuard};
use weir_engine::retry::chain;
use weir_engine::{Batch, Partition, Record, failpoint};

use candidate::Candidate;
pub(crate) use exceptions::LaneView;
use known::Known;
use part::{ACTION, Part, parts};
use runs::Runs;
use store::{Entry, Stretch};

use crate::database::Database;
use crate::error::{DbError, During};
use crate::repeats::Places;

/// The index as one process has it.
#[derive(Debug)]
pub struct DedupIndex {
    /// A copy may be so many records of the log before.
    window: i64,
    state: Mutex<State>,
    is_merging: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    runs: Runs,
    known: Known,
}

impl DedupIndex {
    /// Of a window of so many records.
    #[must_use]
    pub fn new(window: i64) -> Self {
        Self { window, state: Mutex::default(), is_merging: AtomicBool::new(false) }
    }

    async fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().await
    }

    /// The places of records in a batch that a lane leaves out. Whatever of the batch is not in the index is put there first.
    pub(crate) async fn left_out(
        &self,
        database: &Database,
        lane: &LaneView,
        batch: &Batch,
    ) -> Result<Places, DbError> {
        let parts = parts(batch);
        let mut state = self.state().await;
        let repeats = match parts.iter().all(|part| state.known.covers(part)) {
            true => state.known.repeats(&parts),
            false => self.index(database, &mut state, &parts).await?,
        };
        // What was read and holds no candidate needs no place in the index.
        parts.iter().for_each(|part| state.known.extend(part));
        drop(state);
        match parts.iter().all(|part| part.candidates.is_empty()) {
            true => Ok(Places::new()),
            false => lane.of(database, self.window, &parts, repeats).await,
        }
    }

    /// Nothing is known any more: Postgres may have failed over to an older copy.
    pub(crate) async fn forget(&self) {
        let mut state = self.state().await;
        state.known = Known::default();
        state.runs.look_again();
    }

    /// Puts what is missing of these parts into the index; gives the repeats in them.
    async fn index(&self, database: &Database, state: &mut State, parts: &[Part<'_>]) -> Result<Places, DbError> {
        let mut client = database.get().await?;
        let transaction = client.transaction().await.during(ACTION)?;
        let head = store::lock(&transaction).await?;
        state.runs.follow(&transaction, &head, self.window).await?;
        let begins: Vec<i64> = parts.iter().map(|part| state.known.begin(part)).collect();
        let covered = store::covered(&transaction, parts, &begins).await?;
        let (mut stretches, mut number) = (Vec::new(), head.next_number);
        for (part, begin) in parts.iter().zip(begins).filter(|(part, _)| !part.candidates.is_empty()) {
            let none = Vec::new();
            let of_part = covered.get(&part.partition).unwrap_or(&none);
            for (start, end) in gaps(begin, part.end, of_part) {
                if part.candidates.range(start..end).next().is_some() {
                    let partition = part.partition.clone();
                    stretches.push(Stretch { number, partition, start, end, covers: true });
                    number += end - start;
                }
            }
        }
        let mut asked: Vec<(i64, u128, &Candidate<'_>)> = Vec::new();
        for stretch in &stretches {
            let Some(part) = parts.iter().find(|part| part.partition == stretch.partition) else { continue };
            let of_stretch = part.candidates.range(stretch.start..stretch.end);
            asked.extend(of_stretch.map(|(offset, candidate)| {
                (stretch.number + offset - stretch.start, candidate.fingerprint(&head.key), candidate)
            }));
        }
        let fingerprints: Vec<u128> = asked.iter().map(|(_, fingerprint, _)| *fingerprint).collect();
        let mut counted = state.runs.find(&transaction, &fingerprints).await?;
        let (mut entries, mut repeats) = (Vec::new(), Vec::new());
        for (number, fingerprint, candidate) in asked {
            match counted.get(&fingerprint) {
                Some(first) if number - first <= self.window => {
                    tracing::debug!(event_id = candidate.event_id, number, first, "came before");
                    repeats.push((candidate, number, *first));
                }
                _ => {
                    counted.insert(fingerprint, number);
                    entries.push(Entry { fingerprint, number });
                }
            }
        }
        store::insert_stretches(&transaction, &stretches).await?;
        store::insert_repeats(&transaction, "", &repeats).await?;
        let change = state.runs.write(&transaction, entries, &head, number).await?;
        store::advance(&transaction, number, change.generation).await?;
        let verdicts = store::repeats_in(&transaction, parts).await?;
        failpoint::hit("dedup.before_commit");
        transaction.commit().await.during(ACTION)?;
        failpoint::hit("dedup.after_commit");
        state.runs.apply(change);
        let of_partition = |(partition, offsets): (&Partition, &Vec<i64>)| {
            offsets.iter().map(|offset| (partition.clone(), *offset)).collect::<Vec<_>>()
        };
        let repeats = verdicts.iter().flat_map(of_partition).collect();
        state.known.learn(parts, verdicts);
        Ok(repeats)
    }

    /// Whether a record that is tried again, long after the records around it, is a repeat: of whatever was counted within the window.
    /// If not, it is counted from now on.
    pub(crate) async fn is_repeat(
        &self,
        database: &Database,
        lane: &LaneView,
        record: &Record,
    ) -> Result<bool, DbError> {
        let Ok(decoded) = record.decode() else { return Ok(false) };
        let Some(candidate) = Candidate::of_decoded(record, &decoded) else { return Ok(false) };
        let mut state = self.state().await;
        let mut client = database.get().await?;
        let transaction = client.transaction().await.during(ACTION)?;
        let head = store::lock(&transaction).await?;
        state.runs.follow(&transaction, &head, self.window).await?;
        let fingerprint = candidate.fingerprint(&head.key);
        let found = state.runs.find(&transaction, &[fingerprint]).await?;
        let first = found.get(&fingerprint).copied().filter(|first| head.next_number - first <= self.window);
        let place = match first {
            Some(first) => store::place_of(&*transaction, first).await?,
            None => None,
        };
        let (partition, offset) = (&record.partition, record.offset);
        if let Some(first) = first {
            let is_itself = place.as_ref().is_some_and(|(of, at)| of == partition && *at == offset);
            let is_skipped = place.as_ref().is_some_and(|(of, at)| lane.skipped(of, *at));
            if is_itself || (is_skipped && !lane.counts_another(&*transaction, &candidate).await?) {
                return Ok(false);
            }
            // Its own verdict: other lanes may have decoded it when they came to it.
            store::insert_repeats(&transaction, lane.name(), &[(&candidate, head.next_number, first)]).await?;
            transaction.commit().await.during(ACTION)?;
            return Ok(true);
        }
        let number = head.next_number;
        let redriven = Stretch { number, partition: partition.clone(), start: offset, end: offset + 1, covers: false };
        store::insert_stretches(&transaction, &[redriven]).await?;
        let entries = vec![Entry { fingerprint, number }];
        let change = state.runs.write(&transaction, entries, &head, number + 1).await?;
        store::advance(&transaction, number + 1, change.generation).await?;
        transaction.commit().await.during(ACTION)?;
        state.runs.apply(change);
        Ok(false)
    }

    /// What merging left, for the next question whether it is due.
    async fn look_at_runs(&self, database: &Database) -> Result<(), DbError> {
        let mut state = self.state().await;
        let mut client = database.get().await?;
        let transaction = client.transaction().await.during(ACTION)?;
        let head = store::lock(&transaction).await?;
        state.runs.follow(&transaction, &head, self.window).await?;
        state.runs.maintained(Instant::now());
        transaction.commit().await.during(ACTION)
    }

    /// Merges runs and lets go of what the window has passed, in the background, when that is due and no one else is at it.
    pub(crate) async fn maintain(self: &Arc<Self>, database: &Database) {
        let is_due = self.state().await.runs.wants_merging(Instant::now());
        if !is_due || self.is_merging.swap(true, Ordering::AcqRel) {
            return;
        }
        let (index, database) = (self.clone(), database.clone());
        tokio::spawn(async move {
            let merged = async {
                merge::run(&database, index.window).await?;
                index.look_at_runs(&database).await
            };
            if let Err(error) = merged.await {
                tracing::warn!(error = chain(&error), "runs of the index of repeats are not merged yet");
            }
            index.is_merging.store(false, Ordering::Release);
        });
    }
}

/// What of `start..end` is in none of these stretches, which are in order.
fn gaps(start: i64, end: i64, covered: &[(i64, i64)]) -> Vec<(i64, i64)> {
    let (mut gaps, mut at) = (Vec::new(), start);
    for (from, to) in covered {
        if *from > at {
            gaps.push((at, (*from).min(end)));
        }
        at = at.max(*to);
    }
    if at < end {
        gaps.push((at, end));
    }
    gaps.retain(|(from, to)| from < to);
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_covered_is_found() {
        assert_eq!(gaps(5, 20, &[]), [(5, 20)]);
        assert_eq!(gaps(5, 20, &[(0, 20)]), []);
        assert_eq!(gaps(5, 20, &[(0, 7), (9, 12), (11, 13), (18, 30)]), [(7, 9), (13, 18)]);
        assert_eq!(gaps(5, 20, &[(20, 30)]), [(5, 20)]);
        assert_eq!(gaps(5, 20, &[(0, 4), (25, 30)]), [(5, 20)]);
    }
}
