//! The log on a real broker, and what only a broker can do: rebalances between members, fatal errors, an outage.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bus::{
    Cleanup, FollowEvent, Log, LogError, Partition, Position, Record, Revoked, TopicSpec,
    kafka::{Kafka, KafkaSettings},
};
use rdkafka::{
    ClientConfig,
    mocking::MockCluster,
    producer::{BaseProducer, BaseRecord, Producer},
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use tokio::{sync::oneshot, time::timeout};

use crate::member::{Member, outgoing, publish, spec, topic, unique, values, within};

/// The brokers of `CARILLON_TEST_KAFKA`; without it the test says that it was skipped.
fn brokers(test: &str) -> Option<String> {
    let brokers = std::env::var_os("CARILLON_TEST_KAFKA").and_then(|b| b.into_string().ok());
    if brokers.is_none() {
        println!("skipped {test}: CARILLON_TEST_KAFKA is not set");
    }
    brokers
}

fn settings(brokers: &str) -> KafkaSettings {
    KafkaSettings::new(brokers, "carillon-test")
}

async fn revocation(member: &mut Member) -> Revoked {
    within("a revocation", async {
        loop {
            if let Some(revoked) = member.step().await {
                return revoked;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_commit_inside_a_revocation_is_where_the_new_owner_begins() {
    let Some(brokers) = brokers("a_commit_inside_a_revocation") else { return };
    let log = Kafka::new(settings(&brokers)).expect("settings");
    let topic = topic(&log, 4).await;
    publish(&log, &topic, 0..400).await;
    let group = unique("group");

    let started = Instant::now();
    let mut first = Member::join(&log, &group, &topic).await;
    first.until("all records", |m| m.records.len() == 400).await;
    println!("first member: assigned and 400 records read in {:?}", started.elapsed());

    let joined = Instant::now();
    let mut second = Member::join(&log, &group, &topic).await;
    let revoked = revocation(&mut first).await;
    assert!(!revoked.lost);
    // half of what was read, an offset of its own for each partition
    let commits: BTreeMap<_, _> =
        revoked.partitions.iter().map(|p| (p.clone(), first.offsets_of(p).len() as i64 / 2)).collect();
    within("a commit", first.log.commit(&commits)).await.expect("a commit inside the revocation");
    revoked.release();

    let kept = first.owned.clone();
    assert_eq!((kept.len(), commits.len()), (2, 2), "cooperative: half is given up, half is kept");
    let missing = commits.iter().map(|(p, offset)| first.offsets_of(p).len() - *offset as usize).sum::<usize>();
    within("both go on", async {
        while second.records.len() < missing {
            tokio::select! { r = second.step() => assert!(r.is_none()), r = first.step() => assert!(r.is_none()) }
        }
    })
    .await;
    println!("second member: joined, took over and read in {:?}", joined.elapsed());
    for (partition, offset) in &commits {
        assert_eq!(second.offsets_of(partition).first(), Some(offset), "{partition}: from the commit on");
    }

    let late = within("a commit", first.log.commit(&commits)).await;
    assert!(matches!(late, Err(LogError::NotAssigned)), "given up: {late:?}");
    let kept: BTreeMap<_, _> = kept.iter().map(|p| (p.clone(), 1)).collect();
    within("a commit", first.log.commit(&kept)).await.expect("a commit of what was kept");

    publish(&log, &topic, 0..400).await;
    within("both read on", async {
        while first.records.len() + second.records.len() < 800 + missing {
            tokio::select! { r = second.step() => assert!(r.is_none()), r = first.step() => assert!(r.is_none()) }
        }
    })
    .await;
    first.assert_each_once();
    second.assert_each_once();
    tokio::join!(first.log.close(), second.log.close());
}

#[tokio::test]
async fn a_commit_of_a_member_that_was_too_slow_is_refused() {
    let Some(brokers) = brokers("a_commit_of_a_member_that_was_too_slow") else { return };
    let log = Kafka::new(KafkaSettings { drain_timeout: Duration::from_millis(200), ..settings(&brokers) });
    let log = log.expect("settings");
    let topic = topic(&log, 2).await;
    publish(&log, &topic, 0..100).await;
    let group = unique("group");

    let mut slow = Member::join(&log, &group, &topic).await;
    slow.until("all records", |m| m.records.len() == 100).await;
    let mut other = Member::join(&log, &group, &topic).await;
    let revoked = revocation(&mut slow).await;
    // it is not released, and the log stops waiting
    other.until("the other has it", |m| !m.owned.is_empty()).await;
    let commits = revoked.partitions.iter().map(|p| (p.clone(), 1)).collect();
    let late = within("a commit", slow.log.commit(&commits)).await;
    assert!(matches!(late, Err(LogError::NotAssigned)), "somebody else's: {late:?}");
    revoked.release();
    slow.log.close().await;
    other.until("all of it", |m| m.owned.len() == 2 && m.records.len() == 100).await;
}

#[tokio::test]
async fn a_pause_ends_with_the_assignment() {
    let Some(brokers) = brokers("a_pause_ends_with_the_assignment") else { return };
    let log = Kafka::new(settings(&brokers)).expect("settings");
    let topic = topic(&log, 2).await;
    let group = unique("group");
    publish(&log, &topic, 0..1000).await;

    let mut first = Member::join(&log, &group, &topic).await;
    first.until("some records", |m| m.owned.len() == 2 && !m.records.is_empty()).await;
    for partition in &first.owned.clone() {
        first.log.pause(partition);
    }
    let (mut second, revoked) = tokio::join!(Member::join(&log, &group, &topic), revocation(&mut first));
    let given_up = revoked.partitions.clone();
    revoked.release();
    second.until("its records", |m| m.owned.len() == 1 && !m.records.is_empty()).await;
    second.log.close().await;

    // nobody resumes: it is a new assignment
    let before = first.records.len();
    publish(&log, &topic, 0..100).await;
    first.until("the partition again", |m| m.owned.len() == 2).await;
    first
        .until("its records from the beginning", |m| {
            given_up.iter().all(|p| m.records[before..].iter().any(|r| r.at.partition == *p))
        })
        .await;
    assert!(first.records[before..].iter().all(|r| given_up.contains(&r.at.partition)), "the other one still rests");

    for partition in &first.owned.clone() {
        first.log.resume(partition);
    }
    let kept = first.owned.iter().find(|p| !given_up.contains(p)).expect("one was kept").clone();
    let all = |m: &Member| m.records.iter().map(|r| r.at.clone()).collect::<BTreeSet<_>>().len() == 1100;
    first.until("everything", all).await;
    let offsets = first.offsets_of(&kept);
    assert_eq!(offsets, (0..offsets.len() as i64).collect::<Vec<_>>(), "the one that rested: in order, none twice");
}

#[tokio::test]
async fn pauses_at_full_speed_lose_and_repeat_nothing() {
    let Some(brokers) = brokers("pauses_at_full_speed") else { return };
    let log = Kafka::new(settings(&brokers)).expect("settings");
    let topic = topic(&log, 3).await;
    // in parts: a busy machine may not take all of it within the time that one publish has
    for first in (0..30_000).step_by(3_000) {
        publish(&log, &topic, first..first + 3_000).await;
    }
    let mut member = Member::join(&log, &unique("group"), &topic).await;
    within("all records", async {
        let mut resting = BTreeSet::new();
        while member.records.len() < 30_000 {
            let before = member.records.len();
            // those that do not rest may have nothing left, so a silence ends the rest as well
            let stepped = timeout(Duration::from_millis(100), member.step()).await.is_ok();
            assert!(
                member.records[before..].iter().all(|r| !resting.contains(&r.at.partition)),
                "what rests is silent"
            );
            // one more rests after each event, until all go on
            let next = member.owned.iter().find(|p| !resting.contains(*p)).cloned();
            if let Some(next) = next.filter(|_| stepped && resting.len() + 1 < member.owned.len()) {
                member.log.pause(&next);
                resting.insert(next);
            } else {
                for partition in std::mem::take(&mut resting) {
                    member.log.resume(&partition);
                }
            }
        }
    })
    .await;
    member.assert_each_once();
}

/// A commit that may come in the middle of a rebalance: it is not refused, but may go on in the background.
async fn commit(member: &mut Member, next: &BTreeMap<Partition, i64>) {
    match member.log.commit(next).await {
        Ok(()) => {}
        Err(LogError::Unavailable(e)) if e.contains("under way") => {}
        Err(e) => panic!("a commit of what is owned: {e}"),
    }
}

/// Reads and commits until it is told to stop; returns what it has seen.
async fn work(log: Arc<Kafka>, group: Arc<str>, topic: Arc<str>, stop: oneshot::Receiver<()>) -> Vec<Position> {
    let mut member = Member::join(log.as_ref(), &group, &topic).await;
    let mut next: BTreeMap<Partition, i64> = BTreeMap::new();
    let mut stop = pin!(stop);
    loop {
        let seen = member.records.len();
        let revoked = tokio::select! { _ = &mut stop => break, revoked = member.step() => revoked };
        next.extend(member.records[seen..].iter().map(|r| (r.at.partition.clone(), r.at.offset + 1)));
        match revoked {
            Some(revoked) if revoked.lost => panic!("lost, though it was heard of: {revoked:?}"),
            Some(revoked) => {
                let last: BTreeMap<_, _> =
                    revoked.partitions.iter().filter_map(|p| Some((p.clone(), next.remove(p)?))).collect();
                member.log.commit(&last).await.expect("a commit inside a revocation");
                revoked.release();
            }
            None => commit(&mut member, &next).await,
        }
    }
    commit(&mut member, &next).await;
    member.log.close().await;
    member.records.into_iter().map(|r| r.at).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go_and_each_record_is_read_once() {
    let Some(brokers) = brokers("members_come_and_go") else { return };
    // a member that went without a word would be waited for longer than this test has time
    let settings = KafkaSettings { session_timeout_ms: 60_000, ..settings(&brokers) };
    let log = Arc::new(Kafka::new(settings).expect("settings"));
    let (topic, group) = (topic(log.as_ref(), 8).await, unique("group"));
    let join = || {
        let (stop, stopped) = oneshot::channel();
        (stop, tokio::spawn(work(log.clone(), group.clone(), topic.clone(), stopped)))
    };
    let (mut members, mut done) = (VecDeque::new(), Vec::new());
    for round in 0..60 {
        publish(log.as_ref(), &topic, 0..200).await;
        if round % 6 == 0 {
            members.push_back(join());
        }
        if members.len() > 3 {
            let (stop, member) = members.pop_front().expect("one of four");
            stop.send(()).expect("it runs");
            done.push(member);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut seen = Vec::new();
    for (stop, member) in members {
        stop.send(()).expect("it runs");
        done.push(member);
    }
    for member in done {
        seen.extend(within("the end of a member", member).await.expect("no panic"));
    }
    // what nobody had come to yet
    let mut last = Member::join(log.as_ref(), &group, &topic).await;
    let (stop_at, before) = (60 * 200, seen.len());
    last.until("the rest", |m| before + m.records.len() >= stop_at && m.owned.len() == 8).await;
    println!("turnover: {before} records read by members that came and went, {} by the last", last.records.len());
    seen.extend(last.records.into_iter().map(|r| r.at));
    assert_eq!(seen.len(), stop_at, "none twice");
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>().len(), stop_at, "none left out");
}

/// Row 14 for what is missing later than at the start; what is too large is in the suite.
#[tokio::test]
async fn what_is_missing_or_away_is_said() {
    let Some(brokers) = brokers("what_is_missing_or_away") else { return };
    let log = Kafka::new(settings(&brokers)).expect("settings");
    let missing = unique("missing");
    let results = within("a result", log.publish(vec![outgoing(&missing, "key", "x")])).await;
    assert!(
        matches!(&results[0], Err(LogError::Topic { detail, .. }) if detail.contains("carillon topics")),
        "{results:?}"
    );
    let joined = within("a result", log.subscribe("group", std::slice::from_ref(&missing), Duration::ZERO)).await.err();
    assert!(
        matches!(&joined, Some(LogError::Topic { detail, .. }) if detail.contains("carillon topics")),
        "{joined:?}"
    );
    within("a ping", log.ping()).await.expect("the broker is there");

    // port 1: nothing listens
    let away = Kafka::new(KafkaSettings { publish_timeout_ms: 500, ..settings("127.0.0.1:1") }).expect("settings");
    let ping = within("a ping", away.ping()).await;
    assert!(matches!(&ping, Err(LogError::Unavailable(e)) if e.contains("127.0.0.1:1")), "{ping:?}");
    let results = within("a result", away.publish(vec![outgoing(&missing, "key", "x")])).await;
    assert!(matches!(&results[0], Err(LogError::Unavailable(_))), "{results:?}");

    let mut wrong = settings(&brokers);
    wrong.extra.insert("no.such.setting".to_owned(), "secret-value".to_owned());
    let error = Kafka::new(wrong).err().expect("refused").to_string();
    assert!(error.contains("no.such.setting") && !error.contains("secret-value"), "{error}");
}

#[tokio::test]
async fn a_follower_catches_up_behind_gaps() {
    let Some(brokers) = brokers("a_follower_catches_up") else { return };
    let log = Kafka::new(settings(&brokers)).expect("settings");
    let topic = topic(&log, 5).await;
    // one key: four partitions stay empty
    for result in log.publish((0..100).map(|i| outgoing(&topic, "one", &i.to_string())).collect()).await {
        result.expect("published");
    }
    // what a transaction leaves behind when it is given up: offsets without a record, at the very end
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &brokers).set("transactional.id", topic.as_ref());
    let other: BaseProducer = config.create().expect("a producer");
    let patience = Duration::from_secs(10);
    other.init_transactions(patience).expect("transactions");
    other.begin_transaction().expect("begun");
    other.send(BaseRecord::to(&topic).key("key-7").payload("never seen")).map_err(|(e, _)| e).expect("sent");
    other.flush(patience).expect("written");
    other.abort_transaction(patience).expect("given up");

    let mut follower = log.follow(&topic).await.expect("a follower");
    let mut seen = Vec::new();
    within("caught up", async {
        loop {
            match follower.next().await.expect("an event") {
                FollowEvent::Records(records) => seen.extend(records),
                FollowEvent::CaughtUp => return,
            }
        }
    })
    .await;
    assert_eq!(seen.len(), 100);
    publish(&log, &topic, 0..10).await;
    within("what came later", async {
        while seen.len() < 110 {
            match follower.next().await.expect("an event") {
                FollowEvent::Records(records) => seen.extend(records),
                FollowEvent::CaughtUp => panic!("said twice"),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn concurrent_creators_agree() {
    let Some(brokers) = brokers("concurrent_creators") else { return };
    let log = Kafka::new(settings(&brokers)).expect("settings");
    let specs = [TopicSpec { cleanup: Cleanup::Compact, ..spec(&unique("creators"), 3) }];
    let (one, two) = tokio::join!(log.ensure_topics(&specs), log.ensure_topics(&specs));
    let (one, two) = (one.expect("a report"), two.expect("a report"));
    assert!(one[0].created ^ two[0].created, "one of them has created it: {one:?} {two:?}");
    let copies = [TopicSpec { replication: 5, ..spec(&unique("copies"), 1) }];
    let error = log.ensure_topics(&copies).await.expect_err("one broker has no five copies");
    assert!(matches!(&error, LogError::Topic { detail, .. } if detail.contains("brokers")), "{error}");
}

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

#[tokio::test]
async fn throughput() {
    const COUNT: usize = 100_000;
    let Some(brokers) = brokers("throughput") else { return };
    let log = Arc::new(Kafka::new(settings(&brokers)).expect("settings"));
    let topic = topic(log.as_ref(), 6).await;
    let value = "v".repeat(512);
    let started = Instant::now();
    // eight publishers, each with one batch of 500 at a time
    let publishers = (0..8).map(|_| {
        let (log, topic, value) = (log.clone(), topic.clone(), value.clone());
        tokio::spawn(async move {
            for batch in 0..COUNT / 8 / 500 {
                let records = (0..500).map(|i| outgoing(&topic, &format!("key-{}", batch * 500 + i), &value)).collect();
                assert!(log.publish(records).await.iter().all(Result::is_ok));
            }
        })
    });
    for publisher in publishers.collect::<Vec<_>>() {
        publisher.await.expect("published");
    }
    let published = started.elapsed();
    let mut member = Member::join(log.as_ref(), &unique("group"), &topic).await;
    let started = Instant::now();
    member.until("all records", |m| m.records.len() == COUNT).await;
    let per_second = |elapsed: Duration| (COUNT as f64 / elapsed.as_secs_f64()).round();
    println!(
        "throughput, 512-byte values, this build: {} records/s published, {} records/s consumed (joining included)",
        per_second(published),
        per_second(started.elapsed())
    );
    member.assert_each_once();
}
