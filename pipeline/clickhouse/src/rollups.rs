//! The sums per minute, computed anew from the view for the minutes that an insert touched.
//!
//! Two processes may compute one minute at once. Both inserted before they read, so whoever reads last sees the rows of both, and
//! counts most; the tables keep, of each key, the row that counted most.

use std::collections::BTreeSet;

use crate::error::ClickHouseError;
use crate::server::ClickHouse;

/// Minutes in one statement. More of them are taken as what lies between the first and the last.
const MINUTES_MAX: usize = 2000;

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

/// The condition on the time: in one of these minutes since 1970.
fn condition(minutes: &BTreeSet<i64>) -> String {
    let at = |minute: i64| format!("toDateTime64({}, 3, 'UTC')", minute * 60);
    let (first, last) = (minutes.first().copied().unwrap_or(0), minutes.last().copied().unwrap_or(0));
    // The range lets whole parts of the table be left out.
    let range = format!("`timestamp` >= {} AND `timestamp` < {}", at(first), at(last + 1));
    if minutes.len() > MINUTES_MAX {
        return range;
    }
    let list: Vec<String> = minutes.iter().map(ToString::to_string).collect();
    format!("{range} AND intDiv(toUnixTimestamp64Milli(`timestamp`), 60000) IN ({})", list.join(", "))
}

fn select(server: &ClickHouse, template: &str, condition: &str) -> String {
    let view = format!("{}.analytics_events", server.database());
    template.replace("{view}", &view).replace("{minutes}", condition).replace("{minute}", MINUTE)
}

/// Computes these minutes anew.
pub(crate) async fn recompute(server: &ClickHouse, minutes: &BTreeSet<i64>) -> Result<(), ClickHouseError> {
    const ACTION: &str = "computing rollups in ClickHouse";
    let condition = condition(minutes);
    for (table, template) in ROLLUPS {
        let select = select(server, template, &condition);
        let sql = format!("INSERT INTO {}.{table} SETTINGS async_insert = 0 {select}", server.database());
        server.execute(ACTION, &sql).await?;
    }
    Ok(())
}

/// A rollup against a recount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollupCheck {
    /// Its table.
    pub table: &'static str,
    /// Rows and a hash of them, as counted anew from the view.
    pub recounted: (u64, String),
    /// Rows and hash of the table.
    pub held: (u64, String),
}

impl ClickHouse {
    /// How many rollups there are.
    #[must_use]
    pub fn rollup_count(&self) -> usize {
        ROLLUPS.len()
    }

    /// Counts every rollup anew.
    pub async fn check_rollups(&self) -> Result<Vec<RollupCheck>, ClickHouseError> {
        let mut checks = Vec::new();
        for (table, template) in ROLLUPS {
            let recount = select(self, template, "1");
            let held = format!("SELECT * FROM {}.{table} FINAL", self.database());
            checks.push(RollupCheck { table, recounted: self.sum(&recount).await?, held: self.sum(&held).await? });
        }
        Ok(checks)
    }

    async fn sum(&self, select: &str) -> Result<(u64, String), ClickHouseError> {
        const ACTION: &str = "counting rollups in ClickHouse anew";
        let sql = format!("SELECT count(), hex(sum(cityHash64(*))) FROM ({select})");
        let row = self.rows(ACTION, &sql).await?.pop().unwrap_or_default();
        let [count, hash] = &row[..] else { return Err(ClickHouseError::new(ACTION, "no answer", "")) };
        Ok((count.parse().unwrap_or(0), hash.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_minutes_are_one_range() {
        let few = condition(&BTreeSet::from([0, 7]));
        assert!(few.contains(">= toDateTime64(0, 3, 'UTC')") && few.ends_with("IN (0, 7)"), "{few}");
        let many = condition(&(0..5000).collect());
        assert!(many.ends_with("< toDateTime64(300000, 3, 'UTC')"), "{many}");
    }
}
