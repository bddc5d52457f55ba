//! `backfill-clickhouse`: the rows of history that ClickHouse lacks, slice by slice, beside the live lane.
//!
//! 1. cut the range into slices by when rows were recorded, each of a bounded number of rows, with absolute bounds;
//! 2. of a slice, ask ClickHouse which places it holds, and take from history the rows at the others: not those that the live lane will come to
//!    (from its ledger offset on), and not its dead letters;
//! 3. of events of other services, leave out those whose id is there under another place: lanes may have chosen different copies;
//! 4. insert them under their own coordinates;
//! 5. note the slice, if this run is the job's last one;
//! 6. once a minute and at the end, count the rollups again, and write the sums that are not so.
//!
//! A crash anywhere repeats a slice, whose rows are the same rows under the sort key of the table.

use std::collections::{HashMap, HashSet};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Int64Type;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use tokio::sync::Mutex;
use tokio::time::{Duration, Instant};
use weir_clickhouse::{ClickHouse, Rebuild};
use weir_engine::{BoxError, LaneKind, Partition, failpoint};
use weir_history::{Filter, HistoryTable, Place, Stretch, places};
use weir_model::Timestamp;
use weir_postgres::dead_letters;
use weir_postgres::job_run::{JobFence, Progress};
use weir_postgres::job_runs::{self, Outcome};

use super::Work;
use super::backfill_asked::{Backfill, Reprocess, SliceLength};
use super::copies::{leave_out, leave_out_copies};
use super::lane::Lane;

/// Without the table that is read where nothing else is said.
const NO_HISTORY: &str =
    "there is no history to fill ClickHouse from: --source events or --source kafka reads what the lane itself read";

/// Rows of a slice at most, where the minute is not fuller than that: what ClickHouse holds of it is in memory once.
const SLICE_ROWS: u64 = 250_000;

/// How long rollups wait for rows that are inserted; and however long counting takes, so many times that.
pub(super) const ROLLUPS_EVERY: Duration = Duration::from_secs(60);
pub(super) const ROLLUPS_PAUSE: u32 = 19;

/// Neighbouring stretches together, as long as they are short and small enough.
fn slices(stretches: Vec<Stretch>, length_max: Option<SliceLength>) -> Vec<Stretch> {
    let length_max = length_max.map_or(i64::MAX, SliceLength::millis);
    let mut slices: Vec<Stretch> = Vec::new();
    for next in stretches {
        match slices.last_mut() {
            Some(last)
                if last.rows + next.rows <= SLICE_ROWS && next.to.as_millis() - last.from.as_millis() <= length_max =>
            {
                last.to = next.to;
                last.rows += next.rows;
                last.happened = (last.happened.0.min(next.happened.0), last.happened.1.max(next.happened.1));
            }
            _ => slices.push(next),
        }
    }
    slices
}

/// A slice that is filled.
struct Slice {
    rows: i64,
    bytes: i64,
    /// Records of dead letters that are inserted now.
    mended: Vec<Place>,
}

/// What the rollups do not know yet.
pub(super) struct Rollups {
    /// When it happened, the first and the last: of all slices, since rows may be there that a run before did not count.
    happened: Option<(Timestamp, Timestamp)>,
    count_after: Instant,
}

impl Rollups {
    pub(super) fn of(slices: &[Stretch]) -> Self {
        let happened = slices.iter().map(|slice| slice.happened).reduce(together);
        Self { happened, count_after: Instant::now() + ROLLUPS_EVERY }
    }

    fn widen(&mut self, happened: Option<(Timestamp, Timestamp)>) {
        self.happened = self.happened.into_iter().chain(happened).reduce(together);
    }

    async fn count(&mut self, server: &ClickHouse) -> Result<(), BoxError> {
        let began = Instant::now();
        if let Some(happened) = self.happened {
            server.mend_rollups(happened).await?;
        }
        self.count_after = Instant::now() + ROLLUPS_EVERY.max(ROLLUPS_PAUSE * began.elapsed());
        Ok(())
    }
}

fn together(a: (Timestamp, Timestamp), b: (Timestamp, Timestamp)) -> (Timestamp, Timestamp) {
    (a.0.min(b.0), a.1.max(b.1))
}

/// One backfill under way.
pub(super) struct Run<'a> {
    pub(super) work: &'a Work,
    pub(super) server: &'a ClickHouse,
    pub(super) asked: &'a Backfill,
    pub(super) filter: Filter,
    /// History, of which each slice reads the last commit.
    pub(super) table: Mutex<HistoryTable>,
    pub(super) lane: Lane,
    pub(super) began: Instant,
    pub(super) rollups: Mutex<Rollups>,
    /// The new table, where all is made again; else what serves is filled.
    pub(super) into: Option<&'a Rebuild<'a>>,
}

impl Work {
    /// The slices of a backfill, in the order in which they are worked on; and how many rows there are.
    pub(crate) async fn backfill_plan(&self, asked: &Backfill) -> Result<(Vec<Stretch>, u64), BoxError> {
        let filter = asked.filter()?;
        let Some(table) = HistoryTable::open(&self.history).await? else {
            return Err(NO_HISTORY.into());
        };
        let mut stretches = Vec::new();
        for hour in table.stretches(&filter, "hour").await? {
            if hour.rows <= SLICE_ROWS {
                stretches.push(hour);
                continue;
            }
            let within = Filter {
                from: Some(hour.from.max(filter.from.unwrap_or(hour.from))),
                to: Some(hour.to.min(filter.to.unwrap_or(hour.to))),
                ..filter.clone()
            };
            stretches.extend(table.stretches(&within, "minute").await?);
        }
        if stretches.is_empty() {
            return Err(format!("history holds nothing of that range{}", held(&table).await?).into());
        }
        // The range's own ends, where they are within a slice.
        for stretch in &mut stretches {
            stretch.from = stretch.from.max(filter.from.unwrap_or(stretch.from));
            stretch.to = stretch.to.min(filter.to.unwrap_or(stretch.to));
        }
        let mut slices = slices(stretches, asked.slice);
        if asked.newest_first {
            slices.reverse();
        }
        let rows = slices.iter().map(|slice| slice.rows).sum();
        Ok((slices, rows))
    }

    pub(super) async fn backfill_clickhouse(
        &self,
        asked: &Backfill,
        progress: &Progress,
        fence: &JobFence,
    ) -> Result<(Outcome, String), BoxError> {
        let server = self.clickhouse.as_ref().ok_or("there is no ClickHouse: set clickhouse.url")?;
        if let Some(from) = asked.fill_from() {
            let filled = Box::pin(self.fill_clickhouse(asked, from, progress, Some(fence))).await?;
            return Ok((Outcome::Ok, format!("{} rows inserted; {} looked at", filled.rows, filled.looked_at)));
        }
        let (slices, rows) = self.backfill_plan(asked).await?;
        server.migrate(&self.database).await?;
        let plan = asked.plan(&server.table_id().await?.unwrap_or_default());
        let client = self.database.get().await?;
        let done: HashMap<String, i64> = job_runs::slices_done(&**client, &plan).await?.into_iter().collect();
        drop(client);
        progress.expect(i64::try_from(slices.len()).ok(), "slices");
        if !done.is_empty() && asked.reprocess != Reprocess::Missing {
            progress.say(&format!("{} slices were done by an earlier run", done.len()));
        }
        let lane = self.clickhouse_lane().await?;
        if lane.next_offsets.is_empty() {
            let words = "the lane clickhouse has read nothing yet, and would come to all of it: start it once (`weir up`, or `weir run \
                         clickhouse`), then fill what it cannot read any more";
            return Err(words.into());
        }
        let (filter, began) = (asked.filter()?, Instant::now());
        let (table, rollups) = (self.history_table().await?, Mutex::new(Rollups::of(&slices)));
        let run = Run { work: self, server, asked, filter, table, lane, began, rollups, into: None };
        let concurrency = asked.concurrency.unwrap_or(1);
        // Boxed: the compiler cannot see otherwise that they may move between threads.
        let work: Vec<BoxFuture<'_, Result<(), BoxError>>> =
            slices.iter().map(|slice| run.fill(slice, &done, &plan, (fence, progress)).boxed()).collect();
        let filled = futures::stream::iter(work).buffer_unordered(concurrency).try_collect::<Vec<()>>().await;
        failpoint::hit("backfill.before_rollups");
        // Of what was inserted before something failed, too.
        let counted = run.rollups.lock().await.count(server).await;
        filled?;
        counted?;
        let client = self.database.get().await?;
        let written: i64 = job_runs::slices_done(&**client, &plan).await?.iter().map(|(_, rows)| rows).sum();
        job_runs::forget_slices(&**client, &plan).await?;
        Ok((
            Outcome::Ok,
            format!("{written} rows inserted; {} slices of {rows} rows in history looked at", slices.len()),
        ))
    }

    pub(super) async fn history_table(&self) -> Result<Mutex<HistoryTable>, BoxError> {
        Ok(Mutex::new(HistoryTable::open(&self.history).await?.ok_or("history is gone")?))
    }
}

/// Where history begins and ends, for people.
async fn held(table: &HistoryTable) -> Result<String, BoxError> {
    let all = table.stretches(&Filter::default(), "hour").await?;
    Ok(match (all.first(), all.last()) {
        (Some(first), Some(last)) => format!(": it has what was recorded from {} to {}", first.from, last.to),
        _ => ": it is empty".to_owned(),
    })
}

impl Run<'_> {
    /// Fills one slice, if no earlier run did, and notes it.
    async fn fill(
        &self,
        slice: &Stretch,
        done: &HashMap<String, i64>,
        plan: &str,
        (fence, progress): (&JobFence, &Progress),
    ) -> Result<(), BoxError> {
        let name = format!("{} {}", slice.from, slice.to);
        // What is missing is looked for again: it may have been lost since the slice was noted.
        if self.asked.reprocess == Reprocess::Missing || !done.contains_key(&name) {
            let filled = self.slice(slice, progress).await?;
            if !filled.mended.is_empty() {
                // Once they are no dead letters any more, no run looks at them again.
                self.rollups.lock().await.count(self.server).await?;
            }
            failpoint::hit("backfill.before_slice");
            self.note(fence, plan, &name, &filled).await?;
            failpoint::hit("backfill.after_slice");
            self.follow_with_rollups().await?;
        }
        progress.advance(1);
        Ok(())
    }

    /// Rows that were inserted stand in the rollups a minute later.
    async fn follow_with_rollups(&self) -> Result<(), BoxError> {
        // One slice does it for all.
        let Ok(mut rollups) = self.rollups.try_lock() else { return Ok(()) };
        if Instant::now() >= rollups.count_after {
            rollups.count(self.server).await?;
        }
        Ok(())
    }

    /// Fills one slice of a new table.
    pub(super) async fn fill_new(&self, slice: &Stretch, progress: &Progress) -> Result<(), BoxError> {
        self.slice(slice, progress).await?;
        progress.advance(1);
        Ok(())
    }

    /// Fills one slice.
    async fn slice(&self, slice: &Stretch, progress: &Progress) -> Result<Slice, BoxError> {
        let there = match self.asked.reprocess {
            // Of all rows, those that stand in for records.
            Reprocess::Missing | Reprocess::All if self.into.is_none() => {
                self.server.places_in(slice, &self.filter).await?
            }
            Reprocess::Missing | Reprocess::Failed | Reprocess::All => HashSet::new(),
        };
        let filter = Filter { from: Some(slice.from), to: Some(slice.to), ..self.filter.clone() };
        let mut rows = {
            let mut table = self.table.lock().await;
            table.refresh().await?;
            table.rows(&filter).await?
        };
        let mut insertion = self.into.map_or_else(|| self.server.insertion(), Rebuild::insertion);
        let mut mended = Vec::new();
        let epoch = |partition: &Partition| self.lane.epochs.get(partition).copied().unwrap_or(0);
        while let Some(batch) = rows.try_next().await? {
            let batch = self.wanted(&batch, &there).await?;
            if self.asked.reprocess == Reprocess::Failed {
                mended.extend(places(&batch)?);
            }
            insertion.push(&batch, &epoch).await?;
            let count = i64::try_from(batch.num_rows()).unwrap_or(0);
            progress.wrote(count, 0);
            self.throttle(progress).await;
        }
        let happened = insertion.happened;
        let (rows, bytes) = insertion.finish().await?;
        self.rollups.lock().await.widen(happened);
        progress.wrote(0, i64::try_from(bytes).unwrap_or(0));
        let done = Slice { rows: i64::try_from(rows)?, bytes: i64::try_from(bytes)?, mended };
        Ok(done)
    }

    /// The rows of a batch that are to be inserted.
    async fn wanted(&self, batch: &RecordBatch, there: &HashSet<Place>) -> Result<RecordBatch, BoxError> {
        let places = places(batch)?;
        let positions = batch.column_by_name("position").ok_or("position is missing")?.as_primitive::<Int64Type>();
        let mut keep: Vec<bool> = places
            .iter()
            .zip(positions)
            .map(|(place, position)| {
                let is_dead = self.lane.dead.contains(place);
                // An event that stood in for the record when topics held that no longer, and history did not know where it had been.
                let stands_in = position
                    .and_then(|offset| self.lane.stand_in(offset))
                    .is_some_and(|at| at != *place && there.contains(&at));
                let is_wanted = match self.asked.reprocess {
                    Reprocess::Missing => !is_dead && !there.contains(place),
                    Reprocess::Failed => is_dead,
                    Reprocess::All => !is_dead,
                };
                is_wanted && !stands_in && self.lane.is_ours(place)
            })
            .collect();
        let stand_ins: Vec<usize> = (0..places.len()).filter(|n| self.lane.is_stand_in(&places[*n])).collect();
        leave_out(self.server, batch, &places, &stand_ins, &mut keep).await?;
        leave_out_copies(self.server, batch, &places, &mut keep).await?;
        Ok(filter_record_batch(batch, &BooleanArray::from(keep))?)
    }

    /// Waits where rows were written faster than was asked for.
    async fn throttle(&self, progress: &Progress) {
        let Some(rate) = self.asked.rate else { return };
        let written = u64::try_from(progress.standing().rows).unwrap_or(0);
        let due = self.began + Duration::from_millis(written.saturating_mul(1000) / rate);
        tokio::time::sleep_until(due).await;
    }

    /// Notes a slice, if this run is the job's last one.
    async fn note(&self, fence: &JobFence, plan: &str, name: &str, filled: &Slice) -> Result<(), BoxError> {
        let mut client = self.work.database.get().await?;
        let transaction = client.transaction().await?;
        fence.hold(&*transaction).await?;
        for Place { partition, offset } in &filled.mended {
            dead_letters::resolve_at(&*transaction, LaneKind::ClickHouse.name(), (partition, *offset)).await?;
        }
        job_runs::slice_done(&*transaction, plan, name, filled.rows, filled.bytes).await?;
        transaction.commit().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis).expect("a time")
    }

    #[test]
    fn slices_are_of_a_bounded_number_of_rows_and_no_longer_than_was_asked_for() {
        const HOUR: i64 = 3_600_000;
        let hour =
            |n: i64, rows| Stretch { from: at(n * HOUR), to: at((n + 1) * HOUR), rows, happened: (at(n), at(n)) };
        let hours = vec![hour(0, 100), hour(5, 100), hour(23, 100), hour(24, 100), hour(25, 249_950), hour(26, 60)];
        let whole: Vec<u64> = slices(hours.clone(), None).iter().map(|slice| slice.rows).collect();
        assert_eq!(whole, [400, 249_950, 60]);
        let made = slices(hours, Some(SliceLength::Day));
        let bounds: Vec<(i64, i64, u64)> =
            made.iter().map(|slice| (slice.from.as_millis() / HOUR, slice.to.as_millis() / HOUR, slice.rows)).collect();
        assert_eq!(bounds, [(0, 24, 300), (24, 25, 100), (25, 26, 249_950), (26, 27, 60)]);
        assert_eq!(made[0].happened, (at(0), at(23)));
    }
}
