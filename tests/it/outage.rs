//! A store that goes away and comes back: not ready, nothing lost, nothing sent that should not be, and on by itself.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use bus::{Headers, Outgoing};
use domain::{ChannelType, Lane, State};
use tokio::net::{TcpListener, TcpStream};
use wire::Record as _;

use crate::{
    inside::{Inside, notification},
    world::{Engines, engine},
};

/// A wire to an engine that can be cut and joined again.
struct Wire {
    address: SocketAddr,
    cut: Arc<AtomicBool>,
    changed: Arc<tokio::sync::Notify>,
}

impl Wire {
    async fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let wire = Self { address: listener.local_addr().unwrap(), cut: Arc::default(), changed: Arc::default() };
        let (cut, changed) = (wire.cut.clone(), wire.changed.clone());
        tokio::spawn(async move {
            loop {
                let Ok((mut client, _)) = listener.accept().await else { return };
                if cut.load(SeqCst) {
                    continue;
                }
                let (target, changed) = (target.clone(), changed.clone());
                tokio::spawn(async move {
                    let gone = changed.notified();
                    let Ok(mut server) = TcpStream::connect(&target).await else { return };
                    tokio::select! {
                        () = gone => {}
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    }
                });
            }
        });
        wire
    }

    fn cut(&self, cut: bool) {
        self.cut.store(cut, SeqCst);
        self.changed.notify_waiters();
    }
}

fn host(url: &str) -> String {
    url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/').to_owned()
}

async fn hand_over(inside: &Inside, count: usize) -> Vec<domain::NotificationId> {
    let all: Vec<_> = (0..count).map(|i| notification(&format!("u{}", i % 20))).collect();
    let topic = inside.kit.topics.notifications(ChannelType::Chat, Lane::Normal);
    let record = |n: &domain::Notification| Outgoing {
        topic: topic.clone(),
        key: Some(bus::topic::recipient_key(&n.tenant, &n.recipient)),
        headers: Headers::default(),
        value: Some(n.encode()),
    };
    let results = inside.kit.log.publish(all.iter().map(record).collect()).await;
    assert!(results.iter().all(Result::is_ok));
    all.iter().map(|n| n.id).collect()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} does not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_and_elasticsearch_go_away_and_come_back() {
    let redis = Wire::to(host(&engine("REDIS"))).await;
    let elastic = Wire::to(host(&engine("ELASTICSEARCH"))).await;
    let own = [
        ("redis.url", format!("redis://{}", redis.address)),
        ("elasticsearch.url", format!("http://{}", elastic.address)),
        ("store.timeout", "1s".to_owned()),
    ];
    let inside = Inside::start_with(Engines::Cluster, &own).await;
    for u in 0..20 {
        inside.user(&format!("u{u}"), "ok/x").await;
    }
    inside.run_all();
    let mut ids = hand_over(&inside, 200).await;
    redis.cut(true);
    elastic.cut(true);
    ids.extend(hand_over(&inside, 200).await);
    until("a ledger that is seen to be down", || !inside.kit.health.is_ready()).await;
    let while_down = inside.sandbox.summary().count;
    ids.extend(hand_over(&inside, 200).await);
    redis.cut(false);
    elastic.cut(false);
    for id in &ids {
        let deliveries = inside.ended(*id).await;
        assert_eq!(deliveries.iter().map(|d| d.state).collect::<Vec<_>>(), [State::Sent], "{id}");
    }
    until("readiness", || inside.kit.health.is_ready()).await;
    assert!(while_down < 600, "the outage came while there was work");
    let received = inside.sandbox.received("/hook/ok/x").unwrap();
    let distinct: std::collections::BTreeSet<_> = received.iter().filter_map(|r| r.id.clone()).collect();
    assert_eq!(distinct.len(), ids.len());
    assert_eq!(received.len(), ids.len(), "an outage of the ledger alone sends nothing twice");
    inside.stop().await;
}
