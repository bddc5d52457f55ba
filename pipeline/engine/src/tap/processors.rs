//! Whether processors have time that lanes could use if they did not wait.

use std::num::NonZeroUsize;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use sysinfo::System;
use tokio::time::Instant;

/// How long the processors are watched for an answer; the system counts in hundredths of a second.
const WATCHED_FOR: Duration = Duration::from_millis(250);

/// A lane that waits would have found so much of one processor free, on average.
const FREE: f32 = 0.5;

/// A process that needs less than this of one processor is not slow for want of them, whatever other processes use.
const IDLING: f32 = 0.2;

/// What is known of them, and of how much of them this process used.
pub struct Processors {
    system: System,
    /// So many may be used at once; a quota can make them fewer than the machine has.
    usable: f32,
    since: Instant,
    used: Duration,
}

/// Processor time of this process.
fn used() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

impl Processors {
    /// Watched from now on.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "it begins to watch")]
    pub fn new() -> Self {
        let mut system = System::new();
        system.refresh_cpu_usage();
        let usable = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let usable = u16::try_from(usable).map_or(f32::INFINITY, f32::from);
        Self { system, usable, since: Instant::now(), used: used() }
    }

    /// Whether there was time to spare since the last answer; `None` if that is too short ago. Processors that nothing is known of count
    /// as busy.
    pub fn have_time_to_spare(&mut self, now: Instant) -> Option<bool> {
        let passed = now.saturating_duration_since(self.since);
        if passed < WATCHED_FOR {
            return None;
        }
        self.since = now;
        self.system.refresh_cpu_usage();
        let free: f32 = self.system.cpus().iter().map(|one| 1.0 - one.cpu_usage() / 100.0).sum();
        let before = std::mem::replace(&mut self.used, used());
        let own = self.used.saturating_sub(before).div_duration_f32(passed);
        Some(free >= FREE && own < self.usable - FREE || own < IDLING)
    }
}
