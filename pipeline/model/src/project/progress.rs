//! `learner_progress_read_model`: sums and sets per learner. Commutative, so events of different streams may arrive in any
//! order, and no prior row is needed.

use std::collections::BTreeSet;

use serde_json::json;

use super::Units;
use crate::canonical;
use crate::clock::Timestamp;
use crate::event::Event;
use crate::event_type::EventType;

/// What some events add to a learner's progress; also the whole progress, for the sum over all events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Sessions begun.
    pub sessions: i64,
    /// Learning paths of those sessions.
    pub learning_paths: BTreeSet<String>,
    /// Attempts at assessments.
    pub attempts: i64,
    /// Of those, passed.
    pub attempts_passed: i64,
    /// Assessments attempted.
    pub assessments_taken: BTreeSet<String>,
    /// Of those, passed at least once.
    pub assessments_passed: BTreeSet<String>,
    /// Sum of scores in millionths of a percent.
    pub score_percent_micros_sum: i128,
    /// Sum of time spent, microseconds.
    pub time_spent_micros: i128,
    /// The latest timestamp among them.
    pub last_activity: Option<Timestamp>,
}

/// Score in millionths of a percent, rounded once per assessment: integer sums agree whatever their order, which a
/// running sum of doubles would not.
#[allow(clippy::as_conversions, reason = "the contract holds score within 0..maxScore, so the value is within 0..1e8")]
pub(super) fn score_percent_micros(event: &Event) -> i64 {
    match (event.number("score"), event.number("maxScore")) {
        (Some(score), Some(max)) if max > 0.0 => (score / max * 100_000_000.0).round() as i64,
        _ => 0,
    }
}

/// What one event adds, and for whom (tenant, user); `None` when it adds nothing.
#[must_use]
pub fn progress_of(event: &Event, units: Units) -> Option<((String, String), Progress)> {
    let mut progress = Progress { last_activity: Some(event.timestamp), ..Progress::default() };
    if event.event_type == EventType::LearningSessionStarted {
        progress.sessions = 1;
        progress.learning_paths.extend(event.text("learningPathId").map(str::to_owned));
    } else if event.event_type == EventType::AssessmentCompleted {
        let assessment = event.text("assessmentId").unwrap_or_default();
        progress.attempts = 1;
        progress.assessments_taken.insert(assessment.to_owned());
        if event.data.boolean("passed").unwrap_or(false) {
            progress.attempts_passed = 1;
            progress.assessments_passed.insert(assessment.to_owned());
        }
        progress.score_percent_micros_sum = score_percent_micros(event).into();
        progress.time_spent_micros = units.time_spent.to_micros(event.number("timeSpent").unwrap_or(0.0)).into();
    } else {
        return None;
    }
    Some(((event.tenant.to_string(), event.text("userId")?.to_owned()), progress))
}

impl Progress {
    /// Adds another part.
    pub fn merge(&mut self, other: Self) {
        self.sessions += other.sessions;
        self.learning_paths.extend(other.learning_paths);
        self.attempts += other.attempts;
        self.attempts_passed += other.attempts_passed;
        self.assessments_taken.extend(other.assessments_taken);
        self.assessments_passed.extend(other.assessments_passed);
        self.score_percent_micros_sum += other.score_percent_micros_sum;
        self.time_spent_micros += other.time_spent_micros;
        self.last_activity = self.last_activity.max(other.last_activity);
    }

    /// Canonical text of the row, for `weir verify`.
    #[must_use]
    pub fn canonical(&self, tenant: &str, user_id: &str) -> String {
        canonical::text(&json!({
            "tenant": tenant, "user_id": user_id, "sessions": self.sessions, "learning_paths": self.learning_paths,
            "attempts": self.attempts, "attempts_passed": self.attempts_passed,
            "assessments_taken": self.assessments_taken, "assessments_passed": self.assessments_passed,
            "score_percent_micros_sum": self.score_percent_micros_sum.to_string(),
            "time_spent_micros": self.time_spent_micros.to_string(),
            "last_activity": self.last_activity.map(|t| t.to_string()),
        }))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::envelope::{Envelope, Metadata};
    use crate::ids::{EventId, StreamId, TenantId};
    use crate::wire::samples;

    /// A decoded sample event with some fields replaced.
    pub(crate) fn event(event_type: EventType, id: &str, version: i64, changes: Value) -> Event {
        let (Value::Object(mut data), Value::Object(changes)) = (samples::one(event_type), changes) else {
            panic!("objects")
        };
        data.extend(changes);
        let envelope = Envelope {
            event_id: EventId::new(format!("{event_type}-{id}-{version}")).expect("id"),
            schema_version: "1.0.0".into(),
            timestamp: Timestamp::from_millis(1_700_000_000_000 + version).expect("time"),
            recorded_at: None,
            source: "test".into(),
            tenant: TenantId::default(),
            version: Some(version),
            position: None,
            metadata: Metadata::default(),
        };
        let stream = StreamId::new(event_type.aggregate_type(), id).expect("stream");
        Event { envelope, event_type, stream, data: crate::Data::from_object(event_type, &data) }
    }

    fn learners_event() -> impl Strategy<Value = Event> {
        (any::<bool>(), 0..3_u8, 0..4_u8, 0..=1000_u32, any::<bool>(), 0..10_000_i64).prop_map(
            |(session, user, path, score, passed, at)| {
                let user = format!("u{user}");
                if session {
                    let changes = json!({"userId": user, "learningPathId": format!("p{path}")});
                    event(EventType::LearningSessionStarted, "s", at + 1, changes)
                } else {
                    let changes = json!({"userId": user, "score": f64::from(score) / 7.0, "maxScore": 150, "passed": passed,
                        "timeSpent": f64::from(score) * 0.1});
                    event(EventType::AssessmentCompleted, "a", at + 1, changes)
                }
            },
        )
    }

    fn rows(events: &[Event]) -> BTreeMap<(String, String), Progress> {
        let mut rows: BTreeMap<_, Progress> = BTreeMap::new();
        for (key, part) in events.iter().filter_map(|e| progress_of(e, Units::default())) {
            rows.entry(key).or_default().merge(part);
        }
        rows
    }

    proptest! {
        #[test]
        fn any_order_of_other_streams_gives_equal_rows(
            (given, shuffled) in prop::collection::vec(learners_event(), 0..60)
                .prop_flat_map(|events| (Just(events.clone()), Just(events).prop_shuffle()))
        ) {
            prop_assert_eq!(rows(&given), rows(&shuffled));
        }
    }

    #[test]
    fn a_session_and_three_attempts_add_up() {
        let rows = rows(&[
            event(EventType::LearningSessionStarted, "s1", 1, json!({"userId": "u"})),
            event(
                EventType::AssessmentCompleted,
                "a1",
                2,
                json!({"userId": "u", "assessmentId": "a1", "score": 1, "maxScore": 3, "passed": false}),
            ),
            event(
                EventType::AssessmentCompleted,
                "a2",
                3,
                json!({"userId": "u", "assessmentId": "a2", "score": 50, "maxScore": 50, "timeSpent": 0.25}),
            ),
            event(
                EventType::AssessmentCompleted,
                "a2",
                4,
                json!({"userId": "u", "assessmentId": "a2", "score": 0, "passed": false, "timeSpent": 0}),
            ),
        ]);
        let progress = &rows[&("default".to_owned(), "u".to_owned())];
        assert_eq!((progress.sessions, progress.attempts), (1, 3));
        assert_eq!((progress.assessments_taken.len(), progress.assessments_passed.len()), (2, 1));
        assert_eq!(progress.score_percent_micros_sum, 33_333_333 + 100_000_000);
        assert_eq!(progress.time_spent_micros, 905_000_000 + 250);
    }
}
