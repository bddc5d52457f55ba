//! `weir publish`

use std::process::ExitCode;

use tokio_util::sync::CancellationToken;
use weir_engine::{BoxError, PUBLISHER, StatusBoard};
use weir_postgres::AppendSignal;

use super::{end_at_second_signal, told_to_stop};
use crate::attached::{Attached, Target};
use crate::instance::{handlers, listen};
use crate::output::complain;
use crate::schedule;
use crate::telling::{self, Telling};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write the progress that the topics themselves show, after the progress topic was lost, and end
    #[arg(long)]
    recover: bool,
}

pub(crate) async fn run(target: &Target, args: Args) -> Result<ExitCode, BoxError> {
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let told = tokio::spawn(async move {
        told_to_stop().await?;
        end_at_second_signal();
        stopping.cancel();
        Ok::<_, BoxError>(())
    });
    let attached = tokio::select! {
        attached = Box::pin(target.attach_patiently()) => attached?,
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
    let board = StatusBoard::default();
    board.announce(PUBLISHER);
    let (listening, address) =
        listen("publisher.listen", &attached.settings.publisher.listen, &attached.settings).await?;
    let handlers = handlers(attached, attached.commands(&board, &stop), board.clone(), &stop)?;
    let telling = Telling::start(&attached.database, telling::process("publish", &address), &board).await?;
    let http = tokio::spawn(listening.serve(handlers, stop.clone()));
    tracing::info!(metrics = %format_args!("{address}/metrics"), "publisher");
    let mut jobs = schedule::start(attached, &stop);
    let signal = AppendSignal::start(attached.database.clone(), stop.clone());
    let published = weir_kafka::publish(&options, &attached.database, &signal, &board, &stop).await;
    stop.cancel();
    while jobs.join_next().await.is_some() {}
    telling.end().await;
    http.await??;
    Ok(published?)
}
