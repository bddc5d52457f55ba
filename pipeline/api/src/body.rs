//! What a request holds, with our own words about what is wrong.
//!
//! Text comes first: its size, what it holds of the budget, how many values are in it. Only then is it built, and that apart from the
//! threads that serve others.

use std::time::Duration;

use axum::body::{BodyDataStream, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request};
use axum::http::header;
use futures::StreamExt;
use serde::de::DeserializeOwned;
use weir_model::TenantId;
use weir_postgres::tokens::Principal;

use crate::auth::revoked;
use crate::budget::{Share, VALUE_COST};
use crate::pace::Pace;
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
    principal: &Principal,
    request: Request,
    bounds: Bounds,
) -> Result<(T, Share), Problem> {
    let mut share = api.limits.budget.open(&principal.tenant);
    let said = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let mut body = Body {
        chunks: request.into_body().into_data_stream(),
        pace: said.is_none_or(|said| said > SMALL).then_some((&api.limits.pace, &principal.tenant)),
    };
    let reading = tokio::time::timeout(api.limits.body_timeout, body.read(said, bounds.bytes, &mut share));
    let read = tokio::select! {
        read = reading => read.map_err(|_| Problem::too_slow(api.limits.body_timeout))?,
        problem = revoked(api, principal) => return Err(problem),
    };
    let text = match read {
        Ok(text) => text,
        Err(problem) => {
            drop(share);
            body.pass_over().await;
            return Err(problem);
        }
    };
    if text.len() <= SMALL {
        return parse(&text, bounds.values, share);
    }
    let parsing = tokio::task::spawn_blocking(move || parse(&text, bounds.values, share));
    parsing.await.map_err(|e| Problem::malformed(e.to_string()))?
}

/// What is still to be read, and, unless it is small, at which pace.
struct Body<'a> {
    chunks: BodyDataStream,
    pace: Option<(&'a Pace, &'a TenantId)>,
}

impl Body<'_> {
    async fn read(&mut self, said: Option<usize>, max: usize, share: &mut Share) -> Result<Bytes, Problem> {
        if said.is_some_and(|said| said > max) {
            return Err(Problem::too_large(max));
        }
        let _turn = match self.pace {
            Some((pace, tenant)) => pace.turn(tenant).await,
            None => None,
        };
        let mut text = Vec::new();
        while let Some(chunk) = self.next().await {
            let chunk = chunk.map_err(|e| Problem::malformed(format!("the body cannot be read: {e}")))?;
            if text.len() + chunk.len() > max {
                return Err(Problem::too_large(max));
            }
            share.grow(chunk.len())?;
            text.extend_from_slice(&chunk);
        }
        Ok(text.into())
    }

    /// What is refused is read on all the same, and dropped: a connection that closes while the client still sends is reset, and then
    /// the answer is not read.
    async fn pass_over(&mut self) {
        const BYTES_MAX: usize = 64 << 20;
        const TIME_MAX: Duration = Duration::from_secs(5);
        let passing = async {
            let mut passed = 0;
            while let Some(Ok(chunk)) = self.next().await {
                passed += chunk.len();
                if passed > BYTES_MAX {
                    break;
                }
            }
        };
        // Who is slower gets no answer.
        drop(tokio::time::timeout(TIME_MAX, passing).await);
    }

    async fn next(&mut self) -> Option<Result<Bytes, axum::Error>> {
        let chunk = self.chunks.next().await?;
        if let (Ok(chunk), Some((pace, tenant))) = (&chunk, self.pace) {
            pace.read(tenant, chunk.len()).await;
        }
        Some(chunk)
    }
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
