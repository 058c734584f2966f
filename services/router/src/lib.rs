#![doc = include_str!("../README.md")]

mod stage;
mod words;

use std::sync::Arc;

use bus::{consume::ConsumeSettings, dead::DeadLetters, topic};
use domain::Lane;
use service_kit::{Kit, Need, Problems, Reader, Section, Uses};
use store::cluster::Store;

/// The settings of `[router]`.
pub const SETTINGS: Section = Section { defaults: include_str!("../settings.default.toml"), check: |r| _ = read(r) };

/// The stores that it uses.
pub const USES: Uses<'static> = &[(Store::Users, Need::Required), (Store::Ledger, Need::Required)];

/// Starts a loop per lane; they end with the kit's shutdown.
pub fn run(kit: &Kit) -> Result<(), Problems> {
    let permits = kit.settings.read(read)?;
    let stage = Arc::new(stage::Router {
        log: kit.log.clone(),
        topics: kit.topics.clone(),
        config: kit.config.clone(),
        users: kit.stores.users.clone(),
        ledger: kit.stores.ledger.clone(),
        dead: DeadLetters::new(kit.log.clone(), &kit.topics, topic::Stage::Router),
        words: words::Words::default(),
    });
    for lane in Lane::ALL {
        let group = kit.topics.group(format_args!("router.{lane}"));
        let settings =
            ConsumeSettings { permits, ..ConsumeSettings::new(group, kit.topics.notifications_of_lane(lane)) };
        kit.consume(&format!("router.{lane}"), stage.clone(), topic::Stage::Router, settings);
    }
    Ok(())
}

fn read(r: &mut Reader<'_>) -> usize {
    usize::try_from(r.integer("router.in_flight", 1..=100_000)).unwrap_or(1)
}
