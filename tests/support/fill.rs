//! An event store full of events of all ten types, written by Postgres itself: nothing waits for a command side.

use weir_model::EventType;
use weir_model::wire::samples;

use crate::weir::connect;

/// How the ten types take turns: how many places back the stream's first event is, and the version.
const TURNS: [(EventType, i64, i64); 10] = [
    (EventType::UserRegistered, 0, 1),
    (EventType::UserProfileUpdated, 1, 2),
    (EventType::ContentUploaded, 0, 1),
    (EventType::ContentProcessingStarted, 1, 2),
    (EventType::ContentProcessingCompleted, 2, 3),
    (EventType::LearningSessionStarted, 0, 1),
    (EventType::UserDeactivated, 6, 3),
    (EventType::AssessmentCompleted, 0, 1),
    (EventType::TaskAssigned, 0, 1),
    (EventType::TaskCompleted, 1, 2),
];

/// Another service's events, made from their numbers: no position, no version, and all ten types by turns.
pub struct Foreign {
    templates: Vec<(EventType, i64, String)>,
}

impl Default for Foreign {
    fn default() -> Self {
        Self::new()
    }
}

impl Foreign {
    /// Ready to make them.
    #[must_use]
    pub fn new() -> Self {
        let template = |(event_type, back, _): (EventType, i64, i64)| {
            let mut data = samples::one(event_type);
            data[event_type.aggregate_type().id_field()] = "@id@".into();
            let version = weir_model::contract::standard().unwrap().newest(event_type);
            let event = serde_json::json!({"eventId": "@n@", "eventType": event_type.as_str(), "version": version,
                "source": "lms", "timestamp": "2024-03-01T10:30:00.000Z", "data": data});
            (event_type, back, event.to_string())
        };
        Self { templates: TURNS.into_iter().map(template).collect() }
    }

    /// Event `n`: its type, its key and its bytes.
    #[must_use]
    pub fn event(&self, n: i64) -> (EventType, String, String) {
        let (event_type, back, template) = &self.templates[usize::try_from(n).unwrap() % self.templates.len()];
        let id = (n - back).to_string();
        let bytes = template.replace("@n@", &format!("foreign-{n}")).replace("@id@", &id);
        (*event_type, id, bytes)
    }
}

/// Appends events until there are `events`, a second apart. A schema of before the exact text was kept is filled as it was then.
pub async fn fill(url: &str, events: i64) {
    let client = connect(url).await;
    let head: i64 = client.query_one("SELECT coalesce(max(id), 0) FROM events", &[]).await.unwrap().get(0);
    client
        .batch_execute(
            "SET synchronous_commit = off; CREATE TEMP TABLE turns (turn bigint, event_type text, aggregate text, back bigint, \
             version bigint, schema_version text, data text)",
        )
        .await
        .unwrap();
    for (turn, (event_type, back, version)) in (0_i64..).zip(TURNS) {
        let aggregate = event_type.aggregate_type();
        let newest = weir_model::contract::standard().unwrap().newest(event_type);
        let sql = "INSERT INTO turns VALUES ($1, $2, $3, $4, $5, $6, $7)";
        // Canonical, as the command side has it, with places for what differs from event to event.
        let mut data = samples::one(event_type);
        data["timestamp"] = "@at@".into();
        if data.get("userId").is_some() {
            data["userId"] = "@user@".into();
        }
        data[aggregate.id_field()] = "@id@".into();
        let data = weir_model::canonical::text(&data);
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
            [&turn, &event_type.as_str(), &aggregate.as_str(), &back, &version, &newest, &data];
        client.execute(sql, &values).await.unwrap();
    }
    let has_text = "SELECT count(*) = 1 FROM information_schema.columns WHERE table_name = 'events' AND column_name = 'event_json'";
    let has_text: bool = client.query_one(has_text, &[]).await.unwrap().get(0);
    const SQL: &str = "INSERT INTO events (id, event_id, tenant, stream_id, version, event_type, schema_version, source, \
           event_json, metadata, timestamp, recorded_at, command_events) \
         SELECT n, gen_random_uuid(), 'default', aggregate || '-' || (n - back), version, event_type, schema_version, 'bench', \
           replace(replace(replace(data, '@at@', to_char(at, 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')), \
             '@user@', 'user-' || n % 50000), '@id@', (n - back)::text)::json, \
           '{}', at, at, 1 \
         FROM generate_series($1::bigint, $2::bigint) n \
         CROSS JOIN LATERAL (SELECT timestamptz '2024-01-01 00:00:00Z' + n * interval '1 second' AS at) t \
         JOIN turns ON turn = (n - 1) % 10";
    let mut from = head + 1;
    while from <= events {
        let to = (from + 199_999).min(events);
        match has_text {
            true => client.execute(SQL, &[&from, &to]).await.unwrap(),
            false => {
                let sql = SQL.replace("event_json", "event_data").replace("::json,", "::jsonb,");
                client.execute(&sql, &[&from, &to]).await.unwrap()
            }
        };
        from = to + 1;
    }
    for statement in ["VACUUM ANALYZE events", "CHECKPOINT"] {
        client.batch_execute(statement).await.unwrap();
    }
}
