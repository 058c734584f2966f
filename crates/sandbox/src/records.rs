//! What was received: in the file before the answer goes out, the newest in memory, and counts over all of it.

use std::{
    collections::{BTreeMap, HashMap, VecDeque, hash_map::Entry},
    fs::{File, OpenOptions},
    io::Write as _,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::Context as _;
use domain::Channel;
use jiff::Timestamp;
use serde_json::Value;

/// Most requests in memory.
const MAX_RECORDS: usize = 200_000;
/// Most bytes in memory, for large bodies.
const MAX_BYTES: usize = 256 * 1024 * 1024;
/// Most distinct ids and paths that are counted.
const MAX_COUNTED: usize = 1_000_000;
/// Most entries of each list of a summary.
const MAX_LISTED: usize = 1_000;

/// One request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Reception {
    /// 1 for the first since the start or the last reset.
    pub number: u64,
    /// When it was complete.
    pub time: Timestamp,
    /// The provider that it came to.
    pub channel: String,
    /// The connection, counted from 1 since the start.
    pub connection: u64,
    /// `POST`, if all is well; empty for mail.
    pub method: String,
    /// The whole URL, or the recipient of a mail.
    pub address: String,
    /// The path of the URL, or the recipient of a mail.
    pub path: String,
    /// What the sender calls it: `webhook-id`, `apns-id` or the `Message-ID`.
    pub id: Option<String>,
    /// The provider would take it: signature, time, headers and size are right.
    pub verified: bool,
    /// What is not.
    pub problem: Option<String>,
    /// The status of the answer, decided before it is sent; `None` when there is none.
    pub answered: Option<u16>,
    /// All headers.
    pub headers: BTreeMap<String, String>,
    /// The body; bytes that are no UTF-8 show as `U+FFFD`.
    pub body: String,
    /// What only this provider knows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Value>,
}

impl Reception {
    /// One that arrives now, not yet verified, with nothing in it.
    pub(crate) fn new(channel: Channel, connection: u64) -> Self {
        Self {
            number: 0,
            time: Timestamp::now(),
            channel: channel.as_str().to_owned(),
            connection,
            method: String::new(),
            address: String::new(),
            path: String::new(),
            id: None,
            verified: false,
            problem: None,
            answered: None,
            headers: BTreeMap::new(),
            body: String::new(),
            extra: BTreeMap::new(),
        }
    }
}

/// Counts since the start or the last reset.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// Requests, refused ones included.
    pub count: u64,
    /// Of those, no longer in memory.
    pub dropped: u64,
    /// Of all, not verified.
    pub unverified: u64,
    /// Requests by the status of the answer; `none` for no answer.
    pub answered: BTreeMap<String, u64>,
    /// Distinct ids of verified requests.
    pub ids: usize,
    /// Of those, answered 2xx at least once.
    pub ids_taken: u64,
    /// Ids that came more than once, and how often; the first thousand by id.
    pub repeated: BTreeMap<String, u32>,
    /// How many such ids there are.
    pub ids_repeated: usize,
    /// Ids that were answered 2xx more than once, and how often; the first thousand by id.
    pub taken_again: BTreeMap<String, u32>,
    /// How many such ids there are.
    pub ids_taken_again: usize,
    /// Distinct paths.
    pub paths_distinct: usize,
    /// Requests by path, for a thousand paths.
    pub paths: BTreeMap<String, u64>,
    /// Requests with an id or a path beyond the million that are counted apart.
    pub uncounted: u64,
}

/// Which receptions to list.
pub(crate) struct Filter<'a> {
    pub(crate) channel: Option<Channel>,
    pub(crate) path: &'a str,
    pub(crate) since: Option<Since>,
    pub(crate) limit: usize,
}

/// Where a list begins.
#[derive(Clone, Copy)]
pub(crate) enum Since {
    Time(Timestamp),
    Number(u64),
}

/// A list as JSON texts.
pub(crate) struct Listed {
    pub(crate) count: u64,
    pub(crate) dropped: u64,
    pub(crate) items: Vec<String>,
}

pub(crate) struct Records(Mutex<Inner>);

struct Inner {
    file: Option<File>,
    kept: VecDeque<Kept>,
    bytes: usize,
    ids: HashMap<Box<str>, Id>,
    paths: HashMap<Box<str>, u64>,
    repeated: BTreeMap<Box<str>, u32>,
    taken_again: BTreeMap<Box<str>, u32>,
    /// The counts that are not derived from the maps.
    totals: Summary,
}

/// A record as its JSON, with what lists are filtered by.
struct Kept {
    number: u64,
    time: Timestamp,
    channel: Box<str>,
    path: Box<str>,
    json: Box<str>,
}

#[derive(Default, Clone, Copy)]
struct Id {
    seen: u32,
    taken: u32,
}

impl Records {
    pub(crate) fn open(dir: Option<&Path>) -> anyhow::Result<Self> {
        let file = dir.map(open_file).transpose()?;
        Ok(Self(Mutex::new(Inner {
            file,
            kept: VecDeque::new(),
            bytes: 0,
            ids: HashMap::new(),
            paths: HashMap::new(),
            repeated: BTreeMap::new(),
            taken_again: BTreeMap::new(),
            totals: Summary::default(),
        })))
    }

    /// Decides what to do with a request and with which status, if any, from the number of verified ones with its id before
    /// it, and keeps it. When it returns, the file has it. Errors: the file could not be written; then the request must not be
    /// answered as taken.
    pub(crate) fn keep<T>(&self, mut r: Reception, decide: impl FnOnce(u32) -> (T, Option<u16>)) -> anyhow::Result<T> {
        let mut inner = self.lock();
        let (act, answered) = decide(inner.seen(&r));
        r.number = inner.totals.count + 1;
        r.answered = answered;
        let mut json = serde_json::to_string(&r)?;
        if let Some(file) = &mut inner.file {
            // one unbuffered write for the whole line: a killed process leaves no half of it in a buffer
            json.push('\n');
            file.write_all(json.as_bytes()).context("cannot write to the record file")?;
            json.pop();
        }
        inner.count(&r);
        inner.push(Kept {
            number: r.number,
            time: r.time,
            channel: r.channel.into(),
            path: r.path.into(),
            json: json.into(),
        });
        Ok(act)
    }

    pub(crate) fn list(&self, filter: &Filter<'_>) -> Listed {
        let inner = self.lock();
        let wanted = |k: &&Kept| {
            filter.channel.is_none_or(|c| *k.channel == *c.as_str())
                && k.path.starts_with(filter.path)
                && match filter.since {
                    None => true,
                    Some(Since::Time(t)) => k.time >= t,
                    Some(Since::Number(n)) => k.number > n,
                }
        };
        let mut listed = Listed { count: 0, dropped: inner.totals.dropped, items: Vec::new() };
        for kept in inner.kept.iter().filter(wanted) {
            listed.count += 1;
            if listed.items.len() < filter.limit {
                listed.items.push(kept.json.to_string());
            }
        }
        listed
    }

    pub(crate) fn receptions(&self, path: &str) -> anyhow::Result<Vec<Reception>> {
        let listed = self.list(&Filter { channel: None, path, since: None, limit: usize::MAX });
        listed.items.iter().map(|json| serde_json::from_str(json).context("a record does not read back")).collect()
    }

    pub(crate) fn summary(&self) -> Summary {
        let inner = self.lock();
        let some =
            |map: &BTreeMap<Box<str>, u32>| map.iter().take(MAX_LISTED).map(|(k, v)| (k.to_string(), *v)).collect();
        Summary {
            ids: inner.ids.len(),
            repeated: some(&inner.repeated),
            ids_repeated: inner.repeated.len(),
            taken_again: some(&inner.taken_again),
            ids_taken_again: inner.taken_again.len(),
            paths_distinct: inner.paths.len(),
            paths: inner.paths.iter().take(MAX_LISTED).map(|(k, v)| (k.to_string(), *v)).collect(),
            ..inner.totals.clone()
        }
    }

    /// Forgets everything, the file's lines too.
    pub(crate) fn clear(&self) -> anyhow::Result<()> {
        let mut inner = self.lock();
        if let Some(file) = &inner.file {
            file.set_len(0).context("cannot empty the record file")?;
        }
        let file = inner.file.take();
        *inner = Inner {
            file,
            kept: VecDeque::new(),
            bytes: 0,
            ids: HashMap::new(),
            paths: HashMap::new(),
            repeated: BTreeMap::new(),
            taken_again: BTreeMap::new(),
            totals: Summary::default(),
        };
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_file(dir: &Path) -> anyhow::Result<File> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let path = dir.join("received.jsonl");
    OpenOptions::new().create(true).append(true).open(&path).with_context(|| format!("cannot open {}", path.display()))
}

impl Inner {
    /// How often a verified request with this id came before. An id that is no longer counted passes for an old one, so
    /// that nothing fails for ever.
    fn seen(&self, r: &Reception) -> u32 {
        let id = r.id.as_deref().unwrap_or_default();
        self.ids.get(id).map_or(if self.ids.len() < MAX_COUNTED { 0 } else { u32::MAX }, |id| id.seen)
    }

    fn count(&mut self, r: &Reception) {
        self.totals.count += 1;
        let status = r.answered.map_or_else(|| "none".to_owned(), |s| s.to_string());
        *self.totals.answered.entry(status).or_default() += 1;
        let mut counted = match bounded_entry(&mut self.paths, &r.path) {
            Some(count) => {
                *count += 1;
                true
            }
            None => false,
        };
        if !r.verified {
            self.totals.unverified += 1;
        } else if let Some(id) = &r.id {
            counted &= self.count_id(id, r.answered.is_some_and(|s| (200..300).contains(&s)));
        }
        self.totals.uncounted += u64::from(!counted);
    }

    fn count_id(&mut self, id: &str, taken: bool) -> bool {
        let Some(entry) = bounded_entry(&mut self.ids, id) else { return false };
        entry.seen += 1;
        entry.taken += u32::from(taken);
        if entry.seen > 1 {
            self.repeated.insert(id.into(), entry.seen);
        }
        if taken && entry.taken == 1 {
            self.totals.ids_taken += 1;
        }
        if entry.taken > 1 {
            self.taken_again.insert(id.into(), entry.taken);
        }
        true
    }

    fn push(&mut self, kept: Kept) {
        self.bytes += kept.json.len();
        self.kept.push_back(kept);
        while self.kept.len() > MAX_RECORDS || self.bytes > MAX_BYTES {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.bytes -= oldest.json.len();
            self.totals.dropped += 1;
        }
    }
}

/// The entry of a key, unless it is new and there are too many.
fn bounded_entry<'a, V: Default>(map: &'a mut HashMap<Box<str>, V>, key: &str) -> Option<&'a mut V> {
    let room = map.len() < MAX_COUNTED;
    match map.entry(key.into()) {
        Entry::Occupied(entry) => Some(entry.into_mut()),
        Entry::Vacant(entry) => room.then(|| entry.insert(V::default())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behaviour;

    fn reception(path: &str, id: &str, verified: bool) -> Reception {
        let (path, id) = (path.into(), Some(id.into()));
        Reception { path, id, verified, ..Reception::new(Channel::Webhook, 1) }
    }

    fn keep(records: &Records, path: &str, id: &str) {
        let status = |seen| ((), behaviour::of(path, None, seen).status());
        records.keep(reception(path, id, true), status).expect("kept");
    }

    #[test]
    fn the_oldest_go_and_are_counted() {
        let records = Records::open(None).expect("open");
        for i in 0..MAX_RECORDS + 10 {
            keep(&records, "/hook/ok", if i < 3 { "twice" } else { "again" });
        }
        let all = records.list(&Filter { channel: None, path: "", since: None, limit: 2 });
        assert_eq!((all.count, all.dropped, all.items.len()), (200_000, 10, 2));
        assert!(all.items[0].starts_with(r#"{"number":11,"#), "{}", all.items[0]);
        let after = records.list(&Filter { since: Some(Since::Number(200_005)), limit: 9, ..Filter::all() });
        assert_eq!(after.count, 5);
        let summary = records.summary();
        assert_eq!((summary.count, summary.dropped, summary.ids, summary.ids_taken), (200_010, 10, 2, 2));
        assert_eq!(summary.taken_again.get("twice"), Some(&3));
    }

    #[test]
    fn repeats_are_told_from_double_deliveries_and_refused_ones_count_for_neither() {
        let records = Records::open(None).expect("open");
        for _ in 0..3 {
            keep(&records, "/hook/flaky/2/a", "retried");
            let refused = reception("/hook/flaky/2/a", "retried", false);
            records.keep(refused, |_| ((), Some(401))).expect("kept");
        }
        let summary = records.summary();
        assert_eq!(summary.repeated.get("retried"), Some(&3));
        assert_eq!((summary.ids_taken, summary.ids_taken_again, summary.unverified), (1, 0, 3));
        assert_eq!(summary.answered, [("200", 1), ("401", 3), ("503", 2)].map(|(s, n)| (s.to_owned(), n)).into());
        records.clear().expect("cleared");
        assert_eq!(records.summary(), Summary::default());
    }

    impl Filter<'_> {
        const fn all() -> Self {
            Self { channel: None, path: "", since: None, limit: usize::MAX }
        }
    }
}
