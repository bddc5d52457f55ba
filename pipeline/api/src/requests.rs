//! Rate, errors and duration of requests, by route.

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::Instant;
use weir_engine::{metric, observed};

/// The route of a request that none is for: its own address would be a label of a stranger's choice.
const NONE: &str = "(none)";

/// Counts a request when it is answered.
pub(crate) async fn observe(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or(NONE, MatchedPath::as_str).to_owned();
    // So is a method.
    let method = match request.method().as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "OPTIONS" | "PATCH") => known.to_owned(),
        _ => "other".to_owned(),
    };
    let response = next.run(request).await;
    let class = format!("{}xx", response.status().as_u16() / 100);
    let labels = [("method", method), ("route", route.clone()), ("class", class)];
    metrics::counter!(metric::HTTP_REQUESTS, &labels).increment(1);
    observed::request(&route, began.elapsed().as_secs_f64());
    response
}
