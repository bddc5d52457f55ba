//! Dead letters tried again: parked keys that are due, and what someone asked for.

use deadpool_postgres::Transaction;
use tokio_postgres::types::ToSql;
use weir_engine::retry::chain;
use weir_engine::{Located, SinkError};
use weir_model::wire::Decoded;

use crate::dead_letters::{DeadLetter, LETTER_COLUMNS, fail_again, letter, resolve, to_record};
use crate::error::{During, ErrorKind};
use crate::ledger::{columns, partition_of};
use crate::owner::PartitionOwner;
use crate::projection::{ApplyError, Projection};

/// Tries the keys that are due: the record that holds each up, then those that wait behind it, in order. Everything of
/// one key, and the proof that the partition is still ours, is one transaction.
pub(crate) async fn retry_due<P: Projection>(owner: &PartitionOwner, projection: &P) -> Result<(), SinkError> {
    const ACTION: &str = "looking for parked keys that are due";
    const DUE: &str = "SELECT source, topic, partition, id, key, decodable AND ordered, tenant FROM dead_letters \
         JOIN unnest($2::text[], $3::text[], $4::int[]) AS p(source, topic, partition) USING (source, topic, partition) \
         WHERE lane = $1 AND (state = 'redrive' OR (state = 'parked' AND retry_at <= now())) ORDER BY id LIMIT 100";
    if owner.partitions().is_empty() {
        return Ok(());
    }
    let mut client = owner.database().get().await?;
    let lane = owner.lane();
    let (sources, topics, numbers) = columns(owner.partitions().iter());
    let values: [&(dyn ToSql + Sync); 4] = [&lane, &sources, &topics, &numbers];
    let due = client.query(DUE, &values).await.during(ACTION)?;
    for row in due {
        let partition = partition_of(&row)?;
        let id: i64 = row.try_get(3).during(ACTION)?;
        let key: Option<String> = row.try_get(4).during(ACTION)?;
        let ordered: bool = row.try_get(5).during(ACTION)?;
        let tenant: Option<String> = row.try_get(6).during(ACTION)?;
        let transaction = client.transaction().await.during(ACTION)?;
        owner.ledger().hold(&*transaction, &[&partition]).await?;
        // A record without key, or one that does not depend on the order, stands for itself alone.
        let behind = if ordered { key } else { None };
        let sql = format!(
            "SELECT {LETTER_COLUMNS} FROM dead_letters WHERE lane = $1 AND source = $2 AND topic = $3 AND partition = $4 \
             AND (id = $5 OR (decodable AND ordered AND key = $6 AND ($7::text IS NULL OR coalesce(tenant, $7) = $7))) ORDER BY place"
        );
        let values: [&(dyn ToSql + Sync); 7] =
            [&lane, &&*partition.source, &&*partition.topic, &partition.number, &id, &behind, &tenant];
        let letters = transaction.query(&sql, &values).await.during(ACTION)?;
        for row in &letters {
            if !try_again(&transaction, &letter(row)?, projection, owner).await? {
                break;
            }
        }
        transaction.commit().await.during(ACTION)?;
    }
    Ok(())
}

/// Applies one dead letter; `false` when it failed again.
async fn try_again<P: Projection>(
    transaction: &Transaction<'_>,
    letter: &DeadLetter,
    projection: &P,
    owner: &PartitionOwner,
) -> Result<bool, SinkError> {
    let policy = owner.policy();
    let record = to_record(letter);
    let event = match record.decode() {
        Ok(Decoded::Event(event)) => event,
        // A build that does not know the type took it for a mistake; such lanes have nothing to do with it.
        Ok(Decoded::Other(_)) => {
            resolve(&**transaction, letter.id).await?;
            return Ok(true);
        }
        Err(error) => {
            fail_again(&**transaction, letter, &error.to_string(), policy).await?;
            return Ok(false);
        }
    };
    // One that decoded when the lane came to it has its verdict.
    if letter.event_type.is_none() && owner.is_repeat(&record).await? {
        resolve(&**transaction, letter.id).await?;
        return Ok(true);
    }
    let located = Located::new(record, event);
    transaction.batch_execute("SAVEPOINT attempt").await.during("setting a savepoint")?;
    let error = match projection.apply(transaction, &[&located]).await {
        Ok(()) => {
            tracing::info!(
                lane = letter.lane, id = letter.id, event_id = %located.event.event_id,
                correlation_id = located.event.metadata.correlation_id.as_deref(),
                causation_id = located.event.metadata.causation_id.as_deref(), "applied after all"
            );
            resolve(&**transaction, letter.id).await?;
            return Ok(true);
        }
        Err(ApplyError::Db(error)) if error.kind() != ErrorKind::Data => return Err(error.into()),
        Err(error) => error,
    };
    transaction.batch_execute("ROLLBACK TO SAVEPOINT attempt").await.during("returning to a savepoint")?;
    fail_again(&**transaction, letter, &chain(&error), policy).await?;
    Ok(false)
}
