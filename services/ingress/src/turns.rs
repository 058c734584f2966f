//! Changes of one thing in this process wait for each other: they read, change and write.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use domain::TenantId;
use tokio::sync::{Mutex, MutexGuard};

/// Turns at the things of one kind. Few things share a turn by accident.
#[derive(Clone)]
pub(crate) struct Turns(Arc<[Mutex<()>]>);

impl Default for Turns {
    fn default() -> Self {
        Self((0..64).map(|_| Mutex::default()).collect())
    }
}

impl Turns {
    pub(crate) async fn of(&self, tenant: &TenantId, name: &str) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        (tenant, name).hash(&mut hasher);
        let index = hasher.finish() % self.0.len() as u64;
        self.0[usize::try_from(index).unwrap_or(0)].lock().await
    }
}
