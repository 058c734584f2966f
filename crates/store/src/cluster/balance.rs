//! Counting in Elasticsearch: composite aggregations, page by page, which leave nothing out.

use std::collections::BTreeMap;

use domain::{Channel, State, TenantId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::elastic::Elastic;
use crate::{Balance, StoreError};

/// Buckets of one page.
const PAGE: usize = 1_000;

/// The parts of an answer; without an index there are none.
#[derive(Deserialize, Default)]
struct Answer {
    #[serde(default)]
    aggregations: Aggregations,
}

#[derive(Deserialize, Default)]
struct Aggregations {
    #[serde(default)]
    groups: Groups,
}

#[derive(Deserialize, Default)]
struct Groups {
    after_key: Option<Value>,
    #[serde(default)]
    buckets: Vec<Bucket>,
}

#[derive(Deserialize)]
struct Bucket {
    key: Key,
    doc_count: u64,
    recipients: Option<Sum>,
    leads: Option<Count>,
}

#[derive(Deserialize)]
struct Key {
    tenant: TenantId,
    channel: Option<String>,
    state: Option<String>,
}

#[derive(Deserialize)]
struct Sum {
    value: f64,
}

#[derive(Deserialize)]
struct Count {
    doc_count: u64,
}

/// Counts what was accepted from `since` on and before `until`.
pub(super) async fn count(
    elastic: &Elastic,
    tenant: Option<&TenantId>,
    since: &str,
    until: &str,
) -> Result<Vec<Balance>, StoreError> {
    let mut filter = vec![json!({ "range": { "accepted_at": { "gte": since, "lt": until } } })];
    filter.extend(tenant.map(|tenant| json!({ "term": { "tenant": tenant } })));
    let query = json!({ "bool": { "filter": filter } });
    let mut balances = BTreeMap::<TenantId, Balance>::new();
    let recipients = json!({ "recipients": { "sum": { "field": "recipients" } } });
    for bucket in groups(elastic, "notifications", &query, &["tenant"], &recipients).await? {
        let sum = bucket.recipients.map_or(0.0, |r| r.value);
        of(&mut balances, bucket.key.tenant).recipients += whole(sum)?;
    }
    let leads = json!({ "leads": { "filter": { "term": { "leads": true } } } });
    for bucket in groups(elastic, "deliveries", &query, &["tenant", "channel", "state"], &leads).await? {
        let Key { tenant, channel, state } = bucket.key;
        let balance = of(&mut balances, tenant);
        balance.decided += bucket.leads.map_or(0, |l| l.doc_count);
        // a newer version of Carillon has channels and states that this one cannot name
        let named = channel.and_then(|c| Channel::parse(&c).ok()).zip(state.and_then(|s| State::parse(&s).ok()));
        if let Some((channel, state)) = named {
            *balance.channels.entry(channel).or_default().entry(state).or_default() += bucket.doc_count;
        }
    }
    Ok(balances.into_values().collect())
}

fn of(balances: &mut BTreeMap<TenantId, Balance>, tenant: TenantId) -> &mut Balance {
    balances.entry(tenant.clone()).or_insert_with(|| Balance::empty(tenant))
}

/// Every group of documents that agree in these fields.
async fn groups(
    elastic: &Elastic,
    family: &str,
    query: &Value,
    fields: &[&str],
    parts: &Value,
) -> Result<Vec<Bucket>, StoreError> {
    let sources: Vec<_> = fields.iter().map(|field| json!({ *field: { "terms": { "field": field } } })).collect();
    let mut composite = json!({ "size": PAGE, "sources": sources });
    let mut all = Vec::new();
    loop {
        let body = json!({
            "size": 0,
            "track_total_hits": false,
            "query": query,
            "aggs": { "groups": { "composite": composite, "aggs": parts } },
        });
        let answer: Answer = elastic.search(family, &body, "aggregations.groups").await?;
        let Groups { after_key, buckets } = answer.aggregations.groups;
        let last = buckets.len() < PAGE;
        all.extend(buckets);
        let Some(after) = after_key.filter(|_| !last) else { return Ok(all) };
        composite["after"] = after;
    }
}

/// Elasticsearch adds whole numbers up as floating point ones, which is exact up to 2^53.
fn whole(sum: f64) -> Result<u64, StoreError> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let wrong = || StoreError::corrupt("elasticsearch", "a sum of recipients that is no whole number");
    if !(0.0..EXACT).contains(&sum) || sum.fract() != 0.0 {
        return Err(wrong());
    }
    format!("{sum:.0}").parse().map_err(|_| wrong())
}
