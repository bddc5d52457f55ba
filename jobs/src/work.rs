//! What each job does.

mod archive;
mod backfill;
mod backfill_asked;
mod compact;
mod copies;
mod fill_clickhouse;
mod lane;
mod rebuild;
mod rebuild_clickhouse;
mod workflows;

pub(crate) use archive::ArchiveAsked;
pub(crate) use backfill_asked::{Backfill, Reprocess, SliceLength, Source};
pub(crate) use rebuild::{RebuildAsked, notes};
pub(crate) use workflows::{Asked as WorkflowsAsked, Files};

use std::time::Duration;

use serde_json::Value;
use weir_clickhouse::ClickHouse;
use weir_engine::{BoxError, LaneKind};
use weir_history::{HistoryRoot, HistoryTable};
use weir_kafka::KafkaOptions;
use weir_model::project::Units;
use weir_postgres::Database;
use weir_postgres::job_run::{JobFence, Progress};
use weir_postgres::job_runs::{self, Outcome};
use weir_postgres::versions;
use weir_verify::{Asked, Fill, FillFrom, Stores, Subject};

use crate::attached::Attached;
use crate::data_dir::DataDir;
use crate::job::Job;
use crate::settings;

/// How long a scheduled `verify` waits for lanes that are at work.
const VERIFY_WAIT: Duration = Duration::from_secs(60);

/// What jobs work with.
#[derive(Clone)]
pub(crate) struct Work {
    pub(crate) database: Database,
    history: HistoryRoot,
    kafka: Option<KafkaOptions>,
    clickhouse: Option<ClickHouse>,
    dir: DataDir,
    units: Units,
    lanes: Vec<&'static str>,
    maintenance: settings::Maintenance,
    archive_url: String,
    /// What a job may do at once: beside lanes, one thing.
    cores: usize,
}

impl Work {
    pub(crate) fn new(attached: &Attached) -> Self {
        Self {
            database: attached.database.clone(),
            history: attached.history.clone(),
            kafka: attached.settings.kafka.options(),
            clickhouse: attached.settings.clickhouse.server(),
            dir: attached.dir.clone(),
            units: attached.settings.durations,
            lanes: attached.settings.enabled_lanes(),
            maintenance: attached.settings.maintenance.clone(),
            archive_url: attached.settings.archive.url.clone(),
            cores: 1,
        }
    }

    /// The same for a process that does nothing else.
    pub(crate) fn alone(attached: &Attached) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { cores, ..Self::new(attached) }
    }

    /// Whether there is what a job works on.
    pub(crate) async fn can(&self, job: Job) -> Result<bool, BoxError> {
        match job {
            Job::CompactHistory | Job::BackfillHistory => Ok(HistoryTable::open(&self.history).await?.is_some()),
            Job::BackfillClickhouse | Job::RebuildClickhouse => Ok(self.clickhouse.is_some()),
            Job::ArchiveEvents => Ok(!self.archive_url.is_empty()),
            Job::Workflows => self.is_any_workflow_due().await,
            Job::Verify | Job::RebuildReadModels | Job::RebuildMetrics | Job::RebuildHistory | Job::Cleanup => Ok(true),
        }
    }

    /// What is wrong with arguments, before anything is touched.
    pub(crate) fn check(job: Job, arguments: &Value) -> Result<(), BoxError> {
        match job {
            Job::BackfillClickhouse => serde_json::from_value::<Backfill>(arguments.clone())?.check(),
            Job::ArchiveEvents => {
                serde_json::from_value::<ArchiveAsked>(arguments.clone())?;
                Ok(())
            }
            Job::Workflows => {
                serde_json::from_value::<WorkflowsAsked>(arguments.clone())?;
                Ok(())
            }
            Job::BackfillHistory => serde_json::from_value::<Backfill>(arguments.clone())?.fill().map(|_| ()),
            Job::RebuildReadModels | Job::RebuildMetrics | Job::RebuildClickhouse => {
                serde_json::from_value::<RebuildAsked>(arguments.clone())?;
                Ok(())
            }
            Job::Verify | Job::RebuildHistory | Job::CompactHistory | Job::Cleanup => {
                match arguments.as_object().is_some_and(serde_json::Map::is_empty) {
                    true => Ok(()),
                    false => Err(format!("{job} takes no arguments").into()),
                }
            }
        }
    }

    /// Gives how it went, and what there is to say.
    pub(crate) async fn run(
        &self,
        job: Job,
        arguments: &Value,
        progress: &Progress,
        fence: &JobFence,
    ) -> Result<(Outcome, String), BoxError> {
        match job {
            Job::Verify => self.verify().await,
            Job::RebuildReadModels => {
                self.rebuild(Subject::ReadModels, &serde_json::from_value(arguments.clone())?).await
            }
            Job::RebuildMetrics => self.rebuild(Subject::Metrics, &serde_json::from_value(arguments.clone())?).await,
            Job::RebuildHistory => {
                let everything = (Fill::Everything, FillFrom::Both);
                Box::pin(self.fill_history(everything, None, progress)).await
            }
            Job::RebuildClickhouse => {
                let asked: RebuildAsked = serde_json::from_value(arguments.clone())?;
                Box::pin(self.rebuild_clickhouse(&asked, progress, fence)).await
            }
            Job::BackfillHistory => {
                let asked: Backfill = serde_json::from_value(arguments.clone())?;
                Box::pin(self.fill_history(asked.fill()?, asked.rate, progress)).await
            }
            Job::CompactHistory => Box::pin(self.compact_history(progress)).await,
            Job::BackfillClickhouse => {
                let asked: Backfill = serde_json::from_value(arguments.clone())?;
                Box::pin(self.backfill_clickhouse(&asked, progress, fence)).await
            }
            Job::ArchiveEvents => {
                let asked: ArchiveAsked = serde_json::from_value(arguments.clone())?;
                Box::pin(self.archive_events(&asked, progress)).await
            }
            Job::Workflows => {
                let asked: WorkflowsAsked = serde_json::from_value(arguments.clone())?;
                Box::pin(self.compute_workflows(&asked, progress, fence)).await
            }
            Job::Cleanup => self.clean_up().await,
        }
    }

    fn stores(&self) -> Stores<'_> {
        Stores {
            database: &self.database,
            history: &self.history,
            kafka: self.kafka.as_ref(),
            clickhouse: self.clickhouse.as_ref(),
        }
    }

    async fn verify(&self) -> Result<(Outcome, String), BoxError> {
        let spill = self.dir.spill()?;
        let asked = Asked { units: self.units, lanes: &self.lanes, wait: VERIFY_WAIT, spill: &spill };
        let report = weir_verify::verify(self.stores(), asked).await?;
        let different: Vec<String> = report
            .comparisons
            .iter()
            .filter(|comparison| !comparison.is_equal())
            .map(|c| format!("{} {}: {} in the source, {} in the sink", c.lane, c.subject, c.expected, c.actual))
            .chain(report.differences.iter().cloned())
            .collect();
        let cuts: Vec<_> = report.cuts.iter().map(|(lane, below)| format!("{lane} below {below}")).collect();
        let missing: Vec<_> = report
            .unreached
            .iter()
            .map(|u| format!("{} is at {} of {}: {}", u.part, u.reached, u.end, u.words))
            .collect();
        // What was not there to be compared is no difference, and no proof either.
        Ok(match (different.is_empty(), missing.is_empty()) {
            (true, true) => (Outcome::Ok, format!("all equal; compared {}", cuts.join(", "))),
            (true, false) => (Outcome::Failed, format!("not all was there to be compared: {}", missing.join("; "))),
            (false, _) => (Outcome::Different, [different, missing].concat().join("; ")),
        })
    }

    /// Drops the version of a lane's tables before the one that serves, if it stopped serving `days` days ago or earlier.
    pub(crate) async fn drop_version(&self, lane: &str, days: i32) -> Result<Option<i32>, BoxError> {
        let dropped = versions::drop_previous(&self.database, lane, days).await?;
        if let (LaneKind::ClickHouse, Some(_), Some(server)) = (lane.parse()?, dropped, &self.clickhouse) {
            server.drop_previous().await?;
        }
        Ok(dropped)
    }

    async fn clean_up(&self) -> Result<(Outcome, String), BoxError> {
        let days = self.maintenance.keep_runs_days;
        let client = self.database.get().await?;
        let gone = job_runs::clean_up(&**client, i32::try_from(days).unwrap_or(i32::MAX)).await?;
        drop(client);
        let mut words = format!("dropped {gone} runs older than {days} days");
        let days = i32::try_from(self.maintenance.keep_versions_days).unwrap_or(i32::MAX);
        let lanes = [Subject::ReadModels.lane(), Subject::Metrics.lane(), LaneKind::ClickHouse.name()];
        for lane in lanes {
            if let Some(version) = self.drop_version(lane, days).await? {
                words += &format!(", and version {version} of {lane}");
            }
        }
        Ok((Outcome::Ok, words))
    }
}
