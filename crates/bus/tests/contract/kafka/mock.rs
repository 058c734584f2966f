//! What a real broker does not do on demand: fatal errors, outages, leaders that change. On a cluster inside librdkafka.

use super::*;

type Cluster = MockCluster<'static, rdkafka::producer::DefaultProducerContext>;

/// A cluster inside librdkafka, for what a real broker does not do on demand.
fn mock(name: &str) -> (Cluster, Kafka, Arc<str>) {
    mock_of(name, 1, 2000)
}

/// One of several brokers, each of which leads one partition of the topic.
fn mock_of(name: &str, brokers: i32, publish_timeout_ms: u32) -> (Cluster, Kafka, Arc<str>) {
    let cluster = MockCluster::new(brokers).expect("a mock cluster");
    // later versions of the answer name the new leader, and the mock cluster dies over a partition that has none
    cluster.apiversion(RDKafkaApiKey::Produce, Some(0), Some(9)).expect("a version");
    let topic: Arc<str> = name.into();
    cluster.create_topic(&topic, brokers, brokers).expect("a topic");
    for partition in 0..brokers {
        cluster.partition_leader(&topic, partition, Some(partition + 1)).expect("a leader");
    }
    let mut settings = KafkaSettings { publish_timeout_ms, ..settings(&cluster.bootstrap_servers()) };
    // its fetches sleep this long instead of waiting for records
    settings.extra.insert("fetch.wait.max.ms".to_owned(), "5".to_owned());
    let log = Kafka::new(settings).expect("settings");
    (cluster, log, topic)
}

#[tokio::test]
async fn a_fatal_error_ends_one_producer_not_the_process() {
    let (cluster, log, topic) = mock("fatal");
    publish(&log, &topic, 0..1).await;
    cluster
        .request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER; 1]);
    let results = within("a result", log.publish(vec![outgoing(&topic, "key", "x")])).await;
    assert!(matches!(&results[0], Err(LogError::Unavailable(_))), "{results:?}");
    cluster.clear_request_errors(RDKafkaApiKey::Produce);
    within("a new producer", publish(&log, &topic, 0..10)).await;
}

#[tokio::test]
async fn a_subscription_outlives_an_outage() {
    let (cluster, log, topic) = mock("outage");
    publish(&log, &topic, 0..10).await;
    let mut member = Member::join(&log, "group", &topic).await;
    member.until("the first records", |m| m.records.len() == 10).await;

    cluster.broker_down(1).expect("down");
    within("the outage is seen", async { while log.ping().await.is_ok() {} }).await;
    let results = within("a result", log.publish(vec![outgoing(&topic, "key", "x")])).await;
    assert!(matches!(&results[0], Err(LogError::Unavailable(_))), "{results:?}");
    cluster.broker_up(1).expect("up");
    within("it is back", async { while log.ping().await.is_err() {} }).await;

    // the producer is another client than the one that asked: it comes back by itself, and until then it may say so
    let again = || log.publish((0..10).map(|i| outgoing(&topic, "key", &i.to_string())).collect());
    within("published again", async { while again().await.iter().any(Result::is_err) {} }).await;
    let seen = |m: &Member| m.records.iter().map(|r| r.at.offset).collect::<BTreeSet<_>>().len() >= 20;
    member.until("the records after it", seen).await;
}

/// What a batch was answered with: the values that are durable, and what is said of the others.
async fn told(log: &Kafka, topic: &Arc<str>, numbers: std::ops::Range<usize>) -> (Vec<String>, Vec<LogError>) {
    let batch = numbers.clone().map(|i| outgoing(topic, &format!("key-{}", i % 20), &i.to_string())).collect();
    let results = within("a publish", log.publish(batch)).await;
    assert_eq!(results.len(), numbers.len(), "an answer for each");
    let (mut durable, mut errors) = (Vec::new(), Vec::new());
    for (i, result) in numbers.zip(results) {
        match result {
            Ok(_) => durable.push(i.to_string()),
            Err(e) => errors.push(e),
        }
    }
    (durable, errors)
}

/// Everything that is in a topic, partition by partition.
async fn everything(log: &Kafka, topic: &Arc<str>) -> Vec<Record> {
    let mut follower = within("to follow", log.follow(topic)).await.expect("a follower");
    let mut records: Vec<Record> = Vec::new();
    within("to catch up", async {
        while let FollowEvent::Records(more) = follower.next().await.expect("an event") {
            records.extend(more);
        }
    })
    .await;
    records.sort_by(|a, b| a.at.cmp(&b.at));
    records
}

/// Row 12 of the catalogue (reliability.md, section 7): what too few brokers are left for is refused, and only that.
#[tokio::test]
async fn one_broker_of_three_may_go_and_two_may_not() {
    let (cluster, log, topic) = mock_of("three", 3, 4000);
    let (mut durable, errors) = told(&log, &topic, 0..100).await;
    assert!(errors.is_empty(), "{errors:?}");
    // the others take over what it led
    cluster.broker_down(1).expect("down");
    cluster.partition_leader(&topic, 0, Some(2)).expect("a leader");
    let (more, errors) = told(&log, &topic, 100..200).await;
    assert!(errors.is_empty(), "one may be away: {errors:?}");
    durable.extend(more);

    // a second one: the last leads everything, but is fewer than the topic wants
    cluster.broker_down(2).expect("down");
    for partition in 0..3 {
        cluster.partition_leader(&topic, partition, Some(3)).expect("a leader");
    }
    let below = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 1000];
    cluster.request_errors(RDKafkaApiKey::Produce, &below);
    let (none, errors) = told(&log, &topic, 200..300).await;
    assert!(none.is_empty() && errors.iter().all(|e| matches!(e, LogError::Unavailable(_))), "{none:?} {errors:?}");
    cluster.clear_request_errors(RDKafkaApiKey::Produce);
    // and now what the last one was not in time for has no leader, the rest is taken
    for partition in 0..2 {
        cluster.partition_leader(&topic, partition, None).expect("no leader");
    }
    let (some, errors) = told(&log, &topic, 300..400).await;
    assert!(!some.is_empty() && !errors.is_empty(), "{some:?} {errors:?}");
    assert!(errors.iter().all(|e| matches!(e, LogError::Unavailable(_))), "{errors:?}");
    durable.extend(some);

    for broker in 1..=2 {
        cluster.broker_up(broker).expect("up");
    }
    for partition in 0..3 {
        cluster.partition_leader(&topic, partition, Some(partition + 1)).expect("a leader");
    }
    let mut next = 400;
    within("it is taken again", async {
        loop {
            let (more, errors) = told(&log, &topic, next..next + 100).await;
            durable.extend(more);
            next += 100;
            if errors.is_empty() {
                return;
            }
        }
    })
    .await;
    let found = values(&everything(&log, &topic).await);
    let mut times = BTreeMap::new();
    for value in found {
        *times.entry(value).or_insert(0) += 1;
    }
    for value in &durable {
        assert_eq!(times.get(value), Some(&1), "{value} was said to be durable");
    }
    // the outcome of the others is open, but none is there twice
    assert!(times.values().all(|n| *n == 1), "{times:?}");
}

/// Row 12: requests of before and after the change are under way together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_change_while_records_are_written() {
    const ROUNDS: usize = 40;
    let (cluster, log, topic) = mock_of("leaders", 3, 10_000);
    // longer than a batch waits for more records, so that answers are out while the leader changes
    cluster.broker_round_trip_time(-1, Duration::from_millis(15)).expect("slow");
    for round in 0..ROUNDS {
        let numbers = |i: usize| (round * 4 + i) * 50..(round * 4 + i + 1) * 50;
        let change = async {
            for partition in 0..3 {
                tokio::time::sleep(Duration::from_millis(fastrand::u64(0..12))).await;
                let leader = (i32::try_from(round).expect("few") + partition) % 3 + 1;
                cluster.partition_leader(&topic, partition, Some(leader)).expect("a leader");
            }
        };
        let writes = futures::future::join_all((0..4).map(|i| told(&log, &topic, numbers(i))));
        let (answers, ()) = tokio::join!(writes, change);
        for (durable, errors) in answers {
            assert!(errors.is_empty() && durable.len() == 50, "round {round}: {errors:?}");
        }
    }
    let records = everything(&log, &topic).await;
    let all: BTreeSet<_> = values(&records).into_iter().collect();
    assert_eq!((records.len(), all.len()), (ROUNDS * 200, ROUNDS * 200), "each once");
    let mut last = BTreeMap::new();
    for (record, value) in records.iter().zip(values(&records)) {
        // the calls of a round were made at once, those of two rounds one after the other
        let round = value.parse::<usize>().expect("a number") / 200;
        let before = last.insert(record.key.clone(), round);
        assert!(before.is_none_or(|before| before <= round), "{value} of round {round} comes after {before:?}");
    }
}

/// Row 14: a start without the topics, or without the right to use them, is refused with the remedy.
#[tokio::test]
async fn a_start_without_topics_is_refused() {
    let (cluster, log, topic) = mock("start");
    let check = |names: &[&Arc<str>]| within("an answer", log.check_topics(names.iter().copied().cloned().collect()));
    check(&[&topic]).await.expect("it is there");
    let [one, two]: [Arc<str>; 2] = ["missing.one".into(), "missing.two".into()];
    let error = check(&[&topic, &one, &two]).await.expect_err("two are missing").to_string();
    assert!(error.contains("missing.one, missing.two") && error.contains("`carillon topics`"), "{error}");
    assert!(!error.contains("start"), "{error}");

    cluster.topic_error(&topic, RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED).expect("an error");
    let error = check(&[&topic]).await.expect_err("not ours");
    assert!(matches!(&error, LogError::Topic { detail, .. } if detail.contains("uthoriz")), "{error}");
    let results = within("a result", log.publish(vec![outgoing(&topic, "key", "x")])).await;
    assert!(matches!(&results[0], Err(LogError::Topic { .. })), "{results:?}");
    cluster.broker_down(-1).expect("down");
    assert!(matches!(check(&[&topic]).await, Err(LogError::Unavailable(_))), "that is no missing topic");
}
