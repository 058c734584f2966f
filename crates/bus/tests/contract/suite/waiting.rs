//! What those who wait see: followers, callers who give up, members who are woken.

use std::{collections::BTreeSet, time::Duration};

use bus::{Follow, FollowEvent, Log, Record};
use tokio::time::timeout;

use crate::member::{Member, publish, topic, unique, within};

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
