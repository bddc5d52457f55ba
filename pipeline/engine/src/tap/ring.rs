//! The chunks that a tap holds, and how far each lane is in them. No clock of its own, and no waiting.

mod lane;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::TapLimits;
use crate::chunk::Chunk;
use crate::error::SourceError;
use crate::record::Partition;
use crate::retry::chain;

use lane::{Lane, Reach};

/// How many offsets ahead of the tap a lane may begin in a partition, and wait for it: a second or two of reading.
const AHEAD_MAX: i64 = 100_000;

/// The window in which the time that others wait for a lane is added up, as a multiple of [`TapLimits::held_up_max`].
const ACCOUNT: u32 = 30;

/// How long a lane may commit nothing before it is detached, however busy the processors are: a multiple of [`TapLimits::held_up_max`].
const STANDSTILL: u32 = 5;

/// A lane of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaneId(u64);

struct Held {
    /// In the order in which chunks came.
    number: u64,
    partition: Partition,
    chunk: Arc<Chunk>,
    /// Where the partition's chunk before ended.
    start: i64,
    /// The offset after its last row.
    end: i64,
    since: Instant,
}

/// A partition that at least one lane is attached to.
struct Read {
    /// The next offset to be read.
    head: i64,
    /// Raised when reading begins somewhere else.
    generation: u64,
    /// When it was first wanted.
    since: Instant,
    /// Rows of this generation have come.
    is_begun: bool,
}

/// Where a partition is to be read on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Which partition.
    pub partition: Partition,
    /// What is read in another generation is not wanted any more.
    pub generation: u64,
    /// The next offset.
    pub from: i64,
}

/// Chunks of several partitions in the order in which they were read, each held until the last attached lane has committed it.
pub struct Ring {
    limits: TapLimits,
    held: VecDeque<Held>,
    bytes: usize,
    chunks: u64,
    partitions: BTreeMap<Partition, Read>,
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
#[derive(Debug, PartialEq, Eq)]
pub enum Offer {
    /// It is in the ring, or not wanted any more.
    Done,
    /// It has to be offered again.
    NoRoom {
        /// Lanes that were detached meanwhile.
        detached: Vec<String>,
    },
}

/// What there is for a lane.
#[derive(Debug)]
pub enum Taken {
    /// Rows of one partition.
    Rows(Arc<Chunk>, Range<usize>),
    /// Everything below these offsets was handed over; the last of them may hold no record.
    Passed(Vec<(Partition, i64)>),
    /// Nothing for now.
    Nothing,
    /// The ring is full and this lane has not committed the oldest chunk: it is to commit. Said once after each hand-over.
    Full,
    /// The reader cannot read.
    Trouble(SourceError),
    /// It is not attached to these any more.
    Detached(Vec<Partition>),
    /// One of these has no record at its next offset; it is not attached to them any more.
    OutOfRange(Vec<Partition>),
}

impl Ring {
    /// Without lanes.
    #[must_use]
    pub fn new(limits: TapLimits) -> Self {
        Self {
            limits,
            held: VecDeque::new(),
            bytes: 0,
            chunks: 0,
            partitions: BTreeMap::new(),
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

    /// A lane, attached to nothing yet.
    pub fn add(&mut self, name: &str, now: Instant) -> LaneId {
        self.ids += 1;
        let id = LaneId(self.ids);
        self.lanes.insert(id, Lane::new(name, now));
        id
    }

    /// A lane is gone.
    pub fn remove(&mut self, lane: LaneId, now: Instant) {
        self.add_up(now);
        self.lanes.remove(&lane);
        self.drop_released();
    }

    /// Where to read on. A partition that is wanted newly is left out while a lane of this process may still come to it, for as long as
    /// [`TapLimits::gather`]: what lanes begin together is read once.
    #[must_use]
    pub fn wanted(&self, now: Instant) -> Vec<Wanted> {
        let is_wanted = |(partition, read): (&Partition, &Read)| {
            let is_late = now.saturating_duration_since(read.since) >= self.limits.gather;
            let is_complete = || self.lanes.values().all(|lane| lane.attached.contains_key(partition));
            read.is_begun || is_late || is_complete()
        };
        let wanted = self.partitions.iter().filter(|one| is_wanted(*one));
        let wanted = wanted.map(|(partition, read)| Wanted {
            partition: partition.clone(),
            generation: read.generation,
            from: read.head,
        });
        wanted.collect()
    }

    /// Up to where a partition was read.
    #[must_use]
    pub fn head(&self, partition: &Partition) -> Option<i64> {
        self.partitions.get(partition).map(|read| read.head)
    }

    /// The reader cannot read; lanes hear it once they have taken what there is.
    pub fn fail(&mut self, error: &SourceError) {
        let (cause, is_fatal) = match error {
            SourceError::Retry(cause) => (cause, false),
            SourceError::Fatal(cause) => (cause, true),
        };
        self.trouble = Some(Trouble { words: chain(cause.as_ref()), is_fatal });
        self.distrust();
    }

    /// Drops what was read and not handed on: the store may have failed over to an older copy, and give these offsets to other events.
    /// Lanes that have not taken all of it are detached, and read it again.
    pub fn distrust(&mut self) {
        let heads: Vec<_> = self.partitions.iter().map(|(partition, read)| (partition.clone(), read.head)).collect();
        for (partition, head) in heads {
            self.detach_where(&partition, |reach| reach.taken < head);
            self.restart_at(&partition, head);
        }
        self.drop_released();
    }

    /// Every lane reads for itself, from where it stands.
    pub fn detach_all(&mut self, now: Instant) {
        self.add_up(now);
        for lane in self.lanes.values_mut() {
            lane.detached.extend(std::mem::take(&mut lane.attached).into_keys());
        }
        self.drop_released();
    }

    /// The reader reads again.
    pub fn recover(&mut self) {
        self.trouble = None;
    }

    /// The reader is gone.
    pub fn end(&mut self) {
        self.has_ended = true;
    }

    /// Some partition has no record at its next offset, and it is not known which one: every lane is to claim all of its partitions again.
    pub fn out_of_range(&mut self, now: Instant) {
        self.add_up(now);
        for lane in self.lanes.values_mut() {
            lane.out_of_range.extend(std::mem::take(&mut lane.attached).into_keys());
        }
        self.drop_released();
    }

    fn detach_where(&mut self, partition: &Partition, is_to_go: impl Fn(&Reach) -> bool) {
        for lane in self.lanes.values_mut() {
            if lane.attached.get(partition).is_some_and(&is_to_go) {
                lane.detach(partition);
            }
        }
    }

    /// The first offset of a partition that is held, or would be read next.
    fn start(&self, partition: &Partition, head: i64) -> i64 {
        self.held.iter().find(|held| held.partition == *partition).map_or(head, |held| held.start)
    }

    fn drop_held(&mut self, is_to_go: impl Fn(&Held) -> bool) {
        let bytes = &mut self.bytes;
        self.held.retain(|held| {
            let stays = !is_to_go(held);
            if !stays {
                *bytes -= held.chunk.memory();
            }
            stays
        });
        if self.held.is_empty() {
            (self.is_full, self.waiting_since) = (false, None);
        }
    }

    fn restart_at(&mut self, partition: &Partition, offset: i64) {
        self.drop_held(|held| held.partition == *partition);
        self.generation += 1;
        if let Some(read) = self.partitions.get_mut(partition) {
            (read.head, read.generation, read.is_begun) = (offset, self.generation, false);
        }
    }

    /// Attaches a lane to a partition from an offset on, unless the tap is beyond it. Lanes far behind it are detached.
    pub fn attach(&mut self, lane: LaneId, partition: &Partition, offset: i64, now: Instant) -> bool {
        match self.partitions.get(partition).map(|read| (read.head, read.is_begun)) {
            Some((head, _)) if offset > head.saturating_add(AHEAD_MAX) => {
                self.detach_where(partition, |_| true);
                self.restart_at(partition, offset);
            }
            // Nothing was read for those who are there: it begins for all where the last of them does.
            Some((head, false)) if (head.saturating_sub(AHEAD_MAX)..head).contains(&offset) => {
                self.restart_at(partition, offset);
            }
            Some(_) | None => {}
        }
        self.join(lane, partition, offset, now)
    }

    /// Attaches a lane that has read for itself up to an offset, if the tap is there.
    pub fn join(&mut self, lane: LaneId, partition: &Partition, offset: i64, now: Instant) -> bool {
        self.add_up(now);
        if self.lanes.values().all(|lane| lane.attached.is_empty()) {
            // It was about what lanes of before wanted to read.
            self.trouble = None;
        }
        if !self.partitions.contains_key(partition) {
            self.generation += 1;
            let read = Read { head: offset, generation: self.generation, since: now, is_begun: false };
            self.partitions.insert(partition.clone(), read);
        }
        let head = self.partitions.get(partition).map_or(offset, |read| read.head);
        let within = self.start(partition, head)..=head.saturating_add(AHEAD_MAX);
        match self.lanes.get_mut(&lane).filter(|_| within.contains(&offset)) {
            Some(lane) => lane.attach(partition, offset, now),
            None => return false,
        }
        true
    }

    /// A lane has nothing to do with some partitions any more.
    pub fn leave(&mut self, lane: LaneId, partitions: &[Partition], now: Instant) {
        self.add_up(now);
        if let Some(lane) = self.lanes.get_mut(&lane) {
            lane.attached.retain(|partition, _| !partitions.contains(partition));
            lane.detached.retain(|partition| !partitions.contains(partition));
            lane.out_of_range.retain(|partition| !partitions.contains(partition));
        }
        self.drop_released();
    }

    /// A lane has committed everything below these offsets.
    pub fn release<'a>(&mut self, lane: LaneId, offsets: impl IntoIterator<Item = (&'a Partition, i64)>, now: Instant) {
        self.add_up(now);
        if let Some(lane) = self.lanes.get_mut(&lane) {
            lane.released_at = now;
            for (partition, below) in offsets {
                if let Some(reach) = lane.attached.get_mut(partition) {
                    reach.released = reach.released.max(below);
                }
            }
        }
        self.drop_released();
    }

    fn drop_released(&mut self) {
        let mut reached: BTreeMap<Partition, Reach> = BTreeMap::new();
        for (partition, reach) in self.lanes.values().flat_map(|lane| &lane.attached) {
            let least = reached.entry(partition.clone()).or_insert(*reach);
            least.taken = least.taken.min(reach.taken);
            least.released = least.released.min(reach.released);
        }
        // What no lane is attached to is not read, and not held.
        self.partitions.retain(|partition, _| reached.contains_key(partition));
        self.drop_held(|held| reached.get(&held.partition).is_none_or(|least| held.end <= least.released));
        for (partition, least) in reached {
            // All who are left begin further ahead: what lies between is not read for anyone.
            if self.head(&partition).is_some_and(|head| least.taken > head) {
                self.restart_at(&partition, least.taken);
            }
        }
    }

    /// What there is for a lane.
    pub fn take(&mut self, lane: LaneId, records_max: usize, now: Instant) -> Taken {
        let taken = self.take_rows(lane, records_max);
        self.add_up(now);
        taken
    }

    fn take_rows(&mut self, lane: LaneId, records_max: usize) -> Taken {
        let Some(lane) = self.lanes.get_mut(&lane) else { return Taken::Nothing };
        lane.is_waiting = false;
        if !lane.detached.is_empty() {
            return Taken::Detached(std::mem::take(&mut lane.detached));
        }
        if !lane.out_of_range.is_empty() {
            return Taken::OutOfRange(std::mem::take(&mut lane.out_of_range));
        }
        let unseen = self.held.partition_point(|held| held.number < lane.seen);
        for held in self.held.range(unseen..) {
            lane.seen = held.number;
            let Some(reach) = lane.attached.get_mut(&held.partition).filter(|reach| reach.taken < held.end) else {
                continue;
            };
            let rows = held.chunk.rows();
            let from = rows.partition_point(|row| row.record().offset < reach.taken);
            let part = from..rows.len().min(from.saturating_add(records_max.max(1)));
            reach.taken = match rows.get(part.end) {
                Some(next) => next.record().offset,
                None => held.end,
            };
            lane.handed += 1;
            return Taken::Rows(held.chunk.clone(), part);
        }
        lane.seen = self.chunks + 1;
        let mut passed = Vec::new();
        for (partition, reach) in &mut lane.attached {
            let head = self.partitions.get(partition).map_or(i64::MIN, |read| read.head);
            if reach.taken < head {
                reach.taken = head;
                passed.push((partition.clone(), head));
            }
        }
        if !passed.is_empty() {
            return Taken::Passed(passed);
        }
        if self.has_ended {
            return Taken::Trouble(SourceError::Fatal("the reader of this process ended".into()));
        }
        if let Some(Trouble { words, is_fatal }) = &self.trouble {
            let cause = words.clone().into();
            return Taken::Trouble(if *is_fatal { SourceError::Fatal(cause) } else { SourceError::Retry(cause) });
        }
        if lane.holds_nothing() {
            lane.is_waiting = true;
            return Taken::Nothing;
        }
        // Only the lane that there is no room because of: the others go on gathering, since small commits are dear.
        let is_in_the_way = self.held.front().is_some_and(|oldest| !lane.has_released(&oldest.partition, oldest.end));
        if self.is_full && is_in_the_way && lane.told_full != Some(lane.handed) {
            lane.told_full = Some(lane.handed);
            return Taken::Full;
        }
        Taken::Nothing
    }

    /// Takes a chunk of one partition in, or says that there is no room, and detaches lanes that others have waited for too long.
    pub fn offer(&mut self, partition: &Partition, generation: u64, chunk: &Arc<Chunk>, now: Instant) -> Offer {
        self.add_up(now);
        let read = self.partitions.get_mut(partition).filter(|read| read.generation == generation);
        let (Some(read), Some(last)) = (read, chunk.rows().last()) else { return Offer::Done };
        self.trouble = None;
        if self.held.is_empty() || self.bytes + chunk.memory() <= self.limits.buffer_bytes {
            let (start, end) = (read.head, last.record().offset + 1);
            (read.head, read.is_begun) = (end, true);
            self.chunks += 1;
            let (partition, chunk, number) = (partition.clone(), chunk.clone(), self.chunks);
            self.bytes += chunk.memory();
            self.held.push_back(Held { number, partition, chunk, start, end, since: now });
            (self.is_full, self.waiting_since) = (false, None);
            return Offer::Done;
        }
        self.is_full = true;
        let detached = if self.is_anyone_waiting() { self.detach_who_holds_up(now) } else { Vec::new() };
        self.add_up(now);
        Offer::NoRoom { detached }
    }

    /// A partition has no record in these offsets, which follow what was offered last; `false` when no lane is attached any more, or something
    /// that was read before them is still to be offered: lanes would take it for passed.
    pub fn pass(&mut self, partition: &Partition, generation: u64, offsets: Range<i64>) -> bool {
        let read = self.partitions.get_mut(partition);
        let follows = |read: &&mut Read| read.generation == generation && read.head == offsets.start;
        let Some(read) = read.filter(follows).filter(|_| !offsets.is_empty()) else { return false };
        (read.head, read.is_begun) = (offsets.end, true);
        true
    }

    fn is_anyone_waiting(&self) -> bool {
        let has_all = |lane: &Lane| {
            let mut reached = lane.attached.iter();
            reached.all(|(partition, reach)| self.head(partition).is_none_or(|head| reach.taken >= head))
        };
        self.lanes.values().any(|lane| lane.is_waiting && !lane.attached.is_empty() && has_all(lane))
    }

    /// Adds the time since the last call to `waited_for` of each lane that has not committed the oldest chunk, if another lane waited for
    /// room. To be called before each change to which lanes those are.
    fn add_up(&mut self, now: Instant) {
        if let (Some(since), Some(oldest)) = (self.waiting_since, self.held.front()) {
            for lane in self.lanes.values_mut().filter(|lane| !lane.has_released(&oldest.partition, oldest.end)) {
                lane.waited_for += now.saturating_duration_since(since);
            }
        }
        self.waiting_since = (self.is_full && self.is_anyone_waiting()).then_some(now);
    }

    /// What was waited for counts only if a processor had time that those who waited could have used. Where all are busy, each lane would be
    /// slowed down by the others just so if it read for itself, and reading more often would cost more of what is short.
    pub fn account(&mut self, is_time_to_spare: bool, now: Instant) {
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
        let mut detached = Vec::new();
        for lane in self.lanes.values_mut().filter(|lane| !lane.has_released(&oldest.partition, oldest.end)) {
            let stands_still = now.saturating_duration_since(lane.released_at.max(oldest.since));
            if lane.held_up >= self.limits.held_up_max || stands_still >= STANDSTILL * self.limits.held_up_max {
                lane.detached.extend(std::mem::take(&mut lane.attached).into_keys());
                detached.push(lane.name.clone());
            }
        }
        if !detached.is_empty() {
            self.drop_released();
        }
        detached
    }
}

#[cfg(test)]
mod tests;
