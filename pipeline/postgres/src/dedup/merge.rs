//! Beside the lanes: runs of one level become one of the next, and what the window has passed is let go. Blocks are written first, and count
//! once the run is there; those that a crash leaves are swept the next time.

use deadpool_postgres::Object;
use tokio_postgres::GenericClient;

use super::part::ACTION;
use super::runs::{BLOCKS_AT_ONCE, LargeRun, bytes_of, many, take_block, to_merge};
use super::store::{self, BLOCK_ENTRIES, Entry, RunRow};
use crate::database::Database;
use crate::error::{DbError, During};
use crate::locks;

/// Spans joined or let go in one statement.
const SPANS_MAX: i64 = 10_000;

/// Does what is due, unless another process is at it.
pub(super) async fn run(database: &Database, window: i64) -> Result<(), DbError> {
    let mut client = database.get().await?;
    let (group, number) = locks::DEDUP_MERGE;
    let taken = client.query_one("SELECT pg_try_advisory_lock($1, $2)", &[&group, &number]).await.during(ACTION)?;
    if !taken.try_get::<_, bool>(0).during(ACTION)? {
        return Ok(());
    }
    let done = work(&mut client, window).await;
    let unlocked = client.execute("SELECT pg_advisory_unlock($1, $2)", &[&group, &number]).await.during(ACTION);
    if unlocked.is_err() {
        // The lock goes with the connection.
        drop(Object::take(client));
    }
    done
}

async fn work(client: &mut Object, window: i64) -> Result<(), DbError> {
    client.execute("SET statement_timeout = 0", &[]).await.during(ACTION)?;
    let done = async {
        let_go(client, window).await?;
        store::sweep(&***client).await?;
        loop {
            let rows = store::runs(&***client).await?;
            let Some(chosen) = to_merge(&rows.iter().collect::<Vec<_>>()) else { return Ok(()) };
            merge(client, &chosen, window).await?;
            store::sweep(&***client).await?;
        }
    };
    let done: Result<(), DbError> = done.await;
    client.execute("RESET statement_timeout", &[]).await.during(ACTION)?;
    done
}

/// Runs and spans behind the window. That a stretch was in the index is never forgotten: neighbours become one span, which keeps the number
/// of the first alone.
async fn let_go(client: &mut Object, window: i64) -> Result<(), DbError> {
    const REDRIVEN: &str = "DELETE FROM dedup_spans WHERE NOT covers AND number < $1";
    const JOIN: &str = "WITH old AS (SELECT b.number, b.source, b.topic, b.partition, b.start_offset, b.end_offset, b.indexed_at \
           FROM dedup_spans b WHERE b.covers AND b.number + b.end_offset - b.start_offset <= $1 \
             AND EXISTS (SELECT FROM dedup_spans a WHERE a.covers AND a.source = b.source AND a.topic = b.topic \
               AND a.partition = b.partition AND a.end_offset = b.start_offset AND a.number + a.end_offset - a.start_offset <= $1) \
           ORDER BY b.source, b.topic, b.partition, b.start_offset LIMIT $2), \
         runs AS (SELECT *, start_offset - sum(end_offset - start_offset) OVER (PARTITION BY source, topic, partition \
             ORDER BY start_offset ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) + end_offset - start_offset AS run FROM old), \
         joined AS (SELECT source, topic, partition, min(start_offset) AS start_offset, max(end_offset) AS end_offset, \
             max(indexed_at) AS indexed_at FROM runs GROUP BY source, topic, partition, run), \
         gone AS (DELETE FROM dedup_spans s USING old WHERE s.number = old.number) \
         UPDATE dedup_spans s SET end_offset = j.end_offset, indexed_at = j.indexed_at FROM joined j \
         WHERE s.covers AND s.source = j.source AND s.topic = j.topic AND s.partition = j.partition AND s.end_offset = j.start_offset";
    let transaction = client.transaction().await.during(ACTION)?;
    let head = store::lock(&transaction).await?;
    let oldest = head.next_number - window;
    let rows = store::runs(&*transaction).await?;
    let passed: Vec<i64> = rows.iter().filter(|row| row.newest < oldest).map(|row| row.run).collect();
    if !passed.is_empty() {
        store::delete_runs(&*transaction, &passed).await?;
        store::advance(&transaction, head.next_number, store::draw()).await?;
    }
    transaction.execute(REDRIVEN, &[&oldest]).await.during(ACTION)?;
    transaction.commit().await.during(ACTION)?;
    // In portions, so that lanes wait for none of it for long.
    loop {
        let transaction = client.transaction().await.during(ACTION)?;
        store::lock(&transaction).await?;
        let joined = transaction.execute(JOIN, &[&oldest, &SPANS_MAX]).await.during(ACTION)?;
        transaction.commit().await.during(ACTION)?;
        if joined == 0 {
            return Ok(());
        }
    }
}

/// A run that is read block by block.
struct Reader {
    run: i64,
    next_block: i32,
    entries: std::vec::IntoIter<Entry>,
    has_ended: bool,
}

impl Reader {
    async fn fill(&mut self, client: &impl GenericClient) -> Result<(), DbError> {
        if self.has_ended || !self.entries.as_slice().is_empty() {
            return Ok(());
        }
        let blocks = store::blocks_from(client, self.run, self.next_block, many()).await?;
        self.has_ended = blocks.len() < BLOCKS_AT_ONCE;
        self.next_block += i32::try_from(blocks.len()).unwrap_or(0);
        self.entries = blocks.into_iter().flatten().collect::<Vec<_>>().into_iter();
        Ok(())
    }

    fn peek(&self) -> Option<Entry> {
        self.entries.as_slice().first().copied()
    }
}

async fn merge(client: &mut Object, chosen: &[&RunRow], window: i64) -> Result<(), DbError> {
    let entries: i64 = chosen.iter().map(|row| row.entries).sum();
    let run = store::draw();
    let oldest: i64 =
        client.query_one("SELECT next_number FROM dedup", &[]).await.during(ACTION)?.try_get(0).during(ACTION)?;
    let oldest = oldest - window;
    let (mut fences, mut filter) = LargeRun::builder(usize::try_from(entries).unwrap_or(0), window);
    let reader =
        |row: &&RunRow| Reader { run: row.run, next_block: 0, entries: Vec::new().into_iter(), has_ended: false };
    let mut readers: Vec<Reader> = chosen.iter().map(reader).collect();
    let (mut written, mut some): (i64, Vec<Entry>) = (0, Vec::new());
    let full = BLOCKS_AT_ONCE * BLOCK_ENTRIES;
    loop {
        for reader in &mut readers {
            reader.fill(&***client).await?;
        }
        // Of one fingerprint the newest: entries are in order of both.
        let least = readers.iter().filter_map(Reader::peek).map(|entry| entry.fingerprint).min();
        let mut newest: Option<Entry> = None;
        for reader in &mut readers {
            while reader.peek().is_some_and(|entry| Some(entry.fingerprint) == least) {
                newest = newest.max(reader.entries.next());
                reader.fill(&***client).await?;
            }
        }
        some.extend(newest.filter(|entry| entry.number >= oldest));
        if some.len() == full || (least.is_none() && !some.is_empty()) {
            let first = i32::try_from(fences.len()).unwrap_or(i32::MAX);
            store::insert_blocks(&***client, run, first, &some).await?;
            some.chunks(BLOCK_ENTRIES).for_each(|block| take_block(block, &mut fences, &mut filter));
            written += i64::try_from(some.len()).unwrap_or(0);
            some.clear();
        }
        if least.is_none() {
            break;
        }
    }
    let transaction = client.transaction().await.during(ACTION)?;
    let (level, newest) = (chosen.iter().map(|row| row.level).max(), chosen.iter().map(|row| row.newest).max());
    let row = RunRow { run, level: level.unwrap_or(0) + 1, entries: written, newest: newest.unwrap_or(0) };
    store::insert_run(&*transaction, &row).await?;
    store::keep_filter(&*transaction, run, &bytes_of(&fences), &filter.to_bytes()).await?;
    // Lanes wait from here on.
    let head = store::lock(&transaction).await?;
    let merged: Vec<i64> = chosen.iter().map(|row| row.run).collect();
    store::delete_runs(&*transaction, &merged).await?;
    store::advance(&transaction, head.next_number, store::draw()).await?;
    transaction.commit().await.during(ACTION)?;
    tracing::debug!(runs = chosen.len(), entries = written, level = row.level, "merged runs of the index of repeats");
    Ok(())
}
