//! The HTTP side: commands in, events out, health and metrics. Everything here is translation; the work is done by
//! `weir_postgres::CommandService`.

mod auth;
mod body;
mod budget;
mod commands;
mod front;
mod health;
mod jobs;
mod limits;
mod models;
mod openapi;
mod pace;
mod problem;
mod reads;
mod requests;
mod serve;
mod tls;
mod values;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use metrics_exporter_prometheus::PrometheusHandle;
use weir_engine::StatusBoard;
use weir_postgres::tokens::Tokens;
use weir_postgres::{CommandService, Database, EventStore};

use crate::front::Addresses;

pub use front::Front;
pub use health::{Scraped, exporter};
pub use jobs::{JobListed, Jobs, NotStarted};
pub use limits::Limits;
pub use models::Layout;
pub use problem::Problem;
pub use serve::serve;
pub use tls::{Tls, TlsError};

/// A command's body at most; one event's data in an append is held to [`weir_model::contract::door::DATA_MAX`] besides.
pub const BODY_MAX: usize = 1 << 20;

/// The body of an append at most.
pub const APPEND_BODY_MAX: usize = 16 << 20;

/// Values in the body of an append at most.
pub const APPEND_VALUES_MAX: usize = 50_000;

/// Events in one append at most.
pub const APPEND_EVENTS_MAX: usize = 1000;

/// What the handlers work with.
#[derive(Clone)]
pub struct Api {
    /// The command side.
    pub commands: CommandService,
    /// The event store.
    pub store: EventStore,
    /// Who may do what.
    pub tokens: Tokens,
    /// For the ledger and the durable metrics.
    pub database: Database,
    /// What the lanes of this process do.
    pub board: StatusBoard,
    /// This process's own metrics.
    pub process_metrics: PrometheusHandle,
    /// What one tenant and one client may use.
    pub limits: Arc<Limits>,
    /// What should be at work somewhere: the enabled lanes, and the publisher where there are brokers.
    pub parts: Vec<String>,
    /// Whether the read models are of this build's layout.
    pub layout: Layout,
    /// What was last scraped.
    pub scraped: Scraped,
    /// For metrics: where the data directory is.
    pub data_dir: PathBuf,
    /// For metrics: topics that do not keep records for ever, and how long they do.
    pub retention: Vec<(String, Duration)>,
    /// What runs jobs.
    pub jobs: Arc<dyn Jobs>,
}

/// The routes.
fn router(api: Api, front: &Arc<Front>, checks_host: bool) -> Router {
    let clients = Addresses::new(api.limits.connections_of_address_max);
    let router = Router::new()
        .route("/v1/commands/{command}", post(commands::command))
        .route("/v1/streams/{stream}/events", post(commands::append))
        .route("/v1/streams/{stream}", get(reads::stream))
        .route("/v1/streams/{stream}/snapshot", get(reads::snapshot).put(commands::create_snapshot))
        .route("/v1/events", get(reads::events))
        .route("/v1/lanes/{lane}", get(reads::lane))
        .route("/v1/jobs", get(jobs::list).post(jobs::start))
        .route("/v1/jobs/{id}", get(jobs::one))
        .merge(models::routes())
        .merge(open_routes(front, checks_host))
        .fallback(|| async {
            Problem::not_found("there is nothing at this address; GET /v1/openapi.json lists the routes")
        })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .with_state(Arc::new(api));
    let router = router.layer(from_fn(requests::observe));
    if front.proxies.is_empty() {
        return router;
    }
    router.layer(from_fn_with_state((front.clone(), clients), front::limit_clients))
}

/// What needs no token.
fn open_routes(front: &Arc<Front>, checks_host: bool) -> Router<Arc<Api>> {
    let routes = Router::new()
        .route("/v1/openapi.json", get(openapi::document))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics));
    if checks_host { routes.route_layer(from_fn_with_state(front.clone(), front::check_host)) } else { routes }
}

/// What the reserve is for.
fn health_router(api: Api, front: &Arc<Front>, checks_host: bool) -> Router {
    open_routes(front, checks_host).fallback(|| async { Problem::full() }).with_state(Arc::new(api))
}
