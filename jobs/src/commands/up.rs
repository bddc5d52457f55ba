//! `weir up`

use std::process::ExitCode;
use std::time::Duration;

use weir_engine::BoxError;

use super::told_to_stop;
use crate::instance::{Instance, Place};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Stop once every lane has applied everything that is in the event store
    #[arg(long)]
    until_caught_up: bool,
}

pub(crate) async fn run(place: &Place, args: Args) -> Result<ExitCode, BoxError> {
    let told = told_to_stop();
    tokio::pin!(told);
    let mut instance = tokio::select! {
        started = Box::pin(Instance::start(place)) => started?,
        stopped = &mut told => { stopped?; return Ok(ExitCode::SUCCESS) }
    };
    let failure = loop {
        tokio::select! {
            stopped = &mut told => { stopped?; break None }
            error = instance.failed() => break Some(error),
            () = tokio::time::sleep(Duration::from_millis(50)), if args.until_caught_up => {
                if instance.is_caught_up().await? {
                    break None;
                }
            }
        }
    };
    let attached = instance.stop().await;
    match (failure, attached) {
        (None, Ok(attached)) => attached.detach().await.map(|()| ExitCode::SUCCESS),
        (Some(error), _) | (None, Err(error)) => Err(error),
    }
}
