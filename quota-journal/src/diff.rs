//! Derives the events between two observations of an account. This is a pure function, so every process that compares
//! the same observations derives the same events with the same ids.

use std::time::Duration;

use jiff::Timestamp;
use quota_core::record::HoldReason;

use crate::event::{Direction, EventKind, JournalEvent};
use crate::observation::{Observation, ObservedWindow};

/// The default thresholds for events, in hundredths of a percent.
pub(crate) const DEFAULT_THRESHOLDS: [u32; 4] = [5_000, 7_500, 9_000, 10_000];
/// The usage of a window counts as lowered only if it falls by at least this much, because providers round, and readings
/// from two sources differ.
pub(crate) const HYSTERESIS_BP: u32 = 200;
/// Two resets that differ by less than this belong to one period. A provider may report the same reset with a few
/// seconds' difference.
const SAME_PERIOD: Duration = Duration::from_secs(300);

/// Compares an observation with the previous one. Returns the events, oldest first, and the observation to store.
///
/// Without `before` there is nothing to compare with, so there are no events.
pub(crate) fn diff(
    before: Option<&Observation>,
    mut after: Observation,
    now: Timestamp,
    thresholds: &[u32],
) -> (Vec<JournalEvent>, Observation) {
    let mut events = Vec::new();
    let Some(before) = before else {
        for window in after.windows.values_mut() {
            window.last_threshold_bp = highest_threshold(window.used_bp, thresholds);
            let reset = window.resets_at;
            window.resets_at = reset.filter(|reset| *reset > now);
        }
        return (events, after);
    };
    let blank = Observation::default();
    let before = if after.is_other_login(before) {
        events.push(JournalEvent::new(after.refreshed_at.unwrap_or(now), EventKind::LoginChanged));
        &blank
    } else {
        before
    };
    after.login = after.login.or_else(|| before.login.clone());
    after.owner = after.owner.or_else(|| before.owner.clone());
    after.refreshed_at = after.refreshed_at.max(before.refreshed_at);
    after.copy_unknown_fields(before);

    diff_calls(before, &after, &mut events);
    diff_holds(before, &after, now, &mut events);
    for (id, window) in &mut after.windows {
        if before.refreshed_at.is_none() && !before.windows.contains_key(id) {
            // The first reading of an account is not a change, so it crosses no threshold.
            window.last_threshold_bp = highest_threshold(window.used_bp, thresholds);
            continue;
        }
        diff_window(id, before.windows.get(id), window, now, thresholds, &mut events);
    }
    let has_refreshed = after.refreshed_at > before.refreshed_at;
    // A window that the provider no longer reports still resets. Its last reset is stored until then.
    let missing: Vec<_> = before.windows.iter().filter(|(id, _)| !after.windows.contains_key(*id)).collect();
    for (id, missing) in missing {
        match missing.resets_at {
            Some(reset) if reset <= now => {
                events.push(JournalEvent::new(reset, EventKind::Reset { window: id.clone() }));
            }
            None if has_refreshed => {}
            // Without a newer response, the window still exists. Only its reading was dropped, because a wrong clock
            // dated it.
            _ => drop(after.windows.insert(id.clone(), missing.clone())),
        }
    }
    events.sort_by_key(|event| event.at);
    (events, after)
}

fn diff_calls(before: &Observation, after: &Observation, events: &mut Vec<JournalEvent>) {
    if let Some(refreshed_at) = after.refreshed_at.filter(|at| Some(*at) > before.refreshed_at) {
        events.push(JournalEvent::new(refreshed_at, EventKind::Refreshed));
    }
    let kind = |observation: &Observation| observation.failure.as_ref().map(|failure| failure.kind);
    // A success in between ends a series of failures.
    let recovered =
        before.failure.as_ref().is_some_and(|failure| after.refreshed_at.is_some_and(|at| at > failure.at));
    if let Some(failure) = &after.failure
        && (recovered || kind(before) != kind(after))
        && before.failure.as_ref().is_none_or(|old| old.at < failure.at)
    {
        events.push(JournalEvent::new(failure.at, EventKind::Failing { reason: failure.kind }));
    }
}

fn diff_holds(before: &Observation, after: &Observation, now: Timestamp, events: &mut Vec<JournalEvent>) {
    let same = match (&before.hold, &after.hold) {
        // A hold that ends no later than the reported one continues it, regardless of its reason. No hold has ended or
        // begun.
        (Some(old), Some(new)) => {
            let has_refreshed = after.refreshed_at > Some(old.since);
            old.since == new.since || (new.until <= old.until && !has_refreshed)
        }
        _ => false,
    };
    if let Some(old) = &before.hold
        && !same
    {
        // It ended on time, or earlier because of a successful call or because another hold replaced it.
        let replaced = after.hold.as_ref().map(|hold| hold.since);
        let refreshed = after.refreshed_at.filter(|at| *at > old.since);
        let early = replaced.or(refreshed).unwrap_or(now);
        // A hold that another hold extends has not ended.
        if replaced.is_none_or(|since| since >= old.until) {
            events.push(JournalEvent::new(early.min(old.until), EventKind::HoldEnded));
        }
    }
    if let Some(new) = &after.hold
        && !same
    {
        let kind = match new.reason {
            HoldReason::RateLimited => EventKind::Throttled { until: new.until },
            reason => EventKind::Held { until: new.until, reason },
        };
        events.push(JournalEvent::new(new.since, kind));
    }
}

fn diff_window(
    id: &str,
    before: Option<&ObservedWindow>,
    window: &mut ObservedWindow,
    now: Timestamp,
    thresholds: &[u32],
    events: &mut Vec<JournalEvent>,
) {
    let mut crossed_before = before.map_or(0, |before| before.last_threshold_bp);
    window.last_reset = before.and_then(|before| before.last_reset);
    if let Some(reset) = rolled_over(before, window, now) {
        events.push(JournalEvent::new(reset, EventKind::Reset { window: id.to_owned() }));
        window.last_reset = Some(reset);
        crossed_before = 0;
    } else if let Some(before) = before {
        window.lowered_at = before.lowered_at;
        if is_lowered(before, window) {
            if before.lowered_at.is_some_and(|at| between(at, window.at) < settling_time(window)) {
                // Two sources contradict each other. Until they agree, neither resets nor thresholds are events.
                window.lowered_at = Some(window.at);
                window.last_threshold_bp = crossed_before;
                return;
            }
            events.push(JournalEvent::new(window.at, EventKind::Reset { window: id.to_owned() }));
            window.lowered_at = Some(window.at);
            // Thresholds below the lowered use were crossed before.
            crossed_before = highest_threshold(window.used_bp, thresholds);
        }
    }
    let ends_reported_period =
        |reset| window.last_reset.is_some_and(|reported| is_same_reset(window, reported, reset));
    if window.resets_at.is_some_and(|reset| reset <= now || ends_reported_period(reset)) {
        // The reset is already an event, and the reading belongs to the previous period.
        window.resets_at = None;
        window.last_threshold_bp = 0;
        return;
    }
    let crossed = |threshold_bp, direction| {
        let used_bp = window.used_bp;
        let kind = EventKind::Threshold { window: id.to_owned(), threshold_bp, used_bp, direction };
        JournalEvent::new(window.at, kind)
    };
    let up =
        thresholds.iter().filter(|threshold| **threshold > crossed_before && **threshold <= window.used_bp);
    events.extend(up.map(|threshold| crossed(*threshold, Direction::Up)));
    let fell_below = |threshold: u32| window.used_bp.saturating_add(HYSTERESIS_BP) <= threshold;
    let down = thresholds.iter().filter(|threshold| **threshold <= crossed_before && fell_below(**threshold));
    events.extend(down.map(|threshold| crossed(*threshold, Direction::Down)));
    let still_crossed = thresholds
        .iter()
        .filter(|threshold| **threshold <= crossed_before && !fell_below(**threshold))
        .max()
        .copied();
    window.last_threshold_bp = highest_threshold(window.used_bp, thresholds).max(still_crossed.unwrap_or(0));
}

/// When the window reset since the last observation; `None` if it has not.
fn rolled_over(before: Option<&ObservedWindow>, after: &ObservedWindow, now: Timestamp) -> Option<Timestamp> {
    let expected = before?.resets_at?;
    let is_same = |reset| is_same_reset(after, expected, reset);
    let moved_on = after.resets_at.is_some_and(|reset| reset > expected && !is_same(reset));
    // The provider postponed the reset by a few seconds, and it is still in the future.
    let is_postponed = after.resets_at.is_some_and(|reset| reset > now && is_same(reset));
    // A reading after the reset belongs to the next period, regardless of the reset that it reports.
    let passed = expected <= now && !is_postponed;
    (passed || moved_on).then(|| expected.min(if moved_on && !passed { after.at } else { expected }))
}

/// Whether the provider lowered the usage within the period, for example because it granted all accounts a reset.
fn is_lowered(before: &ObservedWindow, after: &ObservedWindow) -> bool {
    let is_same_period = match (before.resets_at, after.resets_at) {
        (Some(one), Some(other)) => is_same_reset(after, one, other),
        // A window without a reset may slide. Its threshold events report the decline.
        _ => false,
    };
    is_same_period && after.at > before.at && after.used_bp.saturating_add(HYSTERESIS_BP) < before.used_bp
}

/// For this long after a decrease, another decrease in the same period is not an event.
fn settling_time(window: &ObservedWindow) -> Duration {
    const MIN_SETTLING_TIME: Duration = Duration::from_secs(30 * 60);
    window.length().map_or(MIN_SETTLING_TIME, |length| (length / 10).max(MIN_SETTLING_TIME))
}

/// Whether two resets of a window end the same period.
fn is_same_reset(window: &ObservedWindow, one: Timestamp, other: Timestamp) -> bool {
    let tolerance = window.length().map_or(SAME_PERIOD, |length| SAME_PERIOD.min(length / 2));
    between(one, other).max(between(other, one)) <= tolerance
}

/// The time from `from` to `to`; zero if `to` is not after `from`.
fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// The highest threshold that the usage has reached.
fn highest_threshold(used_bp: u32, thresholds: &[u32]) -> u32 {
    thresholds.iter().copied().filter(|threshold| *threshold <= used_bp).max().unwrap_or(0)
}

#[cfg(test)]
mod tests;
