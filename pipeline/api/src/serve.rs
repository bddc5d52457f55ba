//! Accepts connections, as many as there may be and of one address no more than its part; gives each request's head its time, and each
//! piece of an answer; keeps a reserve, so that who asks for health is answered whatever others do. `axum::serve` does none of it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::front::{Addresses, ConnectionSlot, Front, Peer};
use crate::tls::HTTP_2;
use crate::{Api, health_router, router};

/// After an error of accepting (out of file descriptors, mostly) a moment may help.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Requests under way get so long to finish when the server stops.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Connections beyond all others, for health and metrics alone: one request each, little time for it, and the oldest goes when another
/// one comes.
const RESERVE: usize = 32;
const RESERVE_TIMEOUT: Duration = Duration::from_secs(2);
const RESERVE_AGE_MAX: Duration = Duration::from_secs(5);

/// Requests of one connection at once.
const STREAMS_MAX: u32 = 32;

/// Of one request, names and values.
const HEAD_MAX: u32 = 64 << 10;

/// A connection of HTTP/2 that lives is asked for a sign of it so often, ends when it gives none, and ends in any case after a while: its
/// client opens another one and notices nothing, while one that takes no answers is rid of.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const SILENCE_MAX: Duration = Duration::from_secs(60);
const AGE_MAX: Duration = Duration::from_secs(600);

/// What is under way on it then may still take as long as the longest request.
const AGED_DRAIN_MAX: Duration = Duration::from_secs(60);

/// Serves until `stop`, then lets the requests under way finish.
pub async fn serve(listener: TcpListener, front: Front, api: Api, stop: CancellationToken) -> std::io::Result<()> {
    // Where only this machine can connect, a name that is not ours is a trick; elsewhere only the owner knows the names.
    let checks_host = listener.local_addr()?.ip().is_loopback() && front.proxies.is_empty() || !front.hosts.is_empty();
    let renewing = front.tls.clone().map(|tls| tokio::spawn(tls.renew()));
    let front = Arc::new(front);
    let doors = Doors::new(&api, front.clone(), checks_host, stop.clone());
    let open = TaskTracker::new();
    while let Some((stream, peer, place)) = next(&listener, &doors, &stop).await {
        open.spawn(doors.clone().serve(stream, peer.ip().to_canonical(), place));
    }
    drop(listener);
    open.close();
    // Who never reads its answer would keep the process up.
    if tokio::time::timeout(DRAIN_MAX, open.wait()).await.is_err() {
        tracing::warn!("some clients did not take their answers in time");
    }
    if let Some(renewing) = renewing {
        renewing.abort();
    }
    Ok(())
}

/// The next connection that there is a place for; `None` when told to stop.
async fn next(
    listener: &TcpListener,
    doors: &Doors,
    stop: &CancellationToken,
) -> Option<(TcpStream, SocketAddr, Admission)> {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return None,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match doors.place(peer.ip().to_canonical()) {
                Some(place) => return Some((stream, peer, place)),
                None => metrics::counter!("weir_http_connections_refused_total").increment(1),
            },
            Err(error) => {
                tracing::warn!(%error, "no connection accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What a connection holds while it lives.
enum Admission {
    Usual { _permit: OwnedSemaphorePermit, _of_address: Option<ConnectionSlot> },
    Reserve { evicted: CancellationToken },
}

/// The connections beyond all others, oldest first.
#[derive(Clone, Default)]
struct Reserve(Arc<Mutex<VecDeque<CancellationToken>>>);

impl Reserve {
    fn enter(&self) -> Admission {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|evicted| !evicted.is_cancelled());
        if open.len() >= RESERVE
            && let Some(oldest) = open.pop_front()
        {
            oldest.cancel();
        }
        let evicted = CancellationToken::new();
        open.push_back(evicted.clone());
        Admission::Reserve { evicted }
    }
}

/// Everything that connections share.
#[derive(Clone)]
struct Doors {
    front: Arc<Front>,
    usual: Arc<Semaphore>,
    reserve: Reserve,
    addresses: Addresses,
    everything: TowerToHyperService<Router>,
    health: TowerToHyperService<Router>,
    header_timeout: Duration,
    write_timeout: Duration,
    stop: CancellationToken,
}

impl Doors {
    fn new(api: &Api, front: Arc<Front>, checks_host: bool, stop: CancellationToken) -> Self {
        let limits = &api.limits;
        Self {
            usual: Arc::new(Semaphore::new(limits.connections_max)),
            reserve: Reserve::default(),
            addresses: Addresses::new(limits.connections_of_address_max),
            header_timeout: limits.header_timeout,
            write_timeout: limits.body_timeout,
            everything: TowerToHyperService::new(router(api.clone(), &front, checks_host)),
            health: TowerToHyperService::new(health_router(api.clone(), &front, checks_host)),
            front,
            stop,
        }
    }

    /// An address that takes all there are would lock everybody else out: beyond its part it is in the reserve. Proxies ask for many.
    fn place(&self, peer: IpAddr) -> Option<Admission> {
        if !self.front.admits(peer) {
            return None;
        }
        if let Ok(permit) = self.usual.clone().try_acquire_owned() {
            let is_proxy = self.front.is_proxy(peer);
            let held = if is_proxy { None } else { self.addresses.enter(peer) };
            if is_proxy || held.is_some() {
                return Some(Admission::Usual { _permit: permit, _of_address: held });
            }
        }
        Some(self.reserve.enter())
    }

    async fn serve(self, stream: TcpStream, peer: IpAddr, place: Admission) {
        let Admission::Reserve { evicted } = &place else {
            let (head, write) = (self.header_timeout, self.write_timeout);
            self.speak(stream, peer, false, head, write).await;
            return drop(place);
        };
        let speaking = self.speak(stream, peer, true, RESERVE_TIMEOUT, RESERVE_TIMEOUT);
        tokio::select! {
            // Who asks for more than its time has had it.
            spoken = tokio::time::timeout(RESERVE_AGE_MAX, speaking) => drop(spoken),
            () = evicted.cancelled() => {}
        }
        evicted.cancel();
    }

    /// TLS where there is some, and the HTTP that the client chose.
    async fn speak(self, stream: TcpStream, peer: IpAddr, is_reserve: bool, head: Duration, write: Duration) {
        let stream = prepared(stream, write);
        let Some(tls) = &self.front.tls else {
            return self.serve_http1(stream, peer, is_reserve, head).await;
        };
        let mut stream = match tokio::time::timeout(head, tls.acceptor().accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "no TLS"),
            Err(_) => return tracing::debug!("TLS took too long"),
        };
        if stream.get_ref().1.alpn_protocol() == Some(HTTP_2) {
            stream.get_mut().0.as_mut().set_read_timeout_pinned(Some(SILENCE_MAX));
            return self.serve_http2(stream, peer, is_reserve).await;
        }
        self.serve_http1(stream, peer, is_reserve, head).await;
    }

    async fn serve_http1<S>(self, stream: S, peer: IpAddr, is_reserve: bool, head: Duration)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(head).keep_alive(!is_reserve);
        let service = if is_reserve { self.health } else { self.everything };
        let ends = async {
            self.stop.cancelled().await;
            DRAIN_MAX
        };
        drive(builder.serve_connection(TokioIo::new(stream), with_peer(service, peer)), ends).await;
    }

    async fn serve_http2<S>(self, stream: S, peer: IpAddr, is_reserve: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).max_concurrent_streams(STREAMS_MAX).max_header_list_size(HEAD_MAX);
        builder.keep_alive_interval(Some(PING_INTERVAL)).keep_alive_timeout(PING_INTERVAL);
        let service = if is_reserve { self.health } else { self.everything };
        let ends = async {
            match tokio::time::timeout(AGE_MAX, self.stop.cancelled()).await {
                Ok(()) => DRAIN_MAX,
                Err(_) => AGED_DRAIN_MAX,
            }
        };
        drive(builder.serve_connection(TokioIo::new(stream), with_peer(service, peer)), ends).await;
    }
}

/// Tells each request where it comes from.
fn with_peer(
    service: TowerToHyperService<Router>,
    peer: IpAddr,
) -> impl HttpService<Incoming, ResBody = axum::body::Body, Error = Infallible, Future: Send> + Clone {
    service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        service.call(request)
    })
}

/// To the connection's end; once `ends` says so, it takes nothing new, and what is under way has the time that it gives.
async fn drive<C>(connection: C, ends: impl Future<Output = Duration>)
where
    C: GracefulConnection,
    C::Error: std::fmt::Display,
{
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        drain_max = ends => {
            connection.as_mut().graceful_shutdown();
            let Ok(ended) = tokio::time::timeout(drain_max, connection).await else { return };
            ended
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
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
