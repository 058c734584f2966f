#![doc = include_str!("../README.md")]

pub mod channels;
pub mod guard;
pub mod metrics;

mod begun;
mod claims;
mod ends;
mod gone;
mod patience;
mod reopen;
mod send;
mod stage;
mod wanted;

use std::{sync::Arc, time::Duration};

use bus::{consume::ConsumeSettings, dead::DeadLetters, topic};
use domain::{Channel, Lane, RetryPolicy};
use service_kit::{Kit, Need, Problems, Reader, Section, Uses};
use store::cluster::Store;
use tokio::sync::mpsc;

/// The settings of `[gateway]`.
pub const SETTINGS: Section = Section {
    defaults: include_str!("../settings.default.toml"),
    check: |r| Channel::ALL.iter().for_each(|c| check(r, *c)),
};

/// The stores that it uses.
pub const USES: Uses<'static> = &[(Store::Users, Need::Required), (Store::Ledger, Need::Required)];

/// Starts a loop per lane of a channel; they end with the kit's shutdown.
pub fn run(kit: &Kit, channel: Channel) -> Result<(), Problems> {
    run_with(kit, channel, channels::provider(channel, &kit.settings)?)
}

/// The same, through a provider of the caller's own.
pub fn run_with(kit: &Kit, channel: Channel, provider: Arc<dyn channels::Provider>) -> Result<(), Problems> {
    let Options { permits, policy, timeout } = kit.settings.read(|r| read(r, channel))?;
    // an owner renews its claim before each attempt; silent for longer than an attempt and a wait, it is gone
    let lease = if kit.exclusive { Duration::ZERO } else { timeout + policy.cap + claims::MARGIN };
    let begun = begun::Begun::default();
    for lane in Lane::ALL {
        let (ends, ended) = mpsc::channel(permits);
        let stage = stage::Gateway {
            sender: send::Sender {
                channel,
                provider: provider.clone(),
                policy,
                lease,
                owner: kit.owner,
                config: kit.config.clone(),
                users: kit.stores.users.clone(),
                ledger: kit.stores.ledger.clone(),
                dead: DeadLetters::new(kit.log.clone(), &kit.topics, topic::Stage::Gateway),
                begun: begun.clone(),
                ends,
                shutdown: kit.shutdown.clone(),
            },
        };
        let ends = ends::Ends {
            channel,
            owner: kit.owner,
            ledger: kit.stores.ledger.clone(),
            log: kit.log.clone(),
            status: kit.topics.status(),
        };
        let name = format!("gateway.{channel}.{lane}");
        // it ends with the loop, which has the stage
        kit.spawn(&format!("{name}.ends"), ends.run(ended));
        let group = kit.topics.group(format_args!("{name}"));
        let settings =
            ConsumeSettings { permits, ..ConsumeSettings::new(group, vec![kit.topics.deliveries(channel, lane)]) };
        kit.consume(&name, Arc::new(stage), topic::Stage::Gateway, settings);
    }
    Ok(())
}

/// What all channels have in common.
struct Options {
    permits: usize,
    policy: RetryPolicy,
    timeout: Duration,
}

fn check(r: &mut Reader<'_>, channel: Channel) {
    read(r, channel);
    channels::check(r, channel);
}

fn read(r: &mut Reader<'_>, channel: Channel) -> Options {
    Options {
        permits: usize::try_from(r.integer("gateway.in_flight", 1..=100_000)).unwrap_or(1),
        policy: RetryPolicy {
            attempts: u32::try_from(r.integer("gateway.retry.attempts", 1..=20)).unwrap_or(1),
            base: r.duration("gateway.retry.base"),
            cap: r.duration("gateway.retry.cap"),
        },
        timeout: r.duration(&format!("gateway.{channel}.timeout")),
    }
}
