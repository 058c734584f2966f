//! Keeps compiled templates, so that a version is compiled once while it is in use.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use domain::{FieldErrors, template::Template};

use crate::Compiled;

/// Compiled templates by their identity in memory: one that was deleted and put again is another, whatever its key and
/// version are. An entry holds its template, so that nothing else can be where it is.
#[derive(Debug)]
pub struct Cache {
    entries: RwLock<HashMap<usize, Entry>>,
    max_entries: usize,
    max_bytes: usize,
    clock: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    template: Arc<Template>,
    /// What does not compile is kept as well: it would be tried for each delivery.
    compiled: Result<Arc<Compiled>, FieldErrors>,
    bytes: usize,
    used: AtomicU64,
}

impl Default for Cache {
    /// 1,000 templates of 8 MiB together, counted as JSON.
    fn default() -> Self {
        Self::new(1_000, 8 * 1024 * 1024)
    }
}

impl Cache {
    /// Keeps at most so many templates, of at most so many bytes as JSON together, but always the last one.
    pub fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self { entries: RwLock::default(), max_entries, max_bytes, clock: AtomicU64::default() }
    }

    /// The compiled template: kept, or compiled now. Two that ask at once may both compile it.
    pub fn get(&self, template: &Arc<Template>) -> Result<Arc<Compiled>, FieldErrors> {
        let key = Arc::as_ptr(template).addr();
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        if let Some(entry) = self.entries.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            entry.used.store(now, Ordering::Relaxed);
            return entry.compiled.clone();
        }
        let compiled = Compiled::new(template).map(Arc::new);
        let bytes = serde_json::to_vec(template.as_ref()).map_or(self.max_bytes, |b| b.len());
        let entry = Entry { template: Arc::clone(template), compiled: compiled.clone(), bytes, used: now.into() };
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.insert(key, entry);
        self.evict(&mut entries);
        compiled
    }

    /// Lets go of the least recently used.
    fn evict(&self, entries: &mut HashMap<usize, Entry>) {
        let mut bytes: usize = entries.values().map(|e| e.bytes).sum();
        while entries.len() > 1 && (entries.len() > self.max_entries || bytes > self.max_bytes) {
            let oldest = entries.values().min_by_key(|e| e.used.load(Ordering::Relaxed));
            let Some(key) = oldest.map(|e| Arc::as_ptr(&e.template).addr()) else { return };
            bytes -= entries.remove(&key).map_or(0, |e| e.bytes);
        }
    }
}
