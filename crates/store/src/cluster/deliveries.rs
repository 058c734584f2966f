//! The search index in Elasticsearch: an index for each day of acceptance, documents replaced whole by external version.

use std::time::Duration;

use async_trait::async_trait;
use domain::{DeliveryStatus, NotificationId, NotificationStatus, Status, TenantId, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    balance,
    elastic::{Elastic, FAMILIES},
};
use crate::{
    Balance, Deliveries, DeliveryQuery, Document, IndexError, NotificationView, Page, StoreError, codec,
    cursor::{Cursor, LAST},
    words::{self, Asked},
};

/// Most bytes of one bulk request, give or take a document.
const BULK_BYTES: usize = 8 << 20;

/// Most deliveries that are shown with their notification: also what Elasticsearch gives at most at once.
const SHOWN: usize = 10_000;

/// Most deliveries on a page.
const PAGE: usize = 1_000;

/// The index of notifications and deliveries.
pub(super) struct ElasticDeliveries {
    elastic: Elastic,
    retention: Duration,
}

#[derive(Deserialize)]
struct Bulk {
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    index: Written,
}

#[derive(Deserialize)]
struct Written {
    status: u16,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(rename = "type")]
    kind: String,
}

/// Without a hit, the parts that were asked for are missing.
#[derive(Deserialize)]
struct Found {
    #[serde(default)]
    hits: Hits,
}

#[derive(Deserialize, Default)]
struct Hits {
    #[serde(default)]
    hits: Vec<Hit>,
}

#[derive(Deserialize)]
struct Hit {
    #[serde(rename = "_source")]
    source: Value,
}

impl ElasticDeliveries {
    /// The index behind an endpoint; a day is dropped when it has been over for the retention.
    pub(super) fn new(elastic: Elastic, retention: Duration) -> Self {
        Self { elastic, retention }
    }

    /// Sends what has gathered in `body`, which is empty afterwards.
    async fn flush(
        &self,
        body: &mut Vec<u8>,
        count: usize,
        results: &mut Vec<Result<(), IndexError>>,
    ) -> Result<(), StoreError> {
        if count == 0 {
            return Ok(());
        }
        let answer: Bulk = self.elastic.bulk(std::mem::take(body)).await?;
        if answer.items.len() != count {
            return Err(StoreError::unavailable("elasticsearch", "a result for every document is missing"));
        }
        results.extend(answer.items.into_iter().map(|item| verdict(item.index)));
        Ok(())
    }

    /// Appends the two lines of a document.
    fn write(&self, document: &Document, body: &mut Vec<u8>) -> Result<(), IndexError> {
        let (family, day, id, version) = match document {
            Status::Notification(n) => ("notifications", n.accepted_at, n.id.0, codec::NOTIFICATION_VERSION),
            Status::Delivery(d) => ("deliveries", d.accepted_at, d.id.0, d.version()),
        };
        let index = self.elastic.index(family, day);
        // neither a family, nor a prefix, nor a day has anything to escape
        let action =
            format!(r#"{{"index":{{"_index":"{index}","_id":"{id}","version":{version},"version_type":"external"}}}}"#);
        body.extend_from_slice(action.as_bytes());
        body.push(b'\n');
        codec::write_document(document, body).map_err(|e| IndexError::Rejected(e.to_string()))?;
        body.push(b'\n');
        Ok(())
    }

    async fn find(&self, family: &str, query: &Value) -> Result<impl Iterator<Item = Value> + use<>, StoreError> {
        let found: Found = self.elastic.search(family, query, "hits.hits._source").await?;
        Ok(found.hits.hits.into_iter().map(|hit| hit.source))
    }
}

#[async_trait]
impl Deliveries for ElasticDeliveries {
    async fn index(&self, documents: &[Document]) -> Result<Vec<Result<(), IndexError>>, StoreError> {
        let mut results = Vec::with_capacity(documents.len());
        let (mut body, mut count) = (Vec::with_capacity(BULK_BYTES.min(documents.len() * 2048)), 0);
        for document in documents {
            let start = body.len();
            if let Err(e) = self.write(document, &mut body) {
                // results are in order, so those before it come first
                body.truncate(start);
                self.flush(&mut body, count, &mut results).await?;
                count = 0;
                results.push(Err(e));
                continue;
            }
            count += 1;
            if body.len() >= BULK_BYTES {
                self.flush(&mut body, count, &mut results).await?;
                count = 0;
            }
        }
        self.flush(&mut body, count, &mut results).await?;
        Ok(results)
    }

    async fn notification(
        &self,
        tenant: &TenantId,
        id: NotificationId,
    ) -> Result<Option<NotificationView>, StoreError> {
        let of = |field: &str| json!({ "bool": { "filter": [{ "term": { "tenant": tenant } }, { "term": { field: id } }] } });
        let mut found = self.find("notifications", &json!({ "size": 1, "query": of("id") })).await?;
        let Some(notification) = found.next().map(notification).transpose()? else { return Ok(None) };
        let query = json!({
            "size": SHOWN,
            "query": of("notification"),
            "sort": [{ "accepted_at": "asc" }, { "id": "asc" }],
            "_source": { "excludes": ["words"] },
            "track_total_hits": false,
        });
        let deliveries = self.find("deliveries", &query).await?.map(delivery).collect::<Result<_, _>>()?;
        Ok(Some(NotificationView { notification, deliveries }))
    }

    async fn search(
        &self,
        tenant: &TenantId,
        query: &DeliveryQuery,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Option<Page>, StoreError> {
        let Ok(after) = cursor.map(|text| Cursor::parse(text).ok_or(())).transpose() else { return Ok(None) };
        if query.q.as_deref().is_some_and(|q| words::asked(q).is_empty()) {
            return Ok(Some(Page { items: Vec::new(), next_cursor: None }));
        }
        let limit = limit.clamp(1, PAGE);
        let query = search(tenant, query, after.as_ref(), limit);
        let mut items = self.find("deliveries", &query).await?.map(delivery).collect::<Result<Vec<_>, _>>()?;
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = items.last().filter(|_| more).map(|last| Cursor::of(last).text());
        Ok(Some(Page { items, next_cursor }))
    }

    async fn balance(&self, tenant: Option<&TenantId>, until: Timestamp) -> Result<Vec<Balance>, StoreError> {
        let since = Timestamp::now().checked_sub(self.retention).unwrap_or(Timestamp::MIN);
        balance::count(&self.elastic, tenant, &bound(since), &bound(until)).await
    }

    async fn prune(&self, now: Timestamp) -> Result<Vec<String>, StoreError> {
        let before = now.checked_sub(self.retention).unwrap_or(Timestamp::MIN);
        let mut dropped = Vec::new();
        for family in FAMILIES {
            for (name, _) in self.elastic.indices(family).await?.into_iter().filter(|(_, end)| *end <= before) {
                if self.elastic.drop_index(&name).await? {
                    dropped.push(format!("elasticsearch: index {name}"));
                }
            }
        }
        Ok(dropped)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.elastic.ping().await
    }
}

/// What became of one document. A conflict says that this version, or a later one, is there already. Only what lies in the
/// document itself is final; a full cluster, a missing index or a right that was taken away can be put in order.
fn verdict(written: Written) -> Result<(), IndexError> {
    let kind = written.error.map_or_else(|| "no reason given".to_owned(), |e| e.kind);
    match written.status {
        200..=299 | 409 => Ok(()),
        // "this action would add [2] shards, but this cluster currently has [1000]/[1000]" is one, too
        400 if !["validation_exception", "index_closed_exception"].contains(&kind.as_str()) => {
            Err(IndexError::Rejected(kind))
        }
        status => Err(IndexError::Transient(format!("status {status}, {kind}"))),
    }
}

/// The body of a search, with one hit more than asked for: it tells whether there is another page.
fn search(tenant: &TenantId, query: &DeliveryQuery, after: Option<&Cursor>, limit: usize) -> Value {
    let terms = [
        ("tenant", Some(json!(tenant))),
        ("user", query.user.as_ref().map(|u| json!(u))),
        ("notification", query.notification.map(|n| json!(n))),
        ("channel", query.channel.map(|c| json!(c.as_str()))),
        ("state", query.state.map(|s| json!(s.as_str()))),
        ("reason", query.reason.map(|r| json!(r.as_str()))),
        ("category", query.category.as_ref().map(|c| json!(c))),
        ("provider", query.provider.as_ref().map(|p| json!(p))),
        ("template", query.template.as_ref().filter(|t| t.contains('@')).map(|t| json!(t))),
    ];
    let mut filter: Vec<_> =
        terms.into_iter().filter_map(|(field, value)| Some(json!({ "term": { field: value? } }))).collect();
    for (bound, at) in [("gte", query.since), ("lt", query.until)] {
        if let Some(at) = at {
            filter.push(json!({ "range": { "accepted_at": { bound: self::bound(at) } } }));
        }
    }
    if let Some(key) = query.template.as_ref().filter(|t| !t.contains('@')) {
        filter.push(json!({ "prefix": { "template": format!("{key}@") } }));
    }
    let term = |word: &str| json!({ "term": { "words": word } });
    for asked in query.q.iter().flat_map(|q| words::asked(q)) {
        filter.push(match asked {
            Asked::Word(word) => term(&word),
            Asked::Id { whole, parts } => {
                let parts: Vec<_> = parts.iter().map(|part| term(part)).collect();
                json!({ "bool": { "should": [term(&whole), { "bool": { "filter": parts } }] } })
            }
        });
    }
    let mut body = json!({
        "size": limit + 1,
        "query": { "bool": { "filter": filter } },
        "sort": [
            { "accepted_at": { "order": "desc", "format": "strict_date_optional_time_nanos" } },
            { "id": "desc" }
        ],
        "_source": { "excludes": ["words"] },
        "track_total_hits": false,
    });
    if let Some(after) = after {
        body["search_after"] = json!([text(after.accepted_at), after.id]);
    }
    body
}

/// A bound of a search by time, as the index compares it.
fn bound(at: Timestamp) -> String {
    text(at.as_microsecond().clamp(0, LAST))
}

fn text(micros: i64) -> String {
    format!("{:.6}", Timestamp::from_microsecond(micros).unwrap_or_default())
}

fn notification(source: Value) -> Result<NotificationStatus, StoreError> {
    match codec::document_from_json(source) {
        Ok(Status::Notification(n)) => Ok(n),
        Ok(Status::Delivery(_)) => Err(StoreError::corrupt("elasticsearch", "a delivery among the notifications")),
        Err(e) => Err(StoreError::corrupt("elasticsearch", e)),
    }
}

fn delivery(source: Value) -> Result<DeliveryStatus, StoreError> {
    match codec::document_from_json(source) {
        Ok(Status::Delivery(d)) => Ok(d),
        Ok(Status::Notification(_)) => Err(StoreError::corrupt("elasticsearch", "a notification among the deliveries")),
        Err(e) => Err(StoreError::corrupt("elasticsearch", e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_in_the_document_is_final() {
        let of = |status, kind: &str| {
            let error = (status >= 300).then(|| Refusal { kind: kind.to_owned() });
            match verdict(Written { status, error }) {
                Ok(()) => "done",
                Err(IndexError::Transient(_)) => "later",
                Err(IndexError::Rejected(_)) => "never",
            }
        };
        assert_eq!(of(201, ""), "done");
        assert_eq!(of(409, "version_conflict_engine_exception"), "done");
        assert_eq!(of(400, "document_parsing_exception"), "never");
        assert_eq!(of(400, "validation_exception"), "later");
        assert_eq!(of(400, "index_closed_exception"), "later");
        for (status, kind) in [
            (429, "es_rejected_execution_exception"),
            (429, "cluster_block_exception"),
            (403, "security_exception"),
            (404, "index_not_found_exception"),
            (503, "unavailable_shards_exception"),
        ] {
            assert_eq!(of(status, kind), "later", "{kind}");
        }
    }
}
