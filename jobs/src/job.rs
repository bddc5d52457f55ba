//! What jobs there are, and what each can be asked to do.

use std::fmt;

/// A job, by its name in settings, on the command line and over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub(crate) enum Job {
    /// Does every number agree?
    Verify,
    /// The read models again from all that their lane has read, beside those that serve
    RebuildReadModels,
    /// The counters and histograms again, likewise
    RebuildMetrics,
    /// Small files of history made into large ones; then what no reader needs any more is removed
    CompactHistory,
    /// The tables of ClickHouse again out of history, beside those that serve
    RebuildClickhouse,
    /// All of history again from its sources, in the place of what is there
    RebuildHistory,
    /// Rows that history lacks, out of its sources
    BackfillHistory,
    /// Rows that ClickHouse lacks, out of history
    BackfillClickhouse,
    /// What is new in the event store, into the archive
    ArchiveEvents,
    /// Tables that are computed out of the read models, each when it is due
    Workflows,
    /// Old rows about jobs themselves
    Cleanup,
}

impl Job {
    pub(crate) const ALL: [Self; 11] = [
        Self::Verify,
        Self::RebuildReadModels,
        Self::RebuildMetrics,
        Self::CompactHistory,
        Self::RebuildClickhouse,
        Self::RebuildHistory,
        Self::BackfillHistory,
        Self::BackfillClickhouse,
        Self::ArchiveEvents,
        Self::Workflows,
        Self::Cleanup,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::RebuildReadModels => "rebuild-read-models",
            Self::RebuildMetrics => "rebuild-metrics",
            Self::CompactHistory => "compact-history",
            Self::RebuildClickhouse => "rebuild-clickhouse",
            Self::RebuildHistory => "rebuild-history",
            Self::BackfillHistory => "backfill-history",
            Self::BackfillClickhouse => "backfill-clickhouse",
            Self::ArchiveEvents => "archive-events",
            Self::Workflows => "workflows",
            Self::Cleanup => "cleanup",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|job| job.name() == name)
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
