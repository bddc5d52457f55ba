//! Reading streams, events, snapshots, and a lane's progress. A tenant sees its own; everything else does not exist.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use weir_model::{EventType, Position, StreamId};
use weir_postgres::tokens::{Principal, Scope};
use weir_postgres::{DbError, Page, RecordedEvent, inspect};

use crate::auth::{authenticate, revoked};
use crate::{Api, Problem, body};

const LIMIT_DEFAULT: i64 = 100;
const LIMIT_MAX: i64 = 1000;

/// A reader waits this long for a lane at most.
const WAIT_MAX: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamQuery {
    after_version: Option<i64>,
    limit: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventsQuery {
    after: Option<i64>,
    #[serde(rename = "type")]
    event_type: Option<String>,
    limit: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LaneQuery {
    wait_for: Option<i64>,
    timeout_ms: Option<u64>,
}

type Params<T> = Result<Query<T>, QueryRejection>;

fn params<T>(query: Params<T>) -> Result<T, Problem> {
    query.map(|Query(params)| params).map_err(|rejection| Problem::malformed(rejection.body_text()))
}

fn limit(asked: Option<i64>) -> Result<i64, Problem> {
    match asked.unwrap_or(LIMIT_DEFAULT) {
        limit @ 1..=LIMIT_MAX => Ok(limit),
        other => Err(Problem::malformed(format!("limit is 1 to {LIMIT_MAX}, not {other}"))),
    }
}

fn not_negative(name: &str, asked: Option<i64>) -> Result<i64, Problem> {
    match asked.unwrap_or(0) {
        n if n >= 0 => Ok(n),
        n => Err(Problem::malformed(format!("{name} is 0 or more, not {n}"))),
    }
}

/// Written as it was read: no event's data becomes a tree on the way.
#[derive(Serialize)]
pub(crate) struct Events {
    events: Vec<RecordedEvent>,
    more: bool,
}

fn page(page: Page) -> Json<Events> {
    Json(Events { events: page.events, more: page.more })
}

/// `GET /v1/streams/{stream}?after_version=0&limit=100`
pub(crate) async fn stream(
    State(api): State<Arc<Api>>,
    stream: Result<Path<String>, PathRejection>,
    query: Params<StreamQuery>,
    headers: HeaderMap,
) -> Result<Json<Events>, Problem> {
    let principal = authenticate(&api, &headers, Scope::Read).await?;
    let stream: StreamId = body::path(stream)?.parse().map_err(|e| Problem::malformed(format!("{e}")))?;
    let query = params(query)?;
    let (after, limit) = (not_negative("after_version", query.after_version)?, limit(query.limit)?);
    let found = api.store.get_events(&principal.tenant, &stream, after, limit).await?;
    // Beyond the end of a stream that exists there is an empty page, not a missing stream.
    let exists =
        || async { Ok::<_, DbError>(!api.store.get_events(&principal.tenant, &stream, 0, 1).await?.events.is_empty()) };
    if found.events.is_empty() && (after == 0 || !exists().await?) {
        return Err(Problem::not_found(format!("there is no stream {stream}")));
    }
    Ok(page(found))
}

/// `GET /v1/events?after=0&type=TaskAssigned&limit=100`
pub(crate) async fn events(
    State(api): State<Arc<Api>>,
    query: Params<EventsQuery>,
    headers: HeaderMap,
) -> Result<Json<Events>, Problem> {
    let principal = authenticate(&api, &headers, Scope::Read).await?;
    let query = params(query)?;
    let (after, limit) = (Position(not_negative("after", query.after)?), limit(query.limit)?);
    let events = match query.event_type {
        None => api.store.get_all_events(&principal.tenant, after, limit).await?,
        Some(name) => {
            let event_type: EventType = name.parse().map_err(|e| Problem::malformed(format!("{e}")))?;
            api.store.get_events_by_type(&principal.tenant, event_type.as_str(), after, limit).await?
        }
    };
    Ok(page(events))
}

/// `GET /v1/streams/{stream}/snapshot`
pub(crate) async fn snapshot(
    State(api): State<Arc<Api>>,
    stream: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let principal = authenticate(&api, &headers, Scope::Read).await?;
    let stream: StreamId = body::path(stream)?.parse().map_err(|e| Problem::malformed(format!("{e}")))?;
    match api.store.get_snapshot(&principal.tenant, &stream).await? {
        Some(snapshot) => Ok(Json(json!(snapshot))),
        None => Err(Problem::not_found(format!("there is no snapshot of {stream}"))),
    }
}

/// `GET /v1/lanes/{lane}?wait_for=POSITION`: answers once the lane has applied the position, so that the writer can read
/// what it wrote. Only positions of the tenant's own events: how far the lane is with others is none of its business.
pub(crate) async fn lane(
    State(api): State<Arc<Api>>,
    lane: Result<Path<String>, PathRejection>,
    query: Params<LaneQuery>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let principal = authenticate(&api, &headers, Scope::Read).await?;
    let (lane, query) = (body::path(lane)?, params(query)?);
    let position = not_negative("wait_for", query.wait_for)?;
    if !api.board.lanes().contains_key(&lane) {
        return Err(Problem::not_found(format!("there is no lane {lane}")));
    }
    let timeout = query.timeout_ms.and_then(|millis| i64::try_from(millis).ok());
    let reached = wait_for_lane(&api, &principal, &lane, position, timeout).await?;
    Ok(Json(json!({"lane": lane, "reached": reached})))
}

/// Waits until a lane has applied a position of the tenant's own events, or the time is over; whether it has.
pub(crate) async fn wait_for_lane(
    api: &Api,
    principal: &Principal,
    lane: &str,
    position: i64,
    timeout_ms: Option<i64>,
) -> Result<bool, Problem> {
    let event = api.store.at(&principal.tenant, Position(position)).await?;
    if position > 0 && event.is_none() {
        return Err(Problem::not_found(format!("there is no event of yours at position {position}")));
    }
    let asked = timeout_ms.and_then(|millis| u64::try_from(millis).ok()).map(Duration::from_millis);
    let deadline = tokio::time::Instant::now() + asked.unwrap_or(WAIT_MAX).min(WAIT_MAX);
    let Some(event) = event else { return Ok(true) };
    tokio::select! {
        reached = inspect::wait_until_applied(&api.database, lane, &event, deadline) => Ok(reached?),
        problem = revoked(api, principal) => Err(problem),
    }
}
