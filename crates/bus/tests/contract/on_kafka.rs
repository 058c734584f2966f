//! The suite on a real broker, if there is one.

use std::sync::Arc;

use bus::kafka::{Kafka, KafkaSettings};

use crate::suite::Fixture;

/// On the brokers of `CARILLON_TEST_KAFKA`; without it the suite says that it was skipped.
async fn fixture() -> Option<Fixture> {
    let Some(brokers) = std::env::var_os("CARILLON_TEST_KAFKA").and_then(|b| b.into_string().ok()) else {
        println!("skipped: CARILLON_TEST_KAFKA is not set");
        return None;
    };
    let log = Kafka::new(KafkaSettings::new(&brokers, "carillon-contract")).expect("settings");
    Some(Fixture { log: Arc::new(log), _keep: Box::new(()) })
}

contract!(tokio::test, fixture);
