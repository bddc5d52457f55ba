//! The command side's rules: state and command in, events or a refusal out. No I/O, no clock.
//!
//! Each command asks for one event and carries that event's data, so a command's contract is its event's contract.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Object;
use crate::event_type::{AggregateType, EventType, UnknownName};
use crate::ids::{InvalidId, StreamId};

mod attempts;
mod content;
mod once;
mod task;
mod user;

pub use attempts::Attempts;
pub use content::{Content, ContentStatus};
pub use once::Once;
pub use task::Task;
pub use user::User;

/// The layout of [`Aggregate`] in snapshots; raised with every change of it, so that an old snapshot is not misread.
pub const STATE_VERSION: i32 = 2;

/// Rules that differ from platform to platform. They bind commands alone: what a service decided for itself is a fact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    /// Attempts of one learner at one assessment; any number when `None`.
    pub max_attempts: Option<NonZeroU32>,
}

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CommandType(EventType);

const COMMAND_NAMES: [(&str, EventType); 10] = [
    ("RegisterUser", EventType::UserRegistered),
    ("UpdateUserProfile", EventType::UserProfileUpdated),
    ("DeactivateUser", EventType::UserDeactivated),
    ("UploadContent", EventType::ContentUploaded),
    ("StartContentProcessing", EventType::ContentProcessingStarted),
    ("CompleteContentProcessing", EventType::ContentProcessingCompleted),
    ("StartLearningSession", EventType::LearningSessionStarted),
    ("CompleteAssessment", EventType::AssessmentCompleted),
    ("AssignTask", EventType::TaskAssigned),
    ("CompleteTask", EventType::TaskCompleted),
];

impl CommandType {
    /// The command that asks for `event_type`.
    #[must_use]
    pub fn for_event(event_type: EventType) -> Self {
        Self(event_type)
    }

    /// The event asked for.
    #[must_use]
    pub fn event_type(self) -> EventType {
        self.0
    }

    /// Its name in URLs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        COMMAND_NAMES.iter().find(|(_, e)| *e == self.0).map_or("", |(name, _)| name)
    }
}

impl FromStr for CommandType {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let found = COMMAND_NAMES.iter().find(|(n, _)| *n == name);
        found.map(|(_, e)| Self(*e)).ok_or_else(|| UnknownName {
            what: "command",
            name: name.chars().take(100).collect(),
            known: COMMAND_NAMES.map(|(n, _)| n).join(", "),
        })
    }
}

impl fmt::Display for CommandType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A rule that forbids the command as things stand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// A user or session exists already.
    #[error("{stream} exists already")]
    ExistsAlready {
        /// Which one.
        stream: String,
    },
    /// The learner has used up the attempts.
    #[error("{stream} has {attempts} attempts, and assessments.max_attempts allows {max}")]
    AttemptsUsed {
        /// The learner's takes of the assessment.
        stream: String,
        /// So far.
        attempts: i64,
        /// As set.
        max: NonZeroU32,
    },
    /// A profile would hold too much.
    #[error("{stream} would have preferences of {bytes} bytes; a profile holds at most {max}")]
    PreferencesFull {
        /// Which user.
        stream: String,
        /// Of canonical JSON.
        bytes: usize,
        /// As allowed.
        max: usize,
    },
    /// Content is not in the state that the step needs.
    #[error("{stream} is {actual}; {event_type} needs it to be {needed}")]
    WrongStatus {
        /// Which content.
        stream: String,
        /// Where it is.
        actual: ContentStatus,
        /// Where it should be.
        needed: ContentStatus,
        /// What was asked for.
        event_type: EventType,
    },
    /// A task was assigned before.
    #[error("{stream} is assigned to {agent} already")]
    AssignedAlready {
        /// Which task.
        stream: String,
        /// To whom.
        agent: String,
    },
    /// Only an assigned task can be completed.
    #[error("{stream} was never assigned")]
    NotAssigned {
        /// Which task.
        stream: String,
    },
    /// A task is completed once.
    #[error("{stream} is completed already")]
    CompletedAlready {
        /// Which task.
        stream: String,
    },
    /// Someone else's task.
    #[error("{stream} is assigned to {agent}, not to {given}")]
    OtherAgent {
        /// Which task.
        stream: String,
        /// Whose task it is.
        agent: String,
        /// Who tried.
        given: String,
    },
}

/// The stream that new data of this type belongs to. Streams of assessments that are one for all learners, as they once were,
/// stay as they are and get no more events.
pub fn stream_of(event_type: EventType, data: &Object) -> Result<StreamId, InvalidId> {
    let aggregate_type = event_type.aggregate_type();
    let field = |name: &str| data.get(name).and_then(Value::as_str).unwrap_or_default();
    let id = field(aggregate_type.id_field());
    match aggregate_type {
        AggregateType::Assessment => StreamId::of_takes(id, field("userId")),
        AggregateType::User | AggregateType::Content | AggregateType::LearningSession | AggregateType::Task => {
            StreamId::new(aggregate_type, id)
        }
    }
}

/// The fields of data that [`Aggregate::apply`] reads: nothing else need be loaded.
pub const STATE_FIELDS: [&str; 6] = ["agentId", "status", "assessmentId", "userId", "profile", "newValues"];

/// What the command side remembers of a stream: just enough to decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Aggregate {
    /// An account.
    User(User),
    /// A file.
    Content(Content),
    /// A session.
    LearningSession(Once),
    /// One learner's takes of an assessment.
    Assessment(Attempts),
    /// An agent's task.
    Task(Task),
}

impl Aggregate {
    /// The state before the first event.
    #[must_use]
    pub fn new(aggregate_type: AggregateType) -> Self {
        match aggregate_type {
            AggregateType::User => Self::User(User::default()),
            AggregateType::Content => Self::Content(Content::default()),
            AggregateType::LearningSession => Self::LearningSession(Once::default()),
            AggregateType::Assessment => Self::Assessment(Attempts::default()),
            AggregateType::Task => Self::Task(Task::default()),
        }
    }

    /// Takes an event of this stream in. An event of another aggregate's type changes nothing.
    pub fn apply(&mut self, stream: &StreamId, event_type: EventType, data: &Object) {
        match self {
            Self::User(user) => user.apply(event_type, data),
            Self::Content(content) => content.apply(event_type, data),
            Self::LearningSession(once) => once.apply(),
            Self::Assessment(attempts) => attempts.apply(stream, event_type, data),
            Self::Task(task) => task.apply(event_type, data),
        }
    }

    /// The events that the command leads to. `data` has passed the contract of the command's event.
    pub fn decide(
        &self,
        stream: &StreamId,
        command: CommandType,
        data: Object,
        rules: &Rules,
    ) -> Result<Vec<NewEvent>, Rejection> {
        let event_type = command.event_type();
        match self {
            Self::User(user) => user.decide(stream, event_type, &data)?,
            Self::Content(content) => content.decide(stream, event_type)?,
            Self::LearningSession(once) => once.decide(stream)?,
            Self::Assessment(attempts) => attempts.decide(stream, rules)?,
            Self::Task(task) => task.decide(stream, event_type, &data)?,
        }
        Ok(vec![NewEvent { event_type, data }])
    }
}

/// An event that was decided on and is not yet stored.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// What happened.
    pub event_type: EventType,
    /// Data of the newest contract.
    pub data: Object,
}

fn text(data: &Object, field: &str) -> String {
    data.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::samples;

    #[test]
    fn the_state_depends_on_the_state_fields_alone() {
        for (event_type, data) in samples::all() {
            for status in ["success", "failed", "completed"] {
                let Value::Object(mut whole) = data.clone() else { panic!("samples are objects") };
                whole.entry("status").and_modify(|value| *value = status.into());
                let known = |name: &&str| ((*name).to_owned(), whole.get(*name).cloned().unwrap_or_default());
                let part: Object = STATE_FIELDS.iter().map(known).collect();
                let stream = stream_of(event_type, &whole).expect("a stream");
                let state_after = |data: &Object| {
                    let mut state = Aggregate::new(event_type.aggregate_type());
                    state.apply(&stream, event_type, data);
                    state
                };
                assert_eq!(state_after(&part), state_after(&whole), "{event_type} {status}");
            }
        }
    }
}

/// Given / when / then, for the tests of every aggregate.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::wire::samples;

    pub(crate) struct Scenario {
        pub(crate) aggregate: Aggregate,
        stream: StreamId,
        rules: Rules,
    }

    pub(crate) fn sample(event_type: EventType) -> Object {
        let Value::Object(data) = samples::one(event_type) else { panic!("samples are objects") };
        data
    }

    pub(crate) fn with(event_type: EventType, field: &str, value: &str) -> Object {
        let mut data = sample(event_type);
        data.insert(field.to_owned(), value.into());
        data
    }

    impl Scenario {
        pub(crate) fn given(aggregate_type: AggregateType, history: &[EventType]) -> Self {
            let stream = StreamId::new(aggregate_type, "x").expect("valid");
            Self::of(stream, history, Rules::default())
        }

        pub(crate) fn of(stream: StreamId, history: &[EventType], rules: Rules) -> Self {
            let mut scenario = Self { aggregate: Aggregate::new(stream.aggregate_type()), stream, rules };
            for event_type in history {
                scenario.aggregate.apply(&scenario.stream, *event_type, &sample(*event_type));
            }
            scenario
        }

        pub(crate) fn and(mut self, event_type: EventType, data: &Object) -> Self {
            self.aggregate.apply(&self.stream, event_type, data);
            self
        }

        pub(crate) fn when(&self, event_type: EventType) -> Outcome {
            self.when_with(event_type, sample(event_type))
        }

        pub(crate) fn when_with(&self, event_type: EventType, data: Object) -> Outcome {
            let command = CommandType::for_event(event_type);
            Outcome(self.aggregate.decide(&self.stream, command, data, &self.rules))
        }
    }

    pub(crate) struct Outcome(Result<Vec<NewEvent>, Rejection>);

    impl Outcome {
        pub(crate) fn then(self, event_type: EventType) {
            let events = self.0.expect("accepted");
            assert_eq!(events.iter().map(|e| e.event_type).collect::<Vec<_>>(), [event_type]);
        }

        pub(crate) fn then_rejected(self, words: &str) {
            let rejection = self.0.expect_err("rejected").to_string();
            assert!(rejection.contains(words), "`{rejection}` does not say `{words}`");
        }
    }
}
