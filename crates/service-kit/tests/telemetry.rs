//! Traces in a collector, and without one; the list of metrics. A process has one collector, so this is a process of its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../tests/it/otlp/collector.rs"]
mod collector;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use axum::{
    Router,
    http::HeaderMap,
    middleware::{self, Next},
    routing::post,
};
use bus::{
    Headers, Log, Outgoing,
    consume::{ConsumeSettings, Stage, Work},
    topic,
    trace::{self, TraceContext},
};
use collector::{Collector, Span, documented_metrics, exposed_metrics, way};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use service_kit::{Kit, Settings, telemetry};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const FIRST: &str = "carillon.notifications.chat.normal";
const LAST: &str = "carillon.status";

fn record(topic: &str, headers: Headers) -> Vec<Outgoing> {
    vec![Outgoing { topic: topic.into(), key: Some("t/u".into()), headers, value: Some("v".into()) }]
}

/// Publishes what comes of each record; the first time it says that something is down.
struct Middle {
    log: Arc<dyn Log>,
    was_down: AtomicBool,
}

#[async_trait]
impl Stage for Middle {
    async fn handle(&self, batch: Vec<Work>) {
        for Work { record: r, ack } in batch {
            if !self.was_down.swap(true, SeqCst) {
                ack.retry(Duration::from_millis(10));
                continue;
            }
            self.log.publish(record(LAST, r.headers.handed_on())).await.remove(0).expect("durable");
            ack.done();
        }
    }
}

struct End;

#[async_trait]
impl Stage for End {
    async fn handle(&self, batch: Vec<Work>) {
        batch.into_iter().for_each(|work| work.ack.done());
    }
}

/// One way in, two topics, two stages.
async fn start(kit: &Kit) -> SocketAddr {
    let log = kit.log.clone();
    let accept = async move |headers: HeaderMap| {
        let parent = headers.get(TraceContext::HEADER).and_then(|h| TraceContext::parse(h.as_bytes()));
        let headers =
            Headers::default().with(TraceContext::HEADER, parent.unwrap_or_else(|| trace::context(None)).to_string());
        log.publish(record(FIRST, headers)).await.remove(0).expect("durable");
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    let traced = middleware::from_fn(async |request, next: Next| telemetry::observe(request, |r| next.run(r)).await);
    let router = Router::new().route("/v1/things/{id}", post(accept)).layer(traced).merge(kit.health.routes());
    kit.spawn("api", service_kit::serve::serve(listener, router, kit.shutdown.clone()));
    let middle = Middle { log: kit.log.clone(), was_down: AtomicBool::new(false) };
    let settings = |group: &str, topic: &str| ConsumeSettings::new(group.into(), vec![topic.into()]);
    kit.consume("middle", Arc::new(middle), topic::Stage::Router, settings("g.middle", FIRST));
    kit.consume("end", Arc::new(End), topic::Stage::Indexer, settings("g.end", LAST));
    at
}

/// Status and body.
async fn call(at: SocketAddr, head: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(at).await.expect("connected");
    let request = format!("{head}\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    (status, answer.split_once("\r\n\r\n").expect("a body").1.to_owned())
}

async fn send(at: SocketAddr, traceparent: &str) {
    let head = format!("POST /v1/things/secret-id HTTP/1.1\r\ncontent-length: 0\r\ntraceparent: {traceparent}");
    assert_eq!(call(at, &head).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_from_the_client_to_the_last_topic_and_no_collector_no_trouble() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const PARENT: &str = "b7ad6b7169203331";
    const OTHER: &str = "1af7651916cd43dd8448eb211c80319c";
    let collector = Collector::start();
    let mut settings = Settings::load(&[], None, []).expect("the defaults are valid");
    settings.set("telemetry.otlp_endpoint", collector.endpoint.as_str());
    telemetry::init(&settings).expect("valid");
    let data = tempfile::tempdir().expect("a directory");
    let kit = Kit::embedded(settings, data.path()).await.expect("opened");
    let at = start(&kit).await;

    // the client of the first did not want to be followed
    send(at, &format!("00-{OTHER}-{PARENT}-00")).await;
    send(at, &format!("00-{TRACE}-{PARENT}-01")).await;
    let is_end = |s: &&Span| s.name == format!("process {LAST}");
    let spans = collector.trace(TRACE, |spans| spans.iter().any(|s| is_end(&s))).await;
    let end = spans.iter().find(is_end).expect("there");
    let names = [
        format!("process {LAST}"),
        format!("send {LAST}"),
        format!("process {FIRST}"),
        format!("send {FIRST}"),
        "POST /v1/things/{id}".to_owned(),
    ];
    assert_eq!(way(&spans, end), (names.iter().map(String::as_str).collect(), PARENT));
    let kinds = |kind| spans.iter().filter(|s| s.kind == kind).count();
    assert_eq!((kinds(SpanKind::Server), kinds(SpanKind::Producer)), (1, 2));
    for (name, value) in [
        ("messaging.system", "kafka"),
        ("messaging.operation.name", "process"),
        ("messaging.operation.type", "process"),
        ("messaging.destination.name", LAST),
        ("messaging.consumer.group.name", "g.end"),
    ] {
        assert_eq!(end.attributes[name], value);
    }
    assert!(collector.trace(OTHER, |_| true).await.is_empty());
    assert!(!format!("{spans:?}").contains("secret-id"));

    // the collector goes away: nothing else notices
    drop(collector);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !refused(at).await {
        assert!(Instant::now() < deadline, "dropped spans are not counted");
        send(at, &format!("00-{TRACE}-{PARENT}-01")).await;
    }
    let begun = Instant::now();
    kit.shutdown.cancel();
    assert!(kit.finish().await, "drained");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

/// `/metrics` counts dropped spans; all that it has is documented.
async fn refused(at: SocketAddr) -> bool {
    let (_, text) = call(at, "GET /metrics HTTP/1.1").await;
    let documented = documented_metrics();
    for (name, kind) in exposed_metrics(&text) {
        assert_eq!(documented.get(&name), Some(&kind), "docs/telemetry.md and `{name}` differ");
    }
    text.contains("carillon_trace_spans_total{outcome=\"refused\"}")
}

#[test]
fn every_metric_that_is_registered_is_documented_and_the_other_way_round() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the workspace");
    let mut registered = BTreeSet::new();
    for folder in ["crates", "services"] {
        sources(&root.join(folder), &mut |text| registered.extend(names(text)));
    }
    let documented = documented_metrics().into_keys().map(|n| n.trim_end_matches("_total").to_owned()).collect();
    assert!(registered.len() > 15);
    let missing: Vec<_> = registered.difference(&documented).collect();
    let gone: Vec<_> = documented.difference(&registered).collect();
    assert!(missing.is_empty() && gone.is_empty(), "docs/telemetry.md lacks {missing:?}, and lists {gone:?} in vain");
}

/// The text of every source file in the `src` folders below.
fn sources(dir: &Path, each: &mut impl FnMut(&str)) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.ends_with("tests") {
            sources(&path, each);
        } else if path.extension().is_some_and(|e| e == "rs") {
            each(&std::fs::read_to_string(&path).expect("a source"));
        }
    }
}

/// The names that are given to a registry.
fn names(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (call, unit) in [(".register(", ""), (".register_with_unit(", "_seconds")] {
        for after in source.split(call).skip(1) {
            if let Some((name, _)) = after.trim_start().strip_prefix('"').and_then(|rest| rest.split_once('"')) {
                names.push(format!("{name}{unit}"));
            }
        }
    }
    names
}
