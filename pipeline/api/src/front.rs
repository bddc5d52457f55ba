//! How clients come to the HTTP side: by TLS or without, through proxies or at once, under which names.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;

use crate::Problem;
use crate::tls::Tls;

/// What is in front of the HTTP side.
#[derive(Clone, Default)]
pub struct Front {
    /// The certificate that it shows; without, requests come in clear.
    pub tls: Option<Tls>,
    /// Addresses of proxies that are trusted to say for whom they ask (`X-Forwarded-For`).
    pub proxies: Vec<IpNet>,
    /// Names under which it is reached, beside addresses and `localhost`.
    pub hosts: Vec<String>,
    /// Whether those who come from beyond this machine, and not through a proxy, may send their tokens in clear.
    pub plaintext_beyond_loopback: bool,
}

impl Front {
    pub(crate) fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|net| net.contains(&address))
    }

    /// Whether a connection from there may be served at all.
    pub(crate) fn admits(&self, peer: IpAddr) -> bool {
        self.tls.is_some() || self.plaintext_beyond_loopback || peer.is_loopback() || self.is_proxy(peer)
    }

    /// Who asks: the nearest address before the trusted proxies, and the peer where a proxy names none that can be read. `None` for the
    /// peer's own requests.
    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        if !self.is_proxy(peer) {
            return None;
        }
        // As bytes: what a client wrote before is none of a proxy's business, and need be no text.
        let lines = headers.get_all("x-forwarded-for").iter().rev();
        let hops = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        let mut named = None;
        for hop in hops {
            match hop_address(hop) {
                Some(address) if self.is_proxy(address) => named = Some(peer),
                // Whatever stands before the first address that no trusted proxy has is the client's own invention.
                Some(address) => return Some(address),
                None => return Some(peer),
            }
        }
        named
    }

    /// Whether a request may name this host. A page of somewhere else can make a browser ask a server of its own machine, under a name
    /// that the page's owner points there; that name is none of ours.
    fn knows(&self, host: &str) -> bool {
        let name = host_name(host).to_ascii_lowercase();
        name == "localhost" || name.parse::<IpAddr>().is_ok() || self.hosts.contains(&name)
    }
}

/// An address as proxies write it: alone, with a port, in brackets.
fn hop_address(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim();
    text.parse().ok().or_else(|| host_name(text).parse().ok()).map(|address: IpAddr| address.to_canonical())
}

/// Whom an address stands for: of IPv6 one client has a whole network of 64 bits, of loopback every address is the same machine.
fn whom(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) if address.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// A host without its port and without the brackets of IPv6.
fn host_name(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(host, |(name, _)| name)
}

/// The other end of the connection that a request came on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Holds what a proxy's clients have under way to as much as clients that come without one may hold.
pub(crate) async fn limit_clients(
    State((front, clients)): State<(Arc<Front>, Addresses)>,
    request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    let client = peer.and_then(|Peer(peer)| front.client(peer, request.headers()));
    let held = client.map(|client| clients.enter(client));
    if matches!(held, Some(None)) {
        return Problem::address_busy().into_response();
    }
    next.run(request).await
}

/// Refuses what needs no token under a name that is not ours.
pub(crate) async fn check_host(State(front): State<Arc<Front>>, request: Request, next: Next) -> Response {
    let said = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or("?"));
    // HTTP/2 has it in the address. Who says nothing is no browser.
    match said.or_else(|| request.uri().host()) {
        Some(host) if !front.knows(host) => Problem::misdirected().into_response(),
        _ => next.run(request).await,
    }
}

/// How much each address holds, of connections or requests.
#[derive(Clone)]
pub(crate) struct Addresses {
    held: Arc<Mutex<HashMap<IpAddr, usize>>>,
    max: usize,
}

/// One of an address's, until dropped.
pub(crate) struct ConnectionSlot {
    addresses: Addresses,
    address: IpAddr,
}

impl Addresses {
    pub(crate) fn new(max: usize) -> Self {
        Self { held: Arc::default(), max }
    }

    pub(crate) fn enter(&self, address: IpAddr) -> Option<ConnectionSlot> {
        let address = whom(address);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(address).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(ConnectionSlot { addresses: self.clone(), address })
    }
}

impl Drop for ConnectionSlot {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_the_nearest_address_before_the_trusted_proxies() {
        let proxies = vec!["10.0.0.0/8".parse().expect("a network"), "::1/128".parse().expect("a network")];
        let front = Front { proxies, ..Front::default() };
        let client = |peer: &str, lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                let value = line.chars().map(|c| u8::try_from(u32::from(c)).expect("a byte")).collect::<Vec<_>>();
                headers.append("x-forwarded-for", value.try_into().expect("a header"));
            }
            front.client(peer.parse().expect("an address"), &headers).map(|address| address.to_string())
        };
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 192.0.2.7, 10.0.0.2"]).as_deref(), Some("192.0.2.7"));
        assert_eq!(client("::1", &["6.6.6.6", "192.0.2.7"]).as_deref(), Some("192.0.2.7"));
        // Not from whom it comes by itself, and nothing that is no address.
        assert_eq!(client("192.0.2.1", &["192.0.2.7"]), None);
        assert_eq!(client("10.0.0.1", &["192.0.2.7, unknown"]).as_deref(), Some("10.0.0.1"));
        assert_eq!(client("10.0.0.1", &["unknown, 10.0.0.2"]).as_deref(), Some("10.0.0.1"));
        assert_eq!(client("10.0.0.1", &[]), None);
        // What a client puts before does not hide it, be it text or not; proxies may write ports.
        assert_eq!(client("10.0.0.1", &["\u{ff}, 192.0.2.7:4711"]).as_deref(), Some("192.0.2.7"));
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]:80"]).as_deref(), Some("2001:db8::1"));
        assert_eq!(client("10.0.0.1", &["::ffff:192.0.2.7"]).as_deref(), Some("192.0.2.7"));
    }

    #[test]
    fn one_client_has_one_share_whatever_address_it_takes() {
        let addresses = Addresses::new(2);
        let enter = |address: &str| addresses.enter(address.parse().expect("an address"));
        let held = (enter("127.0.0.1"), enter("127.9.9.9"), enter("2001:db8::1"), enter("2001:db8::2"));
        assert!(held.0.is_some() && held.1.is_some() && held.2.is_some() && held.3.is_some());
        assert!(enter("::ffff:127.0.0.2").is_none() && enter("2001:db8::3").is_none());
        assert!(enter("2001:db8:0:1::1").is_some() && enter("192.0.2.1").is_some());
        drop(held);
        assert!(enter("127.0.0.3").is_some());
    }

    #[test]
    fn names_of_others_are_not_known() {
        let front = Front { hosts: vec!["weir.example".to_owned()], ..Front::default() };
        let known = ["localhost", "LOCALHOST:8626", "127.0.0.1:8626", "[::1]:8626", "[::1]", "weir.example:443"];
        assert!(known.into_iter().all(|host| front.knows(host)));
        assert!(
            !["evil.example", "localhost.evil.example:80", "", "weir.example.", "x"].iter().any(|h| front.knows(h))
        );
    }
}
