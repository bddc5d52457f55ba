//! `weir compact history`

use std::process::ExitCode;

use serde_json::json;
use weir_engine::BoxError;
use weir_history::HistoryTable;

use super::jobs::run_here;
use crate::attached::{Attached, Target};
use crate::job::Job;
use crate::output::{Format, Listing, complain};
use crate::runner::Ask;

/// What is compacted.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Compact {
    /// Small files of history become large ones, sorted by time; then files that no reader needs any more are removed
    History {
        /// Print which files would be, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
}

pub(crate) async fn run(target: &Target, command: Compact, format: Format) -> Result<ExitCode, BoxError> {
    let Compact::History { dry_run } = command;
    let attached = target.attach().await?;
    let done = match dry_run {
        true => plan(&attached, format).await,
        false => Box::pin(run_here(&attached, Ask::now(Job::CompactHistory, json!({})))).await,
    };
    attached.detach().await?;
    done
}

async fn plan(attached: &Attached, format: Format) -> Result<ExitCode, BoxError> {
    let target_bytes = attached.settings.maintenance.compaction_target_bytes;
    let groups = match HistoryTable::open(&attached.history).await? {
        Some(table) => table.groups(target_bytes)?,
        None => Vec::new(),
    };
    let mut listing = Listing::new(&["partition", "files", "bytes"]);
    listing.rows =
        groups.iter().map(|group| vec![json!(group.partition()), json!(group.files()), json!(group.bytes())]).collect();
    listing.print(format)?;
    complain(&format!("{} groups of files, each becomes one of {target_bytes} bytes at most, nearly", groups.len()));
    Ok(ExitCode::SUCCESS)
}
