//! What each part of this process is doing, its lanes, its publisher, its command side and its SQL for clients: for readiness, the status command, and the demo's screen.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

/// The publisher's name among the parts of a process; no lane has it.
pub const PUBLISHER: &str = "publisher";

/// The name of the command side among the parts of a process: what appends to the event store; no lane has it.
pub const COMMANDS: &str = "commands";

/// The name of SQL over history for clients of Postgres' protocol among the parts of a process; no lane has it.
pub const SQL: &str = "sql";

/// What is part of a process and no lane.
pub const NO_LANES: [&str; 3] = [PUBLISHER, COMMANDS, SQL];

/// Where a part stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LanePhase {
    /// Not claimed yet.
    Starting,
    /// Reading and committing.
    Running,
    /// Something it needs is away; it tries again.
    Waiting,
    /// Another process does the work; this one takes over when that ends.
    StandingBy,
    /// Ended, or stopped by an error that needs someone's help.
    Stopped,
}

impl LanePhase {
    /// Every phase.
    pub const ALL: [Self; 5] = [Self::Starting, Self::Running, Self::Waiting, Self::StandingBy, Self::Stopped];

    /// In words, as the database and metrics have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::StandingBy => "standing by",
            Self::Stopped => "stopped",
        }
    }
}

/// One part at a moment.
#[derive(Debug, Clone)]
pub struct LaneStatus {
    /// Where it stands.
    pub phase: LanePhase,
    /// Since when.
    pub since: Instant,
    /// Partitions that it reads.
    pub partitions: usize,
    /// The next offsets to apply, summed over the partitions: everything below them is in the sink.
    pub next_offset: i64,
    /// The ends of the partitions when last asked, summed.
    pub end_offset: i64,
    /// Records applied since the process began.
    pub applied: u64,
    /// Dead letters made since the process began.
    pub dead: u64,
    /// When it last committed, or found nothing to commit.
    pub advanced_at: Instant,
    /// Since when there has been nothing to apply, as far as the source knows.
    pub idle_since: Option<Instant>,
    /// What it waits for.
    pub trouble: Option<String>,
}

impl LaneStatus {
    fn new() -> Self {
        Self {
            phase: LanePhase::Starting,
            since: Instant::now(),
            partitions: 0,
            next_offset: 0,
            end_offset: 0,
            applied: 0,
            dead: 0,
            advanced_at: Instant::now(),
            idle_since: None,
            trouble: None,
        }
    }

    /// Offsets from `next_offset` to `end_offset`: the records that wait, and gaps between them.
    #[must_use]
    pub fn lag(&self) -> i64 {
        (self.end_offset - self.next_offset).max(0)
    }
}

/// The statuses of all parts of this process.
#[derive(Debug, Clone, Default)]
pub struct StatusBoard {
    lanes: Arc<Mutex<BTreeMap<String, LaneStatus>>>,
}

impl StatusBoard {
    /// Announces a part, so that readiness waits for it.
    pub fn announce(&self, lane: &str) {
        self.update(lane, |_| {});
        // There from the start: what begins with its first increment shows no increase.
        metrics::counter!("weir_part_errors_total", "part" => lane.to_owned()).increment(0);
    }

    /// Changes a part's status.
    pub fn update(&self, lane: &str, change: impl FnOnce(&mut LaneStatus)) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let status = lanes.entry(lane.to_owned()).or_insert_with(LaneStatus::new);
        let (before, was_well) = (status.phase, status.trouble.is_none());
        change(status);
        if was_well && status.trouble.is_some() {
            metrics::counter!("weir_part_errors_total", "part" => lane.to_owned()).increment(1);
        }
        if status.phase != before {
            status.since = Instant::now();
        }
    }

    /// All lanes now, by name.
    #[must_use]
    pub fn lanes(&self) -> BTreeMap<String, LaneStatus> {
        let mut parts = self.read();
        parts.retain(|name, _| !NO_LANES.contains(&name.as_str()));
        parts
    }

    /// All parts now, by name.
    #[must_use]
    pub fn read(&self) -> BTreeMap<String, LaneStatus> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
