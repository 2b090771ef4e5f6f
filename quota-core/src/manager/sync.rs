//! Changes of the shared record, and going on without the store.
//! The rule is passed in; the loop of read, decide and compare-and-swap is `store::update`.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::entry::AccountEntry;
use super::state::SyncState;
use crate::model::LoginId;
use crate::policy::StoreOutagePolicy;
use crate::record::Record;
use crate::store::update::{Change, run};
use crate::store::{CasOutcome, Document, Start, StoreError, StoreKey, StoreRead, Version};

/// Local changes that the store does not have.
#[derive(Clone)]
struct LocalChanges {
    record: Arc<Record>,
    /// The login of the record before standalone operation; `None` if no login was stated, or if the store lost the record.
    standalone_owner: Option<LoginId>,
}

impl AccountEntry {
    /// Changes the shared record by `work`, which may run several times, and publishes the result.
    ///
    /// While the store is unavailable, the change is made to this process's own copy. The first change after the outage merges it
    /// into the shared record.
    ///
    /// # Errors
    ///
    /// Only if the policy is [`StoreOutagePolicy::FailClosed`].
    pub(crate) async fn change<T>(
        &self,
        mut work: impl FnMut(&mut Record, Timestamp) -> T,
    ) -> Result<T, StoreError> {
        let _guard = self.sync_lock.lock().await;
        match self.cas_loop(&mut work).await {
            Ok(done) => Ok(done),
            Err(error) if self.provider.policy.on_store_unavailable == StoreOutagePolicy::FailClosed => {
                Err(error)
            }
            Err(error) => Ok(self.apply_standalone(&error, work)),
        }
    }

    /// Clears what another login left, if the readings belong to another login than `login_id`. If that fails, hides them.
    ///
    /// # Errors
    ///
    /// As [`change`](Self::change).
    pub(crate) async fn claim_login(&self, login_id: &LoginId) -> Result<(), StoreError> {
        let is_other = |known: &LoginId| known != login_id;
        if !self.view().record.login_id().is_some_and(is_other) {
            return Ok(());
        }
        let changed = self.change(|record, _| record.new_login(login_id)).await;
        changed.map(drop).inspect_err(|_| self.update(|local| local.unattributed = true))
    }

    /// The same for the outcome of a call: it is stored under every policy, with or without the store.
    pub(crate) async fn change_always<T>(&self, mut work: impl FnMut(&mut Record, Timestamp) -> T) -> T {
        let _guard = self.sync_lock.lock().await;
        match self.cas_loop(&mut work).await {
            Ok(done) => done,
            Err(error) => self.apply_standalone(&error, work),
        }
    }

    /// The same for a change that the caller wants all processes to see: an error means that they do not see it yet. A damaged
    /// record is replaced, because the caller asked for a repair.
    ///
    /// After an error the change is made to this process's own copy, unless the policy is [`StoreOutagePolicy::FailClosed`]. It is
    /// merged into the shared record once the store is back.
    pub(crate) async fn change_shared<T>(
        &self,
        mut work: impl FnMut(&mut Record, Timestamp) -> T,
    ) -> Result<T, StoreError> {
        let _guard = self.sync_lock.lock().await;
        let mut shared = self.cas_loop(&mut work).await;
        if let Err(StoreError::Corrupt { .. }) = shared {
            shared = match self.replace_damaged().await {
                Ok(()) => self.cas_loop(&mut work).await,
                Err(error) => Err(error),
            };
        }
        shared.inspect_err(|error| {
            if self.provider.policy.on_store_unavailable != StoreOutagePolicy::FailClosed {
                self.apply_standalone(error, |record, now| drop(work(record, now)));
            }
        })
    }

    /// Replaces a record that cannot be decoded with this process's copy. The caller holds `sync_lock`.
    ///
    /// A record of a newer format can be decoded in part, and stays.
    async fn replace_damaged(&self) -> Result<(), StoreError> {
        let key = StoreKey::account(&self.id);
        let reading = self.provider.store_client.read(&key).await?;
        let is_damaged = |document: &Document| Record::decode(&document.body).is_err();
        let Some(damaged) = reading.document.filter(is_damaged) else { return Ok(()) };
        let mut own = (*self.local().base).clone();
        own.bump_revision();
        let keep = self.provider.policy.record_ttl;
        // On a conflict another process has written, and that record is read next.
        let swap = self
            .provider
            .store_client
            .compare_and_swap(&key, Some(damaged.version), own.encode(), keep)
            .await?;
        if let CasOutcome::Applied(_) = swap {
            self.local().is_damaged = false;
            tracing::warn!(account = %self.id, "damaged record was replaced");
        }
        Ok(())
    }

    /// The caller holds `sync_lock`, and keeps it until the error is handled.
    async fn cas_loop<T>(&self, work: &mut impl FnMut(&mut Record, Timestamp) -> T) -> Result<T, StoreError> {
        let (start, alone) = self.start();
        let (key, keep) = (StoreKey::account(&self.id), self.provider.policy.record_ttl);
        let mut change = RecordChange { entry: self, work, alone, shared: None, joined: None };
        match run(&self.provider.store_client, &key, start, keep, &mut change).await {
            Ok(updated) => {
                self.accept_remote(updated.document, updated.version, change.joined);
                Ok(updated.value)
            }
            // The change may have been applied. Continuing is safe, because every change can be repeated.
            Err(error) => {
                if let (Some(alone), Some((shared, now))) = (&change.alone, &change.shared) {
                    self.store_merged(shared, alone, *now);
                }
                Err(error)
            }
        }
    }

    /// Reads the record, publishes it, and writes what the store does not have yet.
    ///
    /// `seen` is the state before the notice. If this process has changed its state since, the notice was of its own write, and
    /// the store is not read.
    pub(crate) async fn sync(&self, seen: Option<SyncState>) {
        let (is_standalone, has_pending) = {
            let local = self.local();
            (local.is_standalone(), local.needs_write() && !local.flush_scheduled)
        };
        // A write of pending changes may turn out to be unnecessary and then reads nothing, so the record is read first.
        let is_whole = !is_standalone && self.pull(seen).await;
        if !is_whole || has_pending {
            let _ = self.change(|_, _| ()).await;
        }
    }

    /// Accepts the store's record; `false` if the store lost something that this process can restore.
    async fn pull(&self, seen: Option<SyncState>) -> bool {
        let _guard = self.sync_lock.lock().await;
        if seen.is_some_and(|seen| self.local().sync_state != seen) {
            return true;
        }
        if self.local().is_standalone() {
            // The previous lock holder detached; the local copy is ahead of the store.
            return false;
        }
        let reading = self.provider.store_client.read(&StoreKey::account(&self.id)).await;
        match reading.and_then(|reading| Ok((self.decode_read(&reading)?, reading.version()))) {
            Ok((record, _)) if self.lost_by_store(&record).is_some() => {
                self.update(|local| local.sync_state = SyncState::Unsynced);
                return false;
            }
            Ok((record, version)) => self.accept_remote(record, version, None),
            Err(error) if self.provider.policy.on_store_unavailable == StoreOutagePolicy::FailClosed => {
                tracing::debug!(account = %self.id, %error, "store not usable for this account");
            }
            Err(error) => self.apply_standalone(&error, |_, _| ()),
        }
        true
    }

    /// Stores a repaired record if a clock that was ahead wrote timestamps in it. Otherwise each decision would repair it again, and
    /// a hold from the future would never end.
    pub(crate) async fn repair_clock(&self) {
        let now = self.provider.store_client.now_estimate();
        let record = self.local().effective_record(now);
        if record.is_writable() && record.needs_clock_repair(now) {
            let _ = self.change(|record, now| record.is_writable().then(|| record.repair_clock(now))).await;
        }
    }

    /// Reads the record if it was never read, was not followed for a while, or if our clock was set.
    pub(crate) async fn ensure_synced(&self) {
        let sync_state = self.local().sync_state;
        let is_known = match sync_state {
            SyncState::Unsynced => false,
            SyncState::Synced(_) => self.provider.store_client.now_if_trusted().is_some(),
            SyncState::Standalone(_) => true,
        };
        if !is_known {
            self.sync(Some(sync_state)).await;
        }
    }

    /// Runs `work` on a copy of the local record, without a trip to the store.
    pub(crate) fn dry_run<T>(&self, mut work: impl FnMut(&mut Record, Timestamp) -> T) -> T {
        let now = self.provider.store_client.now_estimate();
        let mut record = (*self.local().effective_record(now)).clone();
        work(&mut record, now)
    }

    /// The start of a change, and this process's changes of standalone operation.
    fn start(&self) -> (Start<Record>, Option<LocalChanges>) {
        let (record, sync_state, standalone_owner) = {
            let local = self.local();
            (Arc::clone(&local.base), local.sync_state, local.standalone_owner.clone())
        };
        match (sync_state, self.provider.store_client.now_if_trusted()) {
            (SyncState::Standalone(_), _) => (Start::Read, Some(LocalChanges { record, standalone_owner })),
            (SyncState::Synced(version), Some(now)) => {
                (Start::Known { document: record, version, now }, None)
            }
            (SyncState::Unsynced, Some(now)) if self.may_assume_absent() => {
                (Start::AssumeAbsent { now }, None)
            }
            (SyncState::Synced(_) | SyncState::Unsynced, _) => (Start::Read, None),
        }
    }

    /// Whether the account was never read and the store's time is available. Then a change may assume that there is no document:
    /// a conflict costs no more than a read.
    pub(crate) fn may_assume_absent(&self) -> bool {
        let is_blank = {
            let local = self.local();
            local.sync_state == SyncState::Unsynced && *local.base == Record::default()
        };
        is_blank && self.provider.store_client.now_if_trusted().is_some()
    }

    fn decode_read(&self, reading: &StoreRead) -> Result<Arc<Record>, StoreError> {
        let Some(document) = &reading.document else { return Ok(Arc::default()) };
        let known = {
            let local = self.local();
            (local.sync_state == SyncState::Synced(Some(document.version))).then(|| Arc::clone(&local.base))
        };
        match known {
            Some(record) => Ok(record),
            None => Ok(Arc::new(Record::decode(&document.body).map_err(|error| self.damaged(error))?)),
        }
    }

    /// What this process has and the store lost: a hold, calls, readings.
    fn lost_by_store(&self, shared: &Arc<Record>) -> Option<LocalChanges> {
        let known = Arc::clone(&self.local().base);
        let is_lost = !Arc::ptr_eq(shared, &known) && shared.is_behind(&known);
        is_lost.then_some(LocalChanges { record: known, standalone_owner: None })
    }

    fn damaged(&self, error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
        let error = StoreError::corrupt("the record is damaged, and was standalone_owner as it is")
            .with_source(error);
        self.provider.store_client.note_unusable(&StoreKey::account(&self.id), &error);
        self.local().is_damaged = true;
        error
    }

    /// Accepts the store's record; `joined` is what was pending and is in it.
    fn accept_remote(&self, record: Arc<Record>, version: Option<Version>, joined: Option<u64>) {
        self.update(|local| {
            local.clear_released(&record);
            local.base = record;
            local.sync_state = SyncState::Synced(version);
            (local.standalone_owner, local.dirty, local.is_damaged) = (None, false, false);
            if let Some(count) = joined {
                local.clear_pending(count);
            }
        });
    }

    /// Accepts the store's record merged with this process's copy, although the store rejects the write. Otherwise a process whose
    /// writes are rejected would never see what other processes write.
    fn store_merged(&self, shared: &Record, own: &LocalChanges, now: Timestamp) {
        let mut joined = shared.clone();
        let _ = joined.merge_standalone(now, &own.record, own.standalone_owner.as_ref());
        self.update(|local| {
            local.base = Arc::new(joined);
            local.standalone_owner = shared.login_id().cloned();
            local.dirty = true;
            // The base is no version of the store's document any more, so the next change must read first.
            local.invalidate();
        });
    }

    /// Makes the change in this process's own copy.
    fn apply_standalone<T>(&self, error: &StoreError, work: impl FnOnce(&mut Record, Timestamp) -> T) -> T {
        self.update(|local| {
            let now = self.provider.store_client.now_estimate();
            // Says why this process is standalone: for a damaged record, and not for an outage.
            local.is_damaged &= matches!(error, StoreError::Corrupt { .. });
            if !local.is_standalone() {
                if let StoreError::Corrupt { .. } = error {
                    tracing::warn!(account = %self.id, %error, "record not usable, going on alone");
                } else {
                    // The store client logs an outage once, not for each account.
                    tracing::debug!(account = %self.id, %error, "store not usable for this account, going on alone");
                }
                local.sync_state = SyncState::Standalone(now.into());
                local.standalone_owner = local.base.login_id().cloned();
            }
            let mut record = (*local.base).clone();
            local.apply_local(&mut record, now);
            local.pending = None;
            let done = work(&mut record, now);
            if record != *local.base {
                local.base = Arc::new(record);
                local.dirty = true;
            }
            done
        })
    }
}

/// One change of the shared record, as the update loop makes it.
struct RecordChange<'a, W> {
    entry: &'a AccountEntry,
    work: &'a mut W,
    /// Changes of standalone operation, which are merged first.
    alone: Option<LocalChanges>,
    /// The store's record that was decided on last, and when.
    shared: Option<(Arc<Record>, Timestamp)>,
    /// The number of the last pending merge that the decision includes.
    joined: Option<u64>,
}

impl<T, W: FnMut(&mut Record, Timestamp) -> T> Change for RecordChange<'_, W> {
    type Document = Record;
    type Output = T;

    fn decode(&mut self, found: &StoreRead) -> Result<Arc<Record>, StoreError> {
        self.shared = None;
        let record = self.entry.decode_read(found)?;
        self.alone = self.alone.take().or_else(|| self.entry.lost_by_store(&record));
        self.shared = Some((Arc::clone(&record), found.now));
        Ok(record)
    }

    fn on_conflict(&mut self, record: &Arc<Record>, version: Option<Version>) {
        if self.alone.is_none() {
            // If this change never wins, the next one starts from this record.
            self.entry.accept_remote(Arc::clone(record), version, None);
        }
    }

    fn decide(&mut self, record: &mut Record, now: Timestamp) -> T {
        if let Some(alone) = &self.alone {
            let _ = record.merge_standalone(now, &alone.record, alone.standalone_owner.as_ref());
        }
        {
            let local = self.entry.local();
            local.apply_local(record, now);
            self.joined = local.pending.as_ref().map(|pending| pending.count);
        }
        (self.work)(record, now)
    }

    fn encode(&mut self, record: &mut Record) -> Bytes {
        record.shrink();
        record.bump_revision();
        record.encode()
    }
}
