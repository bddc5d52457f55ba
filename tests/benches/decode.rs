//! Decoding one event, all ten types in turn, against serde_json into structs of the same fields, which checks no contract.

use std::borrow::Cow;
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
        .into_iter()
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

macro_rules! structs {
    ($($name:ident { $($field:ident: $kind:ty),* $(,)? })*) => {$(
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        #[allow(dead_code, reason = "read by serde")]
        struct $name<'a> { $(#[serde(borrow)] $field: $kind,)* #[serde(borrow)] timestamp: Cow<'a, str> }
    )*};
}

type Text<'a> = Cow<'a, str>;
type Maybe<'a> = Option<Cow<'a, str>>;
type Nested<'a> = Option<&'a RawValue>;

/// serde borrows nothing from a number, but the macro above asks it to.
#[derive(Deserialize)]
#[serde(transparent)]
struct Plain<'a, T>(T, #[serde(skip)] std::marker::PhantomData<&'a ()>);

structs! {
    UserRegistered { user_id: Text<'a>, email: Text<'a>, username: Text<'a>, profile: Nested<'a>, registration_source: Maybe<'a> }
    UserProfileUpdated { user_id: Text<'a>, changed_fields: Nested<'a>, previous_values: Nested<'a>, new_values: Nested<'a> }
    UserDeactivated { user_id: Text<'a>, reason: Maybe<'a> }
    ContentUploaded { content_id: Text<'a>, user_id: Text<'a>, content_type: Text<'a>, file_name: Text<'a>,
        file_size: Plain<'a, i64>, mime_type: Text<'a>, file_url: Text<'a>, metadata: Nested<'a>, processing_options: Nested<'a> }
    ContentProcessingStarted { content_id: Text<'a>, user_id: Maybe<'a>, processing_type: Maybe<'a> }
    ContentProcessingCompleted { content_id: Text<'a>, user_id: Maybe<'a>, processing_type: Maybe<'a>, status: Text<'a>,
        results: Nested<'a>, processing_duration: Plain<'a, f64> }
    LearningSessionStarted { session_id: Text<'a>, user_id: Text<'a>, learning_path_id: Text<'a>, module_id: Text<'a>,
        device_info: Nested<'a> }
    AssessmentCompleted { assessment_id: Text<'a>, user_id: Text<'a>, session_id: Maybe<'a>, score: Plain<'a, f64>,
        max_score: Plain<'a, f64>, passed: Plain<'a, bool>, time_spent: Plain<'a, f64>, answers: Nested<'a>, analytics: Nested<'a> }
    TaskAssigned { task_id: Text<'a>, agent_id: Text<'a>, agent_type: Text<'a>, task_type: Text<'a>, priority: Text<'a>,
        payload: Nested<'a>, expected_duration: Option<Plain<'a, f64>>, deadline: Maybe<'a> }
    TaskCompleted { task_id: Text<'a>, agent_id: Text<'a>, status: Text<'a>, result: Nested<'a>,
        execution_time: Plain<'a, f64>, resource_usage: Nested<'a>, quality_metrics: Nested<'a> }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "read by serde")]
struct Envelope<'a, T> {
    #[serde(borrow)]
    event_id: Text<'a>,
    event_type: Text<'a>,
    version: Text<'a>,
    timestamp: Text<'a>,
    source: Text<'a>,
    data: T,
    aggregate_id: Text<'a>,
    aggregate_type: Text<'a>,
    aggregate_version: i64,
    position: i64,
    recorded_at: Text<'a>,
    metadata: Tags<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "read by serde")]
struct Tags<'a> {
    #[serde(borrow)]
    causation_id: Maybe<'a>,
    correlation_id: Maybe<'a>,
    user_id: Maybe<'a>,
    tenant_id: Maybe<'a>,
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) {
    black_box(serde_json::from_slice::<Envelope<'a, T>>(bytes).unwrap());
}

fn serde(event_type: EventType, bytes: &[u8]) {
    match event_type {
        EventType::UserRegistered => parse::<UserRegistered<'_>>(bytes),
        EventType::UserProfileUpdated => parse::<UserProfileUpdated<'_>>(bytes),
        EventType::UserDeactivated => parse::<UserDeactivated<'_>>(bytes),
        EventType::ContentUploaded => parse::<ContentUploaded<'_>>(bytes),
        EventType::ContentProcessingStarted => parse::<ContentProcessingStarted<'_>>(bytes),
        EventType::ContentProcessingCompleted => parse::<ContentProcessingCompleted<'_>>(bytes),
        EventType::LearningSessionStarted => parse::<LearningSessionStarted<'_>>(bytes),
        EventType::AssessmentCompleted => parse::<AssessmentCompleted<'_>>(bytes),
        EventType::TaskAssigned => parse::<TaskAssigned<'_>>(bytes),
        EventType::TaskCompleted => parse::<TaskCompleted<'_>>(bytes),
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
    let all = pairs(
        TURNS,
        || rate(&|_, payload| drop(black_box(wire::decode(payload).unwrap()))),
        || rate(&|event_type, payload| serde(event_type, payload)),
    );
    let mean = bytes / payloads.len();
    all.row(&format!("decode one event, all ten types ({mean} bytes each)"), "MB/s", "serde_json into structs, unchecked", "≥ 400 MB/s and ≥ 1.00");
}
