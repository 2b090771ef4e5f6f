//! What this process holds of an account: the record, pending changes, the refreshes in flight.
//! The rules are in `record`; the trips to the store are in `sync`.

use std::sync::Arc;

use jiff::Timestamp;

use super::error::QuotaError;
use super::in_flight::InFlight;
use super::view::ViewFlags;
use crate::model::{LoginId, OwnerId};
use crate::record::{Lease, MergeOutcome, Record, Seed};
use crate::store::Version;
use crate::time::UnixMillis;

/// The local state of one account.
#[derive(Debug)]
pub(crate) struct LocalState {
    /// The record as last read from the store, or this process's own copy while the store is unavailable.
    pub(crate) base: Arc<Record>,
    pub(crate) sync_state: SyncState,
    /// Counts merges, so that what arrives during a write is not dropped with what was written.
    pending_seq: u64,
    /// What was observed or seeded here and not written yet.
    pub(crate) pending: Option<Box<Pending>>,
    /// A lease whose call was dropped with its runtime. It is released by the next write.
    pub(crate) abandoned: Option<Box<Lease>>,
    /// Refreshes under way, at most one per login.
    pub(crate) refreshes: Vec<Arc<InFlight>>,
    /// The login that the user of this manager set last.
    pub(crate) login: Option<LoginId>,
    /// It is unknown which login the readings belong to.
    pub(crate) unattributed: bool,
    /// Why this process's last refresh failed, unless another process has refreshed since.
    pub(crate) failed: Option<Arc<QuotaError>>,
    /// The login of the base when standalone operation began.
    pub(crate) standalone_owner: Option<LoginId>,
    /// The base has changed since.
    pub(crate) dirty: bool,
    /// The store's record could not be decoded when it was last read.
    pub(crate) is_damaged: bool,
    pub(crate) flush_scheduled: bool,
}

/// How the base relates to the store's document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SyncState {
    /// The store was never read, or not for so long that the base may be outdated.
    Unsynced,
    /// The base is the store's document in this state, or the store has none.
    Synced(Option<Version>),
    /// This process has changed the base without the store since then, because the store could not be used.
    Standalone(UnixMillis),
}

impl SyncState {
    /// The version of the store's document that the base equals.
    pub(crate) fn version(self) -> Option<Version> {
        match self {
            Self::Synced(version) => version,
            Self::Unsynced | Self::Standalone(_) => None,
        }
    }
}

/// What the next write merges into the record.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pending {
    pub(crate) seed: Seed,
    pub(crate) owner_id: Option<OwnerId>,
    /// The number of the last merge in it.
    pub(crate) count: u64,
}

impl Pending {
    /// Merges what is pending into `record`.
    pub(crate) fn merge_into(&self, record: &mut Record, now: Timestamp) -> MergeOutcome {
        let joined = record.seed(now, &self.seed);
        if joined == MergeOutcome::Merged && self.owner_id.is_some() {
            return record.observe(now, &crate::Snapshot::default(), None, self.owner_id.as_ref());
        }
        joined
    }
}

impl LocalState {
    /// The state of an account that was never read from the store.
    pub(crate) fn new(base: Arc<Record>) -> Self {
        Self {
            base,
            sync_state: SyncState::Unsynced,
            pending: None,
            abandoned: None,
            refreshes: Vec::new(),
            login: None,
            unattributed: false,
            failed: None,
            standalone_owner: None,
            dirty: false,
            is_damaged: false,
            pending_seq: 0,
            flush_scheduled: false,
        }
    }

    /// What readers need to know beside the record.
    pub(crate) fn flags(&self) -> ViewFlags {
        let store_unavailable_since = match self.sync_state {
            SyncState::Standalone(since) => Some(since),
            SyncState::Unsynced | SyncState::Synced(_) => None,
        };
        let is_damaged = self.is_damaged && store_unavailable_since.is_some();
        ViewFlags {
            unattributed: self.unattributed,
            store_unavailable_since,
            is_damaged,
            failed: self.failed.clone(),
        }
    }

    /// The record as this process sees it: of the login that it holds, with what is pending.
    pub(crate) fn effective_record(&self, now: Timestamp) -> Arc<Record> {
        let another =
            self.login.as_ref().is_some_and(|login| self.base.login_id().is_some_and(|other| other != login));
        if self.pending.is_none() && self.abandoned.is_none() && !another {
            return Arc::clone(&self.base);
        }
        let mut record = (*self.base).clone();
        self.apply_local(&mut record, now);
        Arc::new(record)
    }

    /// Applies to a record what only this process has: the login that was set, and what is pending.
    pub(crate) fn apply_local(&self, record: &mut Record, now: Timestamp) {
        if let Some(login) = &self.login {
            record.new_login(login);
        }
        if let Some(pending) = &self.pending {
            let _ = pending.merge_into(record, now);
        }
        if let Some(lease) = &self.abandoned {
            record.release(lease);
        }
    }

    /// Merges something that is written later. What belongs to another login is rejected.
    pub(crate) fn observe(
        &mut self,
        now: Timestamp,
        seed: &Seed,
        owner_id: Option<&OwnerId>,
    ) -> MergeOutcome {
        // Compared with the record that includes what is pending, because that may state a login first.
        let mut trial = (*self.base).clone();
        self.apply_local(&mut trial, now);
        // Readings without a login belong to the current login, and to no later one.
        let mut seed = seed.clone();
        seed.login_id = seed.login_id.or_else(|| trial.login_id().cloned());
        // Merged with readings that have a time, one without a reset would count as one of an earlier period.
        seed.snapshot.assume_resets(trial.snapshot());
        let addition = Pending { seed, owner_id: owner_id.cloned(), count: 0 };
        let joined = addition.merge_into(&mut trial, now);
        if joined != MergeOutcome::Merged {
            return joined;
        }
        // Pending readings of another login are dropped.
        self.pending.take_if(|pending| {
            matches!((&pending.seed.login_id, &addition.seed.login_id), (Some(one), Some(other)) if one != other)
        });
        let pending = self.pending.get_or_insert_default();
        self.pending_seq += 1;
        pending.count = self.pending_seq;
        pending.seed.snapshot.join(&addition.seed.snapshot);
        let later = |mine: &Option<crate::record::Hold>, new: &crate::record::Hold| {
            mine.as_ref().is_none_or(|mine| mine.until < new.until)
        };
        if let Some(hold) = addition.seed.hold.filter(|hold| later(&pending.seed.hold, hold)) {
            pending.seed.hold = Some(hold);
        }
        pending.seed.login_id = addition.seed.login_id.or(pending.seed.login_id.take());
        pending.owner_id = addition.owner_id.or(pending.owner_id.take());
        joined
    }

    /// Requires a read of the store before the next decision: the account is not followed any more, or the base is not what the
    /// store has.
    pub(crate) fn invalidate(&mut self) {
        if let SyncState::Synced(_) = self.sync_state {
            self.sync_state = SyncState::Unsynced;
        }
    }

    /// Sets the login that the account holds from now on.
    pub(crate) fn set_login(&mut self, login: LoginId) {
        let before = self.login.replace(login);
        let Some(before) = before.filter(|before| self.login.as_ref() != Some(before)) else { return };
        self.failed = None;
        // What states no login belongs to the previous login, not to the next.
        if self.base.login_id().is_none() {
            let mut record = (*self.base).clone();
            record.new_login(&before);
            self.base = Arc::new(record);
        }
        let pending = self.pending.get_or_insert_default();
        pending.seed.login_id.get_or_insert(before);
        // Written soon, so that other processes do not attribute it to the new login either.
        self.pending_seq += 1;
        pending.count = self.pending_seq;
    }

    /// Whether this process goes on without the store.
    pub(crate) fn is_standalone(&self) -> bool {
        matches!(self.sync_state, SyncState::Standalone(_))
    }

    /// Whether the store has all changes.
    pub(crate) fn is_saved(&self) -> bool {
        self.pending.is_none() && !self.dirty && self.abandoned.is_none()
    }

    /// Whether there is something to write: what is pending, or the release of a lease.
    pub(crate) fn needs_write(&self) -> bool {
        self.pending.is_some() || self.abandoned.is_some()
    }

    /// Drops an abandoned lease once the store's `record` no longer has it.
    pub(crate) fn clear_released(&mut self, record: &Record) {
        self.abandoned.take_if(|lease| record.lease().is_none_or(|other| other.fence != lease.fence));
    }

    /// Drops what was written, unless more arrived during the write: merging that again changes nothing.
    pub(crate) fn clear_pending(&mut self, count: u64) {
        self.pending.take_if(|pending| pending.count == count);
    }

    /// Removes a refresh that has ended.
    pub(crate) fn refresh_done(&mut self, refresh_done: &Arc<InFlight>) {
        self.refreshes.retain(|in_flight| !Arc::ptr_eq(in_flight, refresh_done));
        if self.refreshes.is_empty() {
            // Most accounts have no refresh most of the time, so the capacity is released too.
            self.refreshes = Vec::new();
        }
    }

    /// The same for a refresh that failed, and stores why.
    pub(crate) fn refresh_failed(&mut self, refresh_done: &Arc<InFlight>, error: QuotaError) {
        self.refresh_done(refresh_done);
        // The error of the last call says more than that no other call was made.
        let is_known = matches!(error, QuotaError::CalledRecently { .. }) && self.failed.is_some();
        if refresh_done.login_id == self.login && !is_known {
            self.failed = Some(Arc::new(error));
        }
    }

    /// The refresh under way for the login the account holds.
    pub(crate) fn in_flight(&self) -> Option<&Arc<InFlight>> {
        self.refreshes.iter().find(|in_flight| in_flight.login_id == self.login)
    }
}
