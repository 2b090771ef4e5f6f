//! Whether enough is left: a pure decision on what is known of an account.
//! What follows from it is in `guard`.

use std::fmt;

use quota::{Percent, UsedAt};

use crate::status::model::{AccountView, WindowView};

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
    Unknown { window: Option<String>, why: &'static str },
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

/// Judges what is known. A window that is below decides, whatever is unknown of the others.
pub(super) fn judge(account: &AccountView, terms: &Terms<'_>) -> Verdict {
    let (mut least, mut unknown) = (None::<(&WindowView, f64)>, None);
    for window in account.windows.iter().filter(|window| counts(window, terms)) {
        let Some(left) = window.used.lower_bound().map(left) else {
            unknown = unknown.or(Some((window, "nothing is known of it")));
            continue;
        };
        // Of a lower bound of what is used, what is left is at most this: enough to say no, and not to say yes.
        if !matches!(window.used, UsedAt::Exact(_)) && left >= terms.min_remaining {
            unknown = unknown.or(Some((window, "its number is old, so more may be used by now")));
            continue;
        }
        if least.is_none_or(|(_, other)| left < other) {
            least = Some((window, left));
        }
    }
    match (least, unknown) {
        (Some((window, left)), _) if left < terms.min_remaining => {
            Verdict::Below { window: window.id.clone(), left }
        }
        (_, Some((window, why))) => Verdict::Unknown { window: Some(window.id.clone()), why },
        (Some((window, left)), None) => Verdict::Go { window: window.id.clone(), left },
        (None, None) => {
            Verdict::Unknown { window: terms.window.map(ToOwned::to_owned), why: "no such window is known" }
        }
    }
}

/// Windows of the whole account count for everybody, those of a part of it only for whoever uses that part.
fn counts(window: &WindowView, terms: &Terms<'_>) -> bool {
    if let Some(named) = terms.window {
        return window.id == named;
    }
    let Some(scope) = &window.scope else { return true };
    let is_of = |model: &str| {
        let is_named = scope.model.as_ref().is_some_and(|of| of.eq_ignore_ascii_case(model));
        is_named || window.id.rsplit_once('/').is_some_and(|(_, of)| of.eq_ignore_ascii_case(model))
    };
    terms.model.is_some_and(is_of)
}

fn left(used: Percent) -> f64 {
    f64::from(Percent::FULL.basis_points().saturating_sub(used.basis_points())) / 100.0
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use quota::{Scope, Source};

    use super::*;
    use crate::status::model::Freshness;

    const TERMS: Terms<'_> = Terms { min_remaining: 10.0, window: None, model: None };

    fn exact(percent: u32) -> UsedAt {
        UsedAt::Exact(Percent::from_basis_points(percent * 100))
    }

    fn account(windows: &[(&str, UsedAt, Option<&str>)]) -> AccountView {
        let window = |(id, used, model): &(&str, UsedAt, Option<&str>)| WindowView {
            id: (*id).to_owned(),
            used: *used,
            resets_at: None,
            observed_at: Timestamp::UNIX_EPOCH,
            source: Source::Poll,
            scope: model.map(Scope::model),
            length: None,
        };
        AccountView {
            id: "anthropic/main".parse().expect("a name"),
            state: Freshness::Fresh,
            age: None,
            plan: None,
            windows: windows.iter().map(window).collect(),
            credits: None,
            hold: None,
            trouble: None,
            failure: None,
            not_refreshed: None,
            switched_off: false,
        }
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
        let account = account(&[("five_hour", exact(40), None), ("seven_day", exact(91), None)]);

        assert_eq!(judge(&account, &TERMS), Verdict::Below { window: "seven_day".into(), left: 9.0 });
        let less = Terms { min_remaining: 9.0, ..TERMS };
        assert_eq!(judge(&account, &less), Verdict::Go { window: "seven_day".into(), left: 9.0 });
    }

    #[test]
    fn a_window_that_is_named_decides_alone() {
        let account = account(&[("five_hour", exact(40), None), ("seven_day", exact(100), None)]);

        assert_eq!(word(judge(&account, &Terms { window: Some("five_hour"), ..TERMS })), "go");
        assert_eq!(word(judge(&account, &Terms { window: Some("monthly"), ..TERMS })), "unknown");
    }

    #[test]
    fn the_window_of_a_model_counts_for_that_model_only() {
        let account =
            account(&[("five_hour", exact(40), None), ("seven_day/opus", exact(100), Some("Opus"))]);

        assert_eq!(word(judge(&account, &TERMS)), "go");
        assert_eq!(word(judge(&account, &Terms { model: Some("opus"), ..TERMS })), "below");
        assert_eq!(word(judge(&account, &Terms { model: Some("sonnet"), ..TERMS })), "go");
    }

    #[test]
    fn an_old_number_can_say_no_and_not_yes() {
        let at_least = |percent| UsedAt::AtLeast(Percent::from_basis_points(percent));

        assert_eq!(word(judge(&account(&[("five_hour", at_least(9_500), None)]), &TERMS)), "below");
        assert_eq!(word(judge(&account(&[("five_hour", at_least(4_000), None)]), &TERMS)), "unknown");
    }

    #[test]
    fn what_is_below_decides_whatever_else_is_unknown() {
        let account = account(&[("five_hour", UsedAt::Unknown, None), ("seven_day", exact(95), None)]);

        assert_eq!(word(judge(&account, &TERMS)), "below");
    }

    #[test]
    fn of_what_is_not_known_nothing_is_said() {
        assert_eq!(word(judge(&account(&[]), &TERMS)), "unknown");
        assert_eq!(word(judge(&account(&[("five_hour", UsedAt::Unknown, None)]), &TERMS)), "unknown");
    }
}
