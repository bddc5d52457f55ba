//! What events mean for those who read: pure functions from events to read-model rows and metric totals. The lanes
//! apply them, and `weir verify` recomputes everything with them.

mod contents;
pub mod fingerprint;
mod fold;
mod metrics;
mod progress;
mod results;
mod rows;
mod tasks;
mod users;

pub use contents::{ContentRow, ContentRowStatus};
pub use fold::{FoldedRow, ReadModel, depends_on_order, rows_of};
pub use metrics::{COUNTERS, Counter, EXECUTION_TIME, Histogram, MetricKey, Observation, counted, observed};
pub use progress::{Progress, progress_of};
pub use results::{AssessmentResult, LastAttempt, ResultKey, result_of};
pub use rows::{AttemptRow, RecordPlace, SessionRow, attempt_key};
pub use tasks::{TaskRow, TaskRowStatus};
pub use users::{UserRow, UserStatus};

use serde::{Deserialize, Serialize};

/// An event that a row cannot take in, now or ever: it becomes a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unappliable {
    /// What would be beyond which limit.
    pub reason: String,
}

/// The unit in which producers send a duration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DurationUnit {
    /// Seconds.
    #[serde(rename = "s")]
    Seconds,
    /// Milliseconds.
    #[default]
    #[serde(rename = "ms")]
    Milliseconds,
    /// Microseconds.
    #[serde(rename = "us")]
    Microseconds,
}

impl DurationUnit {
    /// Whole microseconds, so that sums are exact and do not depend on order. Rounded half away from zero.
    #[must_use]
    #[allow(clippy::as_conversions, reason = "saturating by definition; durations are contract-checked to 0..2^53")]
    pub fn to_micros(self, duration: f64) -> i64 {
        let factor = match self {
            Self::Seconds => 1e6,
            Self::Milliseconds => 1e3,
            Self::Microseconds => 1.0,
        };
        (duration * factor).round() as i64
    }
}

/// The unit of each duration that a projection uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Units {
    /// Of TaskCompleted.executionTime and TaskAssigned.expectedDuration.
    pub execution_time: DurationUnit,
    /// Of AssessmentCompleted.timeSpent.
    pub time_spent: DurationUnit,
    /// Of ContentProcessingCompleted.processingDuration.
    pub processing: DurationUnit,
}
