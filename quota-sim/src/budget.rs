//! The call budget: how many calls are answered in any trailing hour, and how further calls are throttled. `wire`
//! writes the 429.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::SimTime;
use crate::script::BudgetAnswer;

/// The calls of the trailing hour, at most as many as the budget allows.
#[derive(Debug)]
pub(crate) struct Budget {
    per_hour: Option<usize>,
    answer: BudgetAnswer,
    calls: VecDeque<SimTime>,
    blocked_until: Option<SimTime>,
}

/// A 429, described by its `Retry-After`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Throttle {
    /// `Retry-After: 0`.
    Zero,
    /// Without the header.
    NoHeader,
    /// A countdown to this time. Further calls do not move it.
    Until(SimTime),
}

const BUDGET_WINDOW: Duration = Duration::from_secs(3600);

impl Budget {
    pub(crate) fn new(per_hour: Option<u32>, answer: BudgetAnswer) -> Self {
        let per_hour = per_hour.map(|calls| usize::try_from(calls).unwrap_or(usize::MAX));
        Self { per_hour, answer, calls: VecDeque::new(), blocked_until: None }
    }

    /// Counts a call.
    ///
    /// # Errors
    ///
    /// The 429, if the budget is used up.
    pub(crate) fn call(&mut self, now: SimTime) -> Result<(), Throttle> {
        let Some(per_hour) = self.per_hour else { return Ok(()) };
        if let Some(until) = self.blocked_until.filter(|until| now < *until) {
            return Err(Throttle::Until(until));
        }
        while self.calls.front().is_some_and(|call| now.since(*call) >= BUDGET_WINDOW) {
            self.calls.pop_front();
        }
        let is_exhausted = self.calls.len() >= per_hour;
        match self.answer {
            BudgetAnswer::Deadline if is_exhausted => {
                self.blocked_until = Some(now + BUDGET_WINDOW);
                Err(Throttle::Until(now + BUDGET_WINDOW))
            }
            BudgetAnswer::Zero if is_exhausted => {
                // The rejected call replaces the oldest one, so a client that keeps calling stays blocked.
                self.calls.pop_front();
                self.calls.push_back(now);
                Err(Throttle::Zero)
            }
            BudgetAnswer::Zero | BudgetAnswer::Deadline => {
                self.calls.push_back(now);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minute(minutes: u32) -> SimTime {
        SimTime::START + Duration::from_secs(60) * minutes
    }

    /// A budget of two calls, both used: at minute 0 and at minute 10.
    fn exhausted(answer: BudgetAnswer) -> Budget {
        let mut budget = Budget::new(Some(2), answer);
        budget.call(minute(0)).unwrap();
        budget.call(minute(10)).unwrap();
        budget
    }

    #[test]
    fn a_call_beyond_the_budget_is_throttled() {
        assert_eq!(exhausted(BudgetAnswer::Zero).call(minute(11)), Err(Throttle::Zero));
    }

    #[test]
    fn a_call_stops_counting_after_an_hour() {
        let mut budget = exhausted(BudgetAnswer::Zero);

        assert_eq!(budget.call(minute(60)), Ok(()));
        assert_eq!(budget.call(minute(61)), Err(Throttle::Zero));
    }

    #[test]
    fn a_client_that_keeps_calling_after_a_zero_stays_blocked() {
        let mut budget = exhausted(BudgetAnswer::Zero);

        let refused = (11..300).step_by(10).filter(|at| budget.call(minute(*at)).is_err()).count();

        assert_eq!(refused, 29);
    }

    #[test]
    fn an_hour_without_calls_ends_a_zero() {
        let mut budget = exhausted(BudgetAnswer::Zero);
        budget.call(minute(11)).unwrap_err();

        assert_eq!(budget.call(minute(71)), Ok(()));
    }

    #[test]
    fn a_block_lasts_an_hour_and_calls_do_not_extend_it() {
        let mut budget = exhausted(BudgetAnswer::Deadline);

        assert_eq!(budget.call(minute(11)), Err(Throttle::Until(minute(71))));
        assert_eq!(budget.call(minute(70)), Err(Throttle::Until(minute(71))));
        assert_eq!(budget.call(minute(71)), Ok(()));
    }

    #[test]
    fn without_a_budget_every_call_is_answered() {
        let mut budget = Budget::new(None, BudgetAnswer::Zero);

        assert!((0..1000).all(|_| budget.call(minute(0)).is_ok()));
    }

    #[test]
    fn a_budget_of_zero_answers_no_call() {
        let mut budget = Budget::new(Some(0), BudgetAnswer::Zero);

        assert_eq!(budget.call(minute(0)), Err(Throttle::Zero));
    }
}
