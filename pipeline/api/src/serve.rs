//! Accepts connections, as many as there may be and of one address no more than its part, and gives each request's head its time, and
//! each piece of an answer. `axum::serve` does none of it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;

use crate::{Api, router};

/// After an error of accepting (out of file descriptors, mostly) a moment may help.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Requests under way get so long to finish when the server stops.
const DRAIN_MAX: Duration = Duration::from_secs(8);

/// Serves until `stop`, then lets the requests under way finish.
pub async fn serve(listener: TcpListener, api: Api, stop: CancellationToken) -> std::io::Result<()> {
    let permits = Arc::new(Semaphore::new(api.limits.connections_max));
    let addresses = Addresses::new(api.limits.connections_of_address_max);
    let write_timeout = api.limits.body_timeout;
    let mut connections = http1::Builder::new();
    connections.timer(TokioTimer::new()).header_read_timeout(api.limits.header_timeout);
    let service = TowerToHyperService::new(router(api));
    let graceful = GracefulShutdown::new();
    loop {
        let permit = tokio::select! {
            () = stop.cancelled() => break,
            permit = permits.clone().acquire_owned() => permit,
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok((stream, address)) => (stream, address.ip()),
            Err(error) => {
                tracing::warn!(%error, "no connection accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // One address that takes all there are would lock everybody else out.
        let Some(place) = addresses.enter(address) else {
            metrics::counter!("weir_http_connections_refused_total").increment(1);
            continue;
        };
        let stream = TokioIo::new(prepared(stream, write_timeout));
        let connection = graceful.watch(connections.serve_connection(stream, service.clone()));
        tokio::spawn(async move {
            let _held = (permit, place);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended");
            }
        });
    }
    drop(listener);
    // Who never reads its answer would keep the process up.
    if tokio::time::timeout(DRAIN_MAX, graceful.shutdown()).await.is_err() {
        tracing::warn!("some clients did not take their answers in time");
    }
    Ok(())
}

/// A client that does not take its answer ends its connection, not others'.
fn prepared(stream: TcpStream, write_timeout: Duration) -> Pin<Box<TimeoutStream<TcpStream>>> {
    // Answers are small and awaited: they go out at once.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection ended at once");
    }
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(write_timeout));
    Box::pin(stream)
}

/// How many connections each address holds.
#[derive(Clone)]
struct Addresses {
    held: Arc<Mutex<HashMap<IpAddr, usize>>>,
    max: usize,
}

/// One of an address's connections, until dropped.
struct Held {
    addresses: Addresses,
    address: IpAddr,
}

impl Addresses {
    fn new(max: usize) -> Self {
        Self { held: Arc::default(), max }
    }

    fn enter(&self, address: IpAddr) -> Option<Held> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(address).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Held { addresses: self.clone(), address })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.addresses.held.lock().unwrap_or_else(PoisonError::into_inner);
        let left = held.get(&self.address).copied().unwrap_or(0).saturating_sub(1);
        if left == 0 {
            held.remove(&self.address);
        } else {
            held.insert(self.address, left);
        }
    }
}
