//! The lane `clickhouse`: idempotent by key.
//!
//! 1. ask whether ledger and table are still those that the batch is for, and keep its dead letters and new ids in Postgres;
//! 2. insert one block, synced, and wait for the answer;
//! 3. compute the minutes of the rollups again that the block touched, and those that are left of blocks before;
//! 4. advance the ledger by compare-and-set.
//!
//! Large blocks, as a lane makes in a backlog, leave 3 for later (`uncounted.rs`); the ledger says how far the rollups go, and after a crash
//! the next claim finds in the table which minutes are left.
//!
//! A crash or a lost answer anywhere repeats the batch from 1. Its rows have the same coordinates, which end the table's sort
//! key, and everybody reads the view, which shows each key once. An owner that wakes up too late inserts rows that are there
//! already, or that the next owner inserts again; its ledger refuses it. So nothing has to be fenced in ClickHouse itself.

use std::collections::BTreeSet;

use async_trait::async_trait;
use tokio::time::Instant;
use weir_engine::retry::chain;
use weir_engine::{Batch, BoxError, Claim, LaneKind, Located, Partition, Sink, SinkError, failpoint};
use weir_model::{OtherEvent, Position};
use weir_postgres::dead_letters::Refused;
use weir_postgres::owner::{self, Redrive};
use weir_postgres::repeats::Places;
use weir_postgres::{
    Database, During, EVENT_STORE_TOPIC, EventStore, Ledger, LedgerRow, PartitionOwner, RecordPolicy, claims,
};

use crate::error::ClickHouseError;
use crate::rollups;
use crate::rows::Block;
use crate::schema::TABLE;
use crate::server::{ClickHouse, literal};
use crate::sift;
use crate::uncounted::Uncounted;

/// Rows of a block that is inserted at once, whenever the last one was.
const LARGE_BLOCK: usize = 10_000;

/// Minutes whose rollups are computed later.
const WAITING: &str = "weir_clickhouse_rollups_waiting";

/// Writes to ClickHouse.
pub struct ClickHouseSink {
    server: ClickHouse,
    owner: PartitionOwner,
    /// Whether the schema was brought up to date and checked.
    ready: bool,
    /// The id of the table that was there when the lane claimed.
    table: Option<String>,
    inserted_at: Option<Instant>,
    uncounted: Uncounted,
}

fn retry(error: impl Into<BoxError>) -> SinkError {
    SinkError::Retry(error.into())
}

impl From<ClickHouseError> for SinkError {
    /// Whatever ClickHouse refuses besides single records, someone may mend: the lane waits, and the others go on.
    fn from(error: ClickHouseError) -> Self {
        Self::Retry(error.into())
    }
}

impl ClickHouseSink {
    /// Nothing happens until the lane claims.
    #[must_use]
    pub fn new(server: ClickHouse, database: Database, ledger: Ledger, policy: RecordPolicy) -> Self {
        let owner = PartitionOwner::new(database, ledger, policy);
        Self { server, owner, ready: false, table: None, inserted_at: None, uncounted: Uncounted::default() }
    }

    async fn make_ready(&mut self) -> Result<(), SinkError> {
        if !self.ready {
            for name in self.server.migrate(self.owner.database()).await.map_err(retry)? {
                tracing::info!(name, "applied to ClickHouse");
            }
            self.ready = true;
        }
        Ok(())
    }

    /// Gives what ClickHouse refuses for what it holds.
    async fn insert(
        &mut self,
        events: &[&Located],
        others: &[&Located<OtherEvent>],
        is_wanted_now: bool,
    ) -> Result<Vec<Refused>, SinkError> {
        if events.is_empty() && others.is_empty() {
            return Ok(Vec::new());
        }
        self.refuse_expired(events)?;
        let epoch = |partition: &Partition| self.owner.ledger().epoch(partition).unwrap_or(0);
        let rows = Block::of(events, others, epoch);
        failpoint::hit("clickhouse.before_insert");
        if !is_wanted_now {
            self.throttle(events.len() + others.len()).await;
        }
        self.inserted_at = Some(Instant::now());
        let inserted = self.server.insert(rows.pieces()).await;
        drop(rows);
        let sifted = match inserted {
            Ok(()) => Ok(Vec::new()),
            Err(error) if error.is_about_data() => {
                tracing::warn!(error = chain(&error), "the records that ClickHouse refuses are looked for");
                Box::pin(sift::insert(&self.server, events, others, &self.owner.policy().delays, &epoch)).await
            }
            Err(error) => Err(error),
        };
        let refused = self.fence_if_missing(sifted)?;
        failpoint::hit("clickhouse.after_answer");
        Ok(refused)
    }

    async fn compute(&mut self, minutes: &BTreeSet<i64>) -> Result<(), SinkError> {
        if minutes.is_empty() {
            return Ok(());
        }
        let computed = rollups::recompute(&self.server, minutes).await;
        self.fence_if_missing(computed)?;
        failpoint::hit("clickhouse.after_rollups");
        Ok(())
    }

    /// Brings the rollups to where the ledger is.
    async fn count(&mut self) -> Result<(), SinkError> {
        let began = Instant::now();
        let minutes = self.uncounted.minutes().clone();
        self.compute(&minutes).await?;
        self.say_counted(began).await
    }

    /// Everything that was left was computed, from `began` on.
    async fn say_counted(&mut self, began: Instant) -> Result<(), SinkError> {
        if !self.uncounted.is_empty() {
            let client = self.owner.database().get().await?;
            self.owner.ledger().roll_up(&**client, self.uncounted.ends()).await?;
        }
        self.uncounted.counted(began, Instant::now());
        metrics::gauge!(WAITING).set(0.0);
        Ok(())
    }

    /// Looks for what the last owner inserted and did not count.
    async fn find_uncounted(&mut self, claims: &[Claim]) -> Result<(), SinkError> {
        let claimed: Vec<Partition> = owner::taken(claims).map(|claim| claim.partition.clone()).collect();
        let open = {
            let client = self.owner.database().get().await?;
            self.owner.ledger().not_rolled_up(&**client, &claimed).await?
        };
        if !open.is_empty() {
            let minutes = self.server.minutes_of(&open).await;
            let minutes = self.fence_if_missing(minutes)?;
            self.uncounted.add(minutes, &open);
        }
        Ok(())
    }

    /// A table or database that is gone is made again, and the next claim finds it empty.
    fn fence_if_missing<T>(&mut self, done: Result<T, ClickHouseError>) -> Result<T, SinkError> {
        done.map_err(|error| {
            self.ready &= !error.is_missing();
            match error.is_missing() && !self.owner.partitions().is_empty() {
                true => self.owner.fenced(),
                false => error.into(),
            }
        })
    }

    /// A row of the event store that its TTL would drop at the next merge is not kept: it would not be seen that it is missing. Other
    /// services may write what they like into `recordedAt`, and that must not hold up the lane.
    fn refuse_expired(&self, events: &[&Located]) -> Result<(), SinkError> {
        let Some(dropped_before) = self.server.dropped_before() else { return Ok(()) };
        let ours = events.iter().filter(|located| located.event.position.is_some());
        let Some(oldest) = ours.filter_map(|located| located.event.recorded_at).min() else { return Ok(()) };
        if oldest >= dropped_before {
            return Ok(());
        }
        let days = self.server.options.ttl_days;
        let words = format!("records from {oldest} on are to be inserted, and the table keeps {days} days");
        Err(ClickHouseError::new(
            "inserting into ClickHouse",
            words,
            "raise clickhouse.ttl_days, or begin later with `weir ledger reset clickhouse --topic TOPIC --to latest --yes`",
        )
        .into())
    }

    /// A table that was dropped and made again, by another process perhaps, is not the one that the ledger speaks of.
    async fn expect_table(&mut self) -> Result<(), SinkError> {
        let found = self.server.table_id().await;
        let found = self.fence_if_missing(found)?;
        if found == self.table {
            return Ok(());
        }
        self.ready = false;
        Err(self.owner.fenced())
    }

    /// Spares the server many small parts. A large block is what it likes, and waits for nothing.
    async fn throttle(&self, rows: usize) {
        if let Some(at) = self.inserted_at.filter(|_| rows < LARGE_BLOCK) {
            tokio::time::sleep_until(at + self.server.options.insert_interval).await;
        }
    }

    /// A table that holds nothing, where the ledger says that it does. Its TTL may have emptied it, but not made it again.
    async fn refuse_emptied(&mut self, claims: &[Claim]) -> Result<(), SinkError> {
        let table = self.server.table_id().await?;
        let is_another = self.table.is_some() && self.table != table;
        let held = self.held(claims).await?;
        if let Some(row) = held.first()
            && (is_another || self.server.options.ttl_days == 0)
            && self.table_is_empty().await?
        {
            return Err(self.lost(row, "its table is empty"));
        }
        self.table = table;
        Ok(())
    }

    /// The rows of the ledger, of what is claimed and what was, that say that the table holds something. With a position an event
    /// was applied; without one it may have been commit markers, or dead letters.
    async fn held(&self, claims: &[Claim]) -> Result<Vec<LedgerRow>, SinkError> {
        let client = self.owner.database().get().await?;
        let mut rows = Ledger::rows(&**client).await?;
        rows.retain(|row| {
            let is_claimed = claims.iter().any(|claim| claim.refused.is_none() && claim.partition == row.partition);
            let is_ours = is_claimed || self.owner.partitions().contains(&row.partition);
            row.lane == self.owner.lane() && row.position.is_some() && is_ours
        });
        Ok(rows)
    }

    fn lost(&self, row: &LedgerRow, found: &str) -> SinkError {
        let (lane, topic) = (self.owner.lane(), &row.partition.topic);
        ClickHouseError::new(
            "claiming partitions for ClickHouse",
            format!(
                "the ledger says that it holds what is below {} of {}, but {found}: it was dropped or restored behind weir's back",
                row.next_offset.unwrap_or(0),
                row.partition
            ),
            &format!("restore it, or fill it again: `weir ledger reset {lane} --topic {topic} --to earliest --yes`"),
        )
        .into()
    }

    /// Refuses an event store that does not hold the last event that ClickHouse holds: it would give positions a second time.
    async fn refuse_another_past(&self, claims: &[Claim]) -> Result<(), SinkError> {
        let of_event_store = |claim: &&Claim| claim.refused.is_none() && *claim.partition.topic == *EVENT_STORE_TOPIC;
        let Some(claim) = claims.iter().find(of_event_store) else { return Ok(()) };
        let sql = format!(
            "SELECT `offset`, event_id FROM {}.{TABLE} WHERE source = {} AND topic = {} ORDER BY `offset` DESC LIMIT 1",
            self.server.database(),
            literal(&claim.partition.source),
            literal(&claim.partition.topic)
        );
        let rows = self.server.rows("looking for the last event in ClickHouse", &sql).await?;
        let Some([offset, id]) = rows.first().map(Vec::as_slice) else { return Ok(()) };
        let offset: i64 = offset.parse().unwrap_or(0);
        // A TTL takes the oldest; what is not there then may be all of it but the last.
        let held = self.held(std::slice::from_ref(claim)).await?;
        let is_missing =
            |row: &&LedgerRow| row.partition == claim.partition && row.position.is_some_and(|last| last.0 > offset);
        let missing = held.iter().find(is_missing);
        if let Some(row) = missing.filter(|_| self.server.options.ttl_days == 0) {
            return Err(self.lost(row, &format!("its table ends with offset {offset}")));
        }
        let stored = EventStore::new(self.owner.database().clone()).event_id_at(Position(offset)).await?;
        if stored.is_some_and(|stored| stored.to_string() == *id) {
            return Ok(());
        }
        tracing::error!(offset, clickhouse = id, event_store = ?stored, "two pasts");
        let found = if stored.is_some() { "another event" } else { "nothing" };
        Err(SinkError::Fatal(
            format!(
                "the event store holds {found} at position {offset}, where ClickHouse has its last event: Postgres was restored to an \
                 older copy. Restore the newer one; or, if that past is lost for good, drop the database in ClickHouse and begin again \
                 with `weir ledger reset {} --topic {EVENT_STORE_TOPIC} --to earliest --yes`",
                self.owner.lane()
            )
            .into(),
        ))
    }

    async fn table_is_empty(&self) -> Result<bool, SinkError> {
        let sql = format!("SELECT 1 FROM {}.{TABLE} LIMIT 1", self.server.database());
        Ok(self.server.rows("looking into ClickHouse", &sql).await?.is_empty())
    }

    /// Undecodable records that someone asked to try again. An insert of the same record changes nothing, so what is not
    /// resolved in the end is simply done once more.
    async fn redrive(&mut self) -> Result<(), SinkError> {
        for Redrive { letter, batch, .. } in self.owner.redrives().await? {
            let (events, others) = owner::without(&batch, &Places::new());
            let refused = self.insert(&events, &others, false).await?;
            // Below what the ledger says of the rollups.
            let minutes = minutes(&events, &others);
            self.compute(&minutes).await?;
            failpoint::hit("clickhouse.after_redrive");
            match refused.first() {
                Some(Refused { reason, .. }) => self.owner.fail_again(&letter, reason).await?,
                None => self.owner.resolve(&letter).await?,
            }
        }
        Ok(())
    }
}

#[allow(clippy::as_conversions, reason = "a gauge is a double; counts below 2^53 are exact")]
fn double(count: usize) -> f64 {
    count as f64
}

/// The minutes in which things happened.
fn minutes(events: &[&Located], others: &[&Located<OtherEvent>]) -> BTreeSet<i64> {
    let of_events = events.iter().map(|located| located.event.timestamp);
    let all = of_events.chain(others.iter().map(|located| located.event.timestamp));
    all.map(|at| at.as_millis().div_euclid(60_000)).collect()
}

#[async_trait]
impl Sink for ClickHouseSink {
    async fn claim(&mut self, partitions: &[Partition]) -> Result<Vec<Claim>, SinkError> {
        self.uncounted.forget(partitions);
        self.make_ready().await?;
        self.owner.release(partitions);
        if let Some(reason) = self.owner.refusal(LaneKind::ClickHouse).await? {
            return Ok(owner::refused(partitions, &reason));
        }
        let mut client = self.owner.database().get().await?;
        let until_claimed = client.transaction().await.during("claiming partitions")?;
        if !claims::may_claim(&*until_claimed).await? {
            let reason = "`weir rebuild clickhouse` is exchanging the tables; the lane goes on when it has";
            return Ok(owner::refused(partitions, reason));
        }
        let claims = self.owner.claim(partitions).await?;
        until_claimed.rollback().await.during("claiming partitions")?;
        drop(client);
        self.refuse_emptied(&claims).await?;
        self.refuse_another_past(&claims).await?;
        self.owner.drop_provisional(&claims).await?;
        self.find_uncounted(&claims).await?;
        self.owner.take(&claims);
        Ok(claims)
    }

    async fn begin(&mut self, positions: &[(Partition, i64)]) -> Result<(), SinkError> {
        self.owner.begin(positions).await
    }

    fn release(&mut self, partitions: &[Partition]) {
        self.uncounted.forget(partitions);
        self.owner.release(partitions);
    }

    async fn commit(&mut self, batch: &Batch) -> Result<(), SinkError> {
        let spans = batch.spans();
        let partitions: Vec<&Partition> = spans.iter().map(|span| &span.partition).collect();
        // 1.
        self.owner.expect(&spans).await?;
        self.expect_table().await?;
        let repeats = self.owner.keep(batch, &partitions).await?;
        // 2.
        let (events, others) = owner::without(batch, &repeats);
        let refused = self.insert(&events, &others, batch.is_wanted_now()).await?;
        // 3.
        let began = Instant::now();
        let (minutes, is_large) = (minutes(&events, &others), events.len() + others.len() >= LARGE_BLOCK);
        if !is_large {
            self.compute(&minutes.iter().chain(self.uncounted.minutes()).copied().collect()).await?;
        }
        self.owner.refuse(&refused, &partitions).await?;
        failpoint::hit("clickhouse.before_ledger");
        // 4.
        self.owner.advance_counting(&spans, !is_large).await?;
        failpoint::hit("clickhouse.after_ledger");
        self.uncounted.add(minutes, &spans);
        metrics::gauge!(WAITING).set(double(self.uncounted.minutes().len()));
        if !is_large {
            // Of partitions that are not in this batch the ledger does not know it yet.
            self.uncounted.forget(&spans.into_iter().map(|span| span.partition).collect::<Vec<_>>());
            self.say_counted(began).await?;
        }
        Ok(())
    }

    async fn tick(&mut self) -> Result<(), SinkError> {
        self.redrive().await?;
        if self.uncounted.is_due(Instant::now()) {
            self.count().await?;
        }
        self.owner.maintain().await
    }

    async fn finish(&mut self) -> Result<(), SinkError> {
        if self.uncounted.is_empty() { Ok(()) } else { self.count().await }
    }
}
