//! Which happenings lie between what was seen of an account and what is seen now.
//! A pure function: whoever sees the same change finds the same happenings, by the same names.

use std::time::Duration;

use jiff::Timestamp;
use quota_core::HoldReason;

use crate::happening::{Direction, Happening, What};
use crate::sight::{SeenWindow, Sight};

/// A use must fall this far before it counts as lower: providers round, and readings waver.
pub(crate) const WAVER_BP: u32 = 200;
/// Two resets that differ by less are of one period: providers tell them a few seconds apart.
const SAME_PERIOD: Duration = Duration::from_secs(300);

/// What has happened since `before`, oldest first, and what there is to remember of `after`.
///
/// What was never seen before tells nothing of how it came about: with no `before` nothing has happened.
pub(crate) fn derive(
    before: Option<&Sight>,
    mut after: Sight,
    now: Timestamp,
    thresholds: &[u32],
) -> (Vec<Happening>, Sight) {
    let mut happenings = Vec::new();
    let Some(before) = before else {
        for window in after.windows.values_mut() {
            window.level_bp = level(window.used_bp, thresholds);
            let reset = window.resets_at;
            window.resets_at = reset.filter(|reset| *reset > now);
        }
        return (happenings, after);
    };
    let nobody = Sight::default();
    let before = if after.is_of_another_login(before) {
        happenings.push(Happening::new(after.asked_at.unwrap_or(now), What::LoginChanged));
        &nobody
    } else {
        before
    };
    after.lineage = after.lineage.or_else(|| before.lineage.clone());
    after.asked_at = after.asked_at.max(before.asked_at);
    after.identity = after.identity.or_else(|| before.identity.clone());
    after.keep_unknown(before);

    calls(before, &after, &mut happenings);
    holds(before, &after, now, &mut happenings);
    for (id, window) in &mut after.windows {
        if before.asked_at.is_none() && !before.windows.contains_key(id) {
            // The first answer of all: nobody saw how it came about, so nothing was passed.
            window.level_bp = level(window.used_bp, thresholds);
            continue;
        }
        one_window(id, before.windows.get(id), window, now, thresholds, &mut happenings);
    }
    // A window that is not told any more rolls over all the same: its last reset is remembered until then.
    let gone: Vec<_> = before.windows.iter().filter(|(id, _)| !after.windows.contains_key(*id)).collect();
    for (id, gone) in gone {
        match gone.resets_at {
            Some(reset) if reset <= now => {
                happenings.push(Happening::new(reset, What::Reset { window: id.clone() }));
            }
            Some(_) => drop(after.windows.insert(id.clone(), gone.clone())),
            None => {}
        }
    }
    happenings.sort_by_key(|happening| happening.at);
    (happenings, after)
}

fn calls(before: &Sight, after: &Sight, happenings: &mut Vec<Happening>) {
    if let Some(asked_at) = after.asked_at.filter(|asked| Some(*asked) > before.asked_at) {
        happenings.push(Happening::new(asked_at, What::Refreshed));
    }
    let kind = |sight: &Sight| sight.trouble.as_ref().map(|trouble| trouble.kind);
    // A success in between ends a row of failures.
    let recovered =
        before.trouble.as_ref().is_some_and(|trouble| after.asked_at.is_some_and(|asked| asked > trouble.at));
    if let Some(trouble) = &after.trouble
        && (recovered || kind(before) != kind(after))
        && before.trouble.as_ref().is_none_or(|old| old.at < trouble.at)
    {
        happenings.push(Happening::new(trouble.at, What::Failing { why: trouble.kind }));
    }
}

fn holds(before: &Sight, after: &Sight, now: Timestamp, happenings: &mut Vec<Happening>) {
    let same = match (&before.hold, &after.hold) {
        // What ends no later than was reported already goes on, for whatever reason: nothing has ended, and nothing begun.
        (Some(old), Some(new)) => {
            let is_answered = after.asked_at > Some(old.since);
            old.since == new.since || (new.until <= old.until && !is_answered)
        }
        _ => false,
    };
    if let Some(old) = &before.hold
        && !same
    {
        // It ended in its time, or before it: by an answer, or by the hold that took its place.
        let replaced = after.hold.as_ref().map(|hold| hold.since);
        let answered = after.asked_at.filter(|asked| *asked > old.since);
        let early = replaced.or(answered).unwrap_or(now);
        // One hold that takes over from another ends nothing.
        if replaced.is_none_or(|since| since >= old.until) {
            happenings.push(Happening::new(early.min(old.until), What::HoldEnded));
        }
    }
    if let Some(new) = &after.hold
        && !same
    {
        let what = match new.why {
            HoldReason::RateLimited => What::Throttled { until: new.until },
            why => What::Held { until: new.until, why },
        };
        happenings.push(Happening::new(new.since, what));
    }
}

fn one_window(
    id: &str,
    before: Option<&SeenWindow>,
    window: &mut SeenWindow,
    now: Timestamp,
    thresholds: &[u32],
    happenings: &mut Vec<Happening>,
) {
    let mut old_level = before.map_or(0, |before| before.level_bp);
    window.last_reset = before.and_then(|before| before.last_reset);
    if let Some(reset) = rolled_over(before, window, now) {
        happenings.push(Happening::new(reset, What::Reset { window: id.to_owned() }));
        window.last_reset = Some(reset);
        old_level = 0;
    } else if let Some(before) = before {
        window.lowered_at = before.lowered_at;
        if is_lowered(before, window) {
            if before.lowered_at.is_some_and(|told| between(told, window.at) < settling(window)) {
                // Two sources contradict each other: as long as they do, neither a reset nor a threshold is news.
                window.lowered_at = Some(window.at);
                window.level_bp = old_level;
                return;
            }
            happenings.push(Happening::new(window.at, What::Reset { window: id.to_owned() }));
            window.lowered_at = Some(window.at);
            // What is still passed was passed before.
            old_level = level(window.used_bp, thresholds);
        }
    }
    let ends_a_told_period = |reset| window.last_reset.is_some_and(|told| is_same_reset(window, told, reset));
    if window.resets_at.is_some_and(|reset| reset <= now || ends_a_told_period(reset)) {
        // Its reset has been told, and what was read before says nothing of the new period.
        window.resets_at = None;
        window.level_bp = 0;
        return;
    }
    let passed = |threshold_bp, direction| {
        let used_bp = window.used_bp;
        Happening::new(window.at, What::Threshold { window: id.to_owned(), threshold_bp, used_bp, direction })
    };
    let up = thresholds.iter().filter(|threshold| **threshold > old_level && **threshold <= window.used_bp);
    happenings.extend(up.map(|threshold| passed(*threshold, Direction::Up)));
    let fallen_below = |threshold: u32| window.used_bp.saturating_add(WAVER_BP) <= threshold;
    let down = thresholds.iter().filter(|threshold| **threshold <= old_level && fallen_below(**threshold));
    happenings.extend(down.map(|threshold| passed(*threshold, Direction::Down)));
    let kept = thresholds
        .iter()
        .filter(|threshold| **threshold <= old_level && !fallen_below(**threshold))
        .max()
        .copied();
    window.level_bp = level(window.used_bp, thresholds).max(kept.unwrap_or(0));
}

/// When the window began anew since it was last seen, if it did.
fn rolled_over(before: Option<&SeenWindow>, after: &SeenWindow, now: Timestamp) -> Option<Timestamp> {
    let expected = before?.resets_at?;
    let is_same = |reset| is_same_reset(after, expected, reset);
    let moved_on = after.resets_at.is_some_and(|reset| reset > expected && !is_same(reset));
    // What is expected a few seconds later by now has not come yet.
    let is_put_off = after.resets_at.is_some_and(|reset| reset > now && is_same(reset));
    // A reading from after the reset is of the next period, whatever it says of its own.
    let passed = expected <= now && !is_put_off;
    (passed || moved_on).then(|| expected.min(if moved_on && !passed { after.at } else { expected }))
}

/// Whether the provider lowered the use within the period, as with a reset that it grants to all.
fn is_lowered(before: &SeenWindow, after: &SeenWindow) -> bool {
    let is_same_period = match (before.resets_at, after.resets_at) {
        (Some(one), Some(other)) => is_same_reset(after, one, other),
        // A window without a reset may slide, and then its thresholds report the decline.
        _ => false,
    };
    is_same_period && after.at > before.at && after.used_bp.saturating_add(WAVER_BP) < before.used_bp
}

/// How long after a use was lowered another fall in the same period is no news.
fn settling(window: &SeenWindow) -> Duration {
    const SHORTEST: Duration = Duration::from_secs(30 * 60);
    window.length.map_or(SHORTEST, |length| (length / 10).max(SHORTEST))
}

/// Whether two resets that were told of a window are of one period.
fn is_same_reset(window: &SeenWindow, one: Timestamp, other: Timestamp) -> bool {
    let waver = window.length.map_or(SAME_PERIOD, |length| SAME_PERIOD.min(length / 2));
    between(one, other).max(between(other, one)) <= waver
}

/// The time from `from` to `to`; zero if `to` is not after `from`.
fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// The highest threshold that a use has reached.
fn level(used_bp: u32, thresholds: &[u32]) -> u32 {
    thresholds.iter().copied().filter(|threshold| *threshold <= used_bp).max().unwrap_or(0)
}

#[cfg(test)]
mod tests;
