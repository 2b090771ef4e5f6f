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

/// What this process knows and has in hand of one account.
#[derive(Debug)]
pub(crate) struct LocalState {
    /// The record as the store last showed it, or, while the store is away, as this process goes on with it.
    pub(crate) base: Arc<Record>,
    pub(crate) sync_state: SyncState,
    /// Counts what was joined here, so that what came during a write is not thrown away with what was written.
    pending_seq: u64,
    /// What was observed or seeded here and not written yet.
    pub(crate) pending: Option<Box<Pending>>,
    /// A lease whose call was dropped with its runtime. It is released by the next write.
    pub(crate) abandoned: Option<Box<Lease>>,
    /// Refreshes under way, at most one per login.
    pub(crate) refreshes: Vec<Arc<InFlight>>,
    /// The login that the user of this manager set last.
    pub(crate) login: Option<LoginId>,
    /// It cannot be told whose the numbers are.
    pub(crate) unattributed: bool,
    /// Why this process's last refresh failed, unless another process has refreshed since.
    pub(crate) failed: Option<Arc<QuotaError>>,
    /// Whose the base was when it began to go its own way.
    pub(crate) standalone_owner: Option<LoginId>,
    /// The base has changed since.
    pub(crate) dirty: bool,
    /// The store's record could not be decoded when it was last read.
    pub(crate) is_damaged: bool,
    pub(crate) flush_scheduled: bool,
}

/// How the base stands to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SyncState {
    /// The store was never asked, or not for so long that the base says little about it.
    Unsynced,
    /// The base is the store's document in this state, or the store has none.
    Synced(Option<Version>),
    /// The base has gone its own way since this moment, because the store could not be used.
    Standalone(UnixMillis),
}

impl SyncState {
    /// The state of the store's document that the base is.
    pub(crate) fn version(self) -> Option<Version> {
        match self {
            Self::Synced(version) => version,
            Self::Unsynced | Self::Standalone(_) => None,
        }
    }
}

/// What is to be joined to the record at the next write.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pending {
    pub(crate) seed: Seed,
    pub(crate) owner_id: Option<OwnerId>,
    /// The last join that is in it.
    pub(crate) count: u64,
}

impl Pending {
    /// Puts what is pending into `record`.
    pub(crate) fn merge_into(&self, record: &mut Record, now: Timestamp) -> MergeOutcome {
        let joined = record.seed(now, &self.seed);
        if joined == MergeOutcome::Merged && self.owner_id.is_some() {
            return record.observe(now, &crate::Snapshot::default(), None, self.owner_id.as_ref());
        }
        joined
    }
}

impl LocalState {
    /// A desk with a record that the store was never asked about.
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

    /// What has to be said beside the record.
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

    /// What the record is for this process: of the login it holds, with what is pending.
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

    /// Puts into a record what this process knows and the record may not: who holds the account, and what is pending.
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

    /// Joins something at the desk, to be written later. What belongs to another login is refused.
    pub(crate) fn observe(
        &mut self,
        now: Timestamp,
        seed: &Seed,
        owner_id: Option<&OwnerId>,
    ) -> MergeOutcome {
        // Against the record as it would be with all that is pending: that may have named a login first.
        let mut trial = (*self.base).clone();
        self.apply_local(&mut trial, now);
        // Readings without a login belong to the current login, and to no later one.
        let mut seed = seed.clone();
        seed.login_id = seed.login_id.or_else(|| trial.login_id().cloned());
        // Joined to readings with a time, one without a reset would count as one of an earlier period.
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

    /// Says which login the account holds from now on.
    pub(crate) fn set_login(&mut self, login: LoginId) {
        let before = self.login.replace(login);
        let Some(before) = before.filter(|before| self.login.as_ref() != Some(before)) else { return };
        self.failed = None;
        // What names no login belongs to the one that was set before, not to the next.
        if self.base.login_id().is_none() {
            let mut record = (*self.base).clone();
            record.new_login(&before);
            self.base = Arc::new(record);
        }
        let pending = self.pending.get_or_insert_default();
        pending.seed.login_id.get_or_insert(before);
        // To be written soon, so that other processes do not take it for the new login's either.
        self.pending_seq += 1;
        pending.count = self.pending_seq;
    }

    /// Whether this process goes on without the store.
    pub(crate) fn is_standalone(&self) -> bool {
        matches!(self.sync_state, SyncState::Standalone(_))
    }

    /// Whether the store has all that is to be written to it.
    pub(crate) fn is_saved(&self) -> bool {
        self.pending.is_none() && !self.dirty && self.abandoned.is_none()
    }

    /// Whether a write would bring the store something: what is pending, or the release of a lease.
    pub(crate) fn needs_write(&self) -> bool {
        self.pending.is_some() || self.abandoned.is_some()
    }

    /// Forgets an abandoned lease once `record` is what the store has: there it is released, or another one was granted.
    pub(crate) fn clear_released(&mut self, record: &Record) {
        self.abandoned.take_if(|lease| record.lease().is_none_or(|other| other.fence != lease.fence));
    }

    /// Drops what was written, unless more arrived during the write: merging that again changes nothing.
    pub(crate) fn clear_pending(&mut self, count: u64) {
        self.pending.take_if(|pending| pending.count == count);
    }

    /// Forgets a flight that has landed.
    pub(crate) fn refresh_done(&mut self, refresh_done: &Arc<InFlight>) {
        self.refreshes.retain(|in_flight| !Arc::ptr_eq(in_flight, refresh_done));
        if self.refreshes.is_empty() {
            // Most accounts have no flight most of the time, and then no room for one either.
            self.refreshes = Vec::new();
        }
    }

    /// The same for one that brought nothing, and remembers why.
    pub(crate) fn refresh_failed(&mut self, refresh_done: &Arc<InFlight>, error: QuotaError) {
        self.refresh_done(refresh_done);
        // That no other call was made says less than why the last one failed.
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
