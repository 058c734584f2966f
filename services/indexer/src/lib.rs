#![doc = include_str!("../README.md")]

mod conservation;
pub mod metrics;
mod stage;

use std::{sync::Arc, time::Duration};

use bus::{
    consume::{ConsumeSettings, Pace},
    dead::DeadLetters,
    topic,
};
use service_kit::{Kit, Need, Problems, Reader, Section, Uses};
use store::cluster::Store;

/// The settings of `[indexer]`.
pub const SETTINGS: Section = Section { defaults: include_str!("../settings.default.toml"), check: |r| _ = read(r) };

/// The stores that it uses.
pub const USES: Uses<'static> = &[(Store::Deliveries, Need::Required)];

/// How long a small bulk waits for more: what a person does not notice, and long enough that most deliveries of a quiet
/// time are written once, as sent.
const GATHER: Duration = Duration::from_millis(50);

/// Starts the loop; it ends with the kit's shutdown.
pub fn run(kit: &Kit) -> Result<(), Problems> {
    let (permits, max_batch) = kit.settings.read(read)?;
    let dead = DeadLetters::new(kit.log.clone(), &kit.topics, topic::Stage::Indexer);
    let stage = Arc::new(stage::Indexer { deliveries: kit.stores.deliveries.clone(), dead });
    let settings = ConsumeSettings {
        permits,
        max_batch,
        // versions say which document replaces which, so order has no effect
        pace: Pace::Gathered(GATHER),
        ..ConsumeSettings::new(kit.topics.group(format_args!("indexer")), vec![kit.topics.status()])
    };
    kit.spawn("conservation", conservation::watch(kit.stores.deliveries.clone(), kit.shutdown.clone()));
    kit.consume("indexer", stage, topic::Stage::Indexer, settings);
    Ok(())
}

fn read(r: &mut Reader<'_>) -> (usize, usize) {
    let mut count = |key, most| usize::try_from(r.integer(key, 1..=most)).unwrap_or(1);
    (count("indexer.in_flight", 1_000_000), count("indexer.bulk", 10_000))
}
