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

#[tokio::test(start_paused = true)]
async fn whoever_joins_after_all_have_left_is_nobody_of_before() {
    let groups = Groups::new(Duration::from_secs(10));
    let moving = || {
        let (first, _) = join(&groups, &[("t", 2)]);
        assert_eq!(assigned(&first).len(), 2);
        let (second, _) = join(&groups, &[("t", 2)]);
        let revoked = revoked(&first);
        (first, second, revoked)
    };
    let (first, second, before) = moving();
    drop((first, second));
    let (_first, second, _held) = moving();
    // that of a member that is long gone
    before.release();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(second.poll().is_none(), "the first has not let go");
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_it_ends_in_balance_and_nothing_is_told_to_two() {
    for seed in 0..200 {
        let mut chance = fastrand::Rng::with_seed(seed);
        let groups = Groups::new(Duration::from_secs(10));
        let mut members: Vec<(Member, BTreeSet<Partition>, Vec<Revoked>)> = Vec::new();
        for step in 0..60 {
            let calm = step >= 40;
            match chance.u8(..8) {
                0 if !calm && members.len() < 5 => {
                    members.push((join(&groups, &[("t", 7), ("u", 3)]).0, BTreeSet::new(), Vec::new()));
                }
                1 if !calm && members.len() > 1 => drop(members.swap_remove(chance.usize(..members.len()))),
                2 if !calm => {
                    let (partitions, ids) = groups.roster("g");
                    if let (Some(partition), Some(to)) = (chance.choice(&partitions), chance.choice(&ids)) {
                        groups.hand_over(&"g".into(), partition, *to, chance.bool());
                    }
                }
                3 => tokio::time::sleep(Duration::from_secs(chance.u64(..12))).await,
                _ => {}
            }
            for (member, owned, held) in &mut members {
                while let Some(change) = (calm || chance.bool()).then(|| member.poll()).flatten() {
                    match change {
                        Change::Assigned(partitions) => owned.extend(partitions),
                        Change::Revoked(revoked) => {
                            owned.retain(|p| !revoked.partitions.contains(p));
                            held.push(revoked);
                        }
                    }
                }
                if calm || chance.bool() {
                    held.clear();
                }
            }
            tokio::task::yield_now().await;
        }
        if members.is_empty() {
            continue;
        }
        // a join and a leave undo what was handed over against the balance
        drop(join(&groups, &[("t", 7), ("u", 3)]));
        for _ in 0..20 {
            for (member, owned, _) in &mut members {
                match member.poll() {
                    Some(Change::Assigned(partitions)) => owned.extend(partitions),
                    Some(Change::Revoked(revoked)) => owned.retain(|p| !revoked.partitions.contains(p)),
                    None => {}
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let told: Vec<&Partition> = members.iter().flat_map(|(_, owned, _)| owned).collect();
        assert_eq!((told.len(), told.iter().collect::<BTreeSet<_>>().len()), (10, 10), "seed {seed}");
        for (member, owned, _) in &members {
            assert!(owned.iter().all(|p| member.fence().owns(p)), "seed {seed}");
            for (topic, count) in [("t", 7), ("u", 3)] {
                let share = owned.iter().filter(|p| p.topic.as_ref() == topic).count();
                assert!((count / members.len()..=count.div_ceil(members.len())).contains(&share), "seed {seed}");
            }
        }
    }
}
