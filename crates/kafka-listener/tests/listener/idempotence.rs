//! A batch that is sent again is appended once, whatever became of the first try.

use kafka_protocol::{
    error::ResponseError,
    messages::{InitProducerIdRequest, TransactionalId},
    records::Compression,
};

use crate::{
    harness::{EVENTS, Listener, events, within},
    raw::{Raw, batch, text},
};

async fn producer(raw: &mut Raw) -> i64 {
    let given = raw.ask(&InitProducerIdRequest::default().with_transactional_id(None), 1).await;
    assert_eq!((given.error_code, given.producer_epoch), (0, 0));
    *given.producer_id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retried_batch_is_appended_once_over_connections_and_restarts() {
    let listener = Listener::start().await;
    let mut raw = Raw::connect(&listener).await;
    let id = producer(&mut raw).await;
    assert_ne!(id, producer(&mut raw).await, "each producer has its own");
    let first = batch((id, 0, 0), &["a", "b", "c"], Compression::Zstd);

    // the client gave up on one connection and tries again on another while the first try is on its way
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (mut raw, first) = (Raw::connect(&listener).await, first.clone());
        tries.spawn(async move { raw.produce(EVENTS, 1, first).await });
    }
    for answer in within("every answer", tries.join_all()).await {
        assert_eq!((answer.error_code, answer.base_offset), (0, 0));
    }
    let second = batch((id, 0, 3), &["d"], Compression::None);
    assert_eq!(raw.produce(EVENTS, 1, second.clone()).await.base_offset, 3);
    let listener = listener.restart().await;
    let mut raw = Raw::connect(&listener).await;
    assert_eq!(raw.produce(EVENTS, 1, second).await.base_offset, 3);
    assert_eq!(raw.produce(EVENTS, 1, first).await.base_offset, 0);
    let values = listener.log.fetch(&events(1), 0, 1000).await.unwrap();
    assert_eq!(values.iter().filter_map(|r| r.value.as_deref()).collect::<Vec<_>>(), [b"a", b"b", b"c", b"d"]);
}

#[tokio::test]
async fn a_gap_and_an_old_epoch_are_refused_by_the_codes_that_clients_act_on() {
    let listener = Listener::start().await;
    let mut raw = Raw::connect(&listener).await;
    let id = producer(&mut raw).await;
    let send = |epoch, first| batch((id, epoch, first), &["x"], Compression::None);
    assert_eq!(raw.produce(EVENTS, 0, send(0, 0)).await.error_code, 0);
    let gap = raw.produce(EVENTS, 0, send(0, 2)).await;
    assert_eq!(gap.error_code, ResponseError::OutOfOrderSequenceNumber.code());
    assert!(gap.error_message.is_some());
    assert_eq!(raw.produce(EVENTS, 0, send(1, 0)).await.error_code, 0);
    assert_eq!(raw.produce(EVENTS, 0, send(0, 1)).await.error_code, ResponseError::InvalidProducerEpoch.code());
    assert_eq!(listener.written(), 2);
    let named = InitProducerIdRequest::default().with_transactional_id(Some(TransactionalId(text("t"))));
    assert_eq!(raw.ask(&named, 0).await.error_code, ResponseError::TransactionalIdAuthorizationFailed.code());
}
