//! What went wrong between this process and the store: counted, and of what somebody has to mend, told in the log once.
//! What is done about it is decided in `link` and `exchange`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Instant;
use crate::{StoreError, StoreKey};

/// What went wrong with the store so far, as one manager saw it; see
/// [`QuotaManager::store_stats`](crate::QuotaManager::store_stats).
///
/// All of it only rises. A call that is not made because the store is away already is not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStats {
    /// How often the store was lost, so that this process went on without it; as a metric, `quota_store_outages_total`.
    pub outages: u64,
    /// Calls that it did not answer, or not in time, or by saying that it cannot now; as a metric,
    /// `quota_store_failures_total{kind="unavailable"}`.
    pub unavailable: u64,
    /// Calls that it refused, such as for a wrong password or for want of memory; as a metric,
    /// `quota_store_failures_total{kind="refused"}`.
    pub refused: u64,
    /// Documents that could not be used, being damaged or not ours; as a metric,
    /// `quota_store_failures_total{kind="unusable"}`.
    pub unusable: u64,
}

/// The same, while it is counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    outages: AtomicU64,
    unavailable: AtomicU64,
    refused: AtomicU64,
    unusable: AtomicU64,
    refusing: Mutex<Option<Refusing>>,
    /// Whether there is something in it, for all the calls that are answered.
    is_refusing: AtomicBool,
}

/// What the store was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Read,
    Swap,
}

/// The store refuses, and that was told.
#[derive(Debug)]
struct Refusing {
    /// What it refused first: if it does that again, this is over. A store without memory is still read.
    what: (StoreKey, Call),
    /// When something was refused last.
    at: Instant,
}

/// If nothing was refused for so long, the next time is another one: what is refused is tried again every second.
const OVER_AFTER: Duration = Duration::from_secs(60);

impl Tally {
    pub(crate) fn so_far(&self) -> StoreStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StoreStats {
            outages: count(&self.outages),
            unavailable: count(&self.unavailable),
            refused: count(&self.refused),
            unusable: count(&self.unusable),
        }
    }

    /// The store was lost.
    pub(crate) fn lost(&self) {
        self.outages.fetch_add(1, Ordering::Relaxed);
    }

    /// A call has failed.
    pub(crate) fn failed(&self, key: &StoreKey, call: Call, error: &StoreError, now: Instant) {
        let counter = match error {
            StoreError::Unavailable { .. } => &self.unavailable,
            StoreError::Rejected { .. } => &self.refused,
            StoreError::Corrupt { .. } => &self.unusable,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if matches!(error, StoreError::Rejected { .. }) && self.is_first_refusal((key, call), now) {
            tracing::warn!(%key, %error, "store refuses, going on without it where it does");
        }
    }

    /// A call has done what was asked for.
    pub(crate) fn worked(&self, key: &StoreKey, call: Call) {
        if self.is_refusing.load(Ordering::Acquire) {
            let mut refusing = self.refusing();
            if refusing.take_if(|Refusing { what, .. }| what.0 == *key && what.1 == call).is_some() {
                self.is_refusing.store(false, Ordering::Release);
                tracing::debug!(%key, "store refuses no longer");
            }
        }
    }

    fn is_first_refusal(&self, (key, call): (&StoreKey, Call), now: Instant) -> bool {
        let mut refusing = self.refusing();
        self.is_refusing.store(true, Ordering::Release);
        match &mut *refusing {
            Some(Refusing { at, .. }) if now.saturating_since(*at) < OVER_AFTER => {
                *at = now;
                false
            }
            _ => {
                *refusing = Some(Refusing { what: (key.clone(), call), at: now });
                true
            }
        }
    }

    fn refusing(&self) -> MutexGuard<'_, Option<Refusing>> {
        self.refusing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
