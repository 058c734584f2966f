//! What librdkafka writes and reads.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext, Message, Offset, TopicPartitionList,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, Consumer, StreamConsumer},
    message::{Header, Headers as _, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};

use crate::harness::{DEAD, EVENTS, Listener, PARTITIONS, STATUS, events, opened, within};

/// What the client itself has to complain about.
#[derive(Clone, Default)]
struct Complaints(Arc<Mutex<Vec<String>>>);

impl ClientContext for Complaints {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.lock().unwrap().push(format!("{facility}: {message}"));
    }
}

pub fn config(listener: &Listener) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", listener.address.to_string());
    config
}

/// Reads the partitions from these offsets on until each has been read to its end.
async fn read(listener: &Listener, topic: &str, from: &[(i32, Offset)]) -> Vec<rdkafka::message::OwnedMessage> {
    let consumer: StreamConsumer = config(listener)
        // it joins none; the library wants a name, and would commit on the side
        .set("group.id", "none")
        .set("auto.commit.interval.ms", "10")
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let mut wanted = TopicPartitionList::new();
    from.iter().for_each(|(index, offset)| wanted.add_partition_offset(topic, *index, *offset).unwrap());
    consumer.assign(&wanted).unwrap();
    let (mut messages, mut ended) = (Vec::new(), 0);
    while ended < from.len() {
        match within("a message", consumer.recv()).await {
            Ok(message) => messages.push(message.detach()),
            Err(rdkafka::error::KafkaError::PartitionEOF(_)) => ended += 1,
            Err(e) => panic!("{e}"),
        }
    }
    messages
}

fn everything(partitions: i32) -> Vec<(i32, Offset)> {
    (0..partitions).map(|index| (index, Offset::Beginning)).collect()
}

async fn write(listener: &Listener, compression: &str, idempotent: bool, acks: &str) {
    let complaints = Complaints::default();
    let mut config = config(listener);
    config
        .set("compression.type", compression)
        .set("enable.idempotence", idempotent.to_string())
        .set("acks", acks)
        .set("linger.ms", "20");
    let producer: FutureProducer<Complaints> =
        FutureProducer::from_config_and_context(&config, complaints.clone()).unwrap();
    let said = format!("{compression} {idempotent} {acks} ").repeat(50);
    let sends = (0..60).map(|i| {
        let (key, value) = (format!("key-{i}"), format!("{said}{i}"));
        let headers = ["one", "two"]
            .iter()
            .fold(OwnedHeaders::new(), |headers, value| headers.insert(Header { key: "ce_id", value: Some(*value) }));
        let producer = producer.clone();
        async move {
            let record = FutureRecord::to(EVENTS).key(&key).headers(headers);
            let record = if i % 10 == 9 { record } else { record.payload(&value) };
            producer.send(record, Duration::from_secs(20)).await.expect("delivered")
        }
    });
    let delivered = within("deliveries", futures::future::join_all(sends)).await;
    assert!(delivered.iter().all(|d| (0..PARTITIONS).contains(&d.partition)));
    let complaints = complaints.0.lock().unwrap();
    assert!(complaints.is_empty(), "{compression}: {complaints:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_compression_with_and_without_idempotence_is_written_and_read() {
    let listener = Listener::start().await;
    let mut rounds = 0;
    for compression in ["none", "gzip", "snappy", "lz4", "zstd"] {
        for (idempotent, acks) in [(false, "all"), (true, "all"), (false, "1"), (false, "0")] {
            write(&listener, compression, idempotent, acks).await;
            rounds += 1;
        }
    }
    // without an answer nobody has waited for the last batches
    let all = async {
        while listener.written() < 60 * rounds {
            tokio::task::yield_now().await
        }
    };
    within("every record", all).await;

    let messages = read(&listener, EVENTS, &everything(PARTITIONS)).await;
    assert_eq!(i64::try_from(messages.len()).unwrap(), 60 * rounds, "each once");
    let mut per_value: BTreeMap<Option<Vec<u8>>, usize> = BTreeMap::new();
    for message in &messages {
        let headers = message.headers().expect("headers");
        let values: Vec<_> = headers.iter().map(|h| (h.key, h.value)).collect();
        assert_eq!(values, [("ce_id", Some(&b"one"[..])), ("ce_id", Some(b"two"))], "both of the same name");
        let i: usize = String::from_utf8_lossy(message.key().unwrap())[4..].parse().unwrap();
        assert_eq!(message.payload().is_none(), i % 10 == 9);
        *per_value.entry(message.payload().map(<[u8]>::to_vec)).or_default() += 1;
    }
    assert_eq!(per_value.len(), 20 * 54 + 1);
    assert!(per_value.iter().all(|(value, times)| value.is_none() || *times == 1));

    let middle = listener.log.latest(&events(0)).unwrap() - 5;
    // nothing was ever committed, so it begins at the beginning
    let stored = read(&listener, EVENTS, &[(0, Offset::Stored)]).await;
    assert_eq!(stored.first().map(Message::offset), Some(0));
    let rest = read(&listener, EVENTS, &[(0, Offset::Offset(middle))]).await;
    assert_eq!(rest.iter().map(Message::offset).collect::<Vec<_>>(), (middle..middle + 5).collect::<Vec<_>>());
    listener.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_opened_is_read_with_its_gaps_and_tombstones() {
    let listener = Listener::with(opened(DEAD)).await;
    for i in 0..20 {
        listener.publish(DEAD, &format!("key-{}", i % 4), Some(&i.to_string())).await;
        listener.publish(STATUS, &format!("key-{i}"), Some(&"x".repeat(100_000))).await;
    }
    listener.publish(DEAD, "key-1", None).await;
    assert!(listener.log.clean().await.unwrap() > 0);
    let dead = read(&listener, DEAD, &everything(1)).await;
    let shown: Vec<_> = dead.iter().map(|m| (m.offset(), m.payload())).collect();
    assert_eq!(shown, [(16, Some(&b"16"[..])), (18, Some(b"18")), (19, Some(b"19")), (20, None)]);
    let status = read(&listener, STATUS, &everything(2)).await;
    assert_eq!(status.len(), 20, "more than one answer holds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_watermarks_and_times_are_right() {
    let listener = Listener::with(opened(DEAD)).await;
    let mut times = Vec::new();
    for i in 0..5 {
        listener.publish(DEAD, &i.to_string(), Some("x")).await;
        let dead = bus::Partition { topic: DEAD.into(), index: 0 };
        times.push(listener.log.fetch(&dead, i, 1).await.unwrap()[0].timestamp_ms);
    }
    let consumer: BaseConsumer = config(&listener).create().unwrap();
    let address = listener.address;
    let asked = tokio::task::spawn_blocking(move || {
        let patience = Duration::from_secs(20);
        let metadata = consumer.fetch_metadata(None, patience).unwrap();
        let brokers: Vec<_> = metadata.brokers().iter().map(|b| (b.host().to_owned(), b.port())).collect();
        assert_eq!(brokers, [(address.ip().to_string(), i32::from(address.port()))]);
        let topics: Vec<_> = metadata.topics().iter().map(|t| (t.name(), t.partitions().len())).collect();
        assert_eq!(topics, [(DEAD, 1), (EVENTS, 3), (STATUS, 2)], "the configuration is not among them");
        let at = |time| {
            let mut wanted = TopicPartitionList::new();
            wanted.add_partition_offset(DEAD, 0, Offset::Offset(time)).unwrap();
            consumer.offsets_for_times(wanted, patience).unwrap().elements()[0].offset()
        };
        let first = times.iter().position(|time| *time == times[3]).unwrap();
        assert_eq!(at(times[3]), Offset::Offset(i64::try_from(first).unwrap()));
        assert_eq!(at(times[4] + 1_000), Offset::End);
        assert_eq!(consumer.fetch_watermarks(EVENTS, 0, patience).unwrap(), (0, 0));
        consumer.fetch_watermarks(DEAD, 0, patience).unwrap()
    });
    assert_eq!(asked.await.unwrap(), (0, 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_advertised_address_is_what_clients_are_told() {
    let told = Some(("kafka.example.com".to_owned(), 9999));
    let listener = Listener::with(kafka_listener::Options { advertised: told, ..crate::harness::options() }).await;
    let consumer: BaseConsumer = config(&listener).create().unwrap();
    let asked = tokio::task::spawn_blocking(move || {
        let metadata = consumer.fetch_metadata(Some(EVENTS), Duration::from_secs(20)).unwrap();
        (metadata.brokers()[0].host().to_owned(), metadata.brokers()[0].port())
    });
    assert_eq!(asked.await.unwrap(), ("kafka.example.com".to_owned(), 9999));
}
