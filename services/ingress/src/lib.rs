#![doc = include_str!("../README.md")]

pub mod auth;
pub mod body;
pub mod config;
pub mod conservation;
pub mod dead_letters;
pub mod deliveries;
pub mod devices;
pub mod edge;
mod entries;
mod events;
pub mod grpc;
pub mod metrics;
pub mod notifications;
pub mod openapi;
mod planned;
pub mod preferences;
pub mod problem;
pub mod templates;
mod turns;
pub mod users;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router, middleware,
    routing::{delete, get, post, put},
};
use domain::{Secret, Timestamp};
use service_kit::{Kit, Need, Reader, Section, Uses};
use store::cluster::Store;
use tokio::sync::Semaphore;
use turns::Turns;

/// The settings of `[ingress]`.
pub const SETTINGS: Section = Section { defaults: include_str!("../settings.default.toml"), check };

/// The stores that it uses. Notifications are taken without the index; meanwhile nothing can be searched.
pub const USES: Uses<'static> = &[(Store::Users, Need::Required), (Store::Deliveries, Need::Optional)];

/// What an operator may set.
#[derive(Debug, Clone)]
pub struct Options {
    /// The installation's own key, if there is one.
    pub operator_key: Option<Secret>,
    /// Requests at work at the same time.
    pub in_flight: usize,
    /// Megabytes of records on their way to the log at the same time.
    pub publishing_mib: u32,
    /// The longest that reading a request's body, and then answering it, may take.
    pub request_timeout: Duration,
    /// Most devices of a user.
    pub devices_per_user: usize,
}

/// What the handlers work with. Cheap to clone, which axum does for each layer and handler; all clones share the same limits.
#[derive(Clone)]
pub struct Ingress(Arc<Inner>);

/// What all clones of an [`Ingress`] share.
pub struct Inner {
    log: Arc<dyn bus::Log>,
    topics: bus::Topics,
    config: bus::Config,
    users: Arc<dyn store::Users>,
    deliveries: Arc<dyn store::Deliveries>,
    operator: Option<auth::OperatorKey>,
    admitted: Semaphore,
    publishing: Semaphore,
    publishing_kib: u32,
    request_timeout: Duration,
    devices_per_user: usize,
    user_turns: Turns,
    template_turns: Turns,
}

impl std::ops::Deref for Ingress {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Ingress {
    /// Over a log and stores; `config` is kept up to date by somebody else.
    pub fn new(
        log: Arc<dyn bus::Log>,
        topics: bus::Topics,
        config: bus::Config,
        stores: &store::Stores,
        options: &Options,
    ) -> Self {
        let publishing_kib = options.publishing_mib.saturating_mul(1024);
        Self(Arc::new(Inner {
            log,
            topics,
            config,
            users: stores.users.clone(),
            deliveries: stores.deliveries.clone(),
            operator: options.operator_key.as_ref().map(auth::OperatorKey::new),
            admitted: Semaphore::new(options.in_flight),
            publishing: Semaphore::new(publishing_kib as usize),
            publishing_kib,
            request_timeout: options.request_timeout,
            devices_per_user: options.devices_per_user,
            user_turns: Turns::default(),
            template_turns: Turns::default(),
        }))
    }
}

/// The public API.
pub fn router(ingress: Ingress) -> Router {
    let built = Router::new()
        .route("/v1/notifications", post(notifications::send))
        .route("/v1/notifications/batch", post(notifications::send_batch))
        .route("/v1/notifications/{id}", get(notifications::get).delete(planned::cancel))
        .route("/v1/deliveries", get(deliveries::search))
        .route("/v1/dead-letters", get(dead_letters::list))
        .route("/v1/dead-letters/redrive", post(dead_letters::redrive))
        .route("/v1/dead-letters/{id}", get(dead_letters::get))
        .route("/v1/conservation", get(conservation::get))
        .route("/v1/users/{user}", put(users::put).get(users::get).delete(users::delete))
        .route("/v1/users/{user}/preferences", put(preferences::put).get(preferences::get).patch(preferences::patch))
        .route("/v1/users/{user}/preferences/history", get(preferences::history))
        .route("/v1/users/{user}/devices", post(devices::post).get(devices::list))
        .route("/v1/users/{user}/devices/{device}", delete(devices::delete))
        .route("/v1/templates", get(templates::list))
        .route("/v1/templates/{key}", put(templates::put).get(templates::get).delete(templates::delete))
        .route("/v1/templates/{key}/versions/{version}", get(templates::version))
        .route("/v1/templates/{key}/publish", post(templates::publish))
        .route("/v1/templates/{key}/preview", post(templates::preview::post))
        .route("/v1/config/{kind}", get(config::list))
        .route("/v1/config/{kind}/{name}", put(config::put).get(config::get).delete(config::delete));
    let open = Router::new().route("/openapi.json", get(openapi::get)).fallback(edge::not_found);
    planned::add(built)
        .layer(middleware::from_fn_with_state(ingress.clone(), edge::keyed))
        .merge(open.layer(middleware::from_fn(edge::open)))
        .with_state(ingress)
}

/// Serves the public API until the kit's shutdown; says where, once the port is open.
pub async fn run(kit: &Kit) -> anyhow::Result<SocketAddr> {
    let (listen, options) = kit.settings.read(read)?;
    let ingress = Ingress::new(kit.log.clone(), kit.topics.clone(), kit.config.clone(), &kit.stores, &options);
    events::run(kit, ingress.clone(), options.in_flight);
    let routes = router(ingress.clone()).merge(kit.health.routes());
    let listener = service_kit::serve::bind(listen, "ingress.listen").await?;
    let address = listener.local_addr()?;
    tracing::info!(%address, "the public API is listening");
    grpc::run(kit, ingress, options.in_flight).await?;
    kit.spawn("ingress", service_kit::serve::serve(listener, routes, kit.shutdown.clone()));
    Ok(address)
}

fn check(r: &mut Reader<'_>) {
    read(r);
    grpc::listen(r);
}

fn read(r: &mut Reader<'_>) -> (SocketAddr, Options) {
    let listen = r.socket_addr("ingress.listen");
    let operator_key = Some(r.secret("ingress.operator_key")).filter(|key| !key.expose().is_empty());
    if operator_key.as_ref().is_some_and(|key| key.expose().len() < 20) {
        r.problem("ingress.operator_key", "has fewer than 20 characters: it can be guessed");
    }
    let in_flight = usize::try_from(r.integer("ingress.in_flight", 1..=100_000)).unwrap_or(1);
    let publishing_mib = u32::try_from(r.integer("ingress.publishing_mib", 1..=65_536)).unwrap_or(1);
    let request_timeout =
        r.duration_within("ingress.request_timeout", Duration::from_millis(100)..=Duration::from_secs(300));
    let devices_per_user = usize::try_from(r.integer("ingress.devices_per_user", 1..=50)).unwrap_or(1);
    (listen, Options { operator_key, in_flight, publishing_mib, request_timeout, devices_per_user })
}

/// Now, in microseconds as records and stores keep it, so that what is answered is what is kept.
pub(crate) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(env: &[(&str, &str)]) -> Result<Options, String> {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let settings = service_kit::Settings::load(&[SETTINGS], None, env).map_err(|e| e.to_string())?;
        settings.read(read).map(|(_, options)| options).map_err(|e| e.to_string())
    }

    #[test]
    fn the_defaults_hold_and_a_weak_operator_key_does_not() {
        assert!(options(&[]).expect("defaults").operator_key.is_none(), "no key is no operator");
        let weak = options(&[("CARILLON__INGRESS__OPERATOR_KEY", "secret")]).expect_err("weak");
        assert!(weak.contains("ingress.operator_key"), "{weak}");
        assert!(options(&[("CARILLON__INGRESS__OPERATOR_KEY", "the-operators-own-key-0123456789")]).is_ok());
    }
}
