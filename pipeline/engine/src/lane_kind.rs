//! The lanes that weir has of its own, declared once: settings, starting, status, ledger, verification and the HTTP side's document take
//! them from here.

use std::fmt;
use std::str::FromStr;

/// A lane of weir's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LaneKind {
    /// Tables in Postgres, of which each row is folded from the events of one thing.
    ReadModels,
    /// Counters and histograms, which only add up.
    Metrics,
    /// Every record in a Delta table.
    History,
    /// Every record in ClickHouse.
    ClickHouse,
}

impl LaneKind {
    /// Every one, in the order in which they are shown.
    pub const ALL: [Self; 4] = [Self::ReadModels, Self::Metrics, Self::History, Self::ClickHouse];

    /// [`Self::name`] of each.
    pub const NAMES: [&str; 4] =
        [Self::ReadModels.name(), Self::Metrics.name(), Self::History.name(), Self::ClickHouse.name()];

    /// The name in settings, ledger, metrics and commands.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadModels => "read-models",
            Self::Metrics => "metrics",
            Self::History => "history",
            Self::ClickHouse => "clickhouse",
        }
    }

    /// Whether it keeps every record by its coordinates, those of unknown types included.
    #[must_use]
    pub const fn keeps_every_record(self) -> bool {
        match self {
            Self::ReadModels | Self::Metrics => false,
            Self::History | Self::ClickHouse => true,
        }
    }

    /// Whether its ledger in Postgres is the authority on how far it is; the Delta table's log is history's.
    #[must_use]
    pub const fn counts_in_postgres(self) -> bool {
        match self {
            Self::ReadModels | Self::Metrics | Self::ClickHouse => true,
            Self::History => false,
        }
    }

    /// Whether a record that comes again changes nothing, so that its ledger may be set back.
    #[must_use]
    pub const fn takes_records_again(self) -> bool {
        match self {
            Self::ReadModels | Self::Metrics => false,
            Self::History | Self::ClickHouse => true,
        }
    }
}

impl fmt::Display for LaneKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// No lane of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no lane `{name}`; there are {}", LaneKind::NAMES.join(", "))]
pub struct UnknownLane {
    /// What was given.
    pub name: String,
}

impl FromStr for LaneKind {
    type Err = UnknownLane;

    fn from_str(name: &str) -> Result<Self, UnknownLane> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| UnknownLane { name: name.to_owned() })
    }
}
