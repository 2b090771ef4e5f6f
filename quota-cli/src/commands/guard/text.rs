//! The error text of `quota guard`: why it fails, and what to do.

use quota::accounts::routing::Reason;
use quota::record::Hold;
use quota::{Percent, QuotaError};

use crate::format::{self, LocalTime};
use crate::sanitize::sanitize;
use crate::view::account::FailureView;

/// Why `quota guard` fails.
#[derive(Debug)]
pub(super) struct Failed<'a> {
    pub(super) reason: Reason,
    /// The deciding window, and how much of it remains.
    pub(super) window: Option<&'a str>,
    pub(super) left: Option<Percent>,
    /// The percentage that must remain.
    pub(super) min_remaining: f64,
    /// Why there is no newer reading, and what to do.
    pub(super) cause: Option<&'a str>,
    /// Why it is unknown whether enough remains.
    pub(super) why_unknown: &'a str,
    /// Whether the account lacks the requested window.
    pub(super) is_missing_window: bool,
}

impl Failed<'_> {
    /// Renders one line.
    pub(super) fn text(&self) -> String {
        match (self.reason, self.window, self.left) {
            (Reason::BelowKillswitch | Reason::Exhausted, Some(window), Some(left)) => {
                let (left, min_remaining) = (format::percent(left), self.min_remaining);
                sanitize(&format!("{window}: only {left} left ({min_remaining} % required)"))
            }
            // For a missing window, `--unknown allow` would disable the check.
            _ if self.is_missing_window => self.unknown(),
            _ => format!("{}; use --unknown allow to proceed anyway", self.unknown()),
        }
    }

    /// Why it is unknown whether enough remains, with the cause first.
    pub(super) fn unknown(&self) -> String {
        let cause = self.cause.map_or_else(String::new, |cause| format!("{cause}; "));
        let window = self.window.map_or_else(String::new, |window| format!("{window}: "));
        sanitize(&format!("{cause}{window}{}", self.why_unknown))
    }
}

/// Why there is no newer reading, and what to do; `None` if nothing prevents a refresh.
pub(super) fn cause(
    error: Option<&QuotaError>,
    hold: Option<&Hold>,
    login_hint: &dyn Fn() -> String,
    local: &LocalTime,
) -> Option<String> {
    let held = |hold: &Hold| {
        format!("backing off until {} ({})", local.time_of_day_with_seconds(hold.until), hold.reason)
    };
    let FailureView { why, advice } = match (error, hold) {
        (Some(QuotaError::OnHold { hold, .. }), _) | (None, Some(hold)) => return Some(held(hold)),
        (Some(error), _) => FailureView::of(error, login_hint),
        (None, None) => return None,
    };
    let advice = advice.map_or_else(String::new, |advice| format!("; {advice}"));
    Some(sanitize(&format!("{why}{advice}")))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use jiff::tz::TimeZone;
    use quota::record::HoldReason;

    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-23T{text}Z").parse().unwrap()
    }

    fn local() -> LocalTime {
        LocalTime { now: at("11:55:03"), zone: TimeZone::UTC }
    }

    fn unknown<'a>(window: Option<&'a str>, why_unknown: &'a str, cause: Option<&'a str>) -> Failed<'a> {
        let reason = Reason::UnknownDenied;
        Failed {
            reason,
            window,
            left: None,
            min_remaining: 10.0,
            cause,
            why_unknown,
            is_missing_window: false,
        }
    }

    #[test]
    fn an_unknown_window_is_shown_with_the_reason_and_the_option() {
        let line = unknown(Some("five_hour"), "it could not be parsed", None).text();

        assert_eq!(line, "five_hour: it could not be parsed; use --unknown allow to proceed anyway");
    }

    #[test]
    fn a_missing_window_is_shown_without_the_option() {
        let why = "no such window; did you mean five_hour?";
        let failed = Failed { is_missing_window: true, ..unknown(Some("five_huor"), why, None) };

        assert_eq!(failed.text(), format!("five_huor: {why}"));
    }

    #[test]
    fn the_remaining_percentage_is_shown_with_the_required_one() {
        let left = Percent::from_percent(5.0);
        let failed = Failed { reason: Reason::BelowKillswitch, left, ..unknown(Some("five_hour"), "", None) };

        assert_eq!(failed.text(), "five_hour: only 5 % left (10 % required)");
    }

    #[test]
    fn a_hold_is_shown_with_its_end() {
        let hold = Hold::new(at("11:54:00"), at("11:59:00"), HoldReason::RateLimited);
        let cause = cause(None, Some(&hold), &String::new, &local());

        assert_eq!(cause, Some(format!("backing off until 11:59:00 ({})", hold.reason)));
        let line = unknown(None, "no data yet", cause.as_deref()).text();
        assert!(line.contains("; no data yet; "), "{line}");
    }

    #[test]
    fn external_text_cannot_control_the_terminal() {
        let failed = unknown(Some("\u{1b}[2J"), "it could not be parsed", Some("a\u{1b}[2J"));

        assert!(!failed.text().contains('\u{1b}'));
    }
}
