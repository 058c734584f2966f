//! The ledger in `ledger.db`.

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use domain::{Address, Channel, DeliveryId, TenantId, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use sqlite::SHORT_WAL;

use super::file::{File, cutoff, drop_old, give_space_back, slice, time};
use crate::{Claim, ClaimRequest, Decided, Decision, Ledger, Settled, StoreError, codec, ledger::GONE};

/// `kept_from` counts by this machine's clock, in microseconds; `settled` is null while the claim is open; `address` is the
/// channel with a hash.
const STEPS: &[&str] = &[
    "
    CREATE TABLE claim (
        delivery BLOB PRIMARY KEY,
        owner BLOB NOT NULL,
        at INTEGER NOT NULL,
        kept_from INTEGER NOT NULL,
        settled BLOB
    ) STRICT;
    CREATE INDEX claim_by_age ON claim (kept_from);
",
    "
    CREATE TABLE gone (
        tenant TEXT NOT NULL,
        address TEXT NOT NULL,
        at INTEGER NOT NULL,
        kept_from INTEGER NOT NULL,
        PRIMARY KEY (tenant, address)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX gone_by_age ON gone (kept_from);
",
    "
    CREATE TABLE decision (
        notification BLOB NOT NULL,
        recipient TEXT NOT NULL,
        plan BLOB NOT NULL,
        kept_from INTEGER NOT NULL,
        PRIMARY KEY (notification, recipient)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX decision_by_age ON decision (kept_from);
",
    "
    DROP INDEX claim_by_age;
",
];

pub(super) struct EmbeddedLedger {
    file: File,
    window: Duration,
}

impl EmbeddedLedger {
    pub(super) fn open(dir: &Path, window: Duration) -> Result<Self, StoreError> {
        Ok(Self { file: File::open(dir, "ledger.db", STEPS, SHORT_WAL)?, window })
    }
}

#[async_trait]
impl Ledger for EmbeddedLedger {
    async fn decide(&self, decisions: &[Decision]) -> Result<Vec<Option<Decided>>, StoreError> {
        let decisions = decisions.to_vec();
        let before = cutoff(self.window);
        let job = move |tx: &Transaction<'_>| {
            let sql = "DELETE FROM decision WHERE (notification, recipient) IN \
                       (SELECT notification, recipient FROM decision WHERE kept_from < ?1 ORDER BY kept_from LIMIT ?2)";
            tx.prepare_cached(sql)?.execute([before, slice(decisions.len())])?;
            decisions.iter().map(|decision| decide(tx, decision)).collect()
        };
        self.file.write(job).await
    }

    async fn claim(&self, requests: &[ClaimRequest]) -> Result<Vec<Claim>, StoreError> {
        let requests = requests.to_vec();
        let before = cutoff(self.window);
        let job = move |tx: &Transaction<'_>| {
            prune(tx, before, requests.len())?;
            requests.iter().map(|request| claim(tx, request)).collect()
        };
        self.file.write(job).await
    }

    async fn take_over(&self, request: &ClaimRequest, from: u128) -> Result<bool, StoreError> {
        let request = request.clone();
        let job = move |tx: &Transaction<'_>| {
            let sql = "UPDATE claim SET owner = ?1, at = ?2, kept_from = ?3 \
                       WHERE delivery = ?4 AND owner = ?5 AND settled IS NULL";
            let at = request.at.as_microsecond();
            let row = params![owner(request.owner), at, now(), key(request.delivery), owner(from)];
            Ok(tx.prepare_cached(sql)?.execute(row)? == 1)
        };
        self.file.write(job).await
    }

    async fn release(&self, delivery: DeliveryId, by: u128) -> Result<(), StoreError> {
        let job = move |tx: &Transaction<'_>| {
            let sql = "DELETE FROM claim WHERE delivery = ?1 AND owner = ?2 AND settled IS NULL";
            tx.prepare_cached(sql)?.execute(params![key(delivery), owner(by)])
        };
        self.file.write(job).await.map(|_| ())
    }

    async fn settle(&self, owner: u128, ends: &[(DeliveryId, Settled)]) -> Result<Vec<Option<Claim>>, StoreError> {
        let ends = ends.to_vec();
        let before = cutoff(self.window);
        let job = move |tx: &Transaction<'_>| {
            prune(tx, before, ends.len())?;
            ends.iter().map(|(delivery, end)| settle(tx, owner, *delivery, end)).collect()
        };
        self.file.write(job).await
    }

    async fn reopen(&self, request: &ClaimRequest, settled: &Settled) -> Result<bool, StoreError> {
        let (request, settled) = (request.clone(), settled.clone());
        let job = move |tx: &Transaction<'_>| {
            let sql = "UPDATE claim SET owner = ?1, at = ?2, kept_from = ?3, settled = NULL \
                       WHERE delivery = ?4 AND settled = ?5";
            let at = request.at.as_microsecond();
            let row = params![owner(request.owner), at, now(), key(request.delivery), &*settled.0];
            Ok(tx.prepare_cached(sql)?.execute(row)? == 1)
        };
        self.file.write(job).await
    }

    async fn mark_gone(
        &self,
        tenant: &TenantId,
        channel: Channel,
        address: &Address,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let (tenant, address) = (tenant.clone(), codec::address_key(channel, address));
        let before = cutoff(GONE);
        let job = move |tx: &Transaction<'_>| {
            let sql = "DELETE FROM gone WHERE (tenant, address) IN \
                       (SELECT tenant, address FROM gone WHERE kept_from < ?1 ORDER BY kept_from LIMIT ?2)";
            tx.prepare_cached(sql)?.execute([before, slice(1)])?;
            let sql = "INSERT INTO gone VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET \
                       at = excluded.at, kept_from = excluded.kept_from WHERE excluded.at >= at";
            tx.prepare_cached(sql)?.execute(params![tenant.as_str(), address, at.as_microsecond(), now()])
        };
        self.file.write(job).await.map(|_| ())
    }

    async fn gone(&self, addresses: &[(TenantId, Channel, Address)]) -> Result<Vec<Option<Timestamp>>, StoreError> {
        let asked: Vec<_> = addresses.iter().map(|(t, c, a)| (t.clone(), codec::address_key(*c, a))).collect();
        let before = cutoff(GONE);
        let job = move |db: &Connection| {
            let sql = "SELECT at FROM gone WHERE tenant = ?1 AND address = ?2 AND kept_from >= ?3";
            let mut find = db.prepare_cached(sql)?;
            let at = |row: &Row<'_>| time(row.get(0)?);
            asked.iter().map(|(t, a)| find.query_row(params![t.as_str(), a, before], at).optional()).collect()
        };
        self.file.read(job).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.file.ping().await
    }
}

fn decide(
    tx: &Transaction<'_>,
    Decision { notification, recipient, plan }: &Decision,
) -> rusqlite::Result<Option<Decided>> {
    let notification = notification.0.into_bytes();
    let sql = "INSERT INTO decision VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
    if tx.prepare_cached(sql)?.execute(params![notification, recipient, &*plan.0, now()])? == 1 {
        return Ok(None);
    }
    let sql = "SELECT plan FROM decision WHERE notification = ?1 AND recipient = ?2";
    let stood = |row: &Row<'_>| row.get::<_, Vec<u8>>(0);
    tx.prepare_cached(sql)?.query_row(params![notification, recipient], stood).map(|plan| Some(Decided(plan.into())))
}

fn claim(tx: &Transaction<'_>, request: &ClaimRequest) -> rusqlite::Result<Claim> {
    let sql = "INSERT INTO claim (delivery, owner, at, kept_from) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
    let row = params![key(request.delivery), owner(request.owner), request.at.as_microsecond(), now()];
    if tx.prepare_cached(sql)?.execute(row)? == 1 {
        return Ok(Claim::Granted);
    }
    standing(tx, request.delivery)
}

/// The claim that is there.
fn standing(tx: &Transaction<'_>, delivery: DeliveryId) -> rusqlite::Result<Claim> {
    let sql = "SELECT owner, at, settled FROM claim WHERE delivery = ?1";
    tx.prepare_cached(sql)?.query_row([key(delivery)], |row| {
        Ok(match row.get::<_, Option<Vec<u8>>>(2)? {
            Some(end) => Claim::Settled(Settled(end.into())),
            None => Claim::Open { owner: u128::from_be_bytes(row.get(0)?), at: time(row.get(1)?)? },
        })
    })
}

fn settle(tx: &Transaction<'_>, by: u128, delivery: DeliveryId, end: &Settled) -> rusqlite::Result<Option<Claim>> {
    let sql = "INSERT INTO claim (delivery, owner, at, kept_from, settled) VALUES (?1, ?2, ?3, ?3, ?4) ON CONFLICT \
               DO UPDATE SET settled = excluded.settled, kept_from = excluded.kept_from \
               WHERE settled IS NULL AND owner = excluded.owner";
    let row = params![key(delivery), owner(by), now(), &*end.0];
    if tx.prepare_cached(sql)?.execute(row)? == 1 {
        return Ok(None);
    }
    standing(tx, delivery).map(Some)
}

/// Pruning rides on writes: a ledger that nobody writes to does not grow.
fn prune(tx: &Transaction<'_>, before: i64, written: usize) -> rusqlite::Result<()> {
    drop_old(tx, "claim", "kept_from", before, written)?;
    give_space_back(tx, written)
}

fn key(delivery: DeliveryId) -> [u8; 16] {
    delivery.0.into_bytes()
}

fn owner(owner: u128) -> [u8; 16] {
    owner.to_be_bytes()
}

fn now() -> i64 {
    Timestamp::now().as_microsecond()
}
