//! `GET /v1/jobs`, `POST /v1/jobs`, `GET /v1/jobs/{id}`: what `weir jobs` does, for other schedulers. For admins alone: jobs are of all tenants.

use std::sync::Arc;

use async_trait::async_trait;
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use weir_engine::BoxError;
use weir_engine::retry::chain;
use weir_postgres::job_runs::{self, JobRun};
use weir_postgres::tokens::Scope;

use crate::auth::authenticate;
use crate::body::Bounds;
use crate::{Api, Problem, body};

/// What a request may hold.
const BODY: Bounds = Bounds { bytes: 64 << 10, values: 1000 };

/// Characters of a run's key at most.
const RUN_KEY_MAX: usize = 255;

/// A job as it is listed.
#[derive(Debug, Clone)]
pub struct JobListed {
    /// Its name, as on the command line.
    pub name: &'static str,
    /// A cron expression; empty where it runs only when asked for.
    pub schedule: String,
    /// In which that is read.
    pub time_zone: String,
    /// The next moment.
    pub due_at: Option<String>,
}

/// Why no run was begun.
#[derive(Debug)]
pub enum NotStarted {
    /// There is no such job; in words.
    Unknown(String),
    /// It cannot be asked for so; in words.
    Wrong(String),
    /// A run of it goes on.
    Busy(Box<JobRun>),
    /// Something is away.
    Failed(BoxError),
}

/// What runs jobs in this process.
#[async_trait]
pub trait Jobs: Send + Sync {
    /// Every job.
    fn listed(&self) -> Vec<JobListed>;

    /// Begins a run, which goes on when this returns; with the run, and whether it is a new one.
    async fn start(&self, job: &str, arguments: Value, run_key: Option<String>) -> Result<(JobRun, bool), NotStarted>;
}

/// A run as it is shown.
fn shown(run: &JobRun) -> Value {
    json!({
        "id": run.id,
        "job": run.job,
        "dueAt": run.due_at.map(|at| at.to_string()),
        "attempt": run.attempt,
        "owner": run.owner,
        "arguments": run.arguments,
        "runKey": run.run_key,
        "startedAt": run.started_at.to_string(),
        "endedAt": run.ended_at.map(|at| at.to_string()),
        "outcome": run.outcome,
        "detail": run.detail,
        "done": run.done,
        "total": run.total,
        "unit": run.unit,
        "rows": run.rows,
        "bytes": run.bytes,
        "log": run.log_tail,
    })
}

/// `GET /v1/jobs`
pub(crate) async fn list(State(api): State<Arc<Api>>, headers: HeaderMap) -> Result<Json<Value>, Problem> {
    authenticate(&api, &headers, Scope::Admin).await?;
    let client = api.database.get().await?;
    let (running, last) = (job_runs::running(&**client).await?, job_runs::last(&**client).await?);
    let paused = job_runs::paused(&**client).await?;
    let of = |runs: &[JobRun], name: &str| runs.iter().find(|run| run.job == name).map(shown);
    let items: Vec<Value> = api
        .jobs
        .listed()
        .into_iter()
        .map(|job| {
            json!({
                "job": job.name,
                "schedule": job.schedule,
                "timeZone": job.time_zone,
                "dueAt": job.due_at,
                "paused": paused.iter().find(|(name, ..)| name == job.name).map(|(.., why)| why),
                "running": of(&running, job.name),
                "last": of(&last, job.name),
            })
        })
        .collect();
    Ok(Json(json!({"items": items})))
}

/// `GET /v1/jobs/{id}`
pub(crate) async fn one(
    State(api): State<Arc<Api>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    authenticate(&api, &headers, Scope::Admin).await?;
    let text = body::path(id)?;
    let missing = || Problem::not_found(format!("there is no run {text}"));
    let id: i64 = text.parse().map_err(|_| missing())?;
    let run = job_runs::find(&**api.database.get().await?, id).await?;
    Ok(Json(shown(&run.ok_or_else(missing)?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Asked {
    job: String,
    #[serde(default)]
    arguments: Map<String, Value>,
    #[serde(default)]
    run_key: Option<String>,
}

/// `POST /v1/jobs`: 202 with the run that goes on, 200 with the one that its key was used for.
pub(crate) async fn start(State(api): State<Arc<Api>>, request: Request) -> Result<Response, Problem> {
    let headers = request.headers().clone();
    let principal = authenticate(&api, &headers, Scope::Admin).await?;
    let (asked, _share): (Asked, _) = body::json(&api, &principal, request, BODY).await?;
    let is_key = |key: &String| !key.is_empty() && key.len() <= RUN_KEY_MAX && !key.contains('\0');
    if asked.run_key.as_ref().is_some_and(|key| !is_key(key)) {
        return Err(Problem::malformed(format!("runKey has from 1 to {RUN_KEY_MAX} bytes, and no U+0000")));
    }
    match api.jobs.start(&asked.job, Value::Object(asked.arguments), asked.run_key).await {
        Ok((run, is_new)) => {
            let status = if is_new { StatusCode::ACCEPTED } else { StatusCode::OK };
            Ok((status, Json(shown(&run))).into_response())
        }
        Err(NotStarted::Unknown(words) | NotStarted::Wrong(words)) => Err(Problem::malformed(words)),
        Err(NotStarted::Busy(run)) => Err(Problem::job_runs(&run)),
        Err(NotStarted::Failed(error)) => Err(Problem::unavailable(chain(error.as_ref()))),
    }
}
