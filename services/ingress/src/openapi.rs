//! The OpenAPI document, generated from the code; committed as `docs/openapi.json`.

use axum::Json;
use utoipa::{
    Modify, OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};

use crate::{config, conservation, dead_letters, deliveries, devices, notifications, preferences, templates, users};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Carillon",
        description = "Accepts notifications and tells what became of them. Every error is an RFC 9457 problem document.",
        version = "1.0.0",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        notifications::send, notifications::send_batch, notifications::get, deliveries::search,
        users::put, users::get, users::delete, devices::post, devices::list, devices::delete,
        templates::list, templates::put, templates::get, templates::delete, templates::version, templates::publish,
        templates::preview::post,
        preferences::get, preferences::put, preferences::patch, preferences::history,
        config::get, config::list, config::put, config::delete,
        dead_letters::list, dead_letters::get, dead_letters::redrive, conservation::get,
    ),
    security(("key" = [])),
    modifiers(&Key),
)]
struct Api;

/// How clients authenticate.
struct Key;

impl Modify for Key {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::builder().scheme(HttpAuthScheme::Bearer).build());
        api.components.get_or_insert_default().add_security_scheme("key", scheme);
    }
}

/// `GET /openapi.json`.
pub(crate) async fn get() -> Json<utoipa::openapi::OpenApi> {
    Json(Api::openapi())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the one switch of a test that writes a generated file")]
    fn openapi_document_is_committed() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
        let generated = Api::openapi().to_pretty_json().expect("JSON") + "\n";
        if std::env::var("UPDATE").is_ok() {
            std::fs::write(&path, &generated).expect("written");
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == generated,
            "docs/openapi.json is not what the code says; update it: UPDATE=1 cargo test -p ingress openapi"
        );
        assert!(generated.contains(r#""openapi": "3.1"#));
        let mut ids: Vec<_> = generated.lines().filter(|l| l.trim_start().starts_with("\"operationId\"")).collect();
        ids.sort_unstable();
        assert!(ids.len() > 20 && ids.windows(2).all(|two| two[0] != two[1]), "operation ids are unique: {ids:?}");
    }
}
