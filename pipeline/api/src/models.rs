//! The read models over HTTP, tenant by tenant: one thing by its id, or a list by cursor and filter. `wait_for` makes a reader see
//! what it wrote.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use serde_json::value::RawValue;
use weir_engine::LaneKind;
use weir_postgres::read_models;
use weir_postgres::read_models::shown::{self, Shown};
use weir_postgres::tokens::{Principal, Scope};

use crate::auth::authenticate;
use crate::reads::wait_for_lane;
use crate::{Api, Problem, body};

/// The lane that keeps them.
const LANE: &str = LaneKind::ReadModels.name();

const LIMIT_DEFAULT: i64 = 100;

/// Rows of one page.
pub(crate) const LIMIT_MAX: i64 = 200;

/// Whether the read models were found to be of this build's layout; once they are, they stay so.
#[derive(Debug, Clone, Default)]
pub struct Layout(Arc<AtomicBool>);

/// What the path of a route names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    /// One thing, by its key.
    One,
    /// Nothing: all of them.
    All,
    /// What all of them belong to, in this column.
    Of(&'static str),
}

/// Every route here: its path, what it shows, what the path's last id names. Routes and their description are made from it.
pub(crate) const ROUTES: [(&str, Shown, Named); 11] = [
    ("/v1/users", shown::USERS, Named::All),
    ("/v1/users/{id}", shown::USERS, Named::One),
    ("/v1/users/{id}/progress", shown::PROGRESS, Named::One),
    ("/v1/sessions", shown::SESSIONS, Named::All),
    ("/v1/sessions/{id}", shown::SESSIONS, Named::One),
    ("/v1/assessments/{id}/results", shown::RESULTS, Named::Of("assessment_id")),
    ("/v1/assessments/{id}/attempts", shown::ATTEMPTS, Named::Of("assessment_id")),
    ("/v1/contents", shown::CONTENTS, Named::All),
    ("/v1/contents/{id}", shown::CONTENTS, Named::One),
    ("/v1/tasks", shown::TASKS, Named::All),
    ("/v1/tasks/{id}", shown::TASKS, Named::One),
];

pub(crate) fn routes() -> Router<Arc<Api>> {
    ROUTES.into_iter().fold(Router::new(), |router, (path, shown, named)| {
        let handler = move |api, id, query, headers| show(shown, named, api, id, query, headers);
        let list = move |api, query, headers| show(shown, named, api, Ok(Path(String::new())), query, headers);
        router.route(path, if named == Named::All { get(list) } else { get(handler) })
    })
}

type Params = BTreeMap<String, String>;

async fn show(
    shown: Shown,
    named: Named,
    State(api): State<Arc<Api>>,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<Params>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let principal = authenticate(&api, &headers, Scope::Read).await?;
    let id = body::path(id)?;
    let mut params = query.map(|Query(params)| params).map_err(|e| Problem::malformed(e.body_text()))?;
    if params.values().chain([&id]).any(|text| text.contains('\0')) {
        return Err(Problem::malformed("U+0000 is in no id, filter or cursor"));
    }
    wait(&api, &principal, &mut params).await?;
    if named == Named::One {
        refuse_others(&params, &[])?;
        let client = api.database.get().await?;
        let found = shown.find(&**client, &principal.tenant, &id).await?;
        let words = || format!("there is no {} of {id}", shown.name);
        return found.map(json).ok_or_else(|| Problem::not_found(words()));
    }
    let page = page(&api, &principal, shown, named, id, params).await?;
    Ok(json(serde_json::to_string(&page).map_err(|e| Problem::malformed(e.to_string()))?))
}

/// A list, and where the next one begins.
#[derive(Serialize)]
struct Page {
    items: Vec<Box<RawValue>>,
    next: Option<String>,
}

async fn page(
    api: &Api,
    principal: &Principal,
    shown: Shown,
    named: Named,
    id: String,
    mut params: Params,
) -> Result<Page, Problem> {
    let limit = number(&mut params, "limit")?.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Problem::malformed(format!("limit is 1 to {LIMIT_MAX}, not {limit}")));
    }
    let cursor = params.remove("cursor");
    let mut equal: Vec<(&str, String)> = Vec::new();
    if let Named::Of(column) = named {
        equal.push((column, id));
    }
    for (name, column) in shown.filters {
        if let Some(value) = params.remove(*name) {
            if shown::is_flag(column) && !["true", "false"].contains(&value.as_str()) {
                return Err(Problem::malformed(format!("{name} is true or false, not `{value}`")));
            }
            equal.push((column, value));
        }
    }
    let mut known: Vec<&str> = shown.filters.iter().map(|(name, _)| *name).collect();
    known.extend(["cursor", "limit"]);
    refuse_others(&params, &known)?;
    let client = api.database.get().await?;
    // One more than asked for tells whether there is more.
    let mut found = shown.page(&**client, &principal.tenant, &equal, cursor.as_deref(), limit + 1).await?;
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = found.len() > wanted;
    found.truncate(wanted);
    let next = found.last().filter(|_| more).map(|(key, _)| key.clone());
    let raw = |(_, item): (String, String)| RawValue::from_string(item);
    let items = found.into_iter().map(raw).collect::<Result<_, _>>();
    Ok(Page { items: items.map_err(|e| Problem::unavailable(e.to_string()))?, next })
}

/// Read models of an older layout are on the way, and the writer may wait for its own.
async fn wait(api: &Api, principal: &Principal, params: &mut Params) -> Result<(), Problem> {
    if !api.layout.0.load(Ordering::Relaxed) {
        if read_models::are_outdated(&**api.database.get().await?).await? {
            return Err(Problem::unavailable(
                "the read models are being rebuilt for this version of weir; try again later",
            ));
        }
        api.layout.0.store(true, Ordering::Relaxed);
    }
    let (position, timeout) = (number(params, "wait_for")?, number(params, "timeout_ms")?);
    let Some(position) = position else { return Ok(()) };
    if wait_for_lane(api, principal, LANE, position, timeout).await? {
        return Ok(());
    }
    Err(Problem::unavailable(format!("the read models do not hold position {position} yet; try again")))
}

fn number(params: &mut Params, name: &str) -> Result<Option<i64>, Problem> {
    let Some(text) = params.remove(name) else { return Ok(None) };
    match text.parse() {
        Ok(number) if number >= 0 => Ok(Some(number)),
        _ => Err(Problem::malformed(format!("{name} is a whole number from 0 on, not `{text}`"))),
    }
}

fn refuse_others(params: &Params, known: &[&str]) -> Result<(), Problem> {
    let Some(name) = params.keys().next() else { return Ok(()) };
    let known: Vec<&str> = known.iter().copied().chain(["wait_for", "timeout_ms"]).collect();
    Err(Problem::malformed(format!("there is no parameter `{name}` here; there are {}", known.join(", "))))
}

fn json(text: String) -> Response {
    let mut response = Body::from(text).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
