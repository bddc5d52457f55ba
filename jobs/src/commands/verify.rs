//! `weir verify`

use std::process::ExitCode;

use serde_json::json;
use weir_engine::BoxError;
use weir_verify::{Report, Stores};

use crate::instance::{Attached, Place};
use crate::output::{Format, Rows, complain};

pub(crate) async fn run(place: &Place, format: Format) -> Result<ExitCode, BoxError> {
    let attached = place.attach().await?;
    let equal = show(&attached, format).await;
    attached.detach().await?;
    Ok(if equal? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Verifies and prints the table; whether every number agrees.
pub(crate) async fn show(attached: &Attached, format: Format) -> Result<bool, BoxError> {
    let spill = attached.dir.spill()?;
    let units = attached.settings.durations;
    let kafka = attached.settings.kafka.options();
    let clickhouse = attached.settings.clickhouse.server();
    let stores = Stores {
        database: &attached.database,
        history: &attached.history,
        kafka: kafka.as_ref(),
        clickhouse: clickhouse.as_ref(),
    };
    let report = weir_verify::verify(stores, units, &spill).await;
    std::fs::remove_dir_all(&spill)?;
    let report = report?;
    table(&report).print(format)?;
    for difference in &report.differences {
        complain(&format!("different: {difference}"));
    }
    for note in &report.notes {
        complain(&format!("note: {note}"));
    }
    let cuts: Vec<_> = report.cuts.iter().map(|(lane, below)| format!("{lane} below {below}")).collect();
    let verdict = if report.is_equal() { "all equal" } else { "NOT EQUAL" };
    complain(&format!("{verdict}; compared {}", cuts.join(", ")));
    Ok(report.is_equal())
}

fn table(report: &Report) -> Rows {
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
    let mut rows = Rows::new(&columns);
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
    rows
}
