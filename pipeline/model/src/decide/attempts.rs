//! One learner's takes of one assessment: each completion is an attempt, and there may be a most.

use serde::{Deserialize, Serialize};

use super::{Rejection, Rules, stream_of};
use crate::Object;
use crate::event_type::EventType;
use crate::ids::StreamId;

/// How often the learner has taken it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    taken: i64,
    /// In a stream of the old form, which was one for all learners. Looked up for each decision that asks, and never kept.
    #[serde(skip)]
    earlier: i64,
}

impl Attempts {
    pub(super) fn apply(&mut self, stream: &StreamId, event_type: EventType, data: &Object) {
        // A stream of the old form may have had the name that this one has, and other learners' events.
        let is_ours = || stream_of(event_type, data).is_ok_and(|own| own == *stream);
        self.taken += i64::from(event_type == EventType::AssessmentCompleted && is_ours());
    }

    /// Counts attempts that a stream of the old form holds.
    pub fn add_earlier(&mut self, attempts: i64) {
        self.earlier += attempts;
    }

    pub(super) fn decide(&self, stream: &StreamId, rules: &Rules) -> Result<(), Rejection> {
        let attempts = self.taken + self.earlier;
        match rules.max_attempts {
            Some(max) if attempts >= i64::from(max.get()) => {
                Err(Rejection::AttemptsUsed { stream: stream.to_string(), attempts, max })
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::super::testing::{Scenario, with};
    use super::super::{Aggregate, Rules};
    use crate::event_type::EventType::AssessmentCompleted;
    use crate::ids::StreamId;

    fn given(attempts: usize, max: u32) -> Scenario {
        let stream = StreamId::of_takes("assessment_1", "user_12345").expect("valid");
        Scenario::of(stream, &vec![AssessmentCompleted; attempts], Rules { max_attempts: NonZeroU32::new(max) })
    }

    #[test]
    fn an_assessment_may_be_taken_any_number_of_times() {
        given(0, 0).when(AssessmentCompleted).then(AssessmentCompleted);
        given(50, 0).when(AssessmentCompleted).then(AssessmentCompleted);
    }

    #[test]
    fn unless_there_is_a_most() {
        given(1, 2).when(AssessmentCompleted).then(AssessmentCompleted);
        given(2, 2).when(AssessmentCompleted).then_rejected("Assessment-assessment_1/user_12345 has 2 attempts");
    }

    #[test]
    fn attempts_in_a_stream_of_the_old_form_count() {
        let mut scenario = given(1, 2);
        if let Aggregate::Assessment(attempts) = &mut scenario.aggregate {
            attempts.add_earlier(1);
        }
        scenario.when(AssessmentCompleted).then_rejected("has 2 attempts");
    }

    #[test]
    fn another_learners_attempt_under_the_same_old_name_does_not() {
        let other = with(AssessmentCompleted, "userId", "somebody else");
        given(1, 2).and(AssessmentCompleted, &other).when(AssessmentCompleted).then(AssessmentCompleted);
    }
}
