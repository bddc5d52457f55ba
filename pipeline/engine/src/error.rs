//! What a source or a sink could not do, and what that means for the lane.

use crate::record::Partition;

/// A cause from another layer.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a sink did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The outcome is unknown or nothing happened: do the same again later. Never a reason for dead letters.
    #[error("the sink is not available")]
    Retry(#[source] BoxError),
    /// Another owner has these partitions, or is ahead: drop what is in hand and claim again.
    #[error("fenced: another owner has {}", partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Fenced {
        /// For which partitions.
        partitions: Vec<Partition>,
    },
    /// Trying again cannot help: the lane stops and says why.
    #[error("the sink refuses to go on")]
    Fatal(#[source] BoxError),
}

/// A source that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Reading may work later: a database or broker is away.
    #[error("reading the source failed, and is tried again")]
    Retry(#[source] BoxError),
    /// Reading will not work without someone's help.
    #[error("the source cannot be read")]
    Fatal(#[source] BoxError),
}
