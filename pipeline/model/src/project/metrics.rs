//! The specification's live metrics, named as Prometheus wants them. Labels come from enums only: a label per user or
//! stream would grow without bound.

use super::Units;
use crate::event::Event;
use crate::event_type::EventType;

/// A counter and every label value it can have: all of them are exposed from the start, zeros included, because
/// `increase()` misses the first value of a series.
#[derive(Debug, Clone, Copy)]
pub struct Counter {
    /// Metric name.
    pub name: &'static str,
    /// HELP text.
    pub help: &'static str,
    /// Label name and its values.
    pub label: Option<(&'static str, &'static [&'static str])>,
}

const EVENT_TYPES: &[&str] = &[
    "UserRegistered",
    "UserProfileUpdated",
    "UserDeactivated",
    "ContentUploaded",
    "ContentProcessingStarted",
    "ContentProcessingCompleted",
    "LearningSessionStarted",
    "AssessmentCompleted",
    "TaskAssigned",
    "TaskCompleted",
];

/// Every durable counter.
pub const COUNTERS: &[Counter] = &[
    Counter {
        name: "events_applied_total",
        help: "Events applied by the metrics lane, by type.",
        label: Some(("event_type", EVENT_TYPES)),
    },
    Counter { name: "users_registered_total", help: "Users registered.", label: None },
    Counter {
        name: "content_uploads_total",
        help: "Content uploads, by content type.",
        label: Some(("content_type", &["text", "image", "audio", "document", "video"])),
    },
    Counter { name: "learning_sessions_started_total", help: "Learning sessions started.", label: None },
    Counter {
        name: "tasks_completed_total",
        help: "Tasks completed, by status.",
        label: Some(("status", &["completed", "failed", "cancelled"])),
    },
];

/// A durable histogram.
#[derive(Debug, Clone, Copy)]
pub struct Histogram {
    /// Metric name.
    pub name: &'static str,
    /// HELP text.
    pub help: &'static str,
    /// Upper bounds in microseconds, inclusive; an implicit one at infinity follows.
    pub bounds_micros: &'static [i64],
}

/// How long agents worked, in seconds when exposed.
pub const EXECUTION_TIME: Histogram = Histogram {
    name: "tasks_execution_time_seconds",
    help: "Execution time of completed tasks.",
    bounds_micros: &[
        100_000,
        250_000,
        500_000,
        1_000_000,
        2_500_000,
        5_000_000,
        10_000_000,
        30_000_000,
        60_000_000,
        120_000_000,
        300_000_000,
        600_000_000,
        1_800_000_000,
        3_600_000_000,
    ],
};

impl Histogram {
    /// The index of the bucket that an observation falls into; `bounds_micros.len()` for the one at infinity.
    #[must_use]
    pub fn bucket(&self, micros: i64) -> usize {
        self.bounds_micros.partition_point(|bound| *bound < micros)
    }
}

/// A counter's series: its name and label value, empty for a counter without label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MetricKey {
    /// Metric name.
    pub name: &'static str,
    /// Label value.
    pub label: String,
}

/// One observation of a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    /// Index of the bucket.
    pub bucket: usize,
    /// The value.
    pub micros: i64,
}

/// The series that an event raises by one.
#[must_use]
pub fn counted(event: &Event) -> Vec<MetricKey> {
    let key = |name, label: &str| MetricKey { name, label: label.to_owned() };
    let mut keys = vec![key("events_applied_total", event.event_type.as_str())];
    if event.event_type == EventType::UserRegistered {
        keys.push(key("users_registered_total", ""));
    } else if event.event_type == EventType::ContentUploaded {
        keys.push(key("content_uploads_total", event.text("contentType").unwrap_or_default()));
    } else if event.event_type == EventType::LearningSessionStarted {
        keys.push(key("learning_sessions_started_total", ""));
    } else if event.event_type == EventType::TaskCompleted {
        keys.push(key("tasks_completed_total", event.text("status").unwrap_or_default()));
    }
    keys
}

/// What the event adds to [`EXECUTION_TIME`].
#[must_use]
pub fn observed(event: &Event, units: Units) -> Option<Observation> {
    if event.event_type != EventType::TaskCompleted {
        return None;
    }
    let micros = units.execution_time.to_micros(event.number("executionTime")?);
    Some(Observation { bucket: EXECUTION_TIME.bucket(micros), micros })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::project::DurationUnit;
    use crate::project::progress::tests::event;

    #[test]
    fn every_series_an_event_can_raise_is_declared() {
        for event_type in EventType::ALL {
            for key in counted(&event(event_type, "x", 1, json!({}))) {
                let counter = COUNTERS.iter().find(|c| c.name == key.name).expect("declared");
                let known =
                    counter.label.map_or(key.label.is_empty(), |(_, values)| values.contains(&key.label.as_str()));
                assert!(known, "{key:?}");
            }
        }
        assert_eq!(EVENT_TYPES, EventType::ALL.map(EventType::as_str));
    }

    #[test]
    fn an_execution_time_falls_into_the_bucket_whose_bound_it_does_not_exceed() {
        let task = |time: f64| event(EventType::TaskCompleted, "t", 1, json!({"executionTime": time}));
        let ms = Units::default();
        assert_eq!(observed(&task(100.0), ms), Some(Observation { bucket: 0, micros: 100_000 }));
        assert_eq!(observed(&task(100.001), ms).map(|o| o.bucket), Some(1));
        assert_eq!(observed(&task(1e12), ms).map(|o| o.bucket), Some(EXECUTION_TIME.bounds_micros.len()));
        let seconds = Units { execution_time: DurationUnit::Seconds, ..ms };
        assert_eq!(observed(&task(1.5), seconds).map(|o| o.micros), Some(1_500_000));
    }
}
