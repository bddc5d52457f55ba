//! `weir up`

use std::process::ExitCode;
use std::time::Duration;

use weir_engine::BoxError;

use super::{end_at_second_signal, told_to_stop};
use crate::attached::Target;
use crate::instance::Instance;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Stop once every lane has applied everything that is in the event store
    #[arg(long)]
    until_caught_up: bool,
}

pub(crate) async fn run(target: &Target, args: Args) -> Result<ExitCode, BoxError> {
    let told = told_to_stop();
    tokio::pin!(told);
    let mut instance = tokio::select! {
        started = Box::pin(Instance::start(target)) => started?,
        stopped = &mut told => { stopped?; return Ok(ExitCode::SUCCESS) }
    };
    let failure = {
        let failed = instance.watch.failed();
        tokio::pin!(failed);
        loop {
            tokio::select! {
                stopped = &mut told => { stopped?; break None }
                error = &mut failed => break Some(error),
                () = tokio::time::sleep(Duration::from_millis(50)), if args.until_caught_up => {
                    if instance.view.is_caught_up().await {
                        break None;
                    }
                }
            }
        }
    };
    end_at_second_signal();
    let (attached, stopped) = instance.stop().await?;
    attached.detach().await?;
    failure.or(stopped).map_or(Ok(ExitCode::SUCCESS), Err)
}
