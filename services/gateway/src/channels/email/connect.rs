//! From an account's host to a connection that the guard allows: a tenant names the host, so it must not reach what is behind
//! the firewall.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use tokio::{net::TcpStream, time::timeout};

use crate::guard::{CONNECT, ConnectError, Network, allowed};

/// Most addresses of one name that are tried.
const MAX_TRIED: usize = 4;

/// Whether a connection may be made. On public addresses only to the ports of mail and to those that any user's program may
/// listen on; in networks that were opened on purpose to any.
fn allows(to: SocketAddr, opened: &[IpNet]) -> bool {
    let is_opened = opened.iter().any(|net| net.contains(&to.ip().to_canonical()));
    is_opened || (allowed(to.ip(), &[]) && matches!(to.port(), 25 | 465 | 587 | 1024..))
}

/// Connects to a vetted address. A name is resolved once, and what was vetted is what is connected to.
pub(super) async fn connect(
    network: &dyn Network,
    opened: &[IpNet],
    host: &str,
    port: u16,
) -> Result<TcpStream, ConnectError> {
    let vetted = timeout(CONNECT, vet(network, opened, host, port)).await.unwrap_or(Err(ConnectError::TimedOut))?;
    // none of the addresses may use up the time of the others
    let share = CONNECT / u32::try_from(vetted.len()).unwrap_or(1).max(1);
    let mut error = ConnectError::Unresolved;
    for to in vetted {
        match timeout(share, network.dial(to)).await {
            Ok(Ok(stream)) => {
                // without this a write that follows a write waits 40 ms for the server's delayed ACK
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(e)) => error = e.into(),
            Err(_) => error = ConnectError::TimedOut,
        }
    }
    Err(error)
}

/// The addresses that may be connected to; never empty.
async fn vet(network: &dyn Network, opened: &[IpNet], host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
    let found = match host.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => network.resolve(host, port).await.map_err(|_| ConnectError::Unresolved)?,
    };
    if found.is_empty() {
        return Err(ConnectError::Unresolved);
    }
    let vetted: Vec<_> = found.into_iter().filter(|to| allows(*to, opened)).take(MAX_TRIED).collect();
    if vetted.is_empty() { Err(ConnectError::Forbidden) } else { Ok(vetted) }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::guard::{System, parse_network};

    #[test]
    fn public_servers_are_reached_on_the_ports_of_mail_only() {
        let opened = [parse_network("10.20.0.0/16").expect("a network")];
        for (to, expected) in [
            ("8.8.8.8:25", true),
            ("8.8.8.8:465", true),
            ("8.8.8.8:587", true),
            ("8.8.8.8:2525", true),
            ("8.8.8.8:22", false),
            ("8.8.8.8:443", false),
            ("127.0.0.1:25", false),
            ("169.254.169.254:587", false),
            ("[::ffff:127.0.0.1]:25", false),
            ("[::1]:25", false),
            ("10.20.1.1:26", true),
            ("10.21.1.1:25", false),
            ("[::ffff:10.20.1.1]:22", true),
            ("[2606:4700::1]:587", true),
        ] {
            assert_eq!(allows(to.parse().expect(to), &opened), expected, "{to}");
        }
    }

    #[tokio::test]
    async fn a_connection_never_waits_for_delayed_acks() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("bound").port();
        let opened = [parse_network("127.0.0.0/8").expect("a network")];
        let stream = connect(&System, &opened, "127.0.0.1", port).await.expect("connected");
        assert!(stream.nodelay().expect("an option"));
        let closed = connect(&System, &[], "127.0.0.1", port).await;
        assert_eq!(closed.err(), Some(ConnectError::Forbidden));
    }
}
