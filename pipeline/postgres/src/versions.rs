//! Versions of what a lane keeps. The one that serves is told by a number, and by the fingerprint of the projection that makes its rows: a
//! lane with another projection waits until its tables are rebuilt, or someone says that they may stay.

use std::collections::HashMap;

use jiff::Timestamp as JiffTimestamp;
use serde::{Deserialize, Serialize};
use tokio_postgres::{GenericClient, Row};
use weir_engine::{LaneKind, Partition};
use weir_model::project::{Units, fingerprint as of};

use crate::database::Database;
use crate::error::{DbError, During, ErrorKind};

const ACTION: &str = "reading a lane's versions";

/// A lane's versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    /// The one that serves.
    pub serving: i32,
    /// Of the projection that makes its rows.
    pub fingerprint: String,
    /// The one before, if it is kept.
    pub previous: Option<Previous>,
}

/// A version that serves no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previous {
    /// Its number.
    pub version: i32,
    /// Of the projection that made its rows.
    pub fingerprint: String,
    /// When it stopped serving.
    pub at: JiffTimestamp,
    /// What its rows are of.
    pub stand: StandKept,
}

impl Versions {
    /// The number of the next one.
    #[must_use]
    pub fn next(&self) -> i32 {
        self.previous.as_ref().map_or(0, |previous| previous.version).max(self.serving) + 1
    }

    fn from_row(row: &Row) -> Result<Self, DbError> {
        let previous: Option<i32> = row.try_get("previous_version").during(ACTION)?;
        let previous = previous
            .map(|version| {
                let stand: serde_json::Value = row.try_get("previous_stand").during(ACTION)?;
                let stand = serde_json::from_value(stand)
                    .map_err(|error| DbError::new(ACTION, ErrorKind::Permanent, error.to_string()))?;
                Ok::<_, DbError>(Previous {
                    version,
                    fingerprint: row.try_get("previous_fingerprint").during(ACTION)?,
                    at: row.try_get("previous_at").during(ACTION)?,
                    stand,
                })
            })
            .transpose()?;
        Ok(Self {
            serving: row.try_get("version").during(ACTION)?,
            fingerprint: row.try_get("fingerprint").during(ACTION)?,
            previous,
        })
    }
}

/// Of what this build makes of events in a lane's tables.
#[must_use]
pub fn fingerprint(lane: LaneKind, units: Units) -> String {
    match lane {
        LaneKind::ReadModels => of::of_read_models(units),
        LaneKind::Metrics => of::of_metrics(units),
        LaneKind::History | LaneKind::ClickHouse => of::of_columns(),
    }
}

/// Where a lane stood: next offsets, and offsets of dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandKept(Vec<(String, String, i32, i64, Vec<i64>)>);

impl StandKept {
    /// By partition: the next offset, and offsets of dead letters.
    pub fn of(stands: impl Iterator<Item = (Partition, i64, Vec<i64>)>) -> Self {
        Self(stands.map(|(p, next, dead)| (p.source.to_string(), p.topic.to_string(), p.number, next, dead)).collect())
    }

    /// By partition: the next offset, and the dead letters.
    #[must_use]
    pub fn by_partition(&self) -> HashMap<Partition, (i64, Vec<i64>)> {
        let of = |(source, topic, number, next, dead): &(String, String, i32, i64, Vec<i64>)| {
            let partition = Partition { source: source.as_str().into(), topic: topic.as_str().into(), number: *number };
            (partition, (*next, dead.clone()))
        };
        self.0.iter().map(of).collect()
    }
}

/// The schema that keeps a lane's previous version.
pub(crate) fn previous_schema(lane: &str) -> String {
    format!("weir_previous_{}", lane.replace('-', "_"))
}

/// A lane's versions; `None` before it first ran.
pub async fn of_lane(client: &impl GenericClient, lane: &str) -> Result<Option<Versions>, DbError> {
    let row = client.query_opt("SELECT * FROM lane_versions WHERE lane = $1", &[&lane]).await.during(ACTION)?;
    row.as_ref().map(Versions::from_row).transpose()
}

/// [`difference`] for a lane that claims: one that runs for the first time says what it is.
pub async fn refusal(client: &impl GenericClient, lane: &str, fingerprint: &str) -> Result<Option<String>, DbError> {
    const SQL: &str = "INSERT INTO lane_versions (lane, fingerprint) VALUES ($1, $2) ON CONFLICT (lane) DO NOTHING";
    if of_lane(client, lane).await?.is_none() {
        client.execute(SQL, &[&lane, &fingerprint]).await.during("keeping a lane's first version")?;
    }
    difference(client, lane, fingerprint).await
}

/// Why a lane with this projection must wait; `None` where the rows are its own.
pub async fn difference(client: &impl GenericClient, lane: &str, fingerprint: &str) -> Result<Option<String>, DbError> {
    let found = of_lane(client, lane).await?.filter(|found| found.fingerprint != fingerprint);
    Ok(found.map(|found| {
        format!(
            "version {} of the tables of {lane} was made by another projection ({}, and this process has {fingerprint}): events are read otherwise by \
             another build, or with other `durations`. `weir rebuild {lane}` makes them again while they serve; `weir rebuild {lane} \
             --declare-compatible` says that what is there may stay",
            found.serving, found.fingerprint
        )
    }))
}

/// Keeps that version `version` serves, made by this projection, and where the lane stood when the one before ceased to. Gives that one's number.
pub async fn swap(
    client: &impl GenericClient,
    lane: &str,
    fingerprint: &str,
    version: Option<i32>,
    stand: &StandKept,
) -> Result<(i32, i32), DbError> {
    const ACTION: &str = "keeping which version of a lane serves";
    const FIRST: &str = "INSERT INTO lane_versions (lane, fingerprint) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    const SWAP: &str = "UPDATE lane_versions SET previous_version = version, previous_fingerprint = fingerprint, previous_stand = $4, \
         previous_at = now(), version = $3, fingerprint = $2, built_at = now() WHERE lane = $1";
    client.execute(FIRST, &[&lane, &fingerprint]).await.during(ACTION)?;
    let found = of_lane(client, lane).await?;
    let found = found.ok_or_else(|| DbError::new(ACTION, ErrorKind::Permanent, "its version is gone"))?;
    let version = version.unwrap_or_else(|| found.next());
    let kept = serde_json::to_value(stand).map_err(|e| DbError::new(ACTION, ErrorKind::Permanent, e.to_string()))?;
    client.execute(SWAP, &[&lane, &fingerprint, &version, &kept]).await.during(ACTION)?;
    Ok((version, found.serving))
}

/// Says that rows of another projection may stay. Gives whether that was in question.
/// A process with the other projection is fenced.
pub async fn declare_compatible(database: &Database, lane: &str, fingerprint: &str) -> Result<bool, DbError> {
    const ACTION: &str = "declaring a version compatible";
    const SQL: &str = "UPDATE lane_versions SET fingerprint = $2 WHERE lane = $1 AND fingerprint <> $2";
    const FENCE: &str = "UPDATE ledger SET epoch = epoch + 1, owner = 'fenced' WHERE lane = $1 AND retired_at IS NULL";
    let mut client = database.get().await?;
    let transaction = client.transaction().await.during(ACTION)?;
    let was_another = transaction.execute(SQL, &[&lane, &fingerprint]).await.during(ACTION)? > 0;
    if was_another {
        transaction.execute(FENCE, &[&lane]).await.during(ACTION)?;
    }
    transaction.commit().await.during(ACTION)?;
    Ok(was_another)
}

/// Drops a lane's previous version. Gives its number, if there was one that stopped serving `days` days ago or earlier.
pub async fn drop_previous(database: &Database, lane: &str, days: i32) -> Result<Option<i32>, DbError> {
    const ACTION: &str = "dropping a lane's previous version";
    // The row stays locked, so that no rebuild puts another previous version into the schema that goes.
    const OLD: &str = "SELECT previous_version FROM lane_versions \
         WHERE lane = $1 AND previous_version IS NOT NULL AND previous_at <= now() - make_interval(days => $2) FOR UPDATE";
    const FORGET: &str = "UPDATE lane_versions SET previous_version = NULL, previous_fingerprint = NULL, previous_stand = NULL, \
         previous_at = NULL WHERE lane = $1";
    let mut client = database.get().await?;
    let transaction = client.transaction().await.during(ACTION)?;
    let Some(row) = transaction.query_opt(OLD, &[&lane, &days]).await.during(ACTION)? else { return Ok(None) };
    let version: i32 = row.try_get(0).during(ACTION)?;
    transaction.execute(FORGET, &[&lane]).await.during(ACTION)?;
    let sql = format!("DROP SCHEMA IF EXISTS {} CASCADE", previous_schema(lane));
    transaction.batch_execute(&sql).await.during(ACTION)?;
    transaction.commit().await.during(ACTION)?;
    Ok(Some(version))
}
