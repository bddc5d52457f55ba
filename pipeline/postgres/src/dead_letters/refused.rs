//! Events that a sink outside Postgres refused for what they hold.

use tokio_postgres::GenericClient;
use weir_engine::{Record, SinkError};
use weir_model::Envelope;
use weir_model::envelope::Enveloped;

use super::{NewDeadLetter, RecordPolicy, check_cap, insert};

/// An event that a sink refuses for what it holds.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Where it is, and its bytes.
    pub record: Record,
    /// The name of the event's type.
    pub event_type: String,
    /// The type of the aggregate that the event belongs to.
    pub aggregate_type: String,
    /// The id of that aggregate.
    pub aggregate_id: String,
    /// The rest of the event's envelope.
    pub envelope: Envelope,
    /// The sink's error message.
    pub reason: String,
    /// How often it was tried.
    pub attempts: i32,
}

/// Keeps events that a sink refused. None of them holds up what comes after it: the sink's rows do not depend on each other.
pub(crate) async fn insert_refused(
    client: &impl GenericClient,
    lane: &str,
    refused: &[Refused],
    policy: &RecordPolicy,
) -> Result<(), SinkError> {
    for Refused { record, event_type, aggregate_type, aggregate_id, envelope, reason, attempts } in refused {
        tracing::warn!(lane, partition = %record.partition, offset = record.offset, reason, "dead letter");
        let letter = NewDeadLetter {
            record,
            state: "dead",
            event: Some(Enveloped { event_type, aggregate_type, aggregate_id, envelope }),
            reason,
            attempts: *attempts,
            retry_after: None,
            ordered: false,
        };
        insert(client, lane, letter).await?;
    }
    check_cap(client, lane, policy).await
}
