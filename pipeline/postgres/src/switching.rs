//! Moving lanes from the event store to Kafka: one transaction in which the event store's rows of the ledger are retired and
//! the publisher is told where to begin.

use weir_model::Position;

use crate::database::Database;
use crate::error::{DbError, During, ErrorKind};
use crate::event_store::EventStore;
use crate::source::EVENT_STORE_TOPIC;

const ACTION: &str = "switching the source";

/// Retires the lanes' rows of the event store, all of which must stand behind its last event. Gives the last position that
/// was read from the event store; everything after it comes through Kafka. A second call changes nothing.
pub async fn to_kafka(database: &Database, lanes: &[&str], head: Position) -> Result<i64, DbError> {
    const OPEN: &str = "SELECT lane, coalesce(least(next_offset, rolled_up), 1) - 1 FROM ledger WHERE topic = $1 AND source = $2 AND retired_at IS NULL \
         ORDER BY lane FOR UPDATE";
    const RETIRE: &str = "UPDATE ledger SET retired_at = now(), epoch = epoch + 1, owner = 'switched' \
         WHERE topic = $1 AND source = $2 AND retired_at IS NULL";
    const BEGIN: &str = "INSERT INTO publisher AS p (source, position, switched, seen_at) VALUES ($1, $2, true, '-infinity') \
         ON CONFLICT (source) DO UPDATE SET position = excluded.position, switched = true WHERE p.position = 0";
    const LETTERS: &str =
        "SELECT count(*) FROM dead_letters WHERE topic = $1 AND source = $2 AND (decodable OR state = 'redrive')";
    let store = EventStore::new(database.clone());
    let id = store.id().await?;
    let source = id.to_string();
    let refusal = |what: String| DbError::new(ACTION, ErrorKind::Permanent, what);
    let mut client = database.get().await?;
    let transaction = client.transaction().await.during(ACTION)?;
    let rows = transaction.query(OPEN, &[&EVENT_STORE_TOPIC, &source]).await.during(ACTION)?;
    let known =
        transaction.query_opt("SELECT position FROM publisher WHERE source = $1", &[&id]).await.during(ACTION)?;
    let published: i64 = known.map(|row| row.try_get(0)).transpose().during(ACTION)?.unwrap_or(0);
    if rows.is_empty() && published > 0 {
        return Ok(published);
    }
    if published > 0 {
        return Err(refusal(
            "events of this event store were published already, while lanes read it as well".to_owned(),
        ));
    }
    let letters = transaction.query_one(LETTERS, &[&EVENT_STORE_TOPIC, &source]).await.during(ACTION)?;
    let letters: i64 = letters.try_get(0).during(ACTION)?;
    if letters > 0 {
        return Err(refusal(format!(
            "{letters} events are parked, and later events of their keys must not run ahead of them: `weir dead-letters list` shows \
             them; mend the cause and redrive them first"
        )));
    }
    for row in &rows {
        let (lane, position): (&str, i64) = (row.try_get(0).during(ACTION)?, row.try_get(1).during(ACTION)?);
        if position < head.0 {
            return Err(refusal(format!(
                "the lane {lane} stands at {position} of {}; `weir up --until-caught-up` lets it catch up first",
                head.0
            )));
        }
    }
    let ran = |lane: &&str| rows.iter().any(|row| row.try_get::<_, &str>(0).is_ok_and(|name| name == *lane));
    // A lane that never ran has nothing behind it; the events so far would be lost on it.
    if let Some(lane) = lanes.iter().find(|lane| !ran(lane)).filter(|_| head.0 > 0) {
        return Err(refusal(format!("the lane {lane} never ran; `weir up --until-caught-up` lets it catch up first")));
    }
    transaction.execute(RETIRE, &[&EVENT_STORE_TOPIC, &source]).await.during(ACTION)?;
    transaction.execute(BEGIN, &[&id, &head.0]).await.during(ACTION)?;
    transaction.commit().await.during(ACTION)?;
    Ok(head.0)
}
