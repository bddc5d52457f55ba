//! Where records come from.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::chunk::Chunk;
use crate::error::SourceError;
use crate::record::{Partition, Record, Span};

/// What a source has to say.
#[derive(Debug)]
pub enum SourceEvent {
    /// These partitions are ours now. They stay silent until [`Source::start`] says from where.
    Assigned(Vec<Partition>),
    /// These are no longer ours; nothing more may be committed for them.
    Revoked(Vec<Partition>),
    /// Records in order within each partition.
    Records(Vec<Record>),
    /// Rows of a chunk that other lanes hold too, in order within each partition.
    Rows(Arc<Chunk>, Range<usize>),
    /// This lane is to let go of what it holds, for want of room or because its partitions go: its batch is to be committed now.
    Full,
    /// Everything below these offsets was handed over; the last offsets may hold no record.
    Passed(Vec<(Partition, i64)>),
    /// One of these has no record at its next offset: they are to be claimed again, which finds out which, and why.
    OutOfRange(Vec<Partition>),
    /// Nothing within the wait.
    Idle,
}

/// What became of a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Started {
    /// Records come from this offset on.
    At {
        /// Of which partition.
        partition: Partition,
        /// The first offset that is read.
        offset: i64,
    },
    /// The source cannot go on from where the ledger stands, and never skips: someone has to decide.
    Refused {
        /// Which partition.
        partition: Partition,
        /// Why, and what to do.
        reason: String,
    },
}

/// Delivers each record of an assigned partition from the started offset on, in order, without a hole.
///
/// Who calls: one lane, from one task. `next` may be dropped while it waits, without losing a record.
#[async_trait]
pub trait Source: Send {
    /// The next thing to do, at most `records_max` records, after at most `wait`.
    async fn next(&mut self, records_max: usize, wait: Duration) -> Result<SourceEvent, SourceError>;

    /// Begins delivery of claimed partitions at these offsets, or restarts it there; `None` is the partition's first record.
    /// Says for each partition that is still assigned what became of it.
    async fn start(&mut self, positions: &[(Partition, Option<i64>)]) -> Result<Vec<Started>, SourceError>;

    /// The offset after the last record that can be read now; it measures lag.
    async fn end(&mut self, partition: &Partition) -> Result<i64, SourceError>;

    /// These are to be claimed again before anything of them is wanted: what was read of them, and not handed on, is let go of.
    async fn unclaimed(&mut self, _partitions: &[Partition]) {}

    /// The lane has ended; lets go of what others may want.
    async fn close(&mut self) {}

    /// Hears what was committed, for displays of its own. Nothing depends on it.
    async fn committed(&mut self, _spans: &[Span]) {}
}
