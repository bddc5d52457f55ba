//! What it costs to know that a record of another service did not come before, by how much is remembered: over four lanes, of the process
//! and of Postgres.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use weir_engine::{Batch, Chunk, Headers, Partition, Record, RecordHead};
use weir_postgres::{Database, DedupIndex, Ledger, PartitionOwner, RecordPolicy};
use weir_tests::Postgres;
use weir_tests::weir::connect;

use crate::all_lanes::{cpu_seconds, high_water_mark};
use crate::fill::{database, runtime};
use crate::measure::row;

/// Remembered ids; `WEIR_BENCH_SHORT` leaves out the second.
const REMEMBERED: [i64; 2] = [1_000_000, 100_000_000];

/// Records of a chunk, and chunks that are measured.
const CHUNK: i64 = 4000;
const CHUNKS: i64 = 100;

const LANES: [&str; 4] = ["read-models", "metrics", "history", "clickhouse"];

/// Entries of a block, as `dedup/store.rs` has them, and blocks written at once.
const BLOCK: i64 = 80;
const BLOCKS_AT_ONCE: i64 = 2000;

fn partition() -> Partition {
    Partition { source: "cluster".into(), topic: "learning_events".into(), number: 0 }
}

/// Runs as merges leave them: one of most entries, some of an eighth.
async fn remember(url: &str, remembered: i64) {
    let client = connect(url).await;
    let runs =
        [(remembered / 2, 5), (remembered / 8, 4), (remembered / 8, 4), (remembered / 8, 4), (remembered / 8, 4)];
    let mut number = 0_i64;
    for (run, (entries, level)) in (1_i64..).zip(runs) {
        let blocks = entries / BLOCK;
        // Spread evenly, so that they are in order as they are made; the lower half is as random as it gets.
        let step = u64::MAX / u64::try_from(blocks * BLOCK).unwrap();
        let mut at = 0_u64;
        for from in (0..blocks).step_by(usize::try_from(BLOCKS_AT_ONCE).unwrap()) {
            let some: Vec<Vec<u8>> = (from..(from + BLOCKS_AT_ONCE).min(blocks))
                .map(|_| {
                    let mut block = Vec::with_capacity(24 * 80);
                    for _ in 0..BLOCK {
                        block.extend(at.to_be_bytes());
                        block.extend(rand::random::<u64>().to_be_bytes());
                        block.extend(number.to_be_bytes());
                        (at, number) = (at + step, number + 1);
                    }
                    block
                })
                .collect();
            let sql = "INSERT INTO dedup_blocks (run, block, entries) \
                 SELECT $1, ($2 + n - 1)::int, entries FROM unnest($3::bytea[]) WITH ORDINALITY AS b(entries, n)";
            client.execute(sql, &[&run, &from, &some]).await.unwrap();
        }
        let sql = "INSERT INTO dedup_runs (run, level, entries, newest) VALUES ($1, $2, $3, $4)";
        client.execute(sql, &[&run, &level, &(blocks * BLOCK), &(number - 1)]).await.unwrap();
    }
    client.execute("UPDATE dedup SET next_number = $1, generation = 1", &[&number]).await.unwrap();
    for statement in ["VACUUM ANALYZE dedup_blocks", "CHECKPOINT"] {
        client.batch_execute(statement).await.unwrap();
    }
}

/// Decoded beforehand: that is no cost of the index.
fn batches() -> Vec<Batch> {
    let record = |offset: i64| {
        let payload = format!(
            r#"{{"eventId":"{}","eventType":"Unknown","version":1,"timestamp":"2024-01-15T10:30:00Z","source":"s","data":{{}}}}"#,
            uuid::Uuid::new_v4()
        );
        let head = RecordHead {
            partition: partition(),
            offset,
            key: None,
            odd_key: None,
            headers: Headers::default(),
            recorded_at: None,
        };
        Record { head, payload: Bytes::from(payload) }
    };
    let batch = |n: i64| {
        let chunk = Arc::new(Chunk::decode((n * CHUNK..(n + 1) * CHUNK).map(record).collect()));
        let mut batch = Batch::default();
        batch.begin(partition(), n * CHUNK);
        batch.take(&chunk, chunk.all(), None);
        batch
    };
    (0..CHUNKS).map(batch).collect()
}

async fn owners(database: &Database, window: i64) -> Vec<PartitionOwner> {
    let policy = RecordPolicy { repeats: Arc::new(DedupIndex::new(window)), ..RecordPolicy::default() };
    let mut owners = Vec::new();
    for lane in LANES {
        let mut owner = PartitionOwner::new(database.clone(), Ledger::new(lane, "bench"), policy.clone());
        let claims = owner.claim(&[partition()]).await.unwrap();
        owner.take(&claims);
        owners.push(owner);
    }
    owners
}

pub(crate) fn run() {
    let remembered = if std::env::var_os("WEIR_BENCH_SHORT").is_some() { &REMEMBERED[..1] } else { &REMEMBERED[..] };
    for remembered in remembered {
        runtime().block_on(measure(*remembered));
    }
}

async fn measure(remembered: i64) {
    let server = Postgres::start();
    let database = database(&server.url()).await;
    remember(&server.url(), remembered).await;
    let window = 2 * remembered;
    let (owners, batches) = (owners(&database, window.min(100_000_000 + CHUNK * CHUNKS)).await, batches());
    // The first batch reads runs that have no filter yet.
    let loading = Instant::now();
    drop(owners[0].repeats(&batches[0]).await.unwrap());
    let loaded = loading.elapsed();
    let roots = [std::process::id(), server.pid()];
    let (before, started) = (cpu_seconds(&roots), Instant::now());
    for batch in &batches[1..] {
        for owner in &owners {
            assert!(owner.repeats(batch).await.unwrap().is_empty(), "each id is new");
        }
    }
    let (elapsed, events) = (started.elapsed().as_secs_f64(), (CHUNKS - 1) * CHUNK);
    let ours = (cpu_seconds(&roots) - before) * 1e6 / events as f64;
    // The floor: the same fingerprints, made and written in the same transactions, and nothing looked for.
    let client = connect(&server.url()).await;
    client
        .batch_execute("CREATE TABLE floor (entries bytea); ALTER TABLE floor ALTER entries SET STORAGE PLAIN")
        .await
        .unwrap();
    let before = cpu_seconds(&roots);
    for batch in &batches[1..] {
        let mut entries: Vec<[u8; 24]> = batch
            .others()
            .map(|located| {
                let mut entry = [0; 24];
                entry[..16].copy_from_slice(
                    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, located.event.event_id.as_str().as_bytes())
                        .as_bytes(),
                );
                entry[16..].copy_from_slice(&located.record.offset.to_be_bytes());
                entry
            })
            .collect();
        entries.sort_unstable();
        let blocks: Vec<Vec<u8>> = entries.chunks(80).map(|block| block.concat()).collect();
        client.execute("INSERT INTO floor SELECT unnest($1::bytea[])", &[&blocks]).await.unwrap();
    }
    let floor = (cpu_seconds(&roots) - before) * 1e6 / events as f64;
    let size = "SELECT pg_total_relation_size('dedup_blocks') + pg_total_relation_size('dedup_runs')";
    let bytes: i64 = client.query_one(size, &[]).await.unwrap().get(0);
    row(
        &format!("repeats: an event of another service, {remembered} remembered, over four lanes"),
        &format!(
            "{ours:.2} µs of CPU ({:.0} events/s), {} MiB in Postgres, {:.0} MiB of memory at most, first look {:.1} s",
            events as f64 / elapsed,
            bytes >> 20,
            high_water_mark(std::process::id()),
            loaded.as_secs_f64()
        ),
        &format!("{floor:.2} µs, fingerprints written and none looked for"),
        &format!("{:.2}", ours / floor),
        "≤ 2 µs",
    );
}
