//! The store of one command: a limit for all waits together, the last error, and a replacement for a damaged file.
//! `store` opens it.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use quota::store::{CasOutcome, StoreError, StoreKey, StoreRead, Version, WriteState};
use quota::{Clock, QuotaStore, sqlite};

use crate::term;

/// A store that is used by one command.
#[derive(Debug)]
pub(crate) struct CommandStore {
    inner: Arc<dyn QuotaStore>,
    clock: Clock,
    limit: Limit,
    /// The rest of the limit.
    left: Mutex<Duration>,
    last_error: Mutex<Option<StoreError>>,
    /// Why the file is no longer used.
    damage: OnceLock<StoreError>,
    /// Whether the command goes on without a damaged file. Otherwise it fails.
    goes_on: bool,
}

/// A limit for all calls of a command together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// The store bounds its calls itself.
    None,
    /// For writes, which wait for a lock; reads do not.
    Writes(Duration),
    /// For all calls, which wait for the network.
    Calls(Duration),
}

impl Limit {
    fn of(self, is_write: bool) -> Option<Duration> {
        match self {
            Self::Calls(limit) => Some(limit),
            Self::Writes(limit) => is_write.then_some(limit),
            Self::None => None,
        }
    }
}

impl CommandStore {
    /// Wraps a store. A command that `goes_on` without a damaged file prints one warning.
    pub(crate) fn new(inner: Arc<dyn QuotaStore>, limit: Limit, goes_on: bool) -> Self {
        let whole = limit.of(true).unwrap_or_default();
        Self {
            inner,
            clock: Clock::system(),
            limit,
            left: Mutex::new(whole),
            last_error: Mutex::default(),
            damage: OnceLock::new(),
            goes_on,
        }
    }

    /// The error of the last failed call.
    pub(crate) fn last_error(&self) -> Option<StoreError> {
        lock(&self.last_error).clone()
    }

    /// Whether the command goes on without its damaged file.
    pub(crate) fn is_damaged(&self) -> bool {
        self.damage.get().is_some()
    }

    async fn within_limit<T>(
        &self,
        is_write: bool,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let answer = if self.limit.of(is_write).is_some() { self.within(call).await } else { call.await };
        if let Err(error) = &answer {
            *lock(&self.last_error) = Some(error.clone());
            if self.goes_on && sqlite::is_damage(error) && self.damage.set(error.clone()).is_ok() {
                term::eprint(&format!("quota: {error}; until then nothing is shared with other processes\n"));
            }
        }
        answer
    }

    /// Waits no longer than the rest of the limit, and reduces it.
    async fn within<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let late = |applied| StoreError::unavailable(applied, "it did not answer in time");
        let left = *lock(&self.left);
        if left.is_zero() {
            return Err(late(WriteState::NotApplied));
        }
        let begun_at = self.clock.instant();
        let answer = self.clock.bounded(left, call).await;
        let waited = self.clock.instant().saturating_since(begun_at);
        let mut left = lock(&self.left);
        *left = left.saturating_sub(waited);
        answer.unwrap_or_else(|| Err(late(WriteState::Unknown)))
    }

    /// The answer of a damaged file: no document.
    fn nothing(&self) -> StoreRead {
        StoreRead::new(None, self.clock.now())
    }
}

/// A damaged file is neither read nor written. As with a full disk, the command uses its own readings and prints why.
#[async_trait]
impl QuotaStore for CommandStore {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        if self.is_damaged() {
            return Ok(self.nothing());
        }
        let answer = self.within_limit(false, self.inner.read(key)).await;
        if self.is_damaged() { Ok(self.nothing()) } else { answer }
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        keep: Duration,
    ) -> Result<CasOutcome, StoreError> {
        if let Some(damage) = self.damage.get() {
            return Err(damage.clone());
        }
        self.within_limit(true, self.inner.compare_and_swap(key, expected, body, keep)).await
    }

    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<(), StoreError> {
        if self.is_damaged() {
            return std::future::pending().await;
        }
        self.inner.wait_for_change(key, seen).await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store that never answers.
    #[derive(Debug)]
    struct Frozen;

    #[async_trait]
    impl QuotaStore for Frozen {
        async fn read(&self, _key: &StoreKey) -> Result<StoreRead, StoreError> {
            std::future::pending().await
        }

        async fn compare_and_swap(
            &self,
            _key: &StoreKey,
            _expected: Option<Version>,
            _body: Bytes,
            _keep: Duration,
        ) -> Result<CasOutcome, StoreError> {
            std::future::pending().await
        }

        async fn wait_for_change(&self, _key: &StoreKey, _seen: Option<Version>) -> Result<(), StoreError> {
            std::future::pending().await
        }
    }

    const LIMIT: Duration = Duration::from_millis(225);

    #[tokio::test(start_paused = true)]
    async fn a_hung_store_is_waited_for_once_in_all() {
        let store = CommandStore::new(Arc::new(Frozen), Limit::Calls(LIMIT), false);
        let begun_at = store.clock.instant();

        for _ in 0..5 {
            assert!(store.read(&StoreKey::probe()).await.unwrap_err().is_transient());
            let swapped = store.compare_and_swap(&StoreKey::probe(), None, Bytes::new(), LIMIT).await;
            assert!(swapped.unwrap_err().is_transient());
        }

        // A timer wakes within a millisecond.
        let waited = store.clock.instant().saturating_since(begun_at);
        assert!(waited >= LIMIT && waited < LIMIT * 2, "{waited:?}");
        assert!(store.last_error().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn reads_of_a_file_are_not_limited_by_waits_of_writes() {
        let store =
            CommandStore::new(Arc::new(quota::MemoryStore::new()), Limit::Writes(Duration::ZERO), false);

        assert!(store.compare_and_swap(&StoreKey::probe(), None, Bytes::new(), LIMIT).await.is_err());

        assert!(store.read(&StoreKey::probe()).await.is_ok());
    }
}
