//! The cooldown of a provider in this process, shared with other processes through a document in the store.
//! Its rules are in `record`; `refresh` obeys it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::OnceCell;

use super::store_client::StoreClient;
use crate::clock::Clock;
use crate::record::{Hold, ProviderCooldown};
use crate::store::update::update_through;
use crate::store::{DocumentBody, Notice, Start, StoreError, StoreKey, StoreRead, Version};

/// The cooldown of one provider.
#[derive(Debug)]
pub(crate) struct SharedCooldown {
    pub(crate) key: StoreKey,
    store_client: Arc<StoreClient>,
    /// The store's document at the last read.
    shared: ArcSwap<ProviderCooldown>,
    /// The cooldown after this process's own 429s. It applies even if the write to the store fails.
    local: ArcSwap<ProviderCooldown>,
    /// The end of the cooldown by this process's wall clock in milliseconds, and when it was computed. Each read of a stale
    /// account compares them.
    until_ms: AtomicI64,
    computed_ms: AtomicI64,
    read: OnceCell<()>,
    /// Whether a task follows the changes of the document.
    following: AtomicBool,
}

impl SharedCooldown {
    pub(crate) fn new(key: StoreKey, store_client: Arc<StoreClient>) -> Arc<Self> {
        let (shared, local) = (ArcSwap::default(), ArcSwap::default());
        Arc::new(Self {
            key,
            store_client,
            shared,
            local,
            until_ms: AtomicI64::new(i64::MIN),
            computed_ms: AtomicI64::new(i64::MIN),
            read: OnceCell::new(),
            following: AtomicBool::new(false),
        })
    }

    /// The cooldown in force at `now`, from the last read and from this process's own 429s.
    pub(crate) fn at(&self, now: Timestamp) -> Option<Hold> {
        [self.shared.load().at(now), self.local.load().at(now)]
            .into_iter()
            .flatten()
            .max_by_key(|hold| hold.until)
    }

    /// The end of the cooldown by this process's wall clock, in milliseconds; `i64::MIN` if none is in force at `now_ms`.
    #[inline]
    pub(crate) fn until_ms(&self, now_ms: i64) -> i64 {
        let until_ms = self.until_ms.load(Ordering::Relaxed);
        // If the wall clock was set back since, a refresh must compute the end by the new time.
        let is_usable = now_ms < until_ms && now_ms >= self.computed_ms.load(Ordering::Relaxed);
        if is_usable { until_ms } else { i64::MIN }
    }

    fn compute_end(&self) {
        let now = self.store_client.now_estimate();
        let offset_ms = self.store_client.offset_ms();
        let by_wall = |at: Timestamp| at.as_millisecond().saturating_sub(offset_ms);
        let until_ms = self.at(now).map_or(i64::MIN, |hold| by_wall(hold.until));
        // The coarse clock of a read lags by some milliseconds.
        self.computed_ms.store(by_wall(now).saturating_sub(Clock::RECENT_LAG_MS), Ordering::Relaxed);
        self.until_ms.store(until_ms, Ordering::Relaxed);
    }

    /// Reads the document on the first call. A follower receives later changes.
    pub(crate) async fn load_once(&self, ttl: Duration) {
        let _ = self.read.get_or_try_init(|| async { self.reload(ttl).await.map(drop) }).await;
    }

    /// Reads the document and returns its version. Restores a cooldown that the store has lost.
    pub(crate) async fn reload(&self, ttl: Duration) -> Result<Option<Version>, StoreError> {
        let reading = self.store_client.read(&self.key).await?;
        if let Some(shared) = self.decode_read(&reading) {
            let cached = self.at(reading.now);
            let end = |hold: &Hold| hold.until;
            let is_lost = cached.as_ref().map(end) > shared.at(reading.now).as_ref().map(end);
            self.shared.store(Arc::new(shared));
            self.compute_end();
            if let Some(hold) = cached.filter(|_| is_lost) {
                self.publish(&hold, ttl).await;
            }
        }
        Ok(reading.version())
    }

    /// Joins the document of a notice. Returns false if the document must be read.
    ///
    /// A notice may be late, so its cooldown only extends the known one. If its cooldown ends earlier, a read shows
    /// whether the store has lost the known one. That read must not wait for the next poll, because a cooldown is
    /// hardly longer than the poll interval.
    pub(crate) fn join(&self, notice: &Notice) -> bool {
        let cooldown = notice.body.as_ref().and_then(|body| ProviderCooldown::decode(body).ok());
        let (Some(cooldown), Some(now)) =
            (cooldown.filter(ProviderCooldown::is_writable), self.store_client.now_if_trusted())
        else {
            return false;
        };
        let end = |hold: &Hold| hold.until;
        let noticed = cooldown.at(now);
        if noticed.as_ref().map(end) < self.at(now).as_ref().map(end) {
            return false;
        }
        if let Some(hold) = noticed {
            self.shared.rcu(|shared| {
                let mut shared = (**shared).clone();
                shared.extend(now, &hold);
                shared
            });
            self.compute_end();
        }
        true
    }

    /// Starts a cooldown in this process only.
    pub(crate) fn start(&self, hold: &Hold) {
        self.local.rcu(|local| {
            let mut cooldown = (**local).clone();
            cooldown.extend(hold.since, hold);
            cooldown
        });
        self.compute_end();
    }

    /// Starts a cooldown in this process, then writes it to the store.
    ///
    /// A failed write is not retried. Each other process then starts its own cooldown at its first 429.
    pub(crate) async fn publish(&self, hold: &Hold, ttl: Duration) {
        self.start(hold);
        let extend = |cooldown: &mut ProviderCooldown, now| cooldown.extend(now, hold);
        let updated = update_through(&self.store_client, &self.key, Start::Read, ttl, extend).await;
        if let Err(error @ StoreError::Corrupt { .. }) = updated {
            self.log_unusable(&error);
        }
    }

    /// Decodes the document. Returns no cooldown if there is no document, and `None` if the document is damaged.
    fn decode_read(&self, reading: &StoreRead) -> Option<ProviderCooldown> {
        let Some(document) = &reading.document else { return Some(ProviderCooldown::default()) };
        DocumentBody::decode(&document.body).inspect_err(|error| self.log_unusable(error)).ok()
    }

    fn log_unusable(&self, error: &StoreError) {
        tracing::warn!(key = %self.key, %error, "cooldown document unusable, left unchanged");
    }

    /// Records that the follower has ended.
    pub(crate) fn invalidate(&self) {
        self.following.store(false, Ordering::Release);
    }

    /// Records that a follower starts; `false` if there is one already.
    pub(crate) fn try_start_following(&self) -> bool {
        !self.following.swap(true, Ordering::AcqRel)
    }
}
