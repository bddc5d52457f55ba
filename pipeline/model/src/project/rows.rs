//! `learning_session_read_model` and `assessment_read_model`: one row per session and per assessment.

use serde_json::{Value, json};

use super::Units;
use crate::canonical;
use crate::clock::Timestamp;
use crate::event::{Event, EventType};
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

/// One learner's take of an assessment.
#[derive(Debug, Clone, PartialEq)]
pub struct AssessmentRow {
    /// Whose.
    pub tenant: String,
    /// The assessment.
    pub id: String,
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
    /// Stream version of the event.
    pub version: i64,
}

impl AssessmentRow {
    /// The row of an AssessmentCompleted; `None` for other events.
    #[must_use]
    pub fn of(event: &Event, units: Units) -> Option<Self> {
        (event.event_type == EventType::AssessmentCompleted).then(|| Self {
            tenant: event.tenant.to_string(),
            id: event.stream.aggregate_id().to_owned(),
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
            "tenant": self.tenant, "id": self.id, "user_id": self.user_id, "session_id": self.session_id,
            "score": self.score, "max_score": self.max_score, "score_percent_micros": self.score_percent_micros.to_string(),
            "passed": self.passed, "time_spent_micros": self.time_spent_micros.to_string(), "analytics": self.analytics,
            "completed_at": self.completed_at.to_string(), "version": self.version,
        }))
    }
}
