//! Keeps customers' URLs away from what is behind our firewall: decides about addresses, and connects to no other.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use hyper::Uri;
use hyper_util::rt::TokioIo;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tokio::net::TcpStream;
use tower::Service;

/// From the name to a connection, TLS included.
pub const CONNECT: Duration = Duration::from_secs(5);
/// Most addresses of one name that are tried.
const MAX_TRIED: usize = 4;

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(a: u16, b: u16, c: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)
}

/// IPv4 that is not public (IANA's special-purpose registry), and one public address that is a cloud's own.
const CLOSED_V4: [Ipv4Net; 17] = [
    v4(0, 0, 0, 0, 8),
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10), // shared by carriers; some clouds' metadata
    v4(127, 0, 0, 0, 8),
    v4(168, 63, 129, 16, 32), // Azure's host, reachable from every machine
    v4(169, 254, 0, 0, 16),   // link-local, metadata
    v4(172, 16, 0, 0, 12),
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),
    v4(192, 31, 196, 0, 24),
    v4(192, 52, 193, 0, 24),
    v4(192, 88, 99, 0, 24), // 6to4 relays
    v4(192, 168, 0, 0, 16),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    v4(224, 0, 0, 0, 3), // multicast, reserved, broadcast
];

/// Of IPv6 only global unicast is public at all: that leaves out loopback, private, link-local, multicast, NAT64 and segment routing.
const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 0, 3);

/// What is not public inside of it.
const CLOSED_V6: [Ipv6Net; 5] = [
    v6(0x2001, 0, 0, 23),     // protocol assignments, Teredo and ORCHID among them
    v6(0x2001, 0xdb8, 0, 32), // documentation
    v6(0x2002, 0, 0, 16),     // 6to4: holds any IPv4 address
    v6(0x2620, 0x4f, 0x8000, 48),
    v6(0x3fff, 0, 0, 20), // documentation
];

/// Whether we connect to an address: it is public or in a network that was opened on purpose.
pub fn allowed(ip: IpAddr, opened: &[IpNet]) -> bool {
    is_opened(ip, opened) || is_public(ip)
}

fn is_opened(ip: IpAddr, opened: &[IpNet]) -> bool {
    let ip = ip.to_canonical();
    opened.iter().any(|net| net.contains(&ip))
}

fn is_public(ip: IpAddr) -> bool {
    // `::ffff:127.0.0.1` is 127.0.0.1
    match ip.to_canonical() {
        IpAddr::V4(ip) => !CLOSED_V4.iter().any(|net| net.contains(&ip)),
        IpAddr::V6(ip) => GLOBAL_V6.contains(&ip) && !CLOSED_V6.iter().any(|net| net.contains(&ip)),
    }
}

/// Parses a network of the settings; a bare address is a network of one.
pub fn parse_network(text: &str) -> Result<IpNet, String> {
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    net.map_err(|_| format!("`{}` is no network like 10.20.0.0/16", text.escape_debug()))
}

/// What this installation connects to.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    /// Networks that are allowed although they are not public; in them any port and plain http are allowed.
    pub opened: Vec<IpNet>,
    /// Plain http to public addresses.
    pub allow_http: bool,
}

impl Guard {
    /// Whether a connection may be made. On public addresses only web ports: 80, 443 and those that any user's program may
    /// listen on, so that nobody makes us talk to a mail server.
    pub fn allows(&self, https: bool, to: SocketAddr) -> bool {
        let web = matches!(to.port(), 80 | 443 | 1024..);
        is_opened(to.ip(), &self.opened) || (allowed(to.ip(), &[]) && web && (https || self.allow_http))
    }
}

/// The network as the guard uses it; a test's records what it is asked for.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// All addresses of a name.
    async fn resolve(&self, host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>>;
    /// Connects.
    async fn dial(&self, to: SocketAddr) -> std::io::Result<TcpStream>;
}

/// The machine's own network.
pub struct System;

#[async_trait]
impl Network for System {
    async fn resolve(&self, host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }

    async fn dial(&self, to: SocketAddr) -> std::io::Result<TcpStream> {
        TcpStream::connect(to).await
    }
}

/// Why there is no connection; says nothing about the network behind us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectError {
    /// The guard refuses every address there is.
    Forbidden,
    /// The name has no address.
    Unresolved,
    /// Nobody listens there.
    Refused,
    /// Too slow.
    TimedOut,
    /// Anything else.
    Failed,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forbidden => "webhooks may not go to this address",
            Self::Unresolved => "the host's name was not resolved",
            Self::Refused => "the connection was refused",
            Self::TimedOut => "no connection in time",
            Self::Failed => "no connection",
        })
    }
}

impl std::error::Error for ConnectError {}

impl From<std::io::Error> for ConnectError {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::ConnectionRefused { Self::Refused } else { Self::Failed }
    }
}

/// Connects to vetted addresses only. A name is resolved here, once, and what was vetted is what is connected to: an answer
/// that changes in between (DNS rebinding) cannot matter. There is no proxy, and none is looked for in the environment.
#[derive(Clone)]
pub struct Connector {
    guard: Arc<Guard>,
    network: Arc<dyn Network>,
}

impl Connector {
    /// Connects through `network` to what `guard` allows.
    pub fn new(guard: Guard, network: Arc<dyn Network>) -> Self {
        Self { guard: Arc::new(guard), network }
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<TcpStream>, ConnectError> {
        let vetted = self.vet(&uri).await?;
        // none of the addresses may use up the time of the others
        let share = CONNECT / u32::try_from(vetted.len()).unwrap_or(1).max(1);
        let mut error = ConnectError::Unresolved;
        for to in vetted {
            match tokio::time::timeout(share, self.network.dial(to)).await {
                Ok(Ok(stream)) => {
                    // a request is several small writes: without this each waits for the peer's delayed ACK
                    stream.set_nodelay(true)?;
                    return Ok(TokioIo::new(stream));
                }
                Ok(Err(e)) => error = e.into(),
                Err(_) => error = ConnectError::TimedOut,
            }
        }
        Err(error)
    }

    /// The addresses that may be connected to; never empty.
    async fn vet(&self, uri: &Uri) -> Result<Vec<SocketAddr>, ConnectError> {
        let https = uri.scheme_str() == Some("https");
        let host = uri.host().ok_or(ConnectError::Unresolved)?;
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let found = match literal {
            Ok(ip) => vec![SocketAddr::new(ip, port)],
            Err(_) => self.network.resolve(host, port).await.map_err(|_| ConnectError::Unresolved)?,
        };
        if found.is_empty() {
            return Err(ConnectError::Unresolved);
        }
        let vetted: Vec<_> = found.into_iter().filter(|to| self.guard.allows(https, *to)).take(MAX_TRIED).collect();
        if vetted.is_empty() { Err(ConnectError::Forbidden) } else { Ok(vetted) }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

#[cfg(test)]
mod tests;
