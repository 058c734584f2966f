//! What a publish promises: places, order, bytes, and a result for each record.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bus::{Headers, Log, LogError, Outgoing, Partition, Record, TopicSpec};

use crate::member::{Member, outgoing, publish, spec, topic, unique, values, within};

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
