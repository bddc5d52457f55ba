//! A sink inside Postgres: rows, dead letters and the ledger's compare-and-set in one transaction.

use std::collections::HashSet;

use async_trait::async_trait;
use deadpool_postgres::Transaction;
use weir_engine::retry::chain;
use weir_engine::{Batch, Claim, Located, Partition, Sink, SinkError, failpoint};

use crate::database::Database;
use crate::dead_letters::{self, RecordPolicy};
use crate::error::{DbError, During};
use crate::ledger::{Advance, Ledger};
use crate::owner::{PartitionOwner, refused};
use crate::projection::{ApplyError, Key, Projection, Unapplied};
use crate::redrive;
use crate::repeats::{self, Places};
use crate::versions;

/// The sink of a lane whose output is in Postgres.
pub struct ProjectionSink<P> {
    owner: PartitionOwner,
    projection: P,
}

impl<P: Projection> ProjectionSink<P> {
    /// Nothing happens until the lane claims.
    pub fn new(database: Database, ledger: Ledger, projection: P, policy: RecordPolicy) -> Self {
        Self { owner: PartitionOwner::new(database, ledger, policy), projection }
    }

    async fn refusal(&self) -> Result<Option<String>, DbError> {
        let Some(fingerprint) = self.projection.fingerprint() else { return Ok(None) };
        let client = self.owner.database().get().await?;
        versions::refusal(&**client, self.owner.lane(), &fingerprint).await
    }

    /// One transaction for the batch. `bisecting` looks for the events at fault, at the price of savepoints.
    async fn commit_once(&self, batch: &Batch, bisecting: bool) -> Result<(), ApplyOutcome> {
        const ACTION: &str = "committing a batch";
        let lane = self.owner.lane();
        let repeats = self.owner.repeats(batch).await?;
        let mut client = self.owner.database().get().await?;
        let transaction = client.transaction().await.during(ACTION)?;
        // First, so that a fenced writer learns it before it has done anything.
        if self.owner.ledger().advance(&*transaction, &batch.spans()).await? == Advance::Earlier {
            return Ok(());
        }
        dead_letters::insert_undecodable(&*transaction, lane, batch.dead()).await?;
        let (free, mut unapplied) = self.set_waiting_apart(&transaction, batch, &repeats).await?;
        if bisecting {
            let mut blocked = HashSet::new();
            self.apply_bisecting(&transaction, &free, &mut blocked, &mut unapplied).await?;
        } else {
            self.projection.apply(&transaction, &free).await.map_err(ApplyOutcome::Apply)?;
        }
        dead_letters::park(&*transaction, lane, &unapplied, self.owner.policy()).await?;
        failpoint::hit(&format!("{lane}.before_commit"));
        transaction.commit().await.during(ACTION)?;
        failpoint::hit(&format!("{lane}.after_commit"));
        Ok(())
    }

    /// Events whose key is parked already wait behind it, in order, while all others go on.
    async fn set_waiting_apart<'a>(
        &self,
        transaction: &Transaction<'_>,
        batch: &'a Batch,
        repeats: &Places,
    ) -> Result<(Vec<&'a Located>, Vec<Unapplied<'a>>), DbError> {
        let events = batch.events().filter(|located| !repeats::are_at(repeats, &located.record));
        if !dead_letters::any_holds_up(transaction, self.owner.lane()).await? {
            return Ok((events.collect(), Vec::new()));
        }
        let keys = batch.events().filter_map(|located| self.order_key(located)).collect();
        let parked = dead_letters::parked_keys(&**transaction, self.owner.lane(), keys).await?;
        if parked.is_empty() {
            return Ok((events.collect(), Vec::new()));
        }
        let waits = |located: &&Located| self.order_key(located).is_some_and(|key| parked.contains(&key));
        let (waiting, free): (Vec<_>, Vec<_>) = events.partition(waits);
        Ok((free, waiting.into_iter().map(Unapplied::waiting).collect()))
    }

    /// The key in whose order an event must be applied, if it must.
    fn order_key(&self, located: &Located) -> Option<Key> {
        let key = located.record.key.clone().filter(|_| self.projection.depends_on_order(&located.event))?;
        Some((located.record.partition.clone(), located.event.tenant.clone(), key))
    }

    /// Halves until the event at fault stands alone; whatever follows it under the same key waits.
    async fn apply_bisecting<'a>(
        &self,
        transaction: &Transaction<'_>,
        events: &[&'a Located],
        blocked: &mut HashSet<Key>,
        unapplied: &mut Vec<Unapplied<'a>>,
    ) -> Result<(), ApplyOutcome> {
        let waits = |located: &&&Located| self.order_key(located).is_some_and(|key| blocked.contains(&key));
        let (waiting, free): (Vec<_>, Vec<_>) = events.iter().partition(waits);
        unapplied.extend(waiting.into_iter().map(Unapplied::waiting));
        if free.is_empty() {
            return Ok(());
        }
        transaction.batch_execute("SAVEPOINT attempt").await.during("setting a savepoint")?;
        let error = match self.projection.apply(transaction, &free).await {
            Ok(()) => {
                transaction.batch_execute("RELEASE SAVEPOINT attempt").await.during("releasing a savepoint")?;
                return Ok(());
            }
            Err(error) if error.blames_an_event() => error,
            Err(error) => return Err(ApplyOutcome::Apply(error)),
        };
        const BACK: &str = "ROLLBACK TO SAVEPOINT attempt; RELEASE SAVEPOINT attempt";
        transaction.batch_execute(BACK).await.during("returning to a savepoint")?;
        if let [located] = free[..] {
            blocked.extend(self.order_key(located));
            let ordered = self.projection.depends_on_order(&located.event);
            unapplied.push(Unapplied { located, reason: Some(chain(&error)), ordered });
            return Ok(());
        }
        let (left, right) = free.split_at(free.len() / 2);
        Box::pin(self.apply_bisecting(transaction, left, blocked, unapplied)).await?;
        Box::pin(self.apply_bisecting(transaction, right, blocked, unapplied)).await
    }
}

enum ApplyOutcome {
    Apply(ApplyError),
    Sink(SinkError),
}

impl From<DbError> for ApplyOutcome {
    fn from(error: DbError) -> Self {
        Self::Sink(error.into())
    }
}

impl From<SinkError> for ApplyOutcome {
    fn from(error: SinkError) -> Self {
        Self::Sink(error)
    }
}

impl From<ApplyOutcome> for SinkError {
    fn from(outcome: ApplyOutcome) -> Self {
        match outcome {
            ApplyOutcome::Apply(error) => error.into(),
            ApplyOutcome::Sink(error) => error,
        }
    }
}

#[async_trait]
impl<P: Projection> Sink for ProjectionSink<P> {
    /// Refused while the tables are another projection's. Looked at before, so that a lane which must wait fences no other; and behind the claim, since
    /// a rebuild that came between raised the epochs that this process then raised once more.
    async fn claim(&mut self, partitions: &[Partition]) -> Result<Vec<Claim>, SinkError> {
        self.owner.release(partitions);
        if let Some(reason) = self.refusal().await? {
            return Ok(refused(partitions, &reason));
        }
        let claims = self.owner.claim(partitions).await?;
        if let Some(reason) = self.refusal().await? {
            return Ok(refused(partitions, &reason));
        }
        self.owner.take(&claims);
        Ok(claims)
    }

    async fn begin(&mut self, positions: &[(Partition, i64)]) -> Result<(), SinkError> {
        self.owner.begin(positions).await
    }

    fn release(&mut self, partitions: &[Partition]) {
        self.owner.release(partitions);
    }

    async fn commit(&mut self, batch: &Batch) -> Result<(), SinkError> {
        match self.commit_once(batch, false).await {
            Err(ApplyOutcome::Apply(error)) if error.blames_an_event() => {
                let error = chain(&error);
                tracing::warn!(lane = self.owner.lane(), error, "an event cannot be applied; looking for it");
                Ok(self.commit_once(batch, true).await?)
            }
            other => Ok(other?),
        }
    }

    async fn tick(&mut self) -> Result<(), SinkError> {
        redrive::retry_due(&self.owner, &self.projection).await?;
        self.owner.maintain().await
    }
}
