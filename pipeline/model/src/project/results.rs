//! `assessment_results`: what a learner's attempts at an assessment come to. Commutative: attempts that our commands recorded and
//! those of other services may lie in different partitions, and no order between them is promised.

use serde_json::json;

use super::progress::score_percent_micros;
use crate::canonical;
use crate::clock::Timestamp;
use crate::event::Event;
use crate::event_type::EventType;
use crate::ids::takes_id;

/// Whose results.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResultKey {
    /// Whose learner.
    pub tenant: String,
    /// The assessment and the learner as one id, as [`takes_id`] makes it: together they would be too long for an index.
    pub id: String,
    /// The assessment.
    pub assessment_id: String,
    /// The learner.
    pub user_id: String,
}

/// The attempt that was completed last.
#[derive(Debug, Clone, PartialEq)]
pub struct LastAttempt {
    /// When.
    pub completed_at: Timestamp,
    /// Of several at one time the greatest is the last.
    pub key: String,
    /// Points.
    pub score: f64,
    /// Points that could be had.
    pub max_score: f64,
    /// Score in millionths of a percent.
    pub score_percent_micros: i64,
}

/// What some attempts add; also the whole, for the sum over all of them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AssessmentResult {
    /// How many.
    pub attempts: i64,
    /// Of those, passed.
    pub passes: i64,
    /// The best score, in millionths of a percent.
    pub best_percent_micros: i64,
    /// The last one.
    pub last: Option<LastAttempt>,
    /// When the first attempt that passed was completed.
    pub first_passed_at: Option<Timestamp>,
}

/// What an attempt adds, and to which learner's results; `None` for other events.
#[must_use]
pub fn result_of(event: &Event, key: &str) -> Option<(ResultKey, AssessmentResult)> {
    if event.event_type != EventType::AssessmentCompleted {
        return None;
    }
    let (assessment_id, user_id) = (event.text("assessmentId")?, event.text("userId")?);
    let passed = event.data.boolean("passed").unwrap_or(false);
    let percent = score_percent_micros(event);
    let result = AssessmentResult {
        attempts: 1,
        passes: i64::from(passed),
        best_percent_micros: percent,
        last: Some(LastAttempt {
            completed_at: event.timestamp,
            key: key.to_owned(),
            score: event.number("score").unwrap_or(0.0),
            max_score: event.number("maxScore").unwrap_or(0.0),
            score_percent_micros: percent,
        }),
        first_passed_at: passed.then_some(event.timestamp),
    };
    let key = ResultKey {
        tenant: event.tenant.to_string(),
        id: takes_id(assessment_id, user_id),
        assessment_id: assessment_id.to_owned(),
        user_id: user_id.to_owned(),
    };
    Some((key, result))
}

impl AssessmentResult {
    /// Adds another part.
    pub fn merge(&mut self, other: Self) {
        let order = |last: &LastAttempt| (last.completed_at, last.key.clone());
        self.attempts += other.attempts;
        self.passes += other.passes;
        self.best_percent_micros = self.best_percent_micros.max(other.best_percent_micros);
        if other.last.as_ref().map(order) > self.last.as_ref().map(order) {
            self.last = other.last;
        }
        self.first_passed_at = [self.first_passed_at, other.first_passed_at].into_iter().flatten().min();
    }

    /// Canonical text of the row, for `weir verify`.
    #[must_use]
    pub fn canonical(&self, key: &ResultKey) -> String {
        let last = self.last.as_ref().map(|last| {
            json!({"completed_at": last.completed_at.to_string(), "key": last.key, "score": last.score,
                "max_score": last.max_score, "score_percent_micros": last.score_percent_micros.to_string()})
        });
        canonical::text(&json!({
            "tenant": key.tenant, "id": key.id, "assessment_id": key.assessment_id, "user_id": key.user_id,
            "attempts": self.attempts, "passes": self.passes, "best_percent_micros": self.best_percent_micros.to_string(),
            "last": last, "first_passed_at": self.first_passed_at.map(|at| at.to_string()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::project::progress::tests::event;

    fn sum(attempts: &[(i64, u32, bool)]) -> AssessmentResult {
        let mut whole = AssessmentResult::default();
        for (at, score, passed) in attempts {
            let changes = json!({"score": score, "maxScore": 7, "passed": passed});
            let event = event(EventType::AssessmentCompleted, "a", *at, changes);
            whole.merge(result_of(&event, &format!("{score} {passed}")).expect("an attempt").1);
        }
        whole
    }

    proptest! {
        #[test]
        fn attempts_in_any_order_come_to_the_same(
            (given, shuffled) in prop::collection::vec((1..6_i64, 0..=7_u32, any::<bool>()), 0..20)
                .prop_flat_map(|attempts| (Just(attempts.clone()), Just(attempts).prop_shuffle()))
        ) {
            prop_assert_eq!(sum(&given), sum(&shuffled));
        }
    }

    #[test]
    fn the_last_is_not_always_the_best() {
        let result = sum(&[(2, 7, true), (3, 1, false), (1, 5, true)]);
        assert_eq!((result.attempts, result.passes, result.best_percent_micros), (3, 2, 100_000_000));
        let last = result.last.expect("there are some");
        assert_eq!((last.score, last.completed_at.as_millis()), (1.0, 1_700_000_000_003));
        assert_eq!(result.first_passed_at.map(Timestamp::as_millis), Some(1_700_000_000_001));
    }
}
