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

/// The cooldown of one provider.
#[derive(Debug)]
pub(crate) struct SharedCooldown {
    pub(crate) key: StoreKey,
    store_client: Arc<StoreClient>,
    /// The store's document, as last read.
    shared: ArcSwap<ProviderCooldown>,
    /// The cooldown after 429s of this process. It applies even if the store cannot be written.
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

    /// The hold in force, as far as this process knows.
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

    /// Reads the document and returns its version. Restores a cooldown that the store has lost.
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

    /// Starts a cooldown in this process at once, and in the store as soon as it can be written.
    ///
    /// If the store cannot be written, other processes get a 429 of their own, and their backoff limits that.
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

    /// Decodes a document. No document means no cooldown; `None` is a damaged one.
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

    /// Whether the document was not followed before this call.
    pub(crate) fn try_start_following(&self) -> bool {
        !self.following.swap(true, Ordering::AcqRel)
    }
}
