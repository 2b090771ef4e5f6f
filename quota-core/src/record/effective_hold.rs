//! The hold that applies to an account: its own hold, the provider's cooldown, or the exhausted budget. The module `begin`
//! decides whether a call is allowed.

use jiff::Timestamp;

use super::{Hold, HoldReason, LeaseDecision, LeaseRequest, MaxStaleness, Priority, Record};
use crate::model::RequestId;
use crate::policy::Policy;

impl Record {
    /// The hold that blocks a forced refresh of this priority at `now`; `None` if the refresh may call.
    ///
    /// `cooldown` is the provider's, from [`provider_cooldown`](crate::record::provider_cooldown). The hold of an exhausted
    /// budget starts at the last call.
    #[must_use]
    pub fn hold_for(
        &self,
        priority: Priority,
        cooldown: Option<&Hold>,
        now: Timestamp,
        policy: &Policy,
    ) -> Option<Hold> {
        let request = LeaseRequest::new(RequestId::from(0), MaxStaleness::NewCall)
            .priority(priority)
            .cooldown(cooldown.cloned());
        match self.clone().begin(now, &request, policy) {
            LeaseDecision::OnHold(hold) => Some(self.since_last_call(hold)),
            _ => None,
        }
    }

    /// The hold of the account for interactive callers at `now`. It ends when the last applicable hold ends. Its reason is
    /// that of the account's own hold, if there is one.
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
        let blocking = self.hold_for(Priority::Interactive, cooldown, now, policy);
        let Some(own) = self.hold().filter(|hold| hold.is_in_force(now)) else { return blocking };
        let mut hold = own.clone();
        hold.until = blocking.map_or(own.until, |other| other.until.max(own.until));
        Some(hold)
    }

    /// The hold of an exhausted budget starts at the last call, not at the last request for usage.
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
    use std::time::Duration;

    use super::*;
    use crate::model::{Percent, UsageReport, WindowId, WindowReading};
    use crate::policy::Budget;
    use crate::provider::FetchError;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn lease(record: &mut Record, second: i64, policy: &Policy) -> crate::record::Lease {
        let request =
            LeaseRequest::new(RequestId::from(u128::from(second.unsigned_abs())), MaxStaleness::NewCall);
        let LeaseDecision::Granted(lease) = record.begin(at(second), &request, policy) else {
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
    fn a_cooldown_holds_an_account_without_its_own_hold() {
        let hold = Record::default().effective_hold(Some(&cooldown(0, 60)), at(1), &Policy::default());

        assert_eq!(hold, Some(cooldown(0, 60)));
    }

    #[test]
    fn the_accounts_own_reason_has_the_later_end() {
        let mut record = Record::default();
        rate_limited(&mut record, 0, 600);
        let own = record.hold().unwrap().clone();

        let longer = record.effective_hold(Some(&cooldown(0, 4000)), at(1), &Policy::default()).unwrap();
        let shorter = record.effective_hold(Some(&cooldown(0, 2)), at(1), &Policy::default()).unwrap();

        assert_eq!((longer.reason, longer.until), (HoldReason::RateLimited, at(4000)));
        assert_eq!(shorter, own);
    }

    #[test]
    fn the_hold_of_an_exhausted_budget_starts_at_the_last_call() {
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
