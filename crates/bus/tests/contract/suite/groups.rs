//! What a group promises its members: where they begin, who has which partition, and what they may commit.

use std::collections::{BTreeMap, BTreeSet};

use bus::{Log, LogError, Partition};

use crate::member::{Member, publish, topic, unique, values, within};

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
