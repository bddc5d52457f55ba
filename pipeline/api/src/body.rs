//! What a request holds, with our own words about what is wrong.
//!
//! Text comes first: its size, what it holds of the budget, how many values are in it. Only then is it built, and that apart from the
//! threads that serve others.

use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request};
use axum::http::header;
use futures::StreamExt;
use serde::de::DeserializeOwned;
use weir_model::TenantId;

use crate::budget::{Share, VALUE_COST};
use crate::{Api, Problem, values};

/// Texts of this size are read where they are: less than a hand-over costs.
const SMALL: usize = 16 << 10;

/// What a route takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Bytes of text.
    pub(crate) bytes: usize,
    /// Values in it.
    pub(crate) values: usize,
}

/// The body as JSON of a type, and its share of the budget, to be held for as long as the value lives. Read after the token was checked,
/// so that strangers cannot fill our memory.
pub(crate) async fn json<T: DeserializeOwned + Send + 'static>(
    api: &Api,
    tenant: &TenantId,
    request: Request,
    bounds: Bounds,
) -> Result<(T, Share), Problem> {
    let mut share = api.limits.budget.open(tenant);
    let said = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if said.is_some_and(|said: usize| said > bounds.bytes) {
        return Err(Problem::too_large(bounds.bytes));
    }
    let reading = tokio::time::timeout(api.limits.body_timeout, read(request.into_body(), bounds.bytes, &mut share));
    let text = reading.await.map_err(|_| Problem::too_slow(api.limits.body_timeout))??;
    if text.len() <= SMALL {
        return parse(&text, bounds.values, share);
    }
    let parsing = tokio::task::spawn_blocking(move || parse(&text, bounds.values, share));
    parsing.await.map_err(|e| Problem::malformed(e.to_string()))?
}

async fn read(body: Body, max: usize, share: &mut Share) -> Result<Bytes, Problem> {
    let mut chunks = body.into_data_stream();
    let mut text = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|e| Problem::malformed(format!("the body cannot be read: {e}")))?;
        if text.len() + chunk.len() > max {
            return Err(Problem::too_large(max));
        }
        share.grow(chunk.len())?;
        text.extend_from_slice(&chunk);
    }
    Ok(text.into())
}

fn parse<T: DeserializeOwned>(text: &[u8], values_max: usize, mut share: Share) -> Result<(T, Share), Problem> {
    let wrong = |e: serde_json::Error| Problem::malformed(format!("the body is no JSON of the right form: {e}"));
    let values = values::count(text).map_err(wrong)?;
    if values > values_max {
        return Err(Problem::too_many_values(values, values_max));
    }
    share.grow(values * VALUE_COST)?;
    Ok((serde_json::from_slice(text).map_err(wrong)?, share))
}

/// A part of the address.
pub(crate) fn path(path: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    path.map(|Path(part)| part).map_err(|rejection| Problem::malformed(rejection.body_text()))
}
