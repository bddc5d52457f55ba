//! Liveness, readiness, metrics. Open to each client that reaches the address: they hold no tenant's data, and words about trouble, which name
//! servers and files, are for admins.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use prometheus::{Encoder, TextEncoder};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;
use weir_engine::{COMMANDS, LanePhase, LaneStatus, PUBLISHER, SQL, metric, observed};
use weir_postgres::job_runs::OUTCOMES;
use weir_postgres::metric_totals::MetricTotals;
use weir_postgres::tokens::Scope;
use weir_postgres::{Ledger, dead_letters, job_runs, parts, repeats};

use crate::auth::authenticate;
use crate::{Api, Problem};

/// A lane with a lag that has not moved for this long is not ready.
const STALLED_AFTER: Duration = Duration::from_secs(30);

/// A gauge that was not set for so long is not shown any more.
const GAUGES_KEPT: Duration = Duration::from_secs(60);

/// How often observations of histograms are counted.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Installs this process's recorder, within a runtime. Histograms get buckets; without, the exporter would make summaries of them.
pub fn exporter() -> Result<PrometheusHandle, BuildError> {
    const SECONDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];
    const RECORDS: [f64; 8] = [1.0, 10.0, 100.0, 500.0, 1000.0, 5000.0, 20_000.0, 100_000.0];
    const COMMANDS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_commands".to_owned()), &COMMANDS)?
        .set_buckets_for_metric(Matcher::Suffix("_records".to_owned()), &RECORDS)?
        // A partition that another process took over is no longer this one's to report.
        .idle_timeout(MetricKindMask::GAUGE, Some(GAUGES_KEPT))
        .install_recorder()?;
    metric::describe();
    metrics::counter!("weir_http_connections_refused_total").increment(0);
    metrics_process::Collector::default().describe();
    let upkeep = handle.clone();
    // What histograms have observed is kept until it is counted: whether anyone asks or not.
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP_EVERY).await;
            upkeep.run_upkeep();
        }
    });
    Ok(handle)
}

/// The process answers.
pub(crate) async fn livez() -> &'static str {
    "ok\n"
}

/// A publisher that stands by is as well as one that works.
fn advancing(part: &LaneStatus) -> bool {
    match part.phase {
        LanePhase::Running => part.lag() == 0 || part.advanced_at.elapsed() < STALLED_AFTER,
        LanePhase::StandingBy => true,
        LanePhase::Starting | LanePhase::Waiting | LanePhase::Stopped => false,
    }
}

/// Every part of this process, lanes, publisher and command side, is at work and advancing. Strangers see which is not; who sends an
/// admin's token sees how far each is and what it waits for.
pub(crate) async fn readyz(State(api): State<Arc<Api>>, headers: HeaderMap) -> Result<Response, Problem> {
    let in_detail = match headers.contains_key(header::AUTHORIZATION) {
        false => false,
        true => match authenticate(&api, &headers, Scope::Admin).await {
            Ok(_) => true,
            // It cannot be told whose token it is while the database is what is away.
            Err(problem) if problem.is_unavailable() => false,
            Err(problem) => return Err(problem),
        },
    };
    let mut parts = api.board.read();
    let ready = !parts.is_empty() && parts.values().all(advancing);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let shown = |part: &LaneStatus| {
        let mut shown = json!({"ready": advancing(part), "phase": part.phase.as_str()});
        if in_detail {
            shown["nextOffset"] = part.next_offset.into();
            shown["lag"] = part.lag().into();
            shown["trouble"] = json!(part.trouble);
        }
        shown
    };
    let publisher = parts.remove(PUBLISHER).map(|part| shown(&part));
    let commands = parts.remove(COMMANDS).map(|part| shown(&part));
    let sql = parts.remove(SQL).map(|part| shown(&part));
    let lanes: serde_json::Map<_, _> = parts.iter().map(|(name, lane)| (name.clone(), shown(lane))).collect();
    let body = json!({"ready": ready, "lanes": lanes, "publisher": publisher, "commands": commands, "sql": sql});
    Ok((status, Json(body)).into_response())
}

/// What was last scraped, for those who asked before it was begun: any number of them takes one connection of the database.
#[derive(Debug, Clone, Default)]
pub struct Scraped(Arc<Mutex<Option<(Instant, Bytes)>>>);

/// The committed totals, the same from every process, and this process's own metrics.
pub(crate) async fn metrics(State(api): State<Arc<Api>>) -> Response {
    let asked = Instant::now();
    let mut last = api.scraped.0.lock().await;
    let text = match last.as_ref() {
        Some((begun, text)) if *begun >= asked => text.clone(),
        _ => {
            let begun = Instant::now();
            let text = Bytes::from(scrape(&api).await);
            *last = Some((begun, text.clone()));
            text
        }
    };
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// What does not change while a process runs is said again, since a gauge that was not set for a while is not shown.
fn say_process(api: &Api) {
    metrics::gauge!(metric::BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    metrics_process::Collector::default().collect();
    for (topic, kept) in &api.retention {
        metrics::gauge!("weir_topic_retention_seconds", "topic" => topic.clone()).set(kept.as_secs_f64());
    }
    if let Ok(disk) = rustix::fs::statvfs(&api.data_dir) {
        let bytes = |blocks: u64| as_double(i64::try_from(blocks.saturating_mul(disk.f_frsize)).unwrap_or(i64::MAX));
        metrics::gauge!("weir_data_dir_free_bytes").set(bytes(disk.f_bavail));
        metrics::gauge!("weir_data_dir_size_bytes").set(bytes(disk.f_blocks));
    }
    for (state, count) in api.database.connections() {
        metrics::gauge!(metric::POOL, "state" => state).set(as_double(i64::try_from(count).unwrap_or(i64::MAX)));
    }
}

async fn scrape(api: &Api) -> String {
    say_process(api);
    for (name, part) in api.board.read() {
        for phase in LanePhase::ALL {
            let labels = [("part", name.clone()), ("phase", phase.as_str().to_owned())];
            metrics::gauge!("weir_part_phase", &labels).set(if part.phase == phase { 1.0 } else { 0.0 });
        }
    }
    let lanes = api.board.lanes();
    let names: Vec<String> = lanes.keys().cloned().collect();
    for (name, lane) in lanes {
        metrics::gauge!("weir_lane_lag_records", "lane" => name.clone()).set(as_double(lane.lag()));
        metrics::gauge!("weir_lane_next_offset", "lane" => name.clone()).set(as_double(lane.next_offset));
        // A lane that could not even claim knows no lag.
        let waits = lane.trouble.is_some();
        metrics::gauge!("weir_lane_waiting", "lane" => name).set(if waits { 1.0 } else { 0.0 });
    }
    let totals = async {
        let client = api.database.get().await?;
        let letters = dead_letters::counts(&**client).await?;
        let repeated = repeats::counts(&**client).await?;
        let skipped = Ledger::skipped(&**client).await?;
        for lane in names {
            let kept = letters.get(&lane).copied().unwrap_or(0);
            metrics::gauge!("weir_dead_letters", "lane" => lane.clone()).set(as_double(kept));
            // 0 from the start: what begins with its first increment shows no increase.
            let records = skipped.get(&lane).copied().unwrap_or(0);
            metrics::gauge!("weir_lane_skipped_records", "lane" => lane.clone()).set(as_double(records));
            let left_out = repeated.get(&lane).copied().unwrap_or(0);
            metrics::counter!("weir_lane_repeats_total", "lane" => lane).absolute(u64::try_from(left_out).unwrap_or(0));
        }
        for run in job_runs::last(&**client).await? {
            let labels = [("name", run.job.clone())];
            // A run that found a difference is another thing than one that could not be done.
            for outcome in OUTCOMES {
                let labels = [("name", run.job.clone()), ("outcome", outcome.to_owned())];
                let is_it = run.outcome.as_deref() == Some(outcome);
                metrics::gauge!("weir_job_last_outcome", &labels).set(if is_it { 1.0 } else { 0.0 });
            }
            let took = run.ended_at.map_or(0, |at| at.as_second() - run.started_at.as_second());
            metrics::gauge!("weir_job_last_duration_seconds", &labels).set(as_double(took));
            let ended = run.ended_at.map_or(0, |at| at.as_second());
            metrics::gauge!("weir_job_last_end_timestamp_seconds", &labels).set(as_double(ended));
        }
        for (name, at) in job_runs::last_ok(&**client).await? {
            metrics::gauge!("weir_job_last_ok_timestamp_seconds", "name" => name).set(as_double(at.as_second()));
        }
        // Told by the database, for those that cannot tell any more: the same from every process.
        for (part, count) in parts::silent(&**client, &api.parts).await? {
            metrics::gauge!("weir_part_silent_processes", "part" => part).set(as_double(count));
        }
        for (part, count) in parts::live(&**client, &api.parts).await? {
            metrics::gauge!("weir_part_live_processes", "part" => part).set(as_double(count));
        }
        MetricTotals::read(&**client).await?.render()
    };
    // Without the database there are no totals: a zero in their place would look like a reset.
    let (up, totals) = match totals.await {
        Ok(text) => (1.0, text),
        Err(_) => (0.0, String::new()),
    };
    metrics::gauge!("weir_totals_readable").set(up);
    let mut observed = Vec::new();
    // Into memory.
    drop(TextEncoder::new().encode(&observed::families(), &mut observed));
    format!("{totals}{}{}", api.process_metrics.render(), String::from_utf8_lossy(&observed))
}

#[allow(clippy::as_conversions, reason = "Prometheus values are doubles by definition")]
fn as_double(n: i64) -> f64 {
    n as f64
}
