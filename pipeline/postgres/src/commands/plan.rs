//! What a command leads to, as functions of what is known: its stream's state before the append, the appender's words after it.

use sha2::{Digest, Sha256};
use uuid::Uuid;
use weir_model::decide::{NewEvent, Rules};
use weir_model::{Metadata, Object, StreamId, Timestamp, canonical};

use super::state::Loaded;
use super::{CommandError, CommandRequest};
use crate::append::{Append, Appended, Expected, NewStoredEvent};

/// A command whose data has passed its contract.
pub(super) struct Prepared {
    pub(super) command_id: Uuid,
    /// SHA-256 of the request; `None` without Idempotency-Key.
    pub(super) request_hash: Option<[u8; 32]>,
    pub(super) stream: StreamId,
    pub(super) schema_version: String,
    pub(super) data: Object,
    pub(super) timestamp: Timestamp,
}

/// What is to be done with a command, decided on one version of its stream.
pub(super) enum Plan {
    /// Nothing is appended.
    Refuse(CommandError),
    /// Append; `refusal` is the answer if the appender then finds a conflict.
    Append { append: Box<Append>, refusal: Option<CommandError> },
}

/// Decides on the stream as it was loaded. What is refused may be the repeat of what was accepted before, and its stream then holds its
/// own event: under an Idempotency-Key a refused command is appended all the same, with an expectation that a repeat alone survives.
pub(super) fn plan(request: &CommandRequest, prepared: &Prepared, loaded: &Loaded, rules: &Rules) -> Plan {
    let decided = match request.expected.fits(loaded.version) {
        true => loaded
            .aggregate
            .decide(&prepared.stream, request.command, prepared.data.clone(), rules)
            .map_err(CommandError::from),
        false => Err(CommandError::Conflict { actual: loaded.version }),
    };
    let (events, refusal) = match decided {
        Ok(events) => (events, None),
        Err(refusal) if prepared.request_hash.is_none() => return Plan::Refuse(refusal),
        Err(refusal) => {
            (vec![NewEvent { event_type: request.command.event_type(), data: prepared.data.clone() }], Some(refusal))
        }
    };
    let append = Append {
        tenant: request.caller.tenant.clone(),
        stream: prepared.stream.clone(),
        // Always the version that was decided on: whatever the caller would accept, the decision is about this one.
        expected: Expected::Exact(if refusal.is_some() { i64::MAX } else { loaded.version }),
        command_id: prepared.command_id,
        request_hash: prepared.request_hash,
        events: stored(events, &prepared.schema_version, prepared.timestamp),
        metadata: caused(&request.caller.metadata, prepared.command_id),
        source: request.caller.source.clone(),
    };
    Plan::Append { append: Box::new(append), refusal }
}

/// What the appender's words mean for a planned command.
pub(super) enum Outcome {
    /// It is stored, now or before, or its key was used for something else.
    Answer(Appended),
    /// It was refused, and is no repeat.
    Refused(CommandError),
    /// Another writer was faster: decide again.
    DecideAgain,
}

/// See [`Outcome`].
pub(super) fn outcome(appended: Appended, refusal: Option<CommandError>) -> Outcome {
    match (appended, refusal) {
        (Appended::Conflict { .. }, Some(refusal)) => Outcome::Refused(refusal),
        (Appended::Conflict { .. }, None) => Outcome::DecideAgain,
        (appended @ (Appended::Stored { .. } | Appended::KeyReused), _) => Outcome::Answer(appended),
    }
}

/// Events as the event store keeps them: data as canonical text.
pub(super) fn stored(events: Vec<NewEvent>, schema_version: &str, timestamp: Timestamp) -> Vec<NewStoredEvent> {
    events
        .into_iter()
        .map(|event| NewStoredEvent {
            event_type: event.event_type,
            schema_version: schema_version.to_owned(),
            data: canonical::object_text(&event.data),
            timestamp,
        })
        .collect()
}

/// What caused an event: what the caller says, else the command itself.
pub(super) fn caused(metadata: &Metadata, command_id: Uuid) -> Metadata {
    let mut metadata = metadata.clone();
    metadata.causation_id.get_or_insert_with(|| command_id.hyphenated().to_string().into());
    metadata
}

/// SHA-256 of parts, each preceded by its length in bytes (64 bits, little-endian).
pub(super) fn hash_of(parts: &[&str]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weir_model::decide::{Aggregate, CommandType, stream_of};
    use weir_model::{EventType, Position};

    use super::*;
    use crate::commands::Caller;

    /// A request to take an assessment, its preparation, and a stream that holds `taken` attempts.
    fn take(expected: Expected, has_key: bool, taken: i64) -> (CommandRequest, Prepared, Loaded) {
        let Some(data) = json!({"assessmentId": "a", "userId": "u"}).as_object().cloned() else { panic!("an object") };
        let stream = stream_of(EventType::AssessmentCompleted, &data).unwrap_or_else(|e| panic!("{e}"));
        let caller = Caller {
            tenant: weir_model::TenantId::default(),
            source: "s".to_owned(),
            metadata: Metadata::default(),
            idempotency_key: has_key.then(|| "k".to_owned()),
        };
        let mut loaded = Loaded { aggregate: Aggregate::new(stream.aggregate_type()), version: taken };
        loaded.add_earlier(taken);
        let prepared = Prepared {
            command_id: caller.command_id(),
            request_hash: has_key.then(|| hash_of(&["x"])),
            stream,
            schema_version: "1.0.0".to_owned(),
            data: data.clone(),
            timestamp: "2024-01-15T10:30:00Z".parse().unwrap_or_else(|e| panic!("{e}")),
        };
        (
            CommandRequest { caller, command: CommandType::for_event(EventType::AssessmentCompleted), data, expected },
            prepared,
            loaded,
        )
    }

    #[test]
    fn a_command_is_appended_at_the_version_decided_on_and_a_refused_one_only_as_a_repeat() {
        let rules = Rules { max_attempts: std::num::NonZero::new(1) };
        // What the caller expects, whether it gave a key, attempts taken: the version expected of the append, and whether refused.
        let table = [
            (Expected::Any, false, 0, Some((0, false))),
            (Expected::Any, true, 0, Some((0, false))),
            (Expected::Exact(1), false, 0, None),
            (Expected::Exact(1), true, 0, Some((i64::MAX, true))),
            (Expected::Any, false, 1, None),
            (Expected::Any, true, 1, Some((i64::MAX, true))),
        ];
        for (expected, has_key, taken, wanted) in table {
            let (request, prepared, loaded) = take(expected, has_key, taken);
            let found = match plan(&request, &prepared, &loaded, &rules) {
                Plan::Refuse(_) => None,
                Plan::Append { append, refusal } => {
                    assert_eq!(append.events.len(), 1);
                    let Expected::Exact(version) = append.expected else { panic!("{:?}", append.expected) };
                    Some((version, refusal.is_some()))
                }
            };
            assert_eq!(found, wanted, "{expected:?}, key {has_key}, {taken} taken");
        }
    }

    #[test]
    fn a_conflict_is_a_refusal_or_another_decision_and_all_else_is_an_answer() {
        let now = "2024-01-15T10:30:00Z".parse().unwrap_or_else(|e| panic!("{e}"));
        let position = Position(1);
        let stored = Appended::Stored { version: 1, first: position, last: position, recorded_at: now, repeated: true };
        for refused in [false, true] {
            let refusal = || refused.then_some(CommandError::Contended);
            assert!(matches!(outcome(stored.clone(), refusal()), Outcome::Answer(Appended::Stored { .. })));
            assert!(matches!(outcome(Appended::KeyReused, refusal()), Outcome::Answer(Appended::KeyReused)));
            let conflict = outcome(Appended::Conflict { actual: 2 }, refusal());
            assert_eq!(matches!(conflict, Outcome::Refused(_)), refused);
            assert_eq!(matches!(conflict, Outcome::DecideAgain), !refused);
        }
    }
}
