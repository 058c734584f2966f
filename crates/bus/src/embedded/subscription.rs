//! A member of a group that reads the embedded log.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use futures::{FutureExt, future::BoxFuture};
use rusqlite::{Connection, OptionalExtension, Result as SqlResult, Transaction, params};
use tokio::sync::Notify;

use super::{Inner, cursor::Cursors, failed, topics::Part};
use crate::{
    Event, LogError, Partition, Subscription,
    group::{Change, Member},
};

pub(super) struct Reader {
    log: Arc<Inner>,
    group: Arc<str>,
    member: Member,
    wake: Arc<Notify>,
    cursors: Cursors,
    /// Assigned, and not yet said so: the positions are still to be read.
    starting: Vec<Arc<Part>>,
    /// Kept across cancelled calls, so that impatient callers get on too.
    positions: Option<BoxFuture<'static, Result<Vec<i64>, LogError>>>,
}

/// Joins the group, which from now on keeps the topics' records until it has committed them.
pub(super) async fn subscribe(log: &Arc<Inner>, group: &str, topics: &[Arc<str>]) -> Result<Reader, LogError> {
    let topics = topics.iter().map(|name| log.topics.get(name)).collect::<Result<Vec<_>, _>>()?;
    let parts: Vec<i64> = topics.iter().flat_map(|topic| &topic.parts).map(|part| part.id).collect();
    let group: Arc<str> = group.into();
    let name = Arc::clone(&group);
    let known = move |tx: &Transaction<'_>| {
        let mut insert = tx.prepare_cached("INSERT OR IGNORE INTO committed(part, grp, next) VALUES (?1, ?2, 0)")?;
        parts.iter().try_for_each(|part| insert.execute(params![part, name]).map(drop))
    };
    log.writer.write(known).await.map_err(failed)?;
    let wake = Arc::new(Notify::new());
    topics.iter().for_each(|topic| topic.watch(&wake));
    let counts = topics.iter().map(|topic| (Arc::clone(&topic.name), topic.count())).collect();
    let member = log.groups.join(&group, counts, Arc::clone(&wake));
    let cursors = Cursors::new(log.readers.clone());
    Ok(Reader { log: Arc::clone(log), group, member, wake, cursors, starting: Vec::new(), positions: None })
}

impl Reader {
    /// The offset from which each partition that is starting goes on.
    async fn positions(&mut self) -> Result<Vec<i64>, LogError> {
        let positions = self.positions.get_or_insert_with(|| {
            let parts: Vec<i64> = self.starting.iter().map(|part| part.id).collect();
            let (group, readers) = (Arc::clone(&self.group), self.log.readers.clone());
            let job = move |db: &Connection| parts.iter().map(|part| committed(db, *part, &group)).collect();
            async move { readers.read(job).await.map_err(failed) }.boxed()
        });
        let result = positions.await;
        self.positions = None;
        result
    }
}

fn committed(db: &Connection, part: i64, group: &str) -> SqlResult<i64> {
    let mut select = db.prepare_cached("SELECT next FROM committed WHERE part = ?1 AND grp = ?2")?;
    Ok(select.query_row(params![part, group], |row| row.get(0)).optional()?.unwrap_or(0))
}

#[async_trait]
impl Subscription for Reader {
    async fn next(&mut self) -> Result<Event, LogError> {
        loop {
            if self.starting.is_empty() {
                match self.member.poll() {
                    Some(Change::Revoked(revoked)) => {
                        self.cursors.remove(&revoked.partitions);
                        return Ok(Event::Revoked(revoked));
                    }
                    Some(Change::Assigned(partitions)) => {
                        self.starting = partitions.iter().filter_map(|p| self.log.topics.part(p)).collect();
                    }
                    None => {}
                }
            }
            if !self.starting.is_empty() {
                let positions = self.positions().await?;
                let started = std::mem::take(&mut self.starting);
                let partitions = started.iter().map(|part| part.partition.clone()).collect();
                started.into_iter().zip(positions).for_each(|(part, at)| self.cursors.add(part, at));
                return Ok(Event::Assigned(partitions));
            }
            if let Some(records) = self.cursors.read().await? {
                return Ok(Event::Records(records));
            }
            self.wake.notified().await;
        }
    }

    async fn commit(&mut self, offsets: &BTreeMap<Partition, i64>) -> Result<(), LogError> {
        let part = |(partition, next): (&Partition, &i64)| Some((self.log.topics.part(partition)?, *next));
        let wanted: Vec<(Arc<Part>, i64)> = offsets.iter().filter_map(part).collect();
        let (group, fence) = (Arc::clone(&self.group), self.member.fence());
        let job = move |tx: &Transaction<'_>| {
            let mut upsert =
                tx.prepare_cached("INSERT OR REPLACE INTO committed(part, grp, next) VALUES (?1, ?2, ?3)")?;
            // asked here and not before, so that no commit overtakes the next owner's
            let mut mine = wanted.iter().filter(|(part, _)| fence.owns(&part.partition));
            mine.try_fold(0, |done, (part, next)| upsert.execute(params![part.id, group, next]).map(|_| done + 1))
        };
        let done: usize = if offsets.is_empty() { 0 } else { self.log.writer.write(job).await.map_err(failed)? };
        if done == offsets.len() { Ok(()) } else { Err(LogError::NotAssigned) }
    }

    fn pause(&mut self, partition: &Partition) {
        self.cursors.pause(partition, true);
    }

    fn resume(&mut self, partition: &Partition) {
        self.cursors.pause(partition, false);
    }

    async fn close(self: Box<Self>) {}
}
