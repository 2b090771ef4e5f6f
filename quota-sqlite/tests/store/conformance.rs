//! The conformance suite of stores: on one handle, on two, and with each call in another process.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use quota_core::QuotaStore;
use quota_core::store::{CasOutcome, Notice, StoreError, StoreKey, StoreRead, Version};
use quota_sqlite::SqliteStore;
use tempfile::TempDir;

use crate::env::{new_path, open};
use crate::processes::ChildStore;

/// Several handles on one file, used round-robin, so that one handle reads what another wrote.
#[derive(Debug)]
struct RoundRobin<S> {
    stores: Vec<S>,
    calls: AtomicUsize,
    _folder: TempDir,
}

impl<S> RoundRobin<S> {
    fn new(folder: TempDir, stores: impl IntoIterator<Item = S>) -> Self {
        Self { stores: stores.into_iter().collect(), calls: AtomicUsize::new(0), _folder: folder }
    }

    fn next(&self) -> &S {
        &self.stores[self.calls.fetch_add(1, Ordering::Relaxed) % self.stores.len()]
    }
}

#[async_trait]
impl<S: QuotaStore> QuotaStore for RoundRobin<S> {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        self.next().read(key).await
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        ttl: Duration,
    ) -> Result<CasOutcome, StoreError> {
        self.next().compare_and_swap(key, expected, body, ttl).await
    }

    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<Notice, StoreError> {
        self.next().wait_for_change(key, seen).await
    }
}

async fn on_handles(count: usize) -> RoundRobin<SqliteStore> {
    let (folder, path) = new_path();
    RoundRobin::new(folder, (0..count).map(|_| open(&path)))
}

quota_core::store_conformance!(one_handle, || on_handles(1));
quota_core::store_conformance!(two_handles, || on_handles(2));
quota_core::store_conformance!(two_processes, || async {
    let (folder, path) = new_path();
    let stores = [ChildStore::start(&path), ChildStore::start(&path)];
    RoundRobin::new(folder, stores)
});
