//! `learning_session_read_model` and `assessment_read_model`: one row per session and per attempt at an assessment.

use serde_json::{Value, json};

use super::Units;
use crate::canonical;
use crate::clock::Timestamp;
use crate::event::Event;
use crate::event_type::EventType;
use crate::project::progress::score_percent_micros;

/// A learning session.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRow {
    /// Whose.
    pub tenant: String,
    /// The session.
    pub id: String,
    /// The learner.
    pub user_id: String,
    /// The path.
    pub learning_path_id: String,
    /// The module.
    pub module_id: String,
    /// `deviceInfo`, if sent.
    pub device_info: Option<Value>,
    /// When it began.
    pub started_at: Timestamp,
    /// Stream version of the event.
    pub version: i64,
}

impl SessionRow {
    /// The row of a LearningSessionStarted; `None` for other events.
    #[must_use]
    pub fn of(event: &Event) -> Option<Self> {
        (event.event_type == EventType::LearningSessionStarted).then(|| Self {
            tenant: event.tenant.to_string(),
            id: event.stream.aggregate_id().to_owned(),
            user_id: event.text("userId").unwrap_or_default().to_owned(),
            learning_path_id: event.text("learningPathId").unwrap_or_default().to_owned(),
            module_id: event.text("moduleId").unwrap_or_default().to_owned(),
            device_info: event.data.json("deviceInfo"),
            started_at: event.timestamp,
            version: event.version.unwrap_or(0),
        })
    }

    /// Canonical text of the row, for `weir verify`.
    #[must_use]
    pub fn canonical(&self) -> String {
        canonical::text(&json!({
            "tenant": self.tenant, "id": self.id, "user_id": self.user_id, "learning_path_id": self.learning_path_id,
            "module_id": self.module_id, "device_info": self.device_info, "started_at": self.started_at.to_string(),
            "version": self.version,
        }))
    }
}

/// Where a record is, for keys that tell apart records whose event ids recur.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordPlace<'a> {
    /// Where offsets mean something.
    pub source: &'a str,
    /// The topic.
    pub topic: &'a str,
    /// The partition's number.
    pub partition: i64,
    /// Its place there.
    pub offset: i64,
}

/// What an attempt is known by: the event's id, which the event store has once; for other services' records, whose ids may recur
/// once they are forgotten, with the place.
#[must_use]
pub fn attempt_key(event: &Event, at: RecordPlace<'_>) -> String {
    match event.position {
        Some(_) => event.event_id.to_string(),
        None => format!("{}@{}/{}/{}/{}", event.event_id, at.source, at.topic, at.partition, at.offset),
    }
}

/// One attempt at an assessment. Which one of the learner's it is, is its rank by (completed at, key): no producer knows what
/// the others have sent.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptRow {
    /// Whose.
    pub tenant: String,
    /// See [`attempt_key`].
    pub key: String,
    /// The event.
    pub event_id: String,
    /// The assessment.
    pub assessment_id: String,
    /// The learner.
    pub user_id: String,
    /// The session it was taken in.
    pub session_id: Option<String>,
    /// Points.
    pub score: f64,
    /// Points that could be had.
    pub max_score: f64,
    /// Score in millionths of a percent.
    pub score_percent_micros: i64,
    /// As the producer judged.
    pub passed: bool,
    /// Time spent, microseconds.
    pub time_spent_micros: i64,
    /// `analytics`, if sent.
    pub analytics: Option<Value>,
    /// When it was completed.
    pub completed_at: Timestamp,
    /// Stream version of the event; 0 when it carries none.
    pub version: i64,
}

impl AttemptRow {
    /// The row of an AssessmentCompleted; `None` for other events.
    #[must_use]
    pub fn of(event: &Event, key: String, units: Units) -> Option<Self> {
        (event.event_type == EventType::AssessmentCompleted).then(|| Self {
            tenant: event.tenant.to_string(),
            key,
            event_id: event.event_id.to_string(),
            assessment_id: event.text("assessmentId").unwrap_or_default().to_owned(),
            user_id: event.text("userId").unwrap_or_default().to_owned(),
            session_id: event.text("sessionId").map(str::to_owned),
            score: event.number("score").unwrap_or(0.0),
            max_score: event.number("maxScore").unwrap_or(0.0),
            score_percent_micros: score_percent_micros(event),
            passed: event.data.boolean("passed").unwrap_or(false),
            time_spent_micros: units.time_spent.to_micros(event.number("timeSpent").unwrap_or(0.0)),
            analytics: event.data.json("analytics"),
            completed_at: event.timestamp,
            version: event.version.unwrap_or(0),
        })
    }

    /// Canonical text of the row, for `weir verify`.
    #[must_use]
    pub fn canonical(&self) -> String {
        canonical::text(&json!({
            "tenant": self.tenant, "key": self.key, "event_id": self.event_id, "assessment_id": self.assessment_id,
            "user_id": self.user_id, "session_id": self.session_id, "score": self.score, "max_score": self.max_score,
            "score_percent_micros": self.score_percent_micros.to_string(), "passed": self.passed,
            "time_spent_micros": self.time_spent_micros.to_string(), "analytics": self.analytics,
            "completed_at": self.completed_at.to_string(), "version": self.version,
        }))
    }
}
