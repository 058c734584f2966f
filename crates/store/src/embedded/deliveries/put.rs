//! Writing documents. Whatever can be made of one beforehand is made on the caller's thread: a file has one writer.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bytes::Bytes;
use domain::{DeliveryStatus, NotificationStatus, Status};
use rusqlite::{ErrorCode, OptionalExtension as _, Row, Transaction, params};
use wire::Record as _;

use crate::{Document, IndexError, words};

/// A document as its row.
#[expect(clippy::large_enum_variant, reason = "nearly all are deliveries, which a box would cost an allocation each")]
pub(super) enum Put {
    Notification(Notification),
    Delivery(Delivery),
}

pub(super) struct Notification {
    id: [u8; 16],
    tenant: String,
    accepted_at: i64,
    recipients: u32,
    body: Bytes,
}

pub(super) struct Delivery {
    id: [u8; 16],
    tenant: String,
    notification: [u8; 16],
    user: Option<String>,
    channel: &'static str,
    category: Option<String>,
    state: &'static str,
    reason: Option<&'static str>,
    accepted_at: i64,
    updated_at: i64,
    version: i64,
    body: Bytes,
    template: Option<String>,
    provider: Option<String>,
    leads: bool,
    words: String,
    words_hash: i64,
}

impl Put {
    /// The row of a document.
    pub(super) fn of(document: &Document) -> Self {
        let body = document.encode();
        match document {
            Status::Notification(n) => Self::Notification(Notification::of(n, body)),
            Status::Delivery(d) => Self::Delivery(Delivery::of(d, body)),
        }
    }

    /// The delivery whose words are to be written, if any are.
    fn write(&self, tx: &Transaction<'_>) -> rusqlite::Result<Option<Found<'_>>> {
        match self {
            Self::Notification(n) => n.write(tx).map(|()| None),
            Self::Delivery(d) => d.write(tx),
        }
    }
}

/// Writes rows, each with its own result. What SQLite says against one document is the document's fate; anything else is the
/// whole call's.
pub(super) fn write(tx: &Transaction<'_>, rows: &[Put]) -> rusqlite::Result<Vec<Result<(), IndexError>>> {
    let (mut results, mut found) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    for row in rows {
        results.push(match row.write(tx) {
            Ok(words) => {
                found.extend(words);
                Ok(())
            }
            Err(rusqlite::Error::SqliteFailure(f, detail))
                if matches!(f.code, ErrorCode::ConstraintViolation | ErrorCode::TooBig) =>
            {
                Err(IndexError::Rejected(detail.unwrap_or_else(|| f.to_string())))
            }
            Err(e) => return Err(e),
        });
    }
    // FTS5 gathers rows for as long as they ascend, and writes a segment out when one does not
    found.sort_by_key(|words| words.n);
    found.iter().try_for_each(|words| words.write(tx))?;
    Ok(results)
}

/// The words of a delivery that are to be found.
struct Found<'a> {
    n: i64,
    /// There are others of an older version.
    again: bool,
    delivery: &'a Delivery,
}

impl Found<'_> {
    fn write(&self, tx: &Transaction<'_>) -> rusqlite::Result<()> {
        let sql = if self.again {
            "REPLACE INTO delivery_words (rowid, tenant, words) VALUES (?1, ?2, ?3)"
        } else {
            "INSERT INTO delivery_words (rowid, tenant, words) VALUES (?1, ?2, ?3)"
        };
        let Delivery { tenant, words, .. } = self.delivery;
        tx.prepare_cached(sql)?.execute(params![self.n, tenant, words]).map(|_| ())
    }
}

impl Notification {
    fn of(n: &NotificationStatus, body: Bytes) -> Self {
        Self {
            id: n.id.0.into_bytes(),
            tenant: n.tenant.to_string(),
            accepted_at: n.accepted_at.as_microsecond(),
            recipients: n.recipients,
            body,
        }
    }

    fn write(&self, tx: &Transaction<'_>) -> rusqlite::Result<()> {
        let sql = "INSERT INTO notification (id, tenant, accepted_at, body, recipients) VALUES (?1, ?2, ?3, ?4, ?5) \
                   ON CONFLICT DO NOTHING";
        let row = params![self.id, self.tenant, self.accepted_at, &*self.body, self.recipients];
        tx.prepare_cached(sql)?.execute(row).map(|_| ())
    }
}

impl Delivery {
    fn of(d: &DeliveryStatus, body: Bytes) -> Self {
        let words: Vec<_> = words::of(d).into_iter().collect();
        let words = words.join(" ");
        let mut hasher = DefaultHasher::new();
        words.hash(&mut hasher);
        Self {
            id: d.id.0.into_bytes(),
            tenant: d.tenant.to_string(),
            notification: d.notification.0.into_bytes(),
            user: d.user.as_ref().map(ToString::to_string),
            channel: d.channel.as_str(),
            category: d.category.as_ref().map(ToString::to_string),
            state: d.state.as_str(),
            reason: d.reason.map(|r| r.as_str()),
            accepted_at: d.accepted_at.as_microsecond(),
            updated_at: d.updated_at.as_microsecond(),
            version: i64::try_from(d.version()).unwrap_or(i64::MAX),
            body,
            template: d.template.clone(),
            provider: d.provider.clone(),
            leads: d.leads,
            words,
            words_hash: hasher.finish().cast_signed(),
        }
    }

    fn write(&self, tx: &Transaction<'_>) -> rusqlite::Result<Option<Found<'_>>> {
        let sql =
            "SELECT n, version, words_hash FROM delivery WHERE notification = ?1 AND accepted_at = ?2 AND id = ?3";
        let key = params![self.notification, self.accepted_at, self.id];
        let known = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
        match tx.prepare_cached(sql)?.query_row(key, known).optional()? {
            None => {
                self.insert(tx)?;
                let n = tx.last_insert_rowid();
                if let Some(user) = &self.user {
                    let sql = "INSERT INTO delivery_users (rowid, user) VALUES (?1, hex(?2 || ' ' || ?3))";
                    tx.prepare_cached(sql)?.execute(params![n, self.tenant, user])?;
                }
                Ok(Some(Found { n, again: false, delivery: self }))
            }
            Some((n, version, words_hash)) if version < self.version => {
                self.update(tx, n)?;
                // most steps of a delivery add no words
                Ok((words_hash != self.words_hash).then_some(Found { n, again: true, delivery: self }))
            }
            // a newer version is there
            Some(_) => Ok(None),
        }
    }

    fn insert(&self, tx: &Transaction<'_>) -> rusqlite::Result<()> {
        let sql = "INSERT INTO delivery (id, tenant, notification, user, channel, category, state, reason, \
                   accepted_at, updated_at, version, body, template, provider, leads, words_hash) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)";
        let row = params![
            self.id,
            self.tenant,
            self.notification,
            self.user,
            self.channel,
            self.category,
            self.state,
            self.reason,
            self.accepted_at,
            self.updated_at,
            self.version,
            &*self.body,
            self.template,
            self.provider,
            self.leads,
            self.words_hash,
        ];
        tx.prepare_cached(sql)?.execute(row).map(|_| ())
    }

    /// Only what a step can change: an index of other columns stays as it is.
    fn update(&self, tx: &Transaction<'_>, n: i64) -> rusqlite::Result<()> {
        let sql = "UPDATE delivery SET state = ?2, reason = ?3, updated_at = ?4, version = ?5, body = ?6, \
                   template = ?7, provider = ?8, leads = ?9, words_hash = ?10 WHERE n = ?1";
        let row = params![
            n,
            self.state,
            self.reason,
            self.updated_at,
            self.version,
            &*self.body,
            self.template,
            self.provider,
            self.leads,
            self.words_hash,
        ];
        tx.prepare_cached(sql)?.execute(row).map(|_| ())
    }
}
