//! A receiver of webhooks that behaves as the sandbox does, in simulated time.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use domain::{Account, Channel, Delivery, Outcome, Reason};
use gateway::channels::{Answer, Provider};
use tokio::time::sleep;

use super::life::Life;
use crate::evidence::Reception;

pub(super) struct Receiver(pub(super) Arc<Life>);

/// What a request comes to: the answer, and the verdict that the channel makes of it.
fn behave(behaviour: &str, seen: u32) -> (Option<u16>, Outcome) {
    const AGAIN: Outcome = Outcome::Transient { retry_after: None };
    let (kind, argument) = behaviour.split_once('/').unwrap_or((behaviour, ""));
    let n = argument.parse().unwrap_or(0);
    match kind {
        "flaky" if seen < n => (Some(503), AGAIN),
        "retry-after" if seen == 0 => {
            (Some(429), Outcome::Transient { retry_after: Some(Duration::from_secs(n.into())) })
        }
        "dropn" if seen < n => (None, Outcome::Unknown),
        "gone" => (Some(410), Outcome::AddressGone { since: None }),
        "redirect" => (Some(302), Outcome::Rejected(Reason::ProviderRejected)),
        "status" => (Some(400), AGAIN),
        "slow" if n > 1500 => (Some(200), Outcome::Unknown),
        _ => (Some(200), Outcome::Sent),
    }
}

#[async_trait]
impl Provider for Receiver {
    fn name(&self) -> &'static str {
        "sim"
    }

    async fn send(&self, delivery: &Delivery, _: Option<&Account>) -> Answer {
        let world = &self.0.world;
        self.0.moment().await;
        let address = delivery.address().map(|a| a.expose().to_owned()).unwrap_or_default();
        let Some(contact) = world.contact(&address) else {
            return Answer { outcome: Outcome::Rejected(Reason::NoAddress), detail: "nobody lives there".into() };
        };
        let (answered, outcome) = {
            let mut state = world.state();
            let seen = state.seen.entry(delivery.id).or_default();
            let (answered, outcome) = behave(contact.behaviour, *seen);
            *seen += 1;
            let (delivery, path) = (delivery.id.to_string(), contact.path.clone());
            let (channel, at) = (Channel::Webhook, world.now());
            state.receptions.push(Reception { delivery, channel, path, at, verified: true, answered });
            (answered, outcome)
        };
        if matches!(outcome, Outcome::Unknown) {
            sleep(Duration::from_millis(1500)).await;
        }
        self.0.moment().await;
        let detail = answered.map_or_else(|| "no answer".to_owned(), |status| format!("HTTP {status}"));
        Answer { outcome, detail }
    }
}
