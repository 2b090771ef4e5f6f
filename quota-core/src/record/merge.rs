//! Merges readings and state without a call: observed readings, seeds, and the copy of a process that ran without the store.

use jiff::Timestamp;

use super::{CallRecord, Hold, LastFailure, Lease, Record};
use crate::model::{LoginId, OwnerId, Snapshot};
use crate::time::{self, latest_plausible};

/// The outcome of a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub enum MergeOutcome {
    /// The data is in the record, or was already.
    Merged,
    /// The data belongs to another login. Nothing was changed.
    OtherLogin,
    /// A newer program wrote the record, so this program must not change it.
    UnsupportedFormat,
}

/// A persisted state of an account: readings with their own timestamps, and optionally a hold.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Seed {
    /// The readings.
    pub snapshot: Snapshot,
    /// The hold. An expired hold is ignored.
    pub hold: Option<Hold>,
    /// The login of the state, if known.
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

    /// Sets the login of the state.
    #[must_use]
    pub fn login_id(mut self, login_id: impl Into<Option<LoginId>>) -> Self {
        self.login_id = login_id.into();
        self
    }
}

impl Record {
    /// Merges readings that arrived without a call. The hold, the lease and the failure streak stay.
    ///
    /// Readings from the future are dropped. A wrong clock wrote them, and they would override every correct reading.
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
                // The readings predate the removal, and so does their owner.
                return MergeOutcome::Merged;
            }
        }
        self.owner.adopt(login_id, owner_id);
        plausible.assume_resets(&self.snapshot);
        self.snapshot.join(&plausible);
        MergeOutcome::Merged
    }

    /// Merges a persisted state with its own timestamps, without a call.
    pub fn seed(&mut self, now: Timestamp, seed: &Seed) -> MergeOutcome {
        let joined = self.observe(now, &seed.snapshot, seed.login_id.as_ref(), None);
        if joined == MergeOutcome::Merged {
            let mut hold = seed.hold.clone();
            hold.iter_mut().for_each(|hold| hold.repair_clock(now));
            self.extend_hold(now, hold.as_ref());
        }
        joined
    }

    /// Moves the limits on the next call by this many milliseconds: the hold, the lease, the last failure and the calls.
    ///
    /// For a copy by a clock that was wrong by so much. Its readings keep their times, so they count as older, or are dropped as readings
    /// from the future. That costs one call, and a lost hold would break a limit.
    pub(crate) fn shift_limits(&mut self, by_ms: i64) {
        if by_ms == 0 || !self.is_writable() {
            return;
        }
        let shift = |at: &mut Timestamp| *at = time::shifted(*at, by_ms);
        self.hold.iter_mut().for_each(|hold| hold.shift(by_ms));
        if let Some(lease) = &mut self.lease {
            shift(&mut lease.granted_at);
            shift(&mut lease.until);
        }
        for failure in [&mut self.last_failure, &mut self.failed].into_iter().flatten() {
            shift(&mut failure.at);
        }
        self.unscoped
            .iter_mut()
            .flat_map(|rejections| rejections.iter_mut())
            .for_each(|rejection| shift(&mut rejection.at));
        let given_back = self.given_back.iter_mut().flat_map(|calls| calls.iter_mut());
        self.calls.iter_mut().chain(given_back).for_each(|call| shift(&mut call.at));
    }

    /// Merges a copy that this process changed without the store under the same rules, or a state that the store lost.
    ///
    /// Its calls count, its holds apply, and its readings keep their timestamps. `left` is the login of the copy when the
    /// store became unavailable. If the copy has another login now, the record adopts it, unless another process changed the
    /// login too.
    pub fn merge_standalone(&mut self, now: Timestamp, local: &Self, left: Option<&LoginId>) -> MergeOutcome {
        if !local.is_writable() {
            // In a record of this format its fields could have another meaning.
            return MergeOutcome::UnsupportedFormat;
        }
        let now = time::truncate_ms(now);
        let mut local = local.clone();
        local.repair_clock(now);
        if self.is_writable() {
            self.repair_clock(now);
        }
        if let Some(at) = self.forgotten_at.max(local.forgotten_at).filter(|_| self.is_writable()) {
            // A side that was removed then or later contains only later readings.
            for side in [&mut *self, &mut local] {
                if side.forgotten_at < Some(at) {
                    side.forget_until(at);
                }
            }
        }
        if let Some(login_id) = local.login_id().filter(|_| left.is_some() && self.login_id() == left) {
            self.new_login(login_id);
        }
        let shared = self.calls.iter().filter(|attempt| local.calls.contains(attempt));
        let shared: Vec<_> = shared.map(|attempt| attempt.fence).collect();
        if self.is_writable() {
            // All calls count, regardless of their process and login.
            self.merge_calls(&local.calls);
            let given_back = [self.given_back(), local.given_back()].concat();
            self.give_back(&given_back);
        }
        let (login_id, owner_id) = (local.login_id(), local.owner_id());
        let joined = self.observe(now, &local.snapshot, login_id, owner_id);
        if joined != MergeOutcome::Merged {
            return joined;
        }
        // A running call keeps its lease, unless another process was granted the lease since. A lease of the same request is
        // this process's own: its response was lost, and the process continued without it.
        let running = local.lease().filter(|lease| lease.fence > self.fence && lease.is_live(now));
        if let Some(lease) = running.filter(|running| {
            !self.lease().is_some_and(|mine| mine.is_live(now) && mine.attempt != running.attempt)
        }) {
            self.lease = Some(Box::new(lease.clone()));
        }
        // An earlier lease that was released since is void.
        let is_released = |lease: &mut Box<Lease>| {
            shared.contains(&lease.fence) && local.lease.is_none() && lease.fence <= local.fence
        };
        self.lease.take_if(is_released);
        // The lease of a withdrawn call is void too, and its credential met no hold. Either side may still contain that
        // lease.
        let given_back: Vec<_> = self.given_back().iter().map(|call| call.fence).collect();
        let is_withdrawn = |lease: &mut Box<Lease>| given_back.contains(&lease.fence);
        for lease in
            [self.lease.take_if(is_withdrawn), local.lease.take_if(is_withdrawn)].into_iter().flatten()
        {
            for hold in [&mut self.hold, &mut local.hold].into_iter().flatten() {
                hold.unmet_by(lease.fingerprint);
            }
        }
        self.unknown = std::mem::take(&mut self.unknown).max(local.unknown.clone());
        self.fence = self.fence.max(local.fence);
        self.drop_cleared(local.cleared_fence);
        local.drop_cleared(self.cleared_fence);
        self.revision = self.revision.max(local.revision);
        let last = self.last_failure().map(|failure| failure.at).max(self.complete_at());
        let newer = |failure: &&LastFailure| last.is_none_or(|last| last < failure.at);
        if let Some(failure) = local.last_failure().filter(newer) {
            self.last_failure = Some(Box::new(failure.clone()));
        }
        match (self.refreshed_at, local.refreshed_at) {
            (mine, Some(theirs)) if mine < Some(theirs) => self.clear_hold_before(now, theirs.timestamp()),
            (Some(mine), theirs) if theirs < Some(mine) => local.clear_hold_before(now, mine.timestamp()),
            _ => {}
        }
        if let Some(at) = local.refreshed_at {
            self.refreshed(at, local.refreshed_with);
        }
        for refusal in local.unscoped() {
            let is_known = self
                .unscoped()
                .iter()
                .any(|known| known.fingerprint == refusal.fingerprint && known.at >= refusal.at);
            if !is_known {
                self.record_unscoped(refusal);
            }
        }
        self.apply_lists();
        let asked = self.complete_at();
        self.last_failure.take_if(|failure| Some(failure.at) < asked);
        self.extend_hold(now, local.hold());
        if self.hold.is_some() {
            self.rate_limit_streak = self.rate_limit_streak.max(local.rate_limit_streak);
            self.failures = self.failures.max(local.failures);
            self.streak_fence = self.streak_fence.max(local.streak_fence);
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

    /// Merges a hold. The hold that ends later wins. An expired or cleared hold is ignored.
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
