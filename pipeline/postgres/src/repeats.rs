//! Events that came before. Kafka delivers another service's retry as a second record with the same event id; each lane applies
//! the first and leaves the others out, for as long as it remembers the id.
//!
//! Everything here happens in the transaction that keeps the batch, or before the commit that carries it: an id is remembered
//! *with its place*, so a batch that is tried again finds itself, and not a repeat.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use tokio_postgres::GenericClient;
use tokio_postgres::types::ToSql;
use weir_engine::{Located, Partition, RecordHead};
use weir_model::{OtherEvent, Position, TenantId};

use crate::database::Database;
use crate::error::{DbError, During};
use crate::ledger::partition_of;

/// Places of records that are left out.
pub type Places = HashSet<(Partition, i64)>;

/// Whether a record is at one of these places.
#[must_use]
pub fn are_at(places: &Places, record: &RecordHead) -> bool {
    !places.is_empty() && places.contains(&(record.partition.clone(), record.offset))
}

/// A record that may be a repeat.
pub struct Candidate<'a> {
    record: &'a RecordHead,
    tenant: &'a str,
    event_id: &'a str,
}

impl<'a> Candidate<'a> {
    /// An event that did not come through our publisher, so that it has no position: the event store has each id once.
    #[must_use]
    pub fn of(located: &'a Located) -> Option<Self> {
        let event = &located.event;
        Self::new(&located.record, event.position, &event.tenant, event.event_id.as_str())
    }

    /// [`Self::of`] for events of unknown types.
    #[must_use]
    pub fn of_other(located: &'a Located<OtherEvent>) -> Option<Self> {
        let event = &located.event;
        Self::new(&located.record, event.position, &event.tenant, event.event_id.as_str())
    }

    fn new(
        record: &'a RecordHead,
        position: Option<Position>,
        tenant: &'a TenantId,
        event_id: &'a str,
    ) -> Option<Self> {
        position.is_none().then(|| Self { record, tenant: tenant.as_str(), event_id })
    }
}

/// Remembers these events for a lane, within the caller's transaction, and gives the places of those that came before.
pub async fn notice(
    client: &impl GenericClient,
    lane: &str,
    mut candidates: Vec<Candidate<'_>>,
) -> Result<Places, DbError> {
    const ACTION: &str = "looking for repeated events";
    const GIVEN: &str = "unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::int[], $7::bigint[]) WITH ORDINALITY \
         AS n(tenant, event_id, source, topic, partition, place, turn)";
    const AT: &str = "r.lane = $1 AND r.source = n.source AND r.topic = n.topic AND r.partition = n.partition AND r.\"offset\" = n.place";
    if candidates.is_empty() {
        return Ok(Places::new());
    }
    // In one order everywhere: two processes that remember the same ids must not wait for each other in a circle. Of one id
    // the first of the batch comes first.
    candidates.sort_by_key(|c| (c.tenant, c.event_id));
    let column = |of: fn(&Candidate<'_>) -> String| candidates.iter().map(of).collect::<Vec<_>>();
    let (tenants, ids) = (column(|c| c.tenant.to_owned()), column(|c| c.event_id.to_owned()));
    let (sources, topics) =
        (column(|c| c.record.partition.source.to_string()), column(|c| c.record.partition.topic.to_string()));
    let numbers: Vec<i32> = candidates.iter().map(|c| c.record.partition.number).collect();
    let places: Vec<i64> = candidates.iter().map(|c| c.record.offset).collect();
    let values: [&(dyn ToSql + Sync); 7] = [&lane, &tenants, &ids, &sources, &topics, &numbers, &places];
    // What was left out once stays left out, even when its first copy is forgotten by now.
    let remember = format!(
        "INSERT INTO seen (lane, tenant, event_id, source, topic, partition, \"offset\") \
         SELECT $1, tenant, event_id, source, topic, partition, place FROM {GIVEN} \
         WHERE NOT EXISTS (SELECT FROM repeats r WHERE {AT}) ORDER BY turn ON CONFLICT (lane, tenant, event_id) DO NOTHING"
    );
    client.execute(&remember, &values).await.during(ACTION)?;
    // An id that another process forgot in between is no first copy any more, and no reason to leave this one out.
    let compare = format!(
        "INSERT INTO repeats AS r (lane, source, topic, partition, \"offset\", tenant, event_id) \
         SELECT $1, n.source, n.topic, n.partition, n.place, n.tenant, n.event_id FROM {GIVEN} \
         LEFT JOIN seen s ON s.lane = $1 AND s.tenant = n.tenant AND s.event_id = n.event_id \
         WHERE EXISTS (SELECT FROM repeats r WHERE {AT}) \
            OR (s.source, s.topic, s.partition, s.\"offset\") <> (n.source, n.topic, n.partition, n.place) ORDER BY n.turn \
         ON CONFLICT (lane, source, topic, partition, \"offset\") DO UPDATE SET event_id = r.event_id \
         RETURNING r.source, r.topic, r.partition, r.\"offset\", r.event_id"
    );
    let mut left_out = Places::new();
    for row in client.query(&compare, &values).await.during(ACTION)? {
        let partition = partition_of(&row)?;
        let (offset, event_id): (i64, &str) = (row.try_get(3).during(ACTION)?, row.try_get(4).during(ACTION)?);
        tracing::info!(lane, %partition, offset, event_id, "came before, and is left out");
        left_out.insert((partition, offset));
    }
    Ok(left_out)
}

/// What a lane left out, by partition: offsets and event ids, for `weir verify`.
pub async fn left_out(
    client: &impl GenericClient,
    lane: &str,
) -> Result<HashMap<Partition, HashMap<i64, String>>, DbError> {
    const ACTION: &str = "reading repeated events";
    const SQL: &str = "SELECT source, topic, partition, \"offset\", event_id FROM repeats WHERE lane = $1";
    let mut found: HashMap<Partition, HashMap<i64, String>> = HashMap::new();
    for row in client.query(SQL, &[&lane]).await.during(ACTION)? {
        let (offset, event_id) = (row.try_get(3).during(ACTION)?, row.try_get(4).during(ACTION)?);
        found.entry(partition_of(&row)?).or_default().insert(offset, event_id);
    }
    Ok(found)
}

/// How many records each lane has left out.
pub async fn counts(client: &impl GenericClient) -> Result<HashMap<String, i64>, DbError> {
    const ACTION: &str = "counting repeated events";
    let rows = client.query("SELECT lane, count(*) FROM repeats GROUP BY lane", &[]).await.during(ACTION)?;
    rows.iter().map(|row| Ok((row.try_get(0).during(ACTION)?, row.try_get(1).during(ACTION)?))).collect()
}

/// How often ids are forgotten that are old enough.
const FORGET_EVERY: Duration = Duration::from_secs(600);

/// Ids forgotten in one statement: a lane must not wait long for it.
const FORGET_MAX: i64 = 10_000;

/// For how long a lane remembers event ids.
#[derive(Debug)]
pub struct DedupWindow {
    window: Duration,
    forgot_at: Option<Instant>,
}

impl DedupWindow {
    /// Ids are remembered for so long.
    #[must_use]
    pub fn new(window: Duration) -> Self {
        Self { window, forgot_at: None }
    }

    /// Forgets what is old enough, when that is due.
    pub async fn forget(&mut self, database: &Database, lane: &str) -> Result<(), DbError> {
        const ACTION: &str = "forgetting event ids";
        // Not of records that are in the sink, perhaps, and not in the ledger yet.
        const SQL: &str = "DELETE FROM seen WHERE (lane, tenant, event_id) IN ( \
             SELECT lane, tenant, event_id FROM seen s WHERE lane = $1 AND seen_at < now() - make_interval(secs => $2) \
               AND NOT EXISTS (SELECT FROM ledger l WHERE l.lane = s.lane AND l.source = s.source AND l.topic = s.topic \
                 AND l.partition = s.partition AND l.retired_at IS NULL AND s.\"offset\" >= coalesce(l.next_offset, 0)) \
             LIMIT $3 FOR UPDATE SKIP LOCKED)";
        if self.forgot_at.is_some_and(|at| at.elapsed() < FORGET_EVERY) {
            return Ok(());
        }
        let client = database.get().await?;
        let forgotten = client.execute(SQL, &[&lane, &self.window.as_secs_f64(), &FORGET_MAX]).await.during(ACTION)?;
        // More of them: the next time goes on.
        if i64::try_from(forgotten).unwrap_or(0) < FORGET_MAX {
            self.forgot_at = Some(Instant::now());
        }
        Ok(())
    }
}
