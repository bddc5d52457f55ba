//! `content_read_model`: where each file stands, in the order of its own stream.

use serde_json::json;

use super::Units;
use crate::canonical;
use crate::clock::Timestamp;
use crate::event::Event;
use crate::event_type::EventType;

/// Where a file stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentRowStatus {
    /// It is there.
    Uploaded,
    /// It is being worked on.
    Processing,
    /// Done.
    Completed,
    /// Done in part.
    Partial,
    /// Processing failed.
    Failed,
}

impl ContentRowStatus {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Uploaded, "uploaded"),
        (Self::Processing, "processing"),
        (Self::Completed, "completed"),
        (Self::Partial, "partial"),
        (Self::Failed, "failed"),
    ];

    /// As stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(status, _)| *status == self).map_or("", |(_, name)| name)
    }

    /// From what is stored.
    #[must_use]
    pub fn from_stored(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(status, _)| *status)
    }
}

/// One row. A file known only from later records has a row too, without what its upload would have said.
#[derive(Debug, Clone, PartialEq)]
pub struct ContentRow {
    /// Whose.
    pub tenant: String,
    /// The file.
    pub id: String,
    /// Who uploaded it, or for whom it was worked on.
    pub user_id: Option<String>,
    /// Its kind.
    pub content_type: Option<String>,
    /// Its name.
    pub file_name: Option<String>,
    /// Its media type.
    pub mime_type: Option<String>,
    /// Bytes.
    pub file_size: Option<i64>,
    /// Where it stands.
    pub status: ContentRowStatus,
    /// What was done with it last.
    pub processing_type: Option<String>,
    /// When it arrived.
    pub uploaded_at: Option<Timestamp>,
    /// When work on it last began.
    pub processing_started_at: Option<Timestamp>,
    /// When work on it last ended.
    pub processing_completed_at: Option<Timestamp>,
    /// How long that took, microseconds.
    pub processing_micros: Option<i64>,
    /// How often processing failed.
    pub failures: i64,
    /// When the last event happened.
    pub updated_at: Timestamp,
    /// The stream version of the last event applied; 0 when the events carry none.
    pub version: i64,
}

impl ContentRow {
    /// The row before its first event.
    #[must_use]
    pub fn new(event: &Event) -> Self {
        Self {
            tenant: event.tenant.to_string(),
            id: event.stream.aggregate_id().to_owned(),
            user_id: None,
            content_type: None,
            file_name: None,
            mime_type: None,
            file_size: None,
            status: ContentRowStatus::Uploaded,
            processing_type: None,
            uploaded_at: None,
            processing_started_at: None,
            processing_completed_at: None,
            processing_micros: None,
            failures: 0,
            updated_at: event.timestamp,
            version: 0,
        }
    }

    /// Whether the event is for this read model at all.
    #[must_use]
    pub fn concerns(event: &Event) -> bool {
        matches!(
            event.event_type,
            EventType::ContentUploaded | EventType::ContentProcessingStarted | EventType::ContentProcessingCompleted
        )
    }

    /// Takes the next event of the file's stream in.
    #[allow(clippy::as_conversions, reason = "the contract holds sizes to whole numbers within ±2^53")]
    pub fn apply(&mut self, event: &Event, units: Units) {
        let text = |field: &str| event.text(field).map(str::to_owned);
        self.user_id = text("userId").or(self.user_id.take());
        if event.event_type == EventType::ContentUploaded {
            self.content_type = text("contentType");
            self.file_name = text("fileName");
            self.mime_type = text("mimeType");
            self.file_size = event.number("fileSize").map(|size| size as i64);
            self.uploaded_at = Some(event.timestamp);
            self.status = ContentRowStatus::Uploaded;
        } else if event.event_type == EventType::ContentProcessingStarted {
            self.processing_started_at = Some(event.timestamp);
            self.status = ContentRowStatus::Processing;
        } else if event.event_type == EventType::ContentProcessingCompleted {
            self.processing_type = text("processingType");
            self.processing_completed_at = Some(event.timestamp);
            self.processing_micros = event.number("processingDuration").map(|n| units.processing.to_micros(n));
            self.status = match event.text("status") {
                Some("failed") => ContentRowStatus::Failed,
                Some("partial") => ContentRowStatus::Partial,
                Some(_) | None => ContentRowStatus::Completed,
            };
            self.failures += i64::from(self.status == ContentRowStatus::Failed);
        }
        self.updated_at = event.timestamp;
        self.version = event.version.unwrap_or(self.version);
    }

    /// Canonical text of the row, for `weir verify`.
    #[must_use]
    pub fn canonical(&self) -> String {
        let time = |at: Option<Timestamp>| at.map(|t| t.to_string());
        canonical::text(&json!({
            "tenant": self.tenant, "id": self.id, "user_id": self.user_id, "content_type": self.content_type,
            "file_name": self.file_name, "mime_type": self.mime_type, "file_size": self.file_size,
            "status": self.status.as_str(), "processing_type": self.processing_type, "uploaded_at": time(self.uploaded_at),
            "processing_started_at": time(self.processing_started_at),
            "processing_completed_at": time(self.processing_completed_at),
            "processing_micros": self.processing_micros.map(|n| n.to_string()), "failures": self.failures,
            "updated_at": time(Some(self.updated_at)), "version": self.version,
        }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::project::progress::tests::event;

    fn row_of(events: &[(EventType, Value)]) -> ContentRow {
        let events: Vec<Event> =
            (1..).zip(events).map(|(n, (kind, changes))| event(*kind, "content_1", n, changes.clone())).collect();
        let mut row = ContentRow::new(&events[0]);
        events.iter().for_each(|e| row.apply(e, Units::default()));
        row
    }

    #[test]
    fn a_file_goes_from_upload_to_done() {
        let upload = (EventType::ContentUploaded, json!({}));
        let started = (EventType::ContentProcessingStarted, json!({}));
        let done = |status: &str| (EventType::ContentProcessingCompleted, json!({"status": status}));
        assert_eq!(row_of(std::slice::from_ref(&upload)).status, ContentRowStatus::Uploaded);
        assert_eq!(row_of(&[upload.clone(), started.clone()]).status, ContentRowStatus::Processing);
        let row = row_of(&[upload, started.clone(), done("failed"), started, done("success")]);
        assert_eq!((row.status, row.failures, row.version), (ContentRowStatus::Completed, 1, 5));
        assert_eq!((row.file_size, row.processing_micros), (Some(48_213), Some(1_830_500)));
        assert!(row.processing_started_at < row.processing_completed_at);
    }

    #[test]
    fn a_file_known_from_later_records_has_a_row() {
        let row = row_of(&[(EventType::ContentProcessingCompleted, json!({"status": "partial"}))]);
        assert_eq!((row.status, row.content_type, row.uploaded_at), (ContentRowStatus::Partial, None, None));
        assert_eq!(ContentRowStatus::from_stored(row.status.as_str()), Some(row.status));
    }
}
