//! Grants the lease, which decides the process that may call the provider.

use std::sync::Arc;

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
    /// A repeated request with the same id gets the same lease, so a request with a lost response can be retried. The caller
    /// must store a changed record, whatever the decision is.
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
        let recent = self.recent_call(request);
        if let Some(call) = recent.as_ref().filter(|call| call.failure.is_none()) {
            return LeaseDecision::CalledRecently(call.clone());
        }
        if let Some(hold) = self.hold_at(now, request, policy) {
            return LeaseDecision::OnHold(hold);
        }
        // Check this after the hold, because a hold has an end.
        if let Some(call) = recent {
            return LeaseDecision::CalledRecently(call);
        }
        if let Some(failure) = self.rejection_at(now, request, policy) {
            return LeaseDecision::CredentialRejected(failure);
        }
        if let Some(lease) = self.lease().filter(|lease| lease.is_live(now)) {
            return LeaseDecision::InProgress { until: lease.until, since: lease.granted_at };
        }
        LeaseDecision::Granted(self.grant(now, request, policy))
    }

    fn is_fresh(&self, now: Timestamp, freshness: MaxStaleness, policy: &Policy) -> bool {
        let is_due = |duration, counted| self.due_at(duration, counted, policy).is_none_or(|due| due <= now);
        match freshness {
            MaxStaleness::Age(duration) => !is_due(duration, Counted::Account),
            MaxStaleness::CompleteAge(duration) => !is_due(duration, Counted::All),
            MaxStaleness::StartedAfter(started_after) => self.complete_at() >= Some(started_after),
            MaxStaleness::CalledAfter(_) => false,
        }
    }

    /// The recent call that satisfies [`MaxStaleness::CalledAfter`].
    fn recent_call(&self, request: &LeaseRequest) -> Option<RecentCall> {
        let MaxStaleness::CalledAfter(started_after) = request.max_staleness else { return None };
        self.last_call(request.login.fingerprint).filter(|call| call.at >= started_after)
    }

    /// Whether the readings of an unsupported format would be fresh after a clock repair.
    fn would_be_fresh(&self, now: Timestamp, request: &LeaseRequest, policy: &Policy) -> bool {
        let mut repaired = self.clone();
        repaired.repair_clock(now);
        let foreign = self.owner.contradicts(request.login.login_id.as_ref(), None);
        !foreign && repaired.is_fresh(now, request.max_staleness, policy)
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

    /// Whether the account's hold would admit any credential.
    pub(crate) fn may_let_through(&self) -> bool {
        self.owner.login_id.is_none() && self.hold().is_some_and(Hold::admits_another)
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
        let recent: Vec<_> = self
            .calls
            .iter()
            .map(|attempt| attempt.at)
            .filter(|at| time::elapsed(*at, now) < BUDGET_WINDOW)
            .collect();
        // The call that must be an hour old before the next call is allowed.
        let oldest_that_counts = recent.len().checked_sub(allowed)?;
        Some(time::saturating_add(recent[oldest_that_counts], BUDGET_WINDOW))
    }

    /// A recent rejection of this credential, for as long as a reading would be fresh. An explicit refresh may retry, unless
    /// the credential lacks a scope. Then only another credential can succeed.
    fn rejection_at(&self, now: Timestamp, request: &LeaseRequest, policy: &Policy) -> Option<LastFailure> {
        let of_credential = |failure: &&LastFailure| failure.fingerprint == request.login.fingerprint;
        if let Some(rejection) = self.unscoped.iter().find(of_credential) {
            return rejection.blocks_at(now).then(|| rejection.clone());
        }
        let failure = self.last_failure().filter(of_credential)?;
        let is_explicit =
            matches!(request.max_staleness, MaxStaleness::StartedAfter(_) | MaxStaleness::CalledAfter(_));
        let lasts = match failure.kind {
            LastFailureKind::MissingScope => MISSING_SCOPE_RETRY_AFTER,
            _ if failure.is_credential_rejection() && !is_explicit => policy.max_age,
            _ => return None,
        };
        (time::elapsed(failure.at, now) < lasts).then(|| failure.clone())
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
