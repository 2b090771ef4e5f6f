//! Finds the level in use, begins an outage, and ends it.
//! Each step may be the last one of a killed process; `docs/design/outage.md` says what follows.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use jiff::Timestamp;

use super::document::{Failure, Outage, OutageDoc};
use super::merge::{self, Kind};
use super::{Active, OutageStore, Remote, cause};
use crate::model::RequestId;
use crate::store::update::Trips as _;
use crate::store::{
    CasOutcome, DocumentBody as _, QuotaStore, Start, StoreError, StoreKey, Updated, Version, WriteState,
    update,
};

/// The timeout of an attempt to end the outage. It is shorter than the lease for it.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a level keeps the document of the outage if no process runs.
const DOC_TTL: Duration = Duration::from_secs(40 * 24 * 3600);
/// How long the store keeps the document of the trial write.
const TRIAL_TTL: Duration = Duration::from_millis(1);
/// How many documents are merged at once.
const CONCURRENT_MERGES: usize = 64;

impl OutageStore {
    /// Changes the document of the outage.
    pub(super) async fn change<T: Send>(
        store: &dyn QuotaStore,
        decide: impl FnMut(&mut OutageDoc, Timestamp) -> T + Send,
    ) -> Result<Updated<OutageDoc, T>, StoreError> {
        update(store, &StoreKey::outage(), Start::Read, DOC_TTL, super::LEVEL_TIMEOUT, decide).await
    }

    /// The level in use; `None` if the store is to be used. If the next attempt to use the store is due, one process makes it here.
    pub(super) async fn active(&self) -> Option<Active> {
        for (index, level) in self.levels() {
            if !level.level.exists() {
                continue;
            }
            match self.inspect(index).await {
                Ok(Some(active)) => {
                    *self.outage.lock() = Some(active.doc.describe(level.level.place(), active.now));
                    return Some(active);
                }
                Ok(None) => {}
                Err(error) => self.skip(index, &error),
            }
        }
        None
    }

    /// Reads the document of the outage, and makes a due attempt to use the store. `None` if the outage has ended.
    async fn inspect(&self, index: usize) -> Result<Option<Active>, StoreError> {
        let level = self.levels[index].level.as_ref();
        let store = self.open(index)?;
        let reading = self.on_level(store.read(&StoreKey::outage())).await?;
        let now = reading.now;
        let mut doc = match reading.document {
            Some(document) => Arc::new(OutageDoc::decode(&document.body)?),
            None if !level.exists() => return Ok(None),
            // The process that created the file has ended before its next step. Its documents are merged like any.
            None => Arc::default(),
        };
        if !doc.is_writable() {
            return Err(StoreError::rejected("a newer program wrote the file for outages"));
        }
        if doc.is_due(now) {
            let holder = RequestId::random();
            let claimed = Self::change(store.as_ref(), |doc, now| doc.claim(holder, now)).await?;
            doc = claimed.document;
            if claimed.value {
                let Err(error) = self.end(index, store.as_ref(), holder).await else { return Ok(None) };
                tracing::debug!(%error, "store still unavailable");
                let failure =
                    self.failure(&error, doc.reads_work && matches!(error, StoreError::Rejected { .. }));
                let failed = |doc: &mut OutageDoc, now| {
                    doc.release(holder);
                    doc.failed(now, &failure);
                };
                doc = Self::change(store.as_ref(), failed).await?.document;
            }
        }
        Ok(Some(Active { index, store, doc, now }))
    }

    /// Records that this process cannot use a level.
    pub(super) fn skip(&self, index: usize, error: &StoreError) {
        tracing::debug!(place = %self.levels[index].level.place(), %error, "could not use the file for outages");
        if !error.is_transient() {
            self.levels[index].is_broken.store(true, Ordering::Relaxed);
        }
    }

    fn failure(&self, error: &StoreError, reads_work: bool) -> Failure {
        Failure {
            reason: cause(error).to_owned(),
            reads_work,
            offset_ms: *self.offset_ms.lock(),
            jitter: fastrand::f64(),
        }
    }

    /// Begins an outage, or joins the one that another process has begun. Returns whether a level works.
    pub(super) async fn begin(&self, error: &StoreError, reads_work: bool) -> bool {
        let failure = self.failure(error, reads_work);
        for (index, level) in self.levels() {
            let failed = |doc: &mut OutageDoc, now| {
                doc.failed(now, &failure);
                doc.is_writable()
            };
            let begun = async {
                let store = if level.level.exists() { self.open(index)? } else { level.level.create()? };
                let changed = Self::change(store.as_ref(), failed).await;
                match changed {
                    // Another process has ended its outage in between.
                    Err(_) if !level.level.exists() => {
                        Self::change(level.level.create()?.as_ref(), failed).await
                    }
                    changed => changed,
                }
            };
            match begun.await {
                Ok(begun) if begun.value => return true,
                Ok(_) => {}
                Err(error) => self.skip(index, &error),
            }
        }
        *self.outage.lock() =
            Some(Outage { since: self.clock.now(), retry_at: None, reason: failure.reason, place: None });
        false
    }

    /// Tries to end the outage: merges the level's documents into the store, and removes the level.
    ///
    /// If this process ends here, the file stays, and after its lease another process repeats all steps. Merging twice changes
    /// nothing.
    async fn end(&self, index: usize, store: &dyn QuotaStore, holder: RequestId) -> Result<(), StoreError> {
        let late = || StoreError::unavailable(WriteState::Unknown, "the merge into the store timed out");
        let attempt = self.clock.bounded(ATTEMPT_TIMEOUT, self.merge_all(store, holder));
        attempt.await.unwrap_or_else(|| Err(late()))?;
        self.levels[index].level.remove().await?;
        tracing::debug!("store available again, the outage's documents were merged");
        Ok(())
    }

    async fn merge_all(&self, store: &dyn QuotaStore, holder: RequestId) -> Result<(), StoreError> {
        self.try_write().await?;
        let remote = Remote(self);
        let mut merged = HashMap::new();
        loop {
            let reading = self.on_level(store.read(&StoreKey::outage())).await?;
            let Some(document) = reading.document else {
                return Err(StoreError::unavailable(WriteState::NotApplied, "the file for outages is gone"));
            };
            let doc = OutageDoc::decode(&document.body)?;
            if !doc.is_claimed_by(holder, reading.now) {
                // This process was suspended, and another one merges, or the store has failed again since.
                return Err(StoreError::unavailable(
                    WriteState::NotApplied,
                    "another process tries the store",
                ));
            }
            let keys: Vec<_> = doc.keys().filter(|(key, _)| Kind::of(key).is_merged()).collect();
            let mut is_complete = true;
            for keys in keys.chunks(CONCURRENT_MERGES) {
                let one = async |key: &StoreKey, ttl: Duration, known: Option<Version>| {
                    let Some(found) = self.on_level(store.read(key)).await?.document else { return Ok(None) };
                    if known == Some(found.version) {
                        return Ok(None);
                    }
                    merge::merge(&remote, key, &found.body, ttl).await?;
                    Ok::<_, StoreError>(Some(found.version))
                };
                let work = keys.iter().map(|(key, ttl)| one(key, *ttl, merged.get(key).copied()));
                let done = join_all(work).await;
                for ((key, _), done) in keys.iter().zip(done) {
                    if let Some(version) = done? {
                        merged.insert(key.clone(), version);
                        is_complete = false;
                    }
                }
            }
            // Other processes go on with the file during a merge, so it ends only after a pass without a change.
            if is_complete {
                return Ok(());
            }
        }
    }

    /// Writes a document that no program reads, to find out whether the store accepts writes.
    async fn try_write(&self) -> Result<(), StoreError> {
        let key = StoreKey::account_extension(&"quota/probe".parse().expect("the name is valid"), "trial");
        let written = Remote(self).compare_and_swap(&key, None, Bytes::from_static(b"{}"), TRIAL_TTL).await?;
        // A conflict means that another process has written, so the store is writable.
        if let CasOutcome::Conflict(reading) = written {
            self.measure(&reading);
        }
        Ok(())
    }
}
