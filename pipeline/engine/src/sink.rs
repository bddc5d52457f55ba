//! Where records go, and what a sink promises.

use async_trait::async_trait;

use crate::batch::Batch;
use crate::error::SinkError;
use crate::record::Partition;

/// Ownership of a partition, from [`Sink::claim`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Of which partition.
    pub partition: Partition,
    /// Higher than any owner's before.
    pub epoch: i64,
    /// Where to go on; `None` when this lane never read the partition.
    pub next_offset: Option<i64>,
    /// The partition must not be read: why, and what to do. No epoch was raised.
    pub refused: Option<String>,
}

/// Applies each record below its ledger offset exactly once, whatever dies in between.
///
/// Who calls: one lane, from one task; after `claim`, `commit` with batches whose spans start where the ledger stands.
#[async_trait]
pub trait Sink: Send {
    /// Takes the partitions over: raises their epoch, finishes what the last owner left open, reports where to go on.
    async fn claim(&mut self, partitions: &[Partition]) -> Result<Vec<Claim>, SinkError>;

    /// Stores the start offsets of partitions that this lane never read, so that records which the source removes before the lane's
    /// first commit are noticed as missing.
    async fn begin(&mut self, _positions: &[(Partition, i64)]) -> Result<(), SinkError> {
        Ok(())
    }

    /// These are no longer ours: nothing is to be done for them any more.
    fn release(&mut self, _partitions: &[Partition]) {}

    /// Makes the batch and its spans durable together. May be called again with the same batch after `Retry`; then
    /// success also means that the earlier call had succeeded.
    async fn commit(&mut self, batch: &Batch) -> Result<(), SinkError>;

    /// Work that is due beside the batches: parked keys, redrives, checkpoints.
    async fn tick(&mut self) -> Result<(), SinkError>;

    /// What is to be done after the last batch, when the lane is told to stop. What a crash leaves undone the next owner does.
    async fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}
