//! One account as the script plays: which answer a call gets at a moment.
//! Nothing here reads a clock, counts calls or writes bytes; see `provider`, `book` and `wire` for that.

use std::time::Duration;

use crate::budget::{Budget, Throttle};
use crate::change::{Action, ChangeError};
use crate::clock::Moment;
use crate::meter::{Level, Meter};
use crate::script::{Account, Answer, ExtraUsage, Kind, Window, check};

/// An account in motion.
#[derive(Debug)]
pub(crate) struct Running {
    account: Account,
    token: String,
    meters: Vec<Meter>,
    budget: Budget,
    forced: Option<Forced>,
}

/// An answer that was set while the script plays, over what it says.
#[derive(Debug, Clone, Copy)]
struct Forced {
    answer: Answer,
    until: Option<Moment>,
}

/// What a call gets.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Decision {
    /// The usage as it is.
    Usage(Statement),
    /// A 429.
    Throttled(Throttle),
    /// A fault, whatever is used.
    Fault(Fault),
    /// Good but for its size.
    Huge(Statement),
    /// Good but for its end.
    Garbage(Statement),
}

/// A call gets nothing yet: look again at that moment, or when something changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Silence {
    pub(crate) until: Option<Moment>,
}

/// An answer that says nothing of the account's use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Unauthorized,
    Forbidden,
    Scope,
    Unavailable,
    Overloaded,
    Html,
    Empty,
}

/// What an account says of its use at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Statement {
    pub(crate) windows: Vec<(Window, Level)>,
    pub(crate) extra_usage: Option<ExtraUsage>,
}

/// What ordinary traffic gets.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// It was done and counted.
    Done(Statement),
    /// A window is full.
    Rejected(Statement),
    /// The login has expired.
    Unauthorized,
}

/// Use that fills a five-hour window fills this much of one of seven days.
const SHARE_OF_A_WEEK: f64 = 5.0 / 168.0;

impl Running {
    pub(crate) fn new(account: Account) -> Self {
        Self {
            token: account.token().into_owned(),
            meters: account.windows.iter().cloned().map(Meter::new).collect(),
            budget: Budget::new(account.budget, account.budget_answer),
            forced: None,
            account,
        }
    }

    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    pub(crate) fn latency(&self) -> Duration {
        self.account.latency
    }

    /// What a call to the usage endpoint gets.
    ///
    /// # Errors
    ///
    /// [`Silence`] if it gets nothing yet.
    pub(crate) fn ask(&mut self, now: Moment) -> Result<Decision, Silence> {
        let (answer, until) = self.told(now);
        Ok(match answer {
            Answer::Ok => match self.budget.call(now) {
                Ok(()) => Decision::Usage(self.statement(now)),
                Err(throttle) => Decision::Throttled(throttle),
            },
            Answer::ThrottleZero => Decision::Throttled(Throttle::Zero),
            Answer::ThrottleNoHeader => Decision::Throttled(Throttle::Silent),
            Answer::ThrottleUntilEnd => Decision::Throttled(until.map_or(Throttle::Silent, Throttle::Until)),
            Answer::Hang => return Err(Silence { until }),
            Answer::Huge => Decision::Huge(self.statement(now)),
            Answer::Garbage => Decision::Garbage(self.statement(now)),
            Answer::Unauthorized => Decision::Fault(Fault::Unauthorized),
            Answer::Forbidden => Decision::Fault(Fault::Forbidden),
            Answer::Scope => Decision::Fault(Fault::Scope),
            Answer::Unavailable => Decision::Fault(Fault::Unavailable),
            Answer::Overloaded => Decision::Fault(Fault::Overloaded),
            Answer::Html => Decision::Fault(Fault::Html),
            Answer::Empty => Decision::Fault(Fault::Empty),
        })
    }

    /// What ordinary traffic gets that would use so many percent of a five-hour window, by that model.
    pub(crate) fn spend(&mut self, now: Moment, percent: f64, model: &str) -> Outcome {
        if self.is_expired(now) {
            return Outcome::Unauthorized;
        }
        let concerned = |meter: &Meter| is_for(&meter.window, model);
        if self.meters.iter().any(|meter| concerned(meter) && meter.is_full(now)) {
            return Outcome::Rejected(self.statement(now));
        }
        for meter in self.meters.iter_mut().filter(|meter| concerned(meter)) {
            let share = if meter.window.id == Kind::FiveHour { 1.0 } else { SHARE_OF_A_WEEK };
            meter.spend(now, percent * share);
        }
        Outcome::Done(self.statement(now))
    }

    /// Whether the script says that the login has expired.
    pub(crate) fn is_expired(&self, now: Moment) -> bool {
        self.told(now).0 == Answer::Unauthorized
    }

    /// Changes what the account does from now on.
    ///
    /// # Errors
    ///
    /// [`ChangeError`] if the account cannot do that.
    pub(crate) fn change(&mut self, now: Moment, action: Action) -> Result<(), ChangeError> {
        match action {
            Action::Answer { answer: Answer::ThrottleUntilEnd, lasting: None } => {
                return Err(ChangeError::NoEnd);
            }
            Action::Answer { answer, lasting } => {
                self.forced = Some(Forced { answer, until: lasting.map(|span| now + span) });
            }
            Action::FollowScript => self.forced = None,
            Action::Token(token) => {
                check::token(&token).map_err(|why| ChangeError::Unusable { why })?;
                self.token = token;
            }
            Action::Used { window, percent } => {
                check::window(&window).map_err(|why| ChangeError::Unusable { why })?;
                let meter = self.meters.iter_mut().find(|meter| check::same(&meter.window, &window));
                meter.ok_or(ChangeError::NoWindow)?.set(now, percent);
            }
        }
        Ok(())
    }

    /// The answer of this moment, and when it is over.
    fn told(&self, now: Moment) -> (Answer, Option<Moment>) {
        if let Some(forced) = self.forced.filter(|forced| forced.until.is_none_or(|until| now < until)) {
            return (forced.answer, forced.until);
        }
        let at = |span| Moment::START + span;
        self.account
            .answers
            .iter()
            .map(|phase| (at(phase.from), phase.answer, phase.until.map(at)))
            .find(|(from, _, until)| *from <= now && until.is_none_or(|until| now < until))
            .map_or((Answer::Ok, None), |(_, answer, until)| (answer, until))
    }

    fn statement(&self, now: Moment) -> Statement {
        Statement {
            windows: self.meters.iter().map(|meter| (meter.window.clone(), meter.level(now))).collect(),
            extra_usage: self.account.extra_usage.clone(),
        }
    }
}

/// Whether traffic by `model` counts in the window: `claude-fable-5` counts in that of Fable.
pub(crate) fn is_for(window: &Window, model: &str) -> bool {
    match &window.model {
        None => true,
        Some(name) => model.to_lowercase().contains(&name.to_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Change;
    use crate::script::Phase;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u32) -> Moment {
        Moment::START + SECOND * seconds
    }

    fn used(statement: &Statement) -> Vec<f64> {
        statement.windows.iter().map(|(_, level)| level.used).collect()
    }

    fn hanging_from_5_to_20() -> Running {
        let hang = Phase::new(Answer::Hang).from(SECOND * 5).until(SECOND * 20);
        Running::new(Account::new("main").answers([hang]))
    }

    #[test]
    fn a_phase_counts_from_its_beginning_to_just_before_its_end() {
        let mut running = hanging_from_5_to_20();

        assert!(matches!(running.ask(at(4)), Ok(Decision::Usage(_))));
        assert_eq!(running.ask(at(5)), Err(Silence { until: Some(at(20)) }));
        assert!(matches!(running.ask(at(20)), Ok(Decision::Usage(_))));
    }

    #[test]
    fn where_two_phases_meet_the_first_counts() {
        let phases = [Phase::new(Answer::Html).until(SECOND), Phase::new(Answer::Empty)];
        let mut running = Running::new(Account::new("main").answers(phases));

        assert_eq!(running.ask(at(0)), Ok(Decision::Fault(Fault::Html)));
        assert_eq!(running.ask(at(1)), Ok(Decision::Fault(Fault::Empty)));
    }

    #[test]
    fn a_countdown_goes_to_the_end_of_its_phase() {
        let phase = Phase::new(Answer::ThrottleUntilEnd).until(SECOND * 30);
        let mut running = Running::new(Account::new("main").answers([phase]));

        let told: Vec<_> = [0, 10, 29].map(|second| running.ask(at(second))).into();

        assert_eq!(told, vec![Ok(Decision::Throttled(Throttle::Until(at(30)))); 3]);
    }

    #[test]
    fn only_calls_that_no_phase_answers_are_counted_in_the_budget() {
        let phase = Phase::new(Answer::Html).until(SECOND);
        let mut running = Running::new(Account::new("main").budget(1).answers([phase]));
        running.ask(at(0)).unwrap();

        assert!(matches!(running.ask(at(1)), Ok(Decision::Usage(_))));
        assert_eq!(running.ask(at(2)), Ok(Decision::Throttled(Throttle::Zero)));
    }

    #[test]
    fn a_change_goes_before_the_script_until_its_time_is_over() {
        let mut running = hanging_from_5_to_20();

        running.change(at(6), Change::answer_for(Answer::Html, SECOND * 2).0).unwrap();

        assert_eq!(running.ask(at(7)), Ok(Decision::Fault(Fault::Html)));
        assert_eq!(running.ask(at(8)), Err(Silence { until: Some(at(20)) }));
    }

    #[test]
    fn a_change_without_an_end_lasts_until_the_script_is_followed_again() {
        let mut running = hanging_from_5_to_20();
        running.change(at(0), Change::answer(Answer::Html).0).unwrap();
        assert_eq!(running.ask(at(10)), Ok(Decision::Fault(Fault::Html)));

        running.change(at(10), Change::follow_script().0).unwrap();

        assert_eq!(running.ask(at(10)), Err(Silence { until: Some(at(20)) }));
    }

    #[test]
    fn traffic_fills_the_week_more_slowly() {
        let mut running = Running::new(Account::new("main"));

        let Outcome::Done(statement) = running.spend(at(0), 42.0, "") else { panic!("nothing is full") };

        assert_eq!(used(&statement), [42.0, 1.25]);
    }

    #[test]
    fn a_full_model_window_rejects_that_model_only() {
        let windows = [Window::seven_day(), Window::model("Fable").used(100.0)];
        let mut running = Running::new(Account::new("main").windows(windows));

        assert!(matches!(running.spend(at(0), 1.0, "claude-fable-5"), Outcome::Rejected(_)));
        assert!(matches!(running.spend(at(0), 1.0, "claude-other-5"), Outcome::Done(_)));
    }

    #[test]
    fn traffic_by_another_model_leaves_a_model_window_alone() {
        let windows = [Window::model("Fable").used(3.0)];
        let mut running = Running::new(Account::new("main").windows(windows));

        let Outcome::Done(statement) = running.spend(at(0), 42.0, "claude-other-5") else {
            panic!("not full")
        };

        assert_eq!(used(&statement), [3.0]);
    }

    #[test]
    fn rejected_traffic_uses_nothing() {
        let mut running = Running::new(Account::new("main").windows([Window::five_hour().used(100.0)]));

        let Outcome::Rejected(statement) = running.spend(at(0), 1.0, "") else {
            panic!("the window is full")
        };

        assert_eq!(used(&statement), [100.0]);
    }

    #[test]
    fn a_window_can_be_set() {
        let mut running = Running::new(Account::new("main"));

        running.change(at(0), Change::used(Window::seven_day(), 97.5).0).unwrap();

        let Ok(Decision::Usage(statement)) = running.ask(at(0)) else { panic!("within the budget") };
        assert_eq!(used(&statement), [0.0, 97.5]);
    }

    #[test]
    fn changes_that_mean_nothing_are_refused() {
        let mut running = Running::new(Account::new("main"));
        let mut refused = |change: Change| running.change(at(0), change.0).unwrap_err();

        assert_eq!(refused(Change::answer(Answer::ThrottleUntilEnd)), ChangeError::NoEnd);
        assert_eq!(refused(Change::used(Window::model("Fable"), 1.0)), ChangeError::NoWindow);
        assert!(matches!(refused(Change::used(Window::seven_day(), f64::NAN)), ChangeError::Unusable { .. }));
        assert!(matches!(refused(Change::token("sk-real")), ChangeError::Unusable { .. }));
    }
}
