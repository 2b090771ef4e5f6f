//! Copies documents from a store that rejects only writes, so that processes see new readings in the store during the
//! outage.

use std::time::Duration;

use super::merge::{self, Kind};
use super::{Active, DOC_TTL, Local, OutageStore, Remote};
use crate::clock::Instant;
use crate::store::update::Trips as _;
use crate::store::{CasOutcome, Document, QuotaStore as _, StoreError, StoreKey, StoreRead};

/// How long this process does not read a document of the store again. A command reads each document several times.
const RECENT: Duration = Duration::from_millis(500);
/// How long this process makes no further copies after a failed one.
const COPY_PAUSE: Duration = Duration::from_secs(5);

impl OutageStore {
    /// Reads a document of the level. If the store rejects only writes, first brings it up to date.
    pub(super) async fn read_level(&self, active: &Active, key: &StoreKey) -> Result<StoreRead, StoreError> {
        let local = Local { store: self, active };
        if !active.doc.reads_work(key) || !Kind::of(key).is_merged() {
            return local.read(key).await;
        }
        if let Some(is_found) = self.recently_found(key) {
            let reading = local.read(key).await?;
            // The copy of an earlier outage was in a file that is gone.
            if reading.document.is_some() || !is_found {
                return Ok(reading);
            }
        }
        let (reading, found) = tokio::join!(local.read(key), self.find_copy(key));
        let reading = reading?;
        let Some(found) = found else { return Ok(reading) };
        // As above, another file may have no copy.
        if reading.document.is_some() && self.copies.lock().versions.get(key) == Some(&found.version) {
            return Ok(reading);
        }
        let is_changed = Self::copy(&local, key, &found, &reading).await?;
        self.copies.lock().versions.insert(key.clone(), found.version);
        if is_changed { local.read(key).await } else { Ok(reading) }
    }

    /// Whether the store had the document, if this process has read it a moment ago.
    fn recently_found(&self, key: &StoreKey) -> Option<bool> {
        let (at, is_found) = self.copies.lock().reads.get(key).copied()?;
        (self.clock.instant().saturating_since(at) < RECENT).then_some(is_found)
    }

    /// Reads the store's document; `None` if there is none, or if a copy has just failed.
    async fn find_copy(&self, key: &StoreKey) -> Option<Document> {
        let now = self.clock.instant();
        let has_failed = |at: Instant| now.saturating_since(at) < COPY_PAUSE;
        if self.copies.lock().failed_at.is_some_and(has_failed) {
            return None;
        }
        let reading = Remote(self).read(key).await;
        let mut copies = self.copies.lock();
        copies.failed_at = reading.is_err().then_some(now);
        let document = reading.ok()?.document;
        copies.reads.insert(key.clone(), (now, document.is_some()));
        document
    }

    /// Copies the store's document into the level, or merges it into the level's document. Returns whether the level's
    /// document may have changed.
    async fn copy(
        local: &Local<'_>,
        key: &StoreKey,
        found: &Document,
        reading: &StoreRead,
    ) -> Result<bool, StoreError> {
        let shift_ms = local.active.doc.correction_ms().saturating_neg();
        match &reading.document {
            Some(document) if document.body == found.body => return Ok(false),
            Some(_) => {}
            None => {
                let body = merge::shifted(key, &found.body, shift_ms);
                let copied = local.compare_and_swap(key, None, body, DOC_TTL).await?;
                if let CasOutcome::Applied(_) = copied {
                    return Ok(true);
                }
            }
        }
        match merge::merge(local, key, &found.body, DOC_TTL, shift_ms).await {
            // A newer program wrote one of them, so the document in the level stays unchanged.
            Err(StoreError::Rejected { .. }) => Ok(false),
            merged => merged,
        }
    }

    /// Waits until a store that rejects only writes has a document that this process has not copied. For other stores
    /// it never completes.
    pub(super) async fn wait_for_copy(&self, active: &Active, key: &StoreKey) {
        while active.doc.reads_work(key) && Kind::of(key).is_merged() {
            let copied = self.copies.lock().versions.get(key).copied();
            match self.remote.wait_for_change(key, copied).await {
                Ok(notice) if notice.is_unchanged => {}
                Ok(_) => {
                    self.copies.lock().reads.remove(key);
                    return;
                }
                Err(_) => break,
            }
        }
        std::future::pending().await
    }
}
