//! What a request holds, with our own words about what is wrong.

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, Path, Request};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;

use crate::{Api, Problem};

/// The body, of at most so many bytes as its route has, as JSON of a type. Read after the token was checked, so that strangers cannot fill our memory.
pub(crate) async fn json<T: DeserializeOwned>(api: &Api, request: Request, max: usize) -> Result<T, Problem> {
    let reading = tokio::time::timeout(api.limits.body_timeout, Bytes::from_request(request, &()));
    let bytes =
        reading.await.map_err(|_| Problem::too_slow(api.limits.body_timeout))?.map_err(|rejection| match rejection
            .status()
        {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::too_large(max),
            _ => Problem::malformed(rejection.body_text()),
        })?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Problem::malformed(format!("the body is no JSON of the right form: {e}")))
}

/// A part of the address.
pub(crate) fn path(path: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    path.map(|Path(part)| part).map_err(|rejection| Problem::malformed(rejection.body_text()))
}
