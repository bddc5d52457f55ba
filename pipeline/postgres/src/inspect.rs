//! Where one event ended, for operators.

use tokio_postgres::GenericClient;
use weir_model::event::{partition_for, topic_for};
use weir_model::{EventType, Timestamp};

use crate::error::{DbError, During};
use crate::event_store::RecordedEvent;
use crate::ledger::LedgerRow;
use crate::read_models::time;
use crate::source::EVENT_STORE_TOPIC;

/// Whether a lane has an event, from its rows of the ledger: it read the event store itself beyond it, or its key's partition of
/// the topic that far.
#[must_use]
pub fn has_applied(rows: &[LedgerRow], event: &RecordedEvent) -> bool {
    let of_event_store = rows.iter().filter(|row| *row.partition.topic == *EVENT_STORE_TOPIC);
    if of_event_store.filter_map(|row| row.next_offset).any(|next| next > event.position.0) {
        return true;
    }
    let topic = topic_for(&event.event_type);
    let of_topic = || rows.iter().filter(|row| *row.partition.topic == *topic && row.retired_at.is_none());
    // Not all of them were claimed yet: nobody knows which one is the key's.
    let last = of_topic().map(|row| row.partition.number).max().unwrap_or(-1);
    if usize::try_from(last + 1) != Ok(of_topic().count()) {
        return false;
    }
    let number = partition_for(event.aggregate_id(), of_topic().count());
    let of_key = of_topic().find(|row| usize::try_from(row.partition.number) == Ok(number));
    of_key.and_then(|row| row.position).is_some_and(|position| position >= event.position)
}

/// A read model's row about an event's aggregate or user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadModelRow {
    /// Its table.
    pub table: &'static str,
    /// The stream's version that it has reached, where the table keeps one.
    pub version: Option<i64>,
    /// The time that it shows.
    pub at: Option<Timestamp>,
}

/// The rows that an event had a part in.
pub async fn read_model_rows(client: &impl GenericClient, event: &RecordedEvent) -> Result<Vec<ReadModelRow>, DbError> {
    const ACTION: &str = "looking for an event in the read models";
    const USERS: (&str, &str) =
        ("user_read_model", "SELECT version, updated_at AS at FROM user_read_model WHERE tenant = $1 AND id = $2");
    const SESSIONS: (&str, &str) = (
        "learning_session_read_model",
        "SELECT version, started_at AS at FROM learning_session_read_model WHERE tenant = $1 AND id = $2",
    );
    const ASSESSMENTS: (&str, &str) = (
        "assessment_read_model",
        "SELECT version, completed_at AS at FROM assessment_read_model WHERE tenant = $1 AND id = $2",
    );
    const PROGRESS: (&str, &str) = (
        "learner_progress_read_model",
        "SELECT NULL::bigint AS version, last_activity AS at FROM learner_progress_read_model \
         WHERE tenant = $1 AND user_id = (SELECT event_data->>'userId' FROM events WHERE tenant = $1 AND stream_id = $2 LIMIT 1)",
    );
    let (about, id) = (event.event_type.parse::<EventType>(), event.aggregate_id());
    let queries: &[((&'static str, &str), &str)] = match about {
        Ok(EventType::UserRegistered | EventType::UserProfileUpdated | EventType::UserDeactivated) => &[(USERS, id)],
        Ok(EventType::LearningSessionStarted) => &[(SESSIONS, id), (PROGRESS, &event.stream)],
        Ok(EventType::AssessmentCompleted) => &[(ASSESSMENTS, id), (PROGRESS, &event.stream)],
        Ok(
            EventType::ContentUploaded
            | EventType::ContentProcessingStarted
            | EventType::ContentProcessingCompleted
            | EventType::TaskAssigned
            | EventType::TaskCompleted,
        )
        | Err(_) => &[],
    };
    let mut found = Vec::new();
    for ((table, sql), key) in queries {
        if let Some(row) = client.query_opt(*sql, &[&event.tenant, key]).await.during(ACTION)? {
            found.push(ReadModelRow { table, version: row.try_get(0).during(ACTION)?, at: time(&row, "at")? });
        }
    }
    Ok(found)
}
