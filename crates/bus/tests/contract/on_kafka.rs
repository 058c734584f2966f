//! The suite on a real broker.

use std::sync::Arc;

use bus::kafka::{Kafka, KafkaSettings};

use crate::{kafka::brokers, suite::Fixture};

async fn fixture() -> Fixture {
    let log = Kafka::new(KafkaSettings::new(brokers(), "carillon-contract")).expect("settings");
    Fixture { log: Arc::new(log), _keep: Box::new(()) }
}

contract!(tokio::test, fixture);
