//! How far history goes, and what it left out below that.

use std::collections::{BTreeSet, HashMap};

use weir_engine::Partition;
use weir_history::{HistoryRoot, HistoryTable, redrive_id, transaction_id};
use weir_postgres::{Database, DbError, LedgerRow, dead_letters, repeats};

use crate::{Cut, HISTORY, VerifyError};

/// How often a moving set of dead letters is read again before the difference is reported.
pub(crate) const ATTEMPTS_MAX: usize = 5;

/// Dead letters of the lane by partition and offset, and whether a redrive was asked for.
pub(crate) type DeadLetters = HashMap<Partition, HashMap<i64, bool>>;

/// Where the ledger says more than the table's log.
pub(crate) fn ahead_of_history(rows: &[LedgerRow], cuts: &HashMap<Partition, Cut>) -> Vec<String> {
    let of_history = rows.iter().filter(|row| row.lane == HISTORY);
    let below = |partition| cuts.get(partition).map_or(0, |cut: &Cut| cut.below);
    of_history
        .filter(|row| row.next_offset.unwrap_or(0) > below(&row.partition))
        .map(|row| {
            format!(
                "history: the ledger says everything below {} of {} is there, but the table's log ends at {}",
                row.next_offset.unwrap_or(0),
                row.partition,
                below(&row.partition)
            )
        })
        .collect()
}

/// The lane's dead letters now.
pub(crate) async fn dead_now(database: &Database) -> Result<DeadLetters, DbError> {
    let client = database.get().await?;
    dead_letters::offsets(&**client, HISTORY).await
}

/// A version of the table, how far it goes, and the dead letters that belong to it. Those are kept before the commit that
/// passes them and removed after the commit that redrives them, so a set that stands still around the reading fits.
pub(crate) async fn history_cuts(
    database: &Database,
    history: &HistoryRoot,
    partitions: Vec<Partition>,
) -> Result<(Option<HistoryTable>, HashMap<Partition, Cut>), VerifyError> {
    let from: Vec<(Partition, i64)> = partitions.into_iter().map(|partition| (partition, 0)).collect();
    let mut attempts = 0;
    loop {
        attempts += 1;
        let before = dead_now(database).await?;
        let table = HistoryTable::open(history).await?;
        if let Some(cuts) = cuts_at(database, table.as_ref(), &from, &before, attempts == ATTEMPTS_MAX).await? {
            return Ok((table, cuts));
        }
    }
}

/// How far each partition goes in a snapshot, or that far at least as is said; `None` where the set of dead letters moved since `before`, unless
/// that is taken as it is.
pub(crate) async fn cuts_at(
    database: &Database,
    table: Option<&HistoryTable>,
    partitions: &[(Partition, i64)],
    before: &DeadLetters,
    is_last: bool,
) -> Result<Option<HashMap<Partition, Cut>>, VerifyError> {
    let mut cuts = HashMap::new();
    for (partition, at_least) in partitions {
        let log = match table {
            Some(table) => table.transaction(&transaction_id(HISTORY, partition)).await?.unwrap_or(0),
            None => 0,
        };
        cuts.insert(partition.clone(), Cut { below: log.max(*at_least), ..Cut::default() });
    }
    let after = dead_now(database).await?;
    let mut left_out = {
        let client = database.get().await?;
        repeats::left_out(&**client, HISTORY).await?
    };
    for (partition, cut) in &mut cuts {
        cut.repeats = left_out.remove(partition).unwrap_or_default();
    }
    let within = |dead: &DeadLetters| -> BTreeSet<(Partition, i64)> {
        let of = |(p, offsets): (&Partition, &HashMap<i64, bool>)| {
            let below = cuts.get(p).map_or(0, |cut| cut.below);
            offsets.keys().filter(|o| **o < below).map(|o| (p.clone(), *o)).collect::<Vec<_>>()
        };
        dead.iter().flat_map(of).collect()
    };
    let dead = within(&after);
    if within(before) != dead && !is_last {
        return Ok(None);
    }
    for (partition, offset) in dead {
        // A redrive that died after its commit left the dead letter behind; the table says that it is one no longer.
        let asked = after.get(&partition).and_then(|offsets| offsets.get(&offset)).copied().unwrap_or(false);
        let redriven = match table {
            Some(table) if asked => table.transaction(&redrive_id(HISTORY, &partition, offset)).await?.is_some(),
            Some(_) | None => false,
        };
        if !redriven && let Some(cut) = cuts.get_mut(&partition) {
            cut.dead.insert(offset);
        }
    }
    Ok(Some(cuts))
}
