//! `weir ledger show`

use std::process::ExitCode;

use serde_json::json;
use weir_engine::BoxError;
use weir_postgres::Ledger;

use crate::instance::{Attached, Place};
use crate::output::{Format, Rows};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum LedgerCommand {
    /// Every lane's progress: where it goes on, in which epoch, who claimed it when
    Show {
        /// Of this lane only
        #[arg(long)]
        lane: Option<String>,
    },
}

pub(crate) async fn run(place: &Place, command: LedgerCommand, format: Format) -> Result<ExitCode, BoxError> {
    let LedgerCommand::Show { lane } = command;
    let attached = place.attach().await?;
    let rows = show(&attached, lane.as_deref()).await;
    attached.detach().await?;
    rows?.print(format)?;
    Ok(ExitCode::SUCCESS)
}

async fn show(attached: &Attached, lane: Option<&str>) -> Result<Rows, BoxError> {
    let columns =
        ["lane", "source", "topic", "partition", "next_offset", "epoch", "owner", "claimed_at", "advanced_at"];
    let mut rows = Rows::new(&columns);
    let client = attached.database.get().await?;
    for row in Ledger::rows(&**client).await?.into_iter().filter(|row| lane.is_none_or(|lane| row.lane == lane)) {
        rows.rows.push(vec![
            json!(row.lane),
            json!(&*row.partition.source),
            json!(&*row.partition.topic),
            json!(row.partition.number),
            json!(row.next_offset),
            json!(row.epoch),
            json!(row.owner),
            json!(row.claimed_at.to_string()),
            json!(row.advanced_at.to_string()),
        ]);
    }
    Ok(rows)
}
