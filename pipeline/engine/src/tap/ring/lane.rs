//! A lane in a ring: what of each partition it has taken and committed, and how long others waited for it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::record::Partition;

/// How far an attached lane is in a partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    /// Everything below was handed on.
    pub(super) taken: i64,
    /// Everything below is committed.
    pub(super) released: i64,
}

pub(super) struct Lane {
    pub(super) name: String,
    /// The partitions that it is attached to.
    pub(super) attached: BTreeMap<Partition, Reach>,
    /// It was detached from these, and has not been told.
    pub(super) detached: Vec<Partition>,
    /// One of these partitions has no record at its next offset, and the lane has not been told.
    pub(super) out_of_range: Vec<Partition>,
    /// The number of the chunk to look at next: there is nothing for this lane in chunks of lower numbers.
    pub(super) seen: u64,
    /// How often it was handed rows.
    pub(super) handed: u64,
    pub(super) released_at: Instant,
    /// How long others waited for this lane since the processors were last looked at.
    pub(super) waited_for: Duration,
    /// How long they did so in the current window while a processor had time to spare.
    pub(super) held_up: Duration,
    /// It came for rows, and there were none.
    pub(super) is_waiting: bool,
    /// The value of `handed` when this lane was last told that it is in the way.
    pub(super) told_full: Option<u64>,
}

impl Lane {
    pub(super) fn new(name: &str, now: Instant) -> Self {
        Self {
            name: name.to_owned(),
            attached: BTreeMap::new(),
            detached: Vec::new(),
            out_of_range: Vec::new(),
            seen: 0,
            handed: 0,
            released_at: now,
            waited_for: Duration::ZERO,
            held_up: Duration::ZERO,
            is_waiting: false,
            told_full: None,
        }
    }

    pub(super) fn attach(&mut self, partition: &Partition, offset: i64, now: Instant) {
        if self.attached.is_empty() {
            (self.released_at, self.waited_for, self.held_up) = (now, Duration::ZERO, Duration::ZERO);
        }
        self.detached.retain(|other| other != partition);
        self.out_of_range.retain(|other| other != partition);
        self.attached.insert(partition.clone(), Reach { taken: offset, released: offset });
        // What it skipped before may be for it now.
        (self.seen, self.is_waiting) = (0, false);
    }

    pub(super) fn detach(&mut self, partition: &Partition) {
        if self.attached.remove(partition).is_some() {
            self.detached.push(partition.clone());
        }
    }

    pub(super) fn holds_nothing(&self) -> bool {
        self.attached.values().all(|reach| reach.released >= reach.taken)
    }

    /// Whether it has committed everything of a partition below an offset, or has nothing to do with it.
    pub(super) fn has_released(&self, partition: &Partition, end: i64) -> bool {
        self.attached.get(partition).is_none_or(|reach| reach.released >= end)
    }
}
