#![doc = include_str!("../README.md")]

pub mod channels;
pub mod guard;
pub mod metrics;

mod send;
mod stage;

use std::sync::Arc;

use bus::{consume::ConsumeSettings, dead::DeadLetters, topic};
use domain::{Channel, Lane, RetryPolicy};
use service_kit::{Kit, settings::Problems};

/// The defaults of `[gateway]`, with their comments.
pub const SETTINGS: &str = include_str!("../settings.default.toml");

/// Starts a loop per lane of a channel; they end with the kit's shutdown.
pub fn run(kit: &Kit, channel: Channel) -> Result<(), Problems> {
    let provider = channels::provider(channel, &kit.settings)?;
    let (permits, policy, timeout) = kit.settings.read(|r| {
        let attempts = r.integer("gateway.retry.attempts", 1..=20);
        let policy = RetryPolicy {
            attempts: u32::try_from(attempts).unwrap_or(1),
            base: r.duration("gateway.retry.base"),
            cap: r.duration("gateway.retry.cap"),
        };
        (r.integer("gateway.in_flight", 1..=100_000), policy, r.duration(&format!("gateway.{channel}.timeout")))
    })?;
    let stage = Arc::new(stage::Gateway {
        sender: Arc::new(send::Sender {
            channel,
            provider,
            policy,
            // an owner renews its claim before each attempt; silent for longer than an attempt and a wait, it is gone
            lease: if kit.exclusive { std::time::Duration::ZERO } else { timeout + policy.cap + send::MARGIN },
            owner: kit.owner,
            log: kit.log.clone(),
            status: kit.topics.status(),
            config: kit.config.clone(),
            users: kit.stores.users.clone(),
            ledger: kit.stores.ledger.clone(),
            dead: DeadLetters::new(kit.log.clone(), &kit.topics, topic::Stage::Gateway),
            sending: Arc::default(),
            shutdown: kit.shutdown.clone(),
        }),
    });
    for lane in Lane::ALL {
        let group = kit.topics.group(format_args!("gateway.{channel}.{lane}"));
        let settings = ConsumeSettings {
            permits: usize::try_from(permits).unwrap_or(1),
            ..ConsumeSettings::new(group, vec![kit.topics.deliveries(channel, lane)])
        };
        kit.consume(&format!("gateway.{channel}.{lane}"), stage.clone(), topic::Stage::Gateway, settings);
    }
    Ok(())
}
