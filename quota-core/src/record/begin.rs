//! Grants the lease: which process may call the provider now.

use std::sync::Arc;

use jiff::Timestamp;

use super::hold::MISSING_SCOPE_LASTS;
use super::{
    BUDGET_WINDOW, CallRecord, Counted, Hold, HoldReason, LastFailure, LastFailureKind, Lease, LeaseDecision,
    LeaseRequest, MaxStaleness, Priority, RecentCall, Record,
};
use crate::model::extra_fields::ExtraFields;
use crate::policy::Policy;
use crate::time;

impl Record {
    /// Decides whether `ask` may call the provider at `now`, and grants the lease if so.
    ///
    /// A repeated request with the same id gets the same lease, so a lost answer can be requested again. A changed record must be
    /// stored, whatever the decision is.
    pub fn begin(&mut self, now: Timestamp, ask: &LeaseRequest, policy: &Policy) -> LeaseDecision {
        let now = time::truncate_ms(now);
        if !self.is_writable() {
            return if self.would_be_fresh(now, ask, policy) {
                LeaseDecision::NotNeeded
            } else {
                LeaseDecision::UnsupportedFormat
            };
        }
        self.repair_clock(now);
        if let Some(lease) = self.lease().filter(|lease| lease.attempt == ask.attempt && lease.is_live(now)) {
            return LeaseDecision::Granted(lease.clone());
        }
        if let Some(login_id) = &ask.login.login_id {
            self.new_login(login_id);
        }
        if self.is_fresh(now, ask.max_staleness, policy) {
            return LeaseDecision::NotNeeded;
        }
        let recent = self.recent_call(ask);
        if let Some(call) = recent.as_ref().filter(|call| call.failure.is_none()) {
            return LeaseDecision::CalledRecently(call.clone());
        }
        if let Some(hold) = self.hold_at(now, ask, policy) {
            return LeaseDecision::OnHold(hold);
        }
        // After the hold, because a hold has an end.
        if let Some(call) = recent {
            return LeaseDecision::CalledRecently(call);
        }
        if let Some(failure) = self.rejection_at(now, ask, policy) {
            return LeaseDecision::CredentialRejected(failure);
        }
        if let Some(lease) = self.lease().filter(|lease| lease.is_live(now)) {
            return LeaseDecision::InProgress { until: lease.until, since: lease.granted_at };
        }
        LeaseDecision::Granted(self.grant(now, ask, policy))
    }

    fn is_fresh(&self, now: Timestamp, freshness: MaxStaleness, policy: &Policy) -> bool {
        let is_due = |span, counted| self.due_at(span, counted, policy).is_none_or(|due| due <= now);
        match freshness {
            MaxStaleness::Age(span) => !is_due(span, Counted::Account),
            MaxStaleness::CompleteAge(span) => !is_due(span, Counted::All),
            MaxStaleness::StartedAfter(moment) => self.complete_at() >= Some(moment),
            MaxStaleness::CalledAfter(_) => false,
        }
    }

    /// The call that satisfies [`MaxStaleness::CalledAfter`].
    fn recent_call(&self, ask: &LeaseRequest) -> Option<RecentCall> {
        let MaxStaleness::CalledAfter(moment) = ask.max_staleness else { return None };
        self.last_call(ask.login.fingerprint).filter(|call| call.at >= moment)
    }

    /// Whether the readings of an unsupported format would be fresh once their clock is repaired.
    fn would_be_fresh(&self, now: Timestamp, ask: &LeaseRequest, policy: &Policy) -> bool {
        let mut settled = self.clone();
        settled.repair_clock(now);
        let foreign = self.owner.contradicts(ask.login.login_id.as_ref(), None);
        !foreign && settled.is_fresh(now, ask.max_staleness, policy)
    }

    /// Of the account's hold, the cooldown and the exhausted budget, the one that ends last.
    fn hold_at(&self, now: Timestamp, ask: &LeaseRequest, policy: &Policy) -> Option<Hold> {
        let spent = self.budget_exhausted_until(now, ask.priority, policy);
        let spent = spent.map(|until| Hold::new(now, until, HoldReason::BudgetExhausted));
        let own = self.hold().filter(|hold| !self.passes(ask, hold));
        let holds = [own.cloned(), ask.cooldown.clone(), spent];
        holds.into_iter().flatten().filter(|hold| hold.is_live(now)).max_by_key(|hold| hold.until)
    }

    /// Whether `ask` may call despite the account's own hold.
    ///
    /// Without a stated login, another credential may belong to another login, which the provider does not limit. So one other
    /// credential may call per hold. Rotating tokens get no further.
    fn passes(&self, ask: &LeaseRequest, hold: &Hold) -> bool {
        let is_stated = self.owner.login_id.is_some() || ask.login.login_id.is_some();
        !is_stated && hold.admits(ask.login.fingerprint)
    }

    /// Whether the account's hold would admit some credential.
    pub(crate) fn may_let_through(&self) -> bool {
        self.owner.login_id.is_none() && self.hold().is_some_and(Hold::admits_another)
    }

    /// Until when the budget is exhausted; `None` while calls are left.
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
        // The call that must be an hour old before the next one is allowed.
        let oldest_that_counts = recent.len().checked_sub(allowed)?;
        Some(time::saturating_add(recent[oldest_that_counts], BUDGET_WINDOW))
    }

    /// A rejection of this credential, for as long as a reading would be fresh. An explicit refresh may try again, unless the
    /// credential lacks a scope: then only another credential helps.
    fn rejection_at(&self, now: Timestamp, ask: &LeaseRequest, policy: &Policy) -> Option<LastFailure> {
        let of_credential = |failure: &&LastFailure| failure.fingerprint == ask.login.fingerprint;
        if let Some(refusal) = self.unscoped.iter().find(of_credential) {
            return refusal.bars_at(now).then(|| refusal.clone());
        }
        let failure = self.last_failure().filter(of_credential)?;
        let insists =
            matches!(ask.max_staleness, MaxStaleness::StartedAfter(_) | MaxStaleness::CalledAfter(_));
        let lasts = match failure.kind {
            LastFailureKind::MissingScope => MISSING_SCOPE_LASTS,
            _ if failure.is_credential_rejection() && !insists => policy.max_age,
            _ => return None,
        };
        (time::elapsed(failure.at, now) < lasts).then(|| failure.clone())
    }

    fn grant(&mut self, now: Timestamp, ask: &LeaseRequest, policy: &Policy) -> Lease {
        // Time is a floor for the fence, so it rises even if the store lost the record.
        let last = self.fence.max(self.cleared_fence);
        self.fence = last.saturating_add(1).max(time::as_fence(now));
        if let Some(hold) = self.hold.as_mut().filter(|hold| hold.is_live(now)) {
            hold.met_by(ask.login.fingerprint);
        }
        let granted_at = self.next_call_time(now);
        let lease = Lease {
            fence: self.fence,
            attempt: ask.attempt,
            granted_at,
            until: time::saturating_add(now, policy.lease_ttl()),
            fingerprint: ask.login.fingerprint,
            unknown: ExtraFields::default(),
        };
        self.lease = Some(Box::new(lease.clone()));
        // Counted by the real time, not by the timestamp of its readings: an hour after this call another is allowed.
        self.calls.push(CallRecord { at: now, fence: self.fence, by: Arc::clone(&ask.by) });
        self.bound_attempts();
        lease
    }
}
