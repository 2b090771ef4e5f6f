//! Finds the level in use, begins an outage, and ends it. The process may be killed after each step;
//! `docs/design/outage.md` explains the effects.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use jiff::Timestamp;

use super::document::{Failure, Outage, OutageDoc, Scope};
use super::merge::{self, Kind};
use super::verdict::{is_untried, rejects_only_writes};
use super::{Active, DOC_TTL, OutageStore, Remote, cause};
use crate::model::RequestId;
use crate::store::update::Trips as _;
use crate::store::{
    DocumentBody as _, DocumentEntry, QuotaStore, Start, StoreError, StoreKey, Updated, Version, WriteState,
    update,
};
use crate::time;

/// The timeout of an attempt to end the outage. It is shorter than the lease for it.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the store keeps the document of the trial write.
const TRIAL_TTL: Duration = Duration::from_millis(1);
/// The minimum TTL of a merged document, equal to the minimum `Policy::record_ttl`. The document in the file may be
/// about to expire, but the merged one has newer content.
const MIN_MERGED_TTL: Duration = Duration::from_secs(2 * 3600);
/// How long the outage document is cached. Another process's attempt may end or limit the outage in the meantime. The
/// next attempt then merges a write to the file, or the write fails because the file is gone.
const RECENT: Duration = Duration::from_millis(500);
/// The timeout of the operation that checks whether this process has time left. Without time, the store fails
/// immediately.
const PROBE_TIMEOUT: Duration = Duration::from_millis(50);
/// How many documents are merged concurrently.
const CONCURRENT_MERGES: usize = 64;

impl OutageStore {
    /// Changes the outage document.
    pub(super) async fn change<T: Send>(
        store: &dyn QuotaStore,
        decide: impl FnMut(&mut OutageDoc, Timestamp) -> T + Send,
    ) -> Result<Updated<OutageDoc, T>, StoreError> {
        update(store, &StoreKey::outage(), Start::Read, DOC_TTL, super::LEVEL_TIMEOUT, decide).await
    }

    /// The level in use; `None` if there is no outage. If the next attempt to use the store is due, one process makes
    /// it here.
    pub(super) async fn active(&self) -> Option<Active> {
        if let Some(active) = self.recent() {
            return Some(active);
        }
        for (index, level) in self.levels() {
            if !level.level.exists() {
                continue;
            }
            match self.inspect(index).await {
                Ok(Some(active)) => {
                    *self.recent.lock() = Some((self.clock.instant(), active.clone()));
                    return Some(active);
                }
                Ok(None) => {}
                Err(error) => self.skip(index, &error),
            }
        }
        None
    }

    /// The level that this process found recently, unless it is gone or its next attempt is due. A command makes a
    /// dozen concurrent store operations, and each read of the outage document would wait for the file's thread.
    fn recent(&self) -> Option<Active> {
        let (found_at, mut active) = self.recent.lock().clone()?;
        let age = self.clock.instant().saturating_since(found_at);
        active.now = time::saturating_add(active.now, age);
        let is_current = age < RECENT && !self.may_try(&active.doc, active.now);
        (is_current && self.levels[active.index].level.exists()).then_some(active)
    }

    /// Whether this process may make an attempt now.
    fn may_try(&self, doc: &OutageDoc, now: Timestamp) -> bool {
        let is_due = if self.is_brief { doc.is_due_for_brief(now) } else { doc.is_due(now) };
        is_due && !self.lacks_time.load(Ordering::Relaxed)
    }

    /// Records that a store operation encountered this outage.
    pub(super) fn meet(&self, active: &Active) {
        let place = self.levels[active.index].level.place();
        self.record_outage(active.doc.describe(place, active.now));
    }

    /// Reads the outage document, and makes a due attempt to use the store. `None` if the outage has ended.
    async fn inspect(&self, index: usize) -> Result<Option<Active>, StoreError> {
        let level = self.levels[index].level.as_ref();
        let store = self.open(index)?;
        let reading = self.on_level(store.read(&StoreKey::outage())).await?;
        let now = reading.now;
        let mut doc = match reading.document {
            Some(document) => Arc::new(OutageDoc::decode(&document.body)?),
            None if !level.exists() => return Ok(None),
            // The process that created the file ended before its next step. The file's documents are merged as usual.
            None => Arc::default(),
        };
        if !doc.is_writable() {
            return Err(StoreError::rejected("a newer program wrote the file for outages"));
        }
        if self.may_try(&doc, now) {
            let holder = RequestId::random();
            let claimed = Self::change(store.as_ref(), |doc, now| doc.claim(holder, now)).await?;
            doc = claimed.document;
            if claimed.value {
                let mut progress = Progress::default();
                let ended = self.end(index, store.as_ref(), holder, &mut progress).await;
                let Err(setback) = ended else { return Ok(None) };
                if self.ran_out_of_time(&setback.error, &progress).await {
                    tracing::debug!(
                        "no time left for the attempt to use the store, so another process makes it"
                    );
                    self.lacks_time.store(true, Ordering::Relaxed);
                    let abandoned = |doc: &mut OutageDoc, now| doc.attempt_abandoned(holder, now);
                    let doc = Self::change(store.as_ref(), abandoned).await?.document;
                    return Ok(Some(Active { index, store, doc, now }));
                }
                tracing::debug!(error = %setback.error, scope = ?setback.scope, "store still unavailable");
                let failure = self.failure(&setback.error, None);
                let failed =
                    |doc: &mut OutageDoc, now| doc.attempt_failed(holder, now, &failure, &setback.scope);
                doc = Self::change(store.as_ref(), failed).await?.document;
                if doc.is_partial() && matches!(setback.scope, Scope::Only(_)) {
                    self.merge_late(index, store.as_ref(), &doc, &mut progress).await;
                }
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

    fn failure(&self, error: &StoreError, key: Option<(StoreKey, bool)>) -> Failure {
        let (reason, offset_ms) = (cause(error).to_owned(), *self.offset_ms.lock());
        Failure { reason, key, offset_ms, jitter: fastrand::f64() }
    }

    /// Begins an outage after a failed operation on `key`, or joins one that another process has begun. Returns whether
    /// a level works.
    pub(super) async fn begin(&self, error: &StoreError, key: &StoreKey) -> bool {
        let reads_work = rejects_only_writes(error);
        if reads_work && self.offset_ms.lock().is_none() {
            // Measure the store's clock, because the file also stores times of the store.
            let _ = Remote(self).read(key).await;
        }
        let failure = self.failure(error, Some((key.clone(), reads_work)));
        *self.recent.lock() = None;
        for (index, level) in self.levels() {
            let failed = |doc: &mut OutageDoc, now| doc.failed(now, &failure);
            let begun = async {
                let store = if level.level.exists() { self.open(index)? } else { level.level.create()? };
                let changed = Self::change(store.as_ref(), failed).await;
                match changed {
                    // Another process has ended its outage in the meantime.
                    Err(_) if !level.level.exists() => {
                        Self::change(level.level.create()?.as_ref(), failed).await
                    }
                    changed => changed,
                }
            };
            match begun.await {
                Ok(begun) if begun.value => return true,
                // A newer program wrote it.
                Ok(_) => {}
                Err(error) => self.skip(index, &error),
            }
        }
        self.record_outage(Outage {
            since: self.clock.now(),
            retry_at: None,
            reason: failure.reason,
            place: None,
            is_partial: false,
        });
        false
    }

    /// Tries to end the outage: merges the level's documents into the store, and removes the level.
    ///
    /// If this process ends here, the file stays, and another process repeats all steps after the lease expires.
    /// Merging twice has no effect.
    async fn end(
        &self,
        index: usize,
        store: &dyn QuotaStore,
        holder: RequestId,
        progress: &mut Progress,
    ) -> Result<(), Setback> {
        let attempt =
            self.clock.bounded(ATTEMPT_TIMEOUT, self.merge_all(index, store, holder, progress)).await;
        let version = match attempt {
            Some(merged) => merged?,
            None => {
                let error =
                    StoreError::unavailable(WriteState::Unknown, "the merge into the store timed out");
                // The store works, but not for all documents.
                let is_partial =
                    progress.is_writable && !(progress.failed.is_empty() && progress.pending.is_empty());
                let scope = if is_partial { progress.scope() } else { Scope::Unknown };
                return Err(Setback { error, scope });
            }
        };
        self.levels[index].level.remove(version).await?;
        tracing::debug!("store available again, the outage's documents were merged");
        Ok(())
    }

    /// Merges all documents repeatedly until none has changed. Other processes continue to use the file in the
    /// meantime. Returns the version of the outage document that contains the lease of this attempt.
    ///
    /// The store works if it accepts the trial write or any document, because the trial document may be in a shard that
    /// is down.
    async fn merge_all(
        &self,
        index: usize,
        store: &dyn QuotaStore,
        holder: RequestId,
        progress: &mut Progress,
    ) -> Result<Version, Setback> {
        let trial = self.try_write(progress).await;
        let (mut doc, mut version) = self.claimed(store, holder).await?;
        let mut documents = self.merged_documents(index).await?;
        if let Err(error @ StoreError::Unavailable { .. }) = &trial
            && !self.is_any_readable(&documents).await
        {
            return Err(Setback::of_all(error.clone(), false));
        }
        let offset_ms = *self.offset_ms.lock();
        if let Some(offset_ms) = offset_ms {
            let corrected = Self::change(store, |doc, _| doc.correct(offset_ms)).await?;
            (doc, version) = (corrected.document, corrected.version.unwrap_or(version));
        }
        progress.is_writable = trial.is_ok();
        progress.untested = doc.failed_keys().collect();
        let mut is_first = true;
        loop {
            // Even if some of these fail, the others are in the store.
            let only_covered = doc.is_partial() && (is_first || !progress.failed.is_empty());
            documents.retain(|entry| progress.is_new(entry) && (!only_covered || doc.covers(&entry.key)));
            let is_done = documents.is_empty();
            self.merge_these(store, documents, doc.correction_ms(), progress).await;
            if let Err(error) = &trial
                && !progress.is_writable
                && !only_covered
            {
                return Err(Setback::of_all(error.clone(), rejects_only_writes(error)));
            }
            if is_first {
                self.test_failed(&doc, &mut progress.failed).await;
                progress.untested.clear();
            }
            if is_done && !(is_first && only_covered && progress.failed.is_empty()) {
                return match progress.failed.values().next() {
                    Some(error) => Err(Setback { error: error.clone(), scope: progress.scope() }),
                    None => Ok(version),
                };
            }
            is_first = false;
            (doc, version) = self.claimed(store, holder).await?;
            documents = self.merged_documents(index).await?;
        }
    }

    /// Merges these documents, 64 at a time. Stops after the first 64 if the store has accepted no write.
    async fn merge_these(
        &self,
        store: &dyn QuotaStore,
        documents: Vec<DocumentEntry>,
        shift_ms: i64,
        progress: &mut Progress,
    ) {
        progress.pending = documents.iter().map(|entry| entry.key.clone()).collect();
        let merge = async |entry: DocumentEntry| {
            let merged = self.merge_one(store, &entry, shift_ms).await;
            (entry.key, merged)
        };
        let mut merges =
            pin!(stream::iter(documents).map(merge).buffer_unordered(CONCURRENT_MERGES).enumerate());
        while let Some((count, (key, merged))) = merges.next().await {
            progress.pending.remove(&key);
            match merged {
                Ok((version, is_changed)) => {
                    progress.is_writable |= is_changed;
                    progress.has_answered |= is_changed;
                    progress.merged.insert(key, version);
                }
                Err(error) => drop(progress.failed.insert(key, error)),
            }
            if count + 1 >= CONCURRENT_MERGES && !progress.is_writable {
                break;
            }
        }
    }

    /// Merges changes that other processes have made since the last pass, for documents that return to the store when
    /// the outage becomes partial.
    async fn merge_late(
        &self,
        index: usize,
        store: &dyn QuotaStore,
        doc: &OutageDoc,
        progress: &mut Progress,
    ) {
        let merge = async {
            let mut documents = self.merged_documents(index).await?;
            documents.retain(|entry| progress.is_new(entry) && !doc.covers(&entry.key));
            self.merge_these(store, documents, doc.correction_ms(), progress).await;
            Ok::<_, StoreError>(())
        };
        if !matches!(self.clock.bounded(ATTEMPT_TIMEOUT, merge).await, Some(Ok(()))) {
            tracing::debug!("late writes stay in the file until all of it is merged");
        }
    }

    /// The outage document with its version, if this process still holds the lease for the attempt.
    async fn claimed(
        &self,
        store: &dyn QuotaStore,
        holder: RequestId,
    ) -> Result<(Arc<OutageDoc>, Version), StoreError> {
        let reading = self.on_level(store.read(&StoreKey::outage())).await?;
        let Some(document) = reading.document else {
            return Err(StoreError::unavailable(WriteState::NotApplied, "the file for outages is gone"));
        };
        let doc = OutageDoc::decode(&document.body)?;
        if doc.is_claimed_by(holder, reading.now) {
            return Ok((Arc::new(doc), document.version));
        }
        // This process was suspended, and another one is merging, or the store has failed again.
        Err(StoreError::unavailable(WriteState::NotApplied, "another process tries the store"))
    }

    async fn merged_documents(&self, index: usize) -> Result<Vec<DocumentEntry>, StoreError> {
        let mut documents = self.on_level(self.levels[index].level.documents()).await?;
        documents.retain(|entry| Kind::of(&entry.key).is_merged());
        Ok(documents)
    }

    /// Merges a document of the level. Returns its version there, and whether the store's document has changed.
    async fn merge_one(
        &self,
        store: &dyn QuotaStore,
        entry: &DocumentEntry,
        shift_ms: i64,
    ) -> Result<(Version, bool), StoreError> {
        let Some(found) = self.on_level(store.read(&entry.key)).await?.document else {
            return Ok((entry.version, false));
        };
        let ttl = entry.ttl.max(MIN_MERGED_TTL);
        let is_changed = merge::merge(&Remote(self), &entry.key, &found.body, ttl, shift_ms).await?;
        Ok((found.version, is_changed))
    }

    /// Whether the store returns some of these documents.
    async fn is_any_readable(&self, documents: &[DocumentEntry]) -> bool {
        let some = documents.iter().take(CONCURRENT_MERGES);
        let read = some.map(async |entry| Remote(self).read(&entry.key).await.is_ok());
        join_all(read).await.contains(&true)
    }

    /// Tests the documents whose operations failed before and that were not merged. Adds the errors to `failed`.
    async fn test_failed(&self, doc: &OutageDoc, failed: &mut BTreeMap<StoreKey, StoreError>) {
        let remote = Remote(self);
        let untested: Vec<_> = doc.failed_keys().filter(|(key, _)| !failed.contains_key(key)).collect();
        let test = async |(key, is_write): &(StoreKey, bool)| {
            remote.read(key).await?;
            if *is_write {
                // This swap conflicts, so it changes nothing.
                let body = Bytes::from_static(b"{}");
                let _ = remote.compare_and_swap(key, Some(Version::random()), body, TRIAL_TTL).await?;
            }
            Ok::<_, StoreError>(())
        };
        let tested = join_all(untested.iter().map(test)).await;
        let errors =
            untested.iter().zip(tested).filter_map(|((key, _), done)| Some((key.clone(), done.err()?)));
        failed.extend(errors);
    }

    /// Writes a document that no program reads, to check whether the store accepts writes. Reads it first, which
    /// measures the store's clock.
    async fn try_write(&self, progress: &mut Progress) -> Result<(), StoreError> {
        let key = trial_key();
        let remote = Remote(self);
        let version = remote.read(&key).await?.version();
        progress.has_answered = true;
        // A conflict means that another process has written, so the store is writable.
        remote.compare_and_swap(&key, version, Bytes::from_static(b"{}"), TRIAL_TTL).await.map(drop)
    }

    /// Whether the attempt failed only because this process has no time left for the store, which proves nothing about
    /// the documents. If the store has not responded at all, the failure counts. Otherwise each short-lived process
    /// would wait for it.
    async fn ran_out_of_time(&self, error: &StoreError, progress: &Progress) -> bool {
        if !progress.has_answered || !matches!(error, StoreError::Unavailable { .. }) {
            return is_untried(error);
        }
        if progress.failed.values().any(is_untried) {
            return true;
        }
        // The limit may have interrupted the last operation. This swap conflicts, so it changes nothing.
        let (key, body) = (trial_key(), Bytes::from_static(b"{}"));
        let probe = self.remote.compare_and_swap(&key, Some(Version::random()), body, TRIAL_TTL);
        let probed = self.clock.bounded(PROBE_TIMEOUT, probe).await;
        probed.is_some_and(|probed| probed.is_err_and(|error| is_untried(&error)))
    }
}

/// The key of a document that no program reads.
fn trial_key() -> StoreKey {
    StoreKey::account_extension(&"quota/probe".parse().expect("the name is valid"), "trial")
}

/// Why an attempt to end the outage failed.
struct Setback {
    error: StoreError,
    scope: Scope,
}

impl Setback {
    fn of_all(error: StoreError, reads_work: bool) -> Self {
        Self { error, scope: Scope::All { reads_work } }
    }
}

impl From<StoreError> for Setback {
    fn from(error: StoreError) -> Self {
        Self { error, scope: Scope::Unknown }
    }
}

/// The progress of an attempt.
#[derive(Default)]
struct Progress {
    /// The merged documents, each with its version in the file.
    merged: HashMap<StoreKey, Version>,
    failed: BTreeMap<StoreKey, StoreError>,
    /// The documents of this pass that are not yet merged.
    pending: HashSet<StoreKey>,
    /// The documents whose operations failed before, until they are tested again.
    untested: Vec<(StoreKey, bool)>,
    /// Whether the store has accepted a write.
    is_writable: bool,
    /// Whether the store has responded at all.
    has_answered: bool,
}

impl Progress {
    /// Whether the document must be merged: it has changed, and has not failed.
    fn is_new(&self, entry: &DocumentEntry) -> bool {
        self.merged.get(&entry.key) != Some(&entry.version) && !self.failed.contains_key(&entry.key)
    }

    /// The documents that failed, and those that were not merged in time.
    fn scope(&self) -> Scope {
        let failed =
            self.failed.iter().map(|(key, error)| (key.as_str().to_owned(), rejects_only_writes(error)));
        let pending = self.pending.iter().map(|key| (key.as_str().to_owned(), false));
        let untested = self.untested.iter().map(|(key, reads_work)| (key.as_str().to_owned(), *reads_work));
        Scope::Only(pending.chain(untested).chain(failed).collect())
    }
}
