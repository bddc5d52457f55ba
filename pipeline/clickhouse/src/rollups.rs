//! The sums per minute, computed again from the view for the minutes that inserts touched.
//!
//! Two processes may compute one minute at once. Both inserted before they read, so the one that reads last sees the rows of both, and
//! counts most; the tables keep, of each key, the row that counted most.

use std::collections::BTreeSet;

use futures::future::join_all;
use weir_engine::Span;
use weir_model::Timestamp;

use crate::error::ClickHouseError;
use crate::schema::TABLE;
use crate::server::{ClickHouse, literal};

/// Runs of minutes in one statement.
const RUNS_MAX: usize = 100;

/// Each rollup, from the view `{view}` where the time is in the minutes.
const ROLLUPS: [(&str, &str); 4] = [
    (
        "events_per_minute",
        "SELECT tenant, event_type, {minute} AS minute, count() FROM {view} WHERE {minutes} \
         GROUP BY tenant, event_type, minute",
    ),
    (
        "sessions_per_minute",
        "SELECT tenant, {minute} AS minute, count(), uniqExact(user_id) FROM {view} \
         WHERE event_type = 'LearningSessionStarted' AND {minutes} GROUP BY tenant, minute",
    ),
    (
        "assessments_per_minute",
        "SELECT tenant, {minute} AS minute, count(), countIf(passed) FROM {view} \
         WHERE event_type = 'AssessmentCompleted' AND {minutes} GROUP BY tenant, minute",
    ),
    (
        "executions_per_minute",
        "SELECT tenant, assumeNotNull(agent_id) AS agent, {minute} AS minute, count(), \
         quantileExactInclusive(0.5)(assumeNotNull(execution_time)), quantileExactInclusive(0.9)(assumeNotNull(execution_time)), \
         quantileExactInclusive(0.99)(assumeNotNull(execution_time)) FROM {view} \
         WHERE event_type = 'TaskCompleted' AND agent_id IS NOT NULL AND execution_time IS NOT NULL AND {minutes} \
         GROUP BY tenant, agent, minute",
    ),
];

/// Exact for every year, where `toStartOfMinute` ends with 2106.
const MINUTE: &str = "fromUnixTimestamp64Milli(intDiv(toUnixTimestamp64Milli(`timestamp`), 60000) * 60000, 'UTC')";

/// The condition on a time: within runs of minutes since 1970, so that the sort key leaves out what lies between. Gaps that would
/// make too many runs are taken along, the narrow ones first.
fn condition(column: &str, minutes: &BTreeSet<i64>) -> String {
    let list: Vec<i64> = minutes.iter().copied().collect();
    let mut gaps: Vec<i64> = list.windows(2).map(|pair| pair[1] - pair[0]).collect();
    gaps.sort_unstable_by(|a, b| b.cmp(a));
    let bridged = gaps.get(RUNS_MAX - 1).copied().unwrap_or(1);
    let at = |minute: i64| format!("toDateTime64({}, 3, 'UTC')", minute * 60);
    let run = |run: &[i64]| {
        let (first, last) = (run[0], run[run.len() - 1]);
        format!("({column} >= {} AND {column} < {})", at(first), at(last + 1))
    };
    let runs: Vec<String> = list.chunk_by(|a, b| b - a <= bridged).map(run).collect();
    format!("({})", runs.join(" OR "))
}

fn select(server: &ClickHouse, template: &str, condition: &str) -> String {
    select_from(server, "analytics_events", template, condition)
}

fn select_from(server: &ClickHouse, view: &str, template: &str, condition: &str) -> String {
    let view = format!("{}.{view}", server.database());
    template.replace("{view}", &view).replace("{minutes}", condition).replace("{minute}", MINUTE)
}

/// The tables.
pub(crate) fn tables() -> impl Iterator<Item = &'static str> {
    ROLLUPS.into_iter().map(|(table, _)| table)
}

/// Computes all minutes of a view into tables of the same columns, which `to` names. Minutes whose events a TTL may have taken keep their counts.
pub(crate) async fn compute_all(
    server: &ClickHouse,
    view: &str,
    to: impl Fn(&str) -> String,
) -> Result<(), ClickHouseError> {
    const ACTION: &str = "computing rollups in ClickHouse";
    let database = server.database();
    for (table, template) in ROLLUPS {
        let (select, to) = (select_from(server, view, template, "1"), to(table));
        server.execute_long(ACTION, &format!("INSERT INTO {database}.{to} SETTINGS async_insert = 0 {select}")).await?;
        if let Some(kept) = server.kept_from() {
            let old = format!("toUnixTimestamp64Milli(minute) < {}", kept.as_millis());
            let sql = format!(
                "INSERT INTO {database}.{to} SETTINGS async_insert = 0 SELECT * FROM {database}.{table} FINAL WHERE {old}"
            );
            server.execute_long(ACTION, &sql).await?;
        }
    }
    Ok(())
}

/// Computes these minutes again.
pub(crate) async fn recompute(server: &ClickHouse, minutes: &BTreeSet<i64>) -> Result<(), ClickHouseError> {
    const ACTION: &str = "computing rollups in ClickHouse";
    let condition = condition("`timestamp`", minutes);
    let computing = ROLLUPS.map(|(table, template)| {
        let select = select(server, template, &condition);
        let sql = format!("INSERT INTO {}.{table} SETTINGS async_insert = 0 {select}", server.database());
        async move { server.execute(ACTION, &sql).await }
    });
    // All of them to their ends, also when one fails.
    join_all(computing).await.into_iter().collect()
}

/// A rollup against a recount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollupCheck {
    /// Its table.
    pub table: &'static str,
    /// Rows that it holds, and a hash of them.
    pub held: (u64, String),
    /// Minutes since 1970 in which a recount gives something else: rows of one that the other has not.
    pub different: BTreeSet<i64>,
}

impl ClickHouse {
    /// Counts again what happened from one moment to another, and writes the sums that are not so in the rollups: of rows that came by another way
    /// than the lane's. Whatever was not counted because a process died, is. A month at a time, which bounds the server's memory.
    pub async fn mend_rollups(&self, (first, last): (Timestamp, Timestamp)) -> Result<(), ClickHouseError> {
        const ACTION: &str = "computing rollups in ClickHouse";
        const STRETCH: i64 = 30 * 24 * 60;
        let minute = |at: Timestamp| at.as_millis().div_euclid(60_000);
        let (mut from, end) = (minute(first), minute(last) + 1);
        while from < end {
            let to = (from + STRETCH).min(end);
            let within = |column: &str| {
                let at = |minute: i64| format!("fromUnixTimestamp64Milli({}, 'UTC')", minute * 60_000);
                format!("{column} >= {} AND {column} < {}", at(from), at(to))
            };
            for (table, template) in ROLLUPS {
                let recount = select(self, template, &within("`timestamp`"));
                let table = format!("{}.{table}", self.database());
                let held = format!("SELECT * FROM {table} FINAL WHERE {}", within("minute"));
                // In parentheses of a FROM, as servers of before 26.2 want them.
                let sql = format!(
                    "INSERT INTO {table} SETTINGS async_insert = 0 SELECT * FROM (({recount}) EXCEPT ({held}))"
                );
                self.execute_long(ACTION, &sql).await?;
            }
            from = to;
        }
        Ok(())
    }

    /// The minutes of the rows of these spans.
    pub async fn minutes_of(&self, spans: &[Span]) -> Result<BTreeSet<i64>, ClickHouseError> {
        if spans.is_empty() {
            return Ok(BTreeSet::new());
        }
        let of_span = |Span { partition, start, end, .. }: &Span| {
            format!(
                "(source = {} AND topic = {} AND `partition` = {} AND `offset` >= {start} AND `offset` < {end})",
                literal(&partition.source),
                literal(&partition.topic),
                partition.number
            )
        };
        let conditions: Vec<String> = spans.iter().map(of_span).collect();
        let sql = format!(
            "SELECT DISTINCT intDiv(toUnixTimestamp64Milli(`timestamp`) - if(toUnixTimestamp64Milli(`timestamp`) < 0, 59999, 0), 60000)          FROM {}.{TABLE} WHERE {}",
            self.database(),
            conditions.join(" OR ")
        );
        let rows = self.rows("looking for minutes whose rollups are open", &sql).await?;
        Ok(rows.iter().filter_map(|row| row.first()?.parse().ok()).collect())
    }

    /// Counts every rollup again.
    pub async fn check_rollups(&self) -> Result<Vec<RollupCheck>, ClickHouseError> {
        let mut checks = Vec::new();
        for (table, template) in ROLLUPS {
            let different = self.differences(table, template, "1", "1").await?;
            checks.push(RollupCheck { table, held: self.sum(table).await?, different });
        }
        Ok(checks)
    }

    /// Of these minutes of a rollup, those that differ now: a minute is computed a moment after its rows were inserted.
    pub async fn differ_still(&self, check: &RollupCheck) -> Result<BTreeSet<i64>, ClickHouseError> {
        let Some((table, template)) = ROLLUPS.iter().find(|(table, _)| *table == check.table) else {
            return Ok(BTreeSet::new());
        };
        let (of_events, of_rows) = (condition("`timestamp`", &check.different), condition("minute", &check.different));
        let still = self.differences(table, template, &of_events, &of_rows).await?;
        Ok(still.intersection(&check.different).copied().collect())
    }

    async fn differences(
        &self,
        table: &str,
        template: &str,
        events: &str,
        rows: &str,
    ) -> Result<BTreeSet<i64>, ClickHouseError> {
        const ACTION: &str = "counting rollups in ClickHouse again";
        let recount = select(self, template, events);
        let held = format!("SELECT * FROM {}.{table} FINAL WHERE {rows}", self.database());
        let key = "SELECT DISTINCT intDiv(toUnixTimestamp64Milli(minute), 60000) FROM";
        let sql = format!("{key} (({recount}) EXCEPT ({held})) UNION DISTINCT {key} (({held}) EXCEPT ({recount}))");
        let found = self.rows(ACTION, &sql).await?;
        Ok(found.iter().filter_map(|row| row.first()?.parse().ok()).collect())
    }

    async fn sum(&self, table: &str) -> Result<(u64, String), ClickHouseError> {
        const ACTION: &str = "counting rollups in ClickHouse again";
        let sql = format!("SELECT count(), hex(sum(cityHash64(*))) FROM {}.{table} FINAL", self.database());
        let row = self.rows(ACTION, &sql).await?.pop().unwrap_or_default();
        let [count, hash] = &row[..] else { return Err(ClickHouseError::new(ACTION, "no answer", "")) };
        Ok((count.parse().unwrap_or(0), hash.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_are_runs_and_the_narrowest_gaps_are_taken_along() {
        let condition = |minutes| condition("t", &minutes);
        let few = condition(BTreeSet::from([0, 1, 2, 7]));
        let run =
            |from: i64, to: i64| format!("(t >= toDateTime64({from}, 3, 'UTC') AND t < toDateTime64({to}, 3, 'UTC'))");
        assert_eq!(few, format!("({} OR {})", run(0, 180), run(420, 480)));
        assert_eq!(condition(BTreeSet::from([5])), format!("({})", run(300, 360)));
        // Gaps of 1, 2, … 200 minutes: the widest stay.
        let widening = condition((0..=200_i64).map(|n| n * (n + 1) / 2).collect());
        assert_eq!(widening.matches(" OR ").count(), RUNS_MAX - 1);
        assert!(widening.starts_with(&format!("({} OR ", run(0, (101 * 102 / 2 + 1) * 60))), "{widening}");
        // A stray one far away stays alone.
        let stray = condition((0..5000).map(|n| n * 2).chain([1_000_000]).collect());
        assert_eq!(stray, format!("({} OR {})", run(0, 9999 * 60), run(60_000_000, 60_000_060)));
    }
}
