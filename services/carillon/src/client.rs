//! A client of the public API, for the operator's commands.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::time::Instant;
use url::form_urlencoded;

use crate::cli::Server;

/// Calls one server with one key.
pub(crate) struct Client {
    http: reqwest::Client,
    server: Server,
}

impl Client {
    pub(crate) fn new(server: &Server) -> anyhow::Result<Self> {
        // what the operator names is what is called: no proxy from the environment
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?;
        Ok(Self { http, server: server.clone() })
    }

    pub(crate) fn url(&self) -> &str {
        self.server.url.trim_end_matches('/')
    }

    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(Method::PUT, path, Some(body)).await
    }

    /// `false` for a 404.
    pub(crate) async fn delete(&self, path: &str) -> anyhow::Result<bool> {
        let (status, body) = self.exchange(Method::DELETE, path, None).await?;
        if status == StatusCode::NOT_FOUND { Ok(false) } else { accept(status, body).map(|_| true) }
    }

    /// `None` for a 404.
    pub(crate) async fn find(&self, path: &str) -> anyhow::Result<Option<Value>> {
        let (status, body) = self.exchange(Method::GET, path, None).await?;
        if status == StatusCode::NOT_FOUND { Ok(None) } else { accept(status, body).map(Some) }
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let (status, body) = self.exchange(method, path, body).await?;
        accept(status, body)
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<(StatusCode, Value)> {
        let url = format!("{}{path}", self.url());
        let mut request = self.http.request(method, &url);
        if !self.server.key.is_empty() {
            request = request.bearer_auth(&self.server.key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(|e| {
            let hint = if e.is_connect() { " (is it running? `--url` or CARILLON_URL says where)" } else { "" };
            anyhow::Error::from(e).context(format!("cannot call {url}{hint}"))
        })?;
        let status = answer.status();
        let bytes = answer.bytes().await.with_context(|| format!("{url} broke off"))?;
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap_or(Value::Null) };
        Ok((status, body))
    }

    /// The notification once it is indexed, and, if asked, once all of it has ended.
    pub(crate) async fn notification(&self, id: &str, wait: bool) -> anyhow::Result<Value> {
        let deadline = Instant::now() + Duration::from_secs(if wait { 60 } else { 0 });
        loop {
            let found = self.find(&format!("/v1/notifications/{id}")).await?;
            let ended = |n: &Value| {
                !matches!(n["state"].as_str(), Some("accepted" | "queued" | "sending" | "deferred" | "scheduled"))
            };
            match found {
                Some(n) if !wait || ended(&n) => return Ok(n),
                None if !wait => bail!("there is no notification {id} (one that was just sent takes a second to show)"),
                _ if Instant::now() >= deadline => {
                    bail!("notification {id} has not ended within 60 s; `carillon trace {id}` shows how far it is")
                }
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

/// A path with the parameters that are given.
pub(crate) fn with_query<'a>(path: &str, given: impl IntoIterator<Item = (&'a str, Option<String>)>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(given.into_iter().filter_map(|(name, value)| Some((name, value?))));
    match query.finish() {
        none if none.is_empty() => path.to_owned(),
        query => format!("{path}?{query}"),
    }
}

/// One segment of a path.
pub(crate) fn segment(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

/// The items of a page.
pub(crate) fn items(page: &Value) -> &[Value] {
    page["items"].as_array().map_or(&[], Vec::as_slice)
}

/// The body of a success, or the problem in words.
fn accept(status: StatusCode, body: Value) -> anyhow::Result<Value> {
    if status.is_success() {
        return Ok(body);
    }
    Err(anyhow!(problem(status, &body)))
}

/// The one error, or all of them below what they have in common.
fn problem(status: StatusCode, body: &Value) -> String {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let errors = body["errors"].as_array().map_or(&[][..], Vec::as_slice);
    let line = |error: &Value| format!("{}: {}", text(&error["pointer"]), text(&error["detail"]));
    match errors {
        [one] => format!("{status}: {}", line(one)),
        _ => errors.iter().fold(format!("{status}: {}", text(&body["detail"])), |message, error| {
            format!("{message}\n  {}", line(error))
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_error_is_said_once_and_several_are_listed() {
        let said = |body: Value| problem(StatusCode::BAD_REQUEST, &body);
        let (a, b) = (json!({"pointer": "/a", "detail": "too long"}), json!({"pointer": "/b", "detail": "missing"}));
        assert_eq!(said(json!({"detail": "no"})), "400 Bad Request: no");
        assert_eq!(said(json!({"detail": "/a: too long", "errors": [a]})), "400 Bad Request: /a: too long");
        assert_eq!(
            said(json!({"detail": "2 errors", "errors": [a, b]})),
            "400 Bad Request: 2 errors\n  /a: too long\n  /b: missing"
        );
    }
}
