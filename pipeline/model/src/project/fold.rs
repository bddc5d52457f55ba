//! The read models by name, and the rows that events make in each of them: what lanes apply step by step, `weir verify` and the
//! rebuild do here from the beginning.

use super::{
    AssessmentResult, AttemptRow, ContentRow, Progress, ResultKey, SessionRow, TaskRow, Unappliable, Units, UserRow,
    progress_of, result_of,
};
use crate::event::Event;
use crate::event_type::EventType;
use crate::ids::takes_id;

/// A read model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReadModel {
    /// Accounts.
    Users,
    /// Sessions.
    Sessions,
    /// Attempts at assessments.
    Attempts,
    /// What a learner's attempts at an assessment come to.
    Results,
    /// What a learner's sessions and attempts come to.
    Progress,
    /// Files.
    Contents,
    /// Agents' tasks.
    Tasks,
}

impl ReadModel {
    /// All of them, in the order in which tables are written and locked.
    pub const ALL: [Self; 7] =
        [Self::Users, Self::Sessions, Self::Attempts, Self::Results, Self::Progress, Self::Contents, Self::Tasks];

    /// Its table.
    #[must_use]
    pub fn table(self) -> &'static str {
        match self {
            Self::Users => "user_read_model",
            Self::Sessions => "learning_session_read_model",
            Self::Attempts => "assessment_read_model",
            Self::Results => "assessment_results",
            Self::Progress => "learner_progress_read_model",
            Self::Contents => "content_read_model",
            Self::Tasks => "task_read_model",
        }
    }

    /// Its place in [`Self::ALL`].
    #[must_use]
    pub fn index(self) -> u8 {
        Self::ALL.iter().position(|model| *model == self).and_then(|n| u8::try_from(n).ok()).unwrap_or(u8::MAX)
    }

    /// The one at a place in [`Self::ALL`].
    #[must_use]
    pub fn at(index: u8) -> Option<Self> {
        Self::ALL.get(usize::from(index)).copied()
    }
}

/// Whether events of its stream must be applied in order: of the read models, rows of attempts and what they are summed up to
/// do not depend on it.
#[must_use]
pub fn depends_on_order(event_type: EventType) -> bool {
    event_type != EventType::AssessmentCompleted
}

/// The rows that an event touches: model, tenant, and a key that is one row's within both. `attempt` is the event's own key,
/// should it be an attempt.
#[must_use]
pub fn rows_of(event: &Event, attempt: &str) -> Vec<(ReadModel, String, String)> {
    let tenant = || event.tenant.to_string();
    let own = || event.stream.aggregate_id().to_owned();
    let of_user = || event.text("userId").unwrap_or_default().to_owned();
    match event.event_type {
        EventType::UserRegistered | EventType::UserProfileUpdated | EventType::UserDeactivated => {
            vec![(ReadModel::Users, tenant(), own())]
        }
        EventType::ContentUploaded | EventType::ContentProcessingStarted | EventType::ContentProcessingCompleted => {
            vec![(ReadModel::Contents, tenant(), own())]
        }
        EventType::LearningSessionStarted => {
            vec![(ReadModel::Sessions, tenant(), own()), (ReadModel::Progress, tenant(), of_user())]
        }
        EventType::AssessmentCompleted => vec![
            (ReadModel::Attempts, tenant(), attempt.to_owned()),
            (ReadModel::Results, tenant(), takes_id(event.text("assessmentId").unwrap_or_default(), &of_user())),
            (ReadModel::Progress, tenant(), of_user()),
        ],
        EventType::TaskAssigned | EventType::TaskCompleted => vec![(ReadModel::Tasks, tenant(), own())],
    }
}

/// A row as its events make it, one after the other.
#[derive(Debug, Clone, PartialEq)]
pub enum FoldedRow {
    /// Of [`ReadModel::Users`].
    User(Box<UserRow>),
    /// Of [`ReadModel::Sessions`].
    Session(Option<Box<SessionRow>>),
    /// Of [`ReadModel::Attempts`].
    Attempt(Option<Box<AttemptRow>>),
    /// Of [`ReadModel::Results`].
    Result(Option<(ResultKey, AssessmentResult)>),
    /// Of [`ReadModel::Progress`]: tenant, learner, sum.
    Progress(String, String, Progress),
    /// Of [`ReadModel::Contents`].
    Content(Box<ContentRow>),
    /// Of [`ReadModel::Tasks`].
    Task(Box<TaskRow>),
}

impl FoldedRow {
    /// The row before its first event.
    #[must_use]
    pub fn new(model: ReadModel, event: &Event) -> Self {
        match model {
            ReadModel::Users => Self::User(Box::new(UserRow::new(event))),
            ReadModel::Sessions => Self::Session(None),
            ReadModel::Attempts => Self::Attempt(None),
            ReadModel::Results => Self::Result(None),
            ReadModel::Progress => {
                let user = event.text("userId").unwrap_or_default().to_owned();
                Self::Progress(event.tenant.to_string(), user, Progress::default())
            }
            ReadModel::Contents => Self::Content(Box::new(ContentRow::new(event))),
            ReadModel::Tasks => Self::Task(Box::new(TaskRow::new(event))),
        }
    }

    /// Takes the next event in. After an error the row is as it was.
    pub fn apply(&mut self, event: &Event, attempt: &str, units: Units) -> Result<(), Unappliable> {
        match self {
            Self::User(row) => row.apply(event)?,
            Self::Session(row) => *row = SessionRow::of(event).map(Box::new),
            Self::Attempt(row) => *row = AttemptRow::of(event, attempt.to_owned(), units).map(Box::new),
            Self::Result(row) => {
                if let Some((key, part)) = result_of(event, attempt) {
                    row.get_or_insert_with(|| (key, AssessmentResult::default())).1.merge(part);
                }
            }
            Self::Progress(_, _, progress) => {
                if let Some((_, part)) = progress_of(event, units) {
                    progress.merge(part);
                }
            }
            Self::Content(row) => row.apply(event, units),
            Self::Task(row) => row.apply(event, units),
        }
        Ok(())
    }

    /// Canonical text of the row, for `weir verify`.
    #[must_use]
    pub fn canonical(&self) -> String {
        match self {
            Self::User(row) => row.canonical(),
            Self::Session(row) => row.as_ref().map(|row| row.canonical()).unwrap_or_default(),
            Self::Attempt(row) => row.as_ref().map(|row| row.canonical()).unwrap_or_default(),
            Self::Result(row) => row.as_ref().map(|(key, result)| result.canonical(key)).unwrap_or_default(),
            Self::Progress(tenant, user, progress) => progress.canonical(tenant, user),
            Self::Content(row) => row.canonical(),
            Self::Task(row) => row.canonical(),
        }
    }
}
