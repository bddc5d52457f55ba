//! `weir trace EVENT_ID`: one event's place everywhere, with the times.

use std::process::ExitCode;

use serde_json::{Value, json};
use uuid::Uuid;
use weir_engine::{BoxError, PUBLISHER, Partition};
use weir_kafka::{KafkaOptions, TopicLog};
use weir_model::event_type::topic_for;
use weir_postgres::parts::{self, Part};
use weir_postgres::{Database, EventStore, EventStoreSource, Ledger, RecordedEvent, dead_letters, inspect};
use weir_query::History;
use weir_verify::reach::{published, trouble};

use crate::attached::{Attached, Target};
use crate::output::{Format, Listing};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The event's own id, as answers and sinks give it
    event_id: Uuid,
}

pub(crate) async fn run(target: &Target, args: Args, format: Format) -> Result<ExitCode, BoxError> {
    let attached = target.attach().await?;
    let traced = trace(&attached, args.event_id).await;
    attached.detach().await?;
    traced?.print(format)?;
    Ok(ExitCode::SUCCESS)
}

async fn trace(attached: &Attached, id: Uuid) -> Result<Listing, BoxError> {
    let store = EventStore::new(attached.database.clone());
    let event = store.find(id).await?.ok_or_else(|| {
        format!("there is no event {id} in this event store; `weir sql \"SELECT event_id FROM events\"` shows ids")
    })?;
    let mut rows = Listing::new(&["place", "state", "at", "detail"]);
    let mut row = |place: &str, state: &str, at: Option<String>, detail: String| {
        rows.rows.push(vec![json!(place), json!(state), at.map_or(Value::Null, Value::String), json!(detail)]);
    };
    row("happened", "", Some(event.timestamp.to_string()), format!("said by {}", event.source));
    let detail = format!(
        "position {}, {} version {}, {} {}, tenant {}",
        event.position, event.stream, event.version, event.event_type, event.schema_version, event.tenant
    );
    row("event store", "stored", Some(event.recorded_at.to_string()), detail);
    let told = parts::list(&**attached.database.get().await?).await?;
    let mut places = vec![(EventStoreSource::partition(&attached.database).await?, event.position.0)];
    if let Some(kafka) = attached.settings.kafka.options() {
        let (state, mut detail, found) = in_topics(&attached.database, &kafka, &places[0].0, &event).await?;
        if state == "waiting" {
            detail.push_str(&standing(PUBLISHER, &told));
        }
        row("topics", state, None, detail);
        places.extend(found);
    }
    for (partition, offset) in &places {
        for (lane, state, at, mut detail) in lanes(attached, partition, *offset).await? {
            if state == "waiting" {
                detail.push_str(&standing(&lane, &told));
            }
            row(&format!("ledger of {lane}"), state, at, detail);
        }
    }
    let client = attached.database.get().await?;
    for found in inspect::read_model_rows(&**client, &event).await? {
        let detail = found.version.map_or_else(String::new, |version| format!("the row stands at version {version}"));
        row(found.table, "present", found.at.map(|at| at.to_string()), detail);
    }
    for (file_time, month) in history(attached, &event).await? {
        row("history", "present", Some(file_time), format!("partition {}/{month}", event.event_type));
    }
    if let Some(server) = attached.settings.clickhouse.server() {
        // Everything else is worth knowing while it is away.
        match server.find(&event.event_id.to_string(), &event.tenant, event.event_type.as_str()).await {
            Ok(found) => {
                for place in found {
                    row("clickhouse", "present", place.recorded_at, place.coordinates);
                }
            }
            Err(error) => row("clickhouse", "unknown", None, error.to_string()),
        }
    }
    Ok(rows)
}

/// What a part that an event waits for is doing, as its processes tell.
fn standing(name: &str, told: &[Part]) -> String {
    let rows: Vec<&Part> = told.iter().filter(|part| part.part == name).collect();
    match (trouble(name, &rows), rows.first()) {
        (Some(words), _) => format!("; {words}"),
        (None, Some(part)) => format!("; {name} is {} in {}:{} since {}", part.phase, part.host, part.pid, part.since),
        (None, None) => String::new(),
    }
}

type LaneState = (String, &'static str, Option<String>, String);

/// Whether an event was published, and where it is.
async fn in_topics(
    database: &Database,
    kafka: &KafkaOptions,
    event_store: &Partition,
    event: &RecordedEvent,
) -> Result<(&'static str, String, Option<(Partition, i64)>), BoxError> {
    let published = published(database, kafka, event_store).await?;
    if published < event.position.0 {
        return Ok(("waiting", format!("{} events before it", event.position.0 - published.max(0)), None));
    }
    let log = TopicLog::open(kafka, &[topic_for(&event.event_type)]).await?;
    let found = log.find(event.position.0, event.recorded_at.as_millis()).await?;
    Ok(match found {
        Some((partition, offset)) => ("published", format!("{partition} offset {offset}"), Some((partition, offset))),
        None => {
            ("gone", "removed by retention, or never there: lanes read the event store itself then".to_owned(), None)
        }
    })
}

/// What lanes did with the record at a place. A source that a lane has done with says only what came from it.
async fn lanes(attached: &Attached, partition: &Partition, offset: i64) -> Result<Vec<LaneState>, BoxError> {
    let client = attached.database.get().await?;
    let mut found = Vec::new();
    let of_partition = Ledger::rows(&**client).await?.into_iter().filter(|row| row.partition == *partition);
    let concerned = of_partition.filter(|row| row.retired_at.is_none() || row.next_offset > Some(offset));
    for ledger in concerned {
        let next = ledger.next_offset.unwrap_or(0);
        let letter = dead_letters::find_at(&**client, &ledger.lane, partition, offset).await?;
        let state = match letter {
            Some(letter) => {
                let detail = format!("dead letter {}, {} tries: {}", letter.id, letter.attempts, letter.reason);
                let state = if letter.state == "dead" { "dead" } else { "parked" };
                (ledger.lane, state, Some(letter.created_at), detail)
            }
            None if next > offset => {
                let at = format!("before {}", ledger.advanced_at);
                (ledger.lane, "applied", Some(at), format!("everything below {next} is applied"))
            }
            None => (ledger.lane, "waiting", None, format!("{} records before it", (offset - next).max(0))),
        };
        found.push(state);
    }
    Ok(found)
}

/// Once each time that the table holds it: more than one row would be a defect that this shows.
async fn history(attached: &Attached, event: &RecordedEvent) -> Result<Vec<(String, String)>, BoxError> {
    let history = History::open(&attached.history, attached.settings.sql.memory_max_bytes).await?;
    let query = format!(
        "SELECT recorded_at, event_month FROM events WHERE event_type = '{}' AND event_id = '{}'",
        event.event_type, event.event_id
    );
    let (schema, batches) = history.sql(&query).await?;
    let rows = super::sql::to_rows(&schema, &batches)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(rows.rows.iter().map(|row| (text(&row[0]), text(&row[1]))).collect())
}
