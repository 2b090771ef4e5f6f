//! The requirements of `quota guard`, as a request and a policy of `quota::accounts`, whose rules evaluate them.

use std::time::Duration;

use jiff::Timestamp;
use quota::accounts::routing::{Candidate, Evaluated, LimitCheck, Reason, Role, WindowUsage, choose};
use quota::accounts::{Limits, Request, RoutingPolicy, UnknownUsage};
use quota::{AccountId, Percent, Snapshot, Used};

use crate::config::nearest;
use crate::format::LocalTime;
use crate::reset_grace;

/// How much quota must remain in which windows.
#[derive(Debug)]
pub(super) struct Requirements {
    limits: Limits,
    request: Request,
    window: Option<String>,
}

impl Requirements {
    /// Requires that `min_remaining` percent is left of the window with this id, or of all windows that apply to the
    /// model.
    pub(super) fn new(min_remaining: f64, window: Option<&str>, model: Option<&str>) -> Self {
        let limits = Limits::of(Percent::from_percent(min_remaining).unwrap_or(Percent::FULL));
        let mut request = Request::new();
        if let Some(model) = model {
            request = request.with_model(model);
        }
        if let Some(window) = window {
            request = request.with_only_window(window);
        }
        Self { limits, request, window: window.map(ToOwned::to_owned) }
    }

    /// Evaluates the readings of an account: [`Reason::Available`] if fresh readings show that enough remains,
    /// [`Reason::BelowKillswitch`] or [`Reason::Exhausted`] if too little remains of a window, [`Reason::UnknownDenied`] otherwise.
    pub(super) fn evaluate(
        &self,
        account: &AccountId,
        snapshot: &Snapshot,
        now: Timestamp,
        max_age: Duration,
    ) -> Evaluated {
        let policy =
            RoutingPolicy::default().killswitch(self.limits.clone()).when_unknown(UnknownUsage::DenyStale);
        let candidate = Candidate::new(account, Role::Main, snapshot, max_age);
        let decision = choose([candidate], &self.request, now, &policy);
        decision.accounts()[0].clone()
    }

    /// The model whose windows must be fresh: the model of the given window, or the given model.
    pub(super) fn fresh_model(&self) -> Option<&str> {
        match &self.window {
            Some(window) => window.split_once('/').map(|(_, model)| model),
            None => self.request.model(),
        }
    }

    /// The deciding window and how much of it remains: the window with the least, or the first whose usage is unknown.
    pub(super) fn deciding<'a>(&'a self, account: &'a Evaluated) -> (Option<&'a str>, Option<Percent>) {
        if account.reason == Reason::UnknownDenied {
            let unknown = self.unknown(account).map(|usage| usage.window.id());
            let id = unknown.or(account.window.as_ref()).map(|id| id.as_str());
            return (id.or(self.window.as_deref()), None);
        }
        let is_below = |usage: &&WindowUsage| {
            matches!(self.check(usage), LimitCheck::Below { .. } | LimitCheck::Exhausted)
        };
        let is_available = account.reason == Reason::Available;
        let remaining =
            |usage: &WindowUsage| usage.used.lower_bound().map_or(Percent::ZERO, Percent::remaining);
        let least = self.counted(account).filter(|usage| is_below(usage) != is_available);
        let least = least.min_by_key(|usage| remaining(usage));
        (least.map(|usage| usage.window.id().as_str()), least.map(remaining))
    }

    /// The reset time of the unknown window, if it has reset since its reading.
    pub(super) fn reset_at(&self, account: &Evaluated, now: Timestamp) -> Option<Timestamp> {
        if account.reason != Reason::UnknownDenied {
            return None;
        }
        let usage = self.unknown(account).filter(|usage| usage.used == Used::Unknown)?;
        usage.window.expires_at().filter(|reset| *reset <= now)
    }

    /// Whether the account's readings lack the requested window, so that its name is probably a typo.
    pub(super) fn is_missing_window(&self, account: &Evaluated, snapshot: &Snapshot) -> bool {
        account.reason == Reason::UnknownDenied
            && self.window.is_some()
            && !snapshot.is_empty()
            && account.window.is_none()
            && self.unknown(account).is_none()
    }

    /// Why it is unknown whether enough remains.
    pub(super) fn why_unknown(&self, account: &Evaluated, snapshot: &Snapshot, local: &LocalTime) -> String {
        if let Some(reset_at) = self.reset_at(account, local.now) {
            return reset_grace::reset(reset_at, local);
        }
        if let Some(usage) = self.unknown(account) {
            return match usage.used {
                Used::AtLeast(_) => "its reading is stale, so more may be used".to_owned(),
                _ => "its reading is stale and states no reset".to_owned(),
            };
        }
        if account.window.is_some() {
            return "it could not be parsed".to_owned();
        }
        let ids = || snapshot.windows().iter().map(|window| window.id().as_str());
        if snapshot.is_empty() {
            return "no data yet".to_owned();
        }
        match &self.window {
            // This is not a usage error, because a provider may add the window later.
            Some(named) => match nearest(named, ids()) {
                Some(near) => format!("no such window; did you mean {near}?"),
                None => format!("no such window (known: {})", ids().collect::<Vec<_>>().join(", ")),
            },
            None if ids().next().is_none() => "the provider reports no windows".to_owned(),
            None => {
                let ids: Vec<_> = ids().collect();
                format!("no window covers the whole account; choose one with --window: {}", ids.join(", "))
            }
        }
    }

    fn counted<'a>(&'a self, account: &'a Evaluated) -> impl Iterator<Item = &'a WindowUsage> {
        account.windows.iter().filter(|usage| self.request.counts(&usage.window))
    }

    fn check(&self, usage: &WindowUsage) -> LimitCheck {
        self.limits.check(&usage.window, usage.used)
    }

    /// The first window whose reading does not show whether enough remains.
    fn unknown<'a>(&'a self, account: &'a Evaluated) -> Option<&'a WindowUsage> {
        let is_unknown = |usage: &&WindowUsage| {
            matches!(self.check(usage), LimitCheck::Unknown | LimitCheck::Passed { is_exact: false, .. })
        };
        self.counted(account).find(is_unknown)
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use quota::model::{Coverage, Scope};
    use quota::{UsageReport, WindowId, WindowReading};

    use super::*;

    const MAX_AGE: Duration = Duration::from_secs(300);

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).expect("a valid time")
    }

    fn used(id: &str, percent: f64) -> WindowReading {
        let id: WindowId = id.parse().expect("a name");
        let scope = id.part().map(Scope::model);
        let reading = WindowReading::new(id, Percent::from_percent(percent).expect("a number"));
        reading.scope(scope).resets_at(now() + Duration::from_secs(3600))
    }

    fn read(readings: impl IntoIterator<Item = WindowReading>) -> Snapshot {
        Snapshot::of(&UsageReport::polled(readings), now())
    }

    fn all() -> Requirements {
        Requirements::new(10.0, None, None)
    }

    fn only(window: &str) -> Requirements {
        Requirements::new(10.0, Some(window), None)
    }

    fn of_model(model: Option<&str>) -> Requirements {
        Requirements::new(10.0, None, model)
    }

    fn evaluate_at(now: Timestamp, snapshot: &Snapshot, requirements: &Requirements) -> Evaluated {
        requirements.evaluate(&"anthropic/main".parse().expect("a name"), snapshot, now, MAX_AGE)
    }

    fn reason(snapshot: &Snapshot, requirements: &Requirements) -> Reason {
        evaluate_at(now(), snapshot, requirements).reason
    }

    /// The reason when the readings are stale.
    fn later_reason(snapshot: &Snapshot, requirements: &Requirements) -> Reason {
        evaluate_at(now() + MAX_AGE, snapshot, requirements).reason
    }

    /// The reason, the deciding window, and how much of it remains.
    fn decided(snapshot: &Snapshot, requirements: &Requirements) -> (Reason, Option<String>, Option<f64>) {
        let account = evaluate_at(now(), snapshot, requirements);
        let (window, left) = requirements.deciding(&account);
        (account.reason, window.map(ToOwned::to_owned), left.map(Percent::as_f64))
    }

    #[test]
    fn the_window_with_the_least_left_decides() {
        let account = read([used("five_hour", 40.0), used("seven_day", 91.0)]);
        let week = Some("seven_day".to_owned());

        assert_eq!(decided(&account, &all()), (Reason::BelowKillswitch, week.clone(), Some(9.0)));
        let less = Requirements::new(9.0, None, None);
        assert_eq!(decided(&account, &less), (Reason::Available, week, Some(9.0)));
    }

    #[test]
    fn of_two_insufficient_windows_the_one_with_less_left_decides() {
        let account = read([used("five_hour", 97.0), used("seven_day", 95.0)]);

        let expected = (Reason::BelowKillswitch, Some("five_hour".to_owned()), Some(3.0));
        assert_eq!(decided(&account, &all()), expected);
    }

    #[test]
    fn a_given_window_decides_alone() {
        let account = read([used("five_hour", 40.0), used("seven_day", 100.0)]);

        assert_eq!(reason(&account, &only("five_hour")), Reason::Available);
        let missing = (Reason::UnknownDenied, Some("monthly".to_owned()), None);
        assert_eq!(decided(&account, &only("monthly")), missing);
    }

    #[test]
    fn the_window_of_a_model_counts_for_that_model_only() {
        let account = read([used("five_hour", 40.0), used("seven_day/opus", 100.0)]);

        assert_eq!(reason(&account, &of_model(None)), Reason::Available);
        for opus in ["opus", "claude-opus-4-5", "CLAUDE-OPUS-4-5-20260101"] {
            assert_eq!(reason(&account, &of_model(Some(opus))), Reason::Exhausted, "{opus}");
        }
        assert_eq!(reason(&account, &of_model(Some("claude-sonnet-4-5"))), Reason::Available);
    }

    #[test]
    fn a_stale_reading_shows_only_that_too_little_remains() {
        assert_eq!(later_reason(&read([used("five_hour", 95.0)]), &all()), Reason::BelowKillswitch);
        assert_eq!(later_reason(&read([used("five_hour", 40.0)]), &all()), Reason::UnknownDenied);
    }

    #[test]
    fn an_insufficient_window_decides_even_if_another_is_unknown() {
        let account = read([used("five_hour", 10.0).resets_at(None), used("seven_day", 95.0)]);

        assert_eq!(later_reason(&account, &all()), Reason::BelowKillswitch);
    }

    fn why(snapshot: &Snapshot, requirements: &Requirements) -> String {
        let account = evaluate_at(now(), snapshot, requirements);
        assert_eq!(account.reason, Reason::UnknownDenied);
        requirements.why_unknown(&account, snapshot, &LocalTime { now: now(), zone: TimeZone::UTC })
    }

    #[test]
    fn every_unknown_has_its_own_reason() {
        let week: WindowId = "seven_day".parse().unwrap();
        let unreadable = UsageReport::polled([]).coverage(Coverage::complete_except([week]));
        let reset = now() - Duration::from_secs(5);
        let has_reset = WindowReading::new(WindowId::five_hour(), Percent::ZERO).resets_at(reset);
        let before = reset - Duration::from_secs(60);
        let opus = || read([used("seven_day/opus", 1.0)]);
        let without_reset =
            Snapshot::of(&UsageReport::polled([used("five_hour", 1.0).resets_at(None)]), now() - MAX_AGE);
        let old = Snapshot::of(&UsageReport::polled([used("five_hour", 1.0)]), now() - MAX_AGE);
        let after_reset = Snapshot::of(&UsageReport::polled([has_reset]), before);

        for (snapshot, requirements, expected) in [
            (Snapshot::default(), all(), "no data yet"),
            (Snapshot::default(), only("five_hour"), "no data yet"),
            (read([]), all(), "the provider reports no windows"),
            (opus(), all(), "no window covers the whole account; choose one with --window: seven_day/opus"),
            (opus(), only("monthly"), "no such window (known: seven_day/opus)"),
            (opus(), only("seven_day/opsu"), "no such window; did you mean seven_day/opus?"),
            (Snapshot::of(&unreadable, now()), all(), "it could not be parsed"),
            (old, all(), "its reading is stale, so more may be used"),
            (without_reset, all(), "its reading is stale and states no reset"),
            (after_reset.clone(), all(), "reset at 07:59:55"),
        ] {
            assert_eq!(why(&snapshot, &requirements), expected);
        }
        let account = evaluate_at(now(), &after_reset, &all());
        assert_eq!(all().reset_at(&account, now()), Some(reset));
    }

    #[test]
    fn only_a_window_that_the_account_lacks_is_missing() {
        let account = read([used("five_hour", 10.0)]);
        let is_missing = |snapshot: &Snapshot, window| {
            let requirements = only(window);
            requirements.is_missing_window(&evaluate_at(now() + MAX_AGE, snapshot, &requirements), snapshot)
        };

        assert!(is_missing(&account, "five_huor"));
        assert!(!is_missing(&account, "five_hour"), "its reading is stale");
        assert!(!is_missing(&Snapshot::default(), "five_hour"), "nothing was read yet");
    }

    #[test]
    fn the_window_of_a_model_requires_fresh_readings_of_that_model() {
        assert_eq!(only("seven_day/opus").fresh_model(), Some("opus"));
        assert_eq!(only("five_hour").fresh_model(), None);
        assert_eq!(of_model(Some("opus")).fresh_model(), Some("opus"));
    }

    #[test]
    fn a_window_that_could_not_be_read_is_unknown() {
        let week: WindowId = "seven_day/opus".parse().unwrap();
        let usage =
            UsageReport::polled([used("five_hour", 10.0)]).coverage(Coverage::complete_except([week]));
        let account = Snapshot::of(&usage, now());

        assert_eq!(why(&account, &of_model(Some("claude-opus-4-5"))), "it could not be parsed");
        assert_eq!(reason(&account, &all()), Reason::Available);
        assert_eq!(reason(&account, &only("seven_day/opus")), Reason::UnknownDenied);
    }

    #[test]
    fn a_model_window_at_its_limit_is_insufficient_as_for_pick() {
        let at_limit = |id| reason(&read([used(id, 90.0)]), &of_model(Some("opus")));

        assert_eq!(at_limit("seven_day"), Reason::Available);
        assert_eq!(at_limit("seven_day/opus"), Reason::BelowKillswitch);
    }

    #[test]
    fn an_exhausted_window_is_never_enough() {
        let none = Requirements::new(0.0, None, None);

        assert_eq!(reason(&read([used("five_hour", 100.0)]), &none), Reason::Exhausted);
        assert_eq!(reason(&read([used("five_hour", 99.9)]), &none), Reason::Available);
    }
}
