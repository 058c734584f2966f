//! What only a cluster of librdkafka's own can be made to do, on demand: answer wrongly.

use std::{sync::Arc, time::Duration};

use bus::{
    Event, Headers, Log as _, Outgoing, Subscription,
    kafka::{Kafka, KafkaSettings},
};
use rdkafka::{
    mocking::MockCluster,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

/// The first record, or why none comes.
async fn first(subscription: &mut dyn Subscription) -> Result<i64, String> {
    loop {
        match timeout(PATIENCE, subscription.next()).await {
            Ok(Ok(Event::Records(records))) => return Ok(records[0].at.offset),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("nothing comes".to_owned()),
        }
    }
}

/// While a coordinator moves it may refuse to say what was committed, and librdkafka does not ask again: the partitions are
/// assigned, and nobody reads them.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_not_told_where_to_begin_says_so_and_the_next_one_reads() {
    let cluster = MockCluster::new(1).expect("a cluster");
    cluster.create_topic("t", 1, 1).expect("a topic");
    let log = Kafka::new(KafkaSettings::new(cluster.bootstrap_servers(), "test")).expect("a client");
    let topic: Arc<str> = "t".into();
    let record = Outgoing { topic: topic.clone(), key: None, headers: Headers::default(), value: Some("x".into()) };
    assert!(log.publish(vec![record]).await.iter().all(Result::is_ok));

    let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_COORDINATOR;
    cluster.request_errors(RDKafkaApiKey::OffsetFetch, &[refusal]);
    let mut stranded = log.subscribe("g", std::slice::from_ref(&topic), Duration::ZERO).await.expect("joined");
    let said = first(&mut *stranded).await.expect_err("no offset to begin at");
    assert!(said.contains("committed offsets"), "{said}");
    stranded.close().await;

    let mut next = log.subscribe("g", &[topic], Duration::ZERO).await.expect("joined");
    assert_eq!(first(&mut *next).await, Ok(0));
    next.close().await;
}
