//! Counts the calls of the store and their failures, and logs each series of rejected calls once.
//! `store_client` and `sync` decide how to continue after a failure.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Instant;
use crate::store::{StoreError, StoreKey};

/// The counts of the store's calls and failures in one manager; see [`QuotaManager::store_stats`](crate::QuotaManager::store_stats).
///
/// All values are counters. A call that fails immediately during an outage is not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStats {
    /// Reads, successful or not; as a metric, `quota_store_calls_total{kind="read"}`.
    pub reads: u64,
    /// Compare-and-swaps, successful or not; as a metric, `quota_store_calls_total{kind="swap"}`.
    pub swaps: u64,
    /// Outages of the store; as a metric, `quota_store_outages_total`.
    pub outages: u64,
    /// Calls that could not reach the store, timed out, or failed with a transient error; as a metric,
    /// `quota_store_failures_total{kind="unavailable"}`.
    pub unavailable: u64,
    /// Calls that the store rejected, such as for a wrong password or a full disk; as a metric,
    /// `quota_store_failures_total{kind="rejected"}`.
    pub rejected: u64,
    /// Documents that are damaged or of another program; as a metric,
    /// `quota_store_failures_total{kind="corrupt"}`.
    pub corrupt: u64,
}

impl StoreStats {
    /// The combined counts of two clients.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            reads: self.reads + other.reads,
            swaps: self.swaps + other.swaps,
            outages: self.outages + other.outages,
            unavailable: self.unavailable + other.unavailable,
            rejected: self.rejected + other.rejected,
            corrupt: self.corrupt + other.corrupt,
        }
    }
}

/// The counters behind [`StoreStats`], and the current series of rejections.
#[derive(Debug, Default)]
pub(crate) struct StoreMetrics {
    reads: AtomicU64,
    swaps: AtomicU64,
    outages: AtomicU64,
    unavailable: AtomicU64,
    rejected: AtomicU64,
    corrupt: AtomicU64,
    episode: Mutex<Option<RejectionEpisode>>,
    /// Whether `episode` is set, so that a successful call need not lock it.
    has_episode: AtomicBool,
}

/// A kind of store call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreOp {
    Read,
    Swap,
}

/// A series of rejected calls, which was logged once.
#[derive(Debug)]
struct RejectionEpisode {
    /// The first rejected operation. The series ends when it succeeds, because other operations may succeed during the series.
    operation: (StoreKey, StoreOp),
    /// When a call was rejected last.
    at: Instant,
}

/// A rejection after this time without one starts a new series. A rejected call is retried every second.
const EPISODE_TIMEOUT: Duration = Duration::from_secs(60);

impl StoreMetrics {
    pub(crate) fn stats(&self) -> StoreStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StoreStats {
            reads: count(&self.reads),
            swaps: count(&self.swaps),
            outages: count(&self.outages),
            unavailable: count(&self.unavailable),
            rejected: count(&self.rejected),
            corrupt: count(&self.corrupt),
        }
    }

    /// Counts a call, before its result is known.
    pub(crate) fn called(&self, call: StoreOp) {
        let counter = match call {
            StoreOp::Read => &self.reads,
            StoreOp::Swap => &self.swaps,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an outage.
    pub(crate) fn lost(&self) {
        self.outages.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a failed call.
    pub(crate) fn failed(&self, key: &StoreKey, call: StoreOp, error: &StoreError, now: Instant) {
        let counter = match error {
            StoreError::Unavailable { .. } => &self.unavailable,
            StoreError::Rejected { .. } => &self.rejected,
            StoreError::Corrupt { .. } => &self.corrupt,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if matches!(error, StoreError::Rejected { .. }) && self.is_first_rejection((key, call), now) {
            tracing::warn!(%key, %error, "store rejects calls, running without it for these keys");
        }
    }

    /// Ends the series of rejections if its first operation succeeds.
    pub(crate) fn succeeded(&self, key: &StoreKey, call: StoreOp) {
        if self.has_episode.load(Ordering::Acquire) {
            let mut episode = self.episode.lock();
            if episode
                .take_if(|RejectionEpisode { operation, .. }| operation.0 == *key && operation.1 == call)
                .is_some()
            {
                self.has_episode.store(false, Ordering::Release);
                tracing::debug!(%key, "store accepts calls again");
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
