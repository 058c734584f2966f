//! A client with a key.

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use crate::v1::notification_service_client::NotificationServiceClient;

/// A client that sends its key with every call. Cheap to clone; all clones share one connection, which is made again when it
/// breaks.
pub type Client = NotificationServiceClient<InterceptedService<Channel, Bearer>>;

/// Puts a key into the metadata of every call.
#[derive(Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum BadEndpoint {
    /// It is not a URL, or nobody answers there.
    #[error("no gRPC at {endpoint}: {source}")]
    Unreachable {
        /// As it was given.
        endpoint: String,
        /// What the transport says.
        source: tonic::transport::Error,
    },
    /// The key holds characters that no header takes.
    #[error("the key holds characters that a key does not have")]
    Key,
}

/// Connects to an ingress, such as `http://127.0.0.1:9090`.
///
/// # Errors
/// Nobody answers there, or one of the two cannot be used at all.
pub async fn connect(endpoint: &str, key: &str) -> Result<Client, BadEndpoint> {
    let mut bearer = MetadataValue::try_from(format!("Bearer {key}")).map_err(|_| BadEndpoint::Key)?;
    bearer.set_sensitive(true);
    let unreachable = |source| BadEndpoint::Unreachable { endpoint: endpoint.to_owned(), source };
    let channel = Endpoint::from_shared(endpoint.to_owned()).map_err(unreachable)?;
    // small messages do not wait for each other
    let channel = channel.tcp_nodelay(true).connect().await.map_err(unreachable)?;
    Ok(NotificationServiceClient::with_interceptor(channel, Bearer(bearer)))
}
