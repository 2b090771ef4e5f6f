//! A store that randomly loses requests and responses of an inner store.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::store::{CasOutcome, QuotaStore, StoreError, StoreKey, StoreRead, Version, WriteState};

/// Wraps a store and adds timeouts before or after a call is applied, drawn from a seed.
///
/// A lost request is not applied; a call with a lost response is. The caller gets the same error for both: the call may have
/// been applied.
pub struct FlakyStore<S> {
    inner: S,
    rng: Mutex<fastrand::Rng>,
    loss: f64,
}

impl<S: QuotaStore> FlakyStore<S> {
    /// Wraps `inner` and loses the fraction `loss` of the calls (0 to 1). Half of them are lost before and half after they
    /// are applied.
    #[must_use]
    pub fn new(inner: S, seed: u64, loss: f64) -> Self {
        Self { inner, rng: Mutex::new(fastrand::Rng::with_seed(seed)), loss }
    }

    fn lost(&self) -> Option<Lost> {
        let mut rng = self.rng.lock();
        (rng.f64() < self.loss).then(|| if rng.bool() { Lost::Request } else { Lost::Response })
    }
}

enum Lost {
    Request,
    Response,
}

fn timed_out() -> StoreError {
    StoreError::unavailable(WriteState::Unknown, "a simulated timeout")
}

impl<S: fmt::Debug> fmt::Debug for FlakyStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlakyStore")
            .field("inner", &self.inner)
            .field("loss", &self.loss)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl<S: QuotaStore> QuotaStore for FlakyStore<S> {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        if self.lost().is_some() {
            return Err(timed_out());
        }
        self.inner.read(key).await
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        ttl: Duration,
    ) -> Result<CasOutcome, StoreError> {
        match self.lost() {
            None => self.inner.compare_and_swap(key, expected, body, ttl).await,
            Some(Lost::Request) => Err(timed_out()),
            Some(Lost::Response) => {
                let _ = self.inner.compare_and_swap(key, expected, body, ttl).await?;
                Err(timed_out())
            }
        }
    }

    async fn wait_for_change(&self, key: &StoreKey, version: Option<Version>) -> Result<(), StoreError> {
        if self.lost().is_some() {
            return Err(timed_out());
        }
        self.inner.wait_for_change(key, version).await
    }
}
