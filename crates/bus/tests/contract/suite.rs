//! What every log does. Names are unique, since adapters may share a broker with other tests.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bus::{Follow, FollowEvent, Headers, Log, LogError, Outgoing, Partition, Record, TopicSpec};
use tokio::time::timeout;

use crate::member::{Member, outgoing, publish, spec, topic, unique, values, within};

/// A log to test, and what has to live as long.
pub struct Fixture {
    pub log: Arc<dyn Log>,
    pub _keep: Box<dyn Any>,
}

/// One test per clause, for an adapter: `contract!(tokio::test, fixture)` with
/// `async fn fixture() -> Fixture`.
macro_rules! contract {
    ($test:meta, $fixture:path) => {
        contract!($test, $fixture:
            positions_rise_per_partition, a_key_keeps_its_partition_and_order, every_byte_survives,
            records_without_a_key_are_spread, a_thousand_records_in_one_call, a_group_begins_at_the_oldest_record,
            a_group_goes_on_where_it_committed, groups_do_not_disturb_each_other, members_share_the_partitions,
            a_revoked_partition_waits_for_its_release, a_member_that_goes_is_replaced, a_paused_partition_is_silent,
            only_the_owner_commits, a_follower_catches_up_once_and_goes_on, topics_are_created_once,
            what_cannot_be_written_is_said_per_record, impatient_callers_lose_nothing, appends_wake_whoever_waits);
    };
    ($test:meta, $fixture:path: $($name:ident),*) => {
        $(
            #[$test]
            async fn $name() {
                let fixture = $fixture().await;
                $crate::suite::$name(fixture.log.as_ref()).await;
            }
        )*
    };
}

pub async fn positions_rise_per_partition(log: &dyn Log) {
    let topic = topic(log, 3).await;
    let mut last: BTreeMap<Partition, i64> = BTreeMap::new();
    for call in 0..5 {
        for at in publish(log, &topic, call * 20..(call + 1) * 20).await {
            assert_eq!(at.partition.topic, topic);
            assert!((0..3).contains(&at.partition.index));
            assert!(last.insert(at.partition, at.offset).is_none_or(|last| last < at.offset));
        }
    }
    assert_eq!(last.len(), 3, "every partition gets some of a hundred keys");
}

pub async fn a_key_keeps_its_partition_and_order(log: &dyn Log) {
    let topic = topic(log, 4).await;
    // calls in flight together, each with several records of each key
    let calls = (0..5).map(|call| {
        let keys = (0..20).map(|i| outgoing(&topic, &format!("key-{}", i % 4), &format!("{call}.{:02}", i / 4)));
        log.publish(keys.collect())
    });
    for results in within("publishes", futures::future::join_all(calls)).await {
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }
    let mut member = Member::join(log, &unique("group"), &topic).await;
    member.until_seen(100).await;
    for key in (0..4).map(|k| format!("key-{k}")) {
        let of_key: Vec<Record> =
            member.records.iter().filter(|r| r.key.as_deref() == Some(key.as_bytes())).cloned().collect();
        assert_eq!(of_key.iter().map(|r| r.at.partition.index).collect::<BTreeSet<_>>().len(), 1, "one partition");
        for call in 0..5 {
            let of_call: Vec<String> =
                values(&of_key).into_iter().filter(|v| v.starts_with(&format!("{call}."))).collect();
            assert_eq!(of_call, (0..5).map(|i| format!("{call}.{i:02}")).collect::<Vec<_>>(), "{key}");
        }
    }
}

pub async fn every_byte_survives(log: &dyn Log) {
    let topic = topic(log, 1).await;
    let headers = Headers::default().with("a", "1").with("b", &b"\x00\xff"[..]).with("a", "").with("é", "é");
    let sent = [
        (Some(&b"\x00\xff\xfe key"[..]), headers, Some(&b"\xff\x00"[..])),
        (Some(&b"tombstone"[..]), Headers::default(), None),
        (Some(&b""[..]), Headers::default(), Some(&b""[..])),
        (None, Headers::default(), Some(&b"no key"[..])),
    ];
    let sent = sent.map(|(key, headers, value)| Outgoing {
        topic: topic.clone(),
        key: key.map(Into::into),
        headers,
        value: value.map(Into::into),
    });
    let results = within("a publish", log.publish(sent.to_vec())).await;
    let mut member = Member::join(log, &unique("group"), &topic).await;
    member.until_seen(sent.len()).await;
    for ((sent, got), at) in sent.into_iter().zip(&member.records).zip(results) {
        assert_eq!((&sent.key, &sent.headers, &sent.value), (&got.key, &got.headers, &got.value));
        assert_eq!(at.expect("published"), got.at);
        assert!(got.timestamp_ms > 1_600_000_000_000, "milliseconds since the epoch");
    }
}

pub async fn records_without_a_key_are_spread(log: &dyn Log) {
    let topic = topic(log, 2).await;
    let mut seen = BTreeSet::new();
    // a broker's client may stay with one partition for a batch
    for _ in 0..100 {
        let record = Outgoing { key: None, ..outgoing(&topic, "", "x") };
        let results = within("a publish", log.publish(vec![record])).await;
        seen.extend(results.into_iter().map(|r| r.expect("published").partition.index));
    }
    assert_eq!(seen, BTreeSet::from([0, 1]));
}

pub async fn a_thousand_records_in_one_call(log: &dyn Log) {
    let topic = topic(log, 2).await;
    let positions = publish(log, &topic, 0..1000).await;
    let mut member = Member::join(log, &unique("group"), &topic).await;
    member.until_seen(1000).await;
    let read: BTreeMap<_, _> = member.records.iter().zip(values(&member.records)).map(|(r, v)| (&r.at, v)).collect();
    for (i, at) in positions.iter().enumerate() {
        assert_eq!(read.get(at), Some(&i.to_string()), "a result per record, in order");
    }
    member.assert_each_once();
    let mut last = BTreeMap::new();
    for at in positions {
        assert!(last.insert(at.partition, at.offset).is_none_or(|last| last < at.offset), "in the call's order");
    }
}

pub async fn a_group_begins_at_the_oldest_record(log: &dyn Log) {
    let topic = topic(log, 2).await;
    publish(log, &topic, 0..50).await;
    let mut member = Member::join(log, &unique("group"), &topic).await;
    member.until_seen(50).await;
    assert!(member.owned.len() == 2 && member.records.iter().any(|r| r.at.offset == 0));
    member.assert_each_once();
    let empty = log.publish(Vec::new()).await;
    assert!(empty.is_empty());
    member.commit(&BTreeMap::new()).await.expect("nothing to commit is no fault");
}

pub async fn a_group_goes_on_where_it_committed(log: &dyn Log) {
    let (topic, group) = (topic(log, 2).await, unique("group"));
    publish(log, &topic, 0..60).await;
    let mut first = Member::join(log, &group, &topic).await;
    first.until_seen(60).await;
    let half: BTreeMap<Partition, i64> =
        first.owned.iter().map(|p| (p.clone(), i64::try_from(first.offsets_of(p).len() / 2).unwrap())).collect();
    let left: usize = half.iter().map(|(p, next)| first.offsets_of(p).iter().filter(|at| *at >= next).count()).sum();
    first.commit(&half).await.expect("committed");
    first.log.close().await;

    let mut second = Member::join(log, &group, &topic).await;
    second.until_seen(left).await;
    for (partition, next) in &half {
        assert_eq!(second.offsets_of(partition).first(), Some(next), "from the commit on, not before it");
    }
    second.assert_each_once();
    second.commit_seen().await;
    drop(second);

    publish(log, &topic, 60..61).await;
    let mut third = Member::join(log, &group, &topic).await;
    third.until_seen(1).await;
    assert_eq!(values(&third.records), ["60"]);
}

pub async fn groups_do_not_disturb_each_other(log: &dyn Log) {
    let topic = topic(log, 1).await;
    publish(log, &topic, 0..10).await;
    for _ in 0..2 {
        let mut member = Member::join(log, &unique("group"), &topic).await;
        member.until_seen(10).await;
        member.commit_seen().await;
    }
}

/// Lets both go on until each owns so many, and checks that nothing is ever owned twice.
async fn share(one: &mut Member, two: &mut Member, each: usize) {
    within("a balance", async {
        while one.owned.len() != each || two.owned.len() != each {
            // what is revoked here is released here, before the other can be assigned it
            tokio::select! { biased; r = one.step() => drop(r), r = two.step() => drop(r) }
            assert!(one.owned.is_disjoint(&two.owned), "owned twice");
        }
    })
    .await;
}

pub async fn members_share_the_partitions(log: &dyn Log) {
    let (topic, group) = (topic(log, 4).await, unique("group"));
    let mut one = Member::join(log, &group, &topic).await;
    one.until("all partitions", |m| m.owned.len() == 4).await;
    let mut two = Member::join(log, &group, &topic).await;
    share(&mut one, &mut two, 2).await;

    publish(log, &topic, 0..200).await;
    within("all records", async {
        while one.records.len() + two.records.len() < 200 {
            tokio::select! { biased; r = one.step() => assert!(r.is_none()), r = two.step() => assert!(r.is_none()) }
        }
    })
    .await;
    one.assert_each_once();
    two.assert_each_once();
    assert!(!one.records.is_empty() && !two.records.is_empty());
}

pub async fn a_revoked_partition_waits_for_its_release(log: &dyn Log) {
    let (topic, group) = (topic(log, 2).await, unique("group"));
    publish(log, &topic, 0..40).await;
    let mut one = Member::join(log, &group, &topic).await;
    one.until_seen(40).await;
    let mut two = Member::join(log, &group, &topic).await;
    let revoked = within("a revocation", async {
        loop {
            tokio::select! { biased; r = one.step() => if let Some(r) = r { break r }, r = two.step() => drop(r) }
        }
    })
    .await;
    assert!(!revoked.lost && !revoked.partitions.is_empty());
    let taken: Vec<Partition> = revoked.partitions.clone();
    two.idle().await;
    assert!(taken.iter().all(|p| !two.owned.contains(p)), "not before it is released");

    let seen = |p: &Partition| i64::try_from(one.offsets_of(p).len()).unwrap();
    let commits: BTreeMap<Partition, i64> = taken.iter().map(|p| (p.clone(), seen(p))).collect();
    one.commit(&commits).await.expect("a revoked partition can be committed until it is released");
    revoked.release();
    share(&mut one, &mut two, 1).await;
    publish(log, &topic, 40..80).await;
    two.until("its records", |m| !m.records.is_empty()).await;
    let next = two.owned.first().expect("one").clone();
    assert_eq!(two.offsets_of(&next).first(), commits.get(&next), "it begins at the commit");
    let late = one.commit(&BTreeMap::from([(next, 1)])).await;
    assert!(matches!(late, Err(LogError::NotAssigned)), "{late:?}");
}

pub async fn a_member_that_goes_is_replaced(log: &dyn Log) {
    let (topic, group) = (topic(log, 2).await, unique("group"));
    let mut one = Member::join(log, &group, &topic).await;
    one.until("all partitions", |m| m.owned.len() == 2).await;
    let mut two = Member::join(log, &group, &topic).await;
    share(&mut one, &mut two, 1).await;
    publish(log, &topic, 0..40).await;
    let read_two = |m: &Member| m.records.iter().filter(|r| m.owned.contains(&r.at.partition)).count() >= 2;
    one.until("its records", read_two).await;
    let partition = one.owned.first().expect("one").clone();
    one.commit(&BTreeMap::from([(partition.clone(), 1)])).await.expect("committed");
    drop(one);

    let all = |m: &Member| m.records.iter().map(|r| &r.at).collect::<BTreeSet<_>>().len() == 39;
    two.until("the other's records as well", all).await;
    assert_eq!(two.offsets_of(&partition)[0], 1, "again from the commit on");
}

pub async fn a_paused_partition_is_silent(log: &dyn Log) {
    let topic = topic(log, 2).await;
    let mut member = Member::join(log, &unique("group"), &topic).await;
    publish(log, &topic, 0..40).await;
    member.until_seen(40).await;
    let paused = member.owned.first().expect("two").clone();
    member.log.pause(&paused);
    let before = member.offsets_of(&paused).len();
    let more = publish(log, &topic, 40..80).await;
    let others = more.iter().filter(|at| at.partition != paused).count();
    member.until_seen(40 + others).await;
    member.idle().await;
    assert_eq!(member.offsets_of(&paused).len(), before, "nothing of what rests");
    member.log.resume(&paused);
    member.until_seen(80).await;
    member.assert_each_once();
}

pub async fn only_the_owner_commits(log: &dyn Log) {
    let (topic, group) = (topic(log, 2).await, unique("group"));
    publish(log, &topic, 0..10).await;
    let mut one = Member::join(log, &group, &topic).await;
    one.until("all partitions", |m| m.owned.len() == 2).await;
    let mut two = Member::join(log, &group, &topic).await;
    share(&mut one, &mut two, 1).await;
    let foreign = BTreeMap::from([(two.owned.first().expect("one").clone(), 3)]);
    let refused = one.commit(&foreign).await;
    assert!(matches!(refused, Err(LogError::NotAssigned)), "{refused:?}");
    two.commit(&foreign).await.expect("its own");
}

async fn caught_up(follower: &mut dyn Follow) -> Vec<Record> {
    let mut seen = Vec::new();
    within("to catch up", async {
        loop {
            match follower.next().await.expect("an event") {
                FollowEvent::Records(records) => seen.extend(records),
                FollowEvent::CaughtUp => return seen,
            }
        }
    })
    .await
}

pub async fn a_follower_catches_up_once_and_goes_on(log: &dyn Log) {
    let topic = topic(log, 2).await;
    let mut early = within("to follow", log.follow(&topic)).await.expect("a follower");
    assert!(caught_up(early.as_mut()).await.is_empty(), "of an empty topic at once");
    let mut sent = publish(log, &topic, 0..700).await;
    let mut late = within("to follow", log.follow(&topic)).await.expect("a follower");
    let mut seen = caught_up(late.as_mut()).await;
    assert!(seen.len() >= 700);
    sent.extend(publish(log, &topic, 700..710).await);
    for (follower, seen) in [(&mut early, &mut Vec::new()), (&mut late, &mut seen)] {
        within("what came later", async {
            while seen.len() < 710 {
                match follower.next().await.expect("an event") {
                    FollowEvent::Records(records) => seen.extend(records),
                    FollowEvent::CaughtUp => panic!("said twice"),
                }
            }
        })
        .await;
        assert_eq!(seen.iter().map(|r| &r.at).collect::<BTreeSet<_>>(), sent.iter().collect(), "each once");
        for partition in 0..2 {
            assert!(seen.iter().filter(|r| r.at.partition.index == partition).is_sorted_by_key(|r| r.at.offset));
        }
    }
}

pub async fn topics_are_created_once(log: &dyn Log) {
    let (one, two) = (unique("one"), unique("two"));
    let specs = [spec(&one, 2), spec(&two, 1)];
    let first = within("topics", log.ensure_topics(&specs)).await.expect("created");
    let seen: Vec<_> = first.iter().map(|r| (r.name.as_str(), r.created, r.partitions, r.wanted)).collect();
    assert_eq!(seen, [(one.as_ref(), true, 2, 2), (two.as_ref(), true, 1, 1)]);
    publish(log, &one, 0..10).await;

    let again = within("topics", log.ensure_topics(&[spec(&one, 6), spec(&two, 1)])).await.expect("unchanged");
    let seen: Vec<_> = again.iter().map(|r| (r.name.as_str(), r.created, r.partitions, r.wanted)).collect();
    assert_eq!(seen, [(one.as_ref(), false, 2, 6), (two.as_ref(), false, 1, 1)]);
    let mut member = Member::join(log, &unique("group"), &one).await;
    member.until_seen(10).await;
    within("a ping", log.ping()).await.expect("it answers");
}

/// Row 14 of the catalogue (reliability.md, section 7): too large, or no such topic, and the others of the call are written.
pub async fn what_cannot_be_written_is_said_per_record(log: &dyn Log) {
    let (known, missing) = (unique("known"), unique("missing"));
    let small = TopicSpec { max_message_bytes: 1000, ..spec(&known, 1) };
    within("topics", log.ensure_topics(&[small])).await.expect("created");
    let batch = [(&known, 10), (&known, 5000), (&missing, 10), (&known, 20)]
        // at random, since what compresses well may be small enough
        .map(|(topic, size)| outgoing(topic, "key", &(0..size).map(|_| fastrand::alphanumeric()).collect::<String>()));
    let results = within("a publish", log.publish(batch.to_vec())).await;
    assert!(results[0].is_ok() && results[3].is_ok(), "{results:?}");
    assert!(matches!(results[1], Err(LogError::TooLarge(_))), "{results:?}");
    let says_remedy = |e: &LogError| matches!(e, LogError::Topic { detail, .. } if detail.contains("carillon topics"));
    assert!(results[2].as_ref().is_err_and(says_remedy), "{results:?}");
    assert!(
        within("to join", log.subscribe("group", std::slice::from_ref(&missing), Duration::ZERO))
            .await
            .err()
            .is_some_and(|e| says_remedy(&e))
    );
    assert!(within("to follow", log.follow(&missing)).await.err().is_some_and(|e| says_remedy(&e)));

    let mut member = Member::join(log, &unique("group"), &known).await;
    member.until_seen(2).await;
    assert_eq!(values(&member.records).iter().map(String::len).collect::<Vec<_>>(), [10, 20]);
}

pub async fn impatient_callers_lose_nothing(log: &dyn Log) {
    let topic = topic(log, 3).await;
    let mut member = Member::join(log, &unique("group"), &topic).await;
    let mut follower = within("to follow", log.follow(&topic)).await.expect("a follower");
    let mut followed = Vec::new();
    within("all records", async {
        let mut sent = 0;
        while member.records.len() < 2000 || followed.len() < 2000 {
            if sent < 2000 && fastrand::u8(..4) == 0 {
                publish(log, &topic, sent..sent + 100).await;
                sent += 100;
            }
            // as short as nothing at all: the call is polled once
            let patience = Duration::from_micros(fastrand::u64(..2) * fastrand::u64(..1500));
            if let Ok(revoked) = timeout(patience, member.step()).await {
                assert!(revoked.is_none());
            }
            if let Ok(FollowEvent::Records(records)) =
                timeout(patience, follower.next()).await.unwrap_or(Ok(FollowEvent::CaughtUp))
            {
                followed.extend(records);
            }
        }
    })
    .await;
    member.assert_each_once();
    assert_eq!((member.records.len(), followed.len()), (2000, 2000));
    assert_eq!(followed.iter().map(|r| &r.at).collect::<BTreeSet<_>>().len(), 2000);
}

pub async fn appends_wake_whoever_waits(log: &dyn Log) {
    let topic = topic(log, 1).await;
    let mut member = Member::join(log, &unique("group"), &topic).await;
    member.until("its partition", |m| m.owned.len() == 1).await;
    for i in 0..20 {
        let (_, ()) = tokio::join!(publish(log, &topic, i..i + 1), member.until("a record", |m| m.records.len() > i));
    }
    member.assert_each_once();
}
