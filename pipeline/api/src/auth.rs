//! Bearer tokens, and what a request says about itself.

use std::time::Duration;

use axum::http::{HeaderMap, header};
use uuid::Uuid;
use weir_model::Metadata;
use weir_postgres::tokens::{Principal, Scope};
use weir_postgres::{Caller, Expected};

use crate::{Api, Problem};

/// Headers may be this long; longer ones would end in every event.
const HEADER_LENGTH_MAX: usize = 255;

/// Who asks, if the token allows it.
pub(crate) async fn authenticate(api: &Api, headers: &HeaderMap, scope: Scope) -> Result<Principal, Problem> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token =
        value.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let (_, token) = token.ok_or_else(Problem::unauthorized)?;
    let principal = api.tokens.authenticate(token.trim()).await?.ok_or_else(Problem::unauthorized)?;
    api.limits.take(&principal.tenant)?;
    if principal.may(scope) { Ok(principal) } else { Err(Problem::forbidden(scope.as_str())) }
}

/// How often a token is looked at again while a request goes on.
const REVOKED_WITHIN: Duration = Duration::from_millis(500);

/// Ends when the token does: what takes longer than a moment races with it. A database that is away says nothing about tokens.
pub(crate) async fn revoked(api: &Api, principal: &Principal) -> Problem {
    loop {
        tokio::time::sleep(REVOKED_WITHIN).await;
        if matches!(api.tokens.is_valid(principal).await, Ok(false)) {
            return Problem::unauthorized();
        }
    }
}

fn text(headers: &HeaderMap, name: &str) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let bad = || {
        Problem::malformed(format!("the header {name} is empty, no visible ASCII, or longer than {HEADER_LENGTH_MAX}"))
    };
    let value = value.to_str().map_err(|_| bad())?;
    if value.is_empty() || value.len() > HEADER_LENGTH_MAX { Err(bad()) } else { Ok(Some(value.to_owned())) }
}

/// The request's own words about cause, correlation, actor and repetition. A request without correlation id gets one.
pub(crate) fn caller(principal: &Principal, headers: &HeaderMap) -> Result<Caller, Problem> {
    let correlation_id = text(headers, "x-correlation-id")?.unwrap_or_else(|| Uuid::now_v7().to_string());
    Ok(Caller {
        tenant: principal.tenant.clone(),
        source: text(headers, "x-source")?.unwrap_or_else(|| "api".to_owned()),
        metadata: Metadata {
            causation_id: text(headers, "x-causation-id")?.map(Into::into),
            correlation_id: Some(correlation_id.into()),
            user_id: text(headers, "x-user-id")?.map(Into::into),
        },
        idempotency_key: text(headers, "idempotency-key")?,
    })
}

/// `Expected-Version: any | none | exists | N`.
pub(crate) fn expected(headers: &HeaderMap) -> Result<Expected, Problem> {
    match text(headers, "expected-version")?.as_deref() {
        None | Some("any") => Ok(Expected::Any),
        Some("none") => Ok(Expected::None),
        Some("exists") => Ok(Expected::Exists),
        Some(number) => match number.parse() {
            Ok(version) if version >= 0 => Ok(Expected::Exact(version)),
            _ => Err(Problem::malformed("Expected-Version is any, none, exists or a version number")),
        },
    }
}
