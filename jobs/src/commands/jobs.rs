//! `weir jobs list|show|run|pause|resume|cancel|history`, and what every command shares that runs a job.

use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use weir_engine::BoxError;
use weir_postgres::job_run::Standing;
use weir_postgres::job_runs::{self, JobRun, Outcome};

use super::{end_at_second_signal, told_to_stop};
use crate::attached::{Attached, Target};
use crate::cron::{next, parse, zone};
use crate::job::Job;
use crate::output::{Format, Listing, complain, say};
use crate::runner::{Ask, Ran, Runner};
use crate::show::{self, Show};

/// How often a run that is watched is looked at.
const WATCH_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Jobs {
    /// Every job: its schedule, when it is due, what runs, how it went last
    List,
    /// One run: what it was asked for, how far it is, its last words
    Show {
        /// Its number
        id: i64,
        /// A line a second until it ends
        #[arg(long)]
        watch: bool,
    },
    /// Run one here and now; exits 1 when it fails or finds a difference
    Run {
        /// Which one
        job: Job,
        /// A second request with the same key is the first: it runs nothing, and ends as that did
        #[arg(long, value_name = "KEY")]
        run_key: Option<String>,
    },
    /// Have the schedule leave a job out
    Pause {
        /// Which one
        job: Job,
        /// Why, for the others
        #[arg(long, default_value = "by hand")]
        why: String,
    },
    /// Have the schedule run a job again that was paused; or, with the number of a run, go on with what that was asked for
    Resume {
        /// A job, or a run's number
        #[arg(value_name = "JOB|ID")]
        what: String,
    },
    /// Ask a run to end, wherever it runs; what it has done stays done
    Cancel {
        /// Its number
        id: i64,
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
        Jobs::Show { id, watch: true } => return watch(attached, id).await,
        Jobs::Show { id, watch: false } => details(&found(attached, id).await?).print(format)?,
        Jobs::Run { job, run_key } => {
            return run_here(attached, Ask { run_key, ..Ask::now(job, json!({})) }).await;
        }
        Jobs::Pause { job, why } => {
            job_runs::pause(&**attached.database.get().await?, job.name(), &why).await?;
            complain(&format!("the schedule leaves {job} out until `weir jobs resume {job}`"));
        }
        Jobs::Resume { what } => return resume(attached, &what).await,
        Jobs::Cancel { id } => {
            let run = found(attached, id).await?;
            if !job_runs::cancel(&**attached.database.get().await?, id).await? {
                let outcome = run.outcome.unwrap_or_default();
                return Err(format!("run {id} of {} is over: {outcome}", run.job).into());
            }
            complain(&format!(
                "run {id} of {} is asked to end; `weir jobs show {id} --watch` says when it has",
                run.job
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn resume(attached: &Attached, what: &str) -> Result<ExitCode, BoxError> {
    if let Ok(id) = what.parse::<i64>() {
        let run = found(attached, id).await?;
        let job = Job::named(&run.job).ok_or_else(|| format!("this build has no job {}", run.job))?;
        return run_here(attached, Ask::now(job, run.arguments)).await;
    }
    let job = Job::named(what).ok_or_else(|| {
        let names: Vec<&str> = Job::ALL.into_iter().map(Job::name).collect();
        format!("{what} is neither the number of a run nor a job: there are {}", names.join(", "))
    })?;
    let was_paused = job_runs::unpause(&**attached.database.get().await?, job.name()).await?;
    complain(&match was_paused {
        true => format!("the schedule runs {job} again"),
        false => format!("{job} was not paused"),
    });
    Ok(ExitCode::SUCCESS)
}

async fn found(attached: &Attached, id: i64) -> Result<JobRun, BoxError> {
    let run = job_runs::find(&**attached.database.get().await?, id).await?;
    run.ok_or_else(|| format!("there is no run {id}: `weir jobs history` lists them").into())
}

/// Runs a job in this process, shows how far it is, and says how it went. Told to stop, it ends cleanly and says how to go on.
pub(crate) async fn run_here(attached: &Attached, ask: Ask) -> Result<ExitCode, BoxError> {
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let told = tokio::spawn(async move {
        if told_to_stop().await.is_ok() {
            end_at_second_signal();
            stopping.cancel();
        }
    });
    let ran = Box::pin(Runner::alone(attached).run(ask, &stop, &Show::Stderr)).await;
    told.abort();
    match ran? {
        Ran::Here(outcome, detail) => {
            say(&format!("{}: {detail}", outcome.as_str()))?;
            if outcome == Outcome::Different {
                complain("`weir verify` shows the whole table");
            }
            Ok(if outcome == Outcome::Ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Ran::Known(run) => {
            say(&format!(
                "run {} was that already: {}: {}",
                run.id,
                run.outcome.as_deref().unwrap_or("it goes on"),
                run.detail
            ))?;
            let went_well = run.outcome.is_none_or(|outcome| outcome == Outcome::Ok.as_str());
            Ok(if went_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Ran::Busy(run) => Err(busy(&run).into()),
        Ran::Paused(why) => Err(format!("it is paused: {why}").into()),
    }
}

fn busy(run: &JobRun) -> String {
    format!(
        "{} runs already: run {}, {}, since {}; `weir jobs show {} --watch` follows it",
        run.job, run.id, run.owner, run.started_at, run.id
    )
}

/// Where a run stands, on one line.
fn standing(run: &JobRun) -> String {
    let unit = match run.unit.as_str() {
        "slices" => "slices",
        "files" => "files",
        "tables" => "tables",
        "rows" => "rows",
        _ => "",
    };
    let now = Standing { done: run.done, total: run.total, unit, rows: run.rows, bytes: run.bytes };
    let until = run.ended_at.unwrap_or_else(Timestamp::now);
    let elapsed = Duration::try_from(until.duration_since(run.started_at)).unwrap_or_default();
    show::line(&now, elapsed)
}

async fn watch(attached: &Attached, id: i64) -> Result<ExitCode, BoxError> {
    loop {
        let run = found(attached, id).await?;
        match &run.outcome {
            Some(outcome) => {
                say(&format!("{outcome}: {}", run.detail))?;
                return Ok(if outcome == Outcome::Ok.as_str() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            None => say(&standing(&run))?,
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

async fn list(attached: &Attached) -> Result<Listing, BoxError> {
    let client = attached.database.get().await?;
    let (last, running) = (job_runs::last(&**client).await?, job_runs::running(&**client).await?);
    let paused = job_runs::paused(&**client).await?;
    let columns =
        ["job", "schedule", "time_zone", "due_at", "paused", "running", "last_ended_at", "last_outcome", "last_detail"];
    let mut rows = Listing::new(&columns);
    for job in Job::ALL {
        let settings = attached.settings.jobs.get(job.name());
        let schedule = settings.map(|settings| settings.schedule.clone()).unwrap_or_default();
        let time_zone = settings.map(|settings| settings.time_zone.clone()).unwrap_or_default();
        let due = parse(&schedule).ok().zip(zone(&time_zone).ok());
        let due = due.and_then(|(cron, zone)| next(&cron, &zone, Timestamp::now()));
        let last = last.iter().find(|run| run.job == job.name());
        let running = running.iter().find(|run| run.job == job.name());
        rows.rows.push(vec![
            json!(job.name()),
            json!(schedule),
            json!(time_zone),
            json!(due.map(|at| at.to_string())),
            json!(
                paused
                    .iter()
                    .find(|(name, ..)| name == job.name())
                    .map(|(_, since, why)| format!("{why}, since {since}"))
            ),
            json!(running.map(|run| format!("run {}, {}: {}", run.id, run.owner, standing(run)))),
            json!(last.and_then(|run| run.ended_at).map(|at| at.to_string())),
            json!(last.and_then(|run| run.outcome.clone())),
            json!(last.map(|run| run.detail.clone())),
        ]);
    }
    Ok(rows)
}

/// The columns of a run.
fn cells(run: &JobRun) -> Vec<(&'static str, Value)> {
    vec![
        ("id", json!(run.id)),
        ("job", json!(run.job)),
        ("due_at", json!(run.due_at.map(|at| at.to_string()))),
        ("started_at", json!(run.started_at.to_string())),
        ("ended_at", json!(run.ended_at.map(|at| at.to_string()))),
        ("outcome", json!(run.outcome)),
        ("rows", json!(run.rows)),
        ("detail", json!(run.detail)),
        ("arguments", json!(run.arguments)),
        ("owner", json!(run.owner)),
    ]
}

fn details(run: &JobRun) -> Listing {
    let mut listing = Listing::new(&["what", "value"]);
    let more = [
        ("attempt", json!(run.attempt)),
        ("run_key", json!(run.run_key)),
        ("bytes", json!(run.bytes)),
        ("progress", json!(standing(run))),
        ("seen_at", json!(run.seen_at.to_string())),
        ("log", json!(run.log_tail)),
    ];
    let rows = cells(run).into_iter().chain(more);
    listing.rows = rows.map(|(name, value)| vec![json!(name), value]).collect();
    listing
}

async fn history(attached: &Attached, job: Option<Job>, limit: i64) -> Result<Listing, BoxError> {
    let client = attached.database.get().await?;
    let runs = job_runs::history(&**client, job.map(Job::name), limit).await?;
    let columns = ["id", "job", "due_at", "started_at", "ended_at", "outcome", "rows", "detail", "arguments", "owner"];
    let mut rows = Listing::new(&columns);
    rows.rows = runs.iter().map(|run| cells(run).into_iter().map(|(_, value)| value).collect()).collect();
    Ok(rows)
}
