//! A store that randomly loses requests and responses of an inner store.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::store::{CasOutcome, Notice, QuotaStore, StoreError, StoreKey, StoreRead, Version, WriteState};

/// Wraps a store and adds timeouts before or after a call is applied, drawn from a seed.
///
/// A lost request is not applied; a call with a lost response is. The caller gets the same error for both: the call may have
/// been applied. Half of the lost waits end with an error, and half with the previous notice of the document, which is late.
pub struct FlakyStore<S> {
    inner: S,
    rng: Mutex<fastrand::Rng>,
    loss: f64,
    /// The last notice of each document.
    earlier: Mutex<HashMap<StoreKey, Notice>>,
}

impl<S: QuotaStore> FlakyStore<S> {
    /// Wraps `inner` and loses the fraction `loss` of the calls (0 to 1). Half of them are lost before and half after they
    /// are applied.
    #[must_use]
    pub fn new(inner: S, seed: u64, loss: f64) -> Self {
        let rng = Mutex::new(fastrand::Rng::with_seed(seed));
        Self { inner, rng, loss, earlier: Mutex::default() }
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

    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<Notice, StoreError> {
        match self.lost() {
            Some(Lost::Request) => return Err(timed_out()),
            Some(Lost::Response) => {
                let earlier = self.earlier.lock().get(key).cloned();
                return Ok(earlier.unwrap_or_default());
            }
            None => {}
        }
        let notice = self.inner.wait_for_change(key, seen).await?;
        self.earlier.lock().insert(key.clone(), notice.clone());
        Ok(notice)
    }
}
