//! One account as the script plays: which answer a call gets at a moment.
//! Nothing here reads a clock, counts calls or writes bytes; see `provider`, `book` and `wire` for that.

use std::time::Duration;

use crate::budget::{Budget, Throttle};
use crate::change::{Action, ChangeError};
use crate::clock::SimTime;
use crate::grants::TokenIssuer;
use crate::meter::{WindowLevel, WindowSim};
use crate::script::{Account, Answer, Endpoint, ExtraUsage, Kind, Window, check};

/// An account in motion.
#[derive(Debug)]
pub(crate) struct AccountSim {
    account: Account,
    pub(crate) grants: TokenIssuer,
    meters: Vec<WindowSim>,
    budget: Budget,
    forced: Option<Override>,
}

/// An answer that was set while the script plays, over what it says.
#[derive(Debug, Clone, Copy)]
struct Override {
    answer: Answer,
    until: Option<SimTime>,
}

/// What a call gets.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Decision {
    /// The usage as it is.
    Usage(UsageState),
    /// A 429.
    Throttled(Throttle),
    /// A fault, whatever is used.
    Fault(Fault),
    /// Good but for its size.
    Huge(UsageState),
    /// Good but for its end.
    Garbage(UsageState),
}

/// A call gets nothing yet: look again at that moment, or when something changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoReplyYet {
    pub(crate) until: Option<SimTime>,
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
pub(crate) struct UsageState {
    pub(crate) windows: Vec<(Window, WindowLevel)>,
    pub(crate) extra_usage: Option<ExtraUsage>,
}

/// What ordinary traffic gets.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// It was done and counted.
    Done(UsageState),
    /// A window is full.
    Rejected { statement: UsageState, is_known: bool },
    /// A 429 that is about the pace, whatever is used.
    Throttled(Throttle),
    /// A fault, whatever is used.
    Fault(Fault),
}

/// Use that fills a five-hour window fills this much of one of seven days.
const SHARE_OF_A_WEEK: f64 = 5.0 / 168.0;

impl AccountSim {
    pub(crate) fn new(account: Account) -> Self {
        Self {
            grants: TokenIssuer::new(&account),
            meters: account.windows.iter().cloned().map(WindowSim::new).collect(),
            budget: Budget::new(account.budget, account.budget_answer),
            forced: None,
            account,
        }
    }

    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    pub(crate) fn latency(&self) -> Duration {
        self.account.latency
    }

    /// What a call to the usage endpoint gets.
    ///
    /// # Errors
    ///
    /// [`NoReplyYet`] if it gets nothing yet.
    pub(crate) fn ask(&mut self, now: SimTime) -> Result<Decision, NoReplyYet> {
        let (answer, until) = self.told(Endpoint::Usage, now);
        if let Some(throttle) = throttle(answer, until) {
            return Ok(Decision::Throttled(throttle));
        }
        if let Some(fault) = fault(answer) {
            return Ok(Decision::Fault(fault));
        }
        Ok(match answer {
            Answer::Hang => return Err(NoReplyYet { until }),
            Answer::Huge => Decision::Huge(self.statement(now)),
            Answer::Garbage => Decision::Garbage(self.statement(now)),
            _ => match self.budget.call(now) {
                Ok(()) => {
                    self.meters.iter_mut().for_each(|meter| meter.told(now));
                    Decision::Usage(self.statement(now))
                }
                Err(throttle) => Decision::Throttled(throttle),
            },
        })
    }

    /// What ordinary traffic gets that would use so many percent of a five-hour window, by that model.
    pub(crate) fn spend(&mut self, now: SimTime, percent: f64, model: &str) -> Outcome {
        if self.is_expired(now) {
            return Outcome::Fault(Fault::Unauthorized);
        }
        let (answer, until) = self.told(Endpoint::Messages, now);
        if let Some(throttle) = throttle(answer, until) {
            return Outcome::Throttled(throttle);
        }
        if let Some(fault) = fault(answer) {
            return Outcome::Fault(fault);
        }
        let concerned = |meter: &WindowSim| is_for(&meter.window, model);
        if self.meters.iter().any(|meter| concerned(meter) && meter.is_full(now)) {
            let is_known = self.meters.iter().any(|meter| concerned(meter) && meter.is_known_full(now));
            self.meters.iter_mut().filter(|meter| concerned(meter)).for_each(|meter| meter.told(now));
            return Outcome::Rejected { statement: self.statement(now), is_known };
        }
        for meter in self.meters.iter_mut().filter(|meter| concerned(meter)) {
            let share = if meter.window.id == Kind::FiveHour { 1.0 } else { SHARE_OF_A_WEEK };
            meter.spend(now, percent * share);
        }
        // Headers do not say which model the window of a model is of, so they tell nothing of it.
        let whole = |meter: &&mut WindowSim| meter.window.model.is_none();
        self.meters.iter_mut().filter(whole).for_each(|meter| meter.told(now));
        Outcome::Done(self.statement(now))
    }

    /// The answer that the script has for exchanges of refresh tokens, and when it is over.
    pub(crate) fn token_answer(&self, now: SimTime) -> (Answer, Option<SimTime>) {
        self.told(Endpoint::Token, now)
    }

    /// Whether a message to that model would be done, as far as a client can know: the usage of a model is told in whole
    /// percent, and what is told as a hundred is no room.
    pub(crate) fn has_room(&self, now: SimTime, model: &str) -> bool {
        let is_full = |meter: &WindowSim| {
            let used = meter.level(now).used;
            if meter.window.model.is_some() { used.round() >= 100.0 } else { used >= 100.0 }
        };
        !self.is_expired(now)
            && self.told(Endpoint::Messages, now).0 == Answer::Ok
            && !self.meters.iter().any(|meter| is_for(&meter.window, model) && is_full(meter))
    }

    /// Whether the script says that the login has expired.
    pub(crate) fn is_expired(&self, now: SimTime) -> bool {
        self.told(Endpoint::Usage, now).0 == Answer::Unauthorized
    }

    /// Changes what the account does from now on.
    ///
    /// # Errors
    ///
    /// [`ChangeError`] if the account cannot do that.
    pub(crate) fn change(&mut self, now: SimTime, action: Action) -> Result<(), ChangeError> {
        match action {
            Action::Answer { answer: Answer::ThrottleUntilEnd, lasting: None } => {
                return Err(ChangeError::NoEnd);
            }
            Action::Answer { answer, lasting } => {
                self.forced = Some(Override { answer, until: lasting.map(|span| now + span) });
            }
            Action::FollowScript => self.forced = None,
            Action::Token(token) => {
                check::token(&token).map_err(|why| ChangeError::Unusable { why })?;
                self.grants.set_access(token);
            }
            Action::EndTokens => self.grants.end_access(),
            Action::Login { token, refresh_token } => {
                for token in [&token, &refresh_token] {
                    check::token(token).map_err(|why| ChangeError::Unusable { why })?;
                }
                self.grants.log_in(token, refresh_token);
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
    fn told(&self, endpoint: Endpoint, now: SimTime) -> (Answer, Option<SimTime>) {
        let is_live = |forced: &Override| forced.until.is_none_or(|until| now < until);
        if let Some(forced) = self.forced.filter(|one| endpoint == Endpoint::Usage && is_live(one)) {
            return (forced.answer, forced.until);
        }
        let at = |span| SimTime::START + span;
        self.account
            .answers
            .iter()
            .filter(|phase| phase.on == endpoint)
            .map(|phase| (at(phase.from), phase.answer, phase.until.map(at)))
            .find(|(from, _, until)| *from <= now && until.is_none_or(|until| now < until))
            .map_or((Answer::Ok, None), |(_, answer, until)| (answer, until))
    }

    fn statement(&self, now: SimTime) -> UsageState {
        UsageState {
            windows: self.meters.iter().map(|meter| (meter.window.clone(), meter.level(now))).collect(),
            extra_usage: self.account.extra_usage.clone(),
        }
    }
}

pub(crate) fn throttle(answer: Answer, until: Option<SimTime>) -> Option<Throttle> {
    match answer {
        Answer::ThrottleZero => Some(Throttle::Zero),
        Answer::ThrottleNoHeader => Some(Throttle::Silent),
        Answer::ThrottleUntilEnd => Some(until.map_or(Throttle::Silent, Throttle::Until)),
        _ => None,
    }
}

pub(crate) fn fault(answer: Answer) -> Option<Fault> {
    match answer {
        Answer::Unauthorized => Some(Fault::Unauthorized),
        Answer::Forbidden => Some(Fault::Forbidden),
        Answer::Scope => Some(Fault::Scope),
        Answer::Unavailable => Some(Fault::Unavailable),
        Answer::Overloaded => Some(Fault::Overloaded),
        Answer::Html => Some(Fault::Html),
        Answer::Empty => Some(Fault::Empty),
        _ => None,
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

    fn at(seconds: u32) -> SimTime {
        SimTime::START + SECOND * seconds
    }

    fn used(statement: &UsageState) -> Vec<f64> {
        statement.windows.iter().map(|(_, level)| level.used).collect()
    }

    fn hanging_from_5_to_20() -> AccountSim {
        let hang = Phase::new(Answer::Hang).from(SECOND * 5).until(SECOND * 20);
        AccountSim::new(Account::new("main").answers([hang]))
    }

    #[test]
    fn a_phase_counts_from_its_beginning_to_just_before_its_end() {
        let mut running = hanging_from_5_to_20();

        assert!(matches!(running.ask(at(4)), Ok(Decision::Usage(_))));
        assert_eq!(running.ask(at(5)), Err(NoReplyYet { until: Some(at(20)) }));
        assert!(matches!(running.ask(at(20)), Ok(Decision::Usage(_))));
    }

    #[test]
    fn where_two_phases_meet_the_first_counts() {
        let phases = [Phase::new(Answer::Html).until(SECOND), Phase::new(Answer::Empty)];
        let mut running = AccountSim::new(Account::new("main").answers(phases));

        assert_eq!(running.ask(at(0)), Ok(Decision::Fault(Fault::Html)));
        assert_eq!(running.ask(at(1)), Ok(Decision::Fault(Fault::Empty)));
    }

    #[test]
    fn a_countdown_goes_to_the_end_of_its_phase() {
        let phase = Phase::new(Answer::ThrottleUntilEnd).until(SECOND * 30);
        let mut running = AccountSim::new(Account::new("main").answers([phase]));

        let told: Vec<_> = [0, 10, 29].map(|second| running.ask(at(second))).into();

        assert_eq!(told, vec![Ok(Decision::Throttled(Throttle::Until(at(30)))); 3]);
    }

    #[test]
    fn only_calls_that_no_phase_answers_are_counted_in_the_budget() {
        let phase = Phase::new(Answer::Html).until(SECOND);
        let mut running = AccountSim::new(Account::new("main").budget(1).answers([phase]));
        running.ask(at(0)).unwrap();

        assert!(matches!(running.ask(at(1)), Ok(Decision::Usage(_))));
        assert_eq!(running.ask(at(2)), Ok(Decision::Throttled(Throttle::Zero)));
    }

    #[test]
    fn a_change_goes_before_the_script_until_its_time_is_over() {
        let mut running = hanging_from_5_to_20();

        running.change(at(6), Change::answer_for(Answer::Html, SECOND * 2).0).unwrap();

        assert_eq!(running.ask(at(7)), Ok(Decision::Fault(Fault::Html)));
        assert_eq!(running.ask(at(8)), Err(NoReplyYet { until: Some(at(20)) }));
    }

    #[test]
    fn a_change_without_an_end_lasts_until_the_script_is_followed_again() {
        let mut running = hanging_from_5_to_20();
        running.change(at(0), Change::answer(Answer::Html).0).unwrap();
        assert_eq!(running.ask(at(10)), Ok(Decision::Fault(Fault::Html)));

        running.change(at(10), Change::follow_script().0).unwrap();

        assert_eq!(running.ask(at(10)), Err(NoReplyYet { until: Some(at(20)) }));
    }

    #[test]
    fn traffic_fills_the_week_more_slowly() {
        let mut running = AccountSim::new(Account::new("main"));

        let Outcome::Done(statement) = running.spend(at(0), 42.0, "") else { panic!("nothing is full") };

        assert_eq!(used(&statement), [42.0, 1.25]);
    }

    #[test]
    fn a_full_model_window_rejects_that_model_only() {
        let windows = [Window::seven_day(), Window::model("Fable").used(100.0)];
        let mut running = AccountSim::new(Account::new("main").windows(windows));

        assert!(matches!(running.spend(at(0), 1.0, "claude-fable-5"), Outcome::Rejected { .. }));
        assert!(matches!(running.spend(at(0), 1.0, "claude-other-5"), Outcome::Done(_)));
    }

    #[test]
    fn traffic_by_another_model_leaves_a_model_window_alone() {
        let windows = [Window::model("Fable").used(3.0)];
        let mut running = AccountSim::new(Account::new("main").windows(windows));

        let Outcome::Done(statement) = running.spend(at(0), 42.0, "claude-other-5") else {
            panic!("not full")
        };

        assert_eq!(used(&statement), [3.0]);
    }

    #[test]
    fn rejected_traffic_uses_nothing() {
        let mut running = AccountSim::new(Account::new("main").windows([Window::five_hour().used(100.0)]));

        let Outcome::Rejected { statement, .. } = running.spend(at(0), 1.0, "") else {
            panic!("the window is full")
        };

        assert_eq!(used(&statement), [100.0]);
    }

    /// Whether a message is turned away for a window that the client knew to be full.
    fn is_in_vain(running: &mut AccountSim, model: &str) -> bool {
        let Outcome::Rejected { is_known, .. } = running.spend(at(0), 1.0, model) else {
            panic!("a window is full")
        };
        is_known
    }

    #[test]
    fn who_was_turned_away_for_a_full_window_knows_of_it() {
        let mut running = AccountSim::new(Account::new("main").windows([Window::five_hour().used(100.0)]));

        assert_eq!([is_in_vain(&mut running, ""), is_in_vain(&mut running, "")], [false, true]);
    }

    #[test]
    fn who_was_told_the_usage_knows_of_every_full_window() {
        let windows = [Window::seven_day(), Window::model("Fable").used(100.0)];
        let mut running = AccountSim::new(Account::new("main").windows(windows));

        running.ask(at(0)).unwrap();

        assert!(is_in_vain(&mut running, "claude-fable-5"));
    }

    #[test]
    fn the_headers_of_a_message_tell_of_a_full_window_unless_it_is_one_models() {
        let fills = |window: Window| {
            let mut running = AccountSim::new(Account::new("main").windows([window.used(99.99)]));
            let brim = running.spend(at(0), 5.0, "claude-fable-5");
            assert!(matches!(brim, Outcome::Done(_)), "{brim:?}");
            running
        };

        assert!(is_in_vain(&mut fills(Window::five_hour()), "claude-fable-5"));
        assert!(!is_in_vain(&mut fills(Window::model("Fable")), "claude-fable-5"));
    }

    #[test]
    fn a_phase_of_messages_answers_messages_and_no_calls() {
        let phase = Phase::new(Answer::ThrottleUntilEnd).until(SECOND * 30).on_messages();
        let mut running = AccountSim::new(Account::new("main").answers([phase]));

        assert_eq!(running.spend(at(1), 1.0, ""), Outcome::Throttled(Throttle::Until(at(30))));
        assert!(matches!(running.ask(at(1)), Ok(Decision::Usage(_))));
        assert!(matches!(running.spend(at(30), 1.0, ""), Outcome::Done(_)));
    }

    #[test]
    fn a_phase_of_calls_answers_no_messages() {
        let phase = Phase::new(Answer::Overloaded);
        let mut running = AccountSim::new(Account::new("main").answers([phase]));

        assert!(matches!(running.spend(at(1), 1.0, ""), Outcome::Done(_)));
    }

    #[test]
    fn an_account_has_room_for_a_model_as_long_as_a_message_to_it_would_be_done() {
        let windows = [Window::seven_day(), Window::model("Fable").used(100.0)];
        let overload = Phase::new(Answer::Overloaded).from(SECOND).until(SECOND * 2).on_messages();
        let expiry = Phase::new(Answer::Unauthorized).from(SECOND * 3);
        let running = AccountSim::new(Account::new("main").windows(windows).answers([overload, expiry]));

        let room = [0, 1, 2, 3].map(|second| running.has_room(at(second), "claude-other-5"));

        assert_eq!(room, [true, false, true, false]);
        assert!(!running.has_room(at(0), "claude-fable-5"));
    }

    #[test]
    fn what_is_told_as_a_hundred_percent_is_no_room() {
        let model = |used| AccountSim::new(Account::new("main").windows([Window::model("Fable").used(used)]));
        let all = |used| AccountSim::new(Account::new("main").windows([Window::five_hour().used(used)]));

        assert!(
            !model(99.5).has_room(at(0), "claude-fable-5") && model(99.4).has_room(at(0), "claude-fable-5")
        );
        assert!(all(99.5).has_room(at(0), "claude-fable-5"));
    }

    #[test]
    fn a_window_can_be_set() {
        let mut running = AccountSim::new(Account::new("main"));

        running.change(at(0), Change::used(Window::seven_day(), 97.5).0).unwrap();

        let Ok(Decision::Usage(statement)) = running.ask(at(0)) else { panic!("within the budget") };
        assert_eq!(used(&statement), [0.0, 97.5]);
    }

    #[test]
    fn changes_that_mean_nothing_are_refused() {
        let mut running = AccountSim::new(Account::new("main"));
        let mut refused = |change: Change| running.change(at(0), change.0).unwrap_err();

        assert_eq!(refused(Change::answer(Answer::ThrottleUntilEnd)), ChangeError::NoEnd);
        assert_eq!(refused(Change::used(Window::model("Fable"), 1.0)), ChangeError::NoWindow);
        assert!(matches!(refused(Change::used(Window::seven_day(), f64::NAN)), ChangeError::Unusable { .. }));
        assert!(matches!(refused(Change::token("sk-real")), ChangeError::Unusable { .. }));
    }
}
