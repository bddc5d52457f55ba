//! `rebuild-clickhouse`: the table of events and its rollups made again out of history, beside those that serve, and exchanged.

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use tokio::sync::Mutex;
use tokio::time::Instant;
use weir_clickhouse::{ClickHouse, Compared, Rebuild};
use weir_engine::{BoxError, LaneKind, Partition, failpoint};
use weir_history::{Filter, HistoryTable, Place, transaction_id};
use weir_postgres::job_run::{JobFence, Progress};
use weir_postgres::job_runs::Outcome;
use weir_postgres::versions::{self, StandKept};
use weir_postgres::{Ledger, claims, dead_letters};

use super::Work;
use super::backfill::{Rollups, Run};
use super::backfill_asked::{Backfill, Reprocess};
use super::lane::Lane;
use super::rebuild::RebuildAsked;

const LANE: &str = LaneKind::ClickHouse.name();

impl Work {
    pub(super) async fn rebuild_clickhouse(
        &self,
        asked: &RebuildAsked,
        progress: &Progress,
        fence: &JobFence,
    ) -> Result<(Outcome, String), BoxError> {
        let server = self.clickhouse.as_ref().ok_or("there is no ClickHouse: set clickhouse.url")?;
        server.migrate(&self.database).await?;
        if let Some(words) = self.version_asked(LANE, asked).await? {
            return Ok((Outcome::Ok, words));
        }
        let done = match asked.rollback {
            true => Box::pin(self.roll_back_clickhouse(server, fence)).await?,
            false => Box::pin(self.rebuild_beside(server, progress, fence)).await?,
        };
        let differed = match &done.compared.months_different[..] {
            [] => "nothing differed".to_owned(),
            months => format!("the rows of {} differed", months.join(", ")),
        };
        let what = if asked.rollback { "rolled back" } else { "rebuilt" };
        let (days, (serving, previous)) = (self.maintenance.keep_versions_days, done.versions);
        Ok((
            Outcome::Ok,
            format!(
                "{what}; {} rows, {} of them copied from the table that served; {differed}; version {serving} serves, and {previous} is kept for \
                 {days} days (`weir rebuild {LANE} --rollback`)",
                done.compared.rows, done.copied
            ),
        ))
    }

    async fn rebuild_beside(
        &self,
        server: &ClickHouse,
        progress: &Progress,
        fence: &JobFence,
    ) -> Result<Done, BoxError> {
        let asked = Backfill { reprocess: Reprocess::All, ..Backfill::default() };
        // First, so that the slices hold everything below them.
        let lane = self.bounds_of_history(self.clickhouse_lane().await?).await?;
        let mut only_here = self.not_in_history(&lane).await?;
        let (slices, _) = self.backfill_plan(&asked).await?;
        progress.expect(i64::try_from(slices.len()).ok(), "slices");
        let bounds = lane.next_offsets.clone();
        only_here.extend(lane.dead.iter().map(stretch_of));
        let rebuild = server.begin_rebuild(fence.epoch()).await?;
        let filter = Filter::default();
        let table = self.history_table().await?;
        let began = Instant::now();
        let (work, asked, into, rollups) = (self, &asked, Some(&rebuild), Mutex::new(Rollups::of(&slices)));
        let run = Run { work, server, asked, filter, table, lane, began, rollups, into };
        // Boxed: the compiler cannot see otherwise that they may move between threads.
        let work: Vec<BoxFuture<'_, Result<(), BoxError>>> =
            slices.iter().map(|slice| run.fill_new(slice, progress).boxed()).collect();
        futures::stream::iter(work).buffer_unordered(1).try_collect::<Vec<()>>().await?;
        rebuild.keep_other_copies().await?;
        self.swap_clickhouse(&rebuild, fence, None, |partition| bounds.get(partition).copied().unwrap_or(0), only_here)
            .await
    }

    /// Below which offsets history has everything, as far as the lane has read.
    async fn bounds_of_history(&self, mut lane: Lane) -> Result<Lane, BoxError> {
        if lane.next_offsets.is_empty() {
            return Err(
                "the lane clickhouse has read nothing yet: start it (`weir up`, or `weir run clickhouse`)".into()
            );
        }
        let table = HistoryTable::open(&self.history).await?.ok_or("there is no history to fill ClickHouse from")?;
        for (partition, below) in &mut lane.next_offsets {
            let id = transaction_id(LaneKind::History.name(), partition);
            *below = table.transaction(&id).await?.unwrap_or(0).min(*below);
        }
        Ok(lane)
    }

    /// What history does not hold below its end, and ClickHouse may: its dead letters, and what its lane skipped.
    async fn not_in_history(&self, lane: &Lane) -> Result<Vec<Stretch>, BoxError> {
        let client = self.database.get().await?;
        let name = LaneKind::History.name();
        let dead = dead_letters::places(&**client, name).await?;
        let mut stretches: Vec<Stretch> = dead.into_iter().map(|(of, offset)| (of, offset, offset + 1)).collect();
        for (partition, from, below) in Ledger::skips(&**client, name).await? {
            let end = lane.next_offsets.get(&partition).copied().unwrap_or(0);
            stretches.push((partition, from, below.min(end)));
        }
        Ok(stretches)
    }

    /// Exchanges the tables while the lane's ledger stands still. From `filled` on the lane's rows are in the serving table alone, and
    /// `only_here` may be.
    async fn swap_clickhouse(
        &self,
        rebuild: &Rebuild<'_>,
        fence: &JobFence,
        version: Option<i32>,
        filled: impl Fn(&Partition) -> i64,
        mut only_here: Vec<Stretch>,
    ) -> Result<Done, BoxError> {
        let held = claims::hold(&self.database, fence).await?;
        Ledger::fence(&self.database, LANE).await?;
        let now = self.clickhouse_lane().await?;
        let since: Vec<Stretch> =
            now.next_offsets.iter().map(|(partition, below)| (partition.clone(), filled(partition), *below)).collect();
        let copied = rebuild.keep_stretches(&since).await?;
        // Redriven, or history's dead letter, since that was looked at.
        only_here.extend(now.dead.iter().map(stretch_of));
        only_here.extend(self.not_in_history(&now).await?);
        rebuild.keep_stretches(&only_here).await?;
        let compared = rebuild.finish().await?;
        held.check().await?;
        rebuild.exchange().await?;
        self.fetch_back(rebuild, &now).await?;
        // Before the version is told: a crash between leaves a table that goes further than its stand says, of which a rollback copies rows that are
        // there. The other way round it would lack what lies between two stands.
        rebuild.keep_previous().await?;
        failpoint::hit("clickhouse.before_version");
        let dead = |partition: &Partition| {
            now.dead.iter().filter(|place| place.partition == *partition).map(|place| place.offset).collect()
        };
        let stands = now.next_offsets.iter().map(|(partition, next)| (partition.clone(), *next, dead(partition)));
        let stand = StandKept::of(stands);
        let mut client = self.database.get().await?;
        let transaction = client.transaction().await?;
        fence.hold(&*transaction).await?;
        let fingerprint = versions::fingerprint(LaneKind::ClickHouse, self.units);
        let versions = versions::swap(&*transaction, LANE, &fingerprint, version, &stand).await?;
        transaction.commit().await?;
        drop(held);
        Ok(Done { compared, copied, versions })
    }

    /// Should the hold have been lost after it was looked at (Postgres restarted), lanes may have gone on with the table that served.
    async fn fetch_back(&self, rebuild: &Rebuild<'_>, before: &Lane) -> Result<(), BoxError> {
        let after = self.clickhouse_lane().await?.next_offsets;
        let moved = after.into_iter().filter_map(|(partition, next)| {
            let from = before.next_offsets.get(&partition).copied().unwrap_or(0);
            (from < next).then_some((partition, from, next))
        });
        Ok(rebuild.fetch_back(&moved.collect::<Vec<_>>()).await?)
    }

    async fn roll_back_clickhouse(&self, server: &ClickHouse, fence: &JobFence) -> Result<Done, BoxError> {
        let versions = versions::of_lane(&**self.database.get().await?, LANE).await?;
        let kept = versions.and_then(|versions| versions.previous);
        let (Some(kept), true) = (kept, server.has_previous().await?) else {
            return Err(format!("no version before the one that serves is kept of {LANE}").into());
        };
        let then = kept.stand.by_partition();
        let dead: Vec<Stretch> = then
            .iter()
            .flat_map(|(partition, (_, dead))| dead.iter().map(|offset| (partition.clone(), *offset, *offset + 1)))
            .collect();
        let rebuild = server.begin_roll_back(fence.epoch()).await?;
        let filled = |partition: &Partition| then.get(partition).map_or(0, |(next, _)| *next);
        self.swap_clickhouse(&rebuild, fence, Some(kept.version), filled, dead).await
    }
}

/// From one offset to below another.
type Stretch = (Partition, i64, i64);

fn stretch_of(place: &Place) -> Stretch {
    (place.partition.clone(), place.offset, place.offset + 1)
}

/// What was done.
struct Done {
    compared: Compared,
    /// Rows that the lane wrote meanwhile.
    copied: u64,
    /// The version that serves now, and the one before.
    versions: (i32, i32),
}
