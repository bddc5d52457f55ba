//! `weir rebuild read-models|metrics`

use std::process::ExitCode;

use serde_json::json;
use weir_engine::BoxError;

use super::jobs::run_here;
use crate::attached::Target;
use crate::job::Job;
use crate::runner::Ask;

/// What is made again from everything that its lane has read, while it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Rebuilt {
    /// Every read model
    ReadModels,
    /// The counters and histograms
    Metrics,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What is made again
    what: Rebuilt,
}

pub(crate) async fn run(target: &Target, args: Args) -> Result<ExitCode, BoxError> {
    let job = match args.what {
        Rebuilt::ReadModels => Job::RebuildReadModels,
        Rebuilt::Metrics => Job::RebuildMetrics,
    };
    let attached = target.attach().await?;
    let done = Box::pin(run_here(&attached, Ask::now(job, json!({})))).await;
    attached.detach().await?;
    done
}
