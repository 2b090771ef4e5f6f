//! Which hold applies to an account: its own, the provider's cooldown, or that of an exhausted budget.
//! Whether a call is allowed is decided in `begin`.

use std::time::Duration;

use jiff::Timestamp;

use super::{Hold, HoldReason, LeaseDecision, LeaseRequest, MaxStaleness, Priority, Record};
use crate::model::RequestId;
use crate::policy::Policy;

impl Record {
    /// The hold that a forced refresh of this urgency would meet at `now`; `None` if it may call.
    ///
    /// `cooldown` is the provider's, as [`provider_cooldown`](crate::record::provider_cooldown) reads it. A used-up budget holds since the
    /// last call.
    #[must_use]
    pub fn hold_for(
        &self,
        priority: Priority,
        cooldown: Option<&Hold>,
        now: Timestamp,
        policy: &Policy,
    ) -> Option<Hold> {
        let newer = MaxStaleness::StartedAfter(now + Duration::from_millis(1));
        let ask = LeaseRequest::new(RequestId::from(0), newer).priority(priority).cooldown(cooldown.cloned());
        match self.clone().begin(now, &ask, policy) {
            LeaseDecision::OnHold(hold) => Some(self.since_last_call(hold)),
            _ => None,
        }
    }

    /// The hold of the account at `now`, for interactive callers: until the last of all that hold it ends, for the reason of
    /// the account's own hold if it has one.
    ///
    /// ```
    /// use quota_core::Policy;
    /// use quota_core::record::Record;
    ///
    /// let now = "2026-01-01T12:00:00Z".parse()?;
    /// assert_eq!(Record::default().effective_hold(None, now, &Policy::default()), None);
    /// # Ok::<(), jiff::Error>(())
    /// ```
    #[must_use]
    pub fn effective_hold(&self, cooldown: Option<&Hold>, now: Timestamp, policy: &Policy) -> Option<Hold> {
        let met = self.hold_for(Priority::Interactive, cooldown, now, policy);
        let Some(own) = self.hold().filter(|hold| hold.is_in_force(now)) else { return met };
        let mut hold = own.clone();
        hold.until = met.map_or(own.until, |other| other.until.max(own.until));
        Some(hold)
    }

    /// A budget is used up since the last call, and not since the last request for usage.
    fn since_last_call(&self, mut hold: Hold) -> Hold {
        if hold.reason == HoldReason::BudgetExhausted
            && let Some(last) = self.calls().iter().map(|attempt| attempt.at).max()
        {
            hold.since = last;
        }
        hold
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Percent, UsageReport, WindowId, WindowReading};
    use crate::policy::Budget;
    use crate::provider::FetchError;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn lease(record: &mut Record, second: i64, policy: &Policy) -> crate::record::Lease {
        let ask = LeaseRequest::new(
            RequestId::from(u128::from(second.unsigned_abs())),
            MaxStaleness::StartedAfter(at(second)),
        );
        let LeaseDecision::Granted(lease) = record.begin(at(second), &ask, policy) else {
            panic!("a call is allowed")
        };
        lease
    }

    fn rate_limited(record: &mut Record, second: i64, wait_s: u64) {
        let policy = Policy::default();
        let lease = lease(record, second, &policy);
        let error = FetchError::throttled(Some(Duration::from_secs(wait_s)));
        let _ = record.fail(at(second), &lease, &error, &policy);
    }

    fn refreshed(record: &mut Record, second: i64, policy: &Policy) {
        let lease = lease(record, second, policy);
        let used = Percent::from_percent(30.0).unwrap();
        let _ = record.commit(
            at(second),
            &lease,
            &UsageReport::polled([WindowReading::new(WindowId::five_hour(), used)]),
        );
    }

    fn cooldown(since: i64, until: i64) -> Hold {
        Hold::new(at(since), at(until), HoldReason::ProviderRateLimited)
    }

    #[test]
    fn a_cooldown_holds_an_account_without_a_hold_of_its_own() {
        let hold = Record::default().effective_hold(Some(&cooldown(0, 60)), at(1), &Policy::default());

        assert_eq!(hold, Some(cooldown(0, 60)));
    }

    #[test]
    fn the_own_reason_goes_with_the_later_end() {
        let mut record = Record::default();
        rate_limited(&mut record, 0, 600);
        let own = record.hold().unwrap().clone();

        let longer = record.effective_hold(Some(&cooldown(0, 4000)), at(1), &Policy::default()).unwrap();
        let shorter = record.effective_hold(Some(&cooldown(0, 2)), at(1), &Policy::default()).unwrap();

        assert_eq!((longer.reason, longer.until), (HoldReason::RateLimited, at(4000)));
        assert_eq!(shorter, own);
    }

    #[test]
    fn a_used_up_budget_holds_since_the_last_call() {
        let policy = Policy { budget: Budget::new(2, 0), ..Policy::default() };
        let mut record = Record::default();
        refreshed(&mut record, 0, &policy);
        refreshed(&mut record, 600, &policy);

        let hold = record.effective_hold(None, at(900), &policy).unwrap();

        assert_eq!((hold.reason, hold.since, hold.until), (HoldReason::BudgetExhausted, at(600), at(3600)));
    }

    #[test]
    fn the_reserve_holds_background_calls_only() {
        let policy = Policy { budget: Budget::new(2, 1), ..Policy::default() };
        let mut record = Record::default();
        refreshed(&mut record, 0, &policy);

        assert_eq!(record.hold_for(Priority::Interactive, None, at(900), &policy), None);
        assert!(record.hold_for(Priority::Background, None, at(900), &policy).is_some());
    }
}
