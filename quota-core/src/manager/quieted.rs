//! The quiet time after a 429: known here at once, and shared with other processes through a document of the store.
//! What it says is in `cooldown`, who obeys it in `refresh`; how it is followed is in `changes`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::OnceCell;

use super::link::Link;
use crate::store::update::update_through;
use crate::store::{DocumentBody, Start};
use crate::{Hold, ProviderCooldown, StoreError, StoreKey, StoreRead, Version};

/// The quiet time of one provider.
#[derive(Debug)]
pub(crate) struct SharedCooldown {
    pub(crate) key: StoreKey,
    link: Arc<Link>,
    /// What the store said last.
    told: ArcSwap<ProviderCooldown>,
    /// What this process has seen itself: it holds even if the store cannot be written.
    own: ArcSwap<ProviderCooldown>,
    read: OnceCell<()>,
    /// Whether a task follows the changes of the document.
    following: AtomicBool,
}

impl SharedCooldown {
    pub(crate) fn new(key: StoreKey, link: Arc<Link>) -> Arc<Self> {
        let (told, own) = (ArcSwap::default(), ArcSwap::default());
        Arc::new(Self { key, link, told, own, read: OnceCell::new(), following: AtomicBool::new(false) })
    }

    /// The hold in force, as far as this process has heard.
    pub(crate) fn at(&self, now: Timestamp) -> Option<Hold> {
        [self.told.load().at(now), self.own.load().at(now)]
            .into_iter()
            .flatten()
            .max_by_key(|hold| hold.until)
    }

    /// Reads the document once; later changes come by notice.
    pub(crate) async fn read_once(&self, keep: Duration) {
        let _ = self.read.get_or_try_init(|| async { self.reread(keep).await.map(drop) }).await;
    }

    /// Reads the document anew; which state of it that was. A quiet time that the store has lost is put back.
    pub(crate) async fn reread(&self, keep: Duration) -> Result<Option<Version>, StoreError> {
        let reading = self.link.read(&self.key).await?;
        if let Some(told) = self.decoded(&reading) {
            let known = self.at(reading.now);
            let end = |hold: &Hold| hold.until;
            let is_lost = known.as_ref().map(end) > told.at(reading.now).as_ref().map(end);
            self.told.store(Arc::new(told));
            if let Some(hold) = known.filter(|_| is_lost) {
                self.impose(&hold, keep).await;
            }
        }
        Ok(reading.version())
    }

    /// Imposes a quiet time, here at once and in the store as soon as it can be written.
    ///
    /// If the store cannot be written the other processes learn by a 429 of their own: that is bounded by their backoff.
    pub(crate) async fn impose(&self, hold: &Hold, keep: Duration) {
        self.own.rcu(|own| {
            let mut cooldown = (**own).clone();
            cooldown.extend(hold.since, hold);
            cooldown
        });
        let extend = |cooldown: &mut ProviderCooldown, now| cooldown.extend(now, hold);
        let updated = update_through(&self.link, &self.key, Start::Read, keep, extend).await;
        if let Err(error @ StoreError::Corrupt { .. }) = updated {
            self.log_unusable(&error);
        }
    }

    /// What a document says; no document is no quiet time, and `None` is a damaged one.
    fn decoded(&self, reading: &StoreRead) -> Option<ProviderCooldown> {
        let Some(document) = &reading.document else { return Some(ProviderCooldown::default()) };
        DocumentBody::decode(&document.body).inspect_err(|error| self.log_unusable(error)).ok()
    }

    fn log_unusable(&self, error: &StoreError) {
        tracing::warn!(key = %self.key, %error, "cooldown not usable, left as it is");
    }

    /// The document is followed no longer.
    pub(crate) fn let_go(&self) {
        self.following.store(false, Ordering::Release);
    }

    /// Whether this is the first to ask for the document to be followed.
    pub(crate) fn begins_following(&self) -> bool {
        !self.following.swap(true, Ordering::AcqRel)
    }
}
