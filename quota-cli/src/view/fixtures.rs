//! Accounts and windows for tests.

use std::time::Duration;

use jiff::tz::TimeZone;
use quota::Used;
use quota::model::Source;

use super::account::{AccountView, ViewFreshness, WindowView};
use super::line::Line;
use crate::format::LocalTime;

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// 11:55 in UTC.
pub(crate) fn local() -> LocalTime {
    LocalTime { now: "2026-11-23T11:55:00Z".parse().unwrap(), zone: TimeZone::UTC }
}

/// A fresh account that was read two minutes ago and has only these windows.
pub(crate) fn account(name: &str, windows: Vec<WindowView>) -> AccountView {
    AccountView {
        id: name.parse().unwrap(),
        state: ViewFreshness::Fresh,
        age: Some(MINUTE * 2),
        plan: None,
        windows,
        credits: None,
        ignored: Vec::new(),
        hold: None,
        last_failure: None,
        failure: None,
        reason: None,
        not_refreshed: None,
        called_at: None,
        disabled: false,
    }
}

/// A window that was read two minutes ago. Its length follows from its id.
pub(crate) fn window(id: &str, used: Used, resets_in: impl Into<Option<Duration>>) -> WindowView {
    let length = match id.split('/').next() {
        Some("five_hour") => Some(HOUR * 5),
        Some("seven_day") => Some(HOUR * 168),
        _ => None,
    };
    WindowView {
        id: id.to_owned(),
        used,
        is_unlimited: false,
        resets_at: resets_in.into().map(|duration| local().now + duration),
        observed_at: local().now - MINUTE * 2,
        source: Source::Poll,
        scope: None,
        length,
    }
}

/// Asserts that no line is wider than the terminal.
#[track_caller]
pub(crate) fn assert_fits(lines: &[Line], width: usize) {
    let wide: Vec<_> = lines.iter().filter(|line| line.width() > width).collect();
    assert!(wide.is_empty(), "{width}: {wide:#?}");
}
