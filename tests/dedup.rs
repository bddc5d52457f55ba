//! Is what other services send again left out, by the rule, and nothing else? (`pipeline/postgres/README.md`.)

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use weir_engine::{Batch, Headers, Partition, Record, RecordHead};
use weir_postgres::{Database, DatabaseOptions, DedupIndex, Ledger, PartitionOwner, RecordPolicy};
use weir_tests::{Postgres, Weir, seed};

const PARTITIONS: i32 = 3;

fn partition(number: i32) -> Partition {
    Partition { source: "cluster".into(), topic: "learning_events".into(), number }
}

fn record(number: i32, offset: i64, id: u32) -> Record {
    let event = format!(
        r#"{{"eventId":"{id}","eventType":"Unknown","version":1,"timestamp":"2024-01-15T10:30:00Z","source":"s","data":{{}}}}"#
    );
    let head = RecordHead {
        partition: partition(number),
        offset,
        key: None,
        odd_key: None,
        headers: Headers::default(),
        recorded_at: None,
    };
    Record { head, payload: Bytes::from(event) }
}

/// A database of its own, and the server that it is in.
async fn database() -> (Postgres, Database) {
    let server = Postgres::start();
    let timeout = Duration::from_secs(60);
    let database = Database::open(&DatabaseOptions {
        url: server.url(),
        connections_max: 8,
        statement_timeout: timeout,
        lock_timeout: timeout,
        session: Vec::new(),
    })
    .unwrap();
    database.migrate().await.unwrap();
    (server, database)
}

/// A lane of a process, which goes on in all partitions.
struct Reader {
    owner: PartitionOwner,
    next: Vec<i64>,
}

impl Reader {
    async fn of(database: &Database, index: &Arc<DedupIndex>, lane: &str, next: Vec<i64>) -> Self {
        let policy = RecordPolicy { repeats: index.clone(), ..RecordPolicy::default() };
        let mut owner = PartitionOwner::new(database.clone(), Ledger::new(lane, "a process"), policy);
        let all: Vec<Partition> = (0..PARTITIONS).map(partition).collect();
        let claims = owner.claim(&all).await.unwrap();
        owner.take(&claims);
        Self { owner, next }
    }

    /// The places of what is left out of these spans.
    async fn left_out(&self, batch: &Batch) -> BTreeSet<(i32, i64)> {
        let places = self.owner.repeats(batch).await.unwrap();
        places.into_iter().map(|(partition, offset)| (partition.number, offset)).collect()
    }
}

/// The rule, in plain words: records are numbered as they are first read; one is a repeat if a counted one of its id is at most so many
/// numbers before.
#[derive(Default)]
struct Model {
    numbered: BTreeMap<i32, BTreeSet<i64>>,
    next: i64,
    counted: HashMap<u32, i64>,
    repeats: BTreeSet<(i32, i64)>,
}

impl Model {
    fn read(&mut self, number: i32, offsets: std::ops::Range<i64>, ids: &[u32], window: i64) {
        let numbered = self.numbered.entry(number).or_default();
        for offset in offsets.filter(|offset| numbered.insert(*offset)) {
            let id = ids[usize::try_from(offset).unwrap()];
            match self.counted.get(&id) {
                Some(first) if self.next - first <= window => drop(self.repeats.insert((number, offset))),
                _ => drop(self.counted.insert(id, self.next)),
            }
            self.next += 1;
        }
    }
}

/// Three lanes of two processes read three partitions at their own pace, in batches of any size; reading is broken off anywhere and begins
/// again, and processes forget all they know. Runs are merged and let go meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn every_lane_leaves_out_the_same_by_the_rule() {
    const RECORDS: usize = 110_000;
    const WINDOW: i64 = 290_000;
    let mut random = StdRng::seed_from_u64(seed("dedup::rule"));
    let (_server, database) = database().await;
    // As a merge leaves them that died half way.
    let left = "INSERT INTO dedup_blocks (run, block, entries) VALUES (77, 0, ''), (77, 1, '')";
    database.get().await.unwrap().execute(left, &[]).await.unwrap();
    let mut fresh = 0;
    let mut id = |random: &mut StdRng| {
        fresh += 1;
        if random.random_ratio(1, 20) { random.random_range(0..fresh) } else { fresh }
    };
    let mut logs: [Vec<u32>; 3] = [const { Vec::new() }; 3];
    for _ in 0..RECORDS {
        logs.iter_mut().for_each(|log| log.push(id(&mut random)));
    }
    let index = || Arc::new(DedupIndex::new(WINDOW));
    let mut indexes = [index(), index()];
    let lanes = [("one", 0), ("two", 0), ("three", 1)];
    let mut readers = Vec::new();
    for (lane, process) in lanes {
        readers.push(Reader::of(&database, &indexes[process], lane, vec![0; 3]).await);
    }
    let mut model = Model::default();
    let end = i64::try_from(RECORDS).unwrap();
    while readers.iter().any(|reader| reader.next.iter().any(|next| *next < end)) {
        let at = random.random_range(0..readers.len());
        if random.random_ratio(1, 40) {
            // A process starts again.
            let process = lanes[at].1;
            indexes[process] = index();
            for (n, (lane, _)) in lanes.iter().enumerate().filter(|(_, (_, of))| *of == process) {
                let next = readers[n].next.clone();
                readers[n] = Reader::of(&database, &indexes[process], lane, next).await;
            }
        }
        let reader = &mut readers[at];
        let mut batch = Batch::default();
        let mut expected = BTreeSet::new();
        for number in 0..PARTITIONS {
            let place = usize::try_from(number).unwrap();
            let start = reader.next[place];
            let stop = (start + random.random_range(0..6000)).min(end);
            batch.begin(partition(number), start);
            for offset in start..stop {
                batch.push(record(number, offset, logs[place][usize::try_from(offset).unwrap()]), None);
            }
            model.read(number, start..stop, &logs[place], WINDOW);
            expected.extend(model.repeats.range((number, start)..(number, stop)).copied());
            reader.next[place] = stop;
        }
        if random.random_ratio(1, 5) {
            let a_moment = Duration::from_micros(random.random_range(0..30_000));
            drop(tokio::time::timeout(a_moment, reader.owner.repeats(&batch)).await);
        }
        assert_eq!(reader.left_out(&batch).await, expected, "lane {}", lanes[at].0);
        reader.owner.maintain().await.unwrap();
    }
    assert!(model.repeats.len() > RECORDS / 10, "{} repeats", model.repeats.len());
    until_merged(&database, &readers[0].owner, WINDOW).await;
}

/// What a merge writes, what the window has passed and what a dead merge left: done in the background.
async fn until_merged(database: &Database, owner: &PartitionOwner, window: i64) {
    let client = database.get().await.unwrap();
    let sql =
        "SELECT max(level), count(*) FILTER (WHERE newest < (SELECT next_number FROM dedup) - $1) FROM dedup_runs";
    let started = Instant::now();
    loop {
        let row = client.query_one(sql, &[&window]).await.unwrap();
        let (level, passed): (i32, i64) = (row.get(0), row.get(1));
        let left = client.query_one("SELECT count(*) FROM dedup_blocks WHERE run = 77", &[]).await.unwrap();
        if level >= 2 && passed == 0 && left.get::<_, i64>(0) == 0 {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "level {level}, {passed} runs behind the window");
        owner.maintain().await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A lane that began behind the first copy, or was reset past it, counts the second, and only that.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_lane_skipped_is_no_copy_for_it() {
    let (_server, database) = database().await;
    let index = Arc::new(DedupIndex::new(1000));
    let ids = [7, 8, 7, 9, 7, 8];
    let batch = |from: i64| {
        let mut batch = Batch::default();
        batch.begin(partition(0), from);
        let numbered = (0_i64..).zip(ids);
        numbered.filter(|(offset, _)| *offset >= from).for_each(|(offset, id)| batch.push(record(0, offset, id), None));
        batch
    };
    let first = Reader::of(&database, &index, "first", vec![0; 3]).await;
    assert_eq!(first.left_out(&batch(0)).await, BTreeSet::from([(0, 2), (0, 4), (0, 5)]));
    // One that begins at 1 never read the first 7; one that is reset to 3 neither that nor the second.
    let mut late = Reader::of(&database, &index, "late", vec![0; 3]).await;
    late.owner.begin(&[(partition(0), 1)]).await.unwrap();
    let of_late = BTreeSet::from([(0, 4), (0, 5)]);
    assert_eq!(late.left_out(&batch(1)).await, of_late);
    Ledger::reset(&database, "reset", &partition(0), 3, false).await.unwrap();
    let reset = Reader::of(&database, &index, "reset", vec![0; 3]).await;
    assert_eq!(reset.left_out(&batch(3)).await, BTreeSet::new());
    // The verdict stays, whoever asks, and when the lane comes to it once more.
    let another = Arc::new(DedupIndex::new(1000));
    let late = Reader::of(&database, &another, "late", vec![0; 3]).await;
    assert_eq!(late.left_out(&batch(1)).await, of_late);
    // And `weir verify` hears the same.
    let client = database.get().await.unwrap();
    for (lane, expected) in [("first", vec![2, 4, 5]), ("late", vec![4, 5]), ("reset", vec![2])] {
        let found = weir_postgres::repeats::left_out(&**client, lane).await.unwrap();
        let offsets: BTreeSet<i64> =
            found.get(&partition(0)).into_iter().flatten().map(|(offset, _)| *offset).collect();
        assert_eq!(offsets, BTreeSet::from_iter(expected), "{lane}");
    }
}

/// Of a database of before: each lane had a memory of its own.
#[tokio::test(flavor = "multi_thread")]
async fn memories_of_lanes_become_one_index() {
    let (_server, database) = database().await;
    let client = database.get().await.unwrap();
    // Later migrations first, which stand on nothing of the index.
    client
        .batch_execute(
            "DROP SCHEMA workflows CASCADE; DROP TABLE lane_versions, workflow_state, jobs, job_slices, job_runs; \
             ALTER TABLE api_tokens DROP COLUMN scram_salt, DROP COLUMN scram_salted_password",
        )
        .await
        .unwrap();
    client.batch_execute(include_str!("../sql/postgres/V6__jobs.sql")).await.unwrap();
    // Back to the tables of migration 15, and what lanes had noticed then: `behind` has read up to 3 and counted the 8 of another partition.
    client
        .batch_execute(
            "DELETE FROM refinery_schema_history WHERE version >= 16; DROP TABLE dedup, dedup_spans, dedup_runs, dedup_blocks, lane_skips; \
             DROP INDEX repeats_by_event; \
             ALTER TABLE repeats DROP COLUMN number, DROP COLUMN first_number, DROP COLUMN is_counted, DROP COLUMN first_source, \
               DROP COLUMN first_topic, DROP COLUMN first_partition, DROP COLUMN first_offset; \
             CREATE TABLE seen (lane text, tenant text, event_id text, source text, topic text, partition int, \"offset\" bigint, \
               seen_at timestamptz DEFAULT now(), PRIMARY KEY (lane, tenant, event_id)); \
             INSERT INTO ledger (lane, source, topic, partition, next_offset, epoch, owner) \
               SELECT lane, 'cluster', 'learning_events', p, CASE WHEN lane = 'behind' AND p = 0 THEN 3 ELSE 10 END, 1, '' \
               FROM unnest(ARRAY['ahead', 'other', 'behind']) lane, generate_series(0, 2) p; \
             INSERT INTO seen SELECT lane, 'default', id, 'cluster', 'learning_events', p, at FROM (VALUES \
               ('ahead', '7', 0, 0), ('ahead', '8', 0, 5), ('other', '7', 0, 0), ('other', '8', 0, 5), \
               ('behind', '7', 0, 0), ('behind', '8', 1, 4)) AS s(lane, id, p, at); \
             INSERT INTO repeats SELECT lane, 'cluster', 'learning_events', p, at, 'default', id FROM (VALUES \
               ('ahead', '7', 0, 6), ('other', '7', 0, 6), ('ahead', '8', 1, 4), ('other', '8', 1, 4)) AS r(lane, id, p, at)",
        )
        .await
        .unwrap();
    database.migrate().await.unwrap();
    let index = Arc::new(DedupIndex::new(1000));
    let mut batch = Batch::default();
    batch.begin(partition(0), 3);
    for (offset, id) in [(5, 8), (6, 7), (9, 9), (10, 7), (11, 8), (12, 9)] {
        batch.push(record(0, offset, id), None);
    }
    // Beyond 10 all is new; below it the lane that is behind leaves out what is not its own choice.
    let behind = Reader::of(&database, &index, "behind", vec![0; 3]).await;
    assert_eq!(behind.left_out(&batch).await, BTreeSet::from([(0, 5), (0, 6), (0, 10), (0, 11), (0, 12)]));
    let mut beyond = Batch::default();
    beyond.begin(partition(0), 10);
    for (offset, id) in [(10, 7), (11, 8), (12, 9)] {
        beyond.push(record(0, offset, id), None);
    }
    let ahead = Reader::of(&database, &index, "ahead", vec![0; 3]).await;
    assert_eq!(ahead.left_out(&beyond).await, BTreeSet::from([(0, 10), (0, 11), (0, 12)]));
}

/// The setting of before says what stands in its place.
#[test]
fn the_window_is_counted_in_records() {
    let refused = |setting: &str| {
        let output = Weir::new().with(setting).run(&["status"]);
        assert_eq!(output.status.code(), Some(1), "{setting}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused("dead_letters.repeats_window_s=60").contains("dedup.window_records"));
    assert!(refused("dedup.window_records=0").contains("more than 0"));
}
