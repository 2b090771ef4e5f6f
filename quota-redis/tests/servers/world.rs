//! What the tests share: stores on servers, and a few words.
//! The servers themselves are `redis-harness`'s.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use quota_core::{AccountId, Clock, Document, QuotaStore, Reading, StoreError, StoreKey, Swap, Version};
use quota_redis::RedisStore;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Long enough for anything that is kept in a test.
pub(crate) const KEEP: Duration = Duration::from_secs(3600);

pub(crate) fn open(url: &str) -> RedisStore {
    RedisStore::open(url).expect("the URL is good")
}

pub(crate) fn key(name: &str) -> StoreKey {
    StoreKey::account(&format!("anthropic/{name}").parse::<AccountId>().expect("the name is good"))
}

pub(crate) async fn swap(
    store: &RedisStore,
    key: &StoreKey,
    expected: Option<Version>,
    body: &'static str,
) -> Result<Swap, StoreError> {
    store.swap(key, expected, Bytes::from_static(body.as_bytes()), KEEP).await
}

/// Writes, knowing that nobody else does.
#[track_caller]
pub(crate) fn applied(swap: Result<Swap, StoreError>) -> Version {
    match swap {
        Ok(Swap::Applied(version)) => version,
        other => panic!("should have been applied: {other:?}"),
    }
}

#[track_caller]
pub(crate) fn body(reading: Result<Reading, StoreError>) -> Option<Bytes> {
    let document: Option<Document> = reading.expect("it can be read").document;
    document.map(|document| document.body)
}

/// Runs in a task of its own, while the test goes on.
pub(crate) fn start<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    Handle::current().spawn(work)
}

/// Asks until the store answers again. A test that waits for ever is ended by its bound.
pub(crate) async fn until_usable(store: &RedisStore, key: &StoreKey) -> Reading {
    until(async || store.read(key).await.ok()).await
}

/// Asks until there is something.
pub(crate) async fn until<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let clock = Clock::system();
    let found = clock.bounded(Duration::from_secs(30), async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            clock.sleep(Duration::from_millis(5)).await;
        }
    });
    found.await.expect("waited too long")
}

/// What must end, and soon.
pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    let ended = Clock::system().bounded(Duration::from_secs(20), work).await;
    ended.unwrap_or_else(|| panic!("waited too long: {what}"))
}

/// Whether `work` is still waiting after everything that was on its way has come: the store has answered another question
/// over the same connection since.
pub(crate) async fn still_waits(
    store: &RedisStore,
    work: &mut (impl Future<Output = Result<(), StoreError>> + Unpin),
) -> bool {
    for _ in 0..3 {
        store.read(&StoreKey::probe()).await.expect("it can be read");
        if (&mut *work).now_or_never().is_some() {
            return false;
        }
    }
    true
}
