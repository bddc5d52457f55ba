//! Content: Draft → Uploaded → Processing → Completed or Failed, each step once.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Rejection, text};
use crate::Object;
use crate::event_type::EventType;
use crate::ids::StreamId;

/// Where a file stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContentStatus {
    /// Nothing has arrived.
    #[default]
    Draft,
    /// The file is there.
    Uploaded,
    /// It is being worked on.
    Processing,
    /// Done, wholly or in part.
    Completed,
    /// Processing failed.
    Failed,
}

impl fmt::Display for ContentStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// What the command side knows of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    status: ContentStatus,
}

impl Content {
    pub(super) fn apply(&mut self, event_type: EventType, data: &Object) {
        let next = match event_type {
            EventType::ContentUploaded => ContentStatus::Uploaded,
            EventType::ContentProcessingStarted => ContentStatus::Processing,
            EventType::ContentProcessingCompleted if text(data, "status") == "failed" => ContentStatus::Failed,
            EventType::ContentProcessingCompleted => ContentStatus::Completed,
            EventType::UserRegistered
            | EventType::UserProfileUpdated
            | EventType::UserDeactivated
            | EventType::LearningSessionStarted
            | EventType::AssessmentCompleted
            | EventType::TaskAssigned
            | EventType::TaskCompleted => return,
        };
        self.status = next;
    }

    pub(super) fn decide(&self, stream: &StreamId, event_type: EventType) -> Result<(), Rejection> {
        let needed = match event_type {
            EventType::ContentUploaded => ContentStatus::Draft,
            EventType::ContentProcessingStarted => ContentStatus::Uploaded,
            EventType::ContentProcessingCompleted
            | EventType::UserRegistered
            | EventType::UserProfileUpdated
            | EventType::UserDeactivated
            | EventType::LearningSessionStarted
            | EventType::AssessmentCompleted
            | EventType::TaskAssigned
            | EventType::TaskCompleted => ContentStatus::Processing,
        };
        if self.status == needed {
            return Ok(());
        }
        Err(Rejection::WrongStatus { stream: stream.to_string(), actual: self.status, needed, event_type })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scenario, with};
    use crate::event_type::AggregateType::Content;
    use crate::event_type::EventType::{ContentProcessingCompleted, ContentProcessingStarted, ContentUploaded};

    #[test]
    fn content_goes_from_draft_to_uploaded_to_processing_to_completed() {
        Scenario::given(Content, &[]).when(ContentUploaded).then(ContentUploaded);
        Scenario::given(Content, &[ContentUploaded]).when(ContentProcessingStarted).then(ContentProcessingStarted);
        let processing = Scenario::given(Content, &[ContentUploaded, ContentProcessingStarted]);
        processing.when(ContentProcessingCompleted).then(ContentProcessingCompleted);
        let failed = with(ContentProcessingCompleted, "status", "failed");
        processing.when_with(ContentProcessingCompleted, failed).then(ContentProcessingCompleted);
    }

    #[test]
    fn no_step_is_left_out() {
        Scenario::given(Content, &[]).when(ContentProcessingStarted).then_rejected("is Draft");
        Scenario::given(Content, &[]).when(ContentProcessingCompleted).then_rejected("is Draft");
        Scenario::given(Content, &[ContentUploaded]).when(ContentProcessingCompleted).then_rejected("is Uploaded");
    }

    #[test]
    fn no_step_is_taken_twice() {
        Scenario::given(Content, &[ContentUploaded]).when(ContentUploaded).then_rejected("needs it to be Draft");
        let processing = || Scenario::given(Content, &[ContentUploaded, ContentProcessingStarted]);
        processing().when(ContentProcessingStarted).then_rejected("is Processing");
        let done = with(ContentProcessingCompleted, "status", "partial");
        processing()
            .and(ContentProcessingCompleted, &done)
            .when(ContentProcessingCompleted)
            .then_rejected("is Completed");
        let failed = with(ContentProcessingCompleted, "status", "failed");
        processing().and(ContentProcessingCompleted, &failed).when(ContentProcessingStarted).then_rejected("is Failed");
    }
}
