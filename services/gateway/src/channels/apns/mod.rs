//! Apple's push service: one HTTP/2 request per device token, over few connections that many requests share.

mod client;
mod payload;
mod token;
mod verdict;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use domain::{Account, Delivery, Outcome, Reason, Target};
use futures::future::{BoxFuture, FutureExt as _, ready};
use service_kit::{Problems, Reader, Settings};

use self::{
    client::{Client, Credential, DialError, Reply},
    payload::Message,
};
use super::{Answer, NoRoom, Provider};
use crate::guard::{ConnectError, Guard, Network, System, parse_network};

const AGAIN: Outcome = Outcome::Transient { retry_after: None };

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
        match self.ready(delivery, account).await {
            Ok(request) => request.await,
            Err(NoRoom) => answer(AGAIN, "no room on a connection in time"),
        }
    }

    async fn ready<'a>(
        &'a self,
        delivery: &'a Delivery,
        account: Option<&'a Account>,
    ) -> Result<BoxFuture<'a, Answer>, NoRoom> {
        let (credential, target, app) = match self.prepare(delivery, account) {
            Ok(prepared) => prepared,
            Err(answer) => return Ok(Box::pin(ready(answer))),
        };
        let token = target.address.expose();
        let write = move || Message::new(delivery, token, app).map(Box::new);
        let message = match write() {
            Ok(message) => message,
            Err(wrong) => return Ok(Box::pin(ready(answer(Outcome::Rejected(Reason::ProviderRejected), wrong)))),
        };
        match self.0.place(&credential, target.environment).await {
            Ok(place) => {
                let reply = Client::post(credential, place, message, move || write().ok());
                Ok(Box::pin(reply.map(|reply| read(reply, token))))
            }
            Err(DialError::NoRoom) => Err(NoRoom),
            Err(error) => Ok(Box::pin(ready(read(Reply::NoPlace(error), "")))),
        }
    }
}

impl Apns {
    /// With what and where a delivery is to be sent, and to which app; or why it cannot be.
    fn prepare<'a>(
        &self,
        delivery: &'a Delivery,
        account: Option<&'a Account>,
    ) -> Result<(Arc<Credential>, &'a Target, &'a str), Answer> {
        let Some(Account::Apns(account)) = account else {
            return Err(answer(Outcome::Misconfigured, "the tenant has no apns account"));
        };
        let Some(target) = &delivery.target else {
            return Err(answer(Outcome::Rejected(Reason::NoAddress), "no address"));
        };
        let Some(app) = target.app.as_ref().or(account.topic.as_ref()) else {
            return Err(answer(Outcome::Misconfigured, "the device has no app, and the apns account no topic"));
        };
        let credential = self.0.credential(&delivery.tenant, account);
        let credential = credential.map_err(|wrong| answer(Outcome::Misconfigured, wrong))?;
        Ok((credential, target, app))
    }
}

/// The verdict; `token` is the device's.
fn read(reply: Reply, token: &str) -> Answer {
    match reply {
        Reply::Answered(said) => answer(said.outcome(), said.detail(token)),
        Reply::NoPlace(DialError::Connect(ConnectError::Forbidden)) => {
            answer(Outcome::Misconfigured, "the account's base_url leads to a network that is not open")
        }
        Reply::NoPlace(error) => answer(AGAIN, error.to_string()),
        Reply::Unprocessed(what) => answer(AGAIN, what),
        Reply::Unknown(what) => answer(Outcome::Unknown, what),
    }
}

fn answer(outcome: Outcome, detail: impl Into<String>) -> Answer {
    Answer { outcome, detail: detail.into() }
}
