//! Sessions: they come into being once, and that is all that happens to them.

use serde::{Deserialize, Serialize};

use super::Rejection;
use crate::ids::StreamId;

/// Whether it happened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Once {
    happened: bool,
}

impl Once {
    pub(super) fn apply(&mut self) {
        self.happened = true;
    }

    pub(super) fn decide(&self, stream: &StreamId) -> Result<(), Rejection> {
        if self.happened { Err(Rejection::ExistsAlready { stream: stream.to_string() }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Scenario;
    use crate::event_type::AggregateType::LearningSession;
    use crate::event_type::EventType::LearningSessionStarted;

    #[test]
    fn a_session_comes_into_being_once() {
        Scenario::given(LearningSession, &[]).when(LearningSessionStarted).then(LearningSessionStarted);
        let again = Scenario::given(LearningSession, &[LearningSessionStarted]);
        again.when(LearningSessionStarted).then_rejected("LearningSession-x exists already");
    }
}
