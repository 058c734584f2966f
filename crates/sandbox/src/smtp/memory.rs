//! How often something came before, over all connections.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Most keys that are counted.
const MAX_KEYS: usize = 1_000_000;

#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<HashMap<String, u32>>);

impl Memory {
    /// How often `key` was asked for before. Once there are too many, a new one passes for an old one, so that nothing fails
    /// for ever.
    pub(super) fn count(&self, key: String) -> u32 {
        let mut keys = self.lock();
        if keys.len() >= MAX_KEYS && !keys.contains_key(&key) {
            return u32::MAX;
        }
        let count = keys.entry(key).or_default();
        *count = count.saturating_add(1);
        *count - 1
    }

    pub(super) fn forget(&self, key: &str) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
