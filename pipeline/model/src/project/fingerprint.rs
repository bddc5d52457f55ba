//! What tells two projections apart: a hash of what they make of a fixed set of events, in the units at hand. It changes where a read model, a
//! counter, a column or the reading of an event's fields changes, and not where code is only written otherwise.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{COUNTERS, EXECUTION_TIME, FoldedRow, RecordPlace, Units, attempt_key, counted, observed, rows_of};
use crate::canonical;
use crate::cells::split;
use crate::clock::Timestamp;
use crate::columns::COLUMNS;
use crate::data::Data;
use crate::envelope::{Envelope, Metadata};
use crate::event::Event;
use crate::event_type::EventType;
use crate::ids::{EventId, Position, StreamId, TenantId};
use crate::wire::samples;

/// Milliseconds since 1970 of the first event.
const BEGIN_MS: i64 = 1_705_314_600_000;

/// Of the read models.
#[must_use]
pub fn of_read_models(units: Units) -> String {
    let events = events();
    let mut rows: Vec<((&str, String, String), FoldedRow)> = Vec::new();
    let mut lines = Vec::new();
    for (n, event) in (0..).zip(&events) {
        let attempt = attempt_key(event, RecordPlace { source: "s", topic: "t", partition: 0, offset: n });
        for (model, tenant, key) in rows_of(event, &attempt) {
            let of = (model.table(), tenant, key);
            let at = rows.iter().position(|(there, _)| *there == of).unwrap_or_else(|| {
                rows.push((of, FoldedRow::new(model, event)));
                rows.len() - 1
            });
            if let Err(refused) = rows[at].1.apply(event, &attempt, units) {
                lines.push(refused.to_string());
            }
        }
    }
    lines.extend(rows.iter().map(|((table, tenant, key), row)| format!("{table} {tenant} {key} {}", row.canonical())));
    hash(&lines)
}

/// Of the counters and histograms.
#[must_use]
pub fn of_metrics(units: Units) -> String {
    let mut lines: Vec<String> =
        COUNTERS.iter().map(|counter| format!("{} {:?}", counter.name, counter.label)).collect();
    lines.push(format!("{} {:?}", EXECUTION_TIME.name, EXECUTION_TIME.bounds_micros));
    for event in events() {
        lines.extend(counted(&event).into_iter().map(|key| format!("{} {}", key.name, key.label)));
        lines.extend(observed(&event, units).map(|seen| format!("{} {}", seen.bucket, seen.micros)));
    }
    hash(&lines)
}

/// Of the typed columns that history and ClickHouse have of an event's data.
#[must_use]
pub fn of_columns() -> String {
    let mut lines: Vec<String> =
        COLUMNS.iter().map(|column| format!("{} {:?}", column.field, column.column_type)).collect();
    for event in events() {
        let (cells, rest) = split(&event.data);
        lines.push(format!("{cells:?} {}", canonical::text(&Value::Object(rest))));
    }
    hash(&lines)
}

fn hash(lines: &[String]) -> String {
    let mut hash = Sha256::new();
    for line in lines {
        hash.update(line.as_bytes());
        hash.update(b"\n");
    }
    let hash = hash.finalize();
    hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The types and data of the events: each type's sample, and what changes in it.
fn changes() -> Vec<(EventType, Value)> {
    let mut changes: Vec<(EventType, Value)> = EventType::ALL.into_iter().map(|of| (of, json!({}))).collect();
    changes.extend([
        (
            EventType::UserProfileUpdated,
            json!({"userId": "u2", "newValues": {"email": "u2@example.com", "theme": null}}),
        ),
        (EventType::UserRegistered, json!({"userId": "u3", "profile": null, "registrationSource": null})),
        (EventType::UserDeactivated, json!({"userId": "u3"})),
        (EventType::LearningSessionStarted, json!({"sessionId": "s2", "learningPathId": "path_2", "deviceInfo": null})),
        (EventType::LearningSessionStarted, json!({"sessionId": "s3", "userId": "u2"})),
        (EventType::AssessmentCompleted, json!({"score": 12.25, "passed": false, "timeSpent": 0.5})),
        (EventType::AssessmentCompleted, json!({"score": 100, "timeSpent": 3_600_000, "sessionId": null})),
        (EventType::AssessmentCompleted, json!({"assessmentId": "a2", "score": 1, "maxScore": 3, "passed": false})),
        (EventType::AssessmentCompleted, json!({"userId": "u2", "score": 0, "analytics": null})),
        (EventType::ContentProcessingCompleted, json!({"contentId": "c2", "status": "failed"})),
        (EventType::ContentProcessingStarted, json!({"contentId": "c3"})),
        (
            EventType::ContentProcessingCompleted,
            json!({"contentId": "c3", "status": "partial", "processingDuration": 0.25}),
        ),
        (EventType::TaskAssigned, json!({"taskId": "t2", "deadline": null, "expectedDuration": 1500.75})),
        (EventType::TaskAssigned, json!({"taskId": "t3", "deadline": "2024-01-15T10:30:01.000Z", "priority": "low"})),
    ]);
    for content_type in ["text", "image", "audio", "video"] {
        changes.push((EventType::ContentUploaded, json!({"contentId": content_type, "contentType": content_type})));
    }
    for (n, status) in ["completed", "failed", "cancelled"].into_iter().enumerate() {
        changes.push((EventType::TaskCompleted, json!({"taskId": format!("t{}", n + 1), "status": status})));
    }
    for time in [0.0, 0.4, 100.0, 100_000.0, 3_600_000.0, 1e12] {
        changes.push((EventType::TaskCompleted, json!({"taskId": format!("t of {time}"), "executionTime": time})));
    }
    changes
}

/// The events, a second and a half apart.
fn events() -> Vec<Event> {
    (1..).zip(changes()).filter_map(|(n, (event_type, change))| event(n, event_type, change)).collect()
}

fn event(n: i64, event_type: EventType, change: Value) -> Option<Event> {
    let (Value::Object(mut data), Value::Object(change)) = (samples::one(event_type), change) else { return None };
    data.extend(change);
    data.retain(|_, value| !value.is_null());
    let timestamp = Timestamp::from_millis(BEGIN_MS + 1500 * n).ok()?;
    data.insert("timestamp".to_owned(), json!(timestamp.to_string()));
    let ids = ["contentId", "taskId", "sessionId", "assessmentId", "userId"];
    let own = ids.into_iter().filter_map(|name| data.get(name)?.as_str()).next()?.to_owned();
    Some(Event {
        envelope: Envelope {
            event_id: EventId::new(format!("event-{n}")).ok()?,
            schema_version: "1.0".into(),
            timestamp,
            recorded_at: Some(timestamp),
            source: "weir".into(),
            tenant: TenantId::new("default".to_owned()).ok()?,
            version: Some(n),
            position: Some(Position(n)),
            metadata: Metadata::default(),
        },
        event_type,
        stream: StreamId::new(event_type.aggregate_type(), own).ok()?,
        data: Data::from_object(event_type, &data),
    })
}

#[cfg(test)]
mod tests {
    use super::super::DurationUnit;
    use super::*;

    /// Another value here is another projection: data directories of before ask for a rebuild, or for the word that none is needed.
    #[test]
    fn the_projections_are_those_that_data_directories_know() {
        let units = Units::default();
        assert_eq!((&*of_read_models(units), &*of_metrics(units)), ("7058a49091c8d5e9", "e0c6446c5b31b7aa"));
        // It stands in a migration too, for tables that were named by another rule.
        assert_eq!(of_columns(), "99df483b2798b175");
    }

    #[test]
    fn every_event_is_made_and_units_count() {
        assert_eq!(events().len(), changes().len());
        let seconds = Units { time_spent: DurationUnit::Seconds, ..Units::default() };
        assert_ne!(of_read_models(seconds), of_read_models(Units::default()));
        assert_eq!(of_metrics(seconds), of_metrics(Units::default()), "no counter tells how long attempts took");
        let micros = Units { execution_time: DurationUnit::Microseconds, ..Units::default() };
        assert_ne!(of_metrics(micros), of_metrics(Units::default()));
    }
}
