//! As `carillon standalone` starts it: from settings, on the kit's own log.

use std::time::Duration;

use bus::Event;
use rdkafka::{
    ClientConfig,
    producer::{FutureProducer, FutureRecord},
};
use service_kit::{Kit, Problems, Settings};
use tempfile::TempDir;

use crate::harness::within;

async fn kit(dir: &TempDir, topics: &str) -> Kit {
    let env = [("TOPICS__PREFIX", "ours."), ("KAFKA_LISTENER__TOPICS", topics)];
    let env = env.map(|(name, value)| (format!("CARILLON__{name}"), value.to_owned()));
    let settings = Settings::load(&[kafka_listener::SETTINGS], None, env).unwrap();
    Kit::embedded(settings, dir.path()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_writes_reaches_the_services_of_the_process() {
    let dir = TempDir::new().unwrap();
    let kit = kit(&dir, "").await;
    let listen = kafka_listener::run(&kit, kafka_listener::address("0").unwrap()).await.unwrap();
    assert!(listen.ip().is_loopback());
    let mut subscription = kit.log.subscribe("ours.ingress", &[kit.topics.events()], Duration::ZERO).await.unwrap();

    let mut config = ClientConfig::new();
    let producer: FutureProducer = config.set("bootstrap.servers", listen.to_string()).create().unwrap();
    let record = FutureRecord::to("ours.events").key("k").payload("hello");
    producer.send(record, Duration::from_secs(20)).await.expect("delivered");
    let arrived = async {
        loop {
            if let Event::Records(records) = subscription.next().await.unwrap() {
                return records;
            }
        }
    };
    let records = within("the record", arrived).await;
    assert_eq!(records.iter().map(|r| r.value.as_deref()).collect::<Vec<_>>(), [Some(&b"hello"[..])]);

    drop(subscription);
    kit.shutdown.cancel();
    assert!(kit.finish().await, "drained");
    assert!(tokio::net::TcpStream::connect(listen).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn a_topic_that_is_not_there_cannot_be_opened() {
    let dir = TempDir::new().unwrap();
    let kit = kit(&dir, "ours.dead.router,ours.dead.letter").await;
    let refused = kafka_listener::run(&kit, kafka_listener::address("0").unwrap()).await.expect_err("no such topic");
    let problems = refused.downcast_ref::<Problems>().expect("a problem of the settings").to_string();
    assert!(problems.contains("there is no topic ours.dead.letter"), "{problems}");
}
