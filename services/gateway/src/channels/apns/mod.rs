//! Apple's push service: one HTTP/2 request per device token, over few connections that many requests share.

mod client;
mod payload;
mod token;
mod verdict;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use domain::{Account, Delivery, Outcome, Reason};
use service_kit::{Problems, Reader, Settings};

use self::{
    client::{Client, DialError, Reply},
    payload::Message,
};
use super::{Answer, Provider};
use crate::guard::{ConnectError, Guard, Network, System, parse_network};

/// How pushes are sent.
#[derive(Debug, Clone)]
pub struct Options {
    /// From taking a delivery up to the whole answer; three quarters of it at most for waiting until a connection has room.
    pub timeout: Duration,
    /// What may be connected to.
    pub guard: Guard,
    /// Connections per credential and host at most.
    pub connections: usize,
    /// Between two PINGs on a connection.
    pub ping_every: Duration,
    /// A connection whose PING is not answered for so long is dead.
    pub ping_timeout: Duration,
    /// A connection is replaced at this age, or up to a quarter earlier.
    pub max_age: Duration,
}

impl Options {
    /// `[gateway.apns]` of the settings.
    pub fn read(r: &mut Reader<'_>) -> Self {
        const SECOND: Duration = Duration::from_secs(1);
        let millisecond = Duration::from_millis(1);
        let networks = r.list("gateway.apns.open_networks");
        let opened = networks.iter().filter_map(|text| {
            parse_network(text).map_err(|wrong| r.problem("gateway.apns.open_networks", &wrong)).ok()
        });
        let guard = Guard { opened: opened.collect(), allow_http: false };
        Self {
            timeout: r.duration_within("gateway.apns.timeout", millisecond..=300 * SECOND),
            guard,
            connections: usize::try_from(r.integer("gateway.apns.connections", 1..=100)).unwrap_or(1),
            ping_every: r.duration_within("gateway.apns.ping_every", SECOND..=3600 * SECOND),
            ping_timeout: r.duration_within("gateway.apns.ping_timeout", millisecond..=60 * SECOND),
            max_age: r.duration_within("gateway.apns.max_age", 60 * SECOND..=7 * 86_400 * SECOND),
        }
    }
}

/// The APNs channel.
pub struct Apns(Client);

impl Apns {
    /// With `[gateway.apns]` of the settings.
    pub fn new(settings: &Settings) -> Result<Self, Problems> {
        let options = settings.read(Options::read)?;
        Ok(Self::with(options, Arc::new(System)))
    }

    /// With these options, on this network.
    pub fn with(options: Options, network: Arc<dyn Network>) -> Self {
        Self(Client::new(options, network))
    }
}

#[async_trait]
impl Provider for Apns {
    fn name(&self) -> &'static str {
        "apns"
    }

    async fn send(&self, delivery: &Delivery, account: Option<&Account>) -> Answer {
        let Some(Account::Apns(account)) = account else {
            return answer(Outcome::Misconfigured, "the tenant has no apns account");
        };
        let Some(target) = &delivery.target else {
            return answer(Outcome::Rejected(Reason::NoAddress), "no address");
        };
        let Some(app) = target.app.as_ref().or(account.topic.as_ref()) else {
            return answer(Outcome::Misconfigured, "the device has no app, and the apns account no topic");
        };
        let credential = match self.0.credential(&delivery.tenant, account) {
            Ok(credential) => credential,
            Err(wrong) => return answer(Outcome::Misconfigured, wrong),
        };
        let token = target.address.expose();
        let message = match Message::new(delivery, token, app) {
            Ok(message) => message,
            Err(wrong) => return answer(Outcome::Rejected(Reason::ProviderRejected), wrong),
        };
        const AGAIN: Outcome = Outcome::Transient { retry_after: None };
        match self.0.post(&credential, target.environment, &message).await {
            Reply::Answered(said) => answer(said.outcome(), said.detail(token)),
            Reply::NoPlace(DialError::Connect(ConnectError::Forbidden)) => {
                answer(Outcome::Misconfigured, "the account's base_url leads to a network that is not open")
            }
            Reply::NoPlace(error) => answer(AGAIN, error.to_string()),
            Reply::Unprocessed(what) => answer(AGAIN, what),
            Reply::Unknown(what) => answer(Outcome::Unknown, what),
        }
    }
}

fn answer(outcome: Outcome, detail: impl Into<String>) -> Answer {
    Answer { outcome, detail: detail.into() }
}
