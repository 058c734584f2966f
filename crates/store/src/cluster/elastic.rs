//! Requests to Elasticsearch, bounded in time, and the templates of our indices.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use domain::Timestamp;
use elasticsearch::{
    auth::Credentials,
    http::{
        Method, Url,
        headers::{CONTENT_TYPE, HeaderMap, HeaderValue},
        transport::{SingleNodeConnectionPool, Transport, TransportBuilder},
    },
};
use jiff::{civil::Date, tz::TimeZone};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};

use super::causes;
use crate::StoreError;

const STORE: &str = "elasticsearch";

/// Of the templates. A new field is also added to the indices that are there; what they held before is not found by it.
const VERSION: u64 = 2;

/// The families of indices; each has one index for each day, so that old ones can be dropped whole.
pub(super) const FAMILIES: [&str; 2] = ["notifications", "deliveries"];

/// One endpoint, which may stand for several nodes.
pub(super) struct Elastic {
    transport: Transport,
    prefix: String,
    address: String,
    limit: Duration,
}

impl Elastic {
    /// Parses the address; nothing is asked yet.
    pub(super) fn new(url: &str, prefix: &str, limit: Duration) -> Result<Self, StoreError> {
        let wrong = |detail: &str| StoreError::unavailable(STORE, detail);
        let named = prefix.starts_with(|c: char| c.is_ascii_lowercase())
            && prefix.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_' | '.'));
        if !(named || prefix.is_empty()) || prefix.len() > 100 {
            return Err(wrong("a prefix has at most 100 characters out of a-z 0-9 - _ . and begins with a letter"));
        }
        let mut url = Url::parse(url).map_err(|_| wrong("its address is no URL"))?;
        let host = url.host_str().ok_or_else(|| wrong("its address has no host"))?;
        let address = format!("{host}:{}", url.port_or_known_default().unwrap_or(9200));
        let credentials = url.password().map(|p| Credentials::Basic(decoded(url.username()), decoded(p)));
        url.set_password(None).and_then(|()| url.set_username("")).map_err(|()| wrong("its address has no host"))?;
        let mut builder = TransportBuilder::new(SingleNodeConnectionPool::new(url)).disable_proxy().timeout(limit);
        if let Some(credentials) = credentials {
            builder = builder.auth(credentials);
        }
        let transport = builder.build().map_err(|e| wrong(&causes(&e)))?;
        Ok(Self { transport, prefix: prefix.to_owned(), address, limit })
    }

    /// The index of a family for a day.
    pub(super) fn index(&self, family: &str, day: Timestamp) -> String {
        format!("{}{family}-{}", self.prefix, day.strftime("%Y.%m.%d"))
    }

    /// Many actions in one request; the body is NDJSON.
    pub(super) async fn bulk<T: DeserializeOwned>(&self, body: Vec<u8>) -> Result<T, StoreError> {
        let path = "_bulk?filter_path=items.*.status,items.*.error.type";
        match self.ask(Method::Post, path, Some(body.into())).await? {
            (200, answer) => self.parse(&answer),
            (status, answer) => Err(self.refused(status, &answer)),
        }
    }

    /// Searches a family; all shards answer, or none. Waits for those that are just being made, as at midnight. Of the answer
    /// there is `part`, if it has it.
    pub(super) async fn search<T: DeserializeOwned>(
        &self,
        family: &str,
        query: &Value,
        part: &str,
    ) -> Result<T, StoreError> {
        let path = format!(
            "{}{family}-*/_search?ignore_unavailable=true&allow_no_indices=true&allow_partial_search_results=false\
             &filter_path={part}",
            self.prefix
        );
        let body = Bytes::from(query.to_string());
        let started = tokio::time::Instant::now();
        loop {
            match self.ask(Method::Post, &path, Some(body.clone())).await? {
                (200, answer) => return self.parse(&answer),
                (503, _) if started.elapsed() < self.limit / 2 => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                (status, answer) => return Err(self.refused(status, &answer)),
            }
        }
    }

    /// The indices of a family, each with the end of its day.
    pub(super) async fn indices(&self, family: &str) -> Result<Vec<(String, Timestamp)>, StoreError> {
        let path = format!("{}{family}-*/_alias?ignore_unavailable=true&allow_no_indices=true", self.prefix);
        let found: BTreeMap<String, IgnoredAny> = match self.ask(Method::Get, &path, None).await? {
            (200, answer) => self.parse(&answer)?,
            (404, _) => BTreeMap::new(),
            (status, answer) => return Err(self.refused(status, &answer)),
        };
        let ours = format!("{}{family}-", self.prefix);
        let dated = |name: String| day_end(name.strip_prefix(&ours)?).map(|end| (name, end));
        Ok(found.into_keys().filter_map(dated).collect())
    }

    /// Drops an index; `false`: somebody else has done it.
    pub(super) async fn drop_index(&self, name: &str) -> Result<bool, StoreError> {
        match self.ask(Method::Delete, name, None).await? {
            (200, _) => Ok(true),
            (404, _) => Ok(false),
            (status, answer) => Err(self.refused(status, &answer)),
        }
    }

    /// Answers when the cluster does.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        match self.ask(Method::Get, "_cluster/health?filter_path=status", None).await? {
            (200, _) => Ok(()),
            (status, answer) => Err(self.refused(status, &answer)),
        }
    }

    /// Whether the templates are those of this version, or later ones, as during an upgrade.
    pub(super) async fn check_templates(&self) -> Result<(), StoreError> {
        for family in FAMILIES {
            let found = self.template_version(family).await?;
            if found < VERSION {
                let detail = format!(
                    "{}: index template {}{family} has version {found} and {VERSION} is needed; run `carillon schema`",
                    self.address, self.prefix
                );
                return Err(StoreError::unavailable(STORE, detail));
            }
        }
        Ok(())
    }

    /// Puts the templates that are missing or older.
    pub(super) async fn put_templates(&self) -> Result<Vec<String>, StoreError> {
        let mut done = Vec::new();
        for family in FAMILIES {
            if self.template_version(family).await? >= VERSION {
                continue;
            }
            let name = format!("{}{family}", self.prefix);
            // those that are there first: the version of the template says that all is done
            let there = format!("{name}-*/_mapping?ignore_unavailable=true&allow_no_indices=true");
            self.put(&there, &mappings()).await?;
            self.put(&format!("_index_template/{name}"), &template(&name)).await?;
            done.push(format!("elasticsearch: index template {name}, version {VERSION}"));
        }
        Ok(done)
    }

    async fn put(&self, path: &str, body: &Value) -> Result<(), StoreError> {
        match self.ask(Method::Put, path, Some(body.to_string().into())).await? {
            (200, _) => Ok(()),
            (status, answer) => Err(self.refused(status, &answer)),
        }
    }

    async fn template_version(&self, family: &str) -> Result<u64, StoreError> {
        let path =
            format!("_index_template/{}{family}?filter_path=index_templates.index_template.version", self.prefix);
        match self.ask(Method::Get, &path, None).await? {
            (200, answer) => {
                let answer: Value = self.parse(&answer)?;
                Ok(answer["index_templates"][0]["index_template"]["version"].as_u64().unwrap_or(0))
            }
            (404, _) => Ok(0),
            (status, answer) => Err(self.refused(status, &answer)),
        }
    }

    /// One request; the answer's status and body.
    async fn ask(&self, method: Method, path: &str, body: Option<Bytes>) -> Result<(u16, Bytes), StoreError> {
        let mut headers = HeaderMap::new();
        if path.starts_with("_bulk") {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        }
        let failed =
            |e: elasticsearch::Error| StoreError::unavailable(STORE, format!("{}: {}", self.address, causes(&e)));
        let answer = self.transport.send(method, path, headers, None::<&()>, body, None).await.map_err(failed)?;
        let status = answer.status_code().as_u16();
        Ok((status, answer.bytes().await.map_err(failed)?))
    }

    fn parse<T: DeserializeOwned>(&self, answer: &[u8]) -> Result<T, StoreError> {
        let unexpected =
            |e: &serde_json::Error| format!("{}: an unexpected answer, at column {}", self.address, e.column());
        serde_json::from_slice(answer).map_err(|e| StoreError::unavailable(STORE, unexpected(&e)))
    }

    /// Only the kind of an error: its reason may quote a document.
    fn refused(&self, status: u16, answer: &[u8]) -> StoreError {
        let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
        let kind = answer["error"]["type"].as_str().unwrap_or("no reason given");
        StoreError::unavailable(STORE, format!("{}: status {status}, {kind}", self.address))
    }
}

/// When the day of an index is over.
fn day_end(day: &str) -> Option<Timestamp> {
    let date = Date::strptime("%Y.%m.%d", day).ok().filter(|date| date.strftime("%Y.%m.%d").to_string() == day)?;
    Some(date.tomorrow().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// A part of a URL as it was before it was escaped.
fn decoded(part: &str) -> String {
    // the form decoder also takes `+` for a space, which a password means literally
    let pair = format!("p={}", part.replace('+', "%2B"));
    let mut url = Url::parse("http://localhost").ok();
    if let Some(url) = &mut url {
        url.set_query(Some(&pair));
    }
    url.and_then(|u| u.query_pairs().next().map(|(_, v)| v.into_owned())).unwrap_or_default()
}

fn template(name: &str) -> Value {
    json!({
        "index_patterns": [format!("{name}-*")],
        "version": VERSION,
        "priority": 200,
        "template": {
            // a refresh of its own accord, also when nobody has searched for a while
            "settings": { "refresh_interval": "1s", "auto_expand_replicas": "0-1" },
            "mappings": mappings(),
        }
    })
}

fn mappings() -> Value {
    let keyword = json!({ "type": "keyword" });
    let nanos = json!({ "type": "date_nanos" });
    json!({
        "dynamic": false,
        "properties": {
            "kind": keyword,
            "id": keyword,
            "notification": keyword,
            "tenant": keyword,
            "user": keyword,
            "recipient": keyword,
            "recipients": { "type": "integer" },
            "channel": keyword,
            "channels": keyword,
            "address": { "type": "keyword", "index": false, "doc_values": false },
            "category": keyword,
            "template": keyword,
            "provider": keyword,
            "leads": { "type": "boolean" },
            "priority": { "type": "byte" },
            "state": keyword,
            "reason": keyword,
            "accepted_at": nanos,
            "updated_at": nanos,
            "expires_at": { "type": "date" },
            "version": { "type": "long" },
            // a longer value is stored, but not found; without the limit it would be refused
            "metadata": { "type": "flattened", "ignore_above": 1024 },
            // cut by us, so that every index finds the same
            "words": { "type": "keyword", "doc_values": false },
            "history": { "type": "object", "enabled": false }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_day_is_a_day() {
        let end = |day| day_end(day).map(|end| end.to_string());
        assert_eq!(end("2026.02.28").as_deref(), Some("2026-03-01T00:00:00Z"));
        for other in ["2026.02.30", "2026.2.28", "2026.02", "x-2026.02.28", "2026.02.28-x", ""] {
            assert_eq!(end(other), None, "{other}");
        }
    }
}
