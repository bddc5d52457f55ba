//! Decoding one event, all ten types in turn, against serde_json into structs of the same fields, which checks no contract.

use std::hint::black_box;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use weir_model::{EventType, Position, wire};

use crate::measure::{pairs, seconds};

const ROUNDS: usize = 20_000;
const TURNS: usize = 15;

/// The samples as the event store sends them.
pub(crate) fn payloads() -> Vec<(EventType, Bytes)> {
    let at = "2024-01-15T10:30:00.123Z".parse().unwrap();
    let metadata = weir_model::Metadata {
        correlation_id: Some("0190b5e2-7c1e-7a5b-9f4e-2b1d3c4e5f60".into()),
        ..Default::default()
    };
    wire::samples::all()
        .map(|(event_type, data)| {
            let version = weir_model::contract::standard().unwrap().newest(event_type);
            // As Postgres writes a jsonb object: names by length.
            let mut fields: Vec<_> = data.as_object().unwrap().iter().collect();
            fields.sort_by_key(|(name, _)| (name.len(), name.as_str()));
            let fields: Vec<String> = fields.into_iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
            let data = RawValue::from_string(format!("{{{}}}", fields.join(", "))).unwrap();
            let payload = wire::encode(&wire::Outgoing {
                event_id: "6ba7b810-9dad-51d1-80b4-00c04fd430c8",
                event_type: event_type.as_str(),
                version: &version,
                timestamp: at,
                source: "lms",
                data: &data,
                schema: wire::schema_name(event_type.as_str(), &version),
                aggregate_id: "aggregate_12345",
                aggregate_type: event_type.aggregate_type().as_str(),
                aggregate_version: 1,
                position: Position(123_456),
                recorded_at: at,
                metadata: wire::OutgoingMetadata { metadata: &metadata, tenant_id: "default", source: "lms" },
            });
            (event_type, payload.unwrap().into())
        })
        .collect()
}

/// Structs of the fields that the contracts name, generic over what holds a text and what holds nested JSON: borrowed from
/// the payload, or owned, as an event is that outlives the buffer it came in.
macro_rules! structs {
    ($($name:ident { $($field:ident: $kind:ty),* $(,)? })*) => {$(
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        #[allow(dead_code, reason = "read by serde")]
        struct $name<T, N> { $($field: $kind,)* timestamp: T, #[serde(skip)] nested: std::marker::PhantomData<N> }
    )*};
}

structs! {
    UserRegistered { user_id: T, email: T, username: T, profile: Option<N>, registration_source: Option<T> }
    UserProfileUpdated { user_id: T, changed_fields: Option<N>, previous_values: Option<N>, new_values: Option<N> }
    UserDeactivated { user_id: T, reason: Option<T> }
    ContentUploaded { content_id: T, user_id: T, content_type: T, file_name: T, file_size: i64, mime_type: T, file_url: T, metadata: Option<N>, processing_options: Option<N> }
    ContentProcessingStarted { content_id: T, user_id: Option<T>, processing_type: Option<T> }
    ContentProcessingCompleted { content_id: T, user_id: Option<T>, processing_type: Option<T>, status: T, results: Option<N>, processing_duration: f64 }
    LearningSessionStarted { session_id: T, user_id: T, learning_path_id: T, module_id: T, device_info: Option<N> }
    AssessmentCompleted { assessment_id: T, user_id: T, session_id: Option<T>, score: f64, max_score: f64, passed: bool, time_spent: f64, answers: Option<N>, analytics: Option<N> }
    TaskAssigned { task_id: T, agent_id: T, agent_type: T, task_type: T, priority: T, payload: Option<N>, expected_duration: Option<f64>, deadline: Option<T> }
    TaskCompleted { task_id: T, agent_id: T, status: T, result: Option<N>, execution_time: f64, resource_usage: Option<N>, quality_metrics: Option<N> }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "read by serde")]
struct Envelope<T, D> {
    event_id: T,
    event_type: T,
    version: T,
    timestamp: T,
    source: T,
    data: D,
    aggregate_id: T,
    aggregate_type: T,
    aggregate_version: i64,
    position: i64,
    recorded_at: T,
    metadata: Tags<T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "read by serde")]
struct Tags<T> {
    causation_id: Option<T>,
    correlation_id: Option<T>,
    user_id: Option<T>,
    tenant_id: Option<T>,
}

fn serde<'a, T: Deserialize<'a>, N: Deserialize<'a>>(event_type: EventType, bytes: &'a [u8]) {
    fn parse<'a, T: Deserialize<'a>, D: Deserialize<'a>>(bytes: &'a [u8]) {
        black_box(serde_json::from_slice::<Envelope<T, D>>(bytes).unwrap());
    }
    match event_type {
        EventType::UserRegistered => parse::<T, UserRegistered<T, N>>(bytes),
        EventType::UserProfileUpdated => parse::<T, UserProfileUpdated<T, N>>(bytes),
        EventType::UserDeactivated => parse::<T, UserDeactivated<T, N>>(bytes),
        EventType::ContentUploaded => parse::<T, ContentUploaded<T, N>>(bytes),
        EventType::ContentProcessingStarted => parse::<T, ContentProcessingStarted<T, N>>(bytes),
        EventType::ContentProcessingCompleted => parse::<T, ContentProcessingCompleted<T, N>>(bytes),
        EventType::LearningSessionStarted => parse::<T, LearningSessionStarted<T, N>>(bytes),
        EventType::AssessmentCompleted => parse::<T, AssessmentCompleted<T, N>>(bytes),
        EventType::TaskAssigned => parse::<T, TaskAssigned<T, N>>(bytes),
        EventType::TaskCompleted => parse::<T, TaskCompleted<T, N>>(bytes),
    }
}

pub(crate) fn run() {
    let payloads = payloads();
    let bytes: usize = payloads.iter().map(|(_, payload)| payload.len()).sum();
    let rate = |work: &dyn Fn(EventType, &Bytes)| {
        let taken = seconds(|| {
            for _ in 0..ROUNDS {
                for (event_type, payload) in &payloads {
                    work(*event_type, payload);
                }
            }
        });
        (bytes * ROUNDS) as f64 / 1e6 / taken
    };
    let ours = || rate(&|_, payload| drop(black_box(wire::decode(payload).unwrap())));
    let mean = bytes / payloads.len();
    let what = format!("decode one event, all ten types ({mean} bytes each)");
    let owned = || rate(&|event_type, payload| serde::<String, Box<RawValue>>(event_type, payload));
    pairs(TURNS, ours, owned).row(
        &what,
        "MB/s",
        "serde_json into the same structs, no contract",
        "≥ 400 MB/s and ≥ 1.00",
    );
    let borrowed = || rate(&|event_type, payload| serde::<&str, &RawValue>(event_type, payload));
    pairs(TURNS, ours, borrowed).row(
        "the same",
        "MB/s",
        "serde_json into structs that borrow and end with the buffer",
        "",
    );
}
