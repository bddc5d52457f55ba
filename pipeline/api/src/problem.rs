//! Errors as RFC 9457 problem details.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};
use weir_engine::retry::chain;
use weir_model::Violation;
use weir_model::contract::door::{DATA_MAX, VALUES_MAX};
use weir_postgres::{AppendError, CommandError, DbError, ErrorKind};

/// An error answer.
#[derive(Debug, Serialize)]
pub struct Problem {
    #[serde(rename = "type")]
    problem_type: String,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(flatten)]
    more: Map<String, Value>,
    #[serde(skip)]
    retry_after: Option<u64>,
}

impl Problem {
    fn new(status: StatusCode, name: &str, title: &'static str, detail: impl Into<String>) -> Self {
        Self {
            problem_type: format!("urn:weir:problem:{name}"),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            more: Map::new(),
            retry_after: None,
        }
    }

    fn with(mut self, name: &str, value: Value) -> Self {
        self.more.insert(name.to_owned(), value);
        self
    }

    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", "The request cannot be read", detail)
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method", "Method not allowed", "this address has other methods")
    }

    pub(crate) fn too_large(max: usize) -> Self {
        let detail = format!("a body may have at most {max} bytes here");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Too large", detail)
    }

    pub(crate) fn too_many_values(values: usize, max: usize) -> Self {
        let detail = format!("a body may hold at most {max} values here; this one has {values}");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-many-values", "Too many values", detail)
            .with("values", values.into())
            .with("maxValues", max.into())
    }

    pub(crate) fn too_costly(max: usize) -> Self {
        let detail = format!(
            "this request needs more memory than one may have ({max} bytes, half of api.bodies_bytes_max); send less at once"
        );
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Too large", detail)
    }

    pub(crate) fn tenant_busy() -> Self {
        let detail =
            "this tenant's requests hold its share of api.bodies_bytes_max; send fewer or smaller ones at once";
        let mut problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many", "Too many requests", detail);
        problem.retry_after = Some(1);
        problem
    }

    pub(crate) fn busy() -> Self {
        let mut problem = Self::unavailable("requests hold all of api.bodies_bytes_max; try again");
        problem.title = "Too much at once";
        problem
    }

    pub(crate) fn address_busy() -> Self {
        let detail = "this address has too many requests under way; send fewer at once";
        let mut problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many", "Too many requests", detail);
        problem.retry_after = Some(1);
        problem
    }

    pub(crate) fn full() -> Self {
        let mut problem =
            Self::unavailable("all of api.connections_max are in use, or all that one address may hold; try again");
        problem.title = "Too many connections";
        problem
    }

    pub(crate) fn misdirected() -> Self {
        let detail =
            "this server is not known under the name that the request gives as its host; api.hosts lists names";
        Self::new(StatusCode::MISDIRECTED_REQUEST, "host", "Unknown host", detail)
    }

    pub(crate) fn too_slow(limit: Duration) -> Self {
        let detail = format!(
            "the body was not read within {} s: it was sent too slowly, or other large ones of this tenant were before it (api.body_bytes_per_second)",
            limit.as_secs()
        );
        Self::new(StatusCode::REQUEST_TIMEOUT, "timeout", "Too slow", detail)
    }

    pub(crate) fn too_many(wait: Duration) -> Self {
        let detail = "this tenant sends more requests than api.requests_per_second";
        let mut problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many", "Too many requests", detail);
        problem.retry_after = Some(wait.as_secs() + 1);
        problem
    }

    pub(crate) fn unauthorized() -> Self {
        let detail = "send `Authorization: Bearer TOKEN`; `weir token create` makes one";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "No valid token", detail)
    }

    pub(crate) fn forbidden(scope: &str) -> Self {
        let detail = format!("this token lacks the scope `{scope}`");
        Self::new(StatusCode::FORBIDDEN, "forbidden", "Missing scope", detail).with("scope", scope.into())
    }

    /// Pointers are into the request's body, where the data of a command is all of it, and that of an append's event
    /// below `prefix`.
    pub(crate) fn violation(detail: impl Into<String>, violations: &[Violation], prefix: &str) -> Self {
        let errors: Vec<_> = violations
            .iter()
            .map(|v| json!({"pointer": format!("#{prefix}{}", v.pointer), "detail": v.reason}))
            .collect();
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "contract-violation", "The data breaks its contract", detail)
            .with("errors", errors.into())
    }

    /// Whether it may pass by itself.
    pub(crate) fn is_unavailable(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE.as_u16()
    }

    /// A job that runs already.
    pub(crate) fn job_runs(run: &weir_postgres::job_runs::JobRun) -> Self {
        let detail = format!("{} runs already: run {}, {}, since {}", run.job, run.id, run.owner, run.started_at);
        Self::new(StatusCode::CONFLICT, "busy", "The job runs already", detail).with("run", run.id.into())
    }

    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        let title = "The event store is not available";
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", title, detail);
        problem.retry_after = Some(1);
        problem
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.retry_after;
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<DbError> for Problem {
    fn from(error: DbError) -> Self {
        // The words of the database go to the log: they may hold what is not the caller's.
        tracing::warn!(error = chain(&error), "a request failed");
        match error.kind() {
            ErrorKind::Unavailable => Self::unavailable("the database is away; try again"),
            ErrorKind::Data => {
                let detail = "the event store cannot hold this data";
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "not-storable", "Not storable", detail)
            }
            ErrorKind::Permanent => {
                let detail = "trying again will not help; the log has the details under the correlation id";
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something is broken here", detail)
            }
        }
    }
}

fn data_of(event: Option<usize>) -> String {
    event.map_or_else(String::new, |index| format!("/events/{index}/data"))
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        let detail = error.to_string();
        let conflict = |name, title| Self::new(StatusCode::CONFLICT, name, title, detail.clone());
        match error {
            CommandError::Contract { index, violation } => {
                Self::violation(detail, &violation.violations, &data_of(index))
            }
            CommandError::TooLarge { index, bytes } => {
                let mut problem = Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Too large", detail)
                    .with("storedBytes", bytes.into())
                    .with("maxBytes", DATA_MAX.into());
                if let Some(index) = index {
                    problem = problem.with("pointer", format!("#/events/{index}/data").into());
                }
                problem
            }
            CommandError::TooManyValues { values, .. } => {
                let mut problem = Self::too_many_values(values, VALUES_MAX);
                problem.detail = detail;
                problem
            }
            CommandError::WrongStream { index, reason } => {
                Self::violation(detail, &[Violation::new("", reason)], &data_of(index))
            }
            CommandError::Rejected(_) => conflict("rejected", "A rule forbids this"),
            CommandError::Conflict { actual } => {
                conflict("version-conflict", "The stream is at another version").with("actualVersion", actual.into())
            }
            CommandError::Contended => conflict("contended", "Other writers were faster"),
            CommandError::KeyReused => {
                let title = "The key was used for another request";
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "key-reused", title, detail)
            }
            CommandError::Append(AppendError::Data { .. }) => {
                tracing::warn!(error = detail, "not storable");
                let detail = "the event store cannot hold this data";
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "not-storable", "Not storable", detail)
            }
            CommandError::Append(AppendError::Overloaded) => Self::unavailable("too many commands wait; try again"),
            CommandError::Append(AppendError::Unavailable { .. }) => {
                Self::unavailable("the outcome is unknown; try again under the same Idempotency-Key")
            }
            CommandError::Db(error) => error.into(),
        }
    }
}
