//! What ordinary clients are refused, and that they understand it.

use std::time::Duration;

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer, StreamConsumer},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{FutureProducer, FutureRecord, Producer},
};

use crate::{
    clients::config,
    harness::{EVENTS, Listener, STATUS, within},
    raw::assert_well,
};

async fn refusal(producer: &FutureProducer, topic: &str, size: usize) -> Option<RDKafkaErrorCode> {
    let value = "x".repeat(size);
    let record = FutureRecord::<(), _>::to(topic).payload(&value);
    let sent = within("an answer", producer.send(record, Duration::from_secs(20))).await;
    sent.err().and_then(|(error, _)| error.rdkafka_error_code())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_events_are_written_and_none_that_is_too_large() {
    let listener = Listener::start().await;
    let producer: FutureProducer = config(&listener)
        .set("message.max.bytes", "3000000")
        .set("message.timeout.ms", "15000")
        .set("topic.metadata.propagation.max.ms", "500")
        .create()
        .unwrap();
    assert_eq!(refusal(&producer, STATUS, 10).await, Some(RDKafkaErrorCode::TopicAuthorizationFailed));
    assert_eq!(refusal(&producer, "nowhere", 10).await, Some(RDKafkaErrorCode::UnknownTopicOrPartition));
    assert_eq!(refusal(&producer, EVENTS, 1_500_000).await, Some(RDKafkaErrorCode::MessageSizeTooLarge));
    assert_eq!(refusal(&producer, EVENTS, 1_000_000).await, None);
    assert_eq!(listener.written(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_and_groups_are_refused_for_good() {
    let listener = Listener::start().await;
    let producer: FutureProducer = config(&listener).set("transactional.id", "t").create().unwrap();
    let begun = tokio::task::spawn_blocking(move || producer.init_transactions(Duration::from_secs(20)));
    match within("a refusal", begun).await.unwrap() {
        Err(KafkaError::Transaction(e)) => {
            assert_eq!(e.code(), RDKafkaErrorCode::TransactionalIdAuthorizationFailed, "{e}");
            assert!(e.is_fatal(), "not tried again");
        }
        other => panic!("{other:?}"),
    }
    let consumer: StreamConsumer = config(&listener).set("group.id", "g").create().unwrap();
    consumer.subscribe(&[EVENTS]).unwrap();
    let error = within("a refusal", consumer.recv()).await.expect_err("no group");
    assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::InvalidRequest), "{error}");
    consumer.unsubscribe();

    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(EVENTS, 0, Offset::Offset(1)).unwrap();
    let commit = tokio::task::spawn_blocking(move || consumer.commit(&offsets, CommitMode::Sync));
    let error = within("a refusal", commit).await.unwrap().expect_err("nothing is kept");
    assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::InvalidRequest), "{error}");
    assert_well(&listener).await;
}
