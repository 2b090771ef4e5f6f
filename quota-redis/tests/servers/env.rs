//! Shared helpers.
//! `redis-harness` starts the servers.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use quota_core::store::{CasOutcome, Document, StoreError, StoreKey, StoreRead, Version};
use quota_core::{AccountId, Clock, QuotaStore};
use quota_redis::RedisStore;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// A TTL longer than any test.
pub(crate) const TTL: Duration = Duration::from_secs(3600);

pub(crate) fn open(url: &str) -> RedisStore {
    RedisStore::open(url).expect("the URL is valid")
}

pub(crate) fn key(name: &str) -> StoreKey {
    StoreKey::account(&format!("anthropic/{name}").parse::<AccountId>().expect("the name is valid"))
}

pub(crate) async fn swap(
    store: &RedisStore,
    key: &StoreKey,
    expected: Option<Version>,
    body: &'static str,
) -> Result<CasOutcome, StoreError> {
    store.compare_and_swap(key, expected, Bytes::from_static(body.as_bytes()), TTL).await
}

/// Unwraps a swap without a concurrent writer.
#[track_caller]
pub(crate) fn applied(swap: Result<CasOutcome, StoreError>) -> Version {
    match swap {
        Ok(CasOutcome::Applied(version)) => version,
        other => panic!("should have been applied: {other:?}"),
    }
}

#[track_caller]
pub(crate) fn body(reading: Result<StoreRead, StoreError>) -> Option<Bytes> {
    let document: Option<Document> = reading.expect("the store can be read").document;
    document.map(|document| document.body)
}

/// Runs `work` in a task of its own, while the test continues.
pub(crate) fn start<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    Handle::current().spawn(work)
}

/// Reads until the store works again, within the bound of [`until`].
pub(crate) async fn until_usable(store: &RedisStore, key: &StoreKey) -> StoreRead {
    until(async || store.read(key).await.ok()).await
}

/// Repeats `poll` until it returns a value, for at most half a minute.
pub(crate) async fn until<T>(mut poll: impl AsyncFnMut() -> Option<T>) -> T {
    let clock = Clock::system();
    let found = clock.bounded(Duration::from_secs(30), async {
        loop {
            if let Some(found) = poll().await {
                return found;
            }
            clock.sleep(Duration::from_millis(5)).await;
        }
    });
    found.await.expect("waited too long")
}

/// Awaits `work`, and fails the test if it takes longer than 20 s.
pub(crate) async fn within_deadline<T>(what: &str, work: impl Future<Output = T>) -> T {
    let ended = Clock::system().bounded(Duration::from_secs(20), work).await;
    ended.unwrap_or_else(|| panic!("waited too long: {what}"))
}

/// Whether `work` is still pending after all messages in flight have arrived. A later reply over the same connection proves
/// that they have.
pub(crate) async fn still_waits<T>(
    store: &RedisStore,
    work: &mut (impl Future<Output = Result<T, StoreError>> + Unpin),
) -> bool {
    for _ in 0..3 {
        store.read(&StoreKey::probe()).await.expect("the store can be read");
        if (&mut *work).now_or_never().is_some() {
            return false;
        }
    }
    true
}
