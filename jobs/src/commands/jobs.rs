//! `weir jobs list|run|history`

use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::json;
use weir_engine::BoxError;
use weir_postgres::job_runs::{self, Outcome};

use crate::attached::{Attached, Target};
use crate::cron::{next, parse};
use crate::output::{Format, Listing, complain, say};
use crate::schedule::{Job, Runner};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Jobs {
    /// Every job: its schedule, when it is due, how it went last
    List,
    /// Run one here and now; exits 1 when it fails or finds a difference
    Run {
        /// Which one
        job: Job,
    },
    /// Runs, newest first
    History {
        /// Of this job only
        #[arg(long)]
        job: Option<Job>,
        /// At most this many
        #[arg(long, default_value_t = 50)]
        limit: i64,
    },
}

pub(crate) async fn run(target: &Target, command: Jobs, format: Format) -> Result<ExitCode, BoxError> {
    let attached = target.attach().await?;
    let done = Box::pin(work(&attached, command, format)).await;
    attached.detach().await?;
    done
}

async fn work(attached: &Attached, command: Jobs, format: Format) -> Result<ExitCode, BoxError> {
    match command {
        Jobs::List => list(attached).await?.print(format)?,
        Jobs::History { job, limit } => history(attached, job, limit).await?.print(format)?,
        Jobs::Run { job } => match Runner::new(attached).run(job, None).await? {
            None => {
                return Err(format!("another process runs {job} already; `weir jobs history` shows since when").into());
            }
            Some((outcome, detail)) => {
                say(&format!("{}: {detail}", outcome.as_str()))?;
                if outcome != Outcome::Ok {
                    complain("`weir verify` shows the whole table");
                    return Ok(ExitCode::FAILURE);
                }
            }
        },
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(attached: &Attached) -> Result<Listing, BoxError> {
    let client = attached.database.get().await?;
    let last = job_runs::last(&**client).await?;
    let mut rows = Listing::new(&["job", "cron", "due_at", "last_ended_at", "last_outcome", "last_detail"]);
    for job in Job::ALL {
        let cron = attached.settings.jobs.get(job.name()).map(|settings| settings.cron.clone()).unwrap_or_default();
        let due = parse(&cron).ok().and_then(|cron| next(&cron, Timestamp::now()));
        let last = last.iter().find(|run| run.job == job.name());
        rows.rows.push(vec![
            json!(job.name()),
            json!(cron),
            json!(due.map(|at| at.to_string())),
            json!(last.and_then(|run| run.ended_at).map(|at| at.to_string())),
            json!(last.and_then(|run| run.outcome.clone())),
            json!(last.map(|run| run.detail.clone())),
        ]);
    }
    Ok(rows)
}

async fn history(attached: &Attached, job: Option<Job>, limit: i64) -> Result<Listing, BoxError> {
    let client = attached.database.get().await?;
    let columns = ["id", "job", "due_at", "started_at", "ended_at", "outcome", "detail", "owner"];
    let mut rows = Listing::new(&columns);
    for run in job_runs::history(&**client, job.map(Job::name), limit).await? {
        rows.rows.push(vec![
            json!(run.id),
            json!(run.job),
            json!(run.due_at.map(|at| at.to_string())),
            json!(run.started_at.to_string()),
            json!(run.ended_at.map(|at| at.to_string())),
            json!(run.outcome),
            json!(run.detail),
            json!(run.owner),
        ]);
    }
    Ok(rows)
}
