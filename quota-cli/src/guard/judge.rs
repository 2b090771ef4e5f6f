//! Whether enough is left: a pure decision on what is known of an account.
//! What follows from it is in `guard`.

use std::borrow::Cow;
use std::fmt;
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
    /// It cannot be told.
    Unknown { window: Option<String>, why: Cow<'static, str> },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Go { window, left } => write!(f, "{left} % left in {window}"),
            Self::Below { window, left } => write!(f, "too little left: {left} % in {window}"),
            Self::Unknown { window: Some(window), why } => {
                write!(f, "{window}: {why}; to go on all the same, give --unknown allow")
            }
            Self::Unknown { window: None, why } => {
                write!(f, "{why}; to go on all the same, give --unknown allow")
            }
        }
    }
}

/// Judges what is known, by the rule of `quota::accounts`: a window that is below decides, whatever is unknown of the others.
pub(super) fn judge(snapshot: &Snapshot, now: Timestamp, fresh_for: Duration, terms: &Terms<'_>) -> Verdict {
    let limits = Limits::of(Percent::from_percent(terms.min_remaining).unwrap_or(Percent::FULL));
    let (mut least, mut unknown) = (None::<(&Window, Percent, bool)>, None::<(&WindowId, &'static str)>);
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
                unknown = unknown.or(Some((window.id(), "its number is old, so more may be used by now")));
                continue;
            }
            _ => {
                unknown = unknown.or(Some((window.id(), "nothing is known of it")));
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
    let unknown = unknown.or_else(|| Some((unread?, "it could not be read")));
    match (least, unknown) {
        (Some((window, left, true)), _) => {
            Verdict::Below { window: window.id().to_string(), left: left.as_f64() }
        }
        (_, Some((window, why))) => Verdict::Unknown { window: Some(window.to_string()), why: why.into() },
        (Some((window, left, false)), None) => {
            Verdict::Go { window: window.id().to_string(), left: left.as_f64() }
        }
        (None, None) => Verdict::Unknown {
            window: terms.window.map(ToOwned::to_owned),
            why: none_of_that_name(snapshot, terms),
        },
    }
}

impl Terms<'_> {
    /// Whether a window counts: the one that is named, or else those that count for the model.
    fn count(&self, window: &Window) -> bool {
        match self.window {
            Some(named) => window.id().as_str() == named,
            None => window.applies_to(self.model),
        }
    }
}

/// There may be one some day, so it is no mistake for sure; what it may be one for is told.
fn none_of_that_name(snapshot: &Snapshot, terms: &Terms<'_>) -> Cow<'static, str> {
    let known = snapshot.windows().iter().map(|window| window.id().as_str());
    match terms.window.and_then(|named| nearest(named, known)) {
        Some(near) => format!("no such window is known, did you mean {near}?").into(),
        None => "no such window is known".into(),
    }
}

#[cfg(test)]
mod tests {
    use quota::{Coverage, Scope, Usage, WindowReading};

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
        Snapshot::of(&Usage::polled(readings), now())
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
    fn a_window_that_nobody_knows_is_told_with_the_one_that_may_be_meant() {
        let account = read([used("five_hour", 40.0)]);

        let told = judged(&account, &Terms { window: Some("fivehour"), ..TERMS }).to_string();

        assert!(told.starts_with("fivehour: no such window is known, did you mean five_hour?"), "{told}");
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

    #[test]
    fn of_what_is_not_known_nothing_is_said() {
        assert_eq!(word(judged(&read([]), &TERMS)), "unknown");
        assert_eq!(word(judged_later(&read([used("five_hour", 10.0).resets_at(None)]), &TERMS)), "unknown");
    }

    #[test]
    fn a_window_that_could_not_be_read_is_unknown() {
        let week: WindowId = "seven_day/opus".parse().unwrap();
        let usage = Usage::polled([used("five_hour", 10.0)]).coverage(Coverage::complete_except([week]));
        let account = Snapshot::of(&usage, now());

        let opus = judged(&account, &Terms { model: Some("claude-opus-4-5"), ..TERMS });

        assert_eq!(
            opus.to_string(),
            "seven_day/opus: it could not be read; to go on all the same, give --unknown allow"
        );
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
