//! Where records come from.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use weir_model::{Position, Timestamp};

use crate::headers::Headers;
use crate::sink::BoxError;

/// An ordered log of records with offsets of its own: a Kafka topic partition, or the whole event store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    /// Where offsets mean something: the event store's UUID, or Kafka's cluster and topic id. A recreated topic is a new
    /// source.
    pub source: Arc<str>,
    /// The topic; `events` for the event store.
    pub topic: Arc<str>,
    /// The partition's number; 0 for the event store.
    pub number: i32,
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.number)
    }
}

/// A stretch of a partition; it starts where the last one ended, gaps included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Of which partition.
    pub partition: Partition,
    /// The first offset.
    pub start: i64,
    /// The next offset to read afterwards.
    pub end: i64,
    /// The highest position in the event store among its events, as far as they name one.
    pub position: Option<Position>,
}

/// A record as it was read, before anyone looked inside.
#[derive(Debug, Clone)]
pub struct Record {
    /// Where from.
    pub partition: Partition,
    /// Its place there.
    pub offset: i64,
    /// What orders it: records of one key stay in order. `None` for records without key.
    pub key: Option<Arc<str>>,
    /// The bytes.
    pub payload: Bytes,
    /// The headers.
    pub headers: Headers,
    /// When it was appended, for lag in seconds.
    pub recorded_at: Option<Timestamp>,
}

/// What a source has to say.
#[derive(Debug)]
pub enum SourceEvent {
    /// These partitions are ours now. They stay silent until [`Source::start`] says from where.
    Assigned(Vec<Partition>),
    /// These are no longer ours; nothing more may be committed for them.
    Revoked(Vec<Partition>),
    /// Records in order within each partition.
    Records(Vec<Record>),
    /// Below these offsets there is nothing left but what was handed over, though the last record may end before.
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

    /// The lane has ended; lets go of what others may want.
    async fn close(&mut self) {}

    /// Hears what was committed, for displays of its own. Nothing depends on it.
    async fn committed(&mut self, _spans: &[Span]) {}
}
