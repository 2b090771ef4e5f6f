//! Failures of the store: counted, and logged once where a person must fix them.
//! What follows from them is decided in `store_client` and `sync`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Instant;
use crate::store::{StoreError, StoreKey};

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
    /// `quota_store_failures_total{kind="rejected"}`.
    pub rejected: u64,
    /// Documents that could not be used, being damaged or not ours; as a metric,
    /// `quota_store_failures_total{kind="corrupt"}`.
    pub corrupt: u64,
}

/// The same, while it is counted.
#[derive(Debug, Default)]
pub(crate) struct StoreMetrics {
    outages: AtomicU64,
    unavailable: AtomicU64,
    rejected: AtomicU64,
    corrupt: AtomicU64,
    episode: Mutex<Option<RejectionEpisode>>,
    /// Whether there is something in it, for all the calls that are answered.
    has_episode: AtomicBool,
}

/// What the store was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreOp {
    Read,
    Swap,
}

/// The store rejects calls, and that was logged.
#[derive(Debug)]
struct RejectionEpisode {
    /// What it refused first: if it does that again, this is over. A store without memory is still read.
    operation: (StoreKey, StoreOp),
    /// When something was refused last.
    at: Instant,
}

/// If nothing was refused for so long, the next time is another one: what is refused is tried again every second.
const EPISODE_TIMEOUT: Duration = Duration::from_secs(60);

impl StoreMetrics {
    pub(crate) fn stats(&self) -> StoreStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StoreStats {
            outages: count(&self.outages),
            unavailable: count(&self.unavailable),
            rejected: count(&self.rejected),
            corrupt: count(&self.corrupt),
        }
    }

    /// The store was lost.
    pub(crate) fn lost(&self) {
        self.outages.fetch_add(1, Ordering::Relaxed);
    }

    /// A call has failed.
    pub(crate) fn failed(&self, key: &StoreKey, call: StoreOp, error: &StoreError, now: Instant) {
        let counter = match error {
            StoreError::Unavailable { .. } => &self.unavailable,
            StoreError::Rejected { .. } => &self.rejected,
            StoreError::Corrupt { .. } => &self.corrupt,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if matches!(error, StoreError::Rejected { .. }) && self.is_first_rejection((key, call), now) {
            tracing::warn!(%key, %error, "store refuses, going on without it where it does");
        }
    }

    /// A call has done what was asked for.
    pub(crate) fn succeeded(&self, key: &StoreKey, call: StoreOp) {
        if self.has_episode.load(Ordering::Acquire) {
            let mut episode = self.episode.lock();
            if episode
                .take_if(|RejectionEpisode { operation, .. }| operation.0 == *key && operation.1 == call)
                .is_some()
            {
                self.has_episode.store(false, Ordering::Release);
                tracing::debug!(%key, "store refuses no longer");
            }
        }
    }

    fn is_first_rejection(&self, (key, call): (&StoreKey, StoreOp), now: Instant) -> bool {
        let mut episode = self.episode.lock();
        self.has_episode.store(true, Ordering::Release);
        match &mut *episode {
            Some(RejectionEpisode { at, .. }) if now.saturating_since(*at) < EPISODE_TIMEOUT => {
                *at = now;
                false
            }
            _ => {
                *episode = Some(RejectionEpisode { operation: (key.clone(), call), at: now });
                true
            }
        }
    }
}
