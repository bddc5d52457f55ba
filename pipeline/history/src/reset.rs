//! What `weir ledger reset` does to history.

use deltalake_core::kernel::Transaction;
use weir_engine::Partition;

use crate::sink::commit;
use crate::table::{HistoryError, HistoryRoot, HistoryTable, during, transaction_id};

/// Sets the log's next offsets to `to`, so that it agrees with a ledger that someone set. An offset goes back only where history
/// holds nothing of the partition, as when its table was moved aside; returns for each partition whether that is so. Lanes may run
/// meanwhile: after a commit of theirs it tries again.
pub async fn reset(root: &HistoryRoot, lane: &str, to: &[(Partition, i64)]) -> Result<Vec<bool>, HistoryError> {
    const TRIES: usize = 20;
    let mut tries = 0;
    loop {
        match reset_once(root, lane, to).await {
            Err(Reset::Conflict(_)) if tries < TRIES => tries += 1,
            Err(Reset::Conflict(error) | Reset::Refused(error)) => return Err(error),
            Ok(empty) => return Ok(empty),
        }
    }
}

enum Reset {
    Conflict(HistoryError),
    Refused(HistoryError),
}

async fn reset_once(root: &HistoryRoot, lane: &str, to: &[(Partition, i64)]) -> Result<Vec<bool>, Reset> {
    const ACTION: &str = "resetting history";
    let mut table = HistoryTable::open_or_create(root).await.map_err(Reset::Refused)?;
    let (mut transactions, mut empty) = (Vec::new(), Vec::new());
    for (partition, offset) in to {
        let id = transaction_id(lane, partition);
        let stands_at = table.transaction(&id).await.map_err(Reset::Refused)?;
        if stands_at.is_some_and(|version| version > *offset) {
            return Err(Reset::Refused(during(ACTION)(format!(
                "history holds what comes after {offset} of {partition} already: it goes forward only, or would hold it twice"
            ))));
        }
        empty.push(stands_at.is_none());
        transactions.push(Transaction::new(&id, *offset));
    }
    let version = commit(&mut table, &[], transactions).await.map_err(Reset::Conflict)?;
    table.sync(&[], version).await.map_err(Reset::Refused)?;
    Ok(empty)
}
