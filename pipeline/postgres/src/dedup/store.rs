//! The index in Postgres: its head, spans of the log, verdicts, and the blocks of runs.

use std::collections::HashMap;

use bytes::{Buf, BufMut, BytesMut};
use deadpool_postgres::Transaction;
use tokio_postgres::GenericClient;
use tokio_postgres::types::ToSql;
use weir_engine::Partition;

use super::candidate::Candidate;
use super::part::{ACTION, Part};
use crate::error::{DbError, During};
use crate::ledger::{columns, partition_of};

/// Entries of a block: with a row's head it is below the two kilobytes from which Postgres would store it elsewhere.
pub(super) const BLOCK_ENTRIES: usize = 80;

/// A fingerprint and a number.
pub(super) const ENTRY_BYTES: usize = 24;

/// A counted event: its fingerprint, and its number in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) fingerprint: u128,
    pub(super) number: i64,
}

/// A stretch of a partition that is in the index; its records are numbered from `number` on.
#[derive(Debug, Clone)]
pub(super) struct Stretch {
    pub(super) number: i64,
    pub(super) partition: Partition,
    pub(super) start: i64,
    pub(super) end: i64,
    /// `false` for a single record that was redriven: what lies around it was in the index before.
    pub(super) covers: bool,
}

/// The row that everyone who indexes locks.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) key: Vec<u8>,
    /// The number of the next record.
    pub(super) next_number: i64,
    /// Another one when the set of runs changes.
    pub(super) generation: i64,
}

/// A run without its blocks.
#[derive(Debug, Clone)]
pub(super) struct RunRow {
    pub(super) run: i64,
    pub(super) level: i32,
    pub(super) entries: i64,
    /// Its highest number.
    pub(super) newest: i64,
}

/// Until the transaction ends no one else indexes.
pub(super) async fn lock(transaction: &Transaction<'_>) -> Result<Head, DbError> {
    const SQL: &str = "SELECT key, next_number, generation FROM dedup FOR UPDATE";
    let statement = transaction.prepare_cached(SQL).await.during(ACTION)?;
    let row = transaction.query_one(&statement, &[]).await.during(ACTION)?;
    Ok(Head {
        key: row.try_get(0).during(ACTION)?,
        next_number: row.try_get(1).during(ACTION)?,
        generation: row.try_get(2).during(ACTION)?,
    })
}

pub(super) async fn advance(transaction: &Transaction<'_>, number: i64, generation: i64) -> Result<(), DbError> {
    const SQL: &str = "UPDATE dedup SET next_number = $1, generation = $2";
    let statement = transaction.prepare_cached(SQL).await.during(ACTION)?;
    transaction.execute(&statement, &[&number, &generation]).await.during(ACTION)?;
    Ok(())
}

/// What of these parts, each from its own beginning on, is in the index, in order.
pub(super) async fn covered(
    transaction: &Transaction<'_>,
    parts: &[Part<'_>],
    begins: &[i64],
) -> Result<HashMap<Partition, Vec<(i64, i64)>>, DbError> {
    // Stretches do not overlap, so of those that begin before a part only the last may reach into it.
    const SQL: &str = "SELECT p.source, p.topic, p.partition, s.start_offset, s.end_offset FROM \
         unnest($1::text[], $2::text[], $3::int[], $4::bigint[], $5::bigint[]) AS p(source, topic, partition, start, stop) \
         CROSS JOIN LATERAL ( \
           (SELECT start_offset, end_offset FROM dedup_spans d WHERE covers AND d.source = p.source AND d.topic = p.topic \
              AND d.partition = p.partition AND d.start_offset <= p.start ORDER BY d.start_offset DESC LIMIT 1) \
           UNION ALL SELECT start_offset, end_offset FROM dedup_spans d WHERE covers AND d.source = p.source AND d.topic = p.topic \
              AND d.partition = p.partition AND d.start_offset > p.start AND d.start_offset < p.stop) s \
         WHERE s.end_offset > p.start ORDER BY s.start_offset";
    let (sources, topics, numbers) = columns(parts.iter().map(|part| &part.partition));
    let ends: Vec<i64> = parts.iter().map(|part| part.end).collect();
    let values: [&(dyn ToSql + Sync); 5] = [&sources, &topics, &numbers, &begins, &ends];
    let statement = transaction.prepare_cached(SQL).await.during(ACTION)?;
    let mut covered: HashMap<Partition, Vec<(i64, i64)>> = HashMap::new();
    for row in transaction.query(&statement, &values).await.during(ACTION)? {
        let stretch = (row.try_get(3).during(ACTION)?, row.try_get(4).during(ACTION)?);
        covered.entry(partition_of(&row)?).or_default().push(stretch);
    }
    Ok(covered)
}

pub(super) async fn insert_stretches(transaction: &Transaction<'_>, stretches: &[Stretch]) -> Result<(), DbError> {
    const SQL: &str = "INSERT INTO dedup_spans (number, source, topic, partition, start_offset, end_offset, covers) \
         SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::int[], $5::bigint[], $6::bigint[], $7::boolean[])";
    if stretches.is_empty() {
        return Ok(());
    }
    let (sources, topics, partitions) = columns(stretches.iter().map(|stretch| &stretch.partition));
    let numbers: Vec<i64> = stretches.iter().map(|stretch| stretch.number).collect();
    let starts: Vec<i64> = stretches.iter().map(|stretch| stretch.start).collect();
    let ends: Vec<i64> = stretches.iter().map(|stretch| stretch.end).collect();
    let covers: Vec<bool> = stretches.iter().map(|stretch| stretch.covers).collect();
    let values: [&(dyn ToSql + Sync); 7] = [&numbers, &sources, &topics, &partitions, &starts, &ends, &covers];
    let statement = transaction.prepare_cached(SQL).await.during(ACTION)?;
    transaction.execute(&statement, &values).await.during(ACTION)?;
    Ok(())
}

/// Where a record is that was numbered within the window; `None` when that is forgotten.
pub(super) async fn place_of(client: &impl GenericClient, number: i64) -> Result<Option<(Partition, i64)>, DbError> {
    const SQL: &str = "SELECT source, topic, partition, start_offset + $1 - number FROM dedup_spans \
         WHERE number = (SELECT max(number) FROM dedup_spans WHERE number <= $1) AND start_offset + $1 - number < end_offset";
    let Some(row) = client.query_opt(SQL, &[&number]).await.during(ACTION)? else { return Ok(None) };
    Ok(Some((partition_of(&row)?, row.try_get(3).during(ACTION)?)))
}

/// Keeps verdicts of a lane, or of all of them by the name '': the record, its number, and the number of the one that was counted, whose
/// place is kept too. To be called once the stretches are there.
pub(super) async fn insert_repeats(
    transaction: &Transaction<'_>,
    lane: &str,
    repeats: &[(&Candidate<'_>, i64, i64)],
) -> Result<(), DbError> {
    const SQL: &str = "INSERT INTO repeats (lane, source, topic, partition, \"offset\", tenant, event_id, number, first_number, \
           first_source, first_topic, first_partition, first_offset) \
         SELECT $9, r.source, r.topic, r.partition, r.place, r.tenant, r.event_id, r.number, r.first, \
           s.source, s.topic, s.partition, s.start_offset + r.first - s.number \
         FROM unnest($1::text[], $2::text[], $3::int[], $4::bigint[], $5::text[], $6::text[], $7::bigint[], $8::bigint[]) \
           AS r(source, topic, partition, place, tenant, event_id, number, first) \
         LEFT JOIN LATERAL (SELECT * FROM dedup_spans d WHERE d.number <= r.first ORDER BY d.number DESC LIMIT 1) s ON true \
         ON CONFLICT (lane, source, topic, partition, \"offset\") DO NOTHING";
    if repeats.is_empty() {
        return Ok(());
    }
    let (sources, topics, partitions) = columns(repeats.iter().map(|(candidate, ..)| &candidate.record.partition));
    let offsets: Vec<i64> = repeats.iter().map(|(candidate, ..)| candidate.record.offset).collect();
    let tenants: Vec<&str> = repeats.iter().map(|(candidate, ..)| candidate.tenant).collect();
    let ids: Vec<&str> = repeats.iter().map(|(candidate, ..)| candidate.event_id).collect();
    let numbers: Vec<i64> = repeats.iter().map(|(_, number, _)| *number).collect();
    let firsts: Vec<i64> = repeats.iter().map(|(.., first)| *first).collect();
    let values: [&(dyn ToSql + Sync); 9] =
        [&sources, &topics, &partitions, &offsets, &tenants, &ids, &numbers, &firsts, &lane];
    let statement = transaction.prepare_cached(SQL).await.during(ACTION)?;
    transaction.execute(&statement, &values).await.during(ACTION)?;
    Ok(())
}

/// The verdicts about records of these parts.
pub(super) async fn repeats_in(
    transaction: &Transaction<'_>,
    parts: &[Part<'_>],
) -> Result<HashMap<Partition, Vec<i64>>, DbError> {
    const SQL: &str = "SELECT r.source, r.topic, r.partition, r.\"offset\" FROM \
         unnest($1::text[], $2::text[], $3::int[], $4::bigint[], $5::bigint[]) AS p(source, topic, partition, start, stop) \
         JOIN repeats r ON r.lane = '' AND r.source = p.source AND r.topic = p.topic AND r.partition = p.partition \
           AND r.\"offset\" >= p.start AND r.\"offset\" < p.stop";
    let (sources, topics, numbers) = columns(parts.iter().map(|part| &part.partition));
    let starts: Vec<i64> = parts.iter().map(|part| part.start).collect();
    let ends: Vec<i64> = parts.iter().map(|part| part.end).collect();
    let values: [&(dyn ToSql + Sync); 5] = [&sources, &topics, &numbers, &starts, &ends];
    let statement = transaction.prepare_cached(SQL).await.during(ACTION)?;
    let mut repeats: HashMap<Partition, Vec<i64>> = HashMap::new();
    for row in transaction.query(&statement, &values).await.during(ACTION)? {
        repeats.entry(partition_of(&row)?).or_default().push(row.try_get(3).during(ACTION)?);
    }
    Ok(repeats)
}

/// The runs that there are.
pub(super) async fn runs(client: &impl GenericClient) -> Result<Vec<RunRow>, DbError> {
    const SQL: &str = "SELECT run, level, entries, newest FROM dedup_runs ORDER BY run";
    let mut runs = Vec::new();
    for row in client.query(SQL, &[]).await.during(ACTION)? {
        runs.push(RunRow {
            run: row.try_get(0).during(ACTION)?,
            level: row.try_get(1).during(ACTION)?,
            entries: row.try_get(2).during(ACTION)?,
            newest: row.try_get(3).during(ACTION)?,
        });
    }
    Ok(runs)
}

/// Where each block of a run begins, and its filter, as [`super::runs`] writes them.
pub(super) async fn filter_of(client: &impl GenericClient, run: i64) -> Result<Option<(Vec<u8>, Vec<u8>)>, DbError> {
    const SQL: &str = "SELECT fences, filter FROM dedup_runs WHERE run = $1 AND filter IS NOT NULL";
    let row = client.query_opt(SQL, &[&run]).await.during(ACTION)?;
    row.map(|row| Ok((row.try_get(0).during(ACTION)?, row.try_get(1).during(ACTION)?))).transpose()
}

pub(super) async fn keep_filter(
    client: &impl GenericClient,
    run: i64,
    fences: &[u8],
    filter: &[u8],
) -> Result<(), DbError> {
    const SQL: &str = "UPDATE dedup_runs SET fences = $2, filter = $3 WHERE run = $1";
    client.execute(SQL, &[&run, &fences, &filter]).await.during(ACTION)?;
    Ok(())
}

/// The number of a run that is to be written, or of a new set of runs. Drawn, so that none comes twice where Postgres fails over to an older
/// copy, which a process with the newer one in memory would not see.
pub(super) fn draw() -> i64 {
    rand::random::<i64>() & i64::MAX
}

/// Writes blocks of a run, from a number on, out of entries in order.
pub(super) async fn insert_blocks(
    client: &impl GenericClient,
    run: i64,
    first: i32,
    entries: &[Entry],
) -> Result<(), DbError> {
    const SQL: &str = "INSERT INTO dedup_blocks (run, block, entries) \
         SELECT $1, $2 + n - 1, entries FROM unnest($3::bytea[]) WITH ORDINALITY AS b(entries, n)";
    let blocks: Vec<Vec<u8>> = entries.chunks(BLOCK_ENTRIES).map(encode).collect();
    client.execute(SQL, &[&run, &i64::from(first), &blocks]).await.during(ACTION)?;
    Ok(())
}

pub(super) async fn insert_run(client: &impl GenericClient, run: &RunRow) -> Result<(), DbError> {
    const SQL: &str = "INSERT INTO dedup_runs (run, level, entries, newest) VALUES ($1, $2, $3, $4)";
    client.execute(SQL, &[&run.run, &run.level, &run.entries, &run.newest]).await.during(ACTION)?;
    Ok(())
}

/// Lets go of runs. Their blocks are left for [`sweep`], beside the lanes.
pub(super) async fn delete_runs(client: &impl GenericClient, runs: &[i64]) -> Result<(), DbError> {
    client.execute("DELETE FROM dedup_runs WHERE run = ANY($1)", &[&runs]).await.during(ACTION)?;
    Ok(())
}

/// Lets go of the blocks of these runs.
pub(super) async fn delete_blocks(client: &impl GenericClient, runs: &[i64]) -> Result<(), DbError> {
    client.execute("DELETE FROM dedup_blocks WHERE run = ANY($1)", &[&runs]).await.during(ACTION)?;
    Ok(())
}

/// Lets go of blocks of runs that are not there: merged ones, and those whose writer died. For who merges alone: blocks of a merge under way
/// are of such a run. Runs are looked up one after the other in the index of blocks, which may be millions.
pub(super) async fn sweep(client: &impl GenericClient) -> Result<(), DbError> {
    const SQL: &str = "WITH RECURSIVE written(run) AS (SELECT min(run) FROM dedup_blocks UNION ALL \
           SELECT (SELECT min(run) FROM dedup_blocks WHERE run > written.run) FROM written WHERE written.run IS NOT NULL) \
         DELETE FROM dedup_blocks WHERE run = ANY(ARRAY(SELECT run FROM written WHERE run IS NOT NULL EXCEPT SELECT run FROM dedup_runs))";
    client.execute(SQL, &[]).await.during(ACTION)?;
    Ok(())
}

/// These blocks, by run and number.
pub(super) async fn blocks(
    transaction: &Transaction<'_>,
    wanted: &[(i64, i32)],
) -> Result<HashMap<(i64, i32), Vec<Entry>>, DbError> {
    const SQL: &str = "SELECT b.run, b.block, b.entries FROM unnest($1::bigint[], $2::int[]) AS w(run, block) \
         JOIN dedup_blocks b USING (run, block)";
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let (runs, numbers): (Vec<i64>, Vec<i32>) = wanted.iter().copied().unzip();
    let statement = transaction.prepare_cached(SQL).await.during(ACTION)?;
    let mut found = HashMap::new();
    for row in transaction.query(&statement, &[&runs, &numbers]).await.during(ACTION)? {
        let place = (row.try_get(0).during(ACTION)?, row.try_get(1).during(ACTION)?);
        found.insert(place, decode(row.try_get(2).during(ACTION)?));
    }
    Ok(found)
}

/// Some blocks of a run from one on, in order.
pub(super) async fn blocks_from(
    client: &impl GenericClient,
    run: i64,
    first: i32,
    blocks_max: i64,
) -> Result<Vec<Vec<Entry>>, DbError> {
    const SQL: &str = "SELECT entries FROM dedup_blocks WHERE run = $1 AND block >= $2 ORDER BY block LIMIT $3";
    let rows = client.query(SQL, &[&run, &first, &blocks_max]).await.during(ACTION)?;
    rows.iter().map(|row| Ok(decode(row.try_get(0).during(ACTION)?))).collect()
}

fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = BytesMut::with_capacity(entries.len() * ENTRY_BYTES);
    for entry in entries {
        bytes.put_u128(entry.fingerprint);
        bytes.put_i64(entry.number);
    }
    bytes.into()
}

fn decode(mut bytes: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::with_capacity(bytes.len() / ENTRY_BYTES);
    while bytes.remaining() >= ENTRY_BYTES {
        entries.push(Entry { fingerprint: bytes.get_u128(), number: bytes.get_i64() });
    }
    entries
}
