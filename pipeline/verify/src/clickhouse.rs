//! ClickHouse against what it should hold, and its rollups against a recount.

use std::collections::HashSet;
use std::time::Duration;

use weir_clickhouse::ClickHouse;
use weir_engine::Partition;
use weir_history::rows::Coordinates;
use weir_history::verify::{Place, Placed, left_out};
use weir_model::wire::Decoded;

use crate::expected::{Expected, Places, partition_of};
use crate::lost::Lost;
use crate::{CLICKHOUSE, Comparison, Cuts, Report, Sources, VerifyError, compare_columnar};

/// A rollup is computed after its rows were inserted: looked at again, so often, before a difference counts.
const ATTEMPTS_MAX: usize = 5;
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Adds the lane to the report, where it has applied anything.
pub(crate) async fn compare(
    report: &mut Report,
    server: Option<&ClickHouse>,
    expected: &Expected,
    cuts: &Cuts,
    lost: &Lost,
    sources: &Sources,
) -> Result<(), VerifyError> {
    if !cuts.iter().any(|((lane, _), cut)| *lane == CLICKHOUSE && cut.below > 0) {
        return Ok(());
    }
    let Some(server) = server else {
        report.differences.push("clickhouse: holds records; set `clickhouse.url` to compare them".to_owned());
        return Ok(());
    };
    let places = BelowTheLedger { cuts, within: Places { lost, event_store: &sources.event_store } };
    let (sender, receiver) = left_out();
    // Rows without a place elsewhere are compared where they are.
    drop(receiver);
    let hashes = server.hashes_at(&places, sender).await?;
    compare_columnar(report, CLICKHOUSE, expected, hashes);
    compare_rollups(report, server).await
}

/// The view holds what was inserted a moment ago too, which no ledger speaks of yet.
struct BelowTheLedger<'a> {
    cuts: &'a Cuts,
    within: Places<'a>,
}

impl Place for BelowTheLedger<'_> {
    fn of(&self, at: Coordinates, event: &Decoded) -> Placed {
        let partition: Partition = partition_of(&at);
        let cut = self.cuts.get(&(CLICKHOUSE, partition));
        if cut.is_some_and(|cut| at.offset >= cut.below || cut.redriven.contains(&at.offset)) {
            return Placed::Skipped;
        }
        match self.within.of(at.clone(), event) {
            Placed::LeftOut => Placed::At(at),
            placed @ (Placed::At(_) | Placed::Skipped) => placed,
        }
    }
}

async fn compare_rollups(report: &mut Report, server: &ClickHouse) -> Result<(), VerifyError> {
    let mut agreed = HashSet::new();
    for attempt in 1..=ATTEMPTS_MAX {
        for check in server.check_rollups().await? {
            let is_last = attempt == ATTEMPTS_MAX;
            if agreed.contains(check.table) || (check.recounted != check.held && !is_last) {
                continue;
            }
            agreed.insert(check.table);
            report.comparisons.push(Comparison {
                lane: CLICKHOUSE,
                subject: check.table.to_owned(),
                expected: check.recounted.0,
                expected_hash: check.recounted.1,
                actual: check.held.0,
                actual_hash: check.held.1,
                dead_letters: 0,
                repeats: 0,
            });
        }
        if agreed.len() == server.rollup_count() {
            break;
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    Ok(())
}
