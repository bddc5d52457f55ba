//! ClickHouse against what it should hold, and its rollups against a recount.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use weir_clickhouse::ClickHouse;
use weir_engine::{Partition, Span};
use weir_history::rows::Coordinates;
use weir_history::verify::{Placed, Relocate, left_out};
use weir_model::Timestamp;
use weir_model::wire::Decoded;
use weir_postgres::{Database, Ledger};

use crate::expected::{Expected, is_expired};
use crate::fold::partition_of;
use crate::lost::{Lost, Places};
use crate::{CLICKHOUSE, Comparison, Cut, Cuts, Report, Sources, VerifyError, compare_columnar};

/// How many times at most a rollup is compared, [`AGAIN_AFTER`] apart, before a difference is reported.
const ATTEMPTS_MAX: usize = 5;
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// For each partition the offsets whose rows may not be in the rollups yet: from the ledger's `done_below` on.
async fn counted_below(database: &Database) -> Result<Vec<Span>, VerifyError> {
    let rows = Ledger::rows(&**database.get().await?).await?;
    let of_lane = rows.into_iter().filter(|row| row.lane == CLICKHOUSE);
    let open = of_lane.map(|row| {
        let start = row.done_below().unwrap_or(0);
        // Behind a retired one's end stand events that stand in for records of topics.
        let end = row.retired_at.and(row.next_offset).unwrap_or(i64::MAX);
        Span { partition: row.partition, start, end, position: None }
    });
    Ok(open.collect())
}

/// Adds the lane to the report, where it has applied anything.
pub(crate) async fn compare(
    report: &mut Report,
    (database, server): (&Database, Option<&ClickHouse>),
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
    let within = Places { lost: lost.clone(), event_store: sources.event_store.clone() };
    let open = Mutex::new(expected.expired_minutes.clone());
    let places = BelowTheLedger { cuts, within, kept: sources.kept, open };
    let (sender, receiver) = left_out();
    // Rows without a place elsewhere are compared where they are.
    drop(receiver);
    let hashes = server.hashes_at(&places, sender).await?;
    compare_columnar(report, CLICKHOUSE, expected, hashes);
    let open = places.open.into_inner().unwrap_or_else(PoisonError::into_inner);
    compare_rollups(report, database, server, &open).await
}

/// Compares only rows below the ledger's offset: the view also holds rows that were inserted a moment ago.
struct BelowTheLedger<'a> {
    cuts: &'a Cuts,
    within: Places,
    kept: Option<Timestamp>,
    /// Minutes since 1970 of events whose rows were skipped, or may be gone by the TTL: their rollups are not compared.
    open: Mutex<BTreeSet<i64>>,
}

impl Relocate for BelowTheLedger<'_> {
    fn of(&self, at: Coordinates, event: &Decoded) -> Placed {
        let partition: Partition = partition_of(&at);
        let cut = self.cuts.get(&(CLICKHOUSE, partition.clone()));
        let (timestamp, recorded_at) = match event {
            Decoded::Event(event) => (event.timestamp, event.recorded_at),
            Decoded::Other(event) => (event.timestamp, event.recorded_at),
        };
        let stands_in = partition == self.within.event_store && self.within.lost.lanes.contains(CLICKHOUSE);
        let is_beyond = |cut: &Cut| at.offset >= cut.below && !stands_in;
        let is_passed_over = cut.is_some_and(|cut| is_beyond(cut) || cut.redriven.contains(&at.offset))
            || is_expired(self.kept, recorded_at);
        if is_passed_over {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.insert(timestamp.as_millis().div_euclid(60_000));
            return Placed::Skipped;
        }
        match self.within.of(at.clone(), event) {
            Placed::LeftOut => Placed::At(at),
            placed @ (Placed::At(_) | Placed::Skipped) => placed,
        }
    }
}

/// Compares each rollup with a recount, without the minutes (since 1970) in `open` and those of rows that the ledger does not call
/// counted. The ledger is asked before the recount and the table after it, so a row that only the recount sees is in such a minute.
async fn compare_rollups(
    report: &mut Report,
    database: &Database,
    server: &ClickHouse,
    open: &BTreeSet<i64>,
) -> Result<(), VerifyError> {
    let mut counted = counted_below(database).await?;
    for mut check in server.check_rollups().await? {
        for attempt in 1..=ATTEMPTS_MAX {
            check.different.retain(|minute| !open.contains(minute));
            if !check.different.is_empty() {
                let waiting = server.minutes_of(&counted).await?;
                check.different.retain(|minute| !waiting.contains(minute));
            }
            if check.different.is_empty() || attempt == ATTEMPTS_MAX {
                break;
            }
            // A record that was redriven is counted a moment after it was inserted.
            tokio::time::sleep(AGAIN_AFTER).await;
            counted = counted_below(database).await?;
            check.different = server.differ_still(&check).await?;
        }
        if !check.different.is_empty() {
            report.differences.push(format!(
                "clickhouse: {} minutes of {} are not what a recount gives; the first begins at {} s after 1970",
                check.different.len(),
                check.table,
                check.different.first().map_or(0, |minute| minute * 60)
            ));
        }
        let (rows, hash) = check.held;
        let recounted = if check.different.is_empty() { hash.clone() } else { "(otherwise)".to_owned() };
        report.comparisons.push(Comparison {
            lane: CLICKHOUSE,
            subject: check.table.to_owned(),
            expected: rows,
            expected_hash: recounted,
            actual: rows,
            actual_hash: hash,
            dead_letters: 0,
            repeats: 0,
        });
    }
    Ok(())
}
