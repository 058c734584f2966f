//! Streams: in order, one bad item spoils no other, and nobody is read faster than he reads.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use domain::Notification;
use futures::{StreamExt as _, stream};
use grpc::{
    SendStreamRequest,
    v1::{
        SendStreamResponse, notification_service_client::NotificationServiceClient,
        send_stream_response::Result as Outcome,
    },
};
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tonic::{Code, Request, Streaming, transport::Endpoint};

use crate::{
    api::{ACME, notification},
    served::{Served, request, violations},
};

fn item(i: usize) -> SendStreamRequest {
    match i % 10 {
        3 => SendStreamRequest { notification: vec![0xff, 0xff].into() },
        7 => request(&json!({"to": [], "metadata": {"pad": "x".repeat(500)}})).into(),
        _ => {
            let mut good = notification();
            good["metadata"] = json!({"i": i.to_string()});
            good["content"]["webhook"] = json!({"pad": "x".repeat(30_000)});
            request(&good).into()
        }
    }
}

/// A stream that is fed by hand.
async fn fed(served: &Served, key: &str) -> (mpsc::Sender<SendStreamRequest>, Streaming<SendStreamResponse>) {
    let (items, read) = mpsc::channel(1);
    let items_of = stream::unfold(read, |mut read| async move { read.recv().await.map(|item| (item, read)) });
    let answers = served.client(key).await.send_stream(items_of).await.unwrap();
    (items, answers.into_inner())
}

async fn next(answers: &mut Streaming<SendStreamResponse>) -> Result<Option<Outcome>, tonic::Status> {
    let answer = timeout(Duration::from_secs(10), answers.message()).await.expect("an answer");
    answer.map(|answer| answer.map(|answer| answer.result.unwrap()))
}

#[tokio::test]
async fn five_hundred_are_answered_in_order_for_a_reader_that_is_slow() {
    const ITEMS: usize = 500;
    let served = Served::start().await;
    // a small window, or the answers would wait on the client's side
    let channel =
        Endpoint::from_shared(served.url()).unwrap().initial_stream_window_size(1024).connect().await.unwrap();
    let produced = Arc::new(AtomicUsize::new(0));
    let count = produced.clone();
    let items = stream::iter(0..ITEMS).map(move |i| {
        count.fetch_add(1, Ordering::Relaxed);
        item(i)
    });
    let mut call = Request::new(items);
    call.metadata_mut().insert("authorization", format!("Bearer {ACME}").parse().unwrap());
    let mut answers = NotificationServiceClient::new(channel).send_stream(call).await.unwrap().into_inner();
    // nothing is read until nothing moves any more
    let mut before = usize::MAX;
    while before != produced.load(Ordering::Relaxed) {
        before = produced.load(Ordering::Relaxed);
        sleep(Duration::from_millis(700)).await;
    }
    assert!((33..300).contains(&before), "some are at work for a reader that does not read, not all: {before}");
    let mut ids = HashMap::new();
    for i in 0..ITEMS {
        match (i % 10, next(&mut answers).await.unwrap().expect("an answer for each")) {
            (3 | 7, Outcome::Error(status)) => assert_eq!(status.code, i32::from(Code::InvalidArgument)),
            (_, Outcome::Id(id)) => drop(ids.insert(id, i)),
            (_, outcome) => panic!("{i}: {outcome:?}"),
        }
    }
    assert_eq!(next(&mut answers).await.unwrap(), None);
    assert_eq!((ids.len(), served.api.published().await), (400, 800));
    for topic in served.api.topics.notifications_of_lane(domain::Lane::Normal) {
        for record in served.api.records(&topic).await {
            let taken: Notification = wire::decode(record.value.as_ref()).unwrap();
            assert_eq!(ids[&taken.id.to_string()].to_string(), taken.metadata["i"], "the answer is this item's");
        }
    }
}

#[tokio::test]
async fn a_stream_ends_with_its_key() {
    const KEY: &str = "a-key-to-be-revoked-0123";
    let served = Served::start().await;
    let body = json!({"key": KEY, "scopes": ["notifications:write"]});
    served.api.put("/v1/config/keys/old", ACME, &body).await.ok(200);
    let (items, mut answers) = fed(&served, KEY).await;
    items.send(item(0)).await.unwrap();
    assert!(matches!(next(&mut answers).await, Ok(Some(Outcome::Id(_)))));
    let mut kept = served.api.get("/v1/config/keys/old", ACME).await.ok(200);
    kept["revoked"] = json!(true);
    served.api.put("/v1/config/keys/old", ACME, &kept).await.ok(200);
    items.send(item(1)).await.unwrap();
    violations(&next(&mut answers).await.unwrap_err(), Code::Unauthenticated);
    assert_eq!(served.api.published().await, 2);
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_the_stream_behind_the_answers() {
    let served = Served::start().await;
    let (items, mut answers) = fed(&served, ACME).await;
    items.send(item(0)).await.unwrap();
    items.send(SendStreamRequest { notification: vec![0; 1024 * 1024].into() }).await.unwrap();
    assert!(matches!(next(&mut answers).await, Ok(Some(Outcome::Id(_)))));
    violations(&next(&mut answers).await.unwrap_err(), Code::ResourceExhausted);
}

#[tokio::test]
async fn a_shutdown_answers_what_was_taken_and_ends_the_stream() {
    let served = Served::start().await;
    let (items, mut answers) = fed(&served, ACME).await;
    items.send(item(0)).await.unwrap();
    assert!(matches!(next(&mut answers).await, Ok(Some(Outcome::Id(_)))));
    served.shutdown.cancel();
    let status = next(&mut answers).await.unwrap_err();
    violations(&status, Code::Unavailable);
    assert!(status.message().contains("not taken"));
    served.drained().await;
}

#[tokio::test]
async fn a_client_that_leaves_gives_its_place_back() {
    let served = Served::start().await;
    let places = crate::api::options().in_flight / 2;
    let mut open = Vec::new();
    for _ in 0..places {
        open.push(fed(&served, ACME).await);
    }
    let refused = served.client(ACME).await.send_stream(stream::pending()).await.unwrap_err();
    violations(&refused, Code::Unavailable);
    drop(open);
    let again = async {
        while served.client(ACME).await.send_stream(stream::pending()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), again).await.expect("a place");
}
