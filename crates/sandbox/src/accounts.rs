//! Accounts that reach the sandbox, in the form in which they are put.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::{Value, json};

use crate::{Shared, tls::ApnsKey};

/// What clients of the fake SMTP server log in as; the password is a setting.
pub(crate) const SMTP_USERNAME: &str = "carillon";

/// With provider tokens of the first or the second team.
pub(crate) fn apns(shared: &Shared, team: usize) -> Value {
    let ApnsKey { team_id, key_id, private_pem, .. } = &shared.tls.apns_keys[team];
    json!({
        "channel": "apns",
        "team_id": team_id,
        "key_id": key_id,
        "private_key": private_pem,
        "topic": "com.example.app",
        "base_url": format!("https://{}", reachable(shared.apns)),
        "ca": shared.tls.ca_pem,
    })
}

/// With a client certificate.
pub(crate) fn apns_certificate(shared: &Shared) -> Value {
    let (certificate, key) = &shared.tls.client;
    json!({
        "channel": "apns",
        "certificate": certificate,
        "certificate_key": key,
        "topic": "com.example.app",
        "base_url": format!("https://{}", reachable(shared.apns)),
        "ca": shared.tls.ca_pem,
    })
}

/// Over STARTTLS, with a password.
pub(crate) fn email(shared: &Shared) -> Value {
    let at = reachable(shared.smtp);
    json!({
        "channel": "email",
        "host": at.ip().to_string(),
        "port": at.port(),
        "tls": "starttls_required",
        "username": SMTP_USERNAME,
        "password": shared.smtp_password.expose(),
        "from": "Carillon <no-reply@example.com>",
        "ca": shared.tls.ca_pem,
    })
}

/// Where a client of this machine connects to: a port that is open on all addresses is on loopback too.
fn reachable(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}
