//! What sinks outside Postgres keep in Postgres, apart from their own data: the dead letters of a batch, and the ids of other
//! services' events. All of it is kept before the sink's own commit: above the ledger it harms nobody, and a crash after the
//! commit must not lose it.

use weir_engine::{Batch, Claim, Located, Partition, Record, SinkError};
use weir_model::OtherEvent;
use weir_model::wire::{self, DecodeError, Decoded};

use crate::database::Database;
use crate::dead_letters::{self, DeadLetter, RecordPolicy, Refused};
use crate::error::During;
use crate::ledger::Ledger;
use crate::repeats::{self, Candidate, Places};

/// Keeps a batch's dead letters and new ids, if the partitions are still ours. Gives the places of records that are repeats.
pub async fn keep(
    database: &Database,
    ledger: &Ledger,
    batch: &Batch,
    partitions: &[&Partition],
) -> Result<Places, SinkError> {
    const ACTION: &str = "keeping dead letters";
    let mut candidates = Candidate::of_events(&batch.events);
    candidates.extend(batch.others.iter().filter_map(Candidate::of_other));
    if batch.dead.is_empty() && candidates.is_empty() {
        return Ok(Places::new());
    }
    let mut client = database.get().await?;
    let transaction = client.transaction().await.during(ACTION)?;
    ledger.hold(&*transaction, partitions).await?;
    dead_letters::insert_undecodable(&*transaction, ledger.lane(), &batch.dead).await?;
    let repeats = repeats::notice(&*transaction, ledger.lane(), candidates).await?;
    transaction.commit().await.during(ACTION)?;
    Ok(repeats)
}

/// Keeps events that the sink refused for what they hold as dead letters, if the partitions are still ours.
pub async fn refuse(
    database: &Database,
    ledger: &Ledger,
    refused: &[Refused],
    partitions: &[&Partition],
    policy: &RecordPolicy,
) -> Result<(), SinkError> {
    const ACTION: &str = "keeping dead letters";
    if refused.is_empty() {
        return Ok(());
    }
    let mut client = database.get().await?;
    let transaction = client.transaction().await.during(ACTION)?;
    ledger.hold(&*transaction, partitions).await?;
    dead_letters::insert_refused(&*transaction, ledger.lane(), refused, policy).await?;
    Ok(transaction.commit().await.during(ACTION)?)
}

/// Drops dead letters of a batch that was never committed: this process may be able to decode what the last one could not,
/// and then the record would be both in the sink and dead. If not, its own batch keeps them again.
pub async fn drop_provisional(database: &Database, ledger: &Ledger, claims: &[&Claim]) -> Result<(), SinkError> {
    const ACTION: &str = "dropping dead letters of an unfinished batch";
    let mut client = database.get().await?;
    let transaction = client.transaction().await.during(ACTION)?;
    let partitions: Vec<&Partition> = claims.iter().map(|claim| &claim.partition).collect();
    ledger.hold(&*transaction, &partitions).await?;
    let from = claims.iter().map(|claim| claim.next_offset.unwrap_or(i64::MIN));
    let from: Vec<(&Partition, i64)> = partitions.into_iter().zip(from).collect();
    dead_letters::drop_from(&*transaction, ledger.lane(), &from).await?;
    Ok(transaction.commit().await.during(ACTION)?)
}

/// Keeps a dead letter that was tried again, with the reason of today, if its partition is still ours.
pub async fn fail_again(
    database: &Database,
    ledger: &Ledger,
    letter: &DeadLetter,
    reason: &str,
    policy: &RecordPolicy,
) -> Result<(), SinkError> {
    const ACTION: &str = "keeping a dead letter";
    let record = dead_letters::to_record(letter);
    let mut client = database.get().await?;
    let transaction = client.transaction().await.during(ACTION)?;
    ledger.hold(&*transaction, &[&record.partition]).await?;
    dead_letters::fail_again(&*transaction, letter, reason, policy).await?;
    Ok(transaction.commit().await.during(ACTION)?)
}

/// What of a batch goes into the sink.
#[must_use]
pub fn without<'a>(batch: &'a Batch, repeats: &Places) -> (Vec<&'a Located>, Vec<&'a Located<OtherEvent>>) {
    let events = batch.events.iter().filter(|located| !repeats::are_at(repeats, &located.record));
    let others = batch.others.iter().filter(|located| !repeats::are_at(repeats, &located.record));
    (events.collect(), others.collect())
}

/// A dead letter as a batch of its own, if it is an event after all.
pub fn redriven(record: Record) -> Result<Batch, DecodeError> {
    let mut batch = Batch::default();
    match wire::decode_any(&record.payload)? {
        Decoded::Event(event) => batch.events.push(Located { record, event }),
        Decoded::Other(event) => batch.others.push(Located { record, event }),
    }
    Ok(batch)
}
