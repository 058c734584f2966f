//! Clients that are none: each harms its own connection only.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_listener::Options;
use kafka_protocol::{error::ResponseError, messages::MetadataRequest, records::Compression};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    harness::{EVENTS, Listener, options, within},
    raw::{Raw, assert_well, batch, plain, produce},
};

async fn sent(listener: &Listener, bytes: &[u8]) -> Raw {
    let mut raw = Raw::connect(listener).await;
    // it may be closed before all of it is taken
    let _torn = raw.0.write_all(bytes).await;
    raw
}

fn frame(body: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(body);
    frame
}

/// A request of this key and version, from nobody, that goes on with `rest`.
fn request(key: i16, version: i16, rest: &[u8]) -> Vec<u8> {
    let mut body = BytesMut::new();
    body.put_i16(key);
    body.put_i16(version);
    body.put_i32(7);
    body.put_i16(-1);
    body.put_slice(rest);
    frame(&body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_closes_its_own_connection_and_no_other() {
    let listener = Listener::start().await;
    let mut good = Raw::connect(&listener).await;
    let mut random = fastrand::Rng::with_seed(11);
    let mut garbage: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        u32::MAX.to_be_bytes().to_vec(),
        i32::MAX.to_be_bytes().to_vec(),
        (options().max_frame as u32 + 1).to_be_bytes().to_vec(),
        frame(b""),
        frame(b"\0\x03\0"),
        // no such request, one for groups, versions that nobody speaks
        request(999, 0, &[]),
        request(14, 2, &[]),
        request(3, 9, &[0; 8]),
        request(0, 2, &[0; 20]),
        // lists of 2,147,483,647: topics, topics of a fetch, partitions of a produce request, items that take no room
        request(3, 8, &[0x7f, 0xff, 0xff, 0xff]),
        request(1, 11, &[[0; 25].as_slice(), &[0x7f, 0xff, 0xff, 0xff]].concat()),
        request(
            0,
            8,
            &[&[0xff, 0xff, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, b'a'][..], &[0x7f, 0xff, 0xff, 0xff]].concat(),
        ),
        request(3, 8, &[&[0, 0x3f, 0xff, 0xff][..], &vec![0; 2_000_000]].concat()),
        // no text
        request(3, 1, &[0, 0, 0, 1, 0, 2, 0xff, 0xfe]),
    ];
    for _ in 0..200 {
        let key = random.i16(0..20);
        let version = random.i16(0..12);
        let length = random.usize(0..64);
        let rest: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
        garbage.push(request(key, version, &rest));
    }
    for (at, bytes) in garbage.iter().enumerate() {
        let mut raw = sent(&listener, bytes).await;
        raw.0.shutdown().await.unwrap_or(());
        // some of the random ones are requests; whatever is answered, the connection ends
        if at < 16 {
            raw.closed().await;
        }
        assert_eq!(good.produce(EVENTS, 0, plain(&["good"])).await.error_code, 0, "after {at}");
    }
    assert_eq!(listener.written(), i64::try_from(garbage.len()).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bombs_and_torn_batches_are_refused_and_the_connection_goes_on() {
    let listener = Listener::start().await;
    let mut raw = Raw::connect(&listener).await;
    let bomb = "0".repeat(64 * 1024 * 1024);
    for compression in [Compression::Gzip, Compression::Lz4, Compression::Zstd, Compression::Snappy] {
        let packed = batch((-1, -1, 0), &[&bomb], compression);
        assert!(packed.len() < options().max_frame);
        let refused = raw.produce(EVENTS, 0, packed).await;
        assert_eq!(refused.error_code, ResponseError::MessageTooLarge.code(), "{compression:?}");
    }
    let many = vec![""; 100_001];
    let refused = raw.produce(EVENTS, 0, plain(&many)).await;
    assert_eq!(refused.error_code, ResponseError::MessageTooLarge.code(), "records without end");

    let good = plain(&["a", "b"]);
    let mut changed = good.to_vec();
    changed[70] ^= 1;
    let torn = ResponseError::CorruptMessage.code();
    assert_eq!(raw.produce(EVENTS, 0, changed.into()).await.error_code, torn, "its checksum is wrong");
    assert_eq!(raw.produce(EVENTS, 0, Bytes::new()).await.error_code, torn);
    let two = [good.clone(), good.clone()].concat();
    assert_eq!(raw.produce(EVENTS, 0, two.into()).await.error_code, ResponseError::InvalidRecord.code());
    let mut old = good.to_vec();
    old[16] = 1;
    let format = ResponseError::UnsupportedForMessageFormat.code();
    assert_eq!(raw.produce(EVENTS, 0, old.into()).await.error_code, format);
    assert_eq!(listener.written(), 0);
    assert_eq!(raw.produce(EVENTS, 0, good).await.error_code, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_stops_halfway_or_says_nothing_is_disconnected() {
    let listener = Listener::with(Options { idle_timeout: Duration::from_millis(400), ..options() }).await;
    let half = sent(&listener, &request(3, 8, &[0; 100])[..50]).await;
    let length_only = sent(&listener, &[0, 0]).await;
    let announced = sent(&listener, &(options().max_frame as u32).to_be_bytes()).await;
    let silent = Raw::connect(&listener).await;
    let mut idle = Raw::connect(&listener).await;
    assert_eq!(idle.ask(&MetadataRequest::default(), 8).await.brokers.len(), 1);
    assert_well(&listener).await;
    for raw in [half, length_only, announced, silent, idle] {
        raw.closed().await;
    }
    assert_well(&listener).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_too_many_disturb_nobody() {
    let listener = Listener::with(Options { max_connections: 10, ..options() }).await;
    let mut good = Raw::connect(&listener).await;
    assert_eq!(good.produce(EVENTS, 0, plain(&["first"])).await.error_code, 0);
    let mut held = Vec::new();
    for at in 0..1_010 {
        held.push(TcpStream::connect(listener.address).await.unwrap());
        if at % 100 == 0 {
            assert_eq!(good.produce(EVENTS, 0, plain(&["good"])).await.error_code, 0);
        }
    }
    // nine found room beside the good one, the others were let go
    for stream in held.drain(..).skip(9) {
        Raw(stream).closed().await;
    }
    assert_eq!(good.produce(EVENTS, 0, plain(&["last"])).await.error_code, 0);
    drop(good);
    let again = async {
        loop {
            let mut raw = Raw::connect(&listener).await;
            raw.send(&MetadataRequest::default(), 8).await;
            if raw.receive().await.is_some() {
                return;
            }
        }
    };
    within("room for another", again).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_requests_on_their_way_in_share_a_bounded_room_and_small_ones_need_none() {
    let max_frame = 1024 * 1024;
    let listener = Listener::with(Options { max_frame, max_in_flight: 2 * max_frame, ..options() }).await;
    let value = "x".repeat(900_000);
    let large = produce(EVENTS, 0, plain(&[&value]));
    // two of the largest are announced, and their bytes do not come
    let mut announced = Vec::new();
    for _ in 0..2 {
        announced.push(sent(&listener, &(max_frame as u32).to_be_bytes()).await);
    }
    let mut waiting = Raw::connect(&listener).await;
    let room_is_taken = async {
        loop {
            waiting.send(&large, 8).await;
            // an answer means that the two were not read yet
            if tokio::time::timeout(Duration::from_secs(1), waiting.0.peek(&mut [0])).await.is_err() {
                return;
            }
            assert!(waiting.receive().await.is_some());
        }
    };
    within("a large request that waits", room_is_taken).await;
    let before = listener.written();
    assert_well(&listener).await;
    // one of the two leaves, and its room goes to the one who waits
    drop(announced.pop());
    assert!(waiting.receive().await.is_some());
    assert_eq!(listener.written(), before + 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_takes_no_answers_is_disconnected() {
    let listener = Listener::with(Options { idle_timeout: Duration::from_millis(500), ..options() }).await;
    let mut raw = Raw::connect(&listener).await;
    let value = "x".repeat(900_000);
    assert_eq!(raw.produce(EVENTS, 0, plain(&[&value])).await.error_code, 0);
    // asks on and on, and reads nothing
    let mut fetch = BytesMut::new();
    fetch.put_slice(&[0; 12]);
    fetch.put_i32(1 << 20);
    fetch.put_u8(0);
    fetch.put_slice(&[0, 0, 0, 1, 0, 15]);
    fetch.put_slice(EVENTS.as_bytes());
    fetch.put_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    fetch.put_i32(1 << 20);
    let fetch = request(1, 4, &fetch);
    let until_closed = async { while raw.0.write_all(&fetch).await.is_ok() {} };
    within("the end of the connection", until_closed).await;
    assert_well(&listener).await;
}
