//! The gRPC server on a port, beside the API.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bus::Log;
use grpc::{Client, StatusExt as _, v1::SendRequest};
use ingress::Ingress;
use serde_json::Value;
use service_kit::Health;
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Status};

use crate::api::{Api, options};

pub(crate) struct Served {
    pub(crate) api: Api,
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) server: JoinHandle<()>,
}

impl Served {
    pub(crate) async fn start() -> Self {
        let api = Api::start().await;
        let log = Arc::new(api.log.clone());
        Self::over(api, log).await
    }

    /// Over another log; keys and categories are still the API's.
    pub(crate) async fn over(api: Api, log: Arc<dyn Log>) -> Self {
        let ingress = Ingress::new(log, api.topics.clone(), api.config.clone(), &api.stores, &options());
        let shutdown = CancellationToken::new();
        let health = Health::new(shutdown.clone(), TaskTracker::new(), Duration::from_secs(30));
        let config = api.config.clone();
        health.register_condition("the configuration is not read yet", move || config.is_ready());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = ingress::grpc::serve(listener, ingress, options().in_flight, health, shutdown.clone()).unwrap();
        Self { api, address, shutdown, server: tokio::spawn(server) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) async fn client(&self, key: &str) -> Client {
        grpc::connect(&self.url(), key).await.unwrap()
    }

    /// Ends with the shutdown, and not only with the server's patience.
    pub(crate) async fn drained(self) {
        self.shutdown.cancel();
        timeout(Duration::from_secs(5), self.server).await.expect("drained").unwrap();
    }
}

pub(crate) fn request(json: &Value) -> SendRequest {
    SendRequest::from_json(json.to_string().as_bytes()).unwrap()
}

/// Asserts the code, and gives the violations as HTTP gives `errors`: (pointer, detail).
pub(crate) fn violations(status: &Status, code: Code) -> Vec<(String, String)> {
    assert_eq!(status.code(), code, "{status:?}");
    assert!(!status.message().is_empty());
    let details = status.get_error_details();
    assert_eq!(details.error_info().expect("an ErrorInfo").domain, "carillon");
    assert!(!details.request_info().expect("a RequestInfo").request_id.is_empty());
    let fields = details.bad_request().map(|b| b.field_violations.clone()).unwrap_or_default();
    fields.into_iter().map(|v| (v.field, v.description)).collect()
}
