//! What cannot be read does not stop what can, on both engine sets; and what is too late is not sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use bus::{Headers, Outgoing, topic};
use bytes::Bytes;
use domain::{Channel, ChannelType, Lane, State, Timestamp};
use wire::Record as _;

use crate::{
    inside::{Inside, notification},
    world::Engines,
};

#[tokio::test(flavor = "multi_thread")]
async fn poison_does_not_stop_the_rest_on_standalone() {
    poison(Inside::start(Engines::Embedded).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_does_not_stop_the_rest_on_a_cluster() {
    poison(Inside::start(Engines::Cluster).await).await;
}

const POISON: usize = 10_000;

fn outgoing(topic: &std::sync::Arc<str>, key: String, value: Option<Bytes>) -> Outgoing {
    let headers = Headers::default().with("mine", "kept");
    Outgoing { topic: topic.clone(), key: Some(key.into()), headers, value }
}

/// 10,000 records of garbage with 100 good ones among them, and some garbage for the gateway and the indexer.
async fn poison(inside: Inside) {
    inside.user("ana", "ok/ana").await;
    let topics = inside.kit.topics.clone();
    let good: Vec<_> = (0..100).map(|_| notification("ana")).collect();
    let garbage = |i: usize| match i % 3 {
        0 => None,
        1 => Some(Bytes::from(format!("{{\"not\": \"protobuf {i}\"}}"))),
        _ => Some(good[0].encode().slice(..10 + i % 20)),
    };
    let input = topics.notifications(ChannelType::Chat, Lane::Normal);
    let mut batch = Vec::new();
    let mut sent: BTreeMap<String, Option<Bytes>> = BTreeMap::new();
    for i in 0..POISON {
        let (key, value) = (format!("poison-{i}"), garbage(i));
        sent.insert(key.clone(), value.clone());
        batch.push(outgoing(&input, key, value));
        if i % (POISON / 100) == 50 {
            let n = &good[i / (POISON / 100)];
            batch.push(outgoing(&input, format!("good-{i}"), Some(n.encode())));
        }
    }
    for topic in [topics.deliveries(Channel::Webhook, Lane::High), topics.status()] {
        batch.push(outgoing(&topic, "poison".into(), Some("garbage".into())));
    }
    for chunk in batch.chunks(1000) {
        assert!(inside.kit.log.publish(chunk.to_vec()).await.iter().all(Result::is_ok));
    }
    inside.run_all();
    for n in &good {
        let deliveries = inside.ended(n.id).await;
        assert_eq!(deliveries.iter().map(|d| d.state).collect::<Vec<_>>(), [State::Sent]);
    }
    for (stage, count) in [(topic::Stage::Router, POISON), (topic::Stage::Gateway, 1), (topic::Stage::Indexer, 1)] {
        let deadline = Instant::now() + Duration::from_secs(60);
        let letters = loop {
            let letters = inside.records(&topics.dead(stage)).await;
            if letters.len() >= count {
                break letters;
            }
            assert!(Instant::now() < deadline, "{stage:?}: {} of {count} dead letters", letters.len());
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        assert_eq!(letters.len(), count, "each is given up once");
        for letter in &letters {
            let header = |name| letter.headers.get(name).map(|v| String::from_utf8_lossy(v).into_owned());
            assert_eq!(header(topic::DEAD_REASON).as_deref(), Some("undecodable"));
            assert_eq!(header("mine").as_deref(), Some("kept"));
            assert!(header(topic::DEAD_ERROR).is_some() && header(topic::DEAD_OFFSET).is_some());
        }
        if stage == topic::Stage::Router {
            let keys: BTreeSet<_> = letters.iter().map(|l| l.key.clone()).collect();
            assert_eq!(keys.len(), POISON);
            for letter in letters {
                let key = String::from_utf8(letter.key.unwrap().to_vec()).unwrap();
                assert_eq!(letter.value, sent[&key], "the original bytes of {key}");
            }
        }
    }
    assert_eq!(inside.sandbox.received("/hook/ok/ana").unwrap().len(), 100);
    inside.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expires_in_the_queue_is_not_sent_on_standalone() {
    expired(Inside::start(Engines::Embedded).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expires_in_the_queue_is_not_sent_on_a_cluster() {
    expired(Inside::start(Engines::Cluster).await).await;
}

/// Decided in time, expired on the gateway's topic; and opted out on the gateway's topic.
async fn expired(inside: Inside) {
    inside.user("ana", "ok/ana").await;
    inside.user("ben", "ok/ben").await;
    let topics = inside.kit.topics.clone();
    let mut late = notification("ana");
    late.expires_at = Some(late.accepted_at + Duration::from_secs(3));
    let unwanted = notification("ben");
    let input = topics.notifications(ChannelType::Chat, Lane::Normal);
    let batch = [&late, &unwanted].map(|n| outgoing(&input, n.recipient.key(), Some(n.encode())));
    assert!(inside.kit.log.publish(batch.to_vec()).await.iter().all(Result::is_ok));
    router::run(&inside.kit).unwrap();
    indexer::run(&inside.kit).unwrap();
    let deliveries = topics.deliveries(Channel::Webhook, Lane::Normal);
    while inside.records(&deliveries).await.len() < 2 {
        assert!(Timestamp::now() < late.expires_at.unwrap(), "not decided in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // ben changes his mind while it is queued
    let key = store::UserKey::of(&unwanted.tenant, &unwanted.recipient).unwrap();
    let no = domain::Preferences { all: Some(false), ..domain::Preferences::default() };
    let change = store::Change { by: "ben".into(), from: "here".into(), at: Timestamp::now() };
    assert!(inside.kit.stores.users.put_preferences(&key, &no, &change).await.unwrap());
    while Timestamp::now() < late.expires_at.unwrap() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    gateway::run(&inside.kit, Channel::Webhook).unwrap();
    let ended = inside.ended(late.id).await;
    assert_eq!((ended[0].state, ended[0].reason), (State::Expired, Some(domain::Reason::Expired)));
    let ended = inside.ended(unwanted.id).await;
    assert_eq!((ended[0].state, ended[0].reason), (State::Suppressed, Some(domain::Reason::OptedOutAll)));
    assert_eq!(inside.sandbox.summary().count, 0, "neither was sent");
    inside.stop().await;
}
