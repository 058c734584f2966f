//! Rebalances between members of a group on a real broker: nothing is lost or read twice, whoever comes and goes.

use super::*;

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
    let brokers = brokers();
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
    let brokers = brokers();
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
    let brokers = brokers();
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
    let brokers = brokers();
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
    let brokers = brokers();
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
