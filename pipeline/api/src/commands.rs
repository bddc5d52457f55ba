//! `POST /v1/commands/{Command}` and `POST /v1/streams/{stream}/events`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tracing::Instrument;
use weir_model::contract::door::VALUES_MAX;
use weir_model::decide::{CommandType, STATE_VERSION};
use weir_model::{ByteString, Object, StreamId};
use weir_postgres::tokens::Scope;
use weir_postgres::{Answer, Caller, CommandError, CommandRequest, Snapshot, StreamAppend};

use crate::auth::{authenticate, caller, expected};
use crate::body::{self, Bounds};
use crate::{APPEND_BODY_MAX, APPEND_EVENTS_MAX, APPEND_VALUES_MAX, Api, BODY_MAX, Problem};

const COMMAND: Bounds = Bounds { bytes: BODY_MAX, values: VALUES_MAX };

const APPEND: Bounds = Bounds { bytes: APPEND_BODY_MAX, values: APPEND_VALUES_MAX };

/// Runs one command. The body is the data of the event asked for; `timestamp` may be left out and is then now.
pub(crate) async fn command(
    State(api): State<Arc<Api>>,
    name: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let headers = request.headers().clone();
    let principal = authenticate(&api, &headers, Scope::Command).await?;
    let command: CommandType = body::path(name)?.parse().map_err(|e| Problem::not_found(format!("{e}")))?;
    let (data, _share): (Object, _) = body::json(&api, &principal, request, COMMAND).await?;
    let (caller, expected) = (caller(&principal, &headers)?, expected(&headers)?);
    let span = span(&caller, command.as_str());
    let correlation_id = caller.metadata.correlation_id.clone();
    let request = CommandRequest { caller, command, data, expected };
    let answered = Box::pin(api.commands.execute(request)).instrument(span.clone()).await;
    answer(&span, correlation_id, answered)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AppendBody {
    events: Vec<AppendEvent>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AppendEvent {
    event_type: String,
    version: Option<String>,
    data: Object,
}

/// Appends up to 1,000 events that a service decided on for itself: contracts are checked, rules are not.
pub(crate) async fn append(
    State(api): State<Arc<Api>>,
    stream: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let headers = request.headers().clone();
    let principal = authenticate(&api, &headers, Scope::Command).await?;
    let stream: StreamId = body::path(stream)?.parse().map_err(|e| Problem::malformed(format!("{e}")))?;
    let (body, _share): (AppendBody, _) = body::json(&api, &principal, request, APPEND).await?;
    if body.events.is_empty() || body.events.len() > APPEND_EVENTS_MAX {
        return Err(Problem::malformed(format!("an append holds 1 to {APPEND_EVENTS_MAX} events")));
    }
    let mut events = Vec::with_capacity(body.events.len());
    for (index, event) in body.events.into_iter().enumerate() {
        let event_type = event.event_type.parse().map_err(|e| {
            let violation = weir_model::Violation::new("/eventType", format!("{e}"));
            Problem::violation(format!("event {index}: {violation}"), &[violation], &format!("/events/{index}"))
        })?;
        events.push((event_type, event.version, event.data));
    }
    let (caller, expected) = (caller(&principal, &headers)?, expected(&headers)?);
    let span = span(&caller, "append");
    let correlation_id = caller.metadata.correlation_id.clone();
    let request = StreamAppend { caller, stream, expected, events };
    let answered = Box::pin(api.commands.append(request)).instrument(span.clone()).await;
    answer(&span, correlation_id, answered)
}

/// On every log line about a request.
fn span(caller: &Caller, what: &str) -> tracing::Span {
    tracing::info_span!(
        "command",
        command = what,
        tenant = %caller.tenant,
        correlation_id = caller.metadata.correlation_id.as_deref(),
        causation_id = caller.metadata.causation_id.as_deref(),
    )
}

fn answer(
    span: &tracing::Span,
    correlation_id: Option<ByteString>,
    answered: Result<Answer, CommandError>,
) -> Result<Response, Problem> {
    let _entered = span.enter();
    let answer = answered.inspect_err(|error| tracing::info!(%error, "refused"))?;
    tracing::debug!(position = answer.last.0, stream = %answer.stream, repeated = answer.repeated, "stored");
    let status = if answer.repeated { StatusCode::OK } else { StatusCode::CREATED };
    let body = json!({
        "stream": answer.stream.to_string(),
        "aggregateId": answer.stream.aggregate_id(),
        "aggregateType": answer.stream.aggregate_type(),
        "tenantId": answer.tenant,
        "version": answer.version,
        "firstPosition": answer.first,
        "position": answer.last,
        "recordedAt": answer.recorded_at,
        "repeated": answer.repeated,
        "correlationId": correlation_id,
    });
    let mut response = (status, Json(body)).into_response();
    let mut header = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    };
    header("weir-position", answer.last.to_string());
    header("x-correlation-id", correlation_id.unwrap_or_default().to_string());
    Ok(response)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SnapshotBody {
    version: i64,
    state_version: Option<i32>,
    data: serde_json::Value,
}

/// Keeps a snapshot that a service made. One of our own layout would be read back as our state, so only an admin may.
pub(crate) async fn create_snapshot(
    State(api): State<Arc<Api>>,
    stream: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let headers = request.headers().clone();
    let principal = authenticate(&api, &headers, Scope::Admin).await?;
    let stream: StreamId = body::path(stream)?.parse().map_err(|e| Problem::malformed(format!("{e}")))?;
    let (body, _share): (SnapshotBody, _) = body::json(&api, &principal, request, COMMAND).await?;
    if body.version < 1 {
        return Err(Problem::malformed(format!("a stream's versions begin at 1, not {}", body.version)));
    }
    // One of a layout to come would keep our own snapshots of this stream out for ever.
    if body.state_version.is_some_and(|version| !(1..=STATE_VERSION).contains(&version)) {
        return Err(Problem::malformed(format!("stateVersion is 1 to {STATE_VERSION}")));
    }
    let last = api.store.get_events(&principal.tenant, &stream, body.version - 1, 1).await?;
    if last.events.first().is_none_or(|event| event.version != body.version) {
        return Err(Problem::not_found(format!("{stream} has no version {}", body.version)));
    }
    let state_version = body.state_version.unwrap_or(STATE_VERSION);
    let snapshot = Snapshot { version: body.version, state_version, data: body.data };
    api.store.create_snapshot(&principal.tenant, &stream, &snapshot).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
