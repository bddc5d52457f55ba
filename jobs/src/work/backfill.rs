//! `backfill-clickhouse`: the rows of history that ClickHouse lacks, slice by slice, beside the live lane.
//!
//! 1. cut the range into slices by when rows were recorded, each of a bounded number of rows, with absolute bounds;
//! 2. of a slice, ask ClickHouse which places it holds, and take from history the rows at the others: not those that the live lane will come to
//!    (from its ledger offset on), and not its dead letters;
//! 3. of events of other services, leave out those whose id is there under another place: lanes may have chosen different copies;
//! 4. insert them under their own coordinates, and compute the rollups of their minutes again;
//! 5. note the slice, if this run is the job's last one.
//!
//! A crash anywhere repeats a slice, whose rows are the same rows under the sort key of the table.

use std::collections::{HashMap, HashSet};

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Int64Type;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use tokio::time::{Duration, Instant};
use weir_clickhouse::{ClickHouse, Rebuild};
use weir_engine::{BoxError, LaneKind, Partition, failpoint};
use weir_history::{Filter, HistoryTable, Place, Stretch, places};
use weir_model::{EventType, OTHER_EVENT};
use weir_postgres::job_run::{JobFence, Progress};
use weir_postgres::job_runs::{self, Outcome};
use weir_postgres::{Ledger, dead_letters};
use weir_query::moment;
use weir_verify::Fill;

use super::Work;

/// Rows of a slice at most, where the minute is not fuller than that: what ClickHouse holds of it is in memory once.
const SLICE_ROWS: u64 = 250_000;

/// How long a slice is at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SliceLength {
    /// An hour
    Hour,
    /// A day
    Day,
    /// Seven days
    Week,
    /// Thirty days
    Month,
}

impl SliceLength {
    fn millis(self) -> i64 {
        const HOUR: i64 = 3_600_000;
        match self {
            Self::Hour => HOUR,
            Self::Day => 24 * HOUR,
            Self::Week => 7 * 24 * HOUR,
            Self::Month => 30 * 24 * HOUR,
        }
    }
}

/// Which rows are inserted again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reprocess {
    /// Those that are not there
    #[default]
    Missing,
    /// The lane's dead letters that history holds
    Failed,
    /// Every row, as this build reads it
    All,
}

/// What was asked for, as it is kept with the run.
#[derive(Debug, Clone, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Backfill {
    /// Recorded at or after.
    pub(crate) from: Option<String>,
    /// Recorded before.
    pub(crate) to: Option<String>,
    /// Of these types only.
    pub(crate) event_types: Vec<String>,
    /// Of this tenant only.
    pub(crate) tenant: Option<String>,
    pub(crate) reprocess: Reprocess,
    /// How long a slice is at most; `None` for as long as its rows are few enough.
    pub(crate) slice: Option<SliceLength>,
    /// Slices at a time.
    pub(crate) concurrency: Option<usize>,
    /// Rows a second at most.
    pub(crate) rate: Option<u64>,
    pub(crate) newest_first: bool,
}

impl Backfill {
    /// What is wrong with it, before anything is touched.
    pub(crate) fn filter(&self) -> Result<Filter, BoxError> {
        let positions = |text: &Option<String>| text.as_ref().and_then(|text| text.parse::<i64>().ok());
        let (from_position, below_position) = (positions(&self.from), positions(&self.to));
        if let (Some(from), Some(below)) = (from_position, below_position)
            && from >= below
        {
            return Err(format!(
                "the range from position {from} to {below} is empty: --to is the first that is left out"
            )
            .into());
        }
        let at = |name: &str, text: &Option<String>| {
            let times = text.as_ref().filter(|text| text.parse::<i64>().is_err());
            times
                .map(|text| {
                    moment(text).map_err(|error| format!("--{name} {text}: {error}, or a position in the event store"))
                })
                .transpose()
        };
        let (from, to) = (at("from", &self.from)?, at("to", &self.to)?);
        if let (Some(from), Some(to)) = (from, to)
            && from >= to
        {
            return Err(
                format!("the range from {from} to {to} is empty: --to is the first moment that is left out").into()
            );
        }
        for name in &self.event_types {
            if name != OTHER_EVENT && name.parse::<EventType>().is_err() {
                let known: Vec<&str> = EventType::ALL.iter().map(|known| known.as_str()).collect();
                return Err(format!(
                    "--event-type {name}: there are {}, and {OTHER_EVENT} for all others",
                    known.join(", ")
                )
                .into());
            }
        }
        if self.concurrency == Some(0) || self.rate == Some(0) {
            return Err("--concurrency and --rate are at least 1".into());
        }
        let (event_types, tenant) = (self.event_types.clone(), self.tenant.clone());
        Ok(Filter { from, to, from_position, below_position, event_types, tenant })
    }

    /// The same of history, whose sources are read from end to end.
    pub(crate) fn fill(&self) -> Result<Fill, BoxError> {
        let filter = self.filter()?;
        if self.reprocess != Reprocess::Missing {
            return Err(
                "history is filled with what is missing only; `weir rebuild history` writes all of it again".into()
            );
        }
        if self.concurrency.is_some_and(|n| n > 1) || self.newest_first {
            return Err(
                "history is filled in the order of its sources: without --concurrency and --newest-first".into()
            );
        }
        Ok(Fill::Missing(filter))
    }

    /// A name for what was asked for, of this table: how fast and in which order does not matter.
    fn plan(&self, table: &str) -> String {
        let said = Self { concurrency: None, rate: None, newest_first: false, ..self.clone() };
        let text = serde_json::to_string(&said).unwrap_or_default() + table;
        format!("backfill-clickhouse {}", hex::encode(&Sha256::digest(text.as_bytes())[..16]))
    }
}

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

/// What the lane itself will see to, and what it could not insert.
pub(super) struct Lane {
    pub(super) next_offsets: HashMap<Partition, i64>,
    epochs: HashMap<Partition, i64>,
    pub(super) dead: HashSet<Place>,
}

/// A slice that is filled.
struct Slice {
    rows: i64,
    bytes: i64,
    /// Records of dead letters that are inserted now.
    mended: Vec<Place>,
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
    /// The new table, where all is made again; else what serves is filled.
    pub(super) into: Option<&'a Rebuild<'a>>,
}

impl Work {
    /// The slices of a backfill, in the order in which they are worked on; and how many rows there are.
    pub(crate) async fn backfill_plan(&self, asked: &Backfill) -> Result<(Vec<Stretch>, u64), BoxError> {
        let filter = asked.filter()?;
        let Some(table) = HistoryTable::open(&self.history).await? else {
            return Err("there is no history to fill ClickHouse from".into());
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
        let run =
            Run { work: self, server, asked, filter, table: self.history_table().await?, lane, began, into: None };
        let concurrency = asked.concurrency.unwrap_or(1);
        // Boxed: the compiler cannot see otherwise that they may move between threads.
        let work: Vec<BoxFuture<'_, Result<(), BoxError>>> =
            slices.iter().map(|slice| run.fill(slice, &done, &plan, (fence, progress)).boxed()).collect();
        futures::stream::iter(work).buffer_unordered(concurrency).try_collect::<Vec<()>>().await?;
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

    pub(super) async fn clickhouse_lane(&self) -> Result<Lane, BoxError> {
        let client = self.database.get().await?;
        let name = LaneKind::ClickHouse.name();
        let rows = Ledger::rows(&**client).await?;
        let (mut next_offsets, mut epochs) = (HashMap::new(), HashMap::new());
        for row in rows.into_iter().filter(|row| row.lane == name) {
            if let Some(next) = row.next_offset {
                next_offsets.insert(row.partition.clone(), next);
            }
            epochs.insert(row.partition, row.epoch);
        }
        let dead = dead_letters::places(&**client, name).await?;
        let dead = dead.into_iter().map(|(partition, offset)| Place { partition, offset }).collect();
        Ok(Lane { next_offsets, epochs, dead })
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
            failpoint::hit("backfill.before_slice");
            self.note(fence, plan, &name, &filled).await?;
            failpoint::hit("backfill.after_slice");
        }
        progress.advance(1);
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
            Reprocess::Missing => self.server.places_in(slice, &self.filter).await?,
            Reprocess::Failed | Reprocess::All => HashSet::new(),
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
        failpoint::hit("backfill.before_rollups");
        let (rows, bytes) = insertion.finish().await?;
        progress.wrote(0, i64::try_from(bytes).unwrap_or(0));
        let done = Slice { rows: i64::try_from(rows)?, bytes: i64::try_from(bytes)?, mended };
        Ok(done)
    }

    /// The rows of a batch that are to be inserted.
    async fn wanted(&self, batch: &RecordBatch, there: &HashSet<Place>) -> Result<RecordBatch, BoxError> {
        let places = places(batch)?;
        let is_ours =
            |place: &Place| self.lane.next_offsets.get(&place.partition).is_some_and(|next| place.offset < *next);
        let mut keep: Vec<bool> = places
            .iter()
            .map(|place| {
                let is_dead = self.lane.dead.contains(place);
                let is_wanted = match self.asked.reprocess {
                    Reprocess::Missing => !is_dead && !there.contains(place),
                    Reprocess::Failed => is_dead,
                    Reprocess::All => !is_dead,
                };
                is_wanted && is_ours(place)
            })
            .collect();
        self.leave_out_copies(batch, &places, &mut keep).await?;
        Ok(filter_record_batch(batch, &BooleanArray::from(keep))?)
    }

    /// Of other services' events the lane may hold another copy than history does.
    async fn leave_out_copies(&self, batch: &RecordBatch, places: &[Place], keep: &mut [bool]) -> Result<(), BoxError> {
        let column = |name: &str| batch.column_by_name(name).ok_or_else(|| format!("{name} is missing"));
        let positions = column("position")?.as_primitive::<Int64Type>();
        let (tenants, ids) = (column("tenant")?.as_string::<i32>(), column("event_id")?.as_string::<i32>());
        let key = |row: usize| (tenants.value(row).to_owned(), ids.value(row).to_owned());
        let foreign: Vec<usize> = (0..batch.num_rows()).filter(|row| keep[*row] && positions.is_null(*row)).collect();
        if foreign.is_empty() {
            return Ok(());
        }
        let keys: Vec<(String, String)> = foreign.iter().map(|row| key(*row)).collect();
        let there = self.server.ids_there(&keys).await?;
        for row in foreign {
            let is_elsewhere = |held: &HashSet<Place>| held.iter().any(|place| *place != places[row]);
            if there.get(&key(row)).is_some_and(is_elsewhere) {
                keep[row] = false;
            }
        }
        Ok(())
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

    fn at(millis: i64) -> weir_model::Timestamp {
        weir_model::Timestamp::from_millis(millis).expect("a time")
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

    #[test]
    fn bad_ranges_are_refused_in_words() {
        let refused = |asked: Backfill| asked.filter().expect_err("refused").to_string();
        let some = |text: &str| Some(text.to_owned());
        let reversed = Backfill { from: some("2024-02-01"), to: some("2024-01-01"), ..Backfill::default() };
        assert!(refused(reversed).contains("is empty"));
        let wrong = Backfill { from: some("yesterday"), ..Backfill::default() };
        assert!(refused(wrong).contains("write 2024-01-31"));
        let unknown = Backfill { event_types: vec!["Nothing".to_owned()], ..Backfill::default() };
        assert!(refused(unknown).contains("TaskCompleted"));
    }

    #[test]
    fn the_plan_is_what_is_filled_not_how_fast() {
        let asked = Backfill { from: Some("2024-01-01".to_owned()), ..Backfill::default() };
        let slower = Backfill { rate: Some(5), newest_first: true, ..asked.clone() };
        assert_eq!(asked.plan("a table"), slower.plan("a table"));
        assert_ne!(asked.plan("a table"), Backfill::default().plan("a table"));
        assert_ne!(asked.plan("a table"), asked.plan("one that was made again"));
    }
}
