//! `weir schedule`: the schedule of jobs alone, beside processes that do everything else.

use std::process::ExitCode;

use tokio_util::sync::CancellationToken;
use weir_engine::BoxError;

use super::{end_at_second_signal, told_to_stop};
use crate::attached::Target;
use crate::schedule;

pub(crate) async fn run(target: &Target) -> Result<ExitCode, BoxError> {
    let told = told_to_stop();
    tokio::pin!(told);
    let attached = tokio::select! {
        attached = Box::pin(target.attach_patiently()) => attached?,
        stopped = &mut told => { stopped?; return Ok(ExitCode::SUCCESS) }
    };
    let stop = CancellationToken::new();
    let mut jobs = schedule::start(&attached, &stop);
    tracing::info!(jobs = jobs.len(), "the schedule runs; `weir jobs list` says what is due");
    let told = told.await;
    end_at_second_signal();
    stop.cancel();
    while jobs.join_next().await.is_some() {}
    attached.detach().await?;
    told?;
    Ok(ExitCode::SUCCESS)
}
