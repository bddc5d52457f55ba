//! `weir archive events|check|load`

use std::process::ExitCode;

use serde_json::json;
use weir_archive::{Archive, Part};
use weir_engine::BoxError;

use super::jobs::run_here;
use crate::attached::Target;
use crate::job::Job;
use crate::output::{complain, say};
use crate::runner::Ask;
use crate::work::ArchiveAsked;

/// Whose id an event store has after an archive was loaded into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum StoreId {
    /// That of the archived one: sinks that know it go on
    Keep,
    /// Its own: sinks that know the other are refused
    New,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum ArchiveCommand {
    /// Write what is new since the last part, read it back, and compare
    Events {
        /// Where, as file:///backup/weir [default: archive.url]
        #[arg(long, value_name = "URL")]
        to: Option<String>,
        /// The first position; it may only be where the last part ended
        #[arg(long, value_name = "POSITION")]
        from: Option<i64>,
        /// The first position that is left out
        #[arg(long, value_name = "POSITION")]
        below: Option<i64>,
    },
    /// Read every part back: ranges, counts, hashes
    Check {
        /// Where
        #[arg(long, value_name = "URL")]
        at: String,
    },
    /// Make an empty event store the same again
    Load {
        /// Where from
        #[arg(long, value_name = "URL")]
        from: String,
        /// Whose id it has then
        #[arg(long, value_enum)]
        store_id: StoreId,
    },
}

pub(crate) async fn run(target: &Target, command: ArchiveCommand) -> Result<ExitCode, BoxError> {
    if let ArchiveCommand::Check { at } = &command {
        let found = weir_archive::check(&Archive::open(at)?).await?;
        let words = format!(
            "{} events in {} parts, {} bytes, below {}: all as written",
            found.rows, found.parts, found.bytes, found.below
        );
        say(&words)?;
        return Ok(ExitCode::SUCCESS);
    }
    let attached = target.attach().await?;
    let done = match command {
        ArchiveCommand::Events { to, from, below } => {
            let is_nowhere = to.is_none() && attached.settings.archive.url.is_empty();
            match is_nowhere {
                true => Err("where to? --to file:///backup/weir, or the setting archive.url".into()),
                false => {
                    let asked = json!(ArchiveAsked { to, from, below });
                    Box::pin(run_here(&attached, Ask::now(Job::ArchiveEvents, asked))).await
                }
            }
        }
        ArchiveCommand::Load { from, store_id } => {
            let store_id = match store_id {
                StoreId::Keep => weir_archive::StoreId::Keep,
                StoreId::New => weir_archive::StoreId::New,
            };
            let told = |part: &Part| {
                complain(&format!("events {} and below {} are loaded and compared", part.from, part.below))
            };
            match Box::pin(weir_archive::load(&Archive::open(&from)?, &attached.database, store_id, told)).await {
                Ok(loaded) => {
                    say(&format!(
                        "{} events in {} parts are loaded, each part the same as it was archived",
                        loaded.rows, loaded.parts
                    ))?;
                    Ok(ExitCode::SUCCESS)
                }
                Err(error) => Err(error.into()),
            }
        }
        ArchiveCommand::Check { .. } => Ok(ExitCode::SUCCESS),
    };
    attached.detach().await?;
    done
}
