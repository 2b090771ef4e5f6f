//! A store wrapper for one command: it limits the total wait, records the last error, and stops using a damaged file.
//! `store` creates it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use quota::outage::NoTimeLeft;
use quota::store::{CasOutcome, Notice, StoreError, StoreKey, StoreRead, Version, WriteState};
use quota::{Clock, QuotaStore, sqlite};

use crate::term;

/// The store of one command.
#[derive(Debug)]
pub(crate) struct CommandStore {
    inner: Arc<dyn QuotaStore>,
    clock: Clock,
    limit: Limit,
    /// The remaining time.
    left: Mutex<Duration>,
    last_error: Mutex<Option<StoreError>>,
    /// Why the file is no longer used.
    damage: OnceLock<StoreError>,
    /// Whether the command continues without a damaged file. Otherwise it fails.
    continues: bool,
    /// Whether the command has printed that it runs without this store.
    is_reported: AtomicBool,
}

/// A limit for the total duration of all store calls of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// The store bounds its calls itself.
    None,
    /// Limits only writes, because reads wait for no lock.
    Writes(Duration),
    /// Limits all calls, because they wait for the network.
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
    /// Wraps a store. A command that `continues` without a damaged file prints one warning.
    pub(crate) fn new(inner: Arc<dyn QuotaStore>, limit: Limit, continues: bool) -> Self {
        let whole = limit.of(true).unwrap_or_default();
        Self {
            inner,
            clock: Clock::system(),
            limit,
            left: Mutex::new(whole),
            last_error: Mutex::default(),
            damage: OnceLock::new(),
            continues,
            is_reported: AtomicBool::new(false),
        }
    }

    /// The error of the last failed call.
    pub(crate) fn last_error(&self) -> Option<StoreError> {
        lock(&self.last_error).clone()
    }

    /// Records that the command has printed that it runs without this store.
    pub(crate) fn set_reported(&self) {
        self.is_reported.store(true, Ordering::Relaxed);
    }

    /// Whether the file is damaged and no longer used.
    pub(crate) fn is_damaged(&self) -> bool {
        self.damage.get().is_some()
    }

    async fn within_limit<T>(
        &self,
        is_write: bool,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let result = if self.limit.of(is_write).is_some() { self.within(call).await } else { call.await };
        if let Err(error) = &result {
            *lock(&self.last_error) = Some(error.clone());
            if self.continues
                && sqlite::is_damage(error)
                && self.damage.set(error.clone()).is_ok()
                && !self.is_reported.load(Ordering::Relaxed)
            {
                term::eprint(&format!("quota: {error}; running without a shared store\n"));
            }
        }
        result
    }

    /// Waits for at most the remaining time, and subtracts the wait from it.
    async fn within<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let late = |applied| StoreError::unavailable(applied, "it timed out");
        let left = *lock(&self.left);
        if left.is_zero() {
            // The timeout proves nothing about this document, which may be in a working shard.
            return Err(late(WriteState::NotApplied).with_source(NoTimeLeft));
        }
        let started_at = self.clock.instant();
        let result = self.clock.bounded(left, call).await;
        let waited = self.clock.instant().saturating_since(started_at);
        let mut left = lock(&self.left);
        *left = left.saturating_sub(waited);
        result.unwrap_or_else(|| Err(late(WriteState::Unknown)))
    }

    /// The result of a read if the file is damaged: no document.
    fn empty_read(&self) -> StoreRead {
        StoreRead::new(None, self.clock.now())
    }
}

/// A damaged file is neither read nor written. The command uses its own readings and prints a warning, as with a full disk.
#[async_trait]
impl QuotaStore for CommandStore {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        if self.is_damaged() {
            return Ok(self.empty_read());
        }
        let read = self.within_limit(false, self.inner.read(key)).await;
        if self.is_damaged() { Ok(self.empty_read()) } else { read }
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        ttl: Duration,
    ) -> Result<CasOutcome, StoreError> {
        let written = match self.damage.get() {
            Some(damage) => Err(damage.clone()),
            None => self.within_limit(true, self.inner.compare_and_swap(key, expected, body, ttl)).await,
        };
        // Report the file as one that rejects writes, so that the command continues. A damaged document would not have
        // this effect.
        written.map_err(|error| match self.is_damaged() {
            true => StoreError::rejected(store_cause(&error)),
            false => error,
        })
    }

    async fn wait_for_change(&self, key: &StoreKey, known: Option<Version>) -> Result<Notice, StoreError> {
        if self.is_damaged() {
            return std::future::pending().await;
        }
        // The later wait compares versions, so it also reports a change during the delay.
        self.clock.sleep(WAIT_DELAY).await;
        self.inner.wait_for_change(key, known).await
    }
}

/// The delay before a wait. The manager follows each account, which costs a store operation, but most commands end before
/// a notice could arrive.
const WAIT_DELAY: Duration = Duration::from_millis(20);

fn store_cause(error: &StoreError) -> String {
    match error {
        StoreError::Corrupt { reason, .. } => reason.clone().into_owned(),
        error => error.to_string(),
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
            _ttl: Duration,
        ) -> Result<CasOutcome, StoreError> {
            std::future::pending().await
        }

        async fn wait_for_change(
            &self,
            _key: &StoreKey,
            _known: Option<Version>,
        ) -> Result<Notice, StoreError> {
            std::future::pending().await
        }
    }

    const LIMIT: Duration = Duration::from_millis(225);

    #[tokio::test(start_paused = true)]
    async fn the_limit_bounds_the_total_wait_for_a_hung_store() {
        let store = CommandStore::new(Arc::new(Frozen), Limit::Calls(LIMIT), false);
        let started_at = store.clock.instant();

        for _ in 0..5 {
            assert!(store.read(&StoreKey::probe()).await.unwrap_err().is_transient());
            let swapped = store.compare_and_swap(&StoreKey::probe(), None, Bytes::new(), LIMIT).await;
            assert!(swapped.unwrap_err().is_transient());
        }

        // A timer wakes within a millisecond.
        let waited = store.clock.instant().saturating_since(started_at);
        assert!(waited >= LIMIT && waited < LIMIT * 2, "{waited:?}");
        assert!(store.last_error().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_use_that_was_tried_shows_an_outage() {
        let store = CommandStore::new(Arc::new(Frozen), Limit::Calls(LIMIT), false);

        let [tried, untried] = [store.read(&StoreKey::probe()).await, store.read(&StoreKey::probe()).await]
            .map(Result::unwrap_err);

        let has_source = |error: &StoreError| matches!(error, StoreError::Unavailable { source: Some(source), .. } if source.is::<NoTimeLeft>());
        assert!(!has_source(&tried) && has_source(&untried), "{tried:?} {untried:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_during_the_delay_of_a_wait_is_reported() {
        let (inner, key) = (Arc::new(quota::MemoryStore::new()), StoreKey::probe());
        let store = CommandStore::new(Arc::clone(&inner) as Arc<dyn QuotaStore>, Limit::None, false);
        let write = async {
            store.clock.sleep(WAIT_DELAY / 2).await;
            inner.compare_and_swap(&key, None, Bytes::from_static(b"{}"), LIMIT).await.unwrap()
        };

        let wait = store.clock.bounded(LIMIT, store.wait_for_change(&key, None));
        let (waited, written) = tokio::join!(wait, write);

        let CasOutcome::Applied(version) = written else { unreachable!("the store is empty") };
        assert_eq!(waited.unwrap().unwrap().version, Some(version));
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_for_writes_does_not_apply_to_reads() {
        let store =
            CommandStore::new(Arc::new(quota::MemoryStore::new()), Limit::Writes(Duration::ZERO), false);

        assert!(store.compare_and_swap(&StoreKey::probe(), None, Bytes::new(), LIMIT).await.is_err());

        assert!(store.read(&StoreKey::probe()).await.is_ok());
    }
}
