//! Jobs over HTTP: begun by a request, and run on in this process.

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use weir_api::{JobListed, Jobs, NotStarted};
use weir_engine::BoxError;
use weir_engine::retry::chain;
use weir_postgres::Database;
use weir_postgres::job_run::Begun;
use weir_postgres::job_runs::{self, JobRun};

use crate::attached::Attached;
use crate::cron::{next, parse, zone};
use crate::job::Job;
use crate::runner::{Ask, Runner};
use crate::settings;
use crate::show::Show;

/// What `POST /v1/jobs` asks.
pub(crate) struct Door {
    runner: Runner,
    database: Database,
    schedules: Vec<(Job, settings::Job)>,
    stop: CancellationToken,
}

impl Door {
    pub(crate) fn new(attached: &Attached, stop: &CancellationToken) -> Self {
        let settings = &attached.settings.jobs;
        let schedules = Job::ALL.into_iter().filter_map(|job| Some((job, settings.get(job.name())?.clone())));
        Self {
            runner: Runner::new(attached),
            database: attached.database.clone(),
            schedules: schedules.collect(),
            stop: stop.clone(),
        }
    }

    async fn row(&self, id: i64) -> Result<JobRun, BoxError> {
        let run = job_runs::find(&**self.database.get().await?, id).await?;
        run.ok_or_else(|| "the run's row is gone".into())
    }
}

#[async_trait]
impl Jobs for Door {
    fn listed(&self) -> Vec<JobListed> {
        let listed = |(job, settings): &(Job, settings::Job)| {
            let due = parse(&settings.schedule).ok().zip(zone(&settings.time_zone).ok());
            let due = due.and_then(|(cron, zone)| next(&cron, &zone, Timestamp::now()));
            JobListed {
                name: job.name(),
                schedule: settings.schedule.clone(),
                time_zone: settings.time_zone.clone(),
                due_at: due.map(|at| at.to_string()),
            }
        };
        self.schedules.iter().map(listed).collect()
    }

    async fn start(&self, job: &str, arguments: Value, run_key: Option<String>) -> Result<(JobRun, bool), NotStarted> {
        let Some(job) = Job::named(job) else {
            let names: Vec<&str> = Job::ALL.into_iter().map(Job::name).collect();
            return Err(NotStarted::Unknown(format!("there is no job {job:?}: there are {}", names.join(", "))));
        };
        Runner::check(job, &arguments).map_err(|error| NotStarted::Wrong(chain(error.as_ref())))?;
        // A token opens no place of its owner's choice on this machine.
        if job == Job::ArchiveEvents && arguments.get("to").is_some_and(|to| !to.is_null()) {
            let words = "over HTTP the event store is archived to archive.url; another address is for the command line";
            return Err(NotStarted::Wrong(words.to_owned()));
        }
        let ask = Ask { run_key, ..Ask::now(job, arguments) };
        match self.runner.begin(&ask).await.map_err(NotStarted::Failed)? {
            Begun::Busy(run) => Err(NotStarted::Busy(run)),
            Begun::Known(run) => Ok((*run, false)),
            Begun::Paused(why) => Err(NotStarted::Wrong(format!("it is paused: {why}"))),
            Begun::Running(running) => {
                let (runner, stop, id) = (self.runner.clone(), self.stop.clone(), running.id());
                tokio::spawn(async move {
                    if let Err(error) = Box::pin(runner.go_on(running, &ask, &stop, &Show::Nothing)).await {
                        tracing::warn!(id, error = chain(error.as_ref()), "a job's run ended");
                    }
                });
                Ok((self.row(id).await.map_err(NotStarted::Failed)?, true))
            }
        }
    }
}
