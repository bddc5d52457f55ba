//! Jobs against what the same work costs without weir: each as a process of its own, over a full event store whose lanes are done.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Stdio;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use bytes::Bytes;
use futures::{SinkExt, TryStreamExt};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use tokio_postgres::Client;
use weir_model::project::ReadModel;
use weir_tests::weir::connect;

use crate::all_lanes::{Stage, high_water_mark, stop};
use crate::fill::{events_or, fill, runtime};
use crate::measure::{Pairs, pairs, round, row};

/// So many events, unless `WEIR_BENCH_EVENTS` says otherwise.
const EVENTS: i64 = 1_000_000;
const TURNS: usize = 3;

/// Rows of a page of the floors.
const PAGE: i64 = 2000;

/// Every lane has everything.
fn staged() -> (Stage, i64) {
    let (stage, events) = (Stage::start(), events_or(EVENTS));
    runtime().block_on(stage.fill(events));
    assert!(stage.command(&["up", "--until-caught-up"]).status().unwrap().success());
    (stage, events)
}

/// Runs a job to its end: seconds, and the most memory that it had, in MiB.
fn job(stage: &Stage, args: &[&str]) -> (f64, f64) {
    let (started, mut most) = (Instant::now(), 0_f64);
    let mut child = stage.command(args).stderr(Stdio::null()).spawn().unwrap();
    let status = loop {
        most = most.max(high_water_mark(child.id()));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(status.success(), "{args:?}");
    (started.elapsed().as_secs_f64(), most)
}

fn told(pairs: &Pairs, what: &str, floor: &str, goal: &str, most: f64) {
    pairs.row(what, "events/s", floor, goal);
    row(&format!("memory of that: {what}"), &format!("{} MiB", round(most)), "", "", "under 512 MiB");
}

/// Where history is, and where a copy of it may stand.
fn history(stage: &Stage) -> PathBuf {
    stage.data().join("history/events")
}

fn copy(from: &Path, to: &Path) {
    if to.exists() {
        std::fs::remove_dir_all(to).unwrap();
    }
    assert!(std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

fn parquet_files(dir: &Path) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = open.pop() {
        for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            match path.is_dir() {
                true if !path.ends_with("_delta_log") => open.push(path),
                false if path.extension().is_some_and(|end| end == "parquet") => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

pub(crate) fn backfill() {
    let (stage, events) = staged();
    let (runtime, mut most) = (runtime(), 0_f64);
    let server = stage.clickhouse();
    let truncate = |table: &str| runtime.block_on(server.sql(&format!("TRUNCATE TABLE weir.{table} SYNC")));
    runtime.block_on(server.sql("CREATE TABLE weir.bench_floor AS weir.events_stored"));
    let names = "timestamp, recorded_at, tenant, event_id, source, topic, partition, offset, position, data, extra";
    let described = runtime.block_on(server.sql(
        "SELECT arrayStringConcat(groupArray('`' || name || '`'), ', ') FROM system.columns WHERE database = 'weir' AND table = 'bench_floor' \
         AND default_kind = '' AND name NOT IN ('is_other', 'epoch', 'nested', 'nested_places')",
    ));
    assert!(names.split(", ").all(|name| described.contains(name)), "{described}");
    let files = history(&stage).join("event_type=*/**/*.parquet");
    let floor_sql = format!(
        "INSERT INTO weir.bench_floor ({described}) SETTINGS use_hive_partitioning = 1, max_partitions_per_insert_block = 0, optimize_on_insert = 0 \
         SELECT {described} FROM file('{}', Parquet)",
        files.display()
    );
    let ours = || {
        truncate("events_stored");
        let (seconds, memory) = job(&stage, &["backfill", "clickhouse"]);
        most = most.max(memory);
        events as f64 / seconds
    };
    let floor = || {
        truncate("bench_floor");
        let started = Instant::now();
        runtime.block_on(server.sql(&floor_sql));
        events as f64 / started.elapsed().as_secs_f64()
    };
    let done = pairs(TURNS, ours, floor);
    told(
        &done,
        "backfill of ClickHouse from history",
        "the server's own INSERT … SELECT FROM file() of the same rows",
        "≥ 0.7",
        most,
    );
    assert!(stage.command(&["verify"]).status().unwrap().success(), "verify");
}

pub(crate) fn rebuild() {
    let (stage, events) = staged();
    let (runtime, mut most) = (runtime(), 0_f64);
    let ours = || {
        let (seconds, memory) = job(&stage, &["rebuild", "read-models"]);
        most = most.max(memory);
        events as f64 / seconds
    };
    let floor = || {
        runtime.block_on(async {
            let client = connect(&stage.postgres.url()).await;
            let started = Instant::now();
            page(&client, events, |_| {}).await;
            copy_tables(&client).await;
            events as f64 / started.elapsed().as_secs_f64()
        })
    };
    let done = pairs(TURNS, ours, floor);
    told(&done, "rebuild of the read models", "paging the event store, and COPY of the same rows", "≥ 0.7", most);
}

/// The columns that a reader of the event store needs, page after page.
async fn page(client: &Client, events: i64, mut take: impl FnMut(Vec<tokio_postgres::Row>)) {
    let sql = "SELECT id, event_id::text, tenant, stream_id, version, event_type, schema_version, source, event_json::text, metadata::text, \
               extract(epoch FROM timestamp)::float8, extract(epoch FROM recorded_at)::float8 FROM events WHERE id > $1 ORDER BY id LIMIT $2";
    let statement = client.prepare(sql).await.unwrap();
    let mut from = 0_i64;
    while from < events {
        let rows = client.query(&statement, &[&from, &PAGE]).await.unwrap();
        from = rows.last().unwrap().get(0);
        take(rows);
    }
}

/// Each read model's rows, out of it and into a table like it.
async fn copy_tables(client: &Client) {
    for table in ReadModel::ALL.into_iter().map(ReadModel::table).chain(["learner_learning_paths"]) {
        let columns = "SELECT string_agg(quote_ident(column_name), ', ' ORDER BY ordinal_position) FROM information_schema.columns \
             WHERE table_schema = 'public' AND table_name = $1 AND is_generated = 'NEVER'";
        let columns: String = client.query_one(columns, &[&table]).await.unwrap().get(0);
        let create = format!(
            "DROP TABLE IF EXISTS bench_{table}; CREATE UNLOGGED TABLE bench_{table} (LIKE {table} INCLUDING ALL)"
        );
        client.batch_execute(&create).await.unwrap();
        let out = client.copy_out(&format!("COPY {table} ({columns}) TO STDOUT")).await.unwrap();
        let rows: Vec<Bytes> = out.try_collect().await.unwrap();
        let copy = format!("COPY bench_{table} ({columns}) FROM STDIN");
        let mut sink = pin!(client.copy_in::<_, Bytes>(&copy).await.unwrap());
        for some in rows.chunks(1000) {
            sink.send(some.concat().into()).await.unwrap();
        }
        sink.finish().await.unwrap();
    }
}

pub(crate) fn compaction() {
    let (stage, events) = staged();
    let (table, kept) = (history(&stage), stage.data().join("history/kept"));
    copy(&table, &kept);
    let files = parquet_files(&kept);
    let mut most = 0_f64;
    let ours = || {
        copy(&kept, &table);
        let (seconds, memory) = job(&stage, &["compact", "history"]);
        most = most.max(memory);
        events as f64 / seconds
    };
    let floor = || {
        let (dir, started) = (tempfile::tempdir().unwrap(), Instant::now());
        let mut of_partition = files.chunk_by(|a, b| a.parent() == b.parent());
        of_partition.by_ref().enumerate().for_each(|(n, files)| sorted(files, &dir.path().join(n.to_string())));
        events as f64 / started.elapsed().as_secs_f64()
    };
    let done = pairs(TURNS, ours, floor);
    told(
        &done,
        "compaction of history",
        "arrow-rs reading, sorting and writing the same files, one thread",
        "≥ 0.6",
        most,
    );
    assert!(stage.command(&["verify"]).status().unwrap().success(), "verify");
}

/// Files of one partition of the table as one, by time.
fn sorted(files: &[PathBuf], to: &Path) {
    let batches: Vec<RecordBatch> = files
        .iter()
        .flat_map(|path| {
            let file = std::fs::File::open(path).unwrap();
            ParquetRecordBatchReaderBuilder::try_new(file).unwrap().with_batch_size(8192).build().unwrap()
        })
        .map(Result::unwrap)
        .collect();
    let all = concat_batches(&batches[0].schema(), &batches).unwrap();
    drop(batches);
    let columns: Vec<SortColumn> = ["timestamp", "source", "topic", "partition", "offset"]
        .iter()
        .map(|name| SortColumn { values: all.column_by_name(name).unwrap().clone(), options: None })
        .collect();
    let all = take_record_batch(&all, &lexsort_to_indices(&columns, None).unwrap()).unwrap();
    write(to, &all);
}

fn write(to: &Path, batch: &RecordBatch) {
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let mut writer =
        ArrowWriter::try_new(std::fs::File::create(to).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

pub(crate) fn archive() {
    let (stage, events) = staged();
    let (runtime, mut most) = (runtime(), 0_f64);
    let ours = || {
        let dir = tempfile::tempdir().unwrap();
        let (seconds, memory) =
            job(&stage, &["archive", "events", "--to", &format!("file://{}", dir.path().display())]);
        most = most.max(memory);
        events as f64 / seconds
    };
    let floor = || {
        let dir = tempfile::tempdir().unwrap();
        let mut parts = 0;
        runtime.block_on(async {
            let client = connect(&stage.postgres.url()).await;
            let (started, mut waiting) = (Instant::now(), Vec::new());
            page(&client, events, |rows| {
                waiting.extend(rows);
                if waiting.len() >= 100_000 {
                    parts += 1;
                    write(&dir.path().join(parts.to_string()), &columns(&std::mem::take(&mut waiting)));
                }
            })
            .await;
            if !waiting.is_empty() {
                write(&dir.path().join("last"), &columns(&waiting));
            }
            events as f64 / started.elapsed().as_secs_f64()
        })
    };
    let done = pairs(TURNS, ours, floor);
    told(&done, "archive of the event store", "paging it, and arrow-rs writing the rows", "≥ 0.6", most);
}

/// Rows of [`page`] as columns.
fn columns(rows: &[tokio_postgres::Row]) -> RecordBatch {
    let text = |n: usize| -> ArrayRef {
        std::sync::Arc::new(rows.iter().map(|row| row.get::<_, Option<&str>>(n)).collect::<StringArray>())
    };
    let whole = |n: usize| -> ArrayRef {
        std::sync::Arc::new(rows.iter().map(|row| row.get::<_, Option<i64>>(n)).collect::<Int64Array>())
    };
    let seconds = |n: usize| -> ArrayRef {
        std::sync::Arc::new(rows.iter().map(|row| Some((row.get::<_, f64>(n) * 1e3) as i64)).collect::<Int64Array>())
    };
    let column = |n: usize| match n {
        0 | 4 => whole(n),
        10 | 11 => seconds(n),
        _ => text(n),
    };
    RecordBatch::try_from_iter((0..12).map(|n| (n.to_string(), column(n)))).unwrap()
}

/// Live lanes with a backlog, alone and beside a backfill of everything that may write so many rows a second.
pub(crate) fn beside() {
    let (stage, events) = staged();
    let alone = job(&stage, &["backfill", "clickhouse", "--reprocess", "all"]).0;
    let own = events as f64 / alone;
    let rate = ((own / 4.0) as u64).to_string();
    let (mut total, mut shares) = (events, Vec::new());
    let mut backlog = |is_beside: bool| {
        total += events / 2;
        runtime().block_on(fill(&stage.postgres.url(), total));
        let args = ["backfill", "clickhouse", "--reprocess", "all", "--rate", &rate];
        let job = is_beside.then(|| stage.command(&args).stderr(Stdio::null()).spawn().unwrap());
        let started = Instant::now();
        assert!(stage.command(&["up", "--until-caught-up"]).status().unwrap().success());
        let taken = started.elapsed().as_secs_f64();
        if let Some(mut job) = job {
            shares.push(runtime().block_on(written(&stage)) / taken / own);
            // It is told to stop, which is no success.
            let pid = rustix::process::Pid::from_raw(job.id().try_into().unwrap()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
            job.wait().unwrap();
        }
        (events / 2) as f64 / taken
    };
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        without.push(backlog(false));
        with.push(backlog(true));
    }
    let (with, without) = (crate::measure::median(with), crate::measure::median(without));
    row(
        "the live lanes, beside a backfill of ClickHouse with --rate",
        &format!("{} events/s", round(with)),
        &format!("{} events/s, without it", round(without)),
        &format!("{:.2}", with / without),
        "≥ 0.85",
    );
    let share = crate::measure::median(shares);
    row("that backfill, of its own speed", &format!("{share:.2}"), "", "", "≥ 0.2");
}

/// Rows that the job that runs has written.
async fn written(stage: &Stage) -> f64 {
    let client = connect(&stage.postgres.url()).await;
    let sql = "SELECT coalesce(max(rows), 0)::float8 FROM job_runs WHERE ended_at IS NULL";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Jobs over many events: what they take, and how long.
pub(crate) fn memory() {
    let (stage, events) = staged();
    let spare = tempfile::tempdir().unwrap();
    let to = format!("file://{}", spare.path().display());
    let jobs: [&[&str]; 8] = [
        &["verify"],
        &["compact", "history"],
        &["rebuild", "read-models"],
        &["rebuild", "metrics"],
        &["rebuild", "history"],
        &["rebuild", "clickhouse"],
        &["backfill", "clickhouse"],
        &["archive", "events", "--to", &to],
    ];
    for args in jobs {
        let (seconds, most) = job(&stage, args);
        let what = format!("`weir {}`, {} events", args.join(" ").replace(&to, "URL"), round(events as f64));
        row(
            &what,
            &format!("{} MiB, {} events/s", round(most), round(events as f64 / seconds)),
            "",
            "",
            "under 512 MiB",
        );
    }
    let mut weir = stage.command(&["up"]).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(5));
    stop(&mut weir);
    assert!(stage.command(&["verify"]).status().unwrap().success(), "verify");
}
