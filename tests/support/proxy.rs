//! A proxy before a server that loses replies, slows everything down, cuts what is sent, or is gone.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What the proxy does to those who come through it.
#[derive(Default)]
struct Faults {
    /// Connections are refused, and those there are end.
    gone: AtomicBool,
    cut: Notify,
    /// Each message of a client waits so long.
    delay_ms: AtomicU64,
    /// Messages whose reply is still to be lost, and what tells them.
    lose: AtomicU64,
    marker: Mutex<Vec<u8>>,
    lost: AtomicU64,
    /// Bytes of clients that still pass before their connection is cut, or held where it is; below 0 all of them do.
    passing: AtomicI64,
    holding: AtomicBool,
    cuts: AtomicU64,
}

/// A running proxy; ends with the runtime.
pub struct Proxy {
    port: u16,
    faults: Arc<Faults>,
}

impl Proxy {
    /// Stands before the server at a port of loopback.
    pub async fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let faults = Arc::new(Faults::default());
        let proxy = Self { port, faults: faults.clone() };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if faults.gone.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { continue };
                tokio::spawn(carry(client, server, faults.clone()));
            }
        });
        proxy
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on nobody gets through, until [`Self::come_back`].
    pub fn go_away(&self) {
        self.faults.gone.store(true, Ordering::SeqCst);
        self.faults.cut.notify_waiters();
    }

    /// As before.
    pub fn come_back(&self) {
        self.faults.gone.store(false, Ordering::SeqCst);
    }

    /// Every message of a client waits so long.
    pub fn delay(&self, each: Duration) {
        self.faults.delay_ms.store(u64::try_from(each.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// The next `n` messages that hold the marker reach the server; their replies, and the connections, are lost.
    pub fn lose_replies_to(&self, marker: &str, n: u64) {
        *self.faults.marker.lock().unwrap() = marker.as_bytes().to_vec();
        self.faults.lose.store(n, Ordering::SeqCst);
    }

    /// After so many more bytes of whoever sends, that connection is cut.
    pub fn cut_after(&self, bytes: u32) {
        self.faults.holding.store(false, Ordering::SeqCst);
        self.faults.passing.store(i64::from(bytes) + 1, Ordering::SeqCst);
    }

    /// After so many more bytes, the rest of that connection is held back until [`Self::go_away`].
    pub fn hold_after(&self, bytes: u32) {
        self.faults.holding.store(true, Ordering::SeqCst);
        self.faults.passing.store(i64::from(bytes) + 1, Ordering::SeqCst);
    }

    /// Connections cut or held in the middle so far.
    #[must_use]
    pub fn cuts(&self) -> u64 {
        self.faults.cuts.load(Ordering::SeqCst)
    }

    /// Replies lost so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.faults.lost.load(Ordering::SeqCst)
    }
}

async fn carry(client: TcpStream, server: TcpStream, faults: Arc<Faults>) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let losing = Arc::new(AtomicBool::new(false));
    tokio::select! {
        () = faults.cut.notified() => {}
        () = forward(from_client, to_server, &faults, &losing) => {}
        () = backward(from_server, to_client, &faults, &losing) => {}
    }
}

fn holds(message: &[u8], marker: &[u8]) -> bool {
    !marker.is_empty() && message.windows(marker.len()).any(|window| window == marker)
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, faults: &Faults, losing: &AtomicBool) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let delay = faults.delay_ms.load(Ordering::SeqCst);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        let take = |left: u64| left.checked_sub(1);
        let marked = holds(&buffer[..n], &faults.marker.lock().unwrap());
        if marked && faults.lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok() {
            losing.store(true, Ordering::SeqCst);
        }
        let passing = pass(n, faults);
        if to.write_all(&buffer[..passing]).await.is_err() {
            return;
        }
        if passing < n {
            if faults.holding.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            return;
        }
    }
}

/// How many of these bytes pass.
fn pass(n: usize, faults: &Faults) -> usize {
    let length = i64::try_from(n).unwrap();
    let less = |left: i64| (left > 0).then(|| (left - length).max(0));
    match faults.passing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) {
        Ok(left) if left <= length => {
            faults.cuts.fetch_add(1, Ordering::SeqCst);
            usize::try_from(left - 1).unwrap()
        }
        _ => n,
    }
}

async fn backward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, faults: &Faults, losing: &AtomicBool) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        if losing.load(Ordering::SeqCst) {
            // The server has done it and said so; nobody hears.
            faults.lost.fetch_add(1, Ordering::SeqCst);
            return;
        }
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}
