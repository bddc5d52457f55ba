//! The chunks that a tap holds, and how far each lane is in them. No clock of its own, and no waiting.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::TapLimits;
use crate::chunk::Chunk;
use crate::error::SourceError;
use crate::retry::chain;

/// How many offsets ahead of the tap a lane may begin, and wait for it: a second or two of reading.
const AHEAD_MAX: i64 = 100_000;

/// How long waiting for a lane is added up, in [`TapLimits::held_up_max`].
const ACCOUNT: u32 = 30;

/// After how many [`TapLimits::held_up_max`] of standing still a lane is detached, however busy the processors are.
const STANDSTILL: u32 = 5;

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
    /// How long others waited for it since the processors were last looked at, and while one of them had time to spare.
    waited_for: Duration,
    held_up: Duration,
    /// It came for rows, and there were none.
    is_waiting: bool,
    /// It was told that it is in the way when it had taken everything below.
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
    /// Since when a lane waits while there is no room, or when that was last added up.
    waiting_since: Option<Instant>,
    /// When adding up began again.
    account_since: Option<Instant>,
    lanes: BTreeMap<LaneId, Lane>,
    ids: u64,
    trouble: Option<Trouble>,
    /// Nothing will be read any more.
    has_ended: bool,
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
    /// It holds the rows that there is no room because of; said once.
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
            waiting_since: None,
            account_since: None,
            lanes: BTreeMap::new(),
            ids: 0,
            trouble: None,
            has_ended: false,
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

    /// The reader is gone.
    pub(super) fn end(&mut self) {
        self.has_ended = true;
    }

    fn start(&self) -> i64 {
        self.held.front().map_or(self.head, |held| held.start)
    }

    fn restart_at(&mut self, offset: i64) {
        self.held.clear();
        (self.bytes, self.head, self.is_full, self.waiting_since) = (0, offset, false, None);
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
            waited_for: Duration::ZERO,
            held_up: Duration::ZERO,
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

    pub(super) fn leave(&mut self, lane: LaneId, now: Instant) {
        self.add_up(now);
        self.lanes.remove(&lane);
        self.drop_released();
    }

    /// A lane has committed everything below an offset.
    pub(super) fn release(&mut self, lane: LaneId, below: i64, now: Instant) {
        self.add_up(now);
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
        // All who are left begin further ahead: what lies between is not read for anyone.
        if let Some(wanted) = self.lanes.values().map(|lane| lane.taken).min().filter(|taken| *taken > self.head) {
            self.restart_at(wanted);
        }
    }

    pub(super) fn take(&mut self, lane: LaneId, records_max: usize, now: Instant) -> Taken {
        let taken = self.take_rows(lane, records_max);
        self.add_up(now);
        taken
    }

    fn take_rows(&mut self, lane: LaneId, records_max: usize) -> Taken {
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
        if self.has_ended {
            return Taken::Trouble(SourceError::Fatal("the reader of this process ended".into()));
        }
        if let Some(Trouble { words, is_fatal }) = &self.trouble {
            let cause = words.clone().into();
            return Taken::Trouble(if *is_fatal { SourceError::Fatal(cause) } else { SourceError::Retry(cause) });
        }
        if !lane.holds_nothing() {
            // Only the lane that there is no room because of: the others go on gathering, since small commits are dear.
            let is_in_the_way = self.held.front().is_some_and(|oldest| lane.released < oldest.end);
            let is_told = lane.told_full == Some(lane.taken);
            if self.is_full && is_in_the_way && !is_told {
                lane.told_full = Some(lane.taken);
                return Taken::Full;
            }
            return Taken::Nothing;
        }
        lane.is_waiting = true;
        Taken::Nothing
    }

    /// Takes a chunk in, or says that there is no room, and detaches lanes that others have waited for too long.
    pub(super) fn offer(&mut self, generation: u64, chunk: &Arc<Chunk>, now: Instant) -> Offer {
        self.trouble = None;
        let Some(last) = chunk.rows().last().filter(|_| generation == self.generation && !self.lanes.is_empty()) else {
            return Offer::Done;
        };
        self.add_up(now);
        if self.held.is_empty() || self.bytes + chunk.memory() <= self.limits.buffer_bytes {
            let end = last.record().offset + 1;
            self.held.push_back(Held { chunk: chunk.clone(), start: self.head, end, since: now });
            self.bytes += chunk.memory();
            (self.head, self.is_full, self.waiting_since) = (end, false, None);
            return Offer::Done;
        }
        self.is_full = true;
        let detached = if self.is_anyone_waiting() { self.detach_who_holds_up(now) } else { Vec::new() };
        self.add_up(now);
        Offer::NoRoom { detached }
    }

    fn is_anyone_waiting(&self) -> bool {
        self.lanes.values().any(|lane| lane.is_waiting && lane.taken >= self.head)
    }

    /// Adds the time that passed to the accounts of the lanes that there is no room because of, if anyone waited. Before each change of
    /// who that is.
    fn add_up(&mut self, now: Instant) {
        if let (Some(since), Some(oldest)) = (self.waiting_since, self.held.front()) {
            for lane in self.lanes.values_mut().filter(|lane| lane.released < oldest.end) {
                lane.waited_for += now.saturating_duration_since(since);
            }
        }
        self.waiting_since = (self.is_full && self.is_anyone_waiting()).then_some(now);
    }

    /// What was waited for counts only if a processor had time that those who waited could have used. Where all are busy, each lane would be
    /// slowed down by the others just so if it read for itself, and reading more often would cost more of what is short.
    pub(super) fn account(&mut self, is_time_to_spare: bool, now: Instant) {
        let since = *self.account_since.get_or_insert(now);
        let is_over = now.saturating_duration_since(since) >= ACCOUNT * self.limits.held_up_max;
        for lane in self.lanes.values_mut() {
            let waited_for = std::mem::take(&mut lane.waited_for);
            if is_over {
                lane.held_up = Duration::ZERO;
            }
            if is_time_to_spare {
                lane.held_up += waited_for;
            }
        }
        if is_over {
            self.account_since = Some(now);
        }
    }

    fn detach_who_holds_up(&mut self, now: Instant) -> Vec<String> {
        let Some(oldest) = self.held.front() else { return Vec::new() };
        let holds_up = |lane: &Lane| {
            let stands_still = now.saturating_duration_since(lane.released_at.max(oldest.since));
            lane.released < oldest.end
                && (lane.held_up >= self.limits.held_up_max || stands_still >= STANDSTILL * self.limits.held_up_max)
        };
        let found: Vec<LaneId> = self.lanes.iter().filter(|(_, lane)| holds_up(lane)).map(|(id, _)| *id).collect();
        let detached = found.iter().filter_map(|id| self.lanes.remove(id)).map(|lane| lane.name).collect();
        self.drop_released();
        detached
    }
}

#[cfg(test)]
mod tests;
