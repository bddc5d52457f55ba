//! The chunks that a tap holds, and how far each lane is in them. No clock of its own, and no waiting.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use tokio::time::Instant;

use super::TapLimits;
use crate::chunk::Chunk;
use crate::error::SourceError;
use crate::retry::chain;

/// How many offsets ahead of the tap a lane may begin, and wait for it: a second or two of reading.
const AHEAD_MAX: i64 = 100_000;

/// An attached lane. A lane that is attached again is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LaneId(u64);

struct Held {
    chunk: Arc<Chunk>,
    /// The offset of the chunk's first row, or where the chunk before ended.
    start: i64,
    /// The offset after its last row.
    end: i64,
    since: Instant,
}

struct Lane {
    name: String,
    /// Everything below was handed on.
    taken: i64,
    /// Everything below is committed.
    released: i64,
    released_at: Instant,
    /// It came for rows, and there were none.
    is_waiting: bool,
    /// It was told that there is no room when it had taken everything below.
    told_full: Option<i64>,
}

impl Lane {
    fn holds_nothing(&self) -> bool {
        self.released >= self.taken
    }
}

pub(super) struct Ring {
    limits: TapLimits,
    held: VecDeque<Held>,
    bytes: usize,
    /// The next offset to be read.
    head: i64,
    /// Raised when reading begins somewhere else.
    generation: u64,
    is_full: bool,
    lanes: BTreeMap<LaneId, Lane>,
    ids: u64,
    trouble: Option<Trouble>,
}

/// Why nothing can be read; said to each lane.
struct Trouble {
    words: String,
    is_fatal: bool,
}

/// What became of a chunk.
pub(super) enum Offer {
    /// It is in the ring, or not wanted any more.
    Done,
    /// It has to be offered again.
    NoRoom {
        /// Lanes that were detached meanwhile.
        detached: Vec<String>,
    },
}

/// What there is for a lane.
pub(super) enum Taken {
    Rows(Arc<Chunk>, Range<usize>),
    Nothing,
    /// It holds rows that there is no room without; said once.
    Full,
    /// The reader cannot read.
    Trouble(SourceError),
    /// It is not attached any more.
    Detached,
}

impl Ring {
    pub(super) fn new(limits: TapLimits) -> Self {
        Self {
            limits,
            held: VecDeque::new(),
            bytes: 0,
            head: 0,
            generation: 0,
            is_full: false,
            lanes: BTreeMap::new(),
            ids: 0,
            trouble: None,
        }
    }

    /// Where to read on; `None` while no lane is attached.
    pub(super) fn wanted(&self) -> Option<(u64, i64)> {
        (!self.lanes.is_empty()).then_some((self.generation, self.head))
    }

    pub(super) fn fail(&mut self, error: &SourceError) {
        let (cause, is_fatal) = match error {
            SourceError::Retry(cause) => (cause, false),
            SourceError::Fatal(cause) => (cause, true),
        };
        self.trouble = Some(Trouble { words: chain(cause.as_ref()), is_fatal });
        self.distrust();
    }

    /// Drops what was read and not handed on: the store may have failed over to an older copy, and give these offsets to other events.
    /// Lanes that have not taken all of it are detached, and read it again.
    pub(super) fn distrust(&mut self) {
        self.lanes.retain(|_, lane| lane.taken >= self.head);
        self.restart_at(self.head);
    }

    pub(super) fn recover(&mut self) {
        self.trouble = None;
    }

    fn start(&self) -> i64 {
        self.held.front().map_or(self.head, |held| held.start)
    }

    fn restart_at(&mut self, offset: i64) {
        self.held.clear();
        (self.bytes, self.head, self.is_full) = (0, offset, false);
        self.generation += 1;
    }

    fn add(&mut self, name: &str, offset: i64, now: Instant) -> LaneId {
        if self.lanes.is_empty() {
            // It was about what lanes of before wanted to read.
            self.trouble = None;
        }
        self.ids += 1;
        let id = LaneId(self.ids);
        let lane = Lane {
            name: name.to_owned(),
            taken: offset,
            released: offset,
            released_at: now,
            is_waiting: false,
            told_full: None,
        };
        self.lanes.insert(id, lane);
        id
    }

    /// Attaches a lane that begins at an offset, unless the tap is beyond it. Lanes far behind it are detached.
    pub(super) fn attach(&mut self, name: &str, offset: i64, now: Instant) -> Option<LaneId> {
        if offset > self.head.saturating_add(AHEAD_MAX) {
            self.lanes.clear();
        }
        self.join(name, offset, now)
    }

    /// Attaches a lane that has read for itself up to an offset, if the tap is there.
    pub(super) fn join(&mut self, name: &str, offset: i64, now: Instant) -> Option<LaneId> {
        if self.lanes.is_empty() && !(self.start()..=self.head).contains(&offset) {
            self.restart_at(offset);
        }
        let within = self.start()..=self.head.saturating_add(AHEAD_MAX);
        within.contains(&offset).then(|| self.add(name, offset, now))
    }

    pub(super) fn leave(&mut self, lane: LaneId) {
        self.lanes.remove(&lane);
        self.drop_released();
    }

    /// A lane has committed everything below an offset.
    pub(super) fn release(&mut self, lane: LaneId, below: i64, now: Instant) {
        if let Some(lane) = self.lanes.get_mut(&lane) {
            lane.released = lane.released.max(below);
            lane.released_at = now;
        }
        self.drop_released();
    }

    fn drop_released(&mut self) {
        // Without any lane there is nothing to hold.
        let released = self.lanes.values().map(|lane| lane.released).min().unwrap_or(i64::MAX);
        while let Some(held) = self.held.pop_front_if(|held| held.end <= released) {
            self.bytes -= held.chunk.memory();
        }
    }

    pub(super) fn take(&mut self, lane: LaneId, records_max: usize) -> Taken {
        let Some(lane) = self.lanes.get_mut(&lane) else { return Taken::Detached };
        lane.is_waiting = false;
        let index = self.held.partition_point(|held| held.end <= lane.taken);
        if let Some(held) = self.held.get(index) {
            let rows = held.chunk.rows();
            let from = rows.partition_point(|row| row.record().offset < lane.taken);
            let part = from..rows.len().min(from.saturating_add(records_max.max(1)));
            lane.taken = match rows.get(part.end) {
                Some(next) => next.record().offset,
                None => held.end,
            };
            return Taken::Rows(held.chunk.clone(), part);
        }
        if let Some(Trouble { words, is_fatal }) = &self.trouble {
            let cause = words.clone().into();
            return Taken::Trouble(if *is_fatal { SourceError::Fatal(cause) } else { SourceError::Retry(cause) });
        }
        if !lane.holds_nothing() {
            let is_told = lane.told_full == Some(lane.taken);
            if self.is_full && !is_told {
                lane.told_full = Some(lane.taken);
                return Taken::Full;
            }
            return Taken::Nothing;
        }
        lane.is_waiting = true;
        Taken::Nothing
    }

    /// Takes a chunk in, or says that there is no room, and detaches lanes that stand still while another waits.
    pub(super) fn offer(&mut self, generation: u64, chunk: &Arc<Chunk>, now: Instant) -> Offer {
        self.trouble = None;
        let Some(last) = chunk.rows().last().filter(|_| generation == self.generation && !self.lanes.is_empty()) else {
            return Offer::Done;
        };
        if self.held.is_empty() || self.bytes + chunk.memory() <= self.limits.buffer_bytes {
            let end = last.record().offset + 1;
            self.held.push_back(Held { chunk: chunk.clone(), start: self.head, end, since: now });
            self.bytes += chunk.memory();
            (self.head, self.is_full) = (end, false);
            return Offer::Done;
        }
        self.is_full = true;
        Offer::NoRoom { detached: self.detach_stalled(now) }
    }

    fn detach_stalled(&mut self, now: Instant) -> Vec<String> {
        let Some(oldest) = self.held.front() else { return Vec::new() };
        let is_anyone_waiting = self.lanes.values().any(|lane| lane.is_waiting && lane.taken >= self.head);
        if !is_anyone_waiting {
            return Vec::new();
        }
        let stands_still = |lane: &Lane| {
            let since = lane.released_at.max(oldest.since);
            lane.released < oldest.end && now.saturating_duration_since(since) >= self.limits.stalled_after
        };
        let stalled: Vec<LaneId> =
            self.lanes.iter().filter(|(_, lane)| stands_still(lane)).map(|(id, _)| *id).collect();
        let detached = stalled.iter().filter_map(|id| self.lanes.remove(id)).map(|lane| lane.name).collect();
        self.drop_released();
        detached
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::chunk::Row;
    use crate::headers::Headers;
    use crate::record::{Partition, Record, RecordHead};

    const LIMITS: TapLimits = TapLimits { buffer_bytes: 10_000, stalled_after: Duration::from_secs(1) };

    /// Rows of 1,000 bytes and more: ten of them, or two chunks of four, fill the ring.
    fn chunk(offsets: Range<i64>) -> Arc<Chunk> {
        let partition = Partition { source: "s".into(), topic: "t".into(), number: 0 };
        let head = |offset| RecordHead {
            partition: partition.clone(),
            offset,
            key: None,
            headers: Headers::default(),
            recorded_at: None,
        };
        let record = |offset| Record { head: head(offset), payload: Bytes::from(vec![b'x'; 1_000]) };
        Arc::new(Chunk::new(offsets.map(|offset| Row::of(record(offset))).collect()))
    }

    fn offered(ring: &mut Ring, offsets: Range<i64>, now: Instant) -> Option<Vec<String>> {
        let (generation, _) = ring.wanted()?;
        match ring.offer(generation, &chunk(offsets), now) {
            Offer::Done => None,
            Offer::NoRoom { detached } => Some(detached),
        }
    }

    /// The offsets that a lane is handed.
    fn taken(ring: &mut Ring, lane: LaneId, records_max: usize) -> Vec<i64> {
        match ring.take(lane, records_max) {
            Taken::Rows(chunk, rows) => chunk.rows()[rows].iter().map(|row| row.record().offset).collect(),
            Taken::Nothing | Taken::Full | Taken::Trouble(_) | Taken::Detached => Vec::new(),
        }
    }

    #[test]
    fn each_lane_is_handed_every_row_once_and_a_chunk_stays_until_the_last_has_committed() {
        let (mut ring, now) = (Ring::new(LIMITS), Instant::now());
        let a = ring.attach("a", 5, now).expect("nobody is there");
        assert_eq!(ring.wanted(), Some((1, 5)));
        assert_eq!(offered(&mut ring, 5..9, now), None);
        let b = ring.attach("b", 7, now).expect("within the ring");
        assert_eq!((taken(&mut ring, a, 3), taken(&mut ring, a, 3)), (vec![5, 6, 7], vec![8]));
        assert_eq!(taken(&mut ring, b, 10), vec![7, 8]);
        ring.release(a, 9, now);
        assert_eq!((ring.held.len(), ring.start()), (1, 5));
        ring.release(b, 9, now);
        assert_eq!((ring.held.len(), ring.bytes, ring.start()), (0, 0, 9));
        assert!(ring.join("c", 8, now).is_none() && ring.join("c", 9, now).is_some());
    }

    #[test]
    fn a_lane_that_stands_still_is_detached_only_when_another_waits_for_room() {
        let (mut ring, start) = (Ring::new(LIMITS), Instant::now());
        let (a, b) = (ring.attach("a", 0, start).expect("first"), ring.attach("b", 0, start).expect("at it"));
        assert_eq!(offered(&mut ring, 0..4, start), None);
        assert_eq!(taken(&mut ring, a, 10).len() + taken(&mut ring, b, 10).len(), 8);
        let later = start + 2 * LIMITS.stalled_after;
        let full = offered(&mut ring, 4..10, later);
        assert_eq!(full, Some(Vec::new()), "both hold rows, so neither waits");
        assert!(matches!(ring.take(a, 10), Taken::Full) && matches!(ring.take(a, 10), Taken::Nothing));
        ring.release(a, 4, later);
        assert!(matches!(ring.take(a, 10), Taken::Nothing));
        assert_eq!(offered(&mut ring, 4..10, start), Some(Vec::new()), "not long enough");
        assert_eq!(offered(&mut ring, 4..10, later), Some(vec!["b".to_owned()]));
        assert_eq!(offered(&mut ring, 4..10, later), None, "what b held is gone");
        assert!(matches!(ring.take(b, 10), Taken::Detached));
        assert_eq!(taken(&mut ring, a, 10), (4..10).collect::<Vec<_>>());
        assert!(ring.join("b", 3, later).is_none(), "still behind");
        let b = ring.join("b", 6, later).expect("caught up");
        assert_eq!(taken(&mut ring, b, 10), (6..10).collect::<Vec<_>>());
    }

    #[test]
    fn what_was_read_before_trouble_is_read_again() {
        let (mut ring, now) = (Ring::new(LIMITS), Instant::now());
        let (a, b) = (ring.attach("a", 0, now).expect("first"), ring.attach("b", 0, now).expect("at it"));
        assert_eq!(offered(&mut ring, 0..4, now), None);
        assert_eq!((taken(&mut ring, a, 9).len(), taken(&mut ring, b, 2).len()), (4, 2));
        let Some((generation, _)) = ring.wanted() else { panic!("two are there") };
        ring.fail(&SourceError::Fatal("broken".into()));
        assert!(matches!(ring.take(b, 9), Taken::Detached), "it has not taken all of it");
        assert!(matches!(ring.take(a, 9), Taken::Trouble(SourceError::Fatal(_))));
        assert!(matches!(ring.offer(generation, &chunk(4..6), now), Offer::Done));
        assert!(ring.held.is_empty() && ring.bytes == 0, "what was on the way is dropped");
        ring.leave(a);
        let c = ring.attach("c", 9, now).expect("nobody is there");
        assert!(matches!(ring.take(c, 9), Taken::Nothing), "the trouble was another's");
    }

    #[test]
    fn a_lane_from_far_ahead_takes_the_tap_along() {
        let (mut ring, now) = (Ring::new(LIMITS), Instant::now());
        let a = ring.attach("a", 1, now).expect("first");
        let old = ring.wanted();
        let b = ring.attach("b", AHEAD_MAX, now).expect("it waits");
        assert_eq!((ring.wanted(), offered(&mut ring, 1..3, now)), (old, None));
        assert!(taken(&mut ring, b, 9).is_empty());
        assert_eq!(taken(&mut ring, a, 9), [1, 2]);
        let c = ring.attach("c", 3 * AHEAD_MAX, now).expect("the tap comes along");
        assert!(matches!(ring.take(a, 9), Taken::Detached) && matches!(ring.take(b, 9), Taken::Detached));
        assert_eq!(ring.wanted().map(|(_, from)| from), Some(3 * AHEAD_MAX));
        let Some((generation, _)) = old else { panic!("a was there") };
        assert!(matches!(ring.offer(generation, &chunk(3..5), now), Offer::Done));
        assert!(taken(&mut ring, c, 9).is_empty(), "what was read for another place is dropped");
    }
}
