//! The topic `carillon.events`: CloudEvents 1.0 of upstream services, the third way in, through the same validation.

mod cloudevent;
mod stage;

use std::sync::Arc;

use bus::{consume::ConsumeSettings, dead::DeadLetters, topic};
use service_kit::Kit;

use crate::Ingress;

/// Starts the loop; it ends with the kit's shutdown.
pub(crate) fn run(kit: &Kit, ingress: Ingress, in_flight: usize) {
    let dead = DeadLetters::new(kit.log.clone(), &kit.topics, topic::Stage::Ingress);
    let group = kit.topics.group(format_args!("ingress.events"));
    let settings = ConsumeSettings { permits: in_flight, ..ConsumeSettings::new(group, vec![kit.topics.events()]) };
    let stage = Arc::new(stage::Events { ingress, dead });
    kit.consume("ingress.events", stage, topic::Stage::Ingress, settings);
}
