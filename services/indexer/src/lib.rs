#![doc = include_str!("../README.md")]

mod conservation;
pub mod metrics;
mod stage;

use std::sync::Arc;

use bus::{consume::ConsumeSettings, dead::DeadLetters, topic};
use service_kit::{Kit, Need, Problems, Reader, Section, Uses};
use store::cluster::Store;

/// The settings of `[indexer]`.
pub const SETTINGS: Section = Section { defaults: include_str!("../settings.default.toml"), check: |r| _ = read(r) };

/// The stores that it uses.
pub const USES: Uses<'static> = &[(Store::Deliveries, Need::Required)];

/// Starts the loop; it ends with the kit's shutdown.
pub fn run(kit: &Kit) -> Result<(), Problems> {
    let (permits, max_batch) = kit.settings.read(read)?;
    let dead = DeadLetters::new(kit.log.clone(), &kit.topics, topic::Stage::Indexer);
    let stage = Arc::new(stage::Indexer { deliveries: kit.stores.deliveries.clone(), dead });
    let settings = ConsumeSettings {
        permits,
        max_batch,
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
