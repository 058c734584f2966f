//! Mail by SMTP, through the relay or submission server of the tenant's account.

mod client;
mod connect;
mod payload;
mod pool;
mod reply;
mod verdict;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use domain::{Delivery, Outcome, Reason, channel::email, config::Account};
use futures::future::{BoxFuture, ready};
use ipnet::IpNet;
use service_kit::{Problems, Reader, Settings};

use self::{
    client::Failed,
    payload::{Mail, Unsendable},
    pool::Pool,
    reply::{Phase, Reply},
};
use super::{Answer, NoRoom, Provider};
use crate::guard::{ConnectError, Network, System, parse_network};

const AGAIN: Outcome = Outcome::Transient { retry_after: None };

/// How mail is sent.
#[derive(Debug, Clone)]
pub struct Options {
    /// One attempt, the wait for a free connection included.
    pub timeout: Duration,
    /// Networks of SMTP servers that are allowed although they are not public; in them any port is allowed.
    pub open_networks: Vec<IpNet>,
    /// Connections to one account's server that are open at most.
    pub connections: usize,
    /// How long a connection is kept for the next message.
    pub idle_timeout: Duration,
    /// Messages after which a connection is closed.
    pub messages_per_connection: u32,
}

impl Options {
    /// `[gateway.email]` of the settings.
    pub fn read(r: &mut Reader<'_>) -> Self {
        let (second, minutes) = (Duration::from_secs(1), Duration::from_secs(300));
        let networks = r.list("gateway.email.open_networks");
        let open_networks = networks.iter().filter_map(|text| {
            parse_network(text).map_err(|wrong| r.problem("gateway.email.open_networks", &wrong)).ok()
        });
        let open_networks = open_networks.collect();
        Self {
            timeout: r.duration_within("gateway.email.timeout", second..=minutes),
            open_networks,
            connections: usize::try_from(r.integer("gateway.email.connections", 1..=1000)).unwrap_or(1),
            idle_timeout: r.duration_within("gateway.email.idle_timeout", second..=minutes),
            messages_per_connection: u32::try_from(r.integer("gateway.email.messages_per_connection", 1..=1_000_000))
                .unwrap_or(1),
        }
    }
}

/// The email channel.
pub struct Email(Arc<Pool>);

impl Email {
    /// With `[gateway.email]` of the settings.
    pub fn new(settings: &Settings) -> Result<Self, Problems> {
        Ok(Self::with(settings.read(Options::read)?, Arc::new(System)))
    }

    /// With these options, on this network.
    pub fn with(options: Options, network: Arc<dyn Network>) -> Self {
        Self(Pool::new(options, network))
    }
}

#[async_trait]
impl Provider for Email {
    fn name(&self) -> &'static str {
        "smtp"
    }

    async fn send(&self, delivery: &Delivery, account: Option<&Account>) -> Answer {
        match self.ready(delivery, account).await {
            Ok(transaction) => transaction.await,
            Err(NoRoom) => answer(AGAIN, "all connections to the server are in use"),
        }
    }

    async fn ready<'a>(
        &'a self,
        delivery: &'a Delivery,
        account: Option<&'a Account>,
    ) -> Result<BoxFuture<'a, Answer>, NoRoom> {
        let (account, mail) = match prepare(delivery, account) {
            Ok(prepared) => prepared,
            Err(answer) => return Ok(Box::pin(ready(answer))),
        };
        let place = match self.0.place(account).await {
            Ok(place) => place?,
            Err(failed) => return Ok(Box::pin(ready(judge(Err(failed), delivery, &[])))),
        };
        Ok(Box::pin(async move {
            let result = self.0.send(place, account, &mail).await;
            judge(result, delivery, &private(&mail.to, account))
        }))
    }
}

/// What is to be sent and through whom; or why nothing can be.
fn prepare<'a>(delivery: &Delivery, account: Option<&'a Account>) -> Result<(&'a email::Account, Mail), Answer> {
    let Some(Account::Email(account)) = account else {
        return Err(answer(Outcome::Misconfigured, "the tenant has no email account"));
    };
    let Some(address) = delivery.address() else {
        return Err(answer(Outcome::Rejected(Reason::NoAddress), "no address"));
    };
    match payload::mail(delivery, address, account) {
        Ok(mail) => Ok((account, mail)),
        Err(Unsendable::Content(wrong)) => Err(answer(Outcome::Rejected(Reason::ProviderRejected), wrong)),
        Err(Unsendable::Account(wrong)) => Err(answer(Outcome::Misconfigured, format!("account: {wrong}"))),
    }
}

fn judge(result: Result<Reply, Failed>, delivery: &Delivery, private: &[String]) -> Answer {
    let (phase, reply) = match result {
        Ok(reply) => (Phase::Message, reply),
        Err(Failed::Answered(phase, reply)) => (phase, reply),
        Err(Failed::Broken(what)) => return answer(AGAIN, what),
        Err(Failed::NotConnected(ConnectError::Forbidden)) => {
            return answer(Outcome::Misconfigured, "no SMTP server may be used at this address or port");
        }
        Err(Failed::NotConnected(error)) => return answer(AGAIN, error.to_string()),
        Err(Failed::Misconfigured(what)) => return answer(Outcome::Misconfigured, what),
        Err(Failed::TooLarge) => {
            let detail = "the message is larger than the server takes";
            return answer(Outcome::Rejected(Reason::ProviderRejected), detail);
        }
        Err(Failed::NoAnswer(what)) => return answer(Outcome::Unknown, format!("{what}, after the message")),
    };
    let detail = verdict::detail(phase, &reply, private, |text| payload::repeats(text, delivery));
    Answer { outcome: verdict::verdict(phase, &reply), detail }
}

/// What an answer must not bring into the trace.
fn private(to: &str, account: &email::Account) -> Vec<String> {
    let local = to.rsplit_once('@').map_or(to, |(local, _)| local);
    let mut private = vec![to.to_owned(), local.to_owned()];
    if let (Some(user), Some(password)) = (&account.username, &account.password) {
        private.extend(client::credentials(user, password));
        private.extend([user.clone(), password.expose().to_owned()]);
    }
    private
}

fn answer(outcome: Outcome, detail: impl Into<String>) -> Answer {
    Answer { outcome, detail: detail.into() }
}
