//! Whether enough is left: a pure decision on what is known of an account.
//! What follows from it is in `guard`.

use std::time::Duration;

use jiff::Timestamp;
use quota::accounts::{LimitCheck, Limits};
use quota::{Percent, Snapshot, Window, WindowId};

use crate::config::nearest;

/// What is to be left, and where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a> {
    /// In percent of a window.
    pub(super) min_remaining: f64,
    /// Only this window counts.
    pub(super) window: Option<&'a str>,
    /// The windows of this model count as well.
    pub(super) model: Option<&'a str>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    /// Enough is left in all windows; so much in the one with the least.
    Go { window: String, left: f64 },
    /// In this one there is less.
    Below { window: String, left: f64 },
    /// It cannot be decided.
    Unknown { window: Option<String>, why: Why },
}

/// Why it cannot be decided.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Why {
    /// Nothing was ever read of the account.
    NothingRead,
    /// The provider reports no windows, as for an account with credits only.
    NoWindows,
    /// No window is named, and all that are known count only a part of the requests.
    OnlyParts { windows: Vec<String> },
    /// The window that is named is not among those of the account.
    NoSuchWindow { nearest: Option<String> },
    /// The last answer contained the window in a form that could not be read.
    Unreadable,
    /// More may be used by now.
    Old,
    /// The reading is old, and states no reset until which it would be a lower bound.
    OldWithoutReset,
    /// The window has reset since it was read.
    Reset { at: Timestamp },
}

/// Judges what is known, by the rule of `quota::accounts`: a window that is below decides, whatever is unknown of the others.
pub(super) fn judge(snapshot: &Snapshot, now: Timestamp, fresh_for: Duration, terms: &Terms<'_>) -> Verdict {
    let limits = Limits::of(Percent::from_percent(terms.min_remaining).unwrap_or(Percent::FULL));
    let (mut least, mut unknown) = (None::<(&Window, Percent, bool)>, None::<(&WindowId, Why)>);
    let mut counted: Vec<_> = snapshot.windows().iter().filter(|window| terms.count(window)).collect();
    // Of windows that say the same the shortest is named.
    counted.sort_by_key(|window| (window.length().unwrap_or(Duration::MAX), window.scope().is_some()));
    for window in counted {
        let (left, is_below) = match limits.check(window, window.used_at(now, fresh_for)) {
            LimitCheck::Exhausted => (Percent::ZERO, true),
            LimitCheck::Below { left } => (left, true),
            LimitCheck::Passed { left, is_exact: true } => (left, false),
            // What is left is at most this: enough to say no, and not to say yes.
            LimitCheck::Passed { .. } => {
                unknown = unknown.or(Some((window.id(), Why::Old)));
                continue;
            }
            _ => {
                let reset = window.expires_at().filter(|reset| *reset <= now);
                let why = reset.map_or(Why::OldWithoutReset, |at| Why::Reset { at });
                unknown = unknown.or(Some((window.id(), why)));
                continue;
            }
        };
        // A model's window at its limit is below, and one of the whole account with as little left is not.
        if least.is_none_or(|(_, other, other_is_below)| (!is_below, left) < (!other_is_below, other)) {
            least = Some((window, left, is_below));
        }
    }
    let unread = match terms.window {
        Some(named) => snapshot.unreadable().find(|id| id.as_str() == named),
        None => limits.unread(snapshot, terms.model).next(),
    };
    let unknown = unknown.or_else(|| Some((unread?, Why::Unreadable)));
    match (least, unknown) {
        (Some((window, left, true)), _) => {
            Verdict::Below { window: window.id().to_string(), left: left.as_f64() }
        }
        (_, Some((window, why))) => Verdict::Unknown { window: Some(window.to_string()), why },
        (Some((window, left, false)), None) => {
            Verdict::Go { window: window.id().to_string(), left: left.as_f64() }
        }
        (None, None) => Verdict::Unknown {
            window: terms.window.map(ToOwned::to_owned),
            why: no_window_counts(snapshot, terms),
        },
    }
}

impl<'a> Terms<'a> {
    /// The model whose windows must be fresh: that of the window that is named, or else the one that is named itself.
    pub(super) fn fresh_model(&self) -> Option<&'a str> {
        match self.window {
            Some(window) => window.split_once('/').map(|(_, model)| model),
            None => self.model,
        }
    }

    /// Whether a window counts: the one that is named, or else those that count for the model.
    fn count(&self, window: &Window) -> bool {
        match self.window {
            Some(named) => window.id().as_str() == named,
            None => window.applies_to(self.model),
        }
    }
}

/// Why no window of the account counts, readable or not.
fn no_window_counts(snapshot: &Snapshot, terms: &Terms<'_>) -> Why {
    let known = || snapshot.windows().iter().map(|window| window.id().as_str());
    if snapshot.is_empty() {
        return Why::NothingRead;
    }
    match terms.window {
        // There may be one some day, so it is no mistake for sure.
        Some(named) => Why::NoSuchWindow { nearest: nearest(named, known()).map(ToOwned::to_owned) },
        None if known().next().is_none() => Why::NoWindows,
        None => Why::OnlyParts { windows: known().map(ToOwned::to_owned).collect() },
    }
}

#[cfg(test)]
mod tests {
    use quota::{Coverage, Scope, UsageReport, WindowReading};

    use super::*;

    const TERMS: Terms<'_> = Terms { min_remaining: 10.0, window: None, model: None };
    const FRESH: Duration = Duration::from_secs(300);

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).expect("a moment")
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

    fn judged(snapshot: &Snapshot, terms: &Terms<'_>) -> Verdict {
        judge(snapshot, now(), FRESH, terms)
    }

    /// The same when the readings are old.
    fn judged_later(snapshot: &Snapshot, terms: &Terms<'_>) -> Verdict {
        judge(snapshot, now() + FRESH, FRESH, terms)
    }

    fn word(verdict: Verdict) -> &'static str {
        match verdict {
            Verdict::Go { .. } => "go",
            Verdict::Below { .. } => "below",
            Verdict::Unknown { .. } => "unknown",
        }
    }

    #[test]
    fn the_window_with_the_least_decides() {
        let account = read([used("five_hour", 40.0), used("seven_day", 91.0)]);

        assert_eq!(judged(&account, &TERMS), Verdict::Below { window: "seven_day".into(), left: 9.0 });
        let less = Terms { min_remaining: 9.0, ..TERMS };
        assert_eq!(judged(&account, &less), Verdict::Go { window: "seven_day".into(), left: 9.0 });
    }

    #[test]
    fn a_window_that_is_named_decides_alone() {
        let account = read([used("five_hour", 40.0), used("seven_day", 100.0)]);

        assert_eq!(word(judged(&account, &Terms { window: Some("five_hour"), ..TERMS })), "go");
        assert_eq!(word(judged(&account, &Terms { window: Some("monthly"), ..TERMS })), "unknown");
    }

    #[test]
    fn the_window_of_a_model_counts_for_that_model_only() {
        let account = read([used("five_hour", 40.0), used("seven_day/opus", 100.0)]);
        let of_model = |model| word(judged(&account, &Terms { model, ..TERMS }));

        assert_eq!(of_model(None), "go");
        for opus in ["opus", "claude-opus-4-5", "CLAUDE-OPUS-4-5-20260101"] {
            assert_eq!(of_model(Some(opus)), "below", "{opus}");
        }
        assert_eq!(of_model(Some("claude-sonnet-4-5")), "go");
    }

    #[test]
    fn an_old_number_can_say_no_and_not_yes() {
        assert_eq!(word(judged_later(&read([used("five_hour", 95.0)]), &TERMS)), "below");
        assert_eq!(word(judged_later(&read([used("five_hour", 40.0)]), &TERMS)), "unknown");
    }

    #[test]
    fn what_is_below_decides_whatever_else_is_unknown() {
        let account = read([used("five_hour", 10.0).resets_at(None), used("seven_day", 95.0)]);

        assert_eq!(word(judged_later(&account, &TERMS)), "below");
    }

    fn why(verdict: Verdict) -> Why {
        match verdict {
            Verdict::Unknown { why, .. } => why,
            other => panic!("it is decided: {other:?}"),
        }
    }

    #[test]
    fn what_cannot_be_decided_has_a_reason_for_every_case() {
        let week: WindowId = "seven_day".parse().unwrap();
        let unreadable = UsageReport::polled([]).coverage(Coverage::complete_except([week]));
        let reset = now() - Duration::from_secs(5);
        let has_reset = WindowReading::new(WindowId::five_hour(), Percent::ZERO).resets_at(reset);
        let before = reset - Duration::from_secs(60);
        let named = |window| Terms { window: Some(window), ..TERMS };
        let opus = || read([used("seven_day/opus", 1.0)]);
        let dateless =
            Snapshot::of(&UsageReport::polled([used("five_hour", 1.0).resets_at(None)]), now() - FRESH);
        let old = Snapshot::of(&UsageReport::polled([used("five_hour", 1.0)]), now() - FRESH);

        for (snapshot, terms, expected) in [
            (Snapshot::default(), TERMS, Why::NothingRead),
            (Snapshot::default(), named("five_hour"), Why::NothingRead),
            (read([]), TERMS, Why::NoWindows),
            (opus(), TERMS, Why::OnlyParts { windows: vec!["seven_day/opus".into()] }),
            (opus(), named("monthly"), Why::NoSuchWindow { nearest: None }),
            (opus(), named("seven_day/opsu"), Why::NoSuchWindow { nearest: Some("seven_day/opus".into()) }),
            (Snapshot::of(&unreadable, now()), TERMS, Why::Unreadable),
            (old, TERMS, Why::Old),
            (dateless, TERMS, Why::OldWithoutReset),
            (Snapshot::of(&UsageReport::polled([has_reset]), before), TERMS, Why::Reset { at: reset }),
        ] {
            assert_eq!(why(judged(&snapshot, &terms)), expected);
        }
    }

    #[test]
    fn the_window_of_a_model_must_be_as_fresh_as_that_model() {
        let of_window = |window| Terms { window: Some(window), ..TERMS }.fresh_model();

        assert_eq!(of_window("seven_day/opus"), Some("opus"));
        assert_eq!(of_window("five_hour"), None);
        assert_eq!(Terms { model: Some("opus"), ..TERMS }.fresh_model(), Some("opus"));
    }

    #[test]
    fn a_window_that_could_not_be_read_is_unknown() {
        let week: WindowId = "seven_day/opus".parse().unwrap();
        let usage =
            UsageReport::polled([used("five_hour", 10.0)]).coverage(Coverage::complete_except([week]));
        let account = Snapshot::of(&usage, now());

        let opus = judged(&account, &Terms { model: Some("claude-opus-4-5"), ..TERMS });

        assert_eq!(why(opus), Why::Unreadable);
        assert_eq!(word(judged(&account, &TERMS)), "go");
        assert_eq!(word(judged(&account, &Terms { window: Some("seven_day/opus"), ..TERMS })), "unknown");
    }

    #[test]
    fn a_models_window_at_its_limit_is_below_as_it_is_for_pick() {
        let at_limit = |id| word(judged(&read([used(id, 90.0)]), &Terms { model: Some("opus"), ..TERMS }));

        assert_eq!((at_limit("seven_day"), at_limit("seven_day/opus")), ("go", "below"));
    }

    #[test]
    fn nothing_left_is_never_enough() {
        let none = Terms { min_remaining: 0.0, ..TERMS };

        assert_eq!(word(judged(&read([used("five_hour", 100.0)]), &none)), "below");
        assert_eq!(word(judged(&read([used("five_hour", 99.9)]), &none)), "go");
    }
}
