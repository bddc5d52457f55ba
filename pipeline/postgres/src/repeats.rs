//! What lanes left out because it came before, for `weir verify`, rebuilds and metrics. How it is decided: [`crate::dedup`].

use std::collections::{HashMap, HashSet};

use tokio_postgres::GenericClient;
use weir_engine::{Partition, RecordHead};

use crate::error::{DbError, During};
use crate::ledger::partition_of;

/// Places of records that are left out.
pub type Places = HashSet<(Partition, i64)>;

/// Whether a record is at one of these places.
#[must_use]
pub fn are_at(places: &Places, record: &RecordHead) -> bool {
    !places.is_empty() && places.contains(&(record.partition.clone(), record.offset))
}

/// What a lane left out, by partition: offsets and event ids, for `weir verify`.
pub async fn left_out(
    client: &impl GenericClient,
    lane: &str,
) -> Result<HashMap<Partition, HashMap<i64, String>>, DbError> {
    const ACTION: &str = "reading repeated events";
    const SQL: &str = "SELECT source, topic, partition, \"offset\", event_id FROM repeats r WHERE lane IN ('', $1) AND NOT is_counted \
         AND NOT EXISTS (SELECT FROM repeats e WHERE e.lane = $1 AND e.is_counted AND e.source = r.source AND e.topic = r.topic \
           AND e.partition = r.partition AND e.\"offset\" = r.\"offset\")";
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
    // The index may be ahead of a lane.
    const SQL: &str = "SELECT l.lane, sum(CASE WHEN r.is_counted THEN -1 ELSE 1 END)::bigint FROM ledger l \
         JOIN repeats r ON r.lane IN ('', l.lane) AND r.source = l.source AND r.topic = l.topic AND r.partition = l.partition \
           AND r.\"offset\" < l.next_offset GROUP BY l.lane";
    let rows = client.query(SQL, &[]).await.during(ACTION)?;
    rows.iter().map(|row| Ok((row.try_get(0).during(ACTION)?, row.try_get(1).during(ACTION)?))).collect()
}

/// How far back repeats are recognised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reach {
    /// Offsets of the log that the index of repeats has numbered: records of other services, and what lies between them.
    pub records: i64,
    /// How many of those it numbered in the last hour.
    pub last_hour: i64,
}

/// [`Reach`], as it is now.
pub async fn reach(client: &impl GenericClient) -> Result<Reach, DbError> {
    const ACTION: &str = "asking how far back repeats are recognised";
    const SQL: &str = "SELECT next_number, next_number - coalesce((SELECT number FROM dedup_spans \
         WHERE indexed_at < now() - interval '1 hour' ORDER BY number DESC LIMIT 1), 0) FROM dedup";
    let row = client.query_one(SQL, &[]).await.during(ACTION)?;
    Ok(Reach { records: row.try_get(0).during(ACTION)?, last_hour: row.try_get(1).during(ACTION)? })
}
