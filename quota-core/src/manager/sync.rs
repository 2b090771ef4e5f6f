//! Reads and changes the shared record, and runs standalone without the store.
//! The caller passes the rule; `store::update` has the loop of read, decide and compare-and-swap.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::entry::RecordEntry;
use super::state::SyncState;
use crate::policy::StoreOutagePolicy;
use crate::record::Record;
use crate::store::update::{Change, run};
use crate::store::{CasOutcome, Document, Notice, Start, StoreError, StoreRead, Version};

impl RecordEntry {
    /// Changes the shared record with `work`, which may run several times, and publishes the result.
    ///
    /// While the store is unavailable, this changes this process's own copy. The first change after the outage merges the copy into
    /// the shared record.
    ///
    /// # Errors
    ///
    /// An error only if the policy is [`StoreOutagePolicy::FailClosed`].
    pub(crate) async fn change<T>(
        &self,
        mut work: impl FnMut(&mut Record, Timestamp) -> T,
    ) -> Result<T, StoreError> {
        self.change_for_call(true, |record, now, _| work(record, now)).await
    }

    /// Like [`change`](Self::change), for the grant of a lease. With [`StoreOutagePolicy::RefreshOnly`], a call without the store
    /// must be `explicit`. `work` also gets the origin of the record that it changes.
    ///
    /// # Errors
    ///
    /// As [`change`](Self::change), and if the policy does not allow such a call.
    pub(crate) async fn change_for_call<T>(
        &self,
        explicit: bool,
        mut work: impl FnMut(&mut Record, Timestamp, Origin) -> T,
    ) -> Result<T, StoreError> {
        let _guard = self.lock_sync().await;
        let error = match self.cas_loop(self.start(), &mut work).await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        match self.provider.policy.on_store_unavailable {
            StoreOutagePolicy::FailClosed => Err(error),
            StoreOutagePolicy::RefreshOnly if !explicit => {
                self.apply_standalone(&error, |_, _| ());
                Err(error)
            }
            _ => Ok(self.apply_standalone(&error, |record, now| work(record, now, Origin::Copy))),
        }
    }

    /// Reads the record from the store and returns its [`ended_fence`](Record::ended_fence); `None` if that fails, or if the read is
    /// needless once this process has finished its previous access to the record.
    pub(crate) async fn read_ended_fence(&self, is_needless: impl Fn() -> bool) -> Option<u64> {
        let _guard = self.lock_sync().await;
        if is_needless() {
            return None;
        }
        let (_, local_changes) = self.start();
        // A conflict may run this again. The first record counts, because a call may end before the second.
        let mut first = None;
        let mut work =
            |record: &mut Record, now: Timestamp, _| *first.get_or_insert_with(|| record.ended_fence(now));
        match self.cas_loop((Start::Read, local_changes), &mut work).await {
            Ok(ended) => Some(ended),
            Err(error) => {
                if self.provider.policy.on_store_unavailable != StoreOutagePolicy::FailClosed {
                    self.apply_standalone(&error, |_, _| ());
                }
                None
            }
        }
    }

    /// Like [`change`](Self::change), for the outcome of a call: stores it under every policy, if necessary in this process's own
    /// copy.
    pub(crate) async fn change_always<T>(&self, mut work: impl FnMut(&mut Record, Timestamp) -> T) -> T {
        let _guard = self.lock_sync().await;
        match self.cas_loop(self.start(), &mut |record, now, _| work(record, now)).await {
            Ok(done) => done,
            Err(error) => self.apply_standalone(&error, work),
        }
    }

    /// Like [`change`](Self::change), but returns an error if other processes do not see the change yet. Replaces a damaged record,
    /// because the caller requested a repair.
    ///
    /// After an error, this changes this process's own copy, unless the policy is [`StoreOutagePolicy::FailClosed`]. The first
    /// change after the outage merges the copy into the shared record.
    pub(crate) async fn change_shared<T>(
        &self,
        mut work: impl FnMut(&mut Record, Timestamp) -> T,
    ) -> Result<T, StoreError> {
        let _guard = self.lock_sync().await;
        let mut by_origin = |record: &mut Record, now: Timestamp, _| work(record, now);
        let mut result = self.cas_loop(self.start(), &mut by_origin).await;
        if let Err(StoreError::Corrupt { .. }) = result {
            result = match self.replace_damaged().await {
                Ok(()) => self.cas_loop(self.start(), &mut by_origin).await,
                Err(error) => Err(error),
            };
        }
        result.inspect_err(|error| {
            if self.provider.policy.on_store_unavailable != StoreOutagePolicy::FailClosed {
                self.apply_standalone(error, |record, now| drop(work(record, now)));
            }
        })
    }

    /// Replaces a record that cannot be decoded with this process's copy. The caller holds the sync lock.
    ///
    /// A record of a newer format is not replaced: this version can decode it in part.
    async fn replace_damaged(&self) -> Result<(), StoreError> {
        let reading = self.provider.store_client.read(self.key()).await?;
        let is_damaged = |document: &Document| Record::decode(&document.body).is_err();
        let Some(damaged) = reading.document.filter(is_damaged) else { return Ok(()) };
        let mut own = (*self.local().base).clone();
        own.bump_revision();
        let ttl = self.provider.policy.record_ttl;
        // After a conflict, the caller's next attempt reads the other process's record.
        let outcome = self
            .provider
            .store_client
            .compare_and_swap(self.key(), Some(damaged.version), own.encode(), ttl)
            .await?;
        if let CasOutcome::Applied(_) = outcome {
            self.local().is_damaged = false;
            tracing::warn!(account = %self.key(), "damaged record was replaced");
        }
        Ok(())
    }

    /// Runs the update loop. The caller holds the sync lock until it has handled an error.
    async fn cas_loop<T>(
        &self,
        (start, local_changes): (Start<Record>, Option<Arc<Record>>),
        work: &mut impl FnMut(&mut Record, Timestamp, Origin) -> T,
    ) -> Result<T, StoreError> {
        let ttl = self.provider.policy.record_ttl;
        let mut change = RecordChange { entry: self, work, local_changes, shared: None, merged_seq: None };
        match run(&self.provider.store_client, self.key(), start, ttl, &mut change).await {
            Ok(updated) => {
                self.accept_remote(updated.document, updated.version, change.merged_seq);
                Ok(updated.value)
            }
            // The store may have applied the change. Applying it again is safe, because every change is idempotent.
            Err(error) => {
                if let (Some(local_changes), Some((shared, now))) = (&change.local_changes, &change.shared) {
                    self.store_merged(shared, local_changes, *now);
                }
                Err(error)
            }
        }
    }

    /// Reads the record, publishes it, and writes changes that the store does not have yet.
    ///
    /// `last_state` is the state before the wait for a notice. If the state differs now, this process has already read a newer
    /// version, so this does not read the store.
    pub(crate) async fn sync(&self, last_state: Option<SyncState>) {
        let (is_standalone, has_pending) = {
            let local = self.local();
            (local.is_standalone(), local.has_unscheduled_write())
        };
        // Read first, because a change that needs no write would not read the store.
        let is_complete = !is_standalone && self.pull(last_state).await;
        if !is_complete || has_pending {
            let _ = self.change(|_, _| ()).await;
        }
    }

    /// Like [`sync`](Self::sync) after a wait that ended with `notice`, but reads the store only if the notice does not show the
    /// current record.
    ///
    /// Returns the version of a late notice. The next wait must continue from that version, because the store reports no other.
    pub(crate) async fn sync_by_notice(&self, last_state: SyncState, notice: &Notice) -> Option<Version> {
        match self.accept_notice(notice).await {
            NoticeOutcome::Current => {
                let has_pending = self.local().has_unscheduled_write();
                if has_pending {
                    let _ = self.change(|_, _| ()).await;
                }
                None
            }
            NoticeOutcome::Late(version) => Some(version),
            NoticeOutcome::Undecided => {
                self.sync(Some(last_state)).await;
                None
            }
        }
    }

    /// Accepts the record of a notice if it is newer than the local one.
    ///
    /// A notice has no time of the store and may be late. So it never shows that the store lost a write, and it is not used
    /// while the local copy differs from every version of the store's document, or without an estimate of the store's time.
    async fn accept_notice(&self, notice: &Notice) -> NoticeOutcome {
        let Some(version) = notice.version else { return NoticeOutcome::Undecided };
        let _guard = self.lock_sync().await;
        let base = {
            let local = self.local();
            match local.sync_state {
                SyncState::Synced(known) if known == Some(version) => return NoticeOutcome::Current,
                SyncState::Synced(_) => Arc::clone(&local.base),
                SyncState::Unsynced | SyncState::Standalone(_) => return NoticeOutcome::Undecided,
            }
        };
        // A notice with a damaged body leads to a read, which shows whether the stored record is damaged.
        let record = notice.body.as_ref().and_then(|body| Record::decode(body).ok());
        let is_timed = self.provider.store_client.now_if_trusted().is_some();
        let Some(record) = record.filter(|_| is_timed) else { return NoticeOutcome::Undecided };
        match record.is_newer_than(&base) {
            Some(true) => {
                self.accept_remote(Arc::new(record), Some(version), None);
                NoticeOutcome::Current
            }
            Some(false) => NoticeOutcome::Late(version),
            None => NoticeOutcome::Undecided,
        }
    }

    /// Reads the store's record and accepts it; `false` if this process has changes that the store does not have.
    async fn pull(&self, last_state: Option<SyncState>) -> bool {
        let _guard = self.lock_sync().await;
        if last_state.is_some_and(|last_state| self.local().sync_state != last_state) {
            return true;
        }
        if self.local().is_standalone() {
            // The previous lock holder went standalone, so the local copy is newer than the store's.
            return false;
        }
        let reading = self.provider.store_client.read(self.key()).await;
        match reading.and_then(|reading| Ok((self.decode_read(&reading)?, reading.version()))) {
            Ok((record, _)) if self.lost_by_store(&record).is_some() => {
                self.update(|local| local.sync_state = SyncState::Unsynced);
                return false;
            }
            Ok((record, version)) => self.accept_remote(record, version, None),
            Err(error) if self.provider.policy.on_store_unavailable == StoreOutagePolicy::FailClosed => {
                tracing::debug!(account = %self.key(), %error, "could not read the record");
            }
            Err(error) => self.apply_standalone(&error, |_, _| ()),
        }
        true
    }

    /// Repairs and stores a record with timestamps from the future. Otherwise each decision would repair it again, and a hold from
    /// the future would never end.
    pub(crate) async fn repair_clock(&self) {
        let now = self.provider.store_client.now_estimate();
        let record = self.local().effective_record(now);
        if record.is_writable() && record.needs_clock_repair(now) {
            let _ = self.change(|record, now| record.is_writable().then(|| record.repair_clock(now))).await;
        }
    }

    /// Reads the record if it was never read, if its follower has ended, or if this process's clock was set.
    pub(crate) async fn ensure_synced(&self) {
        let sync_state = self.local().sync_state;
        let is_current = match sync_state {
            SyncState::Unsynced => false,
            SyncState::Synced(_) => self.provider.store_client.now_if_trusted().is_some(),
            SyncState::Standalone(_) => true,
        };
        if !is_current {
            self.sync(Some(sync_state)).await;
        }
    }

    /// Runs `work` on a copy of the local record, without a store access.
    pub(crate) fn dry_run<T>(&self, mut work: impl FnMut(&mut Record, Timestamp) -> T) -> T {
        let now = self.provider.store_client.now_estimate();
        let mut record = (*self.local().effective_record(now)).clone();
        work(&mut record, now)
    }

    /// The start of the update loop, and this process's copy after standalone operation.
    fn start(&self) -> (Start<Record>, Option<Arc<Record>>) {
        let (record, sync_state) = {
            let local = self.local();
            (Arc::clone(&local.base), local.sync_state)
        };
        match (sync_state, self.provider.store_client.now_if_trusted()) {
            (SyncState::Standalone(_), _) => (Start::Read, Some(record)),
            (SyncState::Synced(version), Some(now)) => {
                (Start::Known { document: record, version, now }, None)
            }
            (SyncState::Unsynced, Some(now)) if self.may_assume_absent() => {
                (Start::AssumeAbsent { now }, None)
            }
            (SyncState::Synced(_) | SyncState::Unsynced, _) => (Start::Read, None),
        }
    }

    /// Whether a change may assume that the store has no document, which saves a read: the account was never read, and the store's
    /// time is available. If the assumption is wrong, the conflict costs no more than the read.
    pub(crate) fn may_assume_absent(&self) -> bool {
        let is_unread = {
            let local = self.local();
            local.sync_state == SyncState::Unsynced && local.base == *self.empty()
        };
        is_unread && self.provider.store_client.now_if_trusted().is_some()
    }

    /// Whether this process has a copy, but does not know if the store still has the document. A follower then waits for a change
    /// from no document. So a confirmation that nothing changed means that the store has none.
    pub(crate) fn may_be_lost(&self) -> bool {
        let local = self.local();
        local.sync_state == SyncState::Unsynced && local.base != *self.empty()
    }

    fn decode_read(&self, reading: &StoreRead) -> Result<Arc<Record>, StoreError> {
        let Some(document) = &reading.document else { return Ok(Arc::clone(self.empty())) };
        let cached = {
            let local = self.local();
            (local.sync_state == SyncState::Synced(Some(document.version))).then(|| Arc::clone(&local.base))
        };
        match cached {
            Some(record) => Ok(record),
            None => Ok(Arc::new(Record::decode(&document.body).map_err(|error| self.damaged(error))?)),
        }
    }

    /// The holds, calls and readings that this process has and the store has lost, such as in a failover.
    fn lost_by_store(&self, shared: &Arc<Record>) -> Option<Arc<Record>> {
        let base = Arc::clone(&self.local().base);
        let is_lost = !Arc::ptr_eq(shared, &base) && shared.is_behind(&base);
        is_lost.then_some(base)
    }

    fn damaged(&self, error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
        let error = StoreError::corrupt("the record is damaged and was left unchanged").with_source(error);
        self.provider.store_client.note_unusable(self.key(), &error);
        self.local().is_damaged = true;
        error
    }

    /// Accepts the store's record. It includes the pending changes up to `merged_seq`.
    fn accept_remote(&self, record: Arc<Record>, version: Option<Version>, merged_seq: Option<u16>) {
        self.update(|local| {
            local.clear_released(&record);
            local.base = record;
            local.sync_state = SyncState::Synced(version);
            (local.dirty, local.is_damaged) = (false, false);
            if let Some(seq) = merged_seq {
                local.clear_pending(seq);
            }
        });
    }

    /// Merges the store's record into this process's copy after a failed write. Otherwise a process whose writes are rejected would
    /// never see the writes of other processes.
    fn store_merged(&self, shared: &Record, own: &Record, now: Timestamp) {
        let mut merged = shared.clone();
        let _ = merged.merge_standalone(now, own, None);
        self.update(|local| {
            local.base = Arc::new(merged);
            local.dirty = true;
            // The base no longer equals any version of the store's document, so the next change must read first.
            local.invalidate();
        });
    }

    /// Applies the change to this process's own copy.
    fn apply_standalone<T>(&self, error: &StoreError, work: impl FnOnce(&mut Record, Timestamp) -> T) -> T {
        self.update(|local| {
            let now = self.provider.store_client.now_estimate();
            // After an outage, the damage is no longer the reason for standalone operation.
            local.is_damaged &= matches!(error, StoreError::Corrupt { .. });
            if !local.is_standalone() {
                if let StoreError::Corrupt { .. } = error {
                    tracing::warn!(account = %self.key(), %error, "record unusable, running standalone");
                } else {
                    // The store client logs an outage once, not for each account.
                    tracing::debug!(account = %self.key(), %error, "store unavailable, running standalone");
                }
                local.sync_state = SyncState::Standalone(now.into());
            }
            let mut record = (*local.base).clone();
            local.apply_local(&mut record, now);
            local.pending = None;
            let output = work(&mut record, now);
            if record != *local.base {
                local.base = Arc::new(record);
                local.dirty = true;
            }
            output
        })
    }
}

/// The origin of the record for a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The store returned it during this change. This process's own changes may be merged into it.
    Store,
    /// This process's copy, which may be outdated.
    Copy,
}

/// The relation of a notice to the local record.
enum NoticeOutcome {
    /// The local record is the notice's.
    Current,
    /// The notice's record is not newer than the local one. This is its version.
    Late(Version),
    /// Only a read shows the current record.
    Undecided,
}

/// A change of one record for the update loop.
struct RecordChange<'a, W> {
    entry: &'a RecordEntry,
    work: &'a mut W,
    /// This process's copy with changes that the store does not have, which are merged first.
    local_changes: Option<Arc<Record>>,
    /// The store's record of the last decision, with its time.
    shared: Option<(Arc<Record>, Timestamp)>,
    /// The sequence number of the last pending change that the decision includes.
    merged_seq: Option<u16>,
}

impl<T, W: FnMut(&mut Record, Timestamp, Origin) -> T> Change for RecordChange<'_, W> {
    type Document = Record;
    type Output = T;

    fn decode(&mut self, reading: &StoreRead) -> Result<Arc<Record>, StoreError> {
        self.shared = None;
        let record = self.entry.decode_read(reading)?;
        self.local_changes = self.local_changes.take().or_else(|| self.entry.lost_by_store(&record));
        self.shared = Some((Arc::clone(&record), reading.now));
        Ok(record)
    }

    fn on_conflict(&mut self, record: &Arc<Record>, version: Option<Version>) {
        if self.local_changes.is_none() {
            // If this change never succeeds, the next one starts from this record.
            self.entry.accept_remote(Arc::clone(record), version, None);
        }
    }

    fn decide(&mut self, record: &mut Record, now: Timestamp) -> T {
        if let Some(changes) = &self.local_changes {
            let _ = record.merge_standalone(now, changes, None);
        }
        {
            let local = self.entry.local();
            local.apply_local(record, now);
            self.merged_seq = local.pending.as_ref().map(|pending| pending.seq);
        }
        let origin = if self.shared.is_some() { Origin::Store } else { Origin::Copy };
        (self.work)(record, now, origin)
    }

    fn encode(&mut self, record: &mut Record) -> Bytes {
        if let Some(login) = self.entry.login() {
            // The loop may have started with the assumption that there is no document.
            record.new_login(login);
        }
        record.shrink();
        record.bump_revision();
        record.encode()
    }
}
