//! Who is calling: an API key of a tenant, or the installation's operator.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    extract::{ConnectInfo, Request},
    http::{HeaderMap, header},
};
use data_encoding::HEXLOWER;
use domain::{Secret, TenantId, Timestamp, config::Scope};
use ring::{digest, hmac};
use store::Change;

use crate::{
    Ingress,
    problem::{Kind, Problem},
};

/// The authenticated client of one request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The name of the key.
    pub name: Arc<str>,
    /// Whose key it is; `None` for the installation's operator.
    pub tenant: Option<TenantId>,
    scopes: Arc<[Scope]>,
    /// Of the key; the operator's has none.
    pub(crate) fingerprint: Arc<str>,
    peer: Option<IpAddr>,
}

impl Caller {
    /// The tenant, if the key has the scope in one.
    pub fn may(&self, scope: Scope) -> Result<&TenantId, Problem> {
        self.has(scope)?;
        self.tenant.as_ref().ok_or_else(|| {
            Problem::new(Kind::Forbidden, "the installation's operator key has no tenant; use a key of the tenant")
        })
    }

    /// That the key has the scope.
    pub fn has(&self, scope: Scope) -> Result<(), Problem> {
        if self.scopes.contains(&scope) {
            return Ok(());
        }
        let scope = scope.as_str();
        Err(Problem::new(Kind::Forbidden, format!("this needs the scope `{scope}`, which the key does not have")))
    }

    /// A change made by this client.
    pub(crate) fn change(&self, at: Timestamp) -> Change {
        let from = self.peer.map_or_else(|| "http".to_owned(), |ip| format!("http {ip}"));
        Change { by: self.name.to_string(), from, at }
    }
}

/// SHA-256 in hex: what is kept of a key.
pub fn fingerprint(key: &str) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, key.as_bytes()).as_ref())
}

/// The installation's operator key, compared in constant time.
#[derive(Clone)]
pub(crate) struct OperatorKey(hmac::Key, hmac::Tag);

impl OperatorKey {
    pub(crate) fn new(key: &Secret) -> Self {
        let mac = hmac::Key::new(hmac::HMAC_SHA256, key.expose().as_bytes());
        let tag = hmac::sign(&mac, key.expose().as_bytes());
        Self(mac, tag)
    }

    fn is(&self, presented: &str) -> bool {
        hmac::verify(&self.0, presented.as_bytes(), self.1.as_ref()).is_ok()
    }
}

/// Whose request it is, by its head alone.
pub(crate) fn authenticate(ingress: &Ingress, request: &Request) -> Result<Caller, Problem> {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    identify(ingress, bearer(request.headers())?, peer)
}

fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let refuse = || Problem::new(Kind::Unauthorized, "send one header `Authorization: Bearer <key>`");
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(refuse()) };
    let (scheme, key) = value.to_str().ok().and_then(|v| v.split_once(' ')).ok_or_else(refuse)?;
    if !scheme.eq_ignore_ascii_case("bearer") || key.trim().is_empty() {
        return Err(refuse());
    }
    Ok(key.trim())
}

fn identify(ingress: &Ingress, key: &str, peer: Option<IpAddr>) -> Result<Caller, Problem> {
    if !ingress.config.is_ready() {
        return Err(Problem::new(Kind::Unavailable, "the configuration is still being read; send the request again"));
    }
    if ingress.operator.as_ref().is_some_and(|operator| operator.is(key)) {
        return Ok(Caller {
            name: "operator".into(),
            tenant: None,
            scopes: [Scope::Operator].into(),
            fingerprint: "".into(),
            peer,
        });
    }
    let (snapshot, fingerprint) = (ingress.config.snapshot(), fingerprint(key));
    let Some((at, found)) = snapshot.key(&fingerprint) else {
        return Err(Problem::new(Kind::Unauthorized, "there is no such key"));
    };
    if found.revoked {
        return Err(Problem::new(Kind::Unauthorized, format!("the key `{}` was revoked; use another one", at.name)));
    }
    if snapshot.tenant(&at.tenant).is_none() {
        return Err(Problem::new(Kind::Unauthorized, "the key's tenant does not exist any more"));
    }
    let scopes = found.scopes.as_slice().into();
    Ok(Caller {
        name: at.name.as_str().into(),
        tenant: Some(at.tenant.clone()),
        scopes,
        fingerprint: fingerprint.into(),
        peer,
    })
}
