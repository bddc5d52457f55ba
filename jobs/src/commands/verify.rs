//! `weir verify`

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use weir_engine::{BoxError, LaneKind};
use weir_verify::{Asked, Report, Stores};

use crate::attached::{Attached, Target};
use crate::output::{Format, Listing, complain};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Seconds, at most, that lanes which are at work get to pass what is there now
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,
}

pub(crate) async fn run(target: &Target, args: Args, format: Format) -> Result<ExitCode, BoxError> {
    let attached = target.attach().await?;
    let equal = show(&attached, Duration::from_secs(args.wait), format).await;
    attached.detach().await?;
    Ok(if equal? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Verifies and prints the table; whether every number agrees.
pub(crate) async fn show(attached: &Attached, wait: Duration, format: Format) -> Result<bool, BoxError> {
    let spill = attached.dir.spill()?;
    let (units, lanes) = (attached.settings.durations, attached.settings.enabled_lanes());
    let kafka = attached.settings.kafka.options();
    let clickhouse = attached.settings.clickhouse.server();
    let stores = Stores {
        database: &attached.database,
        history: &attached.history,
        kafka: kafka.as_ref(),
        clickhouse: clickhouse.as_ref(),
    };
    let asked = Asked { units, lanes: &lanes, wait, spill: &spill };
    let report = weir_verify::verify(stores, asked).await;
    std::fs::remove_dir_all(&spill)?;
    let report = report?;
    table(&report).print(format)?;
    for difference in &report.differences {
        complain(&format!("different: {difference}"));
    }
    let mut lanes: Vec<&str> =
        report.comparisons.iter().filter(|c| !c.is_equal()).map(|comparison| comparison.lane).collect();
    lanes.dedup();
    for lane in lanes {
        complain(&format!("to mend {lane}: {}", mend(lane)));
    }
    for note in &report.notes {
        complain(&format!("note: {note}"));
    }
    let cuts: Vec<_> = report.cuts.iter().map(|(lane, below)| format!("{lane} below {below}")).collect();
    for unreached in &report.unreached {
        complain(&format!("not there: {}: {}", unreached.part, unreached.words));
    }
    let missing: Vec<_> =
        report.unreached.iter().map(|u| format!("{} is at {} of {}", u.part, u.reached, u.end)).collect();
    let verdict = match (report.is_different(), missing.is_empty()) {
        (false, true) => "all equal".to_owned(),
        (false, false) => format!("NOT ALL COMPARED: what is there is equal, but {}", missing.join(", ")),
        (true, true) => "NOT EQUAL".to_owned(),
        (true, false) => format!("NOT EQUAL, and {}", missing.join(", ")),
    };
    complain(&format!("{verdict}; compared {}", cuts.join(", ")));
    Ok(report.is_equal())
}

/// What makes a sink equal again, whatever changed it. The runbook of WeirVerifyMismatch has the steps before and after.
fn mend(lane: &str) -> &'static str {
    match lane.parse() {
        Ok(LaneKind::ReadModels) => "`weir rebuild read-models` makes them again while they serve",
        Ok(LaneKind::Metrics) => "`weir rebuild metrics` counts again while they serve",
        Ok(LaneKind::ClickHouse) => {
            "`weir backfill clickhouse` inserts what is missing, `weir rebuild clickhouse` makes all of it again while it serves"
        }
        Ok(LaneKind::History) => {
            "`weir backfill history` writes what is missing, `weir rebuild history` makes all of it again while it serves"
        }
        Err(_) => "see what was written to the topics or to the table `events`, and by whom",
    }
}

fn table(report: &Report) -> Listing {
    let columns = [
        "lane",
        "subject",
        "source_count",
        "sink_count",
        "source_hash",
        "sink_hash",
        "dead_letters",
        "repeats",
        "equal",
    ];
    let mut rows = Listing::new(&columns);
    for c in &report.comparisons {
        // 32 digits twice would not fit a screen; 16 of them differ as surely.
        let short = |hash: &str| hash.get(..16).unwrap_or_default().to_owned();
        rows.rows.push(vec![
            json!(c.lane),
            json!(c.subject),
            json!(c.expected),
            json!(c.actual),
            json!(short(&c.expected_hash)),
            json!(short(&c.actual_hash)),
            json!(c.dead_letters),
            json!(c.repeats),
            json!(c.is_equal()),
        ]);
    }
    for unreached in &report.unreached {
        let (end, reached) = (json!(unreached.end), json!(unreached.reached));
        let nothing = || json!("");
        rows.rows.push(vec![
            json!(unreached.part),
            json!("(progress)"),
            end,
            reached,
            nothing(),
            nothing(),
            json!(0),
            json!(0),
            json!(false),
        ]);
    }
    rows
}
