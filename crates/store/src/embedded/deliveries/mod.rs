//! The search index in `index.db`.

mod put;
mod schema;

use std::{collections::BTreeMap, path::Path, time::Duration};

use async_trait::async_trait;
use domain::{Channel, DeliveryStatus, NotificationId, NotificationStatus, State, Status, TenantId, Timestamp};
use put::Put;
use rusqlite::{
    Connection, OptionalExtension as _, Row, Transaction, params, params_from_iter,
    types::{Value, ValueRef},
};
use schema::STEPS;
use sqlite::LONG_WAL;
use uuid::Uuid;
use wire::Record as _;

use super::file::{File, cutoff, cutoff_at, drop_old, give_space_back, parsed};
use crate::{
    Balance, Deliveries, DeliveryQuery, Document, IndexError, NotificationView, Page, StoreError, codec,
    cursor::Cursor,
    words::{self, Asked},
};

/// Most deliveries that are shown with their notification.
const SHOWN: i64 = 10_000;

/// Most deliveries on a page.
const PAGE: usize = 1_000;

pub(super) struct EmbeddedDeliveries {
    file: File,
    retention: Duration,
}

impl EmbeddedDeliveries {
    pub(super) fn open(dir: &Path, retention: Duration) -> Result<Self, StoreError> {
        Ok(Self { file: File::open(dir, "index.db", STEPS, LONG_WAL)?, retention })
    }
}

#[async_trait]
impl Deliveries for EmbeddedDeliveries {
    async fn index(&self, documents: &[Document]) -> Result<Vec<Result<(), IndexError>>, StoreError> {
        let rows: Vec<_> = documents.iter().map(Put::of).collect();
        let before = cutoff(self.retention);
        let job = move |tx: &Transaction<'_>| {
            prune(tx, before, rows.len())?;
            put::write(tx, &rows)
        };
        self.file.write(job).await
    }

    async fn notification(
        &self,
        tenant: &TenantId,
        id: NotificationId,
    ) -> Result<Option<NotificationView>, StoreError> {
        let tenant = tenant.clone();
        let job = move |db: &Connection| {
            let sql = "SELECT body FROM notification WHERE id = ?1 AND tenant = ?2";
            let key = params![id.0.into_bytes(), tenant.as_str()];
            let Some(notification) = db.prepare_cached(sql)?.query_row(key, notification).optional()? else {
                return Ok(None);
            };
            let sql =
                "SELECT body FROM delivery WHERE notification = ?1 AND tenant = ?2 ORDER BY accepted_at, id LIMIT ?3";
            let mut deliveries = db.prepare_cached(sql)?;
            let key = params![id.0.into_bytes(), tenant.as_str(), SHOWN];
            let deliveries = deliveries.query_map(key, delivery)?.collect::<Result<_, _>>()?;
            Ok(Some(NotificationView { notification, deliveries }))
        };
        self.file.read(job).await
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
        let (sql, values) = select(tenant, query, after, limit);
        let job = move |db: &Connection| {
            let mut found = db.prepare_cached(&sql)?;
            found.query_map(params_from_iter(values), delivery)?.collect::<Result<Vec<_>, _>>()
        };
        let mut items = self.file.read(job).await?;
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = items.last().filter(|_| more).map(|last| Cursor::of(last).text());
        Ok(Some(Page { items, next_cursor }))
    }

    async fn balance(&self, tenant: Option<&TenantId>, until: Timestamp) -> Result<Vec<Balance>, StoreError> {
        // older ones are pruned: a notification before its deliveries
        let (since, until) = (cutoff(self.retention), until.as_microsecond());
        let tenant = tenant.map(|tenant| tenant.as_str().to_owned());
        self.file.read(move |db| balance(db, tenant.as_deref(), since, until)).await
    }

    async fn prune(&self, now: Timestamp) -> Result<Vec<String>, StoreError> {
        let before = cutoff_at(now, self.retention);
        let mut pruned = 0;
        loop {
            match self.file.write(move |tx| prune(tx, before, PAGE)).await? {
                0 if pruned == 0 => return Ok(Vec::new()),
                0 => return Ok(vec![format!("index.db: {pruned} documents")]),
                some => pruned += some,
            }
        }
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.file.ping().await
    }
}

fn notification(row: &Row<'_>) -> rusqlite::Result<NotificationStatus> {
    match document(row)? {
        Status::Notification(n) => Ok(n),
        Status::Delivery(_) => parsed(Err("a delivery among the notifications".into())),
    }
}

fn delivery(row: &Row<'_>) -> rusqlite::Result<DeliveryStatus> {
    match document(row)? {
        Status::Delivery(d) => Ok(d),
        Status::Notification(_) => parsed(Err("a notification among the deliveries".into())),
    }
}

fn document(row: &Row<'_>) -> rusqlite::Result<Document> {
    parsed(match row.get_ref(0)? {
        ValueRef::Text(json) => codec::document_from_text(json),
        body => Status::decode(body.as_blob()?).map_err(|e| e.to_string()),
    })
}

/// The statement of a search, with one row more than asked for: it tells whether there is another page.
fn select(tenant: &TenantId, query: &DeliveryQuery, after: Option<Cursor>, limit: usize) -> (String, Vec<Value>) {
    // told, because without statistics SQLite takes two bounds on the time for narrower than one user, whose deliveries are few
    // enough to be sorted
    let index = match query {
        DeliveryQuery { notification: Some(_), .. } => "INDEXED BY delivery_by_notification",
        DeliveryQuery { user: Some(_), .. } => "NOT INDEXED",
        _ => "INDEXED BY delivery_by_tenant",
    };
    let mut sql = format!("SELECT body FROM delivery {index} WHERE tenant = ?");
    let mut values = vec![Value::from(tenant.as_str().to_owned())];
    let text = |value: &str| Value::from(value.to_owned());
    let key = query.template.as_deref().filter(|t| !t.contains('@'));
    if let Some(user) = query.user.as_ref().filter(|_| query.notification.is_none()) {
        sql.push_str(" AND n IN (SELECT rowid FROM delivery_users WHERE delivery_users MATCH hex(? || ' ' || ?))");
        values.extend([text(tenant.as_str()), text(user.as_str())]);
    }
    let filters = [
        (" AND user = ?", query.user.as_ref().map(|u| text(u.as_str()))),
        (" AND notification = ?", query.notification.map(|n| blob(n.0))),
        (" AND channel = ?", query.channel.map(|c| text(c.as_str()))),
        (" AND state = ?", query.state.map(|s| text(s.as_str()))),
        (" AND reason = ?", query.reason.map(|r| text(r.as_str()))),
        (" AND category = ?", query.category.as_ref().map(|c| text(c.as_str()))),
        (" AND provider = ?", query.provider.as_deref().map(text)),
        (" AND template = ?", query.template.as_deref().filter(|t| t.contains('@')).map(text)),
        (" AND template >= ?", key.as_ref().map(|key| text(&format!("{key}@")))),
        // the character after `@`
        (" AND template < ?", key.as_ref().map(|key| text(&format!("{key}A")))),
        (
            " AND n IN (SELECT rowid FROM delivery_words WHERE delivery_words MATCH ?)",
            query.q.as_deref().map(|q| text(&question(tenant, q))),
        ),
        (" AND accepted_at >= ?", query.since.map(|t| t.as_microsecond().into())),
        (" AND accepted_at < ?", query.until.map(|t| t.as_microsecond().into())),
    ];
    for (filter, value) in filters {
        if let Some(value) = value {
            sql.push_str(filter);
            values.push(value);
        }
    }
    if let Some(Cursor { accepted_at, id }) = after {
        sql.push_str(" AND (accepted_at, id) < (?, ?)");
        values.extend([accepted_at.into(), blob(id.0)]);
    }
    sql.push_str(" ORDER BY accepted_at DESC, id DESC LIMIT ?");
    values.push(i64::try_from(limit + 1).unwrap_or(i64::MAX).into());
    (sql, values)
}

/// The tenant is a word, too, so that what others have is not even counted.
fn question(tenant: &TenantId, q: &str) -> String {
    let mut question = format!("tenant : \"{tenant}\"");
    for asked in words::asked(q) {
        question.push_str(" AND ");
        question.push_str(&match asked {
            Asked::Word(word) => term(&word),
            Asked::Id { whole, parts } => {
                let parts: Vec<_> = parts.iter().map(|part| term(part)).collect();
                format!("({} OR ({}))", term(&whole), parts.join(" AND "))
            }
        });
    }
    question
}

fn term(word: &str) -> String {
    format!("words : \"{word}\"")
}

fn balance(db: &Connection, tenant: Option<&str>, since: i64, until: i64) -> rusqlite::Result<Vec<Balance>> {
    let mut balances = BTreeMap::<TenantId, Balance>::new();
    let whose = if tenant.is_some() { "tenant = ?3" } else { "?3 IS NULL" };
    let filter = format!("accepted_at >= ?1 AND accepted_at < ?2 AND {whose}");
    let mut sums = db.prepare_cached(&format!(
        "SELECT tenant, sum(recipients) FROM notification INDEXED BY notification_by_tenant WHERE {filter} \
         GROUP BY tenant"
    ))?;
    let mut rows = sums.query(params![since, until, tenant])?;
    while let Some(row) = rows.next()? {
        of(&mut balances, row)?.recipients = count(row, 1)?;
    }
    let mut counts = db.prepare_cached(&format!(
        "SELECT tenant, channel, state, count(*), sum(leads) FROM delivery INDEXED BY delivery_by_tenant \
         WHERE {filter} GROUP BY tenant, channel, state"
    ))?;
    let mut rows = counts.query(params![since, until, tenant])?;
    while let Some(row) = rows.next()? {
        let channel = parsed(Channel::parse(row.get_ref(1)?.as_str()?))?;
        let state = parsed(State::parse(row.get_ref(2)?.as_str()?))?;
        let balance = of(&mut balances, row)?;
        balance.decided += count(row, 4)?;
        balance.channels.entry(channel).or_default().insert(state, count(row, 3)?);
    }
    Ok(balances.into_values().collect())
}

fn of<'a>(balances: &'a mut BTreeMap<TenantId, Balance>, row: &Row<'_>) -> rusqlite::Result<&'a mut Balance> {
    let tenant = parsed(TenantId::parse(row.get_ref(0)?.as_str()?))?;
    Ok(balances.entry(tenant.clone()).or_insert_with(|| Balance::empty(tenant)))
}

fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.max(0).unsigned_abs())
}

fn blob(id: Uuid) -> Value {
    Value::Blob(id.as_bytes().to_vec())
}

fn prune(tx: &Transaction<'_>, before: i64, written: usize) -> rusqlite::Result<usize> {
    let deliveries = drop_old(tx, "delivery", "updated_at", before, written)?;
    let notifications = drop_old(tx, "notification", "accepted_at", before, written)?;
    give_space_back(tx, written)?;
    Ok(deliveries + notifications)
}

#[cfg(test)]
mod tests {
    use domain::DeliveryId;

    use super::*;

    #[tokio::test]
    async fn every_search_walks_an_index_in_the_order_of_the_page_and_sorts_only_what_is_one_person_s() {
        let dir = tempfile::tempdir().unwrap();
        let store = EmbeddedDeliveries::open(dir.path(), Duration::from_secs(1)).unwrap();
        let tenant = TenantId::parse("t").unwrap();
        for filters in 0..16 {
            let query = DeliveryQuery {
                user: (filters & 1 > 0).then(|| domain::UserId::parse("u").unwrap()),
                notification: (filters & 2 > 0).then(|| NotificationId(Uuid::nil())),
                state: (filters & 4 > 0).then_some(domain::State::Failed),
                since: (filters & 8 > 0).then_some(domain::Timestamp::UNIX_EPOCH),
                ..DeliveryQuery::default()
            };
            for after in [None, Some(Cursor { accepted_at: 0, id: DeliveryId(Uuid::nil()) })] {
                let (sql, values) = select(&tenant, &query, after, 10);
                let plan = move |db: &Connection| {
                    let mut plan = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
                    plan.query_map(params_from_iter(values), |r| r.get(3))?.collect::<rusqlite::Result<Vec<String>>>()
                };
                let plan = store.file.read(plan).await.unwrap().join("; ");
                let narrowest = match (query.notification, &query.user) {
                    (Some(_), _) => "notification=?",
                    (None, Some(_)) => {
                        "INTEGER PRIMARY KEY (rowid=?); LIST SUBQUERY 1; SCAN delivery_users VIRTUAL TABLE"
                    }
                    (None, None) => "tenant=?",
                };
                assert!(plan.starts_with("SEARCH") && plan.contains(narrowest), "{query:?}: {plan}");
                let sorted = query.notification.is_none() && query.user.is_some();
                assert_eq!(plan.contains("TEMP B-TREE"), sorted, "{query:?}: {plan}");
            }
        }
    }
}
