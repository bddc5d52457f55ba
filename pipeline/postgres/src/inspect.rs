//! Where one event ended, for operators.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::GenericClient;
use weir_model::event_type::{partition_for, topic_for};
use weir_model::project::ReadModel;
use weir_model::{EventType, Timestamp};

use crate::database::Database;
use crate::error::{DbError, During};
use crate::event_store::RecordedEvent;
use crate::ledger::{Ledger, LedgerRow};
use crate::read_models::stored::time;
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
    // Not all of them were claimed yet: it is not known which one is the key's.
    let last = of_topic().map(|row| row.partition.number).max().unwrap_or(-1);
    if usize::try_from(last + 1) != Ok(of_topic().count()) {
        return false;
    }
    let number = partition_for(event.aggregate_id(), of_topic().count());
    let of_key = of_topic().find(|row| usize::try_from(row.partition.number) == Ok(number));
    of_key.and_then(|row| row.position).is_some_and(|position| position >= event.position)
}

/// How often it is looked whether a lane has come to an event.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Waits until a lane has an event ([`has_applied`]), or the deadline has passed; whether it has.
pub async fn wait_until_applied(
    database: &Database,
    lane: &str,
    event: &RecordedEvent,
    deadline: Instant,
) -> Result<bool, DbError> {
    loop {
        let client = database.get().await?;
        let mut rows = Ledger::rows(&**client).await?;
        drop(client);
        rows.retain(|row| row.lane == lane);
        let is_applied = has_applied(&rows, event);
        if is_applied || Instant::now() >= deadline {
            return Ok(is_applied);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
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
    // Models, and the row of each that the event had a part in, by the event's tenant and id.
    const OF_EVENT: &str = "(SELECT %s FROM event_log WHERE tenant = $1 AND event_id = $2::text::uuid)";
    let own = "substr(stream_id, strpos(stream_id, '-') + 1)";
    let of = |model: ReadModel| {
        let (columns, key, value) = match model {
            ReadModel::Users => ("version, updated_at", "id", own),
            ReadModel::Sessions => ("version, started_at", "id", own),
            ReadModel::Attempts => ("version, completed_at", "key", "event_id::text"),
            ReadModel::Results => (
                "NULL::bigint, last_completed_at",
                "(assessment_id, user_id)",
                "event_data->>'assessmentId', event_data->>'userId'",
            ),
            ReadModel::Progress => ("NULL::bigint, last_activity", "user_id", "event_data->>'userId'"),
            ReadModel::Contents | ReadModel::Tasks => ("version, updated_at", "id", own),
        };
        let (version, at) = columns.split_once(", ").unwrap_or((columns, ""));
        format!(
            "SELECT {version} AS version, {at} AS at FROM {} WHERE tenant = $1 AND {key} = {}",
            model.table(),
            OF_EVENT.replace("%s", value)
        )
    };
    let Ok(about) = event.event_type.parse::<EventType>() else { return Ok(Vec::new()) };
    let models: &[ReadModel] = match about {
        EventType::UserRegistered | EventType::UserProfileUpdated | EventType::UserDeactivated => &[ReadModel::Users],
        EventType::LearningSessionStarted => &[ReadModel::Sessions, ReadModel::Progress],
        EventType::AssessmentCompleted => &[ReadModel::Attempts, ReadModel::Results, ReadModel::Progress],
        EventType::ContentUploaded | EventType::ContentProcessingStarted | EventType::ContentProcessingCompleted => {
            &[ReadModel::Contents]
        }
        EventType::TaskAssigned | EventType::TaskCompleted => &[ReadModel::Tasks],
    };
    let mut found = Vec::new();
    for model in models {
        let id = event.event_id.to_string();
        if let Some(row) = client.query_opt(&of(*model), &[&event.tenant, &id]).await.during(ACTION)? {
            let (version, at) = (row.try_get(0).during(ACTION)?, time(&row, "at")?);
            found.push(ReadModelRow { table: model.table(), version, at });
        }
    }
    Ok(found)
}
