//! Webhooks: an HTTP POST to an endpoint of the recipient's, signed as in Standard Webhooks 1.0.

mod client;
mod payload;
mod verdict;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use domain::{Delivery, Outcome, Reason, Timestamp, config::Account};
use service_kit::{Problems, Reader, Settings};

use self::client::{Client, Reply};
use super::{Answer, Provider};
use crate::guard::{ConnectError, Guard, Network, System, parse_network};

/// How webhooks are sent.
#[derive(Debug, Clone)]
pub struct Options {
    /// From the first byte out to the whole answer, the connection included.
    pub timeout: Duration,
    /// What may be connected to.
    pub guard: Guard,
    /// Connections to one receiver that are kept open for the next webhook.
    pub idle_per_host: usize,
}

impl Options {
    /// `[gateway.webhook]` of the settings.
    pub fn read(r: &mut Reader<'_>) -> Self {
        let timeout = r.duration("gateway.webhook.timeout");
        if timeout.is_zero() || timeout > Duration::from_secs(300) {
            r.problem("gateway.webhook.timeout", "must be more than 0s, and 5m at most");
        }
        let networks = r.list("gateway.webhook.open_networks");
        let opened = networks.iter().filter_map(|text| {
            parse_network(text).map_err(|wrong| r.problem("gateway.webhook.open_networks", &wrong)).ok()
        });
        let opened = opened.collect();
        let guard = Guard { opened, allow_http: r.flag("gateway.webhook.allow_http") };
        let idle = r.integer("gateway.webhook.idle_per_host", 0..=10_000);
        Self { timeout, guard, idle_per_host: usize::try_from(idle).unwrap_or_default() }
    }
}

/// The webhook channel.
pub struct Webhook(Client);

impl Webhook {
    /// With `[gateway.webhook]` of the settings.
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
impl Provider for Webhook {
    fn name(&self) -> &'static str {
        "webhook"
    }

    async fn send(&self, delivery: &Delivery, account: Option<&Account>) -> Answer {
        let Some(Account::Webhook(account)) = account else {
            return answer(Outcome::Misconfigured, "the tenant has no webhook account");
        };
        let keys = match payload::Keys::of(account) {
            Ok(keys) => keys,
            Err(wrong) => return answer(Outcome::Misconfigured, wrong),
        };
        let Some(address) = delivery.address() else {
            return answer(Outcome::Rejected(Reason::NoAddress), "no address");
        };
        let request = match payload::request(delivery, address, &keys, Timestamp::now()) {
            Ok(request) => request,
            Err(wrong) => return answer(Outcome::Rejected(Reason::ProviderRejected), wrong),
        };
        match self.0.post(request).await {
            Reply::Answered { status, headers, text } => Answer {
                outcome: verdict::verdict(status, &headers, Timestamp::now()),
                detail: verdict::detail(status, &text, |text| payload::repeats(text, delivery)),
            },
            Reply::NotSent(ConnectError::Forbidden) => {
                answer(Outcome::Rejected(Reason::AddressForbidden), ConnectError::Forbidden.to_string())
            }
            Reply::NotSent(error) => answer(Outcome::Transient { retry_after: None }, error.to_string()),
            Reply::NoTls => answer(Outcome::Transient { retry_after: None }, "no TLS connection"),
            Reply::NoAnswer(what) => answer(Outcome::Unknown, what),
        }
    }
}

fn answer(outcome: Outcome, detail: impl Into<String>) -> Answer {
    Answer { outcome, detail: detail.into() }
}
