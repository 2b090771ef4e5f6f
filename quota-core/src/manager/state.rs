//! The local state of a record: its record, pending changes, and refreshes in flight.
//! The rules are in `record`; `sync` reads and writes the store.

use std::sync::Arc;

use jiff::Timestamp;

use super::in_flight::InFlight;
use super::view::ViewFlags;
use crate::model::OwnerId;
use crate::record::{Lease, MergeOutcome, Record, Seed};
use crate::store::Version;
use crate::time::UnixMillis;

/// The local state of one record.
#[derive(Debug)]
pub(crate) struct LocalState {
    /// The record as last read from the store, or this process's own copy while the store is unavailable.
    pub(crate) base: Arc<Record>,
    pub(crate) sync_state: SyncState,
    /// Counts merges, so that changes that arrive during a write stay pending after it.
    pending_seq: u16,
    /// Observations and seeds that were not written to the store yet.
    pub(crate) pending: Option<Box<Pending>>,
    /// A lease whose call was dropped with its runtime. The next write releases it.
    pub(crate) abandoned: Option<Box<Lease>>,
    /// The refresh in flight, which all callers join.
    pub(crate) in_flight: Option<Arc<InFlight>>,
    /// Whether the base has changed since standalone operation began.
    pub(crate) dirty: bool,
    /// Whether the last read returned a record that could not be decoded.
    pub(crate) is_damaged: bool,
    /// Whether a task will write the pending changes.
    pub(crate) flush_scheduled: bool,
    /// Whether a follower keeps the record current.
    pub(crate) is_followed: bool,
    /// Whether a task holds the lock of reads and writes; see `RecordEntry::lock_sync`.
    pub(crate) is_syncing: bool,
    /// How many tasks wait for that lock.
    pub(crate) sync_waiters: u32,
}

/// How the base relates to the store's document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SyncState {
    /// The record was never read, or the base may be outdated.
    Unsynced,
    /// The base equals the store's document of this version; `None` if the store has no document.
    Synced(Option<Version>),
    /// Since this time, this process changes the base without the store, because the store is unavailable or the record unusable.
    Standalone(UnixMillis),
}

impl SyncState {
    /// The version of the document that the base equals; `None` if there is no such document.
    pub(crate) fn version(self) -> Option<Version> {
        match self {
            Self::Synced(version) => version,
            Self::Unsynced | Self::Standalone(_) => None,
        }
    }
}

/// Changes that the next write merges into the record.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pending {
    pub(crate) seed: Seed,
    pub(crate) owner_id: Option<OwnerId>,
    /// The sequence number of the last change merged into this value.
    pub(crate) seq: u16,
}

impl Pending {
    /// Merges these changes into `record`, unless they belong to another owner.
    pub(crate) fn merge_into(&self, record: &mut Record, now: Timestamp) -> MergeOutcome {
        let (readings, login_id) = (&self.seed.snapshot, self.seed.login_id.as_ref());
        match record.observe(now, readings, login_id, self.owner_id.as_ref()) {
            // The readings are merged already, so this adds the hold.
            MergeOutcome::Merged => record.seed(now, &self.seed),
            rejected => rejected,
        }
    }
}

impl LocalState {
    /// Creates the state of a record that was never read from the store.
    pub(crate) fn new(base: Arc<Record>) -> Self {
        Self {
            base,
            sync_state: SyncState::Unsynced,
            pending: None,
            abandoned: None,
            in_flight: None,
            dirty: false,
            is_damaged: false,
            pending_seq: 0,
            flush_scheduled: false,
            is_followed: false,
            is_syncing: false,
            sync_waiters: 0,
        }
    }

    /// The part of the view that is neither in the record nor in the state of an account.
    pub(crate) fn flags(&self) -> ViewFlags {
        let store_unavailable_since = match self.sync_state {
            SyncState::Standalone(since) => Some(since),
            SyncState::Unsynced | SyncState::Synced(_) => None,
        };
        let is_damaged = self.is_damaged && store_unavailable_since.is_some();
        ViewFlags { store_unavailable_since, is_damaged, ..ViewFlags::default() }
    }

    /// The record for readers in this process: the base with pending changes.
    pub(crate) fn effective_record(&self, now: Timestamp) -> Arc<Record> {
        if self.pending.is_none() && self.abandoned.is_none() {
            return Arc::clone(&self.base);
        }
        let mut record = (*self.base).clone();
        self.apply_local(&mut record, now);
        Arc::new(record)
    }

    /// Applies this process's own changes to `record`: pending changes, and the release of an abandoned lease.
    pub(crate) fn apply_local(&self, record: &mut Record, now: Timestamp) {
        if let Some(pending) = &self.pending {
            let _ = pending.merge_into(record, now);
        }
        if let Some(lease) = &self.abandoned {
            record.release(lease);
        }
    }

    /// Adds a seed to the pending changes. Rejects it if it belongs to another login.
    pub(crate) fn observe(
        &mut self,
        now: Timestamp,
        seed: &Seed,
        owner_id: Option<&OwnerId>,
    ) -> MergeOutcome {
        // Compare with the record that includes pending changes, because its owner may be stated only there.
        let mut effective = (*self.base).clone();
        self.apply_local(&mut effective, now);
        // Readings without a login belong to the current login and not to a later one.
        let mut seed = seed.clone();
        seed.login_id = seed.login_id.or_else(|| effective.login_id().cloned());
        // A reading without a reset gets the reset of the cached window. Otherwise it would count as one of an earlier period.
        seed.snapshot.assume_resets(effective.snapshot());
        let addition = Pending { seed, owner_id: owner_id.cloned(), seq: 0 };
        let outcome = addition.merge_into(&mut effective, now);
        if outcome != MergeOutcome::Merged {
            return outcome;
        }
        // Drop pending readings of another login.
        self.pending.take_if(|pending| {
            matches!((&pending.seed.login_id, &addition.seed.login_id), (Some(one), Some(other)) if one != other)
        });
        let pending = self.pending.get_or_insert_default();
        self.pending_seq = self.pending_seq.wrapping_add(1);
        pending.seq = self.pending_seq;
        pending.seed.snapshot.join(&addition.seed.snapshot);
        let ends_later = |current: &Option<crate::record::Hold>, new: &crate::record::Hold| {
            current.as_ref().is_none_or(|current| current.until < new.until)
        };
        if let Some(hold) = addition.seed.hold.filter(|hold| ends_later(&pending.seed.hold, hold)) {
            pending.seed.hold = Some(hold);
        }
        pending.seed.login_id = addition.seed.login_id.or(pending.seed.login_id.take());
        pending.owner_id = addition.owner_id.or(pending.owner_id.take());
        outcome
    }

    /// Requires a read of the store before the next decision, because the follower has ended or the base differs from the store's
    /// document.
    pub(crate) fn invalidate(&mut self) {
        if let SyncState::Synced(_) = self.sync_state {
            self.sync_state = SyncState::Unsynced;
        }
    }

    /// Whether this process runs without the store for this record.
    pub(crate) fn is_standalone(&self) -> bool {
        matches!(self.sync_state, SyncState::Standalone(_))
    }

    /// Whether the store has all changes.
    pub(crate) fn is_saved(&self) -> bool {
        self.pending.is_none() && !self.dirty && self.abandoned.is_none()
    }

    /// Whether a write is necessary: for pending changes, or to release a lease.
    pub(crate) fn needs_write(&self) -> bool {
        self.pending.is_some() || self.abandoned.is_some()
    }

    /// Whether a write is necessary and no task is scheduled for it.
    pub(crate) fn has_unscheduled_write(&self) -> bool {
        self.needs_write() && !self.flush_scheduled
    }

    /// Drops an abandoned lease once the store's `record` no longer has it.
    pub(crate) fn clear_released(&mut self, record: &Record) {
        self.abandoned.take_if(|lease| record.lease().is_none_or(|other| other.fence != lease.fence));
    }

    /// Drops the pending changes after their write. If more arrived during the write, all stay pending: a merge is idempotent.
    pub(crate) fn clear_pending(&mut self, seq: u16) {
        self.pending.take_if(|pending| pending.seq == seq);
    }

    /// Removes a refresh that has ended.
    pub(crate) fn refresh_done(&mut self, ended: &Arc<InFlight>) {
        self.in_flight.take_if(|in_flight| Arc::ptr_eq(in_flight, ended));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Percent, Snapshot, UsageReport, WindowId, WindowReading};

    #[test]
    fn readings_of_another_owner_are_not_merged() {
        let now = Timestamp::constant(1_800_000_000, 0);
        let mut record = Record::default();
        let _ = record.observe(now, &Snapshot::default(), None, Some(&OwnerId::new("new")));
        let before = record.clone();
        let window = WindowReading::new(WindowId::five_hour(), Percent::ZERO);
        let seed = Seed::new(Snapshot::of(&UsageReport::from_headers([window]), now));
        let pending = Pending { seed, owner_id: Some(OwnerId::new("old")), seq: 0 };

        assert_eq!(pending.merge_into(&mut record, now), MergeOutcome::OtherLogin);
        assert_eq!(record, before);
    }
}
