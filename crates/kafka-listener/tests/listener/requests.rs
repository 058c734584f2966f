//! Each request in each version that clients are told of, and what they are told.

use std::time::{Duration, Instant};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        ApiKey, ApiVersionsRequest, ApiVersionsResponse, FetchRequest, FetchResponse, FindCoordinatorRequest,
        JoinGroupRequest, ListOffsetsRequest, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest,
        fetch_request::{FetchPartition, FetchTopic},
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::OffsetFetchRequestTopic,
    },
    protocol::Decodable,
};
use tokio::io::AsyncReadExt;

use crate::{
    harness::{EVENTS, Listener, PARTITIONS, STATUS, within},
    raw::{Raw, assert_well, plain, produce, text},
};

fn fetch(topic: &str, partitions: &[(i32, i64)], wait: Duration) -> FetchRequest {
    let partition = |(index, offset): &(i32, i64)| {
        FetchPartition::default().with_partition(*index).with_fetch_offset(*offset).with_partition_max_bytes(1 << 20)
    };
    let topic = FetchTopic::default()
        .with_topic(text(topic).into())
        .with_partitions(partitions.iter().map(partition).collect());
    FetchRequest::default()
        .with_max_wait_ms(i32::try_from(wait.as_millis()).unwrap())
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_topics(vec![topic])
}

/// Per partition: the error, the end, the bytes of the records.
fn shown(response: &FetchResponse) -> Vec<(i16, i64, usize)> {
    let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|p| (p.error_code, p.high_watermark, p.records.as_ref().map_or(0, |r| r.len()))).collect()
}

#[tokio::test]
async fn versions_are_told_in_every_version_and_in_unknown_ones() {
    let listener = Listener::start().await;
    let mut raw = Raw::connect(&listener).await;
    let request = ApiVersionsRequest::default();
    for version in 0..=3 {
        let told = raw.ask(&request, version).await;
        assert_eq!(told.error_code, 0);
        let range = |key: ApiKey| {
            let found = told.api_keys.iter().find(|api| api.api_key == key as i16).expect("told of");
            (found.min_version, found.max_version)
        };
        assert_eq!((range(ApiKey::Produce), range(ApiKey::Fetch)), ((0, 8), (4, 11)));
    }
    raw.send(&request, 4).await;
    let mut answer = raw.receive().await.expect("an answer");
    let told = ApiVersionsResponse::decode(&mut answer, 0).expect("version 0, whatever was asked");
    assert_eq!(told.error_code, ResponseError::UnsupportedVersion.code());
    assert!(told.api_keys.iter().any(|api| api.api_key == ApiKey::ApiVersions as i16 && api.max_version == 3));
    assert_eq!(raw.ask(&request, 3).await.error_code, 0, "the same connection goes on");
}

#[tokio::test]
async fn every_request_is_answered_in_every_version() {
    let listener = Listener::start().await;
    let mut raw = Raw::connect(&listener).await;
    for version in 3..=8 {
        let answer = raw.ask(&produce(EVENTS, 0, plain(&["a", "b"])), version).await;
        let answer = &answer.responses[0].partition_responses[0];
        assert_eq!((answer.error_code, answer.base_offset), (0, i64::from(version - 3) * 2));
        assert!(answer.log_append_time_ms > 0);
    }
    for version in 4..=11 {
        let answer = raw.ask(&fetch(EVENTS, &[(0, 10), (1, 0), (9, 0), (0, 13)], Duration::ZERO), version).await;
        let unknown = ResponseError::UnknownTopicOrPartition.code();
        let beyond = ResponseError::OffsetOutOfRange.code();
        let shown = shown(&answer);
        assert!(shown[0].0 == 0 && shown[0].1 == 12 && shown[0].2 > 61, "{shown:?}");
        assert_eq!(shown[1..], [(0, 0, 0), (unknown, -1, 0), (beyond, -1, 0)], "version {version}");
    }
    for version in 1..=5 {
        let asked = |time| ListOffsetsPartition::default().with_partition_index(0).with_timestamp(time);
        let topic = ListOffsetsTopic::default().with_name(text(EVENTS).into()).with_partitions(vec![
            asked(-1),
            asked(-2),
            asked(1),
            asked(i64::MAX),
        ]);
        let answer = raw.ask(&ListOffsetsRequest::default().with_topics(vec![topic]), version).await;
        let offsets: Vec<_> = answer.topics[0].partitions.iter().map(|p| (p.error_code, p.offset)).collect();
        assert_eq!(offsets, [(0, 12), (0, 0), (0, 0), (0, -1)], "version {version}");
    }
    for version in 0..=8 {
        let all = if version == 0 { Some(Vec::new()) } else { None };
        let answer = raw.ask(&MetadataRequest::default().with_topics(all), version).await;
        let events = answer.topics.iter().find(|t| t.name.as_ref().is_some_and(|n| **n == *EVENTS)).expect("listed");
        assert_eq!(events.partitions.len(), usize::try_from(PARTITIONS).unwrap());
        assert_eq!((answer.topics.len(), answer.brokers.len()), (2, 1), "events and status are all there is to see");
    }
    let refused = ResponseError::InvalidRequest.code();
    for version in 0..=2 {
        let answer = raw.ask(&FindCoordinatorRequest::default().with_key(text("g")), version).await;
        assert_eq!((answer.error_code, *answer.node_id, answer.port), (0, 1, i32::from(listener.address.port())));
        if version > 0 {
            let transactions = FindCoordinatorRequest::default().with_key(text("t")).with_key_type(1);
            let answer = raw.ask(&transactions, version).await;
            assert_eq!(answer.error_code, ResponseError::TransactionalIdAuthorizationFailed.code());
            assert!(answer.error_message.is_some_and(|words| words.contains("need a Kafka cluster")));
        }
    }
    for version in 1..=5 {
        let topic = OffsetFetchRequestTopic::default().with_name(text(EVENTS).into()).with_partition_indexes(vec![0]);
        let asked = OffsetFetchRequest::default().with_group_id(text("g").into()).with_topics(Some(vec![topic]));
        let answer = raw.ask(&asked, version).await;
        let partition = &answer.topics[0].partitions[0];
        assert_eq!((partition.committed_offset, partition.error_code), (-1, 0), "version {version}");
    }
    for version in 5..=7 {
        let partition = OffsetCommitRequestPartition::default().with_committed_metadata(Some(text("m")));
        let topic = OffsetCommitRequestTopic::default().with_name(text(EVENTS).into()).with_partitions(vec![partition]);
        let asked = OffsetCommitRequest::default().with_group_id(text("g").into()).with_topics(vec![topic]);
        assert_eq!(raw.ask(&asked, version).await.topics[0].partitions[0].error_code, refused, "version {version}");
    }
    for version in 0..=5 {
        let answer = raw.ask(&JoinGroupRequest::default().with_group_id(text("g").into()), version).await;
        assert_eq!(answer.error_code, refused, "version {version}");
    }
}

#[tokio::test]
async fn a_fetch_waits_for_a_record_and_no_longer() {
    let listener = Listener::start().await;
    let mut raw = Raw::connect(&listener).await;
    let asked = Instant::now();
    let empty = raw.ask(&fetch(EVENTS, &[(0, 0)], Duration::from_millis(300)), 11).await;
    assert_eq!(shown(&empty), [(0, 0, 0)]);
    assert!(asked.elapsed() >= Duration::from_millis(300), "it waits as long as it may");
    let faulty = raw.ask(&fetch(EVENTS, &[(0, 0), (0, 5)], Duration::from_secs(25)), 11).await;
    assert_eq!(shown(&faulty)[1].0, ResponseError::OffsetOutOfRange.code(), "a fault is said at once");

    raw.send(&fetch(STATUS, &[(0, 0), (1, 0)], Duration::from_secs(25)), 11).await;
    // nothing can come before there is something
    assert!(tokio::time::timeout(Duration::from_millis(200), raw.0.peek(&mut [0])).await.is_err());
    let published = Instant::now();
    listener.publish(STATUS, "key", Some("news")).await;
    let mut answer = raw.receive().await.expect("an answer");
    assert!(published.elapsed() < Duration::from_secs(5), "it was woken");
    let answer = FetchResponse::decode(&mut answer, 11).unwrap();
    assert_eq!(shown(&answer).iter().map(|(_, end, _)| end).sum::<i64>(), 1);
    assert!(shown(&answer).iter().any(|(_, _, bytes)| *bytes > 0));

    // the end of the process does not wait for them
    let end = [0, 1].map(|index| listener.log.latest(&bus::Partition { topic: STATUS.into(), index }).unwrap());
    raw.send(&fetch(STATUS, &[(0, end[0]), (1, end[1])], Duration::from_secs(25)), 11).await;
    assert!(tokio::time::timeout(Duration::from_millis(200), raw.0.peek(&mut [0])).await.is_err());
    listener.stop().await;
}

#[tokio::test]
async fn limits_of_bytes_are_kept_and_the_first_record_comes_all_the_same() {
    let listener = Listener::start().await;
    let mut raw = Raw::connect(&listener).await;
    let value = "x".repeat(400_000);
    for index in [0, 0, 0, 0, 1] {
        assert_eq!(raw.produce(EVENTS, index, plain(&[&value])).await.error_code, 0);
    }
    let all = [(0, 0), (1, 0), (2, 0)];
    let shown_of = |response: FetchResponse| shown(&response).iter().map(|(_, _, bytes)| *bytes).collect::<Vec<_>>();
    let answer = shown_of(raw.ask(&fetch(EVENTS, &all, Duration::ZERO), 11).await);
    assert!((800_000..1_000_000).contains(&answer[0]) && answer[1..] == [0, 0], "{answer:?}");
    let answer = shown_of(raw.ask(&fetch(EVENTS, &all, Duration::ZERO).with_max_bytes(10), 11).await);
    assert!((400_000..401_000).contains(&answer[0]) && answer[1..] == [0, 0], "{answer:?}");
    let mut small = fetch(EVENTS, &all, Duration::ZERO);
    small.topics[0].partitions[0].partition_max_bytes = 500_000;
    let answer = shown_of(raw.ask(&small, 11).await);
    assert!((400_000..401_000).contains(&answer[0]) && (400_000..401_000).contains(&answer[1]), "{answer:?}");
}

#[tokio::test]
async fn without_an_answer_a_refusal_is_the_end_of_the_connection() {
    let listener = Listener::start().await;
    let mut raw = Raw::connect(&listener).await;
    raw.send(&produce(EVENTS, 0, plain(&["a"])).with_acks(0), 8).await;
    raw.send(&MetadataRequest::default(), 8).await;
    assert!(raw.receive().await.is_some());
    assert_eq!(listener.written(), 1, "durable before anything else is answered");
    raw.send(&produce(STATUS, 0, plain(&["a"])).with_acks(0), 8).await;
    let mut byte = [0];
    assert_eq!(within("the end", raw.0.read(&mut byte)).await.unwrap_or(0), 0);
    assert_well(&listener).await;
}
