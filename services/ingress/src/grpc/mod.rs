//! The gRPC way in: `carillon.v1.NotificationService`, with health and reflection, on a port of its own.

mod call;
mod edge;
mod health;
mod refusal;
mod service;
mod stream;

use std::{future::Future, net::SocketAddr};

use ::grpc::{FILE_DESCRIPTOR_SET, v1::notification_service_server::NotificationServiceServer};
use axum::{Router, middleware};
use service_kit::{Health, Kit, Reader, settings::socket_addr};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{Ingress, body};

/// Where each method is found.
const METHODS: [&str; 6] = [
    "/carillon.v1.NotificationService/Send",
    "/carillon.v1.NotificationService/SendBatch",
    "/carillon.v1.NotificationService/SendStream",
    "/carillon.v1.NotificationService/Get",
    "/carillon.v1.NotificationService/Cancel",
    "/carillon.v1.NotificationService/Acknowledge",
];

/// The setting `ingress.grpc_listen`; `None`: nowhere.
pub(crate) fn listen(r: &mut Reader<'_>) -> Option<SocketAddr> {
    r.optional("ingress.grpc_listen", socket_addr)
}

/// Serves until the kit's shutdown; says where, once the port is open. `in_flight` as for HTTP.
pub(crate) async fn run(kit: &Kit, ingress: Ingress, in_flight: usize) -> anyhow::Result<Option<SocketAddr>> {
    let Some(listen) = kit.settings.read(listen)? else { return Ok(None) };
    let listener = service_kit::serve::bind(listen, "ingress.grpc_listen").await?;
    let address = listener.local_addr()?;
    tracing::info!(%address, "the gRPC API is listening");
    let served = serve(listener, ingress, in_flight, kit.health.clone(), kit.shutdown.clone())?;
    kit.spawn("ingress.grpc", served);
    Ok(Some(address))
}

/// Serves on a port until `shutdown`; then what runs is answered, and streams end. At most `in_flight` items of streams are at
/// work at the same time, and half as many streams are open.
///
/// # Errors
/// The descriptors that were compiled in are broken.
pub fn serve(
    listener: TcpListener,
    ingress: Ingress,
    in_flight: usize,
    health: Health,
    shutdown: CancellationToken,
) -> anyhow::Result<impl Future<Output = ()> + Send + use<>> {
    let service = service::Service::new(ingress.clone(), in_flight, shutdown.clone());
    let service = NotificationServiceServer::new(service).max_decoding_message_size(body::MAX_BYTES);
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let api = METHODS.iter().fold(Router::new(), |api, method| api.route_service(method, service.clone()));
    let api = api.layer(middleware::from_fn_with_state(ingress, edge::keyed));
    // the fallback of these says that a method is unknown
    let routes = tonic::service::Routes::new(health_service).add_service(reflection).into_axum_router().merge(api);
    Ok(async move {
        tokio::join!(
            service_kit::serve::serve(listener, routes, shutdown.clone()),
            health::follow(reporter, health, shutdown)
        );
    })
}
