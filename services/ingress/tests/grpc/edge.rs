//! What happens before any handler: keys, scopes, unknown methods; and what tells of itself.

use std::time::Duration;

use grpc::StatusExt as _;
use grpc::v1::{AcknowledgeRequest, CancelRequest, GetRequest, notification_service_client::NotificationServiceClient};
use serde_json::json;
use tokio::time::timeout;
use tonic::{Code, Request, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::{
    api::{ACME, OPERATOR, notification},
    served::{Served, request, violations},
};

#[tokio::test]
async fn a_key_is_asked_for_as_over_http() {
    let served = Served::start().await;
    let channel = Endpoint::from_shared(served.url()).unwrap().connect().await.unwrap();
    let mut bare = NotificationServiceClient::new(channel);
    for value in [None, Some("Bearer"), Some("Basic YTpi"), Some("Bearer unknown-key")] {
        let mut call = Request::new(request(&notification()));
        value.map(|value| call.metadata_mut().insert("authorization", value.parse().unwrap()));
        violations(&bare.send(call).await.unwrap_err(), Code::Unauthenticated);
    }
    for (name, key, scope, revoked) in [
        ("reader", "a-key-that-may-only-read", "notifications:read", false),
        ("writer", "a-key-that-may-only-write", "notifications:write", false),
        ("old", "a-key-that-was-revoked-01", "notifications:write", true),
    ] {
        let at = format!("/v1/config/keys/{name}");
        served.api.put(&at, ACME, &json!({"key": key, "scopes": [scope], "revoked": revoked})).await.ok(200);
    }
    let send = async |key| served.client(key).await.send(request(&notification())).await.unwrap_err();
    let revoked = send("a-key-that-was-revoked-01").await;
    violations(&revoked, Code::Unauthenticated);
    assert!(revoked.message().contains("the key `old` was revoked"));
    let id = revoked.get_details_request_info().unwrap().request_id;
    assert_eq!(revoked.metadata().get("x-request-id").unwrap().to_str().unwrap(), id);
    for key in ["a-key-that-may-only-read", OPERATOR] {
        violations(&send(key).await, Code::PermissionDenied);
        let stream = served.client(key).await.send_stream(futures::stream::pending()).await;
        violations(&stream.unwrap_err(), Code::PermissionDenied);
    }
    let read = served.client("a-key-that-may-only-write").await.get(GetRequest { id: "17".into() }).await;
    violations(&read.unwrap_err(), Code::PermissionDenied);
    assert_eq!(served.api.published().await, 0);
}

#[tokio::test]
async fn what_is_planned_is_refused_by_name() {
    let served = Served::start().await;
    let mut client = served.client(ACME).await;
    let cancel = client.cancel(CancelRequest { id: "17".into() }).await.unwrap_err();
    let acknowledge = client.acknowledge(AcknowledgeRequest { id: "17".into() }).await.unwrap_err();
    for (status, path, method) in
        [(cancel, "/v1/notifications/17", "DELETE"), (acknowledge, "/v1/notifications/17/acknowledge", "POST")]
    {
        violations(&status, Code::Unimplemented);
        let http = served.api.call(method, path, ACME, axum::body::Body::empty()).await;
        assert_eq!((http.status.as_u16(), http.body["detail"].as_str()), (501, Some(status.message())));
    }
    served.drained().await;
}

#[tokio::test]
async fn reflection_lists_the_service_and_its_messages() {
    let served = Served::start().await;
    let channel = Endpoint::from_shared(served.url()).unwrap().connect().await.unwrap();
    let mut client = ServerReflectionClient::new(channel);
    let mut ask = async |question| {
        let question = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
        let mut answers = client.server_reflection_info(futures::stream::iter([question])).await.unwrap().into_inner();
        answers.message().await.unwrap().unwrap().message_response.unwrap()
    };
    let MessageResponse::ListServicesResponse(list) = ask(MessageRequest::ListServices(String::new())).await else {
        panic!("no list")
    };
    let names: Vec<_> = list.service.iter().map(|s| s.name.as_str()).collect();
    for name in ["carillon.v1.NotificationService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"] {
        assert!(names.contains(&name), "{names:?}");
    }
    for symbol in ["carillon.v1.SendBatchRequest", "google.rpc.Status", "google.rpc.BadRequest"] {
        let answer = ask(MessageRequest::FileContainingSymbol(symbol.into())).await;
        assert!(matches!(answer, MessageResponse::FileDescriptorResponse(_)), "{symbol}: {answer:?}");
    }
}

#[tokio::test]
async fn health_serves_until_the_shutdown_and_does_not_hold_it_up() {
    let served = Served::start().await;
    let channel = Endpoint::from_shared(served.url()).unwrap().connect().await.unwrap();
    let mut client = HealthClient::new(channel);
    for service in ["", "carillon.v1.NotificationService"] {
        let mut watch = client.watch(HealthCheckRequest { service: service.into() }).await.unwrap().into_inner();
        let serving = async { while watch.message().await.unwrap().unwrap().status() != ServingStatus::Serving {} };
        timeout(Duration::from_secs(10), serving).await.expect("serving");
        let answer = client.check(HealthCheckRequest { service: service.into() }).await.unwrap();
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
    }
    let unknown = client.check(HealthCheckRequest { service: "no.such".into() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let mut watch = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let silent = timeout(Duration::from_millis(600), watch.message()).await;
    assert!(silent.is_err(), "nothing is told while nothing changes");
    served.shutdown.cancel();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(watch.message().await.unwrap().is_none());
    served.drained().await;
}
