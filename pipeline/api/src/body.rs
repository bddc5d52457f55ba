//! Bodies as JSON, with our own words about what is wrong.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use serde::de::DeserializeOwned;

use crate::{BODY_MAX, Problem};

/// The body as JSON of a type.
pub(crate) fn json<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, Problem> {
    let bytes = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::too_large(BODY_MAX),
        _ => Problem::malformed(rejection.body_text()),
    })?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Problem::malformed(format!("the body is no JSON of the right form: {e}")))
}
