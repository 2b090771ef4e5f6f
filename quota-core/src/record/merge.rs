//! Merges what arrives without a call: observed readings, seeds, and the copy of a process that ran without the store.

use jiff::Timestamp;

use super::{CallRecord, Hold, LastFailure, Lease, Record};
use crate::model::{LoginId, OwnerId, Snapshot};
use crate::time::{self, latest_plausible};

/// The outcome of a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub enum MergeOutcome {
    /// It is in the record, or was already.
    Merged,
    /// It belongs to another login. Nothing was changed.
    OtherLogin,
    /// A newer program wrote the record, so it must not be changed.
    UnsupportedFormat,
}

/// A persisted state of an account: readings at their own age, and perhaps a hold.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Seed {
    /// The readings.
    pub snapshot: Snapshot,
    /// A hold; ignored if it has ended.
    pub hold: Option<Hold>,
    /// The login it belongs to, if known.
    pub login_id: Option<LoginId>,
}

impl Seed {
    /// Creates a seed of these readings.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        Self { snapshot, hold: None, login_id: None }
    }

    /// Sets the hold.
    #[must_use]
    pub fn hold(mut self, hold: impl Into<Option<Hold>>) -> Self {
        self.hold = hold.into();
        self
    }

    /// Sets the login it belongs to.
    #[must_use]
    pub fn login_id(mut self, login_id: impl Into<Option<LoginId>>) -> Self {
        self.login_id = login_id.into();
        self
    }
}

impl Record {
    /// Merges readings that arrived without a call. Hold, lease and failure streak stay.
    ///
    /// Readings from the future are dropped: their clock was wrong, and they would win over every true one.
    pub fn observe(
        &mut self,
        now: Timestamp,
        readings: &Snapshot,
        login_id: Option<&LoginId>,
        owner_id: Option<&OwnerId>,
    ) -> MergeOutcome {
        if !self.is_writable() {
            return MergeOutcome::UnsupportedFormat;
        }
        if self.owner.contradicts(login_id, owner_id) {
            return MergeOutcome::OtherLogin;
        }
        self.repair_clock(now);
        let mut plausible = readings.clone();
        plausible.drop_after(latest_plausible(now));
        if let Some(at) = self.forgotten_at {
            let was_empty = plausible.is_empty();
            plausible.drop_until(at.timestamp());
            if plausible.is_empty() && !was_empty {
                // The readings are from before the removal, and so is their owner.
                return MergeOutcome::Merged;
            }
        }
        self.owner.adopt(login_id, owner_id);
        plausible.assume_resets(&self.snapshot);
        self.snapshot.join(&plausible);
        MergeOutcome::Merged
    }

    /// Merges a persisted state at its own age, without a call.
    pub fn seed(&mut self, now: Timestamp, seed: &Seed) -> MergeOutcome {
        let joined = self.observe(now, &seed.snapshot, seed.login_id.as_ref(), None);
        if joined == MergeOutcome::Merged {
            let mut hold = seed.hold.clone();
            hold.iter_mut().for_each(|hold| hold.repair_clock(now));
            self.extend_hold(now, hold.as_ref());
        }
        joined
    }

    /// Merges the copy that this process changed by the same rules without the store, or a state that the store lost.
    ///
    /// Its calls count, its holds apply, and its readings are merged at their own age. `left` is the login that the copy had at
    /// first. If the copy has another login now, that applies, unless another process changed the login too.
    pub fn merge_standalone(&mut self, now: Timestamp, alone: &Self, left: Option<&LoginId>) -> MergeOutcome {
        if !alone.is_writable() {
            // Merged into a record of this format, its fields could change their meaning.
            return MergeOutcome::UnsupportedFormat;
        }
        let now = time::truncate_ms(now);
        let mut alone = alone.clone();
        alone.repair_clock(now);
        if self.is_writable() {
            self.repair_clock(now);
        }
        if let Some(at) = self.forgotten_at.max(alone.forgotten_at).filter(|_| self.is_writable()) {
            // A side that was removed then, or later, has only later readings.
            for side in [&mut *self, &mut alone] {
                if side.forgotten_at < Some(at) {
                    side.forget_until(at);
                }
            }
        }
        if let Some(login_id) = alone.login_id().filter(|_| left.is_some() && self.login_id() == left) {
            self.new_login(login_id);
        }
        let shared = self.calls.iter().filter(|attempt| alone.calls.contains(attempt));
        let shared: Vec<_> = shared.map(|attempt| attempt.fence).collect();
        if self.is_writable() {
            // All calls count, of any process and login.
            self.merge_calls(&alone.calls);
            let given_back = [self.given_back(), alone.given_back()].concat();
            self.give_back(&given_back);
        }
        let (login_id, owner_id) = (alone.login_id(), alone.owner_id());
        let joined = self.observe(now, &alone.snapshot, login_id, owner_id);
        if joined != MergeOutcome::Merged {
            return joined;
        }
        // A running call keeps its lease, unless another process got the lease since. A lease of the same request is our own: its
        // answer came too late, and we went on without it.
        let asking = alone.lease().filter(|lease| lease.fence > self.fence && lease.is_live(now));
        if let Some(lease) = asking.filter(|asking| {
            !self.lease().is_some_and(|mine| mine.is_live(now) && mine.attempt != asking.attempt)
        }) {
            self.lease = Some(Box::new(lease.clone()));
        }
        // An earlier lease that was released since is void.
        let is_given_back = |lease: &mut Box<Lease>| {
            shared.contains(&lease.fence) && alone.lease.is_none() && lease.fence <= alone.fence
        };
        self.lease.take_if(is_given_back);
        // A lease of a withdrawn call is void too, and its credential met no hold. Either side may still have that lease.
        let given_back: Vec<_> = self.given_back().iter().map(|call| call.fence).collect();
        let is_unmade = |lease: &mut Box<Lease>| given_back.contains(&lease.fence);
        for lease in [self.lease.take_if(is_unmade), alone.lease.take_if(is_unmade)].into_iter().flatten() {
            for hold in [&mut self.hold, &mut alone.hold].into_iter().flatten() {
                hold.unmet_by(lease.fingerprint);
            }
        }
        self.unknown = std::mem::take(&mut self.unknown).max(alone.unknown.clone());
        self.fence = self.fence.max(alone.fence);
        self.drop_cleared(alone.cleared_fence);
        alone.drop_cleared(self.cleared_fence);
        self.revision = self.revision.max(alone.revision);
        let last = self.last_failure().map(|failure| failure.at).max(self.complete_at());
        let newer = |failure: &&LastFailure| last.is_none_or(|last| last < failure.at);
        if let Some(failure) = alone.last_failure().filter(newer) {
            self.last_failure = Some(Box::new(failure.clone()));
        }
        match (self.refreshed_at, alone.refreshed_at) {
            (mine, Some(theirs)) if mine < Some(theirs) => self.clear_hold_before(now, theirs.timestamp()),
            (Some(mine), theirs) if theirs < Some(mine) => alone.clear_hold_before(now, mine.timestamp()),
            _ => {}
        }
        if let Some(at) = alone.refreshed_at {
            self.refreshed(at, alone.refreshed_with);
        }
        for refusal in &alone.unscoped {
            let is_known = self
                .unscoped
                .iter()
                .any(|known| known.fingerprint == refusal.fingerprint && known.at >= refusal.at);
            if !is_known {
                self.note_unscoped(refusal);
            }
        }
        self.apply_lists();
        let asked = self.complete_at();
        self.last_failure.take_if(|failure| Some(failure.at) < asked);
        self.extend_hold(now, alone.hold());
        if self.hold.is_some() {
            self.rate_limit_streak = self.rate_limit_streak.max(alone.rate_limit_streak);
            self.failures = self.failures.max(alone.failures);
            self.streak_fence = self.streak_fence.max(alone.streak_fence);
        }
        MergeOutcome::Merged
    }

    fn merge_calls(&mut self, calls: &[CallRecord]) {
        for attempt in calls {
            if !self.calls.contains(attempt) {
                self.calls.push(attempt.clone());
            }
        }
        self.bound_attempts();
    }

    /// Keeps the hold that ends later. One that has ended or was cleared is ignored.
    pub(super) fn extend_hold(&mut self, now: Timestamp, hold: Option<&Hold>) {
        let Some(mut hold) = hold.cloned() else { return };
        hold.shorten();
        if !hold.is_live(now) || (self.cleared_fence > 0 && hold.order() <= self.cleared_fence) {
            return;
        }
        match &mut self.hold {
            Some(mine) if (mine.until, mine.order()) == (hold.until, hold.order()) => {
                mine.met_by(hold.fingerprints().iter().copied());
            }
            Some(mine) if (mine.until, mine.order()) > (hold.until, hold.order()) => {}
            _ => self.hold = Some(Box::new(hold)),
        }
    }
}
