//! Records gathered for one commit, decoded once.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;
use weir_model::wire::Decoded;
use weir_model::{Event, EventType, OtherEvent, Position, Timestamp};

use crate::record::{Partition, Record, Span};

/// When a batch is full (P8, P10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Records, dead ones included.
    pub records_max: usize,
    /// Payload bytes. The last record may exceed it: a batch holds at least one.
    pub bytes_max: usize,
    /// Age of the oldest record.
    pub flush_interval: Duration,
}

/// An event and the record it came from, whose bytes a dead letter keeps.
#[derive(Debug, Clone)]
pub struct Located<E = Event> {
    /// Coordinates and bytes.
    pub record: Record,
    /// What they mean.
    pub event: E,
}

/// A record that no lane can apply.
#[derive(Debug, Clone)]
pub struct DeadRecord {
    /// Coordinates and bytes.
    pub record: Record,
    /// Why.
    pub reason: String,
}

/// What is in hand of one partition.
#[derive(Debug, Clone, Copy, Default)]
struct Stretch {
    start: i64,
    end: i64,
    /// When the first record in hand was appended.
    oldest: Option<Timestamp>,
    position: Option<Position>,
    /// When the last record was appended that is in hand, or was committed.
    newest: Option<Timestamp>,
}

/// How far a partition is, for those who measure lag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// Everything below is committed.
    pub next_offset: i64,
    /// When the first record that is not committed was appended; if none is in hand, the last one that is.
    pub since: Option<Timestamp>,
}

/// What one commit makes durable.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    spans: BTreeMap<Partition, Stretch>,
    /// To apply, in order within each partition.
    pub events: Vec<Located>,
    /// Of unknown types: for lanes that keep everything; to all others they mean nothing.
    pub others: Vec<Located<OtherEvent>>,
    /// To keep as dead letters.
    pub dead: Vec<DeadRecord>,
    bytes: usize,
    oldest: Option<Instant>,
}

impl Batch {
    /// Starts a span at the offset that a claim or the last commit gave.
    pub fn begin(&mut self, partition: Partition, start: i64) {
        self.spans.insert(partition, Stretch { start, end: start, ..Stretch::default() });
    }

    /// Takes a record in: decodes it, or keeps it as dead. Events of types that `filter` leaves out only move the span.
    pub fn push(&mut self, record: Record, filter: Option<&HashSet<EventType>>) {
        let Some(stretch) = self.spans.get_mut(&record.partition) else {
            tracing::debug!(partition = %record.partition, offset = record.offset, "a record of a partition not claimed");
            return;
        };
        if record.offset < stretch.end {
            return;
        }
        stretch.end = record.offset + 1;
        stretch.newest = record.recorded_at.or(stretch.newest);
        stretch.oldest = stretch.oldest.or(record.recorded_at);
        self.bytes += record.payload.len();
        self.oldest.get_or_insert_with(Instant::now);
        let decoded = record.decode();
        if let Ok(Decoded::Event(event)) = &decoded {
            stretch.position = event.position.max(stretch.position);
        }
        match decoded {
            Ok(Decoded::Event(event)) if filter.is_none_or(|types| types.contains(&event.event_type)) => {
                self.events.push(Located { record, event });
            }
            Ok(Decoded::Other(event)) if filter.is_none() => self.others.push(Located { record, event }),
            Ok(_) => {}
            Err(error) => self.dead.push(DeadRecord { record, reason: error.to_string() }),
        }
    }

    /// Moves a span beyond offsets that hold no record.
    pub fn pass(&mut self, partition: &Partition, offset: i64) {
        if let Some(stretch) = self.spans.get_mut(partition).filter(|stretch| stretch.end < offset) {
            stretch.end = offset;
            self.oldest.get_or_insert_with(Instant::now);
        }
    }

    /// The stretches that this batch covers, those with nothing in them left out.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        self.spans
            .iter()
            .filter(|(_, stretch)| stretch.start < stretch.end)
            .map(|(partition, stretch)| Span {
                partition: partition.clone(),
                start: stretch.start,
                end: stretch.end,
                position: stretch.position,
            })
            .collect()
    }

    /// The sum of the offsets where the spans start: how far the lane has committed.
    #[must_use]
    pub fn start_offsets(&self) -> i64 {
        self.spans.values().map(|stretch| stretch.start).sum()
    }

    /// How far a partition is.
    #[must_use]
    pub fn reached(&self, partition: &Partition) -> Option<Reached> {
        let stretch = self.spans.get(partition)?;
        Some(Reached { next_offset: stretch.start, since: stretch.oldest.or(stretch.newest) })
    }

    /// Whether nothing was read since the last commit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.values().all(|stretch| stretch.start == stretch.end)
    }

    /// Records taken in, filtered ones apart.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len() + self.others.len() + self.dead.len()
    }

    /// Whether a limit is reached.
    #[must_use]
    pub fn is_due(&self, limits: &BatchLimits) -> bool {
        self.len() >= limits.records_max || self.bytes >= limits.bytes_max || self.wait(limits).is_zero()
    }

    /// How long this batch may still wait for more.
    #[must_use]
    pub fn wait(&self, limits: &BatchLimits) -> Duration {
        let age = self.oldest.map_or(Duration::ZERO, |oldest| oldest.elapsed());
        limits.flush_interval.saturating_sub(age)
    }

    /// Empties the batch; the next one starts where this one ended.
    pub fn advance(&mut self) {
        for stretch in self.spans.values_mut() {
            *stretch = Stretch { start: stretch.end, oldest: None, position: None, ..*stretch };
        }
        self.events.clear();
        self.others.clear();
        self.dead.clear();
        self.bytes = 0;
        self.oldest = None;
    }

    /// Forgets partitions and everything of theirs.
    pub fn forget(&mut self, partitions: &[Partition]) {
        self.spans.retain(|partition, _| !partitions.contains(partition));
        self.events.retain(|located| !partitions.contains(&located.record.partition));
        self.others.retain(|other| !partitions.contains(&other.record.partition));
        self.dead.retain(|dead| !partitions.contains(&dead.record.partition));
        // Without this an emptied batch would look due for ever, and the lane would never read again.
        let others = self.others.iter().map(|other| &other.record).chain(self.dead.iter().map(|dead| &dead.record));
        let held = self.events.iter().map(|located| &located.record).chain(others);
        self.bytes = held.map(|record| record.payload.len()).sum();
        if self.is_empty() {
            self.oldest = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use crate::headers::Headers;
    use weir_model::wire::samples;

    use super::*;

    fn partition() -> Partition {
        Partition { source: "s".into(), topic: "t".into(), number: 0 }
    }

    fn record(offset: i64, payload: &str) -> Record {
        let payload = Bytes::from(payload.to_owned());
        Record { partition: partition(), offset, key: None, payload, headers: Headers::default(), recorded_at: None }
    }

    fn session() -> String {
        serde_json::json!({"eventId": "e", "eventType": "LearningSessionStarted", "version": "1.0.0", "source": "s",
            "timestamp": "2024-01-15T10:30:00Z", "data": samples::one(EventType::LearningSessionStarted)})
        .to_string()
    }

    #[test]
    fn spans_cover_gaps_and_dead_and_filtered_records() {
        let mut batch = Batch::default();
        batch.begin(partition(), 5);
        batch.push(record(7, &session()), None);
        batch.push(record(8, "not json"), None);
        batch.push(record(8, &session()), None);
        batch.push(record(20, &session()), Some(&HashSet::from([EventType::TaskAssigned])));
        assert_eq!(batch.spans(), [Span { partition: partition(), start: 5, end: 21, position: None }]);
        assert_eq!((batch.events.len(), batch.dead.len()), (1, 1));
        batch.advance();
        assert!(batch.is_empty() && batch.spans().is_empty());
        batch.push(record(21, &session()), None);
        assert_eq!(batch.spans(), [Span { partition: partition(), start: 21, end: 22, position: None }]);
    }

    #[test]
    fn a_forgotten_batch_is_not_due() {
        let limits = BatchLimits { records_max: 1, bytes_max: 1, flush_interval: Duration::from_millis(1) };
        let mut batch = Batch::default();
        batch.begin(partition(), 0);
        batch.push(record(0, &session()), None);
        std::thread::sleep(limits.flush_interval);
        assert!(batch.is_due(&limits));
        batch.forget(&[partition()]);
        batch.begin(partition(), 0);
        assert!(!batch.is_due(&limits) && batch.is_empty());
    }

    #[test]
    fn a_batch_is_due_by_count_by_bytes_and_by_age() {
        let hour = Duration::from_secs(3600);
        let limits = |records_max, bytes_max, flush_interval| BatchLimits { records_max, bytes_max, flush_interval };
        let mut batch = Batch::default();
        batch.begin(partition(), 0);
        batch.push(record(0, &session()), None);
        assert!(!batch.is_due(&limits(2, 1 << 20, hour)));
        assert!(batch.is_due(&limits(1, 1 << 20, hour)));
        assert!(batch.is_due(&limits(2, 10, hour)));
        assert!(batch.is_due(&limits(2, 1 << 20, Duration::ZERO)));
    }
}
