//! `weir workflows list|check|run|show`

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;
use weir_engine::BoxError;
use weir_engine::retry::chain;
use weir_postgres::workflows::{self, Trigger, Workflow};

use super::jobs::run_here;
use crate::attached::{Attached, Target};
use crate::job::Job;
use crate::output::{Format, Listing, complain, say};
use crate::runner::Ask;
use crate::work::{Files, WorkflowsAsked};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Workflows {
    /// Every workflow: when it runs, and how far its table is
    List,
    /// Read every file, or one, and try its SQL against the tables that are there; exits 1 when one is broken
    Check {
        /// A file that is not in the data directory yet
        file: Option<PathBuf>,
    },
    /// Compute tables now, whether they are due or not
    Run {
        /// Which; all of them if none is named
        names: Vec<String>,
    },
    /// One workflow: what it is about, what it reads, what it feeds, its SQL
    Show {
        /// Which
        name: String,
    },
}

pub(crate) async fn run(target: &Target, command: Workflows, format: Format) -> Result<ExitCode, BoxError> {
    let attached = target.attach().await?;
    let done = Box::pin(work(&attached, command, format)).await;
    attached.detach().await?;
    done
}

async fn work(attached: &Attached, command: Workflows, format: Format) -> Result<ExitCode, BoxError> {
    let files = Files::read(attached.dir.path())?;
    match command {
        Workflows::List => list(attached, &files).await?.print(format)?,
        Workflows::Check { file } => return check(attached, files, file).await,
        Workflows::Run { names } => {
            let names = if names.is_empty() {
                files.workflows.into_iter().map(|workflow| workflow.name).collect()
            } else {
                names
            };
            return Box::pin(run_here(attached, Ask::now(Job::Workflows, json!(WorkflowsAsked { names })))).await;
        }
        Workflows::Show { name } => {
            let found = files.workflows.iter().find(|workflow| workflow.name == name);
            let workflow =
                found.ok_or_else(|| format!("there is no workflow {name}: `weir workflows list` has them"))?;
            show(attached, workflow).await?.print(format)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn trigger(workflow: &Workflow) -> String {
    match &workflow.trigger {
        Trigger::Every(time) => format!("every {} minutes", time.as_secs() / 60),
        Trigger::Cron(cron) => format!("cron {cron}"),
        Trigger::Events { types, debounce } => {
            format!("{} and {} s without one", types.join(" or "), debounce.as_secs())
        }
    }
}

fn table(workflow: &Workflow) -> String {
    let copied =
        if workflow.to_clickhouse { format!(", and workflow_{} in ClickHouse", workflow.name) } else { String::new() };
    format!("workflows.{}{copied}", workflow.name)
}

async fn list(attached: &Attached, files: &Files) -> Result<Listing, BoxError> {
    let states = workflows::states(&**attached.database.get().await?).await?;
    let mut listing = Listing::new(&["workflow", "trigger", "table", "computed_at", "windows", "rows", "trouble"]);
    for workflow in &files.workflows {
        let state = states.get(&workflow.name);
        listing.rows.push(vec![
            json!(workflow.name),
            json!(trigger(workflow)),
            json!(table(workflow)),
            json!(state.map(|state| state.computed_at.to_string())),
            json!(state.map(|state| state.windows)),
            json!(state.map(|state| state.rows)),
            json!(null),
        ]);
    }
    for words in &files.broken {
        listing.rows.push(vec![
            json!(null),
            json!(null),
            json!(null),
            json!(null),
            json!(null),
            json!(null),
            json!(words),
        ]);
    }
    Ok(listing)
}

async fn check(attached: &Attached, files: Files, file: Option<PathBuf>) -> Result<ExitCode, BoxError> {
    let Files { workflows: all, mut broken } = files;
    let checked = match file {
        None => all,
        Some(path) => {
            broken.clear();
            let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            vec![Workflow::read(&path.display().to_string(), &text)?]
        }
    };
    for workflow in &checked {
        match workflows::check(&attached.database, workflow).await {
            Ok(reads) => say(&format!("{}: reads {}", workflow.name, reads.join(", ")))?,
            Err(error) => broken.push(chain(&error)),
        }
    }
    for words in &broken {
        complain(words);
    }
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn show(attached: &Attached, workflow: &Workflow) -> Result<Listing, BoxError> {
    let reads = workflows::check(&attached.database, workflow).await?;
    let state = workflows::states(&**attached.database.get().await?).await?.remove(&workflow.name);
    let mut listing = Listing::new(&["what", "value"]);
    listing.rows = vec![
        vec![json!("workflow"), json!(workflow.name)],
        vec![json!("about"), json!(workflow.about)],
        vec![json!("file"), json!(workflow.origin)],
        vec![json!("trigger"), json!(trigger(workflow))],
        vec![json!("table"), json!(table(workflow))],
        vec![json!("keys"), json!(workflow.keys.join(", "))],
        vec![json!("window"), json!(workflow.window.map(workflows::Window::as_str))],
        vec![json!("lookback_days"), json!(workflow.lookback_days)],
        vec![json!("reads"), json!(reads.join(", "))],
        vec![json!("feeds"), json!(workflow.feeds)],
        vec![json!("read_to"), json!(state.as_ref().map(|state| state.read_to.clone()))],
        vec![json!("computed_at"), json!(state.as_ref().map(|state| state.computed_at.to_string()))],
        vec![json!("sql"), json!(workflow.sql)],
    ];
    Ok(listing)
}
