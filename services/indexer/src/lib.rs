#![doc = include_str!("../README.md")]

mod stage;

use std::sync::Arc;

use bus::{consume::ConsumeSettings, dead::DeadLetters, topic};
use service_kit::{Kit, settings::Problems};

/// The defaults of `[indexer]`, with their comments.
pub const SETTINGS: &str = include_str!("../settings.default.toml");

/// Starts the loop; it ends with the kit's shutdown.
pub fn run(kit: &Kit) -> Result<(), Problems> {
    let (permits, bulk) = kit
        .settings
        .read(|r| (r.integer("indexer.in_flight", 1..=1_000_000), r.integer("indexer.bulk", 1..=10_000)))?;
    let dead = DeadLetters::new(kit.log.clone(), &kit.topics, topic::Stage::Indexer);
    let stage = Arc::new(stage::Indexer { deliveries: kit.stores.deliveries.clone(), dead });
    let settings = ConsumeSettings {
        permits: usize::try_from(permits).unwrap_or(1),
        max_batch: usize::try_from(bulk).unwrap_or(1),
        ..ConsumeSettings::new(kit.topics.group(format_args!("indexer")), vec![kit.topics.status()])
    };
    kit.consume("indexer", stage, topic::Stage::Indexer, settings);
    Ok(())
}
