//! A store that loses calls and responses on purpose, around one that does not.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::store::{CasOutcome, QuotaStore, StoreError, StoreKey, StoreRead, Version, WriteState};

/// Wraps a store with time-outs before and after it was reached, drawn from a seed.
///
/// A call that is lost on the way there is not applied, one whose answer is lost on the way back is, and the caller is told
/// the same of both: that it may have been.
pub struct FlakyStore<S> {
    inner: S,
    dice: Mutex<fastrand::Rng>,
    loss: f64,
}

impl<S: QuotaStore> FlakyStore<S> {
    /// Wraps `inner`, losing that share of the calls (0 to 1), half of them before and half after they are applied.
    #[must_use]
    pub fn new(inner: S, seed: u64, loss: f64) -> Self {
        Self { inner, dice: Mutex::new(fastrand::Rng::with_seed(seed)), loss }
    }

    fn lost(&self) -> Option<Lost> {
        let mut dice = self.dice.lock();
        (dice.f64() < self.loss).then(|| if dice.bool() { Lost::There } else { Lost::Back })
    }
}

enum Lost {
    There,
    Back,
}

fn timed_out() -> StoreError {
    StoreError::unavailable(WriteState::Unknown, "it did not answer in time, on purpose")
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
        keep: Duration,
    ) -> Result<CasOutcome, StoreError> {
        match self.lost() {
            None => self.inner.compare_and_swap(key, expected, body, keep).await,
            Some(Lost::There) => Err(timed_out()),
            Some(Lost::Back) => {
                let _ = self.inner.compare_and_swap(key, expected, body, keep).await?;
                Err(timed_out())
            }
        }
    }

    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<(), StoreError> {
        if self.lost().is_some() {
            return Err(timed_out());
        }
        self.inner.wait_for_change(key, seen).await
    }
}
