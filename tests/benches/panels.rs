//! The dashboards' panels: how long each one's queries take over one and ten times as many events, and what lanes feel of twenty dashboards
//! that are looked at.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_postgres::Client;
use weir_model::EventType;
use weir_model::wire::samples;
use weir_tests::grafana::{ALL, Variables, clickhouse, expand, pages, postgres};
use weir_tests::weir::connect;
use weir_tests::{ClickHouse, Postgres, Prometheus, Weir};

use crate::fill::{events_or, fill, runtime};
use crate::measure::{median, round, row};

/// The smaller number of events, unless `WEIR_BENCH_EVENTS` says otherwise; and how many times as many there are then.
const EVENTS: i64 = 1_000_000;
const TIMES: i64 = 10;

const TURNS: usize = 3;

/// What a panel may take, in milliseconds, over the smaller number; and what it may take times that over the larger.
const MILLIS_MAX: f64 = 300.0;
const GROWTH_MAX: f64 = 3.0;

/// Panels named in a row.
const NAMED: usize = 12;

/// Of lanes beside dashboards: a backlog that lasts, how many look, how often, and for how long by turns they do and do not.
const BACKLOG: i64 = 6_000_000;
const DASHBOARDS: usize = 20;
const REFRESH: Duration = Duration::from_secs(5);
const WINDOW: Duration = Duration::from_secs(10);
const WINDOWS: usize = 4;

struct Stage {
    postgres: Postgres,
    clickhouse: ClickHouse,
    weir: Weir,
}

impl Stage {
    /// With so many events in the event store.
    async fn filled(events: i64) -> Self {
        let (postgres, clickhouse) = (Postgres::start(), ClickHouse::start());
        let weir = Weir::new().on(&postgres.url()).with_all(clickhouse.settings());
        weir.ok(&["up", "--until-caught-up"]);
        fill(&postgres.url(), events).await;
        Self { postgres, clickhouse, weir }
    }

    /// Asks for what a target shows; `false` where the store refuses, as ClickHouse does beyond the reader's memory.
    async fn answer(
        &self,
        client: &Client,
        prometheus: Option<&Prometheus>,
        target: &Value,
        variables: &Variables,
    ) -> bool {
        let source = target["datasource"]["uid"].as_str().unwrap();
        let text = target["rawSql"].as_str().or_else(|| target["expr"].as_str()).unwrap();
        let query = expand(text, variables);
        match source {
            "weir-postgres" => postgres(client, &query).await.is_ok(),
            "weir-clickhouse" => clickhouse(&self.clickhouse, &query).await.is_ok(),
            _ => {
                if let Some(prometheus) = prometheus {
                    prometheus.query(&query).await;
                }
                true
            }
        }
    }
}

/// Of what [`fill`] makes.
fn variables() -> Variables {
    let session = samples::one(EventType::LearningSessionStarted);
    let path = session["learningPathId"].as_str().unwrap().to_owned();
    BTreeMap::from([
        ("tenant", ALL.to_owned()),
        ("assessment", ALL.to_owned()),
        ("lane", ".*".to_owned()),
        ("days", "14".to_owned()),
        ("user", "user-6".to_owned()),
        ("path", path.clone()),
        ("other", path),
    ])
}

/// Milliseconds of each panel; without end for one that is refused.
async fn times(events: i64) -> BTreeMap<String, f64> {
    let stage = Stage::filled(events).await;
    stage.weir.ok(&["up", "--until-caught-up"]);
    stage.weir.ok(&["jobs", "run", "workflows"]);
    let up = stage.weir.up();
    let prometheus = Prometheus::watching(&up);
    // Parts are merged, tables analysed, and there are some scrapes.
    let client = connect(&stage.postgres.url()).await;
    client.batch_execute("VACUUM ANALYZE").await.unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    let (mut times, variables) = (BTreeMap::new(), variables());
    for (uid, page) in pages() {
        for panel in page["panels"].as_array().unwrap() {
            let mut turns = Vec::new();
            for turn in 0..=TURNS {
                let began = Instant::now();
                let mut is_shown = true;
                for target in panel["targets"].as_array().unwrap() {
                    is_shown &= stage.answer(&client, Some(&prometheus), target, &variables).await;
                }
                if turn > 0 {
                    turns.push(if is_shown { 1000.0 * began.elapsed().as_secs_f64() } else { f64::INFINITY });
                }
            }
            times.insert(format!("{uid}: {}", panel["title"].as_str().unwrap()), median(turns));
        }
    }
    drop(prometheus);
    up.terminate();
    times
}

/// The largest first, some of them by name.
fn named(mut figures: Vec<(String, f64)>, unit: &str) -> String {
    figures.sort_by(|a, b| b.1.total_cmp(&a.1));
    let rest = figures.len().saturating_sub(NAMED);
    figures.truncate(NAMED);
    let words: Vec<String> = figures.iter().map(|(name, figure)| format!("{name} {figure:.1}{unit}")).collect();
    if rest > 0 { format!("{}, and {rest} more", words.join(", ")) } else { words.join(", ") }
}

pub(crate) fn run() {
    let events = events_or(EVENTS);
    let small = runtime().block_on(times(events));
    let large = runtime().block_on(times(TIMES * events));
    let above = |times: &BTreeMap<String, f64>| -> Vec<(String, f64)> {
        times.iter().filter(|(_, time)| **time > MILLIS_MAX).map(|(name, time)| (name.clone(), *time)).collect()
    };
    for (count, times) in [(events, &small), (TIMES * events, &large)] {
        let over = above(times);
        row(
            &format!("{} panels over {} events, the slowest", times.len(), round(count as f64)),
            &format!(
                "{} ms, {} ms in the middle",
                round(times.values().copied().fold(0.0, f64::max)),
                round(median(times.values().copied().collect()))
            ),
            "",
            &format!("{} above {MILLIS_MAX} ms: {}", over.len(), named(over, " ms")),
            "≤ 300 ms at 1,000,000",
        );
    }
    // Below a few milliseconds it is the way there and back.
    let growth = |name: &String, time: &f64| time.max(5.0) / small[name].max(5.0);
    let all: Vec<(String, f64)> = large.iter().map(|(name, time)| (name.clone(), growth(name, time))).collect();
    let over: Vec<(String, f64)> = all.iter().filter(|(_, growth)| *growth >= GROWTH_MAX).cloned().collect();
    row(
        "panels over ten times as many events",
        &format!("{:.1} times as long in the middle", median(all.into_iter().map(|(_, growth)| growth).collect())),
        "",
        &format!("{} above {GROWTH_MAX} times: {}", over.len(), named(over, "")),
        "below 3 each",
    );
}

/// Events a second of the slowest lane.
async fn rate(client: &Client, time: Duration) -> f64 {
    let place = async || -> i64 {
        let sql = "SELECT coalesce(min(next_offset), 0) FROM ledger WHERE retired_at IS NULL";
        client.query_one(sql, &[]).await.unwrap().get(0)
    };
    let (before, began) = (place().await, Instant::now());
    tokio::time::sleep(time).await;
    (place().await - before) as f64 / began.elapsed().as_secs_f64()
}

/// Refreshes one dashboard, as long as somebody looks.
async fn look(stage: &Stage, page: &Value, is_on: &AtomicBool, refreshed: &AtomicU64) {
    let (client, variables) = (connect(&stage.postgres.url()).await, variables());
    loop {
        let began = Instant::now();
        if is_on.load(Ordering::Relaxed) {
            for panel in page["panels"].as_array().unwrap() {
                for target in panel["targets"].as_array().unwrap() {
                    stage.answer(&client, None, target, &variables).await;
                }
            }
            refreshed.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(REFRESH.saturating_sub(began.elapsed()).max(Duration::from_millis(100))).await;
    }
}

pub(crate) fn beside() {
    runtime().block_on(async {
        let stage = Arc::new(Stage::filled(events_or(BACKLOG)).await);
        let up = stage.weir.up();
        let client = connect(&stage.postgres.url()).await;
        while rate(&client, Duration::from_secs(1)).await <= 0.0 {}
        tokio::time::sleep(WINDOW).await;
        let (is_on, refreshed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let pages = pages();
        let looking: Vec<_> = (0..DASHBOARDS)
            .map(|n| {
                let (stage, is_on, refreshed) = (stage.clone(), is_on.clone(), refreshed.clone());
                let page = pages[n % pages.len()].1.clone();
                tokio::spawn(async move { look(&stage, &page, &is_on, &refreshed).await })
            })
            .collect();
        let (mut with, mut without, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..WINDOWS {
            let alone = rate(&client, WINDOW).await;
            is_on.store(true, Ordering::Relaxed);
            let beside = rate(&client, WINDOW).await;
            is_on.store(false, Ordering::Relaxed);
            tokio::time::sleep(REFRESH).await;
            with.push(beside);
            without.push(alone);
            ratios.push(beside / alone);
        }
        looking.iter().for_each(tokio::task::JoinHandle::abort);
        row(
            &format!(
                "the slowest lane, beside {DASHBOARDS} dashboards that refresh every {} s ({} refreshes)",
                REFRESH.as_secs(),
                refreshed.load(Ordering::Relaxed)
            ),
            &format!("{} events/s", round(median(with))),
            &format!("{} events/s without them", round(median(without))),
            &format!("{:.2}", median(ratios)),
            "≥ 0.9",
        );
        drop(up);
    });
}
