//! History for any client that speaks Postgres' wire protocol (version 3): psql, notebooks, drivers, Grafana.
//!
//! The protocol, the catalog that clients read on connecting (`pg_catalog`) and the types' encoding are the libraries `pgwire` and
//! `datafusion-postgres`. Ours is what may pass: TLS always, SCRAM with channel binding, a login per tenant that has that tenant's rows
//! alone, queries only, and bounds of time, memory and connections. Each statement reads the last commit of history; rows go to the client
//! as they come, no faster than it takes them.

mod certificate;
mod clients;
mod copy;
mod errors;
mod freshness;
mod login;
mod logins;
mod passing;
mod running;
mod session;
mod shared;
mod snapshot;

pub use freshness::schema as freshness_schema;
pub use logins::{Login, Logins};
pub use shared::Options;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use datafusion_postgres::pgwire::tokio::process_socket;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use weir_engine::BoxError;

use certificate::Certificate;
use running::Running;
use session::Session;
use shared::Shared;
use snapshot::Snapshots;

/// Serves until `stop` is done; then connections end with their processes' runtime.
pub async fn serve(
    listener: TcpListener,
    options: Options,
    logins: Arc<dyn Logins>,
    stop: impl Future<Output = ()>,
) -> Result<(), BoxError> {
    let mut certificate = Certificate::read(&options.certificate, &options.key)?;
    let free = Arc::new(Semaphore::new(options.connections_max));
    let snapshots = Snapshots::new(options.history.clone(), options.memory_max)?;
    let shared =
        Arc::new(Shared { options, logins, snapshots, running: Running::default(), decoy: rand::random::<[u8; 32]>() });
    tokio::pin!(stop);
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => return Ok(()),
        };
        while connections.try_join_next().is_some() {}
        let (socket, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = free.clone().try_acquire_owned() else {
            tracing::warn!(%address, max = shared.options.connections_max, "too many connections: one was closed");
            continue;
        };
        certificate.renew();
        let (shared, shown) = (shared.clone(), certificate.shown());
        connections.spawn(async move {
            if let Err(error) = converse(socket, shared, &shown).await {
                tracing::debug!(%address, %error, "a connection ended");
            }
            drop(permit);
        });
    }
}

async fn converse(socket: TcpStream, shared: Arc<Shared>, shown: &certificate::Shown) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let session = Session::new(shared, shown).map_err(io::Error::other)?;
    process_socket(socket, Some(shown.acceptor.clone()), session).await
}
