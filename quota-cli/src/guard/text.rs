//! What `quota guard` says to people: the verdict in one line, with the reason and what to do.
//! How it is decided is in `judge`.

use quota::{Hold, QuotaError};

use super::judge::{Verdict, Why};
use crate::format::LocalTime;
use crate::reset_grace::{self, PendingReset};
use crate::sanitize::sanitize;
use crate::view::account::FailureView;

/// What is known beside the verdict.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// Why there is no newer number, and what to do about it.
    pub(super) cause: Option<String>,
    /// What keeps the window that has reset from being refreshed now.
    pub(super) pending: Option<PendingReset>,
}

/// The verdict in one line.
pub(super) fn verdict(verdict: &Verdict, beside: &Beside, local: &LocalTime) -> String {
    match verdict {
        Verdict::Go { window, left } => sanitize(&format!("{left} % left in {window}")),
        Verdict::Below { window, left } => sanitize(&format!("too little left: {left} % in {window}")),
        Verdict::Unknown { window, why } => {
            let gap = gap(window.as_deref(), why, beside, local);
            format!("{gap}; to go on anyway, give --unknown allow")
        }
    }
}

/// Why it cannot be decided, with the cause first.
fn gap(window: Option<&str>, why: &Why, beside: &Beside, local: &LocalTime) -> String {
    let cause = beside.cause.as_ref().map_or_else(String::new, |cause| format!("{cause}; "));
    let window = window.map_or_else(String::new, |window| format!("{window}: "));
    let why = match why {
        Why::NothingRead => "nothing is known of it yet".to_owned(),
        Why::NoWindows => "the provider reports no windows for it".to_owned(),
        Why::OnlyParts { windows } => {
            format!("only windows of a part are known; name one with --window: {}", windows.join(", "))
        }
        Why::NoSuchWindow { nearest: Some(near) } => {
            format!("no such window is known, did you mean {near}?")
        }
        Why::NoSuchWindow { nearest: None } => "no such window is known".to_owned(),
        Why::Unreadable => "it could not be read".to_owned(),
        Why::Old => "its number is old, so more may be used by now".to_owned(),
        Why::OldWithoutReset => "its number is old, and states no reset".to_owned(),
        Why::Reset { at } => {
            beside.pending.map_or_else(|| reset_grace::reset(*at, local), |pending| pending.text(local))
        }
    };
    sanitize(&format!("{cause}{window}{why}"))
}

/// What is said while the command waits; `None` if nothing is known that would explain it.
pub(super) fn notice(window: Option<&str>, why: &Why, beside: &Beside, local: &LocalTime) -> Option<String> {
    match beside.pending {
        Some(_) => Some(format!("{}; waiting", gap(window, why, beside, local))),
        None => beside.cause.as_ref().map(|cause| format!("{cause}; waiting")),
    }
}

/// Why there is no newer number, and what to do about it; `None` if nothing is known to have kept a refresh from happening.
pub(super) fn cause(
    error: Option<&QuotaError>,
    hold: Option<&Hold>,
    advice: &dyn Fn() -> String,
    local: &LocalTime,
) -> Option<String> {
    let held = |hold: &Hold| {
        format!("not asked until {}: {}", local.time_of_day_with_seconds(hold.until), hold.reason)
    };
    let FailureView { why, advice } = match (error, hold) {
        (Some(QuotaError::OnHold { hold, .. }), _) | (None, Some(hold)) => return Some(held(hold)),
        (Some(error), _) => FailureView::of(error, advice),
        (None, None) => return None,
    };
    let advice = advice.map_or_else(String::new, |advice| format!("; {advice}"));
    Some(sanitize(&format!("{why}{advice}")))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use jiff::tz::TimeZone;
    use quota::HoldReason;

    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-23T{text}Z").parse().unwrap()
    }

    fn local() -> LocalTime {
        LocalTime { now: at("11:55:03"), zone: TimeZone::UTC }
    }

    fn line(window: Option<&str>, why: Why, beside: &Beside) -> String {
        verdict(&Verdict::Unknown { window: window.map(ToOwned::to_owned), why }, beside, &local())
    }

    #[test]
    fn every_reason_is_said_in_words_of_its_own() {
        let five = Some("five_hour");
        let windows = vec!["seven_day/opus".to_owned()];
        for (window, why, words) in [
            (None, Why::NothingRead, "nothing is known of it yet"),
            (None, Why::NoWindows, "the provider reports no windows for it"),
            (
                None,
                Why::OnlyParts { windows },
                "only windows of a part are known; name one with --window: seven_day/opus",
            ),
            (Some("monthly"), Why::NoSuchWindow { nearest: None }, "monthly: no such window is known"),
            (
                Some("fivehour"),
                Why::NoSuchWindow { nearest: Some("five_hour".into()) },
                "fivehour: no such window is known, did you mean five_hour?",
            ),
            (five, Why::Unreadable, "five_hour: it could not be read"),
            (five, Why::Old, "five_hour: its number is old, so more may be used by now"),
            (five, Why::OldWithoutReset, "five_hour: its number is old, and states no reset"),
            (five, Why::Reset { at: at("11:55:00") }, "five_hour: has reset at 11:55:00"),
        ] {
            let expected = format!("{words}; to go on anyway, give --unknown allow");
            assert_eq!(line(window, why, &Beside::default()), expected);
        }
    }

    #[test]
    fn a_window_that_has_just_reset_is_named_with_the_next_refresh() {
        let pending = PendingReset { reset_at: at("11:55:00"), refresh_at: at("11:55:15") };
        let beside = Beside { pending: Some(pending), cause: None };

        let line = line(Some("five_hour"), Why::Reset { at: at("11:55:00") }, &beside);

        let words = "five_hour: has reset at 11:55:00, asked again in 12 s (11:55:15); ";
        assert!(line.starts_with(words), "{line}");
    }

    #[test]
    fn a_hold_is_a_cause_with_its_end() {
        let hold = Hold::new(at("11:54:00"), at("11:59:00"), HoldReason::RateLimited);
        let cause = cause(None, Some(&hold), &String::new, &local());

        assert_eq!(cause, Some(format!("not asked until 11:59:00: {}", hold.reason)));
        let line = line(None, Why::NothingRead, &Beside { cause, pending: None });
        assert!(line.contains("; nothing is known of it yet; "), "{line}");
    }

    #[test]
    fn what_comes_from_elsewhere_cannot_control_the_terminal() {
        let beside = Beside { cause: Some("a\u{1b}[2J".to_owned()), pending: None };

        assert!(!line(Some("\u{1b}[2J"), Why::Unreadable, &beside).contains('\u{1b}'));
    }
}
