//! The public API on real Kafka, over HTTP and gRPC, against bare handlers that put the same bytes on the same topics and answer
//! when these are durable.

use std::{
    future::Future,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use ::ingress::{Ingress, Options};
use anyhow::Context as _;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::post,
    serve::ListenerExt as _,
};
use bytes::Bytes;
use domain::{Channel, ChannelType, Lane, Message, NotificationStatus, Recipient, Selector, Status};
use grpc::{
    SendBatchRequest, SendStreamRequest,
    v1::{
        AcknowledgeRequest, AcknowledgeResponse, CancelRequest, CancelResponse, GetRequest, GetResponse,
        SendBatchResponse, SendRequest, SendResponse, SendStreamResponse,
        notification_service_server::{NotificationService, NotificationServiceServer},
    },
};
use rdkafka::producer::FutureProducer;
use serde_json::json;
use service_kit::Kit;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Streaming};
use wire::Record as _;

use super::Outcomes;
use crate::{
    bare::kafka,
    cluster::{self, Cluster},
    fixture,
    harness::{Bench, Sample, threads},
    machine::cpu_time,
    peer::Peer,
    report::{Better, Figure},
};

const LIMIT: Duration = Duration::from_secs(15);
/// More than a publish takes.
const LAST: Duration = Duration::from_millis(500);
/// Connecting, a producer's id.
const START: Duration = Duration::from_secs(1);
/// As `settings.default.toml` has it.
const IN_FLIGHT: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Http,
    Grpc,
}

pub(super) fn http(bench: &Bench) -> anyhow::Result<Outcomes> {
    run(bench, "ingress_http", "bare axum", Way::Http)
}

pub(super) fn grpc(bench: &Bench) -> anyhow::Result<Outcomes> {
    run(bench, "ingress_grpc", "bare tonic", Way::Grpc)
}

fn run(bench: &Bench, name: &'static str, bare: &'static str, way: Way) -> anyhow::Result<Outcomes> {
    let sink = Peer::start(&["apns"], None)?;
    let cluster = threads()?.block_on(Cluster::make(bench, &sink.ready))?;
    let sides = bench.compare(name, &["ingress", bare], |side| {
        threads()?.block_on(async {
            let stop = CancellationToken::new();
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            if side == 1 {
                let baseline = Arc::new(Baseline::new(&cluster)?);
                let serve = |listener| bare_server(way, listener, baseline, stop.clone());
                return under_load(bench, way, listener, &stop, serve).await;
            }
            let kit = cluster.kit().await?;
            let serve = |listener| ours(way, listener, &kit, stop.clone());
            let sample = under_load(bench, way, listener, &stop, serve).await;
            cluster::stop(kit).await?;
            sample
        })
    })?;
    let figure = Figure::of(name, "requests/s", Better::More, 0.7, &sides[0], &sides[1]);
    Ok(Outcomes { figures: vec![figure], sides: vec![(name.to_owned(), sides)], ..Outcomes::default() })
}

/// Serves while a client in a process of its own asks as much as it can.
async fn under_load<F>(
    bench: &Bench,
    way: Way,
    listener: TcpListener,
    stop: &CancellationToken,
    serve: impl FnOnce(TcpListener) -> anyhow::Result<F>,
) -> anyhow::Result<Sample>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let port = listener.local_addr()?.port().to_string();
    let server = tokio::spawn(serve(listener)?);
    let kind = if way == Way::Http { "post" } else { "call" };
    let mut client = Peer::start(&[kind, "--port", &port], None)?;
    let me = std::process::id();
    tokio::time::sleep(bench.effort.warmed_for(START).warm).await;
    client.received()?;
    let (began, cpu) = (Instant::now(), cpu_time(me)?);
    tokio::time::sleep(bench.effort.time).await;
    let count = client.received()?.count;
    let sample = Sample::rate(count, began.elapsed(), cpu_time(me)?.saturating_sub(cpu));
    drop(client);
    // what it has asked last is still published
    tokio::time::sleep(LAST).await;
    stop.cancel();
    tokio::time::timeout(LIMIT, server).await.context("the server does not end")???;
    anyhow::ensure!(count > 0, "nothing was answered");
    Ok(sample)
}

fn ours(
    way: Way,
    listener: TcpListener,
    kit: &Kit,
    stop: CancellationToken,
) -> anyhow::Result<impl Future<Output = anyhow::Result<()>> + Send + use<>> {
    let options = Options {
        operator_key: None,
        in_flight: IN_FLIGHT,
        publishing_mib: 256,
        request_timeout: Duration::from_secs(30),
        devices_per_user: 5,
    };
    let ingress = Ingress::new(kit.log.clone(), kit.topics.clone(), kit.config.clone(), &kit.stores, &options);
    let health = kit.health.clone();
    Ok(async move {
        match way {
            Way::Http => service_kit::serve::serve(listener, ::ingress::router(ingress), stop).await,
            Way::Grpc => ::ingress::grpc::serve(listener, ingress, IN_FLIGHT, health, stop)?.await,
        }
        Ok(())
    })
}

/// What a bare handler works with: records made beforehand.
struct Baseline {
    producer: FutureProducer,
    /// The event that tells of a notification, and the notification.
    records: Vec<[kafka::Made; 2]>,
    requests: AtomicUsize,
}

impl Baseline {
    fn new(cluster: &Cluster) -> anyhow::Result<Self> {
        let topics = bus::Topics::new(&cluster.prefix);
        // the lane is another, so that a later row does not read it
        let (events, notifications) = (topics.status(), topics.notifications(ChannelType::Push, Lane::Low));
        let record = |person: usize| {
            let message = Message::Content(fixture::content()?);
            let n = fixture::notification(Recipient::User(fixture::user(person as u64)?), Channel::Apns, message)?;
            let event = Status::Notification(NotificationStatus {
                id: n.id,
                tenant: n.tenant.clone(),
                recipients: 1,
                category: None,
                priority: n.priority,
                channels: vec![Selector::Channel(Channel::Apns)],
                template: None,
                accepted_at: n.accepted_at,
                expires_at: None,
                metadata: [].into(),
            });
            let event = kafka::Made::new(&events, person, event.encode());
            Ok([event, kafka::Made::new(&notifications, person, n.encode())])
        };
        let records = (0..kafka::DIFFERENT / 2).map(record).collect::<anyhow::Result<_>>()?;
        let producer = kafka::future_producer(&cluster.engines.kafka)?;
        Ok(Self { producer, records, requests: AtomicUsize::new(0) })
    }

    /// Both records, durable.
    async fn publish(&self) -> anyhow::Result<()> {
        let records = &self.records[self.requests.fetch_add(1, Relaxed) % self.records.len()];
        let send = |made: &kafka::Made| self.producer.send_result(made.awaited()).map_err(|(error, _)| error);
        let [first, second] = [send(&records[0])?, send(&records[1])?];
        for durable in [first, second] {
            tokio::time::timeout(LIMIT, durable).await??.map_err(|(error, _)| error)?;
        }
        Ok(())
    }
}

fn bare_server(
    way: Way,
    listener: TcpListener,
    baseline: Arc<Baseline>,
    stop: CancellationToken,
) -> anyhow::Result<impl Future<Output = anyhow::Result<()>> + Send + use<>> {
    Ok(async move {
        match way {
            Way::Http => {
                let routes = Router::new().route("/v1/notifications", post(take)).with_state(baseline);
                let listener = listener.tap_io(|stream| {
                    if let Err(error) = stream.set_nodelay(true) {
                        eprintln!("cannot set TCP_NODELAY: {error}");
                    }
                });
                axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await?;
            }
            Way::Grpc => {
                let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
                let server =
                    tonic::transport::Server::builder().add_service(NotificationServiceServer::new(Bare(baseline)));
                server.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await?;
            }
        }
        Ok(())
    })
}

async fn take(State(baseline): State<Arc<Baseline>>, body: Bytes) -> impl IntoResponse {
    std::hint::black_box(body);
    match baseline.publish().await {
        Ok(()) => {
            let id = uuid::Uuid::now_v7();
            let location = [(header::LOCATION, format!("/v1/notifications/{id}"))];
            (StatusCode::ACCEPTED, location, axum::Json(json!({"id": id, "state": "accepted"}))).into_response()
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}

struct Bare(Arc<Baseline>);

const OTHER: &str = "only Send";

#[tonic::async_trait]
impl NotificationService for Bare {
    type SendStreamStream = futures::stream::BoxStream<'static, Result<SendStreamResponse, tonic::Status>>;

    async fn send(&self, request: Request<SendRequest>) -> Result<Response<SendResponse>, tonic::Status> {
        std::hint::black_box(request);
        self.0.publish().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        Ok(Response::new(SendResponse { id: uuid::Uuid::now_v7().to_string(), state: "accepted".to_owned() }))
    }

    async fn send_batch(&self, _: Request<SendBatchRequest>) -> Result<Response<SendBatchResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented(OTHER))
    }

    async fn send_stream(
        &self,
        _: Request<Streaming<SendStreamRequest>>,
    ) -> Result<Response<Self::SendStreamStream>, tonic::Status> {
        Err(tonic::Status::unimplemented(OTHER))
    }

    async fn get(&self, _: Request<GetRequest>) -> Result<Response<GetResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented(OTHER))
    }

    async fn cancel(&self, _: Request<CancelRequest>) -> Result<Response<CancelResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented(OTHER))
    }

    async fn acknowledge(
        &self,
        _: Request<AcknowledgeRequest>,
    ) -> Result<Response<AcknowledgeResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented(OTHER))
    }
}
