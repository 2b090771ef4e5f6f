//! The properties of single steps. They compare plain values of the records without calling the rules.

use quota_core::model::RequestId;
use quota_core::record::{Lease, Record};

use crate::pool::Id;
use crate::rules::{Ms, Outcome, Work, ms, small_fence};
use crate::state::{State, Step, Swap, Violation};
use crate::system::{Protocol, TICK};

impl Protocol {
    /// The start and the end of a record's hold.
    pub(crate) fn hold_of(&self, record: Id) -> Option<(Ms, Ms)> {
        self.rules.record(record).hold().map(|hold| (ms(hold.since), ms(hold.until)))
    }

    /// Whether a host may start a call now, according to its memory and the provider's ledger.
    pub(crate) fn check_call(&self, state: &State, host: usize, is_exclusive: bool) -> Option<Violation> {
        let account = self.bounds.accounts[host];
        let now = self.estimate(state, host);
        let calls_too = |other: &usize| {
            self.bounds.accounts[*other] == account
                && matches!(state.hosts[*other].step, Step::Calling { is_exclusive: true, .. })
        };
        if is_exclusive && (0..self.bounds.hosts).any(|other| calls_too(&other)) {
            return Some(Violation::TwoCalls);
        }
        let me = &state.hosts[host];
        if let Some((since, _)) = me.reported_hold.filter(|(_, until)| now < *until) {
            // A later successful call has ended the hold.
            let has_ended = self.readings_at(me.base).is_some_and(|at| at >= since);
            if !has_ended {
                return Some(Violation::CallUnderHold);
            }
        }
        if now < me.reported_cooldown {
            return Some(Violation::CallUnderCooldown);
        }
        let is_ordinary = !state.past.has_lost && !state.past.was_standalone;
        if is_ordinary && u32::from(state.past.calls[account]) >= self.bounds.budget {
            return Some(Violation::OverBudget);
        }
        None
    }

    /// Whether the record already contains the lease that `work` requests.
    pub(crate) fn has_granted(&self, record: Id, work: Work, now: Ms) -> bool {
        let Work::Begin { attempt, .. } = work else { return false };
        let record = self.rules.record(record);
        let lease = record.lease().filter(|lease| now < ms(lease.until));
        lease.is_some_and(|lease| lease.attempt == RequestId::from(u128::from(attempt)))
    }

    fn readings_at(&self, record: Id) -> Option<Ms> {
        self.rules.record(record).complete_at().map(ms)
    }

    /// Compares the store's record before and after a write.
    pub(crate) fn check_write(&self, state: &mut State, account: usize, swap: &Swap) -> Option<Violation> {
        let (before, after) = (self.rules.record(state.store[account]), self.rules.record(swap.next));
        if !state.past.has_lost {
            if after.revision() <= before.revision() {
                return Some(Violation::OlderRevision);
            }
            if after.complete_at() < before.complete_at() {
                return Some(Violation::OlderReadings);
            }
        }
        if let (Work::Commit { lease }, Outcome::Stored) = (swap.work, swap.outcome) {
            let fence = small_fence(self.rules.lease(lease).fence);
            let committed = state.past.committed[account];
            // A fence is at least the time of its request by its host's estimate. So after a loss, the later of two leases within
            // the bound of the estimates may have the lower fence, and so may one that was requested long before its swap.
            let (has_lost, had_delay) = (state.past.has_lost, state.past.had_delay);
            let slack = if has_lost { TICK } else { 1 };
            if fence + slack <= committed && !(has_lost && had_delay) {
                return Some(Violation::OlderFence);
            }
            state.past.committed[account] = committed.max(fence);
        }
        if after.consecutive_failures() > u32::from(state.past.rejected[account]) {
            return Some(Violation::CountedTwice);
        }
        if let (Work::Begin { .. }, Outcome::Granted(lease)) = (swap.work, swap.outcome) {
            let lease = self.rules.lease(lease);
            let is_regranted = |earlier: &Lease| {
                earlier.attempt == lease.attempt
                    && earlier.fence != lease.fence
                    && state.now < ms(earlier.until)
            };
            if before.lease().is_some_and(is_regranted) {
                return Some(Violation::CountedTwice);
            }
        }
        let own = swap.own.map(|own| self.rules.record(own));
        own.filter(|own| loses(own, &after, state.now)).map(|_| Violation::LostByMerge)
    }
}

/// Whether `after`, into which `own` was merged, lacks a call, the hold or the readings of `own`.
pub(crate) fn loses(own: &Record, after: &Record, now: Ms) -> bool {
    let lacks_call = own.calls().iter().any(|call| !after.calls().contains(call));
    let lacks_readings = after.complete_at() < own.complete_at();
    lacks_call || lacks_readings || loses_hold(own, after, now)
}

/// Whether `after` lacks the hold of `own`, although no later success has ended it.
pub(crate) fn loses_hold(own: &Record, after: &Record, now: Ms) -> bool {
    own.hold().is_some_and(|hold| {
        let has_ended = ms(hold.until) <= now || after.complete_at().is_some_and(|at| at >= hold.since);
        !has_ended && after.hold().is_none_or(|kept| kept.until < hold.until)
    })
}
