//! `weir publish`

use std::process::ExitCode;

use tokio_util::sync::CancellationToken;
use weir_engine::BoxError;
use weir_postgres::AppendSignal;

use super::{end_at_second_signal, told_to_stop};
use crate::instance::{Attached, Place};
use crate::output::complain;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write the progress that the topics themselves show, after the progress topic was lost, and end
    #[arg(long)]
    recover: bool,
}

pub(crate) async fn run(place: &Place, args: Args) -> Result<ExitCode, BoxError> {
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let told = tokio::spawn(async move {
        told_to_stop().await?;
        end_at_second_signal();
        stopping.cancel();
        Ok::<_, BoxError>(())
    });
    let attached = tokio::select! {
        attached = Box::pin(place.attach_patiently()) => attached?,
        () = stop.cancelled() => return Ok(ExitCode::SUCCESS),
    };
    let done = if args.recover { recover(&attached).await } else { publish(&attached, stop).await };
    told.abort();
    attached.detach().await?;
    done.map(|()| ExitCode::SUCCESS)
}

async fn recover(attached: &Attached) -> Result<(), BoxError> {
    let progress = weir_kafka::recover(&attached.settings.publisher_options()?, &attached.database).await?;
    complain(&format!("recovered: everything up to position {} is in the topics", progress.position));
    Ok(())
}

async fn publish(attached: &Attached, stop: CancellationToken) -> Result<(), BoxError> {
    let options = attached.settings.publisher_options()?;
    let signal = AppendSignal::start(attached.database.clone(), stop.clone());
    Ok(weir_kafka::publish(&options, &attached.database, &signal, &stop).await?)
}
