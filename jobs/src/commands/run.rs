//! `weir run LANE…`: lanes alone, which share partitions with every other process that runs them.

use std::pin::Pin;
use std::process::ExitCode;

use tokio_util::sync::CancellationToken;
use weir_engine::{BoxError, StatusBoard};

use super::{end_at_second_signal, told_to_stop};
use crate::attached::{Attached, Target};
use crate::instance::{handlers, listen};
use crate::lanes::start_lanes;
use crate::schedule;
use crate::telling::{self, Telling};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which lanes: read-models, metrics, history, clickhouse, and those of your own program
    #[arg(required = true, value_name = "LANE")]
    lanes: Vec<String>,
}

pub(crate) async fn run(target: &Target, args: Args) -> Result<ExitCode, BoxError> {
    let told = told_to_stop();
    tokio::pin!(told);
    let attached = tokio::select! {
        attached = Box::pin(target.attach_patiently()) => attached?,
        stopped = &mut told => { stopped?; return Ok(ExitCode::SUCCESS) }
    };
    let ran = run_lanes(&attached, &args.lanes, told).await;
    attached.detach().await?;
    ran.map(|()| ExitCode::SUCCESS)
}

async fn run_lanes(
    attached: &Attached,
    names: &[String],
    mut told: Pin<&mut impl Future<Output = std::io::Result<()>>>,
) -> Result<(), BoxError> {
    // Without brokers the lanes of `weir up` have the only source to themselves.
    attached.settings.kafka.required()?;
    let (stop, board) = (CancellationToken::new(), StatusBoard::default());
    let (listening, address) = listen("run.listen", &attached.settings.run.listen, &attached.settings).await?;
    // Before the lanes, or what they count first is counted nowhere.
    let handlers = handlers(attached, attached.commands(&board, &stop), board.clone(), &stop)?;
    let process = telling::process("run", &address);
    let mut lanes = start_lanes(attached, names, &process.id, &board, &stop).await?;
    let telling = Telling::start(&attached.database, process, &board).await?;
    let http = tokio::spawn(listening.serve(handlers, stop.clone()));
    tracing::info!(metrics = %format_args!("{address}/metrics"), lanes = names.join(" "), "running");
    let mut jobs = schedule::start(attached, &stop);
    let mut failure: Option<BoxError> = None;
    loop {
        tokio::select! {
            stopped = &mut told => { stopped?; break }
            ended = lanes.join_next() => match ended {
                Some(ended) => {
                    if let Err(error) = ended? {
                        failure.get_or_insert(error.into());
                    }
                }
                None => break,
            }
        }
    }
    end_at_second_signal();
    stop.cancel();
    while jobs.join_next().await.is_some() {}
    while let Some(ended) = lanes.join_next().await {
        if let Err(error) = ended? {
            failure.get_or_insert(error.into());
        }
    }
    telling.end().await;
    http.await??;
    failure.map_or(Ok(()), Err)
}
