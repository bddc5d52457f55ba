//! ClickHouse: one block of columns against the official client's row formats, from decoded events on, in CPU of client and server
//! together; the whole lane against sending blocks ready made; what the lane adds to resident memory; and what FINAL costs.

use std::time::{Duration, Instant};

use clickhouse::Row;
use serde::{Serialize, Serializer};
use weir_clickhouse::{Block, ClickHouseSink};
use weir_engine::{BatchLimits, Lane, Located};
use weir_model::cells::{Cell, split};
use weir_model::columns::ColumnType;
use weir_model::data::FieldValue;
use weir_postgres::{Ledger, RecordPolicy};
use weir_tests::ClickHouse;

use crate::fill::{filled, runtime};
use crate::lanes::{decoded, drive};
use crate::measure::{median, pairs, round, row};
use crate::memory::Backlog;

const EVENTS: i64 = 100_000;
const LANE_EVENTS: i64 = 200_000;
/// Of the questions.
const READ: i64 = 500_000;
const BLOCK: usize = 50_000;
const TURNS: usize = 5;

/// A time in the row formats: ticks in the binary one, text in JSON.
struct Millis(i64);

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            let text = weir_model::Timestamp::from_millis(self.0).unwrap().to_string();
            return serializer.serialize_str(text.trim_end_matches('Z'));
        }
        serializer.serialize_i64(self.0)
    }
}

/// The columns of `events_stored`.
#[derive(Row, Serialize)]
struct EventRow {
    event_type: String,
    event_id: String,
    schema_version: String,
    timestamp: Millis,
    recorded_at: Option<Millis>,
    producer: String,
    tenant: String,
    aggregate_type: String,
    aggregate_id: String,
    aggregate_version: Option<i64>,
    position: Option<i64>,
    causation_id: Option<String>,
    correlation_id: Option<String>,
    actor_id: Option<String>,
    source: String,
    topic: String,
    partition: i64,
    offset: i64,
    user_id: Option<String>,
    email: Option<String>,
    username: Option<String>,
    registration_source: Option<String>,
    reason: Option<String>,
    content_id: Option<String>,
    content_type: Option<String>,
    file_name: Option<String>,
    file_size: Option<i64>,
    mime_type: Option<String>,
    file_url: Option<String>,
    processing_type: Option<String>,
    status: Option<String>,
    processing_duration: Option<f64>,
    session_id: Option<String>,
    learning_path_id: Option<String>,
    module_id: Option<String>,
    assessment_id: Option<String>,
    score: Option<f64>,
    max_score: Option<f64>,
    passed: Option<bool>,
    time_spent: Option<f64>,
    task_id: Option<String>,
    agent_id: Option<String>,
    agent_type: Option<String>,
    task_type: Option<String>,
    priority: Option<String>,
    expected_duration: Option<f64>,
    deadline: Option<Millis>,
    execution_time: Option<f64>,
    data_timestamp: Option<Millis>,
    extra: String,
    data: String,
    nested: u32,
    nested_places: Vec<u32>,
}

/// Where the nested values of an event are in its canonical text: a bit for each, place and length.
fn nested(event: &weir_model::Event) -> (u32, Vec<u32>) {
    let columns = weir_model::columns::COLUMNS.iter().enumerate().filter(|(_, c)| c.column_type == ColumnType::Json);
    let bits: Vec<usize> = columns.map(|(index, _)| index).collect();
    let mut found: Vec<(usize, u32, u32)> = Vec::new();
    for (_, column, value) in event.data.iter_canonical() {
        let (Some((index, _)), FieldValue::Nested(text)) = (column, value) else { continue };
        let Some(bit) = bits.iter().position(|of_bit| *of_bit == index) else { continue };
        let place = event.data.place_in_canonical(text).unwrap();
        found.push((bit, place.start as u32 + 1, place.len() as u32));
    }
    found.sort_unstable();
    let bits = found.iter().map(|(bit, ..)| 1 << bit).sum();
    (bits, found.into_iter().flat_map(|(_, start, length)| [start, length]).collect())
}

/// The next cell, if it is there.
fn text(cells: &mut impl Iterator<Item = Option<Cell>>) -> Option<String> {
    match cells.next().flatten() {
        Some(Cell::Text(text)) => Some(text),
        _ => None,
    }
}

fn double(cells: &mut impl Iterator<Item = Option<Cell>>) -> Option<f64> {
    match cells.next().flatten() {
        Some(Cell::Double(n)) => Some(n),
        _ => None,
    }
}

fn integer(cells: &mut impl Iterator<Item = Option<Cell>>) -> Option<i64> {
    match cells.next().flatten() {
        Some(Cell::Integer(n)) => Some(n),
        _ => None,
    }
}

fn boolean(cells: &mut impl Iterator<Item = Option<Cell>>) -> Option<bool> {
    match cells.next().flatten() {
        Some(Cell::Boolean(b)) => Some(b),
        _ => None,
    }
}

fn millis(cells: &mut impl Iterator<Item = Option<Cell>>) -> Option<Millis> {
    match cells.next().flatten() {
        Some(Cell::Timestamp(at)) => Some(Millis(at)),
        _ => None,
    }
}

impl EventRow {
    fn of(Located { record, event, .. }: &Located) -> Self {
        let (cells, rest) = split(&event.data);
        let of_column = cells.into_iter().zip(weir_model::columns::COLUMNS);
        let mut cells = of_column.filter(|(_, column)| column.column_type != ColumnType::Json).map(|(cell, _)| cell);
        let (bits, nested_places) = nested(event);
        let id = |id: &Option<_>| id.as_ref().map(ToString::to_string);
        Self {
            event_type: event.event_type.as_str().to_owned(),
            event_id: event.event_id.as_str().to_owned(),
            schema_version: event.schema_version.to_string(),
            timestamp: Millis(event.timestamp.as_millis()),
            recorded_at: event.recorded_at.map(|at| Millis(at.as_millis())),
            producer: event.source.to_string(),
            tenant: event.tenant.as_str().to_owned(),
            aggregate_type: event.stream.aggregate_type().as_str().to_owned(),
            aggregate_id: event.stream.aggregate_id().to_owned(),
            aggregate_version: event.version,
            position: event.position.map(|position| position.0),
            causation_id: id(&event.metadata.causation_id),
            correlation_id: id(&event.metadata.correlation_id),
            actor_id: id(&event.metadata.user_id),
            source: record.partition.source.to_string(),
            topic: record.partition.topic.to_string(),
            partition: record.partition.number.into(),
            offset: record.offset,
            user_id: text(&mut cells),
            email: text(&mut cells),
            username: text(&mut cells),
            registration_source: text(&mut cells),
            reason: text(&mut cells),
            content_id: text(&mut cells),
            content_type: text(&mut cells),
            file_name: text(&mut cells),
            file_size: integer(&mut cells),
            mime_type: text(&mut cells),
            file_url: text(&mut cells),
            processing_type: text(&mut cells),
            status: text(&mut cells),
            processing_duration: double(&mut cells),
            session_id: text(&mut cells),
            learning_path_id: text(&mut cells),
            module_id: text(&mut cells),
            assessment_id: text(&mut cells),
            score: double(&mut cells),
            max_score: double(&mut cells),
            passed: boolean(&mut cells),
            time_spent: double(&mut cells),
            task_id: text(&mut cells),
            agent_id: text(&mut cells),
            agent_type: text(&mut cells),
            task_type: text(&mut cells),
            priority: text(&mut cells),
            expected_duration: double(&mut cells),
            deadline: millis(&mut cells),
            execution_time: double(&mut cells),
            data_timestamp: millis(&mut cells),
            extra: weir_model::canonical::object_text(&rest),
            data: event.canonical_data().to_owned(),
            nested: bits,
            nested_places,
        }
    }
}

/// Seconds of CPU that a process has used (`proc(5)`: user and system time, in hundredths).
fn cpu(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    [11, 12].iter().map(|index| fields[*index].parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

fn client(server: &ClickHouse) -> clickhouse::Client {
    clickhouse::Client::default()
        .with_url(server.url())
        .with_user("weir")
        .with_password(weir_tests::clickhouse::PASSWORD)
        .with_database("weir")
        .with_setting("async_insert", "0")
        .with_setting("max_partitions_per_insert_block", "0")
        // What is compared is the format, not the check of a schema before it.
        .with_validation(false)
}

/// Rows by CPU second of this process and the server.
async fn per_cpu(server: &ClickHouse, rows: usize, work: impl AsyncFnOnce()) -> f64 {
    server.sql("TRUNCATE TABLE weir.events_stored SYNC").await;
    let before = cpu(std::process::id()) + cpu(server.pid());
    work().await;
    let used = cpu(std::process::id()) + cpu(server.pid()) - before;
    rows as f64 / used
}

pub(crate) fn insert() {
    let (server, runtime) = (ClickHouse::start(), runtime());
    let (_postgres, database) = runtime.block_on(filled(EVENTS));
    let ours = weir_clickhouse::ClickHouse::new(server.options());
    runtime.block_on(ours.migrate(&database)).unwrap();
    // Merges belong to no single insert.
    runtime.block_on(server.sql("SYSTEM STOP MERGES weir.events_stored"));
    let events = runtime.block_on(decoded(&database, EVENTS));
    let events: Vec<&Located> = events.iter().collect();
    // The stricter floor: conversion into rows is not counted for it, as it is for ours.
    let ready: Vec<EventRow> = events.iter().map(|located| EventRow::of(located)).collect();
    let client = client(&server);
    let mut found: [Vec<f64>; 5] = Default::default();
    for turn in 0..=TURNS {
        let figures = runtime.block_on(async {
            let native = per_cpu(&server, events.len(), async || {
                for block in events.chunks(BLOCK) {
                    ours.insert(Block::of(block, &[], |_| 1).pieces()).await.unwrap();
                }
            });
            let native = native.await;
            let decoded = || events.chunks(BLOCK).map(|block| block.iter().map(|located| EventRow::of(located)));
            let made = || ready.chunks(BLOCK).map(<[EventRow]>::iter);
            let binary = per_cpu(&server, events.len(), async || insert_binary(&client, decoded()).await).await;
            let json = per_cpu(&server, events.len(), async || insert_json(&client, decoded()).await).await;
            let binary_made = per_cpu(&server, events.len(), async || insert_binary(&client, made()).await).await;
            let json_made = per_cpu(&server, events.len(), async || insert_json(&client, made()).await).await;
            [native, binary, json, binary_made, json_made]
        });
        if turn > 0 {
            found.iter_mut().zip(figures).for_each(|(found, figure)| found.push(figure));
        }
    }
    let [native, floors @ ..] = found.map(median);
    let names = [
        ("the client's RowBinary", "≥ 1.4"),
        ("JSONEachRow", "≥ 3"),
        ("the client's RowBinary, rows ready made", ""),
        ("JSONEachRow, rows ready made", ""),
    ];
    for (floor, (name, goal)) in floors.into_iter().zip(names) {
        row(
            "insert decoded events into ClickHouse",
            &format!("{} rows a CPU second, client and server", round(native)),
            &format!("{} rows, {name}", round(floor)),
            &format!("{:.2}", native / floor),
            goal,
        );
    }
}

/// Blocks by the client's own row format.
async fn insert_binary<R: std::borrow::Borrow<EventRow>>(
    client: &clickhouse::Client,
    blocks: impl Iterator<Item = impl Iterator<Item = R>>,
) {
    for block in blocks {
        let mut insert = client.insert::<EventRow>("events_stored").await.unwrap();
        for row in block {
            insert.write(row.borrow()).await.unwrap();
        }
        insert.end().await.unwrap();
    }
}

/// Blocks as a line of JSON for each row.
async fn insert_json<R: std::borrow::Borrow<EventRow>>(
    client: &clickhouse::Client,
    blocks: impl Iterator<Item = impl Iterator<Item = R>>,
) {
    for block in blocks {
        let sql = "INSERT INTO events_stored FORMAT JSONEachRow";
        let mut insert = client.insert_formatted_with(sql).buffered_with_capacity(1 << 20);
        for row in block {
            insert.write_buffered(&serde_json::to_vec(row.borrow()).unwrap());
            if insert.buf_len() > 1 << 20 {
                insert.flush().await.unwrap();
            }
        }
        insert.end().await.unwrap();
    }
}

/// As `default.toml` has it; but the last batch does not wait a second to be full.
fn lane_by_default(name: &str) -> Lane {
    let limits = BatchLimits { records_max: BLOCK, bytes_max: 20 << 20, flush_interval: Duration::from_millis(300) };
    Lane { name: name.to_owned(), limits, poll_records_max: 4000, filter: None }
}

pub(crate) fn whole_lane() {
    let (server, runtime) = (ClickHouse::start(), runtime());
    let (_postgres, database) = runtime.block_on(filled(LANE_EVENTS));
    let ours = weir_clickhouse::ClickHouse::new(server.options());
    runtime.block_on(ours.migrate(&database)).unwrap();
    let events = runtime.block_on(decoded(&database, LANE_EVENTS));
    let events: Vec<&Located> = events.iter().collect();
    let blocks: Vec<Vec<_>> =
        events.chunks(BLOCK).map(|block| Block::of(block, &[], |_| 1).pieces().collect()).collect();
    let mut turn = 0;
    let lane_rate = || {
        turn += 1;
        let name = format!("clickhouse-{turn}");
        runtime.block_on(async {
            server.sql("TRUNCATE TABLE weir.events_stored SYNC").await;
            let ledger = Ledger::new(name.clone(), "bench");
            let sink = ClickHouseSink::new(ours.clone(), database.clone(), ledger, RecordPolicy::default());
            drive(&database, lane_by_default(&name), sink, LANE_EVENTS).await
        })
    };
    let floor = || {
        runtime.block_on(async {
            server.sql("TRUNCATE TABLE weir.events_stored SYNC").await;
            let started = Instant::now();
            for block in &blocks {
                ours.insert(block.iter().cloned()).await.unwrap();
            }
            LANE_EVENTS as f64 / started.elapsed().as_secs_f64()
        })
    };
    let pairs = pairs(TURNS, lane_rate, floor);
    pairs.row("clickhouse lane, event store to rollups", "events/s", "the same blocks ready made", "≥ 0.5");
}

pub(crate) fn reading() {
    let (server, runtime) = (ClickHouse::start(), runtime());
    let (_postgres, database) = runtime.block_on(filled(READ));
    let ours = weir_clickhouse::ClickHouse::new(server.options());
    let ledger = Ledger::new("clickhouse".to_owned(), "bench");
    runtime.block_on(async {
        let sink = ClickHouseSink::new(ours.clone(), database.clone(), ledger, RecordPolicy::default());
        drive(&database, lane_by_default("clickhouse"), sink, READ).await;
        server.sql("OPTIMIZE TABLE weir.events_stored FINAL").await;
    });
    let rate = |from: &str| {
        let sql = format!("SELECT event_type, count(), sum(score), uniqExact(user_id) FROM {from} GROUP BY event_type");
        let started = Instant::now();
        runtime.block_on(server.sql(&sql));
        READ as f64 / started.elapsed().as_secs_f64()
    };
    let pairs = pairs(4 * TURNS, || rate("weir.analytics_events"), || rate("weir.events_stored"));
    pairs.row(
        "a question to the view, merged data",
        "events/s",
        "the same to the table without FINAL",
        "≥ 0.77 (1.3 of the time)",
    );
}

pub(crate) fn memory() {
    const BACKLOG: i64 = 1_000_000;
    let server = ClickHouse::start();
    let alone = Backlog::of(BACKLOG).run(&["up", "--until-caught-up"]);
    let settings = server.settings();
    let mut args = vec!["up", "--until-caught-up"];
    for setting in &settings {
        args.extend(["--set", setting]);
    }
    let with = Backlog::of(BACKLOG).run(&args);
    row(
        "resident memory, 1,000,000 events, with the lane clickhouse",
        &format!("{} MiB", round(with.mebibytes)),
        &format!("{} MiB without", round(alone.mebibytes)),
        &format!("+{} MiB", round(with.mebibytes - alone.mebibytes)),
        "≤ +150 MiB",
    );
}
