//! The conformance suite of stores: on one handle, on two, and with each call in another process.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use quota_core::{QuotaStore, Reading, StoreError, StoreKey, Swap, Version};
use quota_sqlite::SqliteStore;
use tempfile::TempDir;

use crate::env::{new_path, open};
use crate::processes::Elsewhere;

/// Several handles on one file, used in turn: the next handle reads what one has written.
#[derive(Debug)]
struct InTurn<S> {
    stores: Vec<S>,
    turn: AtomicUsize,
    _folder: TempDir,
}

impl<S> InTurn<S> {
    fn new(folder: TempDir, stores: impl IntoIterator<Item = S>) -> Self {
        Self { stores: stores.into_iter().collect(), turn: AtomicUsize::new(0), _folder: folder }
    }

    fn next(&self) -> &S {
        &self.stores[self.turn.fetch_add(1, Ordering::Relaxed) % self.stores.len()]
    }
}

#[async_trait]
impl<S: QuotaStore> QuotaStore for InTurn<S> {
    async fn read(&self, key: &StoreKey) -> Result<Reading, StoreError> {
        self.next().read(key).await
    }

    async fn swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        keep: Duration,
    ) -> Result<Swap, StoreError> {
        self.next().swap(key, expected, body, keep).await
    }

    async fn changed(&self, key: &StoreKey, seen: Option<Version>) -> Result<(), StoreError> {
        self.next().changed(key, seen).await
    }
}

async fn on_handles(count: usize) -> InTurn<SqliteStore> {
    let (folder, path) = new_path();
    InTurn::new(folder, (0..count).map(|_| open(&path)))
}

quota_core::store_conformance!(one_handle, || on_handles(1));
quota_core::store_conformance!(two_handles, || on_handles(2));
quota_core::store_conformance!(two_processes, || async {
    let (folder, path) = new_path();
    let stores = [Elsewhere::start(&path), Elsewhere::start(&path)];
    InTurn::new(folder, stores)
});
