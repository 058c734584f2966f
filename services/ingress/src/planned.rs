//! The paths of the contract that this version does not serve: refused by name, never as unknown.

use axum::{
    Router,
    routing::{MethodRouter, any},
};

use crate::{
    Ingress,
    problem::{Kind, Problem},
};

/// Path and feature.
const PLANNED: &[(&str, &str)] = &[
    ("/v1/notifications/{id}/acknowledge", "acknowledging"),
    ("/v1/notifications/{id}/resolve", "resolving"),
    ("/v1/topics", "topics"),
    ("/v1/topics/{topic}", "topics"),
    ("/v1/topics/{topic}/subscribers/{user}", "topics"),
    ("/v1/campaigns", "campaigns"),
    ("/v1/campaigns/{id}", "campaigns"),
    ("/v1/inbox/{user}", "the inbox"),
    ("/v1/inbox/{user}/{*rest}", "the inbox"),
    ("/v1/receipts/{provider}/{account}", "provider receipts"),
    ("/v1/sources/grafana/{name}", "Grafana as a source"),
    ("/v1/sources/alertmanager/{name}", "Alertmanager as a source"),
];

/// Adds all of them.
pub(crate) fn add(router: Router<Ingress>) -> Router<Ingress> {
    PLANNED.iter().fold(router, |router, (path, feature)| router.route(path, refuse_any(feature)))
}

fn refuse_any(feature: &'static str) -> MethodRouter<Ingress> {
    any(move || async move { refuse(feature) })
}

fn refuse(feature: &str) -> Problem {
    Problem::new(Kind::NotYet, format!("{feature}: not yet built in this version"))
}

/// `DELETE /v1/notifications/{id}`.
pub(crate) async fn cancel() -> Problem {
    refuse("cancelling a notification")
}
