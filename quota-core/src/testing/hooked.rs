//! A store that runs test code before and after each call of an inner store.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::store::{CasOutcome, Notice, QuotaStore, StoreError, StoreKey, StoreRead, Version};

/// One call of a store, without the document that a swap writes.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum StoreCall<'a> {
    /// [`QuotaStore::read`].
    Read(&'a StoreKey),
    /// [`QuotaStore::compare_and_swap`] with the version that the caller expects.
    Swap(&'a StoreKey, Option<Version>),
    /// [`QuotaStore::wait_for_change`] with the version that the caller has seen.
    Wait(&'a StoreKey, Option<Version>),
}

impl<'a> StoreCall<'a> {
    /// The key of the document.
    #[must_use]
    pub fn key(self) -> &'a StoreKey {
        let (Self::Read(key) | Self::Swap(key, _) | Self::Wait(key, _)) = self;
        key
    }

    /// Whether the call writes.
    #[must_use]
    pub fn is_swap(self) -> bool {
        matches!(self, Self::Swap(..))
    }

    /// Whether the call waits for a change.
    #[must_use]
    pub fn is_wait(self) -> bool {
        matches!(self, Self::Wait(..))
    }
}

/// The code that a [`HookedStore`] runs around the calls of its inner store. By default, it does nothing.
#[async_trait]
pub trait StoreHooks: Debug + Send + Sync + 'static {
    /// Runs before a call.
    ///
    /// # Errors
    ///
    /// The caller gets the error, and the inner store is not called.
    async fn before(&self, _call: StoreCall<'_>) -> Result<(), StoreError> {
        Ok(())
    }

    /// Runs after a call, regardless of its result, and before the caller gets the result.
    async fn after(&self, _call: StoreCall<'_>) {}
}

/// Wraps a store with code that runs before and after each call: to fail it, delay it, suspend it or count it.
///
/// ```
/// use std::sync::atomic::{AtomicBool, Ordering};
///
/// use quota_core::store::{StoreError, StoreKey, WriteState};
/// use quota_core::testing::{HookedStore, StoreCall, StoreHooks};
/// use quota_core::{MemoryStore, ProviderId, QuotaStore};
///
/// #[derive(Debug, Default)]
/// struct Outage(AtomicBool);
///
/// #[async_trait::async_trait]
/// impl StoreHooks for Outage {
///     async fn before(&self, _call: StoreCall<'_>) -> Result<(), StoreError> {
///         if self.0.load(Ordering::SeqCst) {
///             return Err(StoreError::unavailable(WriteState::NotApplied, "connection refused"));
///         }
///         Ok(())
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let store = HookedStore::new(MemoryStore::new(), Outage::default());
/// let key = StoreKey::provider(&ProviderId::from_static("anthropic"));
///
/// assert!(store.read(&key).await.is_ok());
/// store.hooks.0.store(true, Ordering::SeqCst);
/// assert!(store.read(&key).await.is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct HookedStore<S, H> {
    /// The store that is called.
    pub inner: S,
    /// The code around its calls.
    pub hooks: H,
}

impl<S: QuotaStore, H: StoreHooks> HookedStore<S, H> {
    /// Runs `hooks` around each call of `inner`.
    #[must_use]
    pub const fn new(inner: S, hooks: H) -> Self {
        Self { inner, hooks }
    }
}

#[async_trait]
impl<S: QuotaStore, H: StoreHooks> QuotaStore for HookedStore<S, H> {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        let call = StoreCall::Read(key);
        self.hooks.before(call).await?;
        let reading = self.inner.read(key).await;
        self.hooks.after(call).await;
        reading
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        ttl: Duration,
    ) -> Result<CasOutcome, StoreError> {
        let call = StoreCall::Swap(key, expected);
        self.hooks.before(call).await?;
        let outcome = self.inner.compare_and_swap(key, expected, body, ttl).await;
        self.hooks.after(call).await;
        outcome
    }

    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<Notice, StoreError> {
        let call = StoreCall::Wait(key, seen);
        self.hooks.before(call).await?;
        let notice = self.inner.wait_for_change(key, seen).await;
        self.hooks.after(call).await;
        notice
    }
}
