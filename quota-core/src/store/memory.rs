//! A store within one process, for tests and for programs that share nothing. Processes share state through the other
//! backends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{CasOutcome, Document, Notice, QuotaStore, StoreError, StoreKey, StoreRead, Version};
use crate::clock::Clock;
use crate::time;

/// A store in the memory of this process. It cannot fail.
///
/// ```
/// use std::time::Duration;
/// use quota_core::{AccountId, MemoryStore, QuotaStore};
/// use quota_core::store::{CasOutcome, StoreKey};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let store = MemoryStore::new();
/// let key = StoreKey::account(&"anthropic/main".parse::<AccountId>()?);
/// let CasOutcome::Applied(version) = store.compare_and_swap(&key, None, "hello".into(), Duration::from_secs(60)).await? else {
///     panic!("there is no other writer");
/// };
/// assert_eq!(store.read(&key).await?.version(), Some(version));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct MemoryStore {
    clock: Clock,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    documents: HashMap<StoreKey, Stored>,
    /// One counter for all keys. A version is never reused, even after its document expired.
    last_version: u64,
    /// The waiters by key. The first waiter creates an entry, and a change removes it.
    waiters: HashMap<StoreKey, Arc<Notify>>,
    /// The number of writes until the next removal of expired documents.
    writes_until_sweep: usize,
}

#[derive(Debug)]
struct Stored {
    document: Document,
    expires_at: Timestamp,
}

impl MemoryStore {
    /// Creates an empty store that uses the wall clock.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates an empty store that uses this clock.
    #[must_use]
    pub fn with_clock(clock: Clock) -> Self {
        Self { clock, ..Self::default() }
    }

    fn with_inner<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.inner.lock())
    }
}

impl Inner {
    fn get(&self, key: &StoreKey, now: Timestamp) -> Option<&Document> {
        self.documents.get(key).filter(|stored| now < stored.expires_at).map(|stored| &stored.document)
    }

    /// Removes expired documents once per N writes, where N is the number of documents. That is one check per write on
    /// average.
    fn sweep(&mut self, now: Timestamp) {
        if self.writes_until_sweep == 0 {
            self.documents.retain(|_, stored| now < stored.expires_at);
            self.writes_until_sweep = self.documents.len().max(64);
        }
        self.writes_until_sweep -= 1;
    }
}

#[async_trait]
impl QuotaStore for MemoryStore {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        let now = self.clock.now();
        Ok(self.with_inner(|inner| StoreRead::new(inner.get(key, now).cloned(), now)))
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        ttl: Duration,
    ) -> Result<CasOutcome, StoreError> {
        let now = self.clock.now();
        let (swap, waiters) = self.with_inner(|inner| {
            let found = inner.get(key, now);
            if found.map(|document| document.version) != expected {
                return (CasOutcome::Conflict(StoreRead::new(found.cloned(), now)), None);
            }
            inner.sweep(now);
            inner.last_version += 1;
            let version = Version::new(inner.last_version);
            let stored =
                Stored { document: Document::new(version, body), expires_at: time::saturating_add(now, ttl) };
            inner.documents.insert(key.clone(), stored);
            (CasOutcome::Applied(version), inner.waiters.remove(key))
        });
        if let Some(waiters) = waiters {
            waiters.notify_waiters();
        }
        Ok(swap)
    }

    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<Notice, StoreError> {
        let now = self.clock.now();
        let waiting = self.with_inner(|inner| {
            let found = inner.get(key, now);
            if found.map(|document| document.version) != seen {
                return Err(found.cloned().map(Notice::of_document).unwrap_or_default());
            }
            let notify = Arc::clone(inner.waiters.entry(key.clone()).or_default());
            // Register under the lock, so that no change between this point and the wait is missed.
            let notified = Arc::clone(&notify).notified_owned();
            Ok((Waiting { store: self, key, _notify: notify }, notified))
        });
        match waiting {
            // `_waiting` is dropped after `notified`, because it is declared first.
            Ok((_waiting, notified)) => notified.await,
            Err(notice) => return Ok(notice),
        }
        let found = self.read(key).await?.document;
        Ok(found.map(Notice::of_document).unwrap_or_default())
    }
}

/// A waiter for a change. The last waiter removes the entry.
struct Waiting<'a> {
    store: &'a MemoryStore,
    key: &'a StoreKey,
    _notify: Arc<Notify>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.store.with_inner(|inner| {
            // The map and this waiter hold one reference each. The awaited notification holds another, but is dropped first.
            let is_last = inner.waiters.get(self.key).is_some_and(|notify| Arc::strong_count(notify) <= 2);
            if is_last {
                inner.waiters.remove(self.key);
            }
        });
    }
}
