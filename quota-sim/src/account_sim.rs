//! One account while the script runs: decides how to answer a call at a given time. `provider` reads the clock,
//! `recorder` counts calls, and `wire` writes the responses.

use std::time::Duration;

use crate::budget::{Budget, Throttle};
use crate::change::{Action, ChangeError};
use crate::clock::SimTime;
use crate::script::{Account, Answer, Endpoint, ExtraUsage, Kind, Window, check};
use crate::tokens::TokenIssuer;
use crate::window_sim::{WindowLevel, WindowSim};

/// The state of an account while the script runs.
#[derive(Debug)]
pub(crate) struct AccountSim {
    account: Account,
    pub(crate) tokens: TokenIssuer,
    windows: Vec<WindowSim>,
    budget: Budget,
    override_: Option<Override>,
}

/// An answer that was set while the script was running. It takes precedence over the script.
#[derive(Debug, Clone, Copy)]
struct Override {
    answer: Answer,
    until: Option<SimTime>,
}

/// The answer to a call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Decision {
    /// The current usage.
    Usage(UsageState),
    /// A 429.
    Throttled(Throttle),
    /// An error that does not depend on use.
    Fault(Fault),
    /// A valid body that is too large.
    Huge(UsageState),
    /// A truncated body.
    Garbage(UsageState),
}

/// A call has no answer yet. Decide again at `until`, or when the script changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoReplyYet {
    pub(crate) until: Option<SimTime>,
}

/// An answer that does not depend on the account's usage.
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

/// The usage of an account at a given time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct UsageState {
    pub(crate) windows: Vec<(Window, WindowLevel)>,
    pub(crate) extra_usage: Option<ExtraUsage>,
}

impl UsageState {
    /// The windows of the whole account.
    pub(crate) fn of_account(&self) -> impl Iterator<Item = &(Window, WindowLevel)> {
        self.windows.iter().filter(|(window, _)| window.model.is_none())
    }
}

/// The answer to a message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum MessageResult {
    /// The message succeeded, and its cost was added.
    Done(UsageState),
    /// A window is full.
    Rejected { usage: UsageState, was_reported: bool },
    /// A 429 that does not depend on use.
    Throttled(Throttle),
    /// An error that does not depend on use.
    Fault(Fault),
}

/// The share of the seven-day window that a full five-hour window uses.
const WEEKLY_SHARE: f64 = 5.0 / 168.0;

impl AccountSim {
    pub(crate) fn new(account: Account) -> Self {
        Self {
            tokens: TokenIssuer::new(&account),
            windows: account.windows.iter().cloned().map(WindowSim::new).collect(),
            budget: Budget::new(account.budget, account.budget_answer),
            override_: None,
            account,
        }
    }

    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    pub(crate) fn latency(&self) -> Duration {
        self.account.latency
    }

    /// Decides the answer to a call to the usage endpoint.
    ///
    /// # Errors
    ///
    /// [`NoReplyYet`] if the call has no answer yet.
    pub(crate) fn usage_call(&mut self, now: SimTime) -> Result<Decision, NoReplyYet> {
        let (answer, until) = self.scheduled_answer(Endpoint::Usage, now);
        if let Some(throttle) = as_throttle(answer, until) {
            return Ok(Decision::Throttled(throttle));
        }
        if let Some(fault) = as_fault(answer) {
            return Ok(Decision::Fault(fault));
        }
        Ok(match answer {
            Answer::Hang => return Err(NoReplyYet { until }),
            Answer::Huge => Decision::Huge(self.usage_state(now)),
            Answer::Garbage => Decision::Garbage(self.usage_state(now)),
            _ => match self.budget.call(now) {
                Ok(()) => {
                    self.windows.iter_mut().for_each(|sim| sim.mark_reported(now));
                    Decision::Usage(self.usage_state(now))
                }
                Err(throttle) => Decision::Throttled(throttle),
            },
        })
    }

    /// Decides the answer to a message to `model` that costs `percent` of a five-hour window.
    pub(crate) fn message(&mut self, now: SimTime, percent: f64, model: &str) -> MessageResult {
        if self.is_expired(now) {
            return MessageResult::Fault(Fault::Unauthorized);
        }
        let (answer, until) = self.scheduled_answer(Endpoint::Messages, now);
        if let Some(throttle) = as_throttle(answer, until) {
            return MessageResult::Throttled(throttle);
        }
        if let Some(fault) = as_fault(answer) {
            return MessageResult::Fault(fault);
        }
        let applies = |sim: &WindowSim| is_for(&sim.window, model);
        if self.windows.iter().any(|sim| applies(sim) && sim.is_full(now)) {
            let was_reported = self.windows.iter().any(|sim| applies(sim) && sim.is_reported_full(now));
            self.windows.iter_mut().filter(|sim| applies(sim)).for_each(|sim| sim.mark_reported(now));
            return MessageResult::Rejected { usage: self.usage_state(now), was_reported };
        }
        for sim in self.windows.iter_mut().filter(|sim| applies(sim)) {
            let share = if sim.window.id == Kind::FiveHour { 1.0 } else { WEEKLY_SHARE };
            sim.add(now, percent * share);
        }
        // Headers do not name the model of a model window, so they do not report such a window as full.
        let whole = |sim: &&mut WindowSim| sim.window.model.is_none();
        self.windows.iter_mut().filter(whole).for_each(|sim| sim.mark_reported(now));
        MessageResult::Done(self.usage_state(now))
    }

    /// The scheduled answer to token exchanges, and the time at which it ends.
    pub(crate) fn token_answer(&self, now: SimTime) -> (Answer, Option<SimTime>) {
        self.scheduled_answer(Endpoint::Token, now)
    }

    /// Whether a message to `model` would succeed, based on what clients can see. The usage of a model is reported in
    /// whole percent, so 99.5 % counts as full.
    pub(crate) fn has_capacity(&self, now: SimTime, model: &str) -> bool {
        let is_full = |sim: &WindowSim| {
            let used = sim.level(now).used;
            if sim.window.model.is_some() { used.round() >= 100.0 } else { used >= 100.0 }
        };
        !self.is_expired(now)
            && self.scheduled_answer(Endpoint::Messages, now).0 == Answer::Ok
            && !self.windows.iter().any(|sim| is_for(&sim.window, model) && is_full(sim))
    }

    /// Whether the login has expired according to the script.
    pub(crate) fn is_expired(&self, now: SimTime) -> bool {
        self.scheduled_answer(Endpoint::Usage, now).0 == Answer::Unauthorized
    }

    /// Applies a change.
    ///
    /// # Errors
    ///
    /// [`ChangeError`] if the change does not fit the account.
    pub(crate) fn change(&mut self, now: SimTime, action: Action) -> Result<(), ChangeError> {
        match action {
            Action::Answer { answer: Answer::ThrottleUntilEnd, lasting: None } => {
                return Err(ChangeError::NoEnd);
            }
            Action::Answer { answer, lasting } => {
                self.override_ = Some(Override { answer, until: lasting.map(|duration| now + duration) });
            }
            Action::FollowScript => self.override_ = None,
            Action::Token(token) => {
                check::token(&token).map_err(|why| ChangeError::Invalid { reason: why })?;
                self.tokens.set_access(token);
            }
            Action::ExpireTokens => self.tokens.expire_access_tokens(),
            Action::Login { token, refresh_token } => {
                for token in [&token, &refresh_token] {
                    check::token(token).map_err(|why| ChangeError::Invalid { reason: why })?;
                }
                self.tokens.replace_login(token, refresh_token);
            }
            Action::Used { window, percent } => {
                check::window(&window).map_err(|why| ChangeError::Invalid { reason: why })?;
                let sim = self.windows.iter_mut().find(|sim| check::same(&sim.window, &window));
                sim.ok_or(ChangeError::NoWindow)?.set(now, percent);
            }
        }
        Ok(())
    }

    /// The scheduled answer at this time, and the time at which it ends.
    fn scheduled_answer(&self, endpoint: Endpoint, now: SimTime) -> (Answer, Option<SimTime>) {
        let is_live = |override_: &Override| override_.until.is_none_or(|until| now < until);
        if let Some(override_) = self.override_.filter(|one| endpoint == Endpoint::Usage && is_live(one)) {
            return (override_.answer, override_.until);
        }
        let at = |duration| SimTime::START + duration;
        self.account
            .answers
            .iter()
            .filter(|phase| phase.on == endpoint)
            .map(|phase| (at(phase.from), phase.answer, phase.until.map(at)))
            .find(|(from, _, until)| *from <= now && until.is_none_or(|until| now < until))
            .map_or((Answer::Ok, None), |(_, answer, until)| (answer, until))
    }

    fn usage_state(&self, now: SimTime) -> UsageState {
        UsageState {
            windows: self.windows.iter().map(|sim| (sim.window.clone(), sim.level(now))).collect(),
            extra_usage: self.account.extra_usage.clone(),
        }
    }
}

pub(crate) fn as_throttle(answer: Answer, until: Option<SimTime>) -> Option<Throttle> {
    match answer {
        Answer::ThrottleZero => Some(Throttle::Zero),
        Answer::ThrottleNoHeader => Some(Throttle::NoHeader),
        Answer::ThrottleUntilEnd => Some(until.map_or(Throttle::NoHeader, Throttle::Until)),
        _ => None,
    }
}

pub(crate) fn as_fault(answer: Answer) -> Option<Fault> {
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

/// Whether a message to `model` counts toward the window. For example, `claude-fable-5` counts toward Fable's window.
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

    fn used(usage: &UsageState) -> Vec<f64> {
        usage.windows.iter().map(|(_, level)| level.used).collect()
    }

    fn hanging_from_5_to_20() -> AccountSim {
        let hang = Phase::new(Answer::Hang).from(SECOND * 5).until(SECOND * 20);
        AccountSim::new(Account::new("main").answers([hang]))
    }

    #[test]
    fn a_phase_includes_its_start_and_excludes_its_end() {
        let mut running = hanging_from_5_to_20();

        assert!(matches!(running.usage_call(at(4)), Ok(Decision::Usage(_))));
        assert_eq!(running.usage_call(at(5)), Err(NoReplyYet { until: Some(at(20)) }));
        assert!(matches!(running.usage_call(at(20)), Ok(Decision::Usage(_))));
    }

    #[test]
    fn the_first_of_two_overlapping_phases_applies() {
        let phases = [Phase::new(Answer::Html).until(SECOND), Phase::new(Answer::Empty)];
        let mut running = AccountSim::new(Account::new("main").answers(phases));

        assert_eq!(running.usage_call(at(0)), Ok(Decision::Fault(Fault::Html)));
        assert_eq!(running.usage_call(at(1)), Ok(Decision::Fault(Fault::Empty)));
    }

    #[test]
    fn a_countdown_ends_with_its_phase() {
        let phase = Phase::new(Answer::ThrottleUntilEnd).until(SECOND * 30);
        let mut running = AccountSim::new(Account::new("main").answers([phase]));

        let answers: Vec<_> = [0, 10, 29].map(|second| running.usage_call(at(second))).into();

        assert_eq!(answers, vec![Ok(Decision::Throttled(Throttle::Until(at(30)))); 3]);
    }

    #[test]
    fn only_calls_that_no_phase_answers_use_the_budget() {
        let phase = Phase::new(Answer::Html).until(SECOND);
        let mut running = AccountSim::new(Account::new("main").budget(1).answers([phase]));
        running.usage_call(at(0)).unwrap();

        assert!(matches!(running.usage_call(at(1)), Ok(Decision::Usage(_))));
        assert_eq!(running.usage_call(at(2)), Ok(Decision::Throttled(Throttle::Zero)));
    }

    #[test]
    fn a_change_overrides_the_script_until_its_end() {
        let mut running = hanging_from_5_to_20();

        running.change(at(6), Change::answer_for(Answer::Html, SECOND * 2).0).unwrap();

        assert_eq!(running.usage_call(at(7)), Ok(Decision::Fault(Fault::Html)));
        assert_eq!(running.usage_call(at(8)), Err(NoReplyYet { until: Some(at(20)) }));
    }

    #[test]
    fn a_change_without_an_end_lasts_until_follow_script() {
        let mut running = hanging_from_5_to_20();
        running.change(at(0), Change::answer(Answer::Html).0).unwrap();
        assert_eq!(running.usage_call(at(10)), Ok(Decision::Fault(Fault::Html)));

        running.change(at(10), Change::follow_script().0).unwrap();

        assert_eq!(running.usage_call(at(10)), Err(NoReplyYet { until: Some(at(20)) }));
    }

    #[test]
    fn messages_fill_the_seven_day_window_more_slowly() {
        let mut running = AccountSim::new(Account::new("main"));

        let MessageResult::Done(usage) = running.message(at(0), 42.0, "") else { panic!("nothing is full") };

        assert_eq!(used(&usage), [42.0, 1.25]);
    }

    #[test]
    fn a_full_model_window_rejects_only_that_model() {
        let windows = [Window::seven_day(), Window::model("Fable").used(100.0)];
        let mut running = AccountSim::new(Account::new("main").windows(windows));

        assert!(matches!(running.message(at(0), 1.0, "claude-fable-5"), MessageResult::Rejected { .. }));
        assert!(matches!(running.message(at(0), 1.0, "claude-other-5"), MessageResult::Done(_)));
    }

    #[test]
    fn messages_to_another_model_do_not_fill_a_model_window() {
        let windows = [Window::model("Fable").used(3.0)];
        let mut running = AccountSim::new(Account::new("main").windows(windows));

        let MessageResult::Done(usage) = running.message(at(0), 42.0, "claude-other-5") else {
            panic!("not full")
        };

        assert_eq!(used(&usage), [3.0]);
    }

    #[test]
    fn a_rejected_message_uses_nothing() {
        let mut running = AccountSim::new(Account::new("main").windows([Window::five_hour().used(100.0)]));

        let MessageResult::Rejected { usage, .. } = running.message(at(0), 1.0, "") else {
            panic!("the window is full")
        };

        assert_eq!(used(&usage), [100.0]);
    }

    /// Whether a message is rejected because of a window that an earlier answer has reported as full.
    fn is_futile(running: &mut AccountSim, model: &str) -> bool {
        let MessageResult::Rejected { was_reported, .. } = running.message(at(0), 1.0, model) else {
            panic!("a window is full")
        };
        was_reported
    }

    #[test]
    fn a_rejection_reports_the_full_window() {
        let mut running = AccountSim::new(Account::new("main").windows([Window::five_hour().used(100.0)]));

        assert_eq!([is_futile(&mut running, ""), is_futile(&mut running, "")], [false, true]);
    }

    #[test]
    fn the_usage_endpoint_reports_every_full_window() {
        let windows = [Window::seven_day(), Window::model("Fable").used(100.0)];
        let mut running = AccountSim::new(Account::new("main").windows(windows));

        running.usage_call(at(0)).unwrap();

        assert!(is_futile(&mut running, "claude-fable-5"));
    }

    #[test]
    fn headers_do_not_report_a_full_model_window() {
        let fills = |window: Window| {
            let mut running = AccountSim::new(Account::new("main").windows([window.used(99.99)]));
            let last = running.message(at(0), 5.0, "claude-fable-5");
            assert!(matches!(last, MessageResult::Done(_)), "{last:?}");
            running
        };

        assert!(is_futile(&mut fills(Window::five_hour()), "claude-fable-5"));
        assert!(!is_futile(&mut fills(Window::model("Fable")), "claude-fable-5"));
    }

    #[test]
    fn a_phase_on_messages_answers_no_calls() {
        let phase = Phase::new(Answer::ThrottleUntilEnd).until(SECOND * 30).on_messages();
        let mut running = AccountSim::new(Account::new("main").answers([phase]));

        assert_eq!(running.message(at(1), 1.0, ""), MessageResult::Throttled(Throttle::Until(at(30))));
        assert!(matches!(running.usage_call(at(1)), Ok(Decision::Usage(_))));
        assert!(matches!(running.message(at(30), 1.0, ""), MessageResult::Done(_)));
    }

    #[test]
    fn a_phase_on_calls_answers_no_messages() {
        let phase = Phase::new(Answer::Overloaded);
        let mut running = AccountSim::new(Account::new("main").answers([phase]));

        assert!(matches!(running.message(at(1), 1.0, ""), MessageResult::Done(_)));
    }

    #[test]
    fn an_account_has_capacity_while_a_message_would_succeed() {
        let windows = [Window::seven_day(), Window::model("Fable").used(100.0)];
        let overload = Phase::new(Answer::Overloaded).from(SECOND).until(SECOND * 2).on_messages();
        let expiry = Phase::new(Answer::Unauthorized).from(SECOND * 3);
        let running = AccountSim::new(Account::new("main").windows(windows).answers([overload, expiry]));

        let has_capacity = [0, 1, 2, 3].map(|second| running.has_capacity(at(second), "claude-other-5"));

        assert_eq!(has_capacity, [true, false, true, false]);
        assert!(!running.has_capacity(at(0), "claude-fable-5"));
    }

    #[test]
    fn a_use_rounded_to_100_percent_leaves_no_capacity() {
        let model = |used| AccountSim::new(Account::new("main").windows([Window::model("Fable").used(used)]));
        let all = |used| AccountSim::new(Account::new("main").windows([Window::five_hour().used(used)]));

        assert!(
            !model(99.5).has_capacity(at(0), "claude-fable-5")
                && model(99.4).has_capacity(at(0), "claude-fable-5")
        );
        assert!(all(99.5).has_capacity(at(0), "claude-fable-5"));
    }

    #[test]
    fn a_window_can_be_set() {
        let mut running = AccountSim::new(Account::new("main"));

        running.change(at(0), Change::used(Window::seven_day(), 97.5).0).unwrap();

        let Ok(Decision::Usage(usage)) = running.usage_call(at(0)) else { panic!("within the budget") };
        assert_eq!(used(&usage), [0.0, 97.5]);
    }

    #[test]
    fn invalid_changes_are_rejected() {
        let mut running = AccountSim::new(Account::new("main"));
        let mut refused = |change: Change| running.change(at(0), change.0).unwrap_err();

        assert_eq!(refused(Change::answer(Answer::ThrottleUntilEnd)), ChangeError::NoEnd);
        assert_eq!(refused(Change::used(Window::model("Fable"), 1.0)), ChangeError::NoWindow);
        assert!(matches!(refused(Change::used(Window::seven_day(), f64::NAN)), ChangeError::Invalid { .. }));
        assert!(matches!(refused(Change::token("sk-real")), ChangeError::Invalid { .. }));
    }
}
