//! Records that a lane could not apply: kept whole, parked by key. Trying them again is [`crate::redrive`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp as JiffTimestamp;
use serde::Serialize;
use tokio_postgres::types::ToSql;
use tokio_postgres::{GenericClient, Row};
use weir_engine::{DeadRecord, Headers, Partition, Record, RecordHead, SinkError};
use weir_model::envelope::Enveloped;

use crate::dedup::DedupIndex;
use crate::error::{DbError, During, ErrorKind};
use crate::ledger::{columns, partition_of};
use crate::projection::{Key, Unapplied};

mod refused;

pub use refused::Refused;
pub(crate) use refused::insert_refused;

/// What a lane does about records that it cannot just apply.
#[derive(Debug, Clone)]
pub struct RecordPolicy {
    /// Waits before each further try; when they are used up, the record is dead.
    pub delays: Vec<Duration>,
    /// Records that a lane may have parked; beyond it the lane stops loudly (P8).
    pub parked_max: i64,
    /// What of other services' records came before, and is left out; one for all lanes of a process.
    pub repeats: Arc<DedupIndex>,
}

impl Default for RecordPolicy {
    fn default() -> Self {
        Self {
            delays: vec![Duration::from_secs(2), Duration::from_secs(4)],
            parked_max: 10_000,
            repeats: Arc::new(DedupIndex::new(10_000_000)),
        }
    }
}

impl RecordPolicy {
    fn delay(&self, attempts: i32) -> Option<f64> {
        let index = usize::try_from(attempts.checked_sub(1)?).ok()?;
        self.delays.get(index).map(Duration::as_secs_f64)
    }
}

const INSERT: &str = "INSERT INTO dead_letters \
     (lane, source, topic, partition, \"offset\", key, state, decodable, event_type, reason, attempts, retry_at, headers, payload, \
      ordered, key_bytes, header_bytes, tenant, aggregate_type, aggregate_id) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, now() + make_interval(secs => $12), $13, $14, $15, $16, $17, $18, $19, $20) \
     ON CONFLICT (lane, source, topic, partition, \"offset\") DO NOTHING";

struct NewDeadLetter<'a> {
    record: &'a Record,
    state: &'a str,
    /// What it says it is, if it is an event.
    event: Option<Enveloped<'a>>,
    reason: &'a str,
    attempts: i32,
    retry_after: Option<f64>,
    ordered: bool,
}

async fn insert(client: &impl GenericClient, lane: &str, letter: NewDeadLetter<'_>) -> Result<(), DbError> {
    let record = letter.record;
    let plain = |text: &str| text.replace('\0', "�");
    let headers: serde_json::Map<_, _> = record
        .headers
        .iter()
        .map(|(name, value)| (plain(name), plain(&String::from_utf8_lossy(value)).into()))
        .collect();
    // Names and reasons may quote the record; Postgres text holds no U+0000. The payload itself is kept as bytes.
    let reason = letter.reason.replace('\0', "\\0");
    let key = record.key.as_ref().map(|key| key.replace('\0', "\\0"));
    // Of an event of a type that this build does not know, whatever its sender wrote.
    let said = |what: for<'e> fn(&Enveloped<'e>) -> &'e str| {
        letter.event.as_ref().map(|event| what(event).replace('\0', "\\0"))
    };
    let (event_type, tenant) = (said(|event| event.event_type), said(|event| event.envelope.tenant.as_str()));
    let (aggregate_type, aggregate_id) = (said(|event| event.aggregate_type), said(|event| event.aggregate_id));
    let values: [&(dyn ToSql + Sync); 20] = [
        &lane,
        &&*record.partition.source,
        &&*record.partition.topic,
        &record.partition.number,
        &record.offset,
        &key,
        &letter.state,
        &event_type.is_some(),
        &event_type,
        &reason,
        &letter.attempts,
        &letter.retry_after,
        &serde_json::Value::Object(headers),
        &record.payload.as_ref(),
        &letter.ordered,
        &record.key_bytes(),
        &record.headers.written(),
        &tenant,
        &aggregate_type,
        &aggregate_id,
    ];
    client.execute(INSERT, &values).await.during("keeping a dead letter")?;
    Ok(())
}

fn broken(what: impl std::fmt::Display) -> DbError {
    DbError::new("keeping a dead letter", ErrorKind::Permanent, what.to_string())
}

/// Keeps records that are no events. Repeatable: a coordinate is kept once.
pub async fn insert_undecodable<'a>(
    client: &impl GenericClient,
    lane: &str,
    dead: impl Iterator<Item = &'a DeadRecord>,
) -> Result<(), DbError> {
    for DeadRecord { record, reason } in dead {
        tracing::warn!(lane, partition = %record.partition, offset = record.offset, reason, "dead letter");
        let letter =
            NewDeadLetter { record, state: "dead", event: None, reason, attempts: 1, retry_after: None, ordered: true };
        insert(client, lane, letter).await?;
    }
    Ok(())
}

/// Keeps events that failed, and those that wait behind them.
pub(crate) async fn park(
    client: &impl GenericClient,
    lane: &str,
    unapplied: &[Unapplied<'_>],
    policy: &RecordPolicy,
) -> Result<(), SinkError> {
    if unapplied.is_empty() {
        return Ok(());
    }
    for Unapplied { located, reason, ordered } in unapplied {
        let record = &located.whole_record().map_err(broken)?;
        tracing::warn!(
            lane, partition = %record.partition, offset = record.offset, event_id = %located.event.event_id,
            correlation_id = located.event.metadata.correlation_id.as_deref(), causation_id = located.event.metadata.causation_id.as_deref(),
            reason = reason.as_deref().unwrap_or("waits behind an earlier event of its key"), "parked"
        );
        let retry_after = reason.as_ref().and_then(|_| policy.delay(1));
        let letter = NewDeadLetter {
            record,
            state: if reason.is_some() && retry_after.is_none() { "dead" } else { "parked" },
            event: Some(located.event.enveloped()),
            reason: reason.as_deref().unwrap_or("waits behind an earlier event of its key"),
            attempts: i32::from(reason.is_some()),
            retry_after,
            ordered: *ordered,
        };
        insert(client, lane, letter).await?;
    }
    check_cap(client, lane, policy).await
}

async fn check_cap(client: &impl GenericClient, lane: &str, policy: &RecordPolicy) -> Result<(), SinkError> {
    const SQL: &str = "SELECT count(*) FROM dead_letters WHERE lane = $1 AND decodable";
    let row = client.query_one(SQL, &[&lane]).await.during("counting parked records")?;
    let parked: i64 = row.try_get(0).during("counting parked records")?;
    if parked <= policy.parked_max {
        return Ok(());
    }
    Err(SinkError::Fatal(
        format!(
            "{parked} records would be parked, more than dead_letters.parked_max = {}; look at `weir dead-letters list`, \
             mend the cause and redrive, or raise the limit",
            policy.parked_max
        )
        .into(),
    ))
}

/// Whether any event of the lane holds up those behind it: nearly always none does, and then no key has to be looked for.
pub(crate) async fn any_holds_up(
    transaction: &deadpool_postgres::Transaction<'_>,
    lane: &str,
) -> Result<bool, DbError> {
    const ACTION: &str = "looking for parked keys";
    const SQL: &str = "SELECT EXISTS (SELECT FROM dead_letters WHERE lane = $1 AND decodable AND ordered)";
    let statement = transaction.prepare_cached(SQL).await.during(ACTION)?;
    transaction.query_one(&statement, &[&lane]).await.during(ACTION)?.try_get(0).during(ACTION)
}

/// Which of these keys are held up by an earlier event.
pub(crate) async fn parked_keys(
    client: &impl GenericClient,
    lane: &str,
    keys: HashSet<Key>,
) -> Result<HashSet<Key>, DbError> {
    const ACTION: &str = "looking for parked keys";
    const SQL: &str = "SELECT DISTINCT source, topic, partition, key, tenant FROM dead_letters \
         WHERE lane = $1 AND decodable AND ordered AND key = ANY($2)";
    if keys.is_empty() {
        return Ok(HashSet::new());
    }
    let texts: Vec<&str> = keys.iter().map(|(_, _, key)| &**key).collect();
    let rows = client.query(SQL, &[&lane, &texts]).await.during(ACTION)?;
    let mut parked: HashSet<(Partition, Option<String>, Arc<str>)> = HashSet::new();
    for row in &rows {
        let (key, tenant): (&str, Option<String>) = (row.try_get(3).during(ACTION)?, row.try_get(4).during(ACTION)?);
        parked.insert((partition_of(row)?, tenant, key.into()));
    }
    let is_parked = |(partition, tenant, key): &Key| {
        let by = |tenant: Option<String>| parked.contains(&(partition.clone(), tenant, key.clone()));
        // Letters of before do not say whose they are.
        by(Some(tenant.as_str().to_owned())) || by(None)
    };
    Ok(keys.into_iter().filter(is_parked).collect())
}

/// A kept record, for people.
#[derive(Debug, Clone, Serialize)]
pub struct DeadLetter {
    /// Its number.
    pub id: i64,
    /// Which lane could not apply it.
    pub lane: String,
    /// The topic that the record was read from; `events` for the event store.
    pub topic: String,
    /// The number of the topic's partition; 0 for the event store.
    pub partition: i32,
    /// The record's offset in that partition; its position for the event store.
    pub offset: i64,
    /// The record's key, as text.
    pub key: Option<String>,
    /// `parked`, `dead` or `redrive`.
    pub state: String,
    /// Its type, if it is an event.
    pub event_type: Option<String>,
    /// The event's tenant.
    pub tenant: Option<String>,
    /// The type of the aggregate that the event belongs to.
    pub aggregate_type: Option<String>,
    /// The id of that aggregate.
    pub aggregate_id: Option<String>,
    /// Why the lane could not apply the record.
    pub reason: String,
    /// Tries so far.
    pub attempts: i32,
    /// When it was kept.
    pub created_at: String,
    /// The bytes.
    #[serde(skip)]
    pub payload: Vec<u8>,
    /// Where offsets mean something.
    #[serde(skip)]
    pub source: String,
    #[serde(skip)]
    key_bytes: Option<Vec<u8>>,
    #[serde(skip)]
    headers: Headers,
}

pub(crate) const LETTER_COLUMNS: &str = "id, lane, source, topic, partition, \"offset\" AS place, key, state, event_type, reason, \
     attempts, created_at, payload, headers, key_bytes, header_bytes, tenant, aggregate_type, aggregate_id";

pub(crate) fn letter(row: &Row) -> Result<DeadLetter, DbError> {
    const ACTION: &str = "reading dead letters";
    let created_at: JiffTimestamp = row.try_get("created_at").during(ACTION)?;
    let header_bytes: Option<Vec<u8>> = row.try_get("header_bytes").during(ACTION)?;
    let headers = match header_bytes {
        Some(bytes) => Headers::from_written(bytes.into()),
        None => {
            let headers: serde_json::Value = row.try_get("headers").during(ACTION)?;
            let texts = headers.as_object().into_iter().flatten();
            texts.map(|(name, value)| (name.as_str(), value.as_str().unwrap_or_default().as_bytes())).collect()
        }
    };
    Ok(DeadLetter {
        id: row.try_get("id").during(ACTION)?,
        lane: row.try_get("lane").during(ACTION)?,
        topic: row.try_get("topic").during(ACTION)?,
        partition: row.try_get("partition").during(ACTION)?,
        offset: row.try_get("place").during(ACTION)?,
        key: row.try_get("key").during(ACTION)?,
        state: row.try_get("state").during(ACTION)?,
        event_type: row.try_get("event_type").during(ACTION)?,
        reason: row.try_get("reason").during(ACTION)?,
        attempts: row.try_get("attempts").during(ACTION)?,
        created_at: created_at.to_string(),
        payload: row.try_get("payload").during(ACTION)?,
        source: row.try_get("source").during(ACTION)?,
        tenant: row.try_get("tenant").during(ACTION)?,
        aggregate_type: row.try_get("aggregate_type").during(ACTION)?,
        aggregate_id: row.try_get("aggregate_id").during(ACTION)?,
        key_bytes: row.try_get("key_bytes").during(ACTION)?,
        headers,
    })
}

/// Dead letters of a lane, or of all, oldest first.
pub async fn list(client: &impl GenericClient, lane: Option<&str>, limit: i64) -> Result<Vec<DeadLetter>, DbError> {
    let sql = format!("SELECT {LETTER_COLUMNS} FROM dead_letters WHERE lane = coalesce($1, lane) ORDER BY id LIMIT $2");
    let rows = client.query(&sql, &[&lane, &limit]).await.during("reading dead letters")?;
    rows.iter().map(letter).collect()
}

/// Where the records of a lane's dead letters are.
pub async fn places(client: &impl GenericClient, lane: &str) -> Result<Vec<(Partition, i64)>, DbError> {
    const ACTION: &str = "reading dead letters";
    const SQL: &str = "SELECT source, topic, partition, \"offset\" FROM dead_letters WHERE lane = $1";
    let rows = client.query(SQL, &[&lane]).await.during(ACTION)?;
    let place = |row: &Row| {
        let (source, topic): (&str, &str) = (row.try_get(0).during(ACTION)?, row.try_get(1).during(ACTION)?);
        let number = row.try_get(2).during(ACTION)?;
        Ok((Partition { source: source.into(), topic: topic.into(), number }, row.try_get(3).during(ACTION)?))
    };
    rows.iter().map(place).collect()
}

/// Removes a lane's dead letters whose records its sink holds now.
pub async fn resolve_at(
    client: &impl GenericClient,
    lane: &str,
    (partition, offset): (&Partition, i64),
) -> Result<(), DbError> {
    const SQL: &str = "DELETE FROM dead_letters WHERE lane = $1 AND source = $2 AND topic = $3 AND partition = $4 AND \"offset\" = $5";
    let values: [&(dyn ToSql + Sync); 5] = [&lane, &&*partition.source, &&*partition.topic, &partition.number, &offset];
    client.execute(SQL, &values).await.during("resolving a dead letter")?;
    Ok(())
}

/// How many dead letters each lane has.
pub async fn counts(client: &impl GenericClient) -> Result<HashMap<String, i64>, DbError> {
    const ACTION: &str = "counting dead letters";
    let rows = client.query("SELECT lane, count(*) FROM dead_letters GROUP BY lane", &[]).await.during(ACTION)?;
    rows.iter().map(|row| Ok((row.try_get(0).during(ACTION)?, row.try_get(1).during(ACTION)?))).collect()
}

/// One dead letter.
pub async fn find(client: &impl GenericClient, id: i64) -> Result<Option<DeadLetter>, DbError> {
    let sql = format!("SELECT {LETTER_COLUMNS} FROM dead_letters WHERE id = $1");
    let row = client.query_opt(&sql, &[&id]).await.during("reading dead letters")?;
    row.as_ref().map(letter).transpose()
}

/// A lane's dead letter at one place.
pub async fn find_at(
    client: &impl GenericClient,
    lane: &str,
    partition: &Partition,
    offset: i64,
) -> Result<Option<DeadLetter>, DbError> {
    let sql = format!(
        "SELECT {LETTER_COLUMNS} FROM dead_letters \
         WHERE lane = $1 AND source = $2 AND topic = $3 AND partition = $4 AND \"offset\" = $5"
    );
    let values: [&(dyn ToSql + Sync); 5] = [&lane, &&*partition.source, &&*partition.topic, &partition.number, &offset];
    let row = client.query_opt(&sql, &values).await.during("reading dead letters")?;
    row.as_ref().map(letter).transpose()
}

/// Asks the lanes' owners to try these again; all of a lane's, or all, without ids. Gives how many were asked for.
pub async fn request_redrive(client: &impl GenericClient, lane: Option<&str>, ids: &[i64]) -> Result<u64, DbError> {
    const SQL: &str = "UPDATE dead_letters SET state = 'redrive' \
         WHERE state = 'dead' AND lane = coalesce($1, lane) AND (id = ANY($2) OR cardinality($2) = 0)";
    client.execute(SQL, &[&lane, &ids]).await.during("asking for a redrive")
}

/// The dead letters of a lane for which a redrive was asked, undecodable ones included.
pub async fn redrives(client: &impl GenericClient, lane: &str) -> Result<Vec<DeadLetter>, DbError> {
    let sql = format!(
        "SELECT {LETTER_COLUMNS} FROM dead_letters WHERE lane = $1 AND state = 'redrive' ORDER BY id LIMIT 1000"
    );
    let rows = client.query(&sql, &[&lane]).await.during("reading dead letters")?;
    rows.iter().map(letter).collect()
}

/// Removes partitions' dead letters, of each from an offset on.
pub async fn drop_from(client: &impl GenericClient, lane: &str, from: &[(&Partition, i64)]) -> Result<(), DbError> {
    const SQL: &str = "DELETE FROM dead_letters d \
         USING unnest($2::text[], $3::text[], $4::int[], $5::bigint[]) AS p(source, topic, partition, start) \
         WHERE d.lane = $1 AND d.source = p.source AND d.topic = p.topic AND d.partition = p.partition AND d.\"offset\" >= p.start";
    let (sources, topics, numbers) = columns(from.iter().map(|(partition, _)| *partition));
    let starts: Vec<i64> = from.iter().map(|(_, start)| *start).collect();
    let values: [&(dyn ToSql + Sync); 5] = [&lane, &sources, &topics, &numbers, &starts];
    client.execute(SQL, &values).await.during("dropping dead letters of an unfinished batch")?;
    Ok(())
}

/// A dead letter as the record it was.
#[must_use]
pub fn to_record(letter: &DeadLetter) -> Record {
    let is_odd = |bytes: &&Vec<u8>| letter.key.as_ref().is_none_or(|key| key.as_bytes() != bytes.as_slice());
    let head = RecordHead {
        partition: Partition {
            source: letter.source.as_str().into(),
            topic: letter.topic.as_str().into(),
            number: letter.partition,
        },
        offset: letter.offset,
        key: letter.key.as_deref().map(Arc::from),
        odd_key: letter.key_bytes.as_ref().filter(is_odd).map(|bytes| bytes.as_slice().into()),
        headers: letter.headers.clone(),
        recorded_at: None,
    };
    Record { head, payload: letter.payload.clone().into() }
}

/// Whether records of a topic are parked: later events of their keys wait behind them.
pub async fn any_parked(client: &impl GenericClient, topic: &str) -> Result<bool, DbError> {
    const SQL: &str = "SELECT EXISTS (SELECT FROM dead_letters WHERE topic = $1 AND decodable)";
    let row = client.query_one(SQL, &[&topic]).await.during("looking for parked keys")?;
    row.try_get(0).during("looking for parked keys")
}

/// Dead letters of topics that have no copy in these topics' own topics of dead letters yet, oldest first.
pub async fn unmirrored(client: &impl GenericClient, topics: &[&str], limit: i64) -> Result<Vec<DeadLetter>, DbError> {
    let sql = format!(
        "SELECT {LETTER_COLUMNS} FROM dead_letters WHERE state = 'dead' AND mirrored_at IS NULL AND topic = ANY($1) \
         ORDER BY id LIMIT $2"
    );
    let rows = client.query(&sql, &[&topics, &limit]).await.during("reading dead letters")?;
    rows.iter().map(letter).collect()
}

/// Notes that these dead letters were copied to the topics of dead letters.
pub async fn note_mirrored(client: &impl GenericClient, letters: &[DeadLetter]) -> Result<(), DbError> {
    const SQL: &str = "UPDATE dead_letters SET mirrored_at = now() WHERE id = ANY($1)";
    let ids: Vec<i64> = letters.iter().map(|letter| letter.id).collect();
    client.execute(SQL, &[&ids]).await.during("noting mirrored dead letters")?;
    Ok(())
}

/// Removes a dead letter, since its record was applied or turned out to need nothing.
pub async fn resolve(client: &impl GenericClient, id: i64) -> Result<(), DbError> {
    client.execute("DELETE FROM dead_letters WHERE id = $1", &[&id]).await.during("resolving a dead letter")?;
    Ok(())
}

/// Notes another failed try: a parked record waits for the next of [`RecordPolicy::delays`], and is dead when none is left.
pub async fn fail_again(
    client: &impl GenericClient,
    letter: &DeadLetter,
    reason: &str,
    policy: &RecordPolicy,
) -> Result<(), DbError> {
    const SQL: &str = "UPDATE dead_letters SET attempts = attempts + 1, reason = $2, state = $3, \
         retry_at = now() + make_interval(secs => $4) WHERE id = $1";
    let delay = if letter.state == "parked" { policy.delay(letter.attempts + 1) } else { None };
    let state = if delay.is_some() { "parked" } else { "dead" };
    let reason = reason.replace('\0', "\\0");
    client.execute(SQL, &[&letter.id, &reason, &state, &delay]).await.during("keeping a dead letter")?;
    Ok(())
}

/// The positions in the event store that a lane's dead letters at these offsets name, where they do.
pub async fn positions(
    client: &impl GenericClient,
    lane: &str,
    partition: &Partition,
    offsets: &[i64],
) -> Result<Vec<i64>, DbError> {
    #[derive(serde::Deserialize)]
    struct Placed {
        position: Option<i64>,
    }
    const ACTION: &str = "reading dead letters";
    const SQL: &str = "SELECT payload FROM dead_letters \
         WHERE lane = $1 AND source = $2 AND topic = $3 AND partition = $4 AND \"offset\" = ANY($5)";
    let values: [&(dyn ToSql + Sync); 5] =
        [&lane, &&*partition.source, &&*partition.topic, &partition.number, &offsets];
    let mut positions = Vec::new();
    for row in client.query(SQL, &values).await.during(ACTION)? {
        let payload: &[u8] = row.try_get(0).during(ACTION)?;
        positions.extend(serde_json::from_slice::<Placed>(payload).ok().and_then(|placed| placed.position));
    }
    Ok(positions)
}

/// Offsets of a lane's dead letters by partition, and whether a redrive was asked for, for `weir verify`: they are not in the
/// sink.
pub async fn offsets(
    client: &impl GenericClient,
    lane: &str,
) -> Result<HashMap<Partition, HashMap<i64, bool>>, DbError> {
    const ACTION: &str = "reading dead letters";
    const SQL: &str =
        "SELECT source, topic, partition, \"offset\", state = 'redrive' FROM dead_letters WHERE lane = $1";
    let mut found: HashMap<Partition, HashMap<i64, bool>> = HashMap::new();
    for row in client.query(SQL, &[&lane]).await.during(ACTION)? {
        let (offset, asked) = (row.try_get(3).during(ACTION)?, row.try_get(4).during(ACTION)?);
        found.entry(partition_of(&row)?).or_default().insert(offset, asked);
    }
    Ok(found)
}
