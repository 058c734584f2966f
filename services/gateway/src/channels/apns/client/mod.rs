//! The client: credentials with their connections and their token, and one attempt with all that may be done within it.

mod connection;
mod pool;
mod sips;
mod tls;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use domain::{Environment, TenantId, Timestamp, channel::apns::Account};
use hyper::{Uri, http::uri::Authority};
use tokio::time::Instant;
use tokio_rustls::rustls::pki_types::ServerName;

use self::{
    connection::{Lost, Target},
    pool::{Pool, Slot},
};
use super::{
    Options,
    payload::Message,
    token::Tokens,
    verdict::{Answer, Remedy},
};
use crate::guard::{ConnectError, Connector, Network};

/// Sends again within one attempt because nothing was done with what was sent.
const AGAIN: u32 = 2;

/// Why there is no place for a request; it did not leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DialError {
    Connect(ConnectError),
    NoTls,
    NoHttp2,
    NoConnection,
    NoRoom,
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => error.fmt(f),
            Self::NoTls => f.write_str("no TLS connection"),
            Self::NoHttp2 => f.write_str("no HTTP/2 on the connection"),
            Self::NoConnection => f.write_str("no connection in time"),
            Self::NoRoom => f.write_str("no room on a connection in time"),
        }
    }
}

/// What came of an attempt.
pub(super) enum Reply {
    /// APNs answered.
    Answered(Answer),
    /// There was no connection, or no room on one.
    NoPlace(DialError),
    /// Nothing left, or nothing was done with it.
    Unprocessed(&'static str),
    /// It may have been processed.
    Unknown(&'static str),
}

/// A tenant's account, made ready: connections to both environments, and the token that they share.
pub(super) struct Credential {
    tokens: Option<Tokens>,
    production: Arc<Pool>,
    sandbox: Arc<Pool>,
}

/// Where and until when an attempt can be made.
pub(super) struct Place {
    slot: Slot,
    /// Another place is waited for until then.
    until: Instant,
    deadline: Instant,
}

struct Entry {
    account: Account,
    credential: Arc<Credential>,
}

pub(super) struct Client {
    connector: Connector,
    options: Options,
    entries: RwLock<HashMap<TenantId, Entry>>,
}

impl Client {
    pub(super) fn new(options: Options, network: Arc<dyn Network>) -> Self {
        Self { connector: Connector::new(options.guard.clone(), network), options, entries: RwLock::default() }
    }

    /// The tenant's credential. When its account changes, the connections of the old one close after their last request.
    /// Errors: what is wrong with the account.
    pub(super) fn credential(&self, tenant: &TenantId, account: &Account) -> Result<Arc<Credential>, &'static str> {
        let known = |entries: &HashMap<TenantId, Entry>| {
            entries.get(tenant).filter(|e| e.account == *account).map(|e| e.credential.clone())
        };
        if let Some(credential) = known(&self.entries.read().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(credential);
        }
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(credential) = known(&entries) {
            return Ok(credential);
        }
        let same = entries.values().find(|e| same_key(&e.account, account)).map(|e| e.credential.clone());
        let credential = match same {
            Some(credential) => credential,
            None => Arc::new(self.ready(account)?),
        };
        let now = Timestamp::now().as_second();
        entries.retain(|_, e| e.credential.is_used(now));
        entries.insert(tenant.clone(), Entry { account: account.clone(), credential: credential.clone() });
        Ok(credential)
    }

    fn ready(&self, account: &Account) -> Result<Credential, &'static str> {
        let tokens = match (&account.team_id, &account.key_id, &account.private_key) {
            (Some(team), Some(id), Some(key)) => Some(Tokens::new(team, id, key)?),
            _ if account.certificate.is_some() && account.certificate_key.is_some() => None,
            _ => {
                return Err(
                    "the apns account has neither team_id, key_id and private_key nor a certificate and its key",
                );
            }
        };
        let tls = tls::config(account)?;
        let by_token = tokens.is_some();
        let pool = |url: &str| {
            let pool = |to| Pool::new(to, tls.clone(), self.connector.clone(), self.options.clone(), by_token);
            target(url).map(pool)
        };
        let (production, sandbox) = match &account.base_url {
            Some(url) => {
                let pool = pool(url)?;
                (pool.clone(), pool)
            }
            None => (pool("https://api.push.apple.com:443")?, pool("https://api.sandbox.push.apple.com:443")?),
        };
        Ok(Credential { tokens, production, sandbox })
    }

    /// A place for a request, once there is room. The attempt's time begins here.
    pub(super) async fn place(&self, credential: &Credential, environment: Environment) -> Result<Place, DialError> {
        let now = Instant::now();
        // who gets room at the last moment would only make its outcome unknown
        let (until, deadline) = (now + self.options.timeout.mul_f64(0.75), now + self.options.timeout);
        let pool = match environment {
            Environment::Production => &credential.production,
            Environment::Sandbox => &credential.sandbox,
        };
        Ok(Place { slot: pool.slot(None, until).await?, until, deadline })
    }

    /// One attempt. What was not processed is sent again at once, elsewhere; everything else is the caller's decision.
    /// The message is spent by it; `again` gives another like it, which is rare. (Not an async function, which would have room
    /// for its arguments twice.)
    pub(super) fn post(
        credential: Arc<Credential>,
        place: Place,
        message: Box<Message>,
        again: impl Fn() -> Option<Box<Message>>,
    ) -> impl Future<Output = Reply> {
        let Place { slot, until, deadline } = place;
        let (pool, mut slot) = (slot.pool.clone(), Some(slot));
        let (mut left, mut avoid, mut renewed, mut moved) = (AGAIN, None, None, false);
        let mut message = Some(message);
        async move {
            loop {
                let slot = match slot.take() {
                    Some(slot) => slot,
                    // kept apart: it is rare
                    None => match Box::pin(pool.slot(avoid, until)).await {
                        Ok(slot) => slot,
                        Err(error) => return Reply::NoPlace(error),
                    },
                };
                let now = Timestamp::now().as_second();
                let token = match credential.tokens.as_ref().map(|t| renewed.clone().or_else(|| t.current(now))) {
                    Some(None) => return Reply::Unprocessed("no random numbers for a token"),
                    token => token.flatten(),
                };
                let Some(message) = message.take().or_else(&again) else {
                    return Reply::Unprocessed("the message could not be made again");
                };
                let (request, body) = message.into_request(&pool.authority, token.as_deref());
                let answer = match slot.exchange(request, body, deadline).await {
                    Ok(answer) => answer,
                    Err(Lost::Unprocessed { .. }) if left > 0 => {
                        left -= 1;
                        avoid = Some(slot.connection());
                        continue;
                    }
                    Err(Lost::Unprocessed { what, .. }) => return Reply::Unprocessed(what),
                    Err(Lost::Late) => return Reply::NoPlace(DialError::NoRoom),
                    Err(Lost::Unknown(what)) => return Reply::Unknown(what),
                };
                match (answer.remedy(), &credential.tokens, token) {
                    (Remedy::Renew, Some(tokens), Some(used)) if renewed.is_none() => {
                        renewed = tokens.renewed(&used, now);
                        if renewed.is_some() {
                            continue;
                        }
                    }
                    (Remedy::Reconnect, ..) => {
                        slot.retire();
                        if !std::mem::replace(&mut moved, true) {
                            continue;
                        }
                    }
                    (Remedy::Retire, ..) => slot.retire(),
                    (Remedy::KeepToken, Some(tokens), _) => tokens.too_many(now),
                    _ => {}
                }
                return Reply::Answered(answer);
            }
        }
    }
}

impl Credential {
    /// Whether it is worth keeping: it has connections, or a token that should not be made again so soon.
    fn is_used(&self, now: i64) -> bool {
        let pools = [&self.production, &self.sandbox];
        pools.iter().any(|p| p.connections() > 0) || self.tokens.as_ref().is_some_and(|t| !t.is_old(now))
    }
}

/// Whether two accounts can share connections and token: the topic is a request's, not a connection's.
fn same_key(a: &Account, b: &Account) -> bool {
    Account { topic: None, ..a.clone() } == Account { topic: None, ..b.clone() }
}

fn target(url: &str) -> Result<(Target, Authority), &'static str> {
    const WRONG: &str = "the account's base_url is not https://host:port";
    let uri: Uri = url.parse().map_err(|_| WRONG)?;
    let bare = uri.scheme_str() == Some("https") && uri.path_and_query().is_some_and(|p| p == "/");
    let authority = uri.authority().filter(|a| bare && !a.as_str().contains('@')).ok_or(WRONG)?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host).map_err(|_| WRONG)?;
    Ok((Target { uri: uri.clone(), name }, authority.clone()))
}
