//! The text of a journal event.

use quota::Percent;
use quota::record::LastFailureKind;
use quota_journal::{Direction, EventKind};

use crate::format::{self, LocalTime};
use crate::sanitize::sanitize;
use crate::window_name::window_name_of_id;

/// The text of the event, without the account.
#[must_use]
pub fn describe(kind: &EventKind, local: &LocalTime) -> String {
    let percent = |basis_points| format::percent(Percent::from_basis_points(basis_points));
    let description = match kind {
        EventKind::Refreshed => "refreshed".to_owned(),
        EventKind::Throttled { until } => {
            format!("rate limited (429) until {}", local.time_of_day_with_seconds(*until))
        }
        EventKind::Held { until, reason } => {
            format!("backing off until {} ({reason})", local.time_of_day_with_seconds(*until))
        }
        EventKind::HoldEnded => "backoff ended".to_owned(),
        EventKind::Reset { window } => format!("{} window reset", window_name_of_id(window)),
        EventKind::Threshold { window, threshold_bp, used_bp, direction } => {
            let crossed = match direction {
                Direction::Up => "crossed",
                Direction::Down => "fell below",
            };
            let (name, threshold) = (window_name_of_id(window), percent(*threshold_bp));
            format!("{name} window {crossed} {threshold}: {} used", percent(*used_bp))
        }
        EventKind::LoginChanged => "login changed".to_owned(),
        EventKind::Failing { reason } => match failure(*reason) {
            Some(reason) => format!("refresh failed: {reason}"),
            None => "refresh failed".to_owned(),
        },
        EventKind::Newer(_) => "event of a newer version of quota".to_owned(),
    };
    sanitize(&description)
}

fn failure(kind: LastFailureKind) -> Option<&'static str> {
    match kind {
        LastFailureKind::Throttled => Some("rate limited (429)"),
        LastFailureKind::Failing => Some("provider error"),
        LastFailureKind::Unreachable => Some("provider unreachable"),
        LastFailureKind::TimedOut => Some("provider timed out"),
        LastFailureKind::Unauthorized => Some("login rejected (401)"),
        LastFailureKind::Forbidden => Some("forbidden by the provider (403)"),
        LastFailureKind::MissingScope => Some("the token may not read usage"),
        _ => None,
    }
}
