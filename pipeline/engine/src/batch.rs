//! Records gathered for one commit.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weir_model::{EventType, OtherEvent, Position, Timestamp};

use crate::chunk::{Chunk, DeadRecord, Located, Row, SharedEvent};
use crate::record::{Partition, Record, Span};

/// When a batch is full (P8, P10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Records that the lane applies, dead ones included.
    pub records_max: usize,
    /// Payload bytes of all records taken in. The last record may exceed it: a batch holds at least one.
    pub bytes_max: usize,
    /// Time since the batch took its first record in.
    pub flush_interval: Duration,
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

/// Rows of a chunk that are in a batch.
#[derive(Debug, Clone)]
struct Piece {
    chunk: Arc<Chunk>,
    /// Indexes in the chunk of the rows that the lane applies, ascending.
    places: Vec<usize>,
    /// Indexes of all rows that were taken in, also those that the lane does not apply.
    taken: Range<usize>,
}

/// What one commit makes durable: spans, and the rows in them that the lane applies.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    spans: BTreeMap<Partition, Stretch>,
    pieces: Vec<Piece>,
    /// Rows that the lane applies, dead ones included; not those that its filter leaves out.
    len: usize,
    /// How many of those are to be kept as dead letters.
    dead: usize,
    bytes: usize,
    oldest: Option<Instant>,
    is_wanted_now: bool,
}

impl Batch {
    /// A record as a batch of its own, without a span, if it is an event; otherwise why it is none.
    pub fn alone(record: Record) -> Result<Self, String> {
        let row = match Row::of(record) {
            Row::Dead(dead) => return Err(dead.reason),
            row @ (Row::Event(_) | Row::Other(_)) => row,
        };
        let chunk = Arc::new(Chunk::new(vec![row]));
        Ok(Self {
            len: 1,
            bytes: chunk.bytes(),
            pieces: vec![Piece { places: vec![0], taken: 0..1, chunk }],
            ..Self::default()
        })
    }

    /// Starts a span at the offset that a claim or the last commit gave.
    pub fn begin(&mut self, partition: Partition, start: i64) {
        self.spans.insert(partition, Stretch { start, end: start, ..Stretch::default() });
    }

    /// [`Self::take`] for one record.
    pub fn push(&mut self, record: Record, filter: Option<&HashSet<EventType>>) {
        self.take(&Arc::new(Chunk::decode(vec![record])), 0..1, filter);
    }

    /// Takes rows of a chunk in, without those of partitions not claimed, and those that it has. Events of types that `filter` leaves out
    /// only move the span.
    pub fn take(&mut self, chunk: &Arc<Chunk>, rows: Range<usize>, filter: Option<&HashSet<EventType>>) {
        let (mut places, taken) = (Vec::with_capacity(rows.len()), rows.clone());
        for place in rows {
            let Some(row) = chunk.rows().get(place) else { break };
            let record = row.record();
            let Some(stretch) = self.spans.get_mut(&record.partition) else {
                tracing::debug!(partition = %record.partition, offset = record.offset, "a record of a partition not claimed");
                continue;
            };
            if record.offset < stretch.end {
                continue;
            }
            stretch.end = record.offset + 1;
            stretch.newest = record.recorded_at.or(stretch.newest);
            stretch.oldest = stretch.oldest.or(record.recorded_at);
            self.bytes += row.bytes();
            self.oldest.get_or_insert_with(Instant::now);
            let is_wanted = match row {
                Row::Event(Located { event, .. }) => {
                    stretch.position = event.position.max(stretch.position);
                    filter.is_none_or(|types| types.contains(&event.event_type))
                }
                Row::Other(_) => filter.is_none(),
                Row::Dead(_) => {
                    self.dead += 1;
                    true
                }
            };
            if is_wanted {
                places.push(place);
            }
        }
        if !places.is_empty() || chunk.has_foreign() {
            self.len += places.len();
            self.pieces.push(Piece { chunk: chunk.clone(), places, taken });
        }
    }

    fn rows(&self) -> impl Iterator<Item = &Row> + Clone {
        self.pieces.iter().flat_map(|piece| piece.places.iter().filter_map(|place| piece.chunk.rows().get(*place)))
    }

    /// Events within the spans that carry no position, so that they may have come before, whether the lane applies them or not.
    pub fn foreign(&self) -> impl Iterator<Item = &Row> {
        let pieces = self.pieces.iter().filter(|piece| piece.chunk.has_foreign());
        let rows = pieces.flat_map(|piece| piece.chunk.rows().get(piece.taken.clone()).unwrap_or_default());
        rows.filter(|row| {
            let record = row.record();
            let stretch = self.spans.get(&record.partition);
            row.is_foreign() && stretch.is_some_and(|stretch| (stretch.start..stretch.end).contains(&record.offset))
        })
    }

    /// To apply, in order within each partition.
    pub fn events(&self) -> impl Iterator<Item = &Located> + Clone {
        self.rows().filter_map(|row| match row {
            Row::Event(located) => Some(located),
            Row::Other(_) | Row::Dead(_) => None,
        })
    }

    /// [`Self::events`], each to be held on to.
    pub fn shared_events(&self) -> impl Iterator<Item = SharedEvent> {
        self.pieces
            .iter()
            .flat_map(|piece| piece.places.iter().filter_map(|place| SharedEvent::of(&piece.chunk, *place)))
    }

    /// Of unknown types: for lanes that keep everything; to all others they mean nothing.
    pub fn others(&self) -> impl Iterator<Item = &Located<OtherEvent>> + Clone {
        self.rows().filter_map(|row| match row {
            Row::Other(located) => Some(located),
            Row::Event(_) | Row::Dead(_) => None,
        })
    }

    /// To keep as dead letters.
    pub fn dead(&self) -> impl Iterator<Item = &DeadRecord> + Clone {
        self.rows().filter_map(|row| match row {
            Row::Dead(dead) => Some(dead),
            Row::Event(_) | Row::Other(_) => None,
        })
    }

    /// How many of [`Self::dead`] there are.
    #[must_use]
    pub fn dead_len(&self) -> usize {
        self.dead
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
        self.len
    }

    /// Makes the batch due at once, whatever its limits say, unless it is empty.
    pub fn make_due(&mut self) {
        self.is_wanted_now = !self.is_empty();
    }

    /// Whether [`Self::make_due`] was called: others wait for this commit, so the sink must not delay it (as to spare its server).
    #[must_use]
    pub fn is_wanted_now(&self) -> bool {
        self.is_wanted_now
    }

    /// Whether a limit is reached.
    #[must_use]
    pub fn is_due(&self, limits: &BatchLimits) -> bool {
        self.is_wanted_now
            || self.len() >= limits.records_max
            || self.bytes >= limits.bytes_max
            || self.wait(limits).is_zero()
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
        self.pieces.clear();
        (self.len, self.dead, self.bytes) = (0, 0, 0);
        (self.oldest, self.is_wanted_now) = (None, false);
    }

    /// Forgets partitions and everything of theirs.
    pub fn forget(&mut self, partitions: &[Partition]) {
        self.spans.retain(|partition, _| !partitions.contains(partition));
        for Piece { chunk, places, .. } in &mut self.pieces {
            places.retain(|place| {
                chunk.rows().get(*place).is_some_and(|row| !partitions.contains(&row.record().partition))
            });
        }
        let spans = &self.spans;
        let is_held = |piece: &Piece| {
            let rows = piece.chunk.rows().get(piece.taken.clone()).unwrap_or_default();
            rows.iter().any(|row| row.is_foreign() && spans.contains_key(&row.record().partition))
        };
        self.pieces.retain(|piece| !piece.places.is_empty() || is_held(piece));
        // Without this an emptied batch would look due for ever, and the lane would never read again.
        self.bytes = self.rows().map(Row::bytes).sum();
        (self.len, self.dead) = (self.rows().count(), self.dead().count());
        if self.is_empty() {
            (self.oldest, self.is_wanted_now) = (None, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use crate::headers::Headers;
    use crate::record::RecordHead;
    use weir_model::wire::samples;

    use super::*;

    fn partition() -> Partition {
        Partition { source: "s".into(), topic: "t".into(), number: 0 }
    }

    fn record(offset: i64, payload: &str) -> Record {
        let payload = Bytes::from(payload.to_owned());
        let head = RecordHead {
            partition: partition(),
            offset,
            key: None,
            odd_key: None,
            headers: Headers::default(),
            recorded_at: None,
        };
        Record { head, payload }
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
        assert_eq!((batch.events().count(), batch.dead().count(), batch.len(), batch.dead_len()), (1, 1, 2, 1));
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
