//! `weir rebuild read-models|metrics|clickhouse|history`

use std::process::ExitCode;

use serde_json::json;
use weir_engine::{BoxError, LaneKind};
use weir_postgres::versions;
use weir_verify::Subject;

use super::jobs::run_here;
use crate::attached::{Attached, Target};
use crate::job::Job;
use crate::output::complain;
use crate::runner::Ask;
use crate::work::{RebuildAsked, Work};

/// What is made again from everything that its lane has read, while it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Rebuilt {
    /// Every read model
    ReadModels,
    /// The counters and histograms
    Metrics,
    /// The table of events and its rollups, out of history
    Clickhouse,
    /// Every file of the history table
    History,
}

impl Rebuilt {
    fn job(self) -> Job {
        match self {
            Self::ReadModels => Job::RebuildReadModels,
            Self::Metrics => Job::RebuildMetrics,
            Self::Clickhouse => Job::RebuildClickhouse,
            Self::History => Job::RebuildHistory,
        }
    }

    fn lane(self) -> &'static str {
        match self {
            Self::ReadModels => LaneKind::ReadModels,
            Self::Metrics => LaneKind::Metrics,
            Self::Clickhouse => LaneKind::ClickHouse,
            Self::History => LaneKind::History,
        }
        .name()
    }

    /// What a projection keeps.
    fn subject(self) -> Result<Subject, BoxError> {
        match self {
            Self::ReadModels => Ok(Subject::ReadModels),
            Self::Metrics => Ok(Subject::Metrics),
            Self::Clickhouse | Self::History => {
                Err(format!("{} keeps events as they are: no projection makes its rows", self.lane()).into())
            }
        }
    }
}

#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct Args {
    /// What is made again
    what: Rebuilt,
    /// The number that the new version is to have; where it serves already, nothing is done
    #[arg(long, value_name = "N")]
    version: Option<i32>,
    /// Counters may fall, which Prometheus takes for a restart
    #[arg(long)]
    accept_reset: bool,
    /// Let the version before serve again, once it has what the lane did since
    #[arg(long, conflicts_with_all = ["drop", "declare_compatible"])]
    rollback: bool,
    /// Drop the version before, to which nothing can be rolled back then
    #[arg(long, conflicts_with_all = ["version", "accept_reset", "declare_compatible"])]
    drop: bool,
    /// Say that rows which another projection made may stay
    #[arg(long, conflicts_with_all = ["version", "accept_reset"])]
    declare_compatible: bool,
    /// A second request with the same key is the first: it runs nothing, and ends as that did
    #[arg(long, value_name = "KEY")]
    run_key: Option<String>,
}

pub(crate) async fn run(target: &Target, args: Args) -> Result<ExitCode, BoxError> {
    let asked = RebuildAsked { version: args.version, accept_reset: args.accept_reset, rollback: args.rollback };
    if args.what == Rebuilt::History && (args.version.is_some() || args.rollback || args.drop) {
        let words =
            "history has the versions of its Delta table, whose files stay for `maintenance.vacuum_retention_s`";
        return Err(words.into());
    }
    if args.accept_reset {
        args.what.subject()?;
    }
    let attached = target.attach().await?;
    let done = if args.drop {
        drop_previous(&attached, args.what.lane()).await
    } else if args.declare_compatible {
        declare_compatible(&attached, args.what.lane()).await
    } else {
        let arguments = if args.what == Rebuilt::History { json!({}) } else { json!(asked) };
        let ask = Ask { run_key: args.run_key, ..Ask::now(args.what.job(), arguments) };
        Box::pin(run_here(&attached, ask)).await
    };
    attached.detach().await?;
    done
}

async fn drop_previous(attached: &Attached, lane: &str) -> Result<ExitCode, BoxError> {
    match Work::new(attached).drop_version(lane, 0).await? {
        Some(version) => complain(&format!("version {version} of {lane} is dropped")),
        None => complain(&format!("no version before the one that serves is kept of {lane}")),
    }
    Ok(ExitCode::SUCCESS)
}

async fn declare_compatible(attached: &Attached, lane: &str) -> Result<ExitCode, BoxError> {
    let fingerprint = versions::fingerprint(lane.parse()?, attached.settings.durations);
    match versions::declare_compatible(&attached.database, lane, &fingerprint).await? {
        true => complain(&format!("the rows of {lane} may stay; its lane goes on within a few seconds")),
        false => complain(&format!("the rows of {lane} were made by this projection; nothing is in question")),
    }
    Ok(ExitCode::SUCCESS)
}
