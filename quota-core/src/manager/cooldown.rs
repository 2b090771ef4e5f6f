//! The cooldown of a provider in this process, shared with other processes through a document of the store.
//! Its rule is in the module `cooldown` of the crate; `refresh` obeys it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::OnceCell;

use super::store_client::StoreClient;
use crate::record::{Hold, ProviderCooldown};
use crate::store::update::update_through;
use crate::store::{DocumentBody, Start, StoreError, StoreKey, StoreRead, Version};

/// The quiet time of one provider.
#[derive(Debug)]
pub(crate) struct SharedCooldown {
    pub(crate) key: StoreKey,
    store_client: Arc<StoreClient>,
    /// What the store said last.
    shared: ArcSwap<ProviderCooldown>,
    /// What this process has seen itself: it holds even if the store cannot be written.
    local: ArcSwap<ProviderCooldown>,
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
            read: OnceCell::new(),
            following: AtomicBool::new(false),
        })
    }

    /// The hold in force, as far as this process has heard.
    pub(crate) fn at(&self, now: Timestamp) -> Option<Hold> {
        [self.shared.load().at(now), self.local.load().at(now)]
            .into_iter()
            .flatten()
            .max_by_key(|hold| hold.until)
    }

    /// Reads the document once; later changes come by notice.
    pub(crate) async fn load_once(&self, keep: Duration) {
        let _ = self.read.get_or_try_init(|| async { self.reload(keep).await.map(drop) }).await;
    }

    /// Reads the document anew; which state of it that was. A quiet time that the store has lost is put back.
    pub(crate) async fn reload(&self, keep: Duration) -> Result<Option<Version>, StoreError> {
        let reading = self.store_client.read(&self.key).await?;
        if let Some(shared) = self.decode_read(&reading) {
            let known = self.at(reading.now);
            let end = |hold: &Hold| hold.until;
            let is_lost = known.as_ref().map(end) > shared.at(reading.now).as_ref().map(end);
            self.shared.store(Arc::new(shared));
            if let Some(hold) = known.filter(|_| is_lost) {
                self.publish(&hold, keep).await;
            }
        }
        Ok(reading.version())
    }

    /// Imposes a quiet time, here at once and in the store as soon as it can be written.
    ///
    /// If the store cannot be written the other processes learn by a 429 of their own: that is bounded by their backoff.
    pub(crate) async fn publish(&self, hold: &Hold, keep: Duration) {
        self.local.rcu(|local| {
            let mut cooldown = (**local).clone();
            cooldown.extend(hold.since, hold);
            cooldown
        });
        let extend = |cooldown: &mut ProviderCooldown, now| cooldown.extend(now, hold);
        let updated = update_through(&self.store_client, &self.key, Start::Read, keep, extend).await;
        if let Err(error @ StoreError::Corrupt { .. }) = updated {
            self.log_unusable(&error);
        }
    }

    /// What a document says; no document is no quiet time, and `None` is a damaged one.
    fn decode_read(&self, reading: &StoreRead) -> Option<ProviderCooldown> {
        let Some(document) = &reading.document else { return Some(ProviderCooldown::default()) };
        DocumentBody::decode(&document.body).inspect_err(|error| self.log_unusable(error)).ok()
    }

    fn log_unusable(&self, error: &StoreError) {
        tracing::warn!(key = %self.key, %error, "cooldown not usable, left as it is");
    }

    /// The document is followed no longer.
    pub(crate) fn invalidate(&self) {
        self.following.store(false, Ordering::Release);
    }

    /// Whether this is the first to ask for the document to be followed.
    pub(crate) fn try_start_following(&self) -> bool {
        !self.following.swap(true, Ordering::AcqRel)
    }
}
