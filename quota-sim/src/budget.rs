//! How many calls in any trailing hour are answered, and what comes after that.
//! How a refusal is written is in `wire`.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::SimTime;
use crate::script::BudgetAnswer;

/// The calls of the trailing hour, as far as they matter.
#[derive(Debug)]
pub(crate) struct Budget {
    per_hour: Option<usize>,
    answer: BudgetAnswer,
    calls: VecDeque<SimTime>,
    blocked_until: Option<SimTime>,
}

/// A 429, by what it says about when to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Throttle {
    /// `Retry-After: 0`.
    Zero,
    /// Nothing.
    Silent,
    /// At this moment, however often it is asked.
    Until(SimTime),
}

const TRAILING: Duration = Duration::from_secs(3600);

impl Budget {
    pub(crate) fn new(per_hour: Option<u32>, answer: BudgetAnswer) -> Self {
        let per_hour = per_hour.map(|calls| usize::try_from(calls).unwrap_or(usize::MAX));
        Self { per_hour, answer, calls: VecDeque::new(), blocked_until: None }
    }

    /// Counts a call.
    ///
    /// # Errors
    ///
    /// The refusal, if it is one too many.
    pub(crate) fn call(&mut self, now: SimTime) -> Result<(), Throttle> {
        let Some(per_hour) = self.per_hour else { return Ok(()) };
        if let Some(until) = self.blocked_until.filter(|until| now < *until) {
            return Err(Throttle::Until(until));
        }
        while self.calls.front().is_some_and(|call| now.since(*call) >= TRAILING) {
            self.calls.pop_front();
        }
        let spent = self.calls.len() >= per_hour;
        match self.answer {
            BudgetAnswer::Deadline if spent => {
                self.blocked_until = Some(now + TRAILING);
                Err(Throttle::Until(now + TRAILING))
            }
            BudgetAnswer::Zero if spent => {
                // The refused call takes the place of the oldest: a client that keeps calling stays blocked.
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

    /// A budget of two calls, both spent: at minute 0 and at minute 10.
    fn spent(answer: BudgetAnswer) -> Budget {
        let mut budget = Budget::new(Some(2), answer);
        budget.call(minute(0)).unwrap();
        budget.call(minute(10)).unwrap();
        budget
    }

    #[test]
    fn a_call_beyond_the_budget_is_refused() {
        assert_eq!(spent(BudgetAnswer::Zero).call(minute(11)), Err(Throttle::Zero));
    }

    #[test]
    fn a_call_is_forgotten_after_an_hour() {
        let mut budget = spent(BudgetAnswer::Zero);

        assert_eq!(budget.call(minute(60)), Ok(()));
        assert_eq!(budget.call(minute(61)), Err(Throttle::Zero));
    }

    #[test]
    fn a_client_that_keeps_calling_after_a_zero_stays_blocked() {
        let mut budget = spent(BudgetAnswer::Zero);

        let refused = (11..300).step_by(10).filter(|at| budget.call(minute(*at)).is_err()).count();

        assert_eq!(refused, 29);
    }

    #[test]
    fn an_hour_of_silence_ends_a_zero() {
        let mut budget = spent(BudgetAnswer::Zero);
        budget.call(minute(11)).unwrap_err();

        assert_eq!(budget.call(minute(71)), Ok(()));
    }

    #[test]
    fn a_block_lasts_an_hour_and_asking_does_not_move_it() {
        let mut budget = spent(BudgetAnswer::Deadline);

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
    fn a_budget_of_nothing_answers_nothing() {
        let mut budget = Budget::new(Some(0), BudgetAnswer::Zero);

        assert_eq!(budget.call(minute(0)), Err(Throttle::Zero));
    }
}
