//! `weir clickhouse migrate`

use std::process::ExitCode;

use weir_engine::BoxError;

use crate::attached::Target;
use crate::output::{complain, say};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum ClickHouseCommand {
    /// Bring the schema up to date, and check it; the lane does the same when it starts, but leaves the table of an older weir to this
    /// command, which copies and compares it
    Migrate {
        /// Print the statements that would run, and run none
        #[arg(long)]
        dry_run: bool,
    },
}

pub(crate) async fn run(target: &Target, command: ClickHouseCommand) -> Result<ExitCode, BoxError> {
    let ClickHouseCommand::Migrate { dry_run } = command;
    let (_, settings) = target.open()?;
    let server = settings.clickhouse.required()?;
    if dry_run {
        for statement in server.pending().await? {
            say(&format!("{statement};\n"))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    // Postgres says whose turn it is.
    let attached = target.attach().await?;
    let migrated = server.migrate_and_carry_over(&attached.database).await;
    attached.detach().await?;
    let applied = migrated?;
    for name in &applied {
        complain(&format!("done: {name}"));
    }
    if applied.is_empty() {
        complain("the schema is up to date");
    }
    Ok(ExitCode::SUCCESS)
}
