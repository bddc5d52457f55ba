//! What every sink does as the owner of its partitions, and keeps in Postgres beside its own data: ledger, dead letters, ids of other
//! services' events. A sink adds how its rows become durable.
//!
//! A sink outside Postgres keeps all of it before its own commit: above the ledger it harms nothing, and a crash after the commit must
//! not lose it.

use weir_engine::{Batch, Claim, LaneKind, Located, Partition, Record, SharedEvent, SinkError, Span, failpoint};
use weir_model::OtherEvent;
use weir_model::project::Units;

use crate::database::Database;
use crate::dead_letters::{self, DeadLetter, RecordPolicy, Refused};
use crate::dedup::LaneView;
use crate::error::{DbError, During};
use crate::ledger::Ledger;
use crate::repeats::{self, Places};
use crate::versions;

/// A lane's side of the partitions that it has claimed.
pub struct PartitionOwner {
    database: Database,
    ledger: Ledger,
    policy: RecordPolicy,
    view: LaneView,
    partitions: Vec<Partition>,
}

/// A dead letter that someone asked to try again, as a batch of its own.
#[derive(Debug)]
pub struct Redrive {
    /// The letter.
    pub letter: DeadLetter,
    /// Where the record is.
    pub partition: Partition,
    /// Its offset there.
    pub offset: i64,
    /// The record alone, decoded.
    pub batch: Batch,
}

impl PartitionOwner {
    /// Of nothing yet.
    #[must_use]
    pub fn new(database: Database, ledger: Ledger, policy: RecordPolicy) -> Self {
        Self { database, ledger, policy, view: LaneView::default(), partitions: Vec::new() }
    }

    /// Where everything is kept.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// The lane's ledger.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The lane's name.
    #[must_use]
    pub fn lane(&self) -> &str {
        self.ledger.lane()
    }

    /// What the lane does about records that it cannot just apply.
    #[must_use]
    pub fn policy(&self) -> &RecordPolicy {
        &self.policy
    }

    /// What is owned now.
    #[must_use]
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// Why the lane must wait, whose tables another build may have made; `None` where they are as this one makes them.
    pub async fn refusal(&self, kind: LaneKind) -> Result<Option<String>, SinkError> {
        let fingerprint = versions::fingerprint(kind, Units::default());
        Ok(versions::refusal(&**self.database.get().await?, self.lane(), &fingerprint).await?)
    }

    /// Raises the epochs in the ledger. They are owned once the sink has finished what the last owner left open, and says so by
    /// [`Self::take`].
    pub async fn claim(&mut self, partitions: &[Partition]) -> Result<Vec<Claim>, SinkError> {
        let claims = self.ledger.claim(&self.database, partitions).await?;
        self.policy.repeats.forget().await;
        self.view = LaneView::load(&**self.database.get().await?, self.ledger.lane()).await?;
        failpoint::hit("claim.after_ledger");
        Ok(claims)
    }

    /// From here on what was claimed, and not refused, is owned.
    pub fn take(&mut self, claims: &[Claim]) {
        self.release(&claims.iter().map(|claim| claim.partition.clone()).collect::<Vec<_>>());
        self.partitions.extend(taken(claims).map(|claim| claim.partition.clone()));
    }

    /// Keeps where partitions begin that this lane never read.
    pub async fn begin(&mut self, positions: &[(Partition, i64)]) -> Result<(), SinkError> {
        self.ledger.begin(&self.database, positions).await?;
        self.view = LaneView::load(&**self.database.get().await?, self.ledger.lane()).await?;
        Ok(())
    }

    /// The places of a batch's records that came before, and that this lane leaves out.
    pub async fn repeats(&self, batch: &Batch) -> Result<Places, DbError> {
        self.policy.repeats.left_out(&self.database, &self.view, batch).await
    }

    /// Whether a dead letter that decodes now came before, or again since.
    pub(crate) async fn is_repeat(&self, record: &Record) -> Result<bool, DbError> {
        self.policy.repeats.is_repeat(&self.database, &self.view, record).await
    }

    /// These are no longer ours.
    pub fn release(&mut self, partitions: &[Partition]) {
        self.partitions.retain(|partition| !partitions.contains(partition));
    }

    /// [`SinkError::Fenced`] for all partitions that are owned.
    #[must_use]
    pub fn fenced(&self) -> SinkError {
        SinkError::Fenced { partitions: self.partitions.clone() }
    }

    /// Refuses a batch that is not for where the ledger stands.
    pub async fn expect(&self, spans: &[Span]) -> Result<(), SinkError> {
        self.ledger.expect(&**self.database.get().await?, spans).await
    }

    /// Keeps a batch's dead letters, if the partitions are still ours. Gives the places of records that are repeats.
    pub async fn keep(&self, batch: &Batch, partitions: &[&Partition]) -> Result<Places, SinkError> {
        const ACTION: &str = "keeping dead letters";
        let repeats = self.repeats(batch).await?;
        if batch.dead_len() == 0 {
            return Ok(repeats);
        }
        let mut client = self.database.get().await?;
        let transaction = client.transaction().await.during(ACTION)?;
        self.ledger.hold(&*transaction, partitions).await?;
        dead_letters::insert_undecodable(&*transaction, self.lane(), batch.dead()).await?;
        transaction.commit().await.during(ACTION)?;
        Ok(repeats)
    }

    /// Keeps events that the sink refused for what they hold as dead letters, if the partitions are still ours.
    pub async fn refuse(&self, refused: &[Refused], partitions: &[&Partition]) -> Result<(), SinkError> {
        const ACTION: &str = "keeping dead letters";
        if refused.is_empty() {
            return Ok(());
        }
        let mut client = self.database.get().await?;
        let transaction = client.transaction().await.during(ACTION)?;
        self.ledger.hold(&*transaction, partitions).await?;
        dead_letters::insert_refused(&*transaction, self.lane(), refused, &self.policy).await?;
        Ok(transaction.commit().await.during(ACTION)?)
    }

    /// Moves the ledger beyond a batch that the sink holds.
    pub async fn advance(&self, spans: &[Span]) -> Result<(), SinkError> {
        let client = self.database.get().await?;
        self.ledger.advance(&**client, spans).await.map(|_| ())
    }

    /// [`Self::advance`], and says whether the rollups beside the sink's rows count everything below the spans' ends.
    pub async fn advance_counting(&self, spans: &[Span], are_counted: bool) -> Result<(), SinkError> {
        let client = self.database.get().await?;
        self.ledger.advance_with(&**client, spans, Some(are_counted)).await.map(|_| ())
    }

    /// Drops dead letters of a batch that was never committed: this process may be able to decode what the last one could not,
    /// and then the record would be both in the sink and dead. If not, its own batch keeps them again.
    pub async fn drop_provisional(&self, claims: &[Claim]) -> Result<(), SinkError> {
        const ACTION: &str = "dropping dead letters of an unfinished batch";
        let mut client = self.database.get().await?;
        let transaction = client.transaction().await.during(ACTION)?;
        let partitions: Vec<&Partition> = taken(claims).map(|claim| &claim.partition).collect();
        self.ledger.hold(&*transaction, &partitions).await?;
        let from = taken(claims).map(|claim| claim.next_offset.unwrap_or(i64::MIN));
        let from: Vec<(&Partition, i64)> = partitions.into_iter().zip(from).collect();
        dead_letters::drop_from(&*transaction, self.lane(), &from).await?;
        Ok(transaction.commit().await.during(ACTION)?)
    }

    /// Undecodable records of ours that someone asked to try again, and that decode now; those that do not are kept with today's reason.
    pub async fn redrives(&self) -> Result<Vec<Redrive>, SinkError> {
        let letters = dead_letters::redrives(&**self.database.get().await?, self.lane()).await?;
        let mut found = Vec::new();
        for letter in letters {
            let record = dead_letters::to_record(&letter);
            if !self.partitions.contains(&record.partition) {
                continue;
            }
            let (partition, offset) = (record.partition.clone(), record.offset);
            // One that decoded when the lane came to it has its verdict.
            if letter.event_type.is_none() && self.is_repeat(&record).await? {
                self.resolve(&letter).await?;
                continue;
            }
            match Batch::alone(record) {
                Ok(batch) => found.push(Redrive { letter, partition, offset, batch }),
                Err(reason) => self.fail_again(&letter, &reason).await?,
            }
        }
        Ok(found)
    }

    /// Keeps a dead letter that was tried again, with the reason of today, if its partition is still ours.
    pub async fn fail_again(&self, letter: &DeadLetter, reason: &str) -> Result<(), SinkError> {
        const ACTION: &str = "keeping a dead letter";
        let record = dead_letters::to_record(letter);
        let mut client = self.database.get().await?;
        let transaction = client.transaction().await.during(ACTION)?;
        self.ledger.hold(&*transaction, &[&record.partition]).await?;
        dead_letters::fail_again(&*transaction, letter, reason, &self.policy).await?;
        Ok(transaction.commit().await.during(ACTION)?)
    }

    /// Removes a dead letter whose record the sink holds now, or which is a repeat, if its partition is still ours: of a sink whose tables were
    /// exchanged meanwhile, the next owner tries it again.
    pub async fn resolve(&self, letter: &DeadLetter) -> Result<(), SinkError> {
        const ACTION: &str = "resolving a dead letter";
        let record = dead_letters::to_record(letter);
        let mut client = self.database.get().await?;
        let transaction = client.transaction().await.during(ACTION)?;
        self.ledger.hold(&*transaction, &[&record.partition]).await?;
        dead_letters::resolve(&*transaction, letter.id).await?;
        Ok(transaction.commit().await.during(ACTION)?)
    }

    /// Starts merging the index of repeats, if that is due. To be called from time to time.
    pub async fn maintain(&self) -> Result<(), SinkError> {
        self.policy.repeats.maintain(&self.database).await;
        Ok(())
    }
}

/// Claims of these partitions, all refused.
#[must_use]
pub fn refused(partitions: &[Partition], reason: &str) -> Vec<Claim> {
    let claim = |partition: &Partition| Claim {
        partition: partition.clone(),
        epoch: 0,
        next_offset: None,
        refused: Some(reason.to_owned()),
    };
    partitions.iter().map(claim).collect()
}

/// The claims that were not refused.
pub fn taken(claims: &[Claim]) -> impl Iterator<Item = &Claim> {
    claims.iter().filter(|claim| claim.refused.is_none())
}

/// [`without`], its events to be held on to.
#[must_use]
pub fn shared_without<'a>(batch: &'a Batch, repeats: &Places) -> (Vec<SharedEvent>, Vec<&'a Located<OtherEvent>>) {
    let is_kept = |event: &SharedEvent| !event.located().is_some_and(|l| repeats::are_at(repeats, &l.record));
    (batch.shared_events().filter(is_kept).collect(), without(batch, repeats).1)
}

/// What of a batch goes into a sink that keeps every record.
#[must_use]
pub fn without<'a>(batch: &'a Batch, repeats: &Places) -> (Vec<&'a Located>, Vec<&'a Located<OtherEvent>>) {
    let events = batch.events().filter(|located| !repeats::are_at(repeats, &located.record));
    let others = batch.others().filter(|located| !repeats::are_at(repeats, &located.record));
    (events.collect(), others.collect())
}
