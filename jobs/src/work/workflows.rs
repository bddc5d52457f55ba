//! `workflows`: which there are, which are due, and computing them. A file that is broken holds no other up.

use std::path::Path;
use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};
use weir_clickhouse::CopyColumn;
use weir_engine::BoxError;
use weir_engine::retry::chain;
use weir_postgres::job_run::{JobFence, Progress};
use weir_postgres::job_runs::Outcome;
use weir_postgres::workflows::{self, Export, State, Trigger, Workflow};

use super::Work;
use crate::cron::{next, parse};

/// Those that come with weir.
const OURS: [(&str, &str); 7] = [
    ("agent_performance.sql", include_str!("../../../sql/workflows/agent_performance.sql")),
    ("cohort_retention.sql", include_str!("../../../sql/workflows/cohort_retention.sql")),
    ("content_quality.sql", include_str!("../../../sql/workflows/content_quality.sql")),
    ("learner_engagement.sql", include_str!("../../../sql/workflows/learner_engagement.sql")),
    ("learners_at_risk.sql", include_str!("../../../sql/workflows/learners_at_risk.sql")),
    ("learning_activity.sql", include_str!("../../../sql/workflows/learning_activity.sql")),
    ("module_difficulty.sql", include_str!("../../../sql/workflows/module_difficulty.sql")),
];

/// A table that waits for a pause in events waits for so many times the pause at most.
const BUSY: u32 = 20;

/// The directory of a user's own, within the data directory.
const DIRECTORY: &str = "workflows";

/// What was asked for, as it is kept with the run: these, whether they are due or not; none: what is due.
#[derive(Debug, Clone, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Asked {
    pub(crate) names: Vec<String>,
}

/// Every workflow, and what is wrong with files that are none.
pub(crate) struct Files {
    pub(crate) workflows: Vec<Workflow>,
    pub(crate) broken: Vec<String>,
}

impl Files {
    /// Ours, and those in the data directory.
    pub(crate) fn read(data_dir: &Path) -> Result<Self, BoxError> {
        let mut files = Self { workflows: Vec::new(), broken: Vec::new() };
        for (name, text) in OURS {
            files.add(name, text);
        }
        let directory = data_dir.join(DIRECTORY);
        if !directory.is_dir() {
            return Ok(files);
        }
        let mut paths: Vec<_> = std::fs::read_dir(&directory)?
            .collect::<Result<Vec<_>, _>>()?
            .iter()
            .map(std::fs::DirEntry::path)
            .collect();
        paths.sort_unstable();
        for path in paths.into_iter().filter(|path| path.extension().is_some_and(|end| end == "sql")) {
            match std::fs::read_to_string(&path) {
                Ok(text) => files.add(&path.display().to_string(), &text),
                Err(error) => files.broken.push(format!("{}: {error}", path.display())),
            }
        }
        Ok(files)
    }

    fn add(&mut self, origin: &str, text: &str) {
        let read = Workflow::read(origin, text).map_err(|error| error.to_string()).and_then(|workflow| {
            if let Trigger::Cron(cron) = &workflow.trigger {
                parse(cron).map_err(|error| format!("{origin}: its trigger is cron {cron}: {error}"))?;
            }
            match self.workflows.iter().find(|known| known.name == workflow.name) {
                Some(known) => Err(format!("{origin}: there is a workflow {} already, {}", known.name, known.origin)),
                None => Ok(workflow),
            }
        });
        match read {
            Ok(workflow) => self.workflows.push(workflow),
            Err(words) => self.broken.push(words),
        }
    }
}

impl Work {
    /// Those that are due now.
    async fn due<'a>(&self, all: &'a [Workflow]) -> Result<Vec<&'a Workflow>, BoxError> {
        let client = self.database.get().await?;
        let (states, read_to) = (workflows::states(&**client).await?, workflows::read_to(&**client).await?);
        // Before its lane has read anything there is nothing to compute from.
        if read_to.is_empty() {
            return Ok(Vec::new());
        }
        let (mut due, now) = (Vec::new(), Timestamp::now());
        for workflow in all {
            let is_due = match states.get(&workflow.name) {
                None => true,
                Some(state) if state.fingerprint != workflow.fingerprint => true,
                Some(state) => match &workflow.trigger {
                    Trigger::Every(time) => is_past(state, *time, now),
                    Trigger::Cron(cron) => parse(cron)
                        .ok()
                        .and_then(|cron| next(&cron, &TimeZone::UTC, state.computed_at))
                        .is_some_and(|moment| moment <= now),
                    Trigger::Events { types, debounce } => match workflows::stretch(&state.read_to, &read_to) {
                        Some(stretch) => {
                            let newest = workflows::newest_event(&**client, types, stretch).await?;
                            let is_quiet =
                                |at| Duration::try_from(now.duration_since(at)).unwrap_or_default() >= *debounce;
                            // Where events never pause it runs all the same.
                            newest.is_some_and(|at| is_quiet(at) || is_past(state, *debounce * BUSY, now))
                        }
                        // On topics: when anything came.
                        None => state.read_to != read_to && is_past(state, *debounce, now),
                    },
                },
            };
            if is_due || self.is_copy_behind(workflow, states.get(&workflow.name)).await {
                due.push(workflow);
            }
        }
        Ok(due)
    }

    /// Whether ClickHouse lacks what was computed: a run died, or the server was away. Where that cannot be told it is no reason to compute.
    async fn is_copy_behind(&self, workflow: &Workflow, state: Option<&State>) -> bool {
        let (true, Some(server), Some(state)) = (workflow.to_clickhouse, &self.clickhouse, state) else { return false };
        server.copied(&workflow.name).await.is_ok_and(|copied| copied != Some(state.version()))
    }

    /// Copies a workflow's table to ClickHouse, as far as it was computed last.
    async fn copy(&self, workflow: &Workflow, fence: &JobFence) -> Result<(), BoxError> {
        let named = |error: BoxError| format!("{}: {}", workflow.name, chain(error.as_ref()));
        let Some(server) = &self.clickhouse else {
            return Err(named("its target is ClickHouse, and clickhouse.url is empty".into()).into());
        };
        let copying = async {
            let Some(mut export) = Export::begin(&self.database, workflow).await? else { return Ok(()) };
            if server.copied(&workflow.name).await?.as_ref() == Some(&export.version) {
                return Ok(());
            }
            let (columns, version) = (export.columns.clone(), export.version.clone());
            let columns: Vec<CopyColumn<'_>> = columns
                .iter()
                .map(|column| CopyColumn { name: &column.name, sql_type: &column.sql_type, is_key: column.is_key })
                .collect();
            let copy = server.begin_copy(&workflow.name, &columns, &version).await?;
            loop {
                let rows = export.page().await?;
                if rows.is_empty() {
                    break;
                }
                copy.push(rows).await?;
            }
            // A run whose place was taken puts no older copy before readers.
            let mut client = self.database.get().await?;
            let transaction = client.transaction().await?;
            fence.hold(&*transaction).await?;
            copy.exchange().await?;
            transaction.commit().await?;
            Ok::<_, BoxError>(())
        };
        Box::pin(copying).await.map_err(|error| named(error).into())
    }

    pub(super) async fn is_any_workflow_due(&self) -> Result<bool, BoxError> {
        let files = Files::read(self.dir.path())?;
        Ok(!self.due(&files.workflows).await?.is_empty())
    }

    pub(super) async fn compute_workflows(
        &self,
        asked: &Asked,
        progress: &Progress,
        fence: &JobFence,
    ) -> Result<(Outcome, String), BoxError> {
        let Files { workflows: all, mut broken } = Files::read(self.dir.path())?;
        let chosen: Vec<&Workflow> = match asked.names.is_empty() {
            true => self.due(&all).await?,
            false => {
                if let Some(unknown) =
                    asked.names.iter().find(|name| !all.iter().any(|workflow| workflow.name == **name))
                {
                    let names: Vec<&str> = all.iter().map(|workflow| workflow.name.as_str()).collect();
                    return Err(format!("there is no workflow {unknown}: there are {}", names.join(", ")).into());
                }
                broken.clear();
                all.iter().filter(|workflow| asked.names.contains(&workflow.name)).collect()
            }
        };
        progress.expect(i64::try_from(chosen.len()).ok(), "tables");
        let mut done = Vec::new();
        for workflow in chosen {
            match workflows::compute(&self.database, workflow, fence).await {
                Ok(computed) => {
                    let windows =
                        if computed.windows > 0 { format!(" of {} windows", computed.windows) } else { String::new() };
                    progress.wrote(i64::try_from(computed.rows).unwrap_or(0), 0);
                    progress.say(&format!("{}: {} rows{windows}", workflow.name, computed.rows));
                    match if workflow.to_clickhouse { self.copy(workflow, fence).await } else { Ok(()) } {
                        Ok(()) => done.push(workflow.name.as_str()),
                        Err(error) => broken.push(error.to_string()),
                    }
                }
                Err(error) => broken.push(chain(&error)),
            }
            progress.advance(1);
        }
        let said = format!("computed {}", if done.is_empty() { "nothing".to_owned() } else { done.join(", ") });
        Ok(match broken.is_empty() {
            true => (Outcome::Ok, said),
            false => (Outcome::Failed, format!("{said}; not: {}", broken.join("; "))),
        })
    }
}

fn is_past(state: &State, time: Duration, now: Timestamp) -> bool {
    Duration::try_from(now.duration_since(state.computed_at)).unwrap_or_default() >= time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_are_read_and_named_by_their_files() {
        let files = Files::read(Path::new("/nowhere")).expect("reads");
        assert_eq!(files.broken, Vec::<String>::new());
        for (workflow, (file, _)) in files.workflows.iter().zip(OURS) {
            assert_eq!(format!("{}.sql", workflow.name), file);
        }
        assert_eq!(files.workflows.len(), OURS.len());
    }
}
