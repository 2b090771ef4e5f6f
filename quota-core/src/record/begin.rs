//! Grants the lease, which decides the process that may call the provider.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::hold::MISSING_SCOPE_RETRY_AFTER;
use super::{
    BUDGET_WINDOW, CallRecord, Counted, Hold, HoldReason, LastFailure, LastFailureKind, Lease, LeaseDecision,
    LeaseRequest, MaxStaleness, Priority, RecentCall, Record,
};
use crate::model::extra_fields::ExtraFields;
use crate::policy::Policy;
use crate::time;

impl Record {
    /// Decides whether `request` may call the provider at `now`, and grants the lease if so.
    ///
    /// A repeated request with the same id gets the same lease, so a request with a lost response can be retried. The
    /// caller must store a changed record, regardless of the decision.
    pub fn begin(&mut self, now: Timestamp, request: &LeaseRequest, policy: &Policy) -> LeaseDecision {
        let now = time::truncate_ms(now);
        if !self.is_writable() {
            return if self.would_be_fresh(now, request, policy) {
                LeaseDecision::NotNeeded
            } else {
                LeaseDecision::UnsupportedFormat
            };
        }
        self.repair_clock(now);
        if let Some(lease) =
            self.lease().filter(|lease| lease.attempt == request.attempt && lease.is_live(now))
        {
            return LeaseDecision::Granted(lease.clone());
        }
        if let Some(login_id) = &request.login.login_id {
            self.new_login(login_id);
        }
        if self.is_fresh(now, request.max_staleness, policy) {
            return LeaseDecision::NotNeeded;
        }
        let ended = self.satisfying_call(request);
        if let Some(call) = ended.as_ref().filter(|call| call.failure.is_none()) {
            return LeaseDecision::CalledRecently(call.clone());
        }
        match (self.refusal_at(now, request, policy), ended) {
            // Check for a hold first, because it has an end.
            (Some(hold @ LeaseDecision::OnHold(_)), _) => return hold,
            (_, Some(call)) => return LeaseDecision::CalledRecently(call),
            (Some(refusal), None) => return refusal,
            (None, None) => {}
        }
        if let Some(lease) = self.lease().filter(|lease| lease.is_live(now)) {
            return LeaseDecision::InProgress { until: lease.until, fence: lease.fence };
        }
        LeaseDecision::Granted(self.grant(now, request, policy))
    }

    fn is_fresh(&self, now: Timestamp, freshness: MaxStaleness, policy: &Policy) -> bool {
        let is_due = |duration, counted| self.due_at(duration, counted, policy).is_none_or(|due| due <= now);
        match freshness {
            MaxStaleness::Age(duration) => !is_due(duration, Counted::Account),
            MaxStaleness::CompleteAge(duration) => !is_due(duration, Counted::All),
            MaxStaleness::NewCall | MaxStaleness::CalledAfter(_) => false,
        }
    }

    /// The ended call that satisfies the request by its fence, or by its age.
    fn satisfying_call(&self, request: &LeaseRequest) -> Option<RecentCall> {
        let credential = request.login.fingerprint;
        let by_age = || match request.max_staleness {
            MaxStaleness::CalledAfter(started_after) => {
                self.last_call(credential).filter(|call| call.at >= started_after)
            }
            MaxStaleness::Age(_) | MaxStaleness::CompleteAge(_) | MaxStaleness::NewCall => None,
        };
        request.after_fence.and_then(|fence| self.call_after(fence, credential)).or_else(by_age)
    }

    /// Whether the readings of an unsupported format would be fresh after a clock repair.
    fn would_be_fresh(&self, now: Timestamp, request: &LeaseRequest, policy: &Policy) -> bool {
        let mut repaired = self.clone();
        repaired.repair_clock(now);
        let foreign = self.owner.contradicts(request.login.login_id.as_ref(), None);
        !foreign && repaired.is_fresh(now, request.max_staleness, policy)
    }

    /// Why a request for newer readings is refused at `now`: a hold, or else a rejected credential.
    pub(crate) fn refusal_at(
        &self,
        now: Timestamp,
        request: &LeaseRequest,
        policy: &Policy,
    ) -> Option<LeaseDecision> {
        let hold = self.hold_at(now, request, policy).map(LeaseDecision::OnHold);
        hold.or_else(|| self.rejection_at(now, request, policy).map(LeaseDecision::CredentialRejected))
    }

    /// The hold that ends last: the account's hold, the cooldown, or the exhausted budget.
    fn hold_at(&self, now: Timestamp, request: &LeaseRequest, policy: &Policy) -> Option<Hold> {
        let exhausted = self.budget_exhausted_until(now, request.priority, policy);
        let exhausted = exhausted.map(|until| Hold::new(now, until, HoldReason::BudgetExhausted));
        let own = self.hold().filter(|hold| !self.passes(request, hold));
        let holds = [own.cloned(), request.cooldown.clone(), exhausted];
        holds.into_iter().flatten().filter(|hold| hold.is_live(now)).max_by_key(|hold| hold.until)
    }

    /// Whether `request` may call despite the account's own hold.
    ///
    /// Without a stated login, another credential may belong to another login that the provider does not limit. One other
    /// credential may therefore call per hold, so rotating tokens cause at most one extra call.
    fn passes(&self, request: &LeaseRequest, hold: &Hold) -> bool {
        let is_stated = self.owner.login_id.is_some() || request.login.login_id.is_some();
        !is_stated && hold.admits(request.login.fingerprint)
    }

    /// When the budget allows a call again; `None` while calls are left.
    fn budget_exhausted_until(
        &self,
        now: Timestamp,
        priority: Priority,
        policy: &Policy,
    ) -> Option<Timestamp> {
        let reserve = if priority == Priority::Interactive { 0 } else { policy.budget.interactive_reserve };
        let allowed = policy.budget.per_hour.saturating_sub(reserve).max(1) as usize;
        // The call that must be an hour old before the next call is allowed.
        let counts = |at: &Timestamp| time::elapsed(*at, now) < BUDGET_WINDOW;
        let last_that_counts = self.calls.iter().rev().map(|call| call.at).filter(counts).nth(allowed - 1)?;
        Some(time::saturating_add(last_that_counts, BUDGET_WINDOW))
    }

    /// A recent rejection of this credential, for as long as a reading would be fresh. An explicit refresh may retry, unless
    /// the credential lacks a scope. Then only another credential can succeed.
    fn rejection_at(&self, now: Timestamp, request: &LeaseRequest, policy: &Policy) -> Option<LastFailure> {
        let of_credential = |failure: &&LastFailure| failure.fingerprint == request.login.fingerprint;
        if let Some(rejection) = self.unscoped().iter().find(of_credential) {
            return rejection.blocks_at(now).then(|| rejection.clone());
        }
        let failure = self.last_failure().filter(of_credential)?;
        let is_explicit =
            matches!(request.max_staleness, MaxStaleness::NewCall | MaxStaleness::CalledAfter(_));
        let lasts = rejection_lasts(failure, is_explicit, policy)?;
        (time::elapsed(failure.at, now) < lasts).then(|| failure.clone())
    }

    /// The earliest time at which [`begin`](Self::begin) no longer refuses `request`, if the record does not change; `None` if it
    /// does not refuse it at `now`.
    ///
    /// A refusal is a hold, the provider's cooldown, an exhausted budget, a rejected credential, or a record of a newer format.
    /// The last ends only with a change of the record. Fresh readings and a lease of another process are no refusals.
    pub(crate) fn next_attempt_at(
        &self,
        now: Timestamp,
        request: &LeaseRequest,
        policy: &Policy,
    ) -> Option<Timestamp> {
        if !self.is_writable() {
            return Some(Timestamp::MAX);
        }
        let now = time::truncate_ms(now);
        let is_other_login = self.owner.contradicts(request.login.login_id.as_ref(), None);
        if is_other_login || self.has_refusal_from_future(now) {
            // `begin` changes the record before it decides. Both are rare, so the copy costs little.
            let mut record = self.clone();
            record.repair_clock(now);
            if let Some(login_id) = &request.login.login_id {
                record.new_login(login_id);
            }
            return record.next_attempt_at_unchanged(now, request, policy);
        }
        self.next_attempt_at_unchanged(now, request, policy)
    }

    /// Like [`next_attempt_at`](Self::next_attempt_at), for a record of this login without timestamps from the future.
    ///
    /// Each cause refuses until its own end and not afterwards, so the last end decides.
    fn next_attempt_at_unchanged(
        &self,
        now: Timestamp,
        request: &LeaseRequest,
        policy: &Policy,
    ) -> Option<Timestamp> {
        let hold = self.hold().filter(|hold| !self.passes(request, hold)).map(|hold| hold.until);
        let cooldown = request.cooldown.as_ref().map(|hold| hold.until);
        let exhausted = self.budget_exhausted_until(now, request.priority, policy);
        let of_credential = |failure: &&LastFailure| failure.fingerprint == request.login.fingerprint;
        let unscoped = self.unscoped().iter().find(of_credential);
        let unscoped =
            unscoped.map(|rejection| time::saturating_add(rejection.at, MISSING_SCOPE_RETRY_AFTER));
        let rejected = self.last_failure().filter(of_credential).and_then(|failure| {
            Some(time::saturating_add(failure.at, rejection_lasts(failure, false, policy)?))
        });
        let ends = [hold, cooldown, exhausted, unscoped, rejected];
        ends.into_iter().flatten().max().filter(|end| now < *end)
    }

    /// Whether a cause of a refusal has a timestamp from the future, which [`repair_clock`](Self::repair_clock) changes.
    fn has_refusal_from_future(&self, now: Timestamp) -> bool {
        let newest_call = self.calls.last().map(|call| call.at);
        let failed_at = self.last_failure().map(|failure| failure.at);
        let held_since = self.hold().map(|hold| hold.since);
        let unscoped = self.unscoped().iter().map(|rejection| rejection.at);
        let all = [newest_call, failed_at, held_since].into_iter().flatten().chain(unscoped);
        all.into_iter().any(|at| time::is_from_future(at, now))
    }

    fn grant(&mut self, now: Timestamp, request: &LeaseRequest, policy: &Policy) -> Lease {
        // The time is a lower bound of the fence, so the fence rises even if the store lost the record.
        let last = self.fence.max(self.cleared_fence);
        self.fence = last.saturating_add(1).max(time::as_fence(now));
        if let Some(hold) = self.hold.as_mut().filter(|hold| hold.is_live(now)) {
            hold.met_by(request.login.fingerprint);
        }
        let granted_at = self.next_call_time(now);
        let lease = Lease {
            fence: self.fence,
            attempt: request.attempt,
            granted_at,
            until: time::saturating_add(now, policy.lease_ttl()),
            fingerprint: request.login.fingerprint,
            unknown: ExtraFields::default(),
        };
        self.lease = Some(Box::new(lease.clone()));
        // The call counts from the real time, not from the timestamp of its readings, so it leaves the budget an hour later.
        self.calls.push(CallRecord { at: now, fence: self.fence, by: Arc::clone(&request.by) });
        self.bound_attempts();
        lease
    }
}

/// How long a failed call refuses requests with the same credential; `None` if it does not.
fn rejection_lasts(failure: &LastFailure, is_explicit: bool, policy: &Policy) -> Option<Duration> {
    match failure.kind {
        LastFailureKind::MissingScope => Some(MISSING_SCOPE_RETRY_AFTER),
        _ if failure.is_credential_rejection() && !is_explicit => Some(policy.max_age),
        _ => None,
    }
}
