//! History for any client that speaks Postgres' wire protocol (version 3): psql, notebooks, drivers, Grafana.
//!
//! The protocol, the catalog that clients read on connecting (`pg_catalog`) and the types' encoding are the libraries `pgwire` and
//! `datafusion-postgres`. Ours is what may pass: TLS always, SCRAM with channel binding, a login per tenant that has that tenant's rows
//! alone, queries only, and bounds of time, memory and connections. Each statement reads the last commit of history; rows go to the client
//! as they come, no faster than it takes them.

mod catalog;
mod certificate;
mod clients;
mod copy;
mod errors;
mod freshness;
mod login;
mod logins;
mod passing;
mod running;
mod seen;
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
use weir_engine::retry::chain;
use weir_engine::{BoxError, StatusBoard};

use certificate::Certificate;
use running::Running;
use seen::{Refused, SAID_EVERY, Seen};
use session::Session;
use shared::Shared;
use snapshot::Snapshots;

/// How long a client may take from its connection to its login.
const LOGIN_MAX: Duration = Duration::from_secs(10);

/// How long until a certificate that cannot be read is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Serves until `stop` is done; then connections end with their processes' runtime. What stands in the way is told on the board.
pub async fn serve(
    listener: TcpListener,
    options: Options,
    logins: Arc<dyn Logins>,
    board: StatusBoard,
    stop: impl Future<Output = ()>,
) -> Result<(), BoxError> {
    let seen = Seen::new(board);
    tokio::pin!(stop);
    let mut certificate = loop {
        match Certificate::read(&options.certificate, &options.key) {
            Ok(certificate) => break certificate,
            Err(error) => {
                tracing::error!(error = chain(error.as_ref()), "clients of Postgres' protocol are not answered");
                seen.is(Some(&chain(error.as_ref())));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = &mut stop => {
                seen.ended();
                return Ok(());
            }
        }
    };
    seen.is(None);
    let free = Arc::new(Semaphore::new(options.connections_max));
    let snapshots = Snapshots::new(options.history.clone(), options.memory_max)?;
    let (running, decoy) = (Running::default(), rand::random::<[u8; 32]>());
    let shared = Arc::new(Shared { options, logins, snapshots, running, seen, decoy });
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = tokio::time::sleep(SAID_EVERY) => {
                shared.seen.say();
                if shared.seen.is_in_trouble() && shared.is_well().await {
                    shared.seen.is(None);
                }
                continue;
            }
            () = &mut stop => {
                shared.seen.ended();
                return Ok(());
            }
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
            shared.seen.refused(Refused::Full);
            continue;
        };
        certificate.renew();
        let (shared, shown) = (shared.clone(), certificate.shown());
        connections.spawn(async move {
            shared.seen.connected(1);
            if let Err(error) = converse(socket, shared.clone(), &shown).await {
                tracing::debug!(%address, %error, "a connection ended");
            }
            shared.seen.connected(-1);
            drop(permit);
        });
    }
}

async fn converse(socket: TcpStream, shared: Arc<Shared>, shown: &certificate::Shown) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let (session, entered) = Session::new(shared.clone(), shown).map_err(io::Error::other)?;
    let talking = process_socket(socket, Some(shown.acceptor.clone()), session);
    tokio::pin!(talking);
    tokio::select! {
        ended = &mut talking => return ended,
        // A login that does not come to its end holds a place that others wait for.
        () = tokio::time::sleep(LOGIN_MAX) => {}
    }
    if !entered.is_cancelled() {
        shared.seen.refused(Refused::Slow);
        return Err(io::Error::other("no login in time"));
    }
    talking.await
}
