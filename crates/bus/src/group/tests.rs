//! Assignment without a log.

use std::collections::BTreeSet;

use super::*;

fn join(groups: &Arc<Groups>, topics: &[(&str, i32)]) -> (Member, Arc<Notify>) {
    let wake = Arc::new(Notify::new());
    let topics = topics.iter().map(|(name, count)| (Arc::from(*name), *count)).collect();
    (groups.join("g", topics, Arc::clone(&wake)), wake)
}

fn assigned(member: &Member) -> Vec<Partition> {
    match member.poll() {
        Some(Change::Assigned(partitions)) => partitions,
        other => panic!("expected an assignment, got {other:?}"),
    }
}

fn revoked(member: &Member) -> Revoked {
    match member.poll() {
        Some(Change::Revoked(revoked)) => revoked,
        other => panic!("expected a revocation, got {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_must_move_moves_and_only_after_its_release() {
    let groups = Groups::new(Duration::from_secs(10));
    let (first, _) = join(&groups, &[("t", 4), ("u", 1)]);
    assert_eq!(assigned(&first).len(), 5);
    let (second, wake) = join(&groups, &[("t", 4), ("u", 1)]);
    let revoked = revoked(&first);
    assert_eq!((revoked.partitions.len(), revoked.lost), (2, false));
    let moved = revoked.partitions.clone();
    assert!(second.poll().is_none(), "the first has not let go");
    assert!(first.fence().owns(&moved[0]) && !second.fence().owns(&moved[0]));

    revoked.release();
    wake.notified().await;
    assert_eq!(assigned(&second), moved);
    assert!(!first.fence().owns(&moved[0]) && second.fence().owns(&moved[0]));
    assert!(first.poll().is_none());

    drop(first);
    wake.notified().await;
    assert_eq!(assigned(&second).len(), 3, "a member that leaves is not waited for");
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_does_not_answer_loses_its_partitions() {
    let groups = Groups::new(Duration::from_secs(10));
    let (deaf, _) = join(&groups, &[("t", 2)]);
    let told = assigned(&deaf);
    let start = tokio::time::Instant::now();
    let (second, wake) = join(&groups, &[("t", 2)]);
    wake.notified().await;
    assert_eq!(start.elapsed().as_secs(), 10);
    let moved = assigned(&second);
    let late = revoked(&deaf);
    assert!(late.lost && late.partitions == moved && !deaf.fence().owns(&moved[0]));
    assert!(told.contains(&moved[0]));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_was_told_moves_at_once_and_nothing_is_owned_twice() {
    let groups = Groups::new(Duration::from_secs(10));
    let members: Vec<_> = (0..3).map(|_| join(&groups, &[("t", 8), ("u", 2)])).collect();
    let mut seen = BTreeSet::new();
    for (member, _) in &members {
        let mine = assigned(member);
        let of_t = mine.iter().filter(|p| p.topic.as_ref() == "t").count();
        assert!((2..=3).contains(&of_t), "{mine:?}");
        assert!(mine.into_iter().all(|p| seen.insert(p)), "owned twice");
    }
    assert_eq!(seen.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_lost_partition_is_the_next_one_s_at_once() {
    let groups = Groups::new(Duration::from_secs(10));
    let (only, _) = join(&groups, &[("t", 1)]);
    let partition = assigned(&only).remove(0);
    groups.hand_over(&"g".into(), &partition, only.id(), true);
    assert!(revoked(&only).lost);
    assert_eq!(assigned(&only), [partition]);
}
