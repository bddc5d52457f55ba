//! Progress per lane and partition, with fencing. Every commit of every sink goes through [`Ledger::advance`].

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp as JiffTimestamp;
use tokio_postgres::types::ToSql;
use tokio_postgres::{GenericClient, Row};
use weir_engine::{Claim, Partition, SinkError, Span};
use weir_model::Position;

use crate::database::Database;
use crate::error::{DbError, During, ErrorKind};
use crate::source::EVENT_STORE_TOPIC;

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
    /// Where the lane keeps rollups beside its rows: everything below is counted in them.
    pub rolled_up: Option<i64>,
    /// The highest position in the event store that it has of this partition.
    pub position: Option<Position>,
    /// The owner's epoch.
    pub epoch: i64,
    /// The process that claimed last.
    pub owner: String,
    /// When that was.
    pub claimed_at: JiffTimestamp,
    /// When it last moved.
    pub advanced_at: JiffTimestamp,
    /// Since when the lane has been done with this source.
    pub retired_at: Option<JiffTimestamp>,
}

impl LedgerRow {
    /// Below this everything is in the sink, and counted.
    #[must_use]
    pub fn done_below(&self) -> Option<i64> {
        self.next_offset.map(|next| self.rolled_up.map_or(next, |rolled_up| rolled_up.min(next)))
    }

    fn from_row(row: &Row) -> Result<Self, DbError> {
        const ACTION: &str = "reading the ledger";
        Ok(Self {
            lane: row.try_get("lane").during(ACTION)?,
            partition: partition_of(row)?,
            next_offset: row.try_get("next_offset").during(ACTION)?,
            rolled_up: row.try_get("rolled_up").during(ACTION)?,
            position: row.try_get::<_, Option<i64>>("position").during(ACTION)?.map(Position),
            epoch: row.try_get("epoch").during(ACTION)?,
            owner: row.try_get("owner").during(ACTION)?,
            claimed_at: row.try_get("claimed_at").during(ACTION)?,
            advanced_at: row.try_get("advanced_at").during(ACTION)?,
            retired_at: row.try_get("retired_at").during(ACTION)?,
        })
    }
}

/// What the ledger has done with is not read again.
fn retired(partition: &Partition) -> Claim {
    let reason = format!(
        "{partition}: the ledger has done with it: this lane reads these events another way since `weir source switch` (set \
         kafka.brokers), or the topic was made again"
    );
    Claim { partition: partition.clone(), epoch: 0, next_offset: None, refused: Some(reason) }
}

/// Partitions as columns: source, topic, number.
pub(crate) fn columns<'a>(partitions: impl Iterator<Item = &'a Partition>) -> (Vec<&'a str>, Vec<&'a str>, Vec<i32>) {
    let (mut sources, mut topics, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
    for partition in partitions {
        sources.push(&*partition.source);
        topics.push(&*partition.topic);
        numbers.push(partition.number);
    }
    (sources, topics, numbers)
}

pub(crate) fn partition_of(row: &Row) -> Result<Partition, DbError> {
    const ACTION: &str = "reading the ledger";
    let (source, topic): (&str, &str) = (row.try_get("source").during(ACTION)?, row.try_get("topic").during(ACTION)?);
    Ok(Partition { source: source.into(), topic: topic.into(), number: row.try_get("partition").during(ACTION)? })
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

    /// Raises the epochs: from here on every older owner's commit is refused. A partition whose topic was deleted and made
    /// again is another partition, and is refused until someone decides where the lane goes on.
    pub async fn claim(&mut self, database: &Database, partitions: &[Partition]) -> Result<Vec<Claim>, DbError> {
        const ACTION: &str = "claiming partitions";
        // In one order everywhere, so that two owners who claim at once do not wait for each other in a circle.
        const SQL: &str = "INSERT INTO ledger (lane, source, topic, partition, epoch, owner) \
             SELECT $1, source, topic, partition, 1, $5 FROM unnest($2::text[], $3::text[], $4::int[]) AS p(source, topic, partition) \
             ORDER BY source, topic, partition ON CONFLICT (lane, source, topic, partition) DO UPDATE \
             SET epoch = ledger.epoch + 1, owner = excluded.owner, claimed_at = now() WHERE ledger.retired_at IS NULL \
             RETURNING source, topic, partition, epoch, next_offset";
        let client = database.get().await?;
        let mut claims = self.refusals(&**client, partitions).await?;
        let refused = |p: &&Partition| claims.iter().any(|claim: &Claim| claim.partition == **p);
        let free: Vec<&Partition> = partitions.iter().filter(|p| !refused(p)).collect();
        let (sources, topics, numbers) = columns(free.iter().copied());
        let values: [&(dyn ToSql + Sync); 5] = [&self.lane, &sources, &topics, &numbers, &self.owner];
        for row in client.query(SQL, &values).await.during(ACTION)? {
            let (epoch, next_offset) = (row.try_get(3).during(ACTION)?, row.try_get(4).during(ACTION)?);
            let found = partition_of(&row)?;
            let Some(partition) = free.iter().find(|partition| ***partition == found) else { continue };
            self.epochs.insert((*partition).clone(), epoch);
            claims.push(Claim { partition: (*partition).clone(), epoch, next_offset, refused: None });
        }
        let is_told = |p: &&&Partition| claims.iter().any(|claim| claim.partition == ***p);
        let retired: Vec<Claim> = free.iter().filter(|p| !is_told(p)).map(|p| retired(p)).collect();
        claims.extend(retired);
        Ok(claims)
    }

    /// Keeps where partitions of topics begin, as long as they are ours and nothing was committed for them. The event store
    /// begins where it always does.
    pub async fn begin(&self, database: &Database, positions: &[(Partition, i64)]) -> Result<(), DbError> {
        const SQL: &str = "WITH begun AS (UPDATE ledger l SET next_offset = s.start FROM \
               unnest($2::text[], $3::text[], $4::int[], $5::bigint[], $6::bigint[]) AS s(source, topic, partition, epoch, start) \
               WHERE l.lane = $1 AND l.source = s.source AND l.topic = s.topic AND l.partition = s.partition \
                 AND l.epoch = s.epoch AND l.next_offset IS NULL RETURNING l.source, l.topic, l.partition, s.start) \
             INSERT INTO lane_skips (lane, source, topic, partition, from_offset, to_offset) \
             SELECT $1, source, topic, partition, 0, start FROM begun WHERE start > 0 ON CONFLICT DO NOTHING";
        let of_topics: Vec<_> = positions.iter().filter(|(p, _)| *p.topic != *EVENT_STORE_TOPIC).collect();
        if of_topics.is_empty() {
            return Ok(());
        }
        let (sources, topics, numbers) = columns(of_topics.iter().map(|(partition, _)| partition));
        let epochs: Vec<i64> = of_topics.iter().map(|(p, _)| self.epoch(p).unwrap_or(0)).collect();
        let starts: Vec<i64> = of_topics.iter().map(|(_, start)| *start).collect();
        let values: [&(dyn ToSql + Sync); 6] = [&self.lane, &sources, &topics, &numbers, &epochs, &starts];
        database.get().await?.execute(SQL, &values).await.during("keeping where partitions begin")?;
        Ok(())
    }

    /// Partitions that stand in the ledger under another source, which this lane has not done with: a topic that was deleted
    /// and made again, or events that come another way too.
    async fn refusals(&self, client: &impl GenericClient, partitions: &[Partition]) -> Result<Vec<Claim>, DbError> {
        const ACTION: &str = "claiming partitions";
        const SQL: &str = "SELECT p.source, p.topic, p.partition, l.source, l.topic FROM \
             unnest($2::text[], $3::text[], $4::int[]) AS p(source, topic, partition) \
             JOIN ledger l ON l.lane = $1 AND l.retired_at IS NULL AND l.source <> p.source \
              AND ((l.topic = p.topic AND l.partition = p.partition) OR l.topic = $5 OR p.topic = $5)";
        let (sources, topics, numbers) = columns(partitions.iter());
        let values: [&(dyn ToSql + Sync); 5] = [&self.lane, &sources, &topics, &numbers, &EVENT_STORE_TOPIC];
        let mut claims: Vec<Claim> = Vec::new();
        for row in client.query(SQL, &values).await.during(ACTION)? {
            let partition = partition_of(&row)?;
            let (other, topic): (&str, &str) = (row.try_get(3).during(ACTION)?, row.try_get(4).during(ACTION)?);
            if claims.iter().any(|claim| claim.partition == partition) {
                continue;
            }
            let reason = if topic == EVENT_STORE_TOPIC || *partition.topic == *EVENT_STORE_TOPIC {
                format!(
                    "{partition}: this lane reads the same events from {topic} ({other}) as well, and would apply each twice; \
                     `weir source switch kafka` moves it over"
                )
            } else {
                format!(
                    "{partition}: the topic was deleted and made again: the ledger knows it as {other}, and it is {} now. Decide \
                     with `weir ledger reset {} --topic {} --partition {} --to earliest|latest|OFFSET --yes`",
                    partition.source, self.lane, partition.topic, partition.number
                )
            };
            claims.push(Claim { partition, epoch: 0, next_offset: None, refused: Some(reason) });
        }
        Ok(claims)
    }

    /// Moves the spans within the caller's transaction, if they are still ours and start where the ledger stands. If not all
    /// of them, none may stay moved: the error names those that are not ours, and the caller rolls back.
    pub async fn advance(&self, client: &impl GenericClient, spans: &[Span]) -> Result<Advance, SinkError> {
        self.advance_with(client, spans, None).await
    }

    /// [`Self::advance`] of a lane with rollups: whether they count everything below the spans' ends, or stay where they are.
    pub(crate) async fn advance_with(
        &self,
        client: &impl GenericClient,
        spans: &[Span],
        are_counted: Option<bool>,
    ) -> Result<Advance, SinkError> {
        const SQL: &str = "UPDATE ledger l SET next_offset = s.stop, advanced_at = now(), position = greatest(l.position, s.position), \
               rolled_up = CASE WHEN $9 THEN s.stop WHEN NOT $9 THEN coalesce(l.rolled_up, s.start) ELSE l.rolled_up END \
             FROM unnest($2::text[], $3::text[], $4::int[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[]) \
                  AS s(source, topic, partition, epoch, start, stop, position) \
             WHERE l.lane = $1 AND l.source = s.source AND l.topic = s.topic AND l.partition = s.partition \
               AND l.epoch = s.epoch AND coalesce(l.next_offset, s.start) = s.start AND l.retired_at IS NULL \
             RETURNING l.source, l.topic, l.partition";
        let (sources, topics, numbers) = columns(spans.iter().map(|span| &span.partition));
        // Never claimed: epochs start at 1, so 0 matches no row.
        let epochs: Vec<i64> = spans.iter().map(|s| self.epoch(&s.partition).unwrap_or(0)).collect();
        let starts: Vec<i64> = spans.iter().map(|s| s.start).collect();
        let ends: Vec<i64> = spans.iter().map(|s| s.end).collect();
        let positions: Vec<Option<i64>> = spans.iter().map(|s| s.position.map(|position| position.0)).collect();
        let values: [&(dyn ToSql + Sync); 9] =
            [&self.lane, &sources, &topics, &numbers, &epochs, &starts, &ends, &positions, &are_counted];
        let rows = client.query(SQL, &values).await.during(ACTION)?;
        if rows.len() == spans.len() {
            return Ok(Advance::Now);
        }
        let moved = rows.iter().map(partition_of).collect::<Result<Vec<_>, _>>()?;
        let left: Vec<&Span> = spans.iter().filter(|span| !moved.contains(&span.partition)).collect();
        // A batch commits as a whole, so a lost reply leaves nothing to move; a part that moved means a part that is fenced.
        if moved.is_empty() && self.committed_earlier(client, spans).await? {
            return Ok(Advance::Earlier);
        }
        Err(SinkError::Fenced { partitions: left.into_iter().map(|span| span.partition.clone()).collect() })
    }

    /// Whether these spans are ours and begin where the ledger stands: asked before a sink outside Postgres takes a batch, which
    /// could not be taken back. A Postgres that failed over to an older copy knows our epoch, and another past. A batch that
    /// moved the ledger, and whose reply was lost, ends there.
    pub async fn expect(&self, client: &impl GenericClient, spans: &[Span]) -> Result<(), SinkError> {
        const SQL: &str = "SELECT l.source, l.topic, l.partition FROM ledger l \
             JOIN unnest($2::text[], $3::text[], $4::int[], $5::bigint[], $6::bigint[], $7::bigint[]) \
                  AS s(source, topic, partition, epoch, start, stop) \
               ON l.source = s.source AND l.topic = s.topic AND l.partition = s.partition AND l.epoch = s.epoch \
             WHERE l.lane = $1 AND l.retired_at IS NULL AND coalesce(l.next_offset, s.start) IN (s.start, s.stop)";
        let (sources, topics, numbers) = columns(spans.iter().map(|span| &span.partition));
        let epochs: Vec<i64> = spans.iter().map(|s| self.epoch(&s.partition).unwrap_or(0)).collect();
        let starts: Vec<i64> = spans.iter().map(|s| s.start).collect();
        let ends: Vec<i64> = spans.iter().map(|s| s.end).collect();
        let values: [&(dyn ToSql + Sync); 7] = [&self.lane, &sources, &topics, &numbers, &epochs, &starts, &ends];
        let rows = client.query(SQL, &values).await.during("asking where the ledger stands")?;
        let stand = rows.iter().map(partition_of).collect::<Result<Vec<_>, _>>()?;
        let lost: Vec<Partition> =
            spans.iter().map(|span| &span.partition).filter(|partition| !stand.contains(partition)).cloned().collect();
        if lost.is_empty() { Ok(()) } else { Err(SinkError::Fenced { partitions: lost }) }
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

    /// Locks our rows of partitions until the transaction ends; refuses when some are no longer ours.
    pub async fn hold(&self, client: &impl GenericClient, partitions: &[&Partition]) -> Result<(), SinkError> {
        const ACTION: &str = "holding the ledger";
        const SQL: &str = "SELECT l.source, l.topic, l.partition, l.epoch FROM ledger l \
             JOIN unnest($2::text[], $3::text[], $4::int[]) AS p(source, topic, partition) \
               ON l.source = p.source AND l.topic = p.topic AND l.partition = p.partition \
             WHERE l.lane = $1 ORDER BY l.source, l.topic, l.partition FOR UPDATE OF l";
        let (sources, topics, numbers) = columns(partitions.iter().copied());
        let values: [&(dyn ToSql + Sync); 4] = [&self.lane, &sources, &topics, &numbers];
        let mut ours = Vec::new();
        for row in client.query(SQL, &values).await.during(ACTION)? {
            let partition = partition_of(&row)?;
            let epoch: i64 = row.try_get(3).during(ACTION)?;
            if self.epoch(&partition) == Some(epoch) {
                ours.push(partition);
            }
        }
        let lost: Vec<Partition> = partitions.iter().filter(|p| !ours.contains(p)).map(|p| (*p).clone()).collect();
        if lost.is_empty() { Ok(()) } else { Err(SinkError::Fenced { partitions: lost }) }
    }

    /// What of our partitions is in the ledger and not in the rollups. Of one that never said how far those go they go as far.
    pub async fn not_rolled_up(
        &self,
        client: &impl GenericClient,
        partitions: &[Partition],
    ) -> Result<Vec<Span>, DbError> {
        const ACTION: &str = "asking how far rollups go";
        const OURS: &str = "UPDATE ledger l SET rolled_up = coalesce(l.rolled_up, l.next_offset) \
             FROM unnest($2::text[], $3::text[], $4::int[], $5::bigint[]) AS s(source, topic, partition, epoch) \
             WHERE l.lane = $1 AND l.source = s.source AND l.topic = s.topic AND l.partition = s.partition AND l.epoch = s.epoch \
             RETURNING l.source, l.topic, l.partition, l.rolled_up, l.next_offset";
        // What a crash left in a partition that nothing is read of any more is for any owner.
        const RETIRED: &str = "SELECT source, topic, partition, rolled_up, next_offset FROM ledger \
             WHERE lane = $1 AND retired_at IS NOT NULL AND rolled_up < next_offset";
        let (sources, topics, numbers) = columns(partitions.iter());
        let epochs: Vec<i64> = partitions.iter().map(|partition| self.epoch(partition).unwrap_or(0)).collect();
        let values: [&(dyn ToSql + Sync); 5] = [&self.lane, &sources, &topics, &numbers, &epochs];
        let mut rows = client.query(OURS, &values).await.during(ACTION)?;
        rows.extend(client.query(RETIRED, &[&self.lane]).await.during(ACTION)?);
        let mut open = Vec::new();
        for row in rows {
            let (start, end): (Option<i64>, Option<i64>) =
                (row.try_get(3).during(ACTION)?, row.try_get(4).during(ACTION)?);
            if let (Some(start), Some(end)) = (start, end)
                && start < end
            {
                open.push(Span { partition: partition_of(&row)?, start, end, position: None });
            }
        }
        Ok(open)
    }

    /// Says how far rollups go, in partitions that are ours still.
    pub async fn roll_up(&self, client: &impl GenericClient, ends: &BTreeMap<Partition, i64>) -> Result<(), DbError> {
        const SQL: &str = "UPDATE ledger l SET rolled_up = least(s.stop, l.next_offset) \
             FROM unnest($2::text[], $3::text[], $4::int[], $5::bigint[], $6::bigint[]) AS s(source, topic, partition, epoch, stop) \
             WHERE l.lane = $1 AND l.source = s.source AND l.topic = s.topic AND l.partition = s.partition \
               AND (l.epoch = s.epoch OR l.retired_at IS NOT NULL)";
        let (sources, topics, numbers) = columns(ends.keys());
        let epochs: Vec<i64> = ends.keys().map(|partition| self.epoch(partition).unwrap_or(0)).collect();
        let stops: Vec<i64> = ends.values().copied().collect();
        let values: [&(dyn ToSql + Sync); 6] = [&self.lane, &sources, &topics, &numbers, &epochs, &stops];
        client.execute(SQL, &values).await.during("saying how far rollups go")?;
        Ok(())
    }

    /// Decides where a lane goes on in a partition whose records it cannot have: forward past what was removed, or into a
    /// topic that was made again. Back only for a lane to which a record that comes again changes nothing (`idempotent`):
    /// elsewhere what was applied stays applied. Rows of the topic's earlier selves are retired. The owner at that time is
    /// fenced.
    pub async fn reset(
        database: &Database,
        lane: &str,
        partition: &Partition,
        to: i64,
        idempotent: bool,
    ) -> Result<(), DbError> {
        const ACTION: &str = "resetting the ledger";
        const RETIRE: &str = "UPDATE ledger SET retired_at = now(), epoch = epoch + 1 \
             WHERE lane = $1 AND topic = $3 AND partition = $4 AND source <> $2 AND retired_at IS NULL";
        const MOVE: &str = "INSERT INTO ledger (lane, source, topic, partition, next_offset, epoch, owner) \
             VALUES ($1, $2, $3, $4, $5, 1, 'reset') ON CONFLICT (lane, source, topic, partition) DO UPDATE \
             SET next_offset = excluded.next_offset, rolled_up = CASE WHEN ledger.rolled_up IS NOT NULL THEN least(ledger.rolled_up, excluded.next_offset) END, position = NULL, epoch = ledger.epoch + 1, owner = 'reset', advanced_at = now() \
             WHERE ledger.retired_at IS NULL AND ($6 OR coalesce(ledger.next_offset, excluded.next_offset) <= excluded.next_offset)";
        // What the lane passes over is no copy for it of what comes later (`dedup.rs`); what it comes to again is one.
        const SKIP: &str = "INSERT INTO lane_skips AS k (lane, source, topic, partition, from_offset, to_offset) \
             SELECT $1, $2, $3, $4, at, $5 FROM (SELECT coalesce((SELECT next_offset FROM ledger \
               WHERE lane = $1 AND source = $2 AND topic = $3 AND partition = $4 AND retired_at IS NULL), 0) AS at) l WHERE at < $5 \
             ON CONFLICT (lane, source, topic, partition, from_offset) DO UPDATE SET to_offset = greatest(k.to_offset, excluded.to_offset)";
        const UNSKIP: &str = "WITH gone AS (DELETE FROM lane_skips WHERE lane = $1 AND source = $2 AND topic = $3 AND partition = $4 \
               AND from_offset >= $5) \
             UPDATE lane_skips SET to_offset = $5 WHERE lane = $1 AND source = $2 AND topic = $3 AND partition = $4 \
               AND from_offset < $5 AND to_offset > $5";
        // What an earlier self of the topic had left.
        const SKIP_REST: &str = "INSERT INTO lane_skips (lane, source, topic, partition, from_offset, to_offset) \
             SELECT lane, source, topic, partition, coalesce(next_offset, 0), 9223372036854775807 FROM ledger \
             WHERE lane = $1 AND topic = $3 AND partition = $4 AND source <> $2 AND retired_at IS NULL ON CONFLICT DO NOTHING";
        let mut client = database.get().await?;
        let transaction = client.transaction().await.during(ACTION)?;
        let (source, topic): (&str, &str) = (&partition.source, &partition.topic);
        for sql in [SKIP, UNSKIP] {
            transaction.execute(sql, &[&lane, &source, &topic, &partition.number, &to]).await.during(ACTION)?;
        }
        transaction.execute(SKIP_REST, &[&lane, &source, &topic, &partition.number]).await.during(ACTION)?;
        transaction.execute(RETIRE, &[&lane, &source, &topic, &partition.number]).await.during(ACTION)?;
        let values: [&(dyn ToSql + Sync); 6] = [&lane, &source, &topic, &partition.number, &to, &idempotent];
        if transaction.execute(MOVE, &values).await.during(ACTION)? == 0 {
            let why =
                "the lane has applied what comes after that already: it goes forward only, or would apply it twice";
            return Err(DbError::new(ACTION, ErrorKind::Permanent, why));
        }
        transaction.commit().await.during(ACTION)
    }

    /// Raises the epochs of all of a lane's partitions: what its owners have under way is refused, and they claim again.
    pub async fn fence(database: &Database, lane: &str) -> Result<(), DbError> {
        const SQL: &str =
            "UPDATE ledger SET epoch = epoch + 1, owner = 'fenced' WHERE lane = $1 AND retired_at IS NULL";
        database.get().await?.execute(SQL, &[&lane]).await.during("fencing a lane")?;
        Ok(())
    }

    /// Stretches that a lane skipped, since it began behind them or was reset past them: from, and below.
    pub async fn skips(client: &impl GenericClient, lane: &str) -> Result<Vec<(Partition, i64, i64)>, DbError> {
        const ACTION: &str = "reading what a lane skipped";
        const SQL: &str = "SELECT source, topic, partition, from_offset, to_offset FROM lane_skips WHERE lane = $1";
        let rows = client.query(SQL, &[&lane]).await.during(ACTION)?;
        let skip = |row: &Row| Ok((partition_of(row)?, row.try_get(3).during(ACTION)?, row.try_get(4).during(ACTION)?));
        rows.iter().map(skip).collect()
    }

    /// How many records each lane skipped.
    pub async fn skipped(client: &impl GenericClient) -> Result<HashMap<String, i64>, DbError> {
        const ACTION: &str = "counting what lanes skipped";
        const SQL: &str = "SELECT lane, sum(to_offset - from_offset)::bigint FROM lane_skips GROUP BY lane";
        let rows = client.query(SQL, &[]).await.during(ACTION)?;
        rows.iter().map(|row| Ok((row.try_get(0).during(ACTION)?, row.try_get(1).during(ACTION)?))).collect()
    }

    /// Every row there is, by lane.
    pub async fn rows(client: &impl GenericClient) -> Result<Vec<LedgerRow>, DbError> {
        const SQL: &str = "SELECT * FROM ledger ORDER BY lane, topic, partition, source";
        let rows = client.query(SQL, &[]).await.during("reading the ledger")?;
        rows.iter().map(LedgerRow::from_row).collect()
    }
}
