//! `weir backfill clickhouse|history`

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde_json::json;
use weir_engine::BoxError;
use weir_postgres::job_run::Progress;

use super::jobs::run_here;
use crate::attached::{Attached, Target};
use crate::job::Job;
use crate::output::{Format, Listing, complain};
use crate::runner::Ask;
use crate::work::{Backfill, Reprocess, SliceLength, Source, Work, notes};

/// Rows a second that a plan reckons with, from the benchmark.
const ROWS_PER_SECOND: u64 = 50_000;

/// Bytes of a row in ClickHouse that a plan reckons with.
const BYTES_PER_ROW: u64 = 120;

/// What is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Sink {
    /// The rows of ClickHouse
    Clickhouse,
    /// The rows of history
    History,
    #[value(hide = true)]
    ReadModels,
    #[value(hide = true)]
    Metrics,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What is filled
    sink: Sink,
    /// Recorded at or after: 2024-01-31, its midnight UTC, or 2024-01-31T10:00:00Z; or at this position of the event store and above
    #[arg(long, value_name = "TIME|POSITION")]
    from: Option<String>,
    /// Recorded before; or below this position
    #[arg(long, value_name = "TIME|POSITION")]
    to: Option<String>,
    /// Of this type only; may be given again
    #[arg(long = "event-type", value_name = "TYPE")]
    event_types: Vec<String>,
    /// Of this tenant only
    #[arg(long)]
    tenant: Option<String>,
    /// Out of what; without it ClickHouse out of history, and history out of event store and topics
    #[arg(long, value_enum)]
    source: Option<Source>,
    /// Which rows
    #[arg(long, value_enum, default_value = "missing")]
    reprocess: Reprocess,
    /// How long a slice is at most; without it as long as it has few enough rows
    #[arg(long, value_enum)]
    slice: Option<SliceLength>,
    /// Slices that are filled at a time
    #[arg(long, default_value_t = 1)]
    concurrency: usize,
    /// Rows a second at most
    #[arg(long)]
    rate: Option<u64>,
    /// The newest slice first
    #[arg(long)]
    newest_first: bool,
    /// Print the slices, rows and the time that they may take, and fill none
    #[arg(long)]
    dry_run: bool,
    /// A second request with the same key is the first: it runs nothing, and ends as that did
    #[arg(long, value_name = "KEY")]
    run_key: Option<String>,
}

pub(crate) async fn run(target: &Target, args: Args, format: Format) -> Result<ExitCode, BoxError> {
    let job = match args.sink {
        Sink::Clickhouse => Job::BackfillClickhouse,
        Sink::History => Job::BackfillHistory,
        Sink::ReadModels => return Err(refuse("read-models")),
        Sink::Metrics => return Err(refuse("metrics")),
    };
    let asked = Backfill {
        from: args.from,
        to: args.to,
        event_types: args.event_types,
        tenant: args.tenant,
        source: args.source,
        reprocess: args.reprocess,
        slice: args.slice,
        concurrency: Some(args.concurrency),
        rate: args.rate,
        newest_first: args.newest_first,
    };
    if job == Job::BackfillHistory {
        asked.fill()?;
    } else {
        asked.check()?;
    }
    let attached = target.attach().await?;
    let done = match args.dry_run {
        true if job == Job::BackfillHistory => Box::pin(plan_of_history(&attached, &asked, format)).await,
        true => Box::pin(plan(&attached, &asked, format)).await,
        false => {
            let ask = Ask { run_key: args.run_key, ..Ask::now(job, json!(asked)) };
            Box::pin(run_here(&attached, ask)).await
        }
    };
    attached.detach().await?;
    done
}

fn refuse(sink: &str) -> BoxError {
    format!("{sink} add up what they read, and a row that comes again would count twice: `weir rebuild {sink}` makes them again").into()
}

async fn plan(attached: &Attached, asked: &Backfill, format: Format) -> Result<ExitCode, BoxError> {
    if let Some(from) = asked.fill_from() {
        let done = Work::new(attached).fill_clickhouse(asked, from, &Progress::default(), None).await?;
        return print_missing(&done.by_type, (done.rows, done.looked_at), &done.notes, format);
    }
    let (slices, rows) = Work::new(attached).backfill_plan(asked).await?;
    let mut listing = Listing::new(&["from", "to", "rows"]);
    listing.rows = slices
        .iter()
        .map(|slice| vec![json!(slice.from.to_string()), json!(slice.to.to_string()), json!(slice.rows)])
        .collect();
    listing.print(format)?;
    let rate = asked.rate.unwrap_or(ROWS_PER_SECOND).min(ROWS_PER_SECOND);
    complain(&format!(
        "{} slices, {rows} rows in history, of which those are inserted that ClickHouse lacks: at most some {} MiB, some {} s",
        slices.len(),
        (rows * BYTES_PER_ROW).div_ceil(1 << 20),
        rows.div_ceil(rate)
    ));
    Ok(ExitCode::SUCCESS)
}

/// Of history it is counted what is missing: its sources are read for that.
async fn plan_of_history(attached: &Attached, asked: &Backfill, format: Format) -> Result<ExitCode, BoxError> {
    let done = Work::new(attached).history_plan(asked.fill()?).await?;
    print_missing(&done.by_type, (done.rows, done.looked_at), &notes(&done), format)
}

fn print_missing(
    by_type: &BTreeMap<String, u64>,
    (rows, looked_at): (u64, u64),
    notes: &[String],
    format: Format,
) -> Result<ExitCode, BoxError> {
    let mut listing = Listing::new(&["event_type", "rows_missing"]);
    listing.rows = by_type.iter().map(|(name, rows)| vec![json!(name), json!(rows)]).collect();
    listing.print(format)?;
    for note in notes {
        complain(note);
    }
    let mebibytes = (rows * BYTES_PER_ROW).div_ceil(1 << 20);
    complain(&format!("{rows} rows are missing of {looked_at} in the sources: some {mebibytes} MiB"));
    Ok(ExitCode::SUCCESS)
}
