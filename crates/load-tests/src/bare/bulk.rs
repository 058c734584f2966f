//! The bulk requests that the index gets, recorded on their way to Elasticsearch, and sent once more without us.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, Request, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use store::{Document, cluster::ClusterSettings};
use tokio::{net::TcpListener, task::JoinSet};

use super::http1::Connection;
use crate::{
    cluster::Cluster,
    harness::{Sample, threads},
    machine::cpu_time,
};

const PATH: &str = "/_bulk?filter_path=items.*.status,items.*.error.type";
/// Requests at a time.
const AT_ONCE: usize = 4;
const PATIENCE: Duration = Duration::from_secs(30);
/// Before Elasticsearch is asked again.
const BREATH: Duration = Duration::from_millis(100);

/// Bulk requests, ready to be sent.
pub struct Bodies {
    bodies: Vec<Bytes>,
    /// Documents in all but the first of them.
    documents: u64,
    port: u16,
    prefix: String,
    elasticsearch: String,
}

impl Bodies {
    /// Has the index write the documents, so many at a time, and keeps what it sends.
    pub async fn record(cluster: &Cluster, documents: &[Document], at_a_time: usize) -> anyhow::Result<Self> {
        let elasticsearch = cluster.engines.elasticsearch.clone();
        let seen: Arc<Mutex<Vec<Bytes>>> = Arc::default();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let between = format!("http://{}", listener.local_addr()?);
        let state = (client()?, elasticsearch.clone(), seen.clone());
        let proxy = Router::new().fallback(forward).layer(DefaultBodyLimit::disable()).with_state(state);
        let proxy = tokio::spawn(async move { axum::serve(listener, proxy).await });
        let prefix = format!("{}bare-", cluster.index_prefix());
        let settings = ClusterSettings { index_prefix: prefix.clone(), ..cluster.stores(&between) };
        store::cluster::migrate(&settings).await?;
        let stores = store::cluster::connect(&settings).await?;
        for documents in documents.chunks(at_a_time) {
            for result in stores.deliveries.index(documents).await? {
                result?;
            }
        }
        proxy.abort();
        let bodies = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
        ensure!(bodies.len() > 1, "too few documents for two bulk requests");
        let uri: http::Uri = elasticsearch.parse()?;
        ensure!(uri.host() == Some("127.0.0.1"), "only on 127.0.0.1");
        let documents = documents.len().saturating_sub(at_a_time) as u64;
        Ok(Self { bodies, documents, port: uri.port_u16().context("no port")?, prefix, elasticsearch })
    }

    /// Sends all of them, after the indices were dropped; the first, which makes them anew, does not count.
    pub async fn send(&self) -> anyhow::Result<Sample> {
        drop_indices(&self.elasticsearch, &self.prefix).await?;
        let mut connections = Vec::new();
        for _ in 0..AT_ONCE {
            connections.push(Connection::open(self.port).await?);
        }
        let first = connections.first_mut().context("a connection")?;
        send(first, self.port, &self.bodies[0]).await?;
        let me = std::process::id();
        let (began, cpu) = (Instant::now(), cpu_time(me)?);
        let rest = Arc::new(Mutex::new(self.bodies[1..].to_vec()));
        let mut tasks = JoinSet::new();
        for mut connection in connections {
            let (rest, port) = (rest.clone(), self.port);
            tasks.spawn(async move {
                loop {
                    let next = rest.lock().unwrap_or_else(PoisonError::into_inner).pop();
                    let Some(body) = next else { return anyhow::Ok(()) };
                    send(&mut connection, port, &body).await?;
                }
            });
        }
        while let Some(end) = tasks.join_next().await {
            end??;
        }
        Ok(Sample::rate(self.documents, began.elapsed(), cpu_time(me)?.saturating_sub(cpu)))
    }
}

impl Drop for Bodies {
    fn drop(&mut self) {
        let indices = drop_indices(&self.elasticsearch, &self.prefix);
        if let Err(error) = threads().and_then(|runtime| runtime.block_on(indices)) {
            eprintln!("indices stay behind: {error:#}");
        }
    }
}

/// Drops the indices of today, and of yesterday if that has just ended.
pub async fn drop_indices(elasticsearch: &str, prefix: &str) -> anyhow::Result<()> {
    let http = client()?;
    let today = jiff::Timestamp::now();
    for day in [today, today - jiff::SignedDuration::from_hours(24)] {
        for family in ["deliveries", "notifications"] {
            let index = format!("{prefix}{family}-{}", day.strftime("%Y.%m.%d"));
            let url = format!("{}/{index}", elasticsearch.trim_end_matches('/'));
            let until = Instant::now() + PATIENCE;
            loop {
                let status = http.delete(&url).send().await?.status().as_u16();
                if [200, 404].contains(&status) {
                    break;
                }
                // under pressure it takes nothing for a while
                ensure!(status == 429 && Instant::now() < until, "cannot drop {index}: {status}");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
    Ok(())
}

fn client() -> anyhow::Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build()?)
}

/// Again and again while Elasticsearch is under pressure, as the indexer does it.
async fn send(connection: &mut Connection, port: u16, body: &Bytes) -> anyhow::Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let request = hyper::Request::post(PATH)
            .header(hyper::header::HOST, format!("127.0.0.1:{port}"))
            .header(CONTENT_TYPE, "application/x-ndjson")
            .body(Full::new(body.clone()))?;
        let (status, answer) = connection.exchange(request).await?;
        if status == StatusCode::OK {
            let answer: serde_json::Value = serde_json::from_slice(&answer)?;
            let items = answer["items"].as_array().context("no items")?;
            ensure!(items.iter().all(|item| item["index"]["status"] == 201), "a document was not taken as a new one");
            return Ok(());
        }
        ensure!(status == StatusCode::TOO_MANY_REQUESTS && Instant::now() < until, "HTTP {status}");
        tokio::time::sleep(BREATH).await;
    }
}

type Between = (reqwest::Client, String, Arc<Mutex<Vec<Bytes>>>);

async fn forward(State((http, to, seen)): State<Between>, request: Request) -> Response {
    pass_on(&http, &to, &seen, request)
        .await
        .unwrap_or_else(|error| (StatusCode::BAD_GATEWAY, error.to_string()).into_response())
}

async fn pass_on(
    http: &reqwest::Client,
    to: &str,
    seen: &Mutex<Vec<Bytes>>,
    request: Request,
) -> anyhow::Result<Response> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let path = head.uri.path_and_query().context("a path")?.as_str();
    if path.starts_with("/_bulk") {
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(body.clone());
    }
    let mut onward = http.request(head.method, format!("{}{path}", to.trim_end_matches('/'))).body(body);
    if let Some(kind) = head.headers.get(CONTENT_TYPE) {
        onward = onward.header(CONTENT_TYPE, kind);
    }
    let answer = onward.send().await?;
    let mut back = Response::builder().status(answer.status());
    if let Some(kind) = answer.headers().get(CONTENT_TYPE) {
        back = back.header(CONTENT_TYPE, kind);
    }
    Ok(back.body(Body::from(answer.bytes().await?))?)
}
