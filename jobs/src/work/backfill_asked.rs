//! What a backfill is asked for: which rows, out of what, how fast.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use weir_engine::BoxError;
use weir_history::Filter;
use weir_model::{EventType, OTHER_EVENT};
use weir_query::moment;
use weir_verify::{Fill, FillFrom};

/// How long a slice is at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SliceLength {
    /// An hour
    Hour,
    /// A day
    Day,
    /// Seven days
    Week,
    /// Thirty days
    Month,
}

impl SliceLength {
    pub(super) fn millis(self) -> i64 {
        const HOUR: i64 = 3_600_000;
        match self {
            Self::Hour => HOUR,
            Self::Day => 24 * HOUR,
            Self::Week => 7 * 24 * HOUR,
            Self::Month => 30 * 24 * HOUR,
        }
    }
}

/// Out of what a sink is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Source {
    /// The event store; for a lane that reads topics, of what those hold no longer
    Events,
    /// The topics
    Kafka,
    /// History, which holds every record under its own coordinates
    History,
}

/// Which rows are inserted again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reprocess {
    /// Those that are not there
    #[default]
    Missing,
    /// The lane's dead letters that history holds
    Failed,
    /// Every row, as this build reads it
    All,
}

/// What was asked for, as it is kept with the run.
#[derive(Debug, Clone, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Backfill {
    /// Recorded at or after.
    pub(crate) from: Option<String>,
    /// Recorded before.
    pub(crate) to: Option<String>,
    /// Of these types only.
    pub(crate) event_types: Vec<String>,
    /// Of this tenant only.
    pub(crate) tenant: Option<String>,
    /// `None`: ClickHouse out of history, history out of event store and topics.
    pub(crate) source: Option<Source>,
    pub(crate) reprocess: Reprocess,
    /// How long a slice is at most; `None` for as long as its rows are few enough.
    pub(crate) slice: Option<SliceLength>,
    /// Slices at a time.
    pub(crate) concurrency: Option<usize>,
    /// Rows a second at most.
    pub(crate) rate: Option<u64>,
    pub(crate) newest_first: bool,
}

impl Backfill {
    /// What is wrong with it, before anything is touched.
    pub(crate) fn filter(&self) -> Result<Filter, BoxError> {
        let positions = |text: &Option<String>| text.as_ref().and_then(|text| text.parse::<i64>().ok());
        let (from_position, below_position) = (positions(&self.from), positions(&self.to));
        if let (Some(from), Some(below)) = (from_position, below_position)
            && from >= below
        {
            return Err(format!(
                "the range from position {from} to {below} is empty: --to is the first that is left out"
            )
            .into());
        }
        let at = |name: &str, text: &Option<String>| {
            let times = text.as_ref().filter(|text| text.parse::<i64>().is_err());
            times
                .map(|text| {
                    moment(text).map_err(|error| format!("--{name} {text}: {error}, or a position in the event store"))
                })
                .transpose()
        };
        let (from, to) = (at("from", &self.from)?, at("to", &self.to)?);
        if let (Some(from), Some(to)) = (from, to)
            && from >= to
        {
            return Err(
                format!("the range from {from} to {to} is empty: --to is the first moment that is left out").into()
            );
        }
        for name in &self.event_types {
            if name != OTHER_EVENT && name.parse::<EventType>().is_err() {
                let known: Vec<&str> = EventType::ALL.iter().map(|known| known.as_str()).collect();
                return Err(format!(
                    "--event-type {name}: there are {}, and {OTHER_EVENT} for all others",
                    known.join(", ")
                )
                .into());
            }
        }
        if self.concurrency == Some(0) || self.rate == Some(0) {
            return Err("--concurrency and --rate are at least 1".into());
        }
        let (event_types, tenant) = (self.event_types.clone(), self.tenant.clone());
        Ok(Filter { from, to, from_position, below_position, event_types, tenant })
    }

    /// The same of history, whose sources are read from end to end.
    pub(crate) fn fill(&self) -> Result<(Fill, FillFrom), BoxError> {
        let filter = self.filter()?;
        if self.reprocess != Reprocess::Missing {
            return Err(
                "history is filled with what is missing only; `weir rebuild history` writes all of it again".into()
            );
        }
        if self.source == Some(Source::History) {
            return Err("history cannot be filled out of itself: --source events, kafka, or both without it".into());
        }
        self.refuse_order("history is filled")?;
        Ok((Fill::Missing(filter), self.fill_from().unwrap_or_default()))
    }

    /// The sources whose own order rows come in; `None` for history, which is read in slices.
    pub(crate) fn fill_from(&self) -> Option<FillFrom> {
        match self.source {
            Some(Source::Events) => Some(FillFrom::EventStore),
            Some(Source::Kafka) => Some(FillFrom::Topics),
            Some(Source::History) | None => None,
        }
    }

    /// What cannot be chosen where rows come in the order of their sources.
    fn refuse_order(&self, what: &str) -> Result<(), BoxError> {
        if self.concurrency.is_some_and(|n| n > 1) || self.newest_first || self.slice.is_some() {
            return Err(format!(
                "{what} in the order of its sources: without --concurrency, --newest-first and --slice"
            )
            .into());
        }
        Ok(())
    }

    /// What is wrong with a backfill of ClickHouse, before anything is touched.
    pub(crate) fn check(&self) -> Result<(), BoxError> {
        self.filter()?;
        if self.fill_from().is_none() {
            return Ok(());
        }
        if self.reprocess == Reprocess::Failed {
            return Err("dead letters are inserted out of history: without --source events or kafka".into());
        }
        self.refuse_order("out of event store or topics ClickHouse is filled")
    }

    /// A name for what was asked for, of this table: how fast and in which order does not matter.
    pub(super) fn plan(&self, table: &str) -> String {
        let said = Self { concurrency: None, rate: None, newest_first: false, ..self.clone() };
        let text = serde_json::to_string(&said).unwrap_or_default() + table;
        format!("backfill-clickhouse {}", hex::encode(&Sha256::digest(text.as_bytes())[..16]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_ranges_are_refused_in_words() {
        let refused = |asked: Backfill| asked.filter().expect_err("refused").to_string();
        let some = |text: &str| Some(text.to_owned());
        let reversed = Backfill { from: some("2024-02-01"), to: some("2024-01-01"), ..Backfill::default() };
        assert!(refused(reversed).contains("is empty"));
        let wrong = Backfill { from: some("yesterday"), ..Backfill::default() };
        assert!(refused(wrong).contains("write 2024-01-31"));
        let unknown = Backfill { event_types: vec!["Nothing".to_owned()], ..Backfill::default() };
        assert!(refused(unknown).contains("TaskCompleted"));
    }

    #[test]
    fn the_plan_is_what_is_filled_not_how_fast() {
        let asked = Backfill { from: Some("2024-01-01".to_owned()), ..Backfill::default() };
        let slower = Backfill { rate: Some(5), newest_first: true, ..asked.clone() };
        assert_eq!(asked.plan("a table"), slower.plan("a table"));
        assert_ne!(asked.plan("a table"), Backfill::default().plan("a table"));
        assert_ne!(asked.plan("a table"), asked.plan("one that was made again"));
    }
}
