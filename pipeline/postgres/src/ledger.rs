//! Progress per lane and partition, with fencing. Every commit of every sink goes through [`Ledger::advance`].

use std::collections::HashMap;

use jiff::Timestamp as JiffTimestamp;
use tokio_postgres::types::ToSql;
use tokio_postgres::{GenericClient, Row};
use weir_engine::{Claim, Partition, SinkError, Span};

use crate::database::Database;
use crate::error::{DbError, During};

const ACTION: &str = "advancing the ledger";

/// One lane's side of the ledger: its name, and the epochs that it claimed.
pub struct Ledger {
    lane: String,
    owner: String,
    epochs: HashMap<Partition, i64>,
}

/// What a compare-and-set found.
#[derive(Debug, PartialEq, Eq)]
pub enum Advance {
    /// The spans are ours and advance with this transaction.
    Now,
    /// An earlier try of this very batch had committed, only its reply was lost.
    Earlier,
}

/// A row of the ledger, for people.
#[derive(Debug, Clone)]
pub struct LedgerRow {
    /// Which lane.
    pub lane: String,
    /// Of which partition.
    pub partition: Partition,
    /// The next offset to apply; `None` before the first commit.
    pub next_offset: Option<i64>,
    /// The owner's epoch.
    pub epoch: i64,
    /// The process that claimed last.
    pub owner: String,
    /// When that was.
    pub claimed_at: JiffTimestamp,
    /// When it last moved.
    pub advanced_at: JiffTimestamp,
}

impl LedgerRow {
    fn from_row(row: &Row) -> Result<Self, DbError> {
        const ACTION: &str = "reading the ledger";
        let source: &str = row.try_get("source").during(ACTION)?;
        let topic: &str = row.try_get("topic").during(ACTION)?;
        Ok(Self {
            lane: row.try_get("lane").during(ACTION)?,
            partition: Partition {
                source: source.into(),
                topic: topic.into(),
                number: row.try_get("partition").during(ACTION)?,
            },
            next_offset: row.try_get("next_offset").during(ACTION)?,
            epoch: row.try_get("epoch").during(ACTION)?,
            owner: row.try_get("owner").during(ACTION)?,
            claimed_at: row.try_get("claimed_at").during(ACTION)?,
            advanced_at: row.try_get("advanced_at").during(ACTION)?,
        })
    }
}

impl Ledger {
    /// For one lane of one process.
    #[must_use]
    pub fn new(lane: impl Into<String>, owner: impl Into<String>) -> Self {
        Self { lane: lane.into(), owner: owner.into(), epochs: HashMap::new() }
    }

    /// The lane.
    #[must_use]
    pub fn lane(&self) -> &str {
        &self.lane
    }

    /// Our epoch of a partition, once claimed.
    #[must_use]
    pub fn epoch(&self, partition: &Partition) -> Option<i64> {
        self.epochs.get(partition).copied()
    }

    /// Raises the epochs: from here on every older owner's commit is refused.
    pub async fn claim(&mut self, database: &Database, partitions: &[Partition]) -> Result<Vec<Claim>, DbError> {
        const ACTION: &str = "claiming partitions";
        const SQL: &str = "INSERT INTO ledger (lane, source, topic, partition, epoch, owner) VALUES ($1, $2, $3, $4, 1, $5) \
             ON CONFLICT (lane, source, topic, partition) DO UPDATE \
             SET epoch = ledger.epoch + 1, owner = excluded.owner, claimed_at = now() RETURNING epoch, next_offset";
        let client = database.get().await?;
        let mut claims = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let values: [&(dyn ToSql + Sync); 5] =
                [&self.lane, &&*partition.source, &&*partition.topic, &partition.number, &self.owner];
            let row = client.query_one(SQL, &values).await.during(ACTION)?;
            let (epoch, next_offset) = (row.try_get(0).during(ACTION)?, row.try_get(1).during(ACTION)?);
            self.epochs.insert(partition.clone(), epoch);
            claims.push(Claim { partition: partition.clone(), epoch, next_offset });
        }
        Ok(claims)
    }

    /// Moves the spans within the caller's transaction, if they are still ours and start where the ledger stands.
    pub async fn advance(&self, client: &impl GenericClient, spans: &[Span]) -> Result<Advance, SinkError> {
        const SQL: &str = "UPDATE ledger l SET next_offset = s.stop, advanced_at = now() \
             FROM unnest($2::text[], $3::text[], $4::int[], $5::bigint[], $6::bigint[], $7::bigint[]) \
                  AS s(source, topic, partition, epoch, start, stop) \
             WHERE l.lane = $1 AND l.source = s.source AND l.topic = s.topic AND l.partition = s.partition \
               AND l.epoch = s.epoch AND coalesce(l.next_offset, s.start) = s.start";
        let sources: Vec<&str> = spans.iter().map(|s| &*s.partition.source).collect();
        let topics: Vec<&str> = spans.iter().map(|s| &*s.partition.topic).collect();
        let numbers: Vec<i32> = spans.iter().map(|s| s.partition.number).collect();
        // Never claimed: epochs start at 1, so 0 matches no row.
        let epochs: Vec<i64> = spans.iter().map(|s| self.epoch(&s.partition).unwrap_or(0)).collect();
        let starts: Vec<i64> = spans.iter().map(|s| s.start).collect();
        let ends: Vec<i64> = spans.iter().map(|s| s.end).collect();
        let values: [&(dyn ToSql + Sync); 7] = [&self.lane, &sources, &topics, &numbers, &epochs, &starts, &ends];
        let moved = client.execute(SQL, &values).await.during(ACTION)?;
        if usize::try_from(moved).ok() == Some(spans.len()) {
            return Ok(Advance::Now);
        }
        // A batch commits as a whole, so a lost reply leaves nothing to move; a part that moved means a part that is fenced.
        if moved == 0 && self.committed_earlier(client, spans).await? {
            return Ok(Advance::Earlier);
        }
        Err(SinkError::Fenced { partitions: spans.iter().map(|s| s.partition.clone()).collect() })
    }

    async fn committed_earlier(&self, client: &impl GenericClient, spans: &[Span]) -> Result<bool, DbError> {
        for span in spans {
            let row = self.row(client, &span.partition).await?;
            let ours =
                row.is_some_and(|r| Some(r.epoch) == self.epoch(&span.partition) && r.next_offset == Some(span.end));
            if !ours {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn row(&self, client: &impl GenericClient, partition: &Partition) -> Result<Option<LedgerRow>, DbError> {
        const SQL: &str = "SELECT * FROM ledger WHERE lane = $1 AND source = $2 AND topic = $3 AND partition = $4";
        let values: [&(dyn ToSql + Sync); 4] = [&self.lane, &&*partition.source, &&*partition.topic, &partition.number];
        let row = client.query_opt(SQL, &values).await.during("reading the ledger")?;
        row.as_ref().map(LedgerRow::from_row).transpose()
    }

    /// Locks our row of a partition until the transaction ends; refuses when it is no longer ours.
    pub async fn hold(&self, client: &impl GenericClient, partition: &Partition) -> Result<(), SinkError> {
        const SQL: &str = "SELECT epoch FROM ledger WHERE lane = $1 AND source = $2 AND topic = $3 AND partition = $4 \
             FOR UPDATE";
        let values: [&(dyn ToSql + Sync); 4] = [&self.lane, &&*partition.source, &&*partition.topic, &partition.number];
        let row = client.query_opt(SQL, &values).await.during("holding the ledger")?;
        let epoch: Option<i64> = row.map(|r| r.try_get(0)).transpose().during("holding the ledger")?;
        if epoch.is_some() && epoch == self.epoch(partition) {
            return Ok(());
        }
        Err(SinkError::Fenced { partitions: vec![partition.clone()] })
    }

    /// Every row there is, by lane.
    pub async fn rows(client: &impl GenericClient) -> Result<Vec<LedgerRow>, DbError> {
        const SQL: &str = "SELECT * FROM ledger ORDER BY lane, topic, partition, source";
        let rows = client.query(SQL, &[]).await.during("reading the ledger")?;
        rows.iter().map(LedgerRow::from_row).collect()
    }
}
