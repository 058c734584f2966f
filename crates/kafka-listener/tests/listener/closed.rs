//! Without a password nobody gets at what is not public: the configuration holds secrets, other topics addresses and texts.

use std::time::Duration;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        FetchRequest, ListOffsetsRequest, MetadataRequest,
        fetch_request::{FetchPartition, FetchTopic},
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        metadata_request::MetadataRequestTopic,
    },
    protocol::Encodable,
};
use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    error::RDKafkaErrorCode,
};

use crate::{
    clients::config,
    harness::{CONFIG, DEAD, Listener, within},
    raw::{Raw, plain, text},
};

const CANARY: &str = "canary-51c0";

async fn with_secrets() -> Listener {
    let listener = Listener::start().await;
    for topic in [CONFIG, DEAD] {
        listener.publish(topic, CANARY, Some(CANARY)).await;
    }
    listener
}

fn bytes(response: &impl Encodable, version: i16) -> Vec<u8> {
    let mut encoded = bytes::BytesMut::new();
    response.encode(&mut encoded, version).unwrap();
    encoded.to_vec()
}

#[tokio::test]
async fn what_is_not_public_is_not_listed_described_fetched_or_written() {
    let listener = with_secrets().await;
    let mut raw = Raw::connect(&listener).await;
    let refused = ResponseError::TopicAuthorizationFailed.code();
    let all = raw.ask(&MetadataRequest::default().with_topics(None), 8).await;
    let names: Vec<_> = all.topics.iter().map(|t| t.name.as_ref().unwrap().to_string()).collect();
    assert_eq!(names, ["carillon.events", "carillon.status"]);
    for topic in [CONFIG, DEAD] {
        let named = MetadataRequestTopic::default().with_name(Some(text(topic).into()));
        let described = raw.ask(&MetadataRequest::default().with_topics(Some(vec![named])), 8).await;
        assert_eq!((described.topics[0].error_code, described.topics[0].partitions.len()), (refused, 0), "{topic}");

        let partition = ListOffsetsPartition::default().with_timestamp(-1);
        let asked = ListOffsetsTopic::default().with_name(text(topic).into()).with_partitions(vec![partition]);
        let found = raw.ask(&ListOffsetsRequest::default().with_topics(vec![asked]), 5).await;
        let found = &found.topics[0].partitions[0];
        assert_eq!((found.error_code, found.offset), (refused, -1), "not even how much there is of {topic}");

        for version in 4..=11 {
            let partition = FetchPartition::default().with_partition_max_bytes(1 << 20);
            let asked = FetchTopic::default().with_topic(text(topic).into()).with_partitions(vec![partition]);
            // it asks to wait, and is not kept waiting
            let asked = FetchRequest::default()
                .with_max_wait_ms(60_000)
                .with_min_bytes(1)
                .with_max_bytes(1 << 20)
                .with_topics(vec![asked]);
            let fetched = raw.ask(&asked, version).await;
            let partition = &fetched.responses[0].partitions[0];
            assert_eq!((partition.error_code, partition.high_watermark), (refused, -1), "{topic} version {version}");
            let shown = bytes(&fetched, version);
            assert!(!shown.windows(CANARY.len()).any(|w| w == CANARY.as_bytes()));
        }
        assert_eq!(raw.produce(topic, 0, plain(&["forged"])).await.error_code, refused, "{topic}");
        let partition = bus::Partition { topic: topic.into(), index: 0 };
        assert_eq!(listener.log.latest(&partition).unwrap(), 1, "nothing was added to {topic}");
    }
    let nowhere = MetadataRequestTopic::default().with_name(Some(text("carillon.nowhere").into()));
    let described = raw.ask(&MetadataRequest::default().with_topics(Some(vec![nowhere])), 8).await;
    assert_eq!(described.topics[0].error_code, ResponseError::UnknownTopicOrPartition.code());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn librdkafka_understands_that_it_may_not() {
    let listener = with_secrets().await;
    let consumer: BaseConsumer = config(&listener).create().unwrap();
    let asked = tokio::task::spawn_blocking(move || {
        let patience = Duration::from_secs(10);
        let described = consumer.fetch_metadata(Some(CONFIG), patience).unwrap();
        let refused = described.topics()[0].error().map(RDKafkaErrorCode::from);
        assert_eq!(refused, Some(RDKafkaErrorCode::TopicAuthorizationFailed));
        consumer.fetch_watermarks(CONFIG, 0, patience).expect_err("not even how much there is of it");
    });
    within("an answer", asked).await.unwrap();
}
