//! Checks whether an external value is plausible for the source that reports it. Implausible values are dropped where
//! readings enter a snapshot, and never corrected.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use super::bounds::{WindowLength, is_too_far};
use super::{Percent, Source, UsageReport, WindowId, WindowReading};
use crate::time;

/// Providers reset windows late, so a reported reset may be this long in the past.
const RESET_LAG: Duration = Duration::from_secs(3600);

/// A value that was dropped because it is implausible.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejected {
    /// The window of the value.
    pub window: WindowId,
    /// Whether the whole reading was dropped. Otherwise only its reset was.
    pub whole: bool,
    /// Why the value is implausible.
    pub reason: &'static str,
}

impl Rejected {
    /// The dropped field: the window's name, or that of its reset.
    #[must_use]
    pub fn field(&self) -> String {
        if self.whole { self.window.to_string() } else { format!("{}.resets_at", self.window) }
    }
}

/// Displays the dropped field and the reason.
impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field(), self.reason)
    }
}

/// Converts a used share in percent that `source` reports. Returns `None` if it is implausible.
///
/// Polls and headers may report −100 to 1,000, and negative values count as 0. Other sources may report 0 to 1,000.
///
/// ```
/// use quota_core::Percent;
/// use quota_core::model::{Source, plausible_percent};
///
/// assert_eq!(plausible_percent(-0.1, Source::Poll), Some(Percent::ZERO));
/// assert_eq!(plausible_percent(-0.1, Source::Statusline), None);
/// assert_eq!(plausible_percent(1_782_907_200.0, Source::Statusline), None);
/// ```
#[must_use]
pub fn plausible_percent(percent: f64, source: Source) -> Option<Percent> {
    Percent::from_percent(percent).filter(|_| source.is_provider() || percent >= 0.0)
}

/// Returns a reset that a provider reported at `read_at` for a window of this length, if it is plausible.
///
/// A reset may exceed the window's length by two minutes. Without a length it may be 400 days in the future. A reset in the
/// last hour is returned unchanged.
///
/// ```
/// use std::time::Duration;
/// use jiff::Timestamp;
/// use quota_core::model::plausible_reset;
///
/// let now: Timestamp = "2026-01-01T12:00:00Z".parse()?;
/// let in_four_hours = "2026-01-01T16:00:00Z".parse()?;
/// let five_hours = Some(Duration::from_secs(5 * 3600));
///
/// assert_eq!(plausible_reset(in_four_hours, five_hours, now), Some(in_four_hours));
/// assert_eq!(plausible_reset("2026-01-01T18:00:00Z".parse()?, five_hours, now), None);
/// # Ok::<(), jiff::Error>(())
/// ```
#[must_use]
pub fn plausible_reset(
    resets_at: Timestamp,
    length: Option<Duration>,
    read_at: Timestamp,
) -> Option<Timestamp> {
    check_reset(resets_at, length, read_at, Some(RESET_LAG)).is_ok().then_some(resets_at)
}

/// Checks that a reset is neither too far in the future nor longer ago than `lag`. The error is the reason.
fn check_reset(
    resets_at: Timestamp,
    length: Option<Duration>,
    read_at: Timestamp,
    lag: Option<Duration>,
) -> Result<(), &'static str> {
    if is_too_far(resets_at, length.and_then(WindowLength::new), read_at) {
        Err("its reset is further in the future than the window is long")
    } else if lag.is_some_and(|lag| time::saturating_add(resets_at, lag) < read_at) {
        Err("its reset is too long ago")
    } else {
        Ok(())
    }
}

/// When a report was read.
#[derive(Clone, Copy)]
enum ReadAt {
    At(Timestamp),
    /// The time is unknown, but before this one.
    Before(Timestamp),
}

/// Checks one reading, and returns the value to drop.
pub(crate) fn check_reading(reading: &WindowReading, read_at: Timestamp, source: Source) -> Option<Rejected> {
    check_reading_at(reading, ReadAt::At(read_at), source)
}

fn check_reading_at(reading: &WindowReading, read_at: ReadAt, source: Source) -> Option<Rejected> {
    let resets_at = reading.resets_at?;
    let (read_at, lag) = match read_at {
        ReadAt::At(read_at) if !source.is_provider() && resets_at <= read_at => {
            let reason = "its reset is in the past, so its use belongs to an earlier period";
            return Some(Rejected { window: reading.id.clone(), whole: true, reason });
        }
        ReadAt::At(read_at) => (read_at, Some(RESET_LAG)),
        ReadAt::Before(read_at) => (read_at, None),
    };
    let reason = check_reset(resets_at, reading.length, read_at, lag).err()?;
    Some(Rejected { window: reading.id.clone(), whole: !source.is_provider(), reason })
}

impl UsageReport {
    /// Removes the implausible values of a report that was read at `read_at`, and returns them.
    ///
    /// If a provider reports a reset further in the future than its window is long, only the reset is removed. For other
    /// sources the whole reading is removed. It is also removed if its reset is in the past, because its usage is then unknown.
    ///
    /// [`Snapshot::of`](crate::Snapshot::of) applies the same rules without returning the removed values.
    ///
    /// ```
    /// use std::time::Duration;
    /// use jiff::Timestamp;
    /// use quota_core::{Percent, UsageReport, WindowId, WindowReading};
    ///
    /// let now: Timestamp = "2026-01-01T12:00:00Z".parse()?;
    /// let five_hours = WindowReading::new(WindowId::five_hour(), Percent::FULL)
    ///     .length(Duration::from_secs(5 * 3600))
    ///     .resets_at("2026-01-01T03:00:00Z".parse::<Timestamp>()?);
    /// let mut usage = UsageReport::from_statusline([five_hours], now);
    ///
    /// let rejected = usage.reject_implausible(now);
    ///
    /// assert!(usage.windows.is_empty());
    /// assert_eq!(rejected[0].window, WindowId::five_hour());
    /// # Ok::<(), jiff::Error>(())
    /// ```
    pub fn reject_implausible(&mut self, read_at: Timestamp) -> Vec<Rejected> {
        self.reject(ReadAt::At(read_at))
    }

    /// The values that [`reject_implausible`](Self::reject_implausible) would remove from the windows.
    pub(crate) fn implausible(&self, read_at: Timestamp) -> Vec<Rejected> {
        self.windows.iter().filter_map(|reading| check_reading(reading, read_at, self.source)).collect()
    }

    /// Applies these rules to a saved response, which was read at an unknown time before `now`. Its resets may be long past.
    pub fn reject_implausible_saved(&mut self, now: Timestamp) -> Vec<Rejected> {
        self.reject(ReadAt::Before(now))
    }

    fn reject(&mut self, read_at: ReadAt) -> Vec<Rejected> {
        let source = self.source;
        let (at, lag) = match read_at {
            ReadAt::At(at) => (at, Some(RESET_LAG)),
            ReadAt::Before(at) => (at, None),
        };
        let mut dropped = Vec::new();
        for status in &mut self.window_statuses {
            let window = self.windows.iter().find(|reading| reading.id == status.window);
            let length = window.and_then(|reading| reading.length);
            let Some(reset) = status.resets_at else { continue };
            let Err(reason) = check_reset(reset, length, at, lag) else { continue };
            status.resets_at = None;
            if window.is_none() {
                dropped.push(Rejected { window: status.window.clone(), whole: false, reason });
            }
        }
        self.windows.retain_mut(|reading| {
            let Some(rejected) = check_reading_at(reading, read_at, source) else { return true };
            let is_kept = !rejected.whole;
            reading.resets_at = None;
            dropped.push(rejected);
            is_kept
        });
        let whole = dropped.iter().filter(|rejected| rejected.whole);
        self.coverage.except_also(whole.map(|rejected| &rejected.window));
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Coverage, LimitStatus, WindowStatus};

    const FIVE_HOURS: Duration = Duration::from_secs(5 * 3600);

    /// A time `second` seconds after a fixed start in 2027.
    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn five_hour(resets_at: Timestamp) -> WindowReading {
        WindowReading::new(WindowId::five_hour(), Percent::FULL).length(FIVE_HOURS).resets_at(resets_at)
    }

    fn monthly(resets_at: Timestamp) -> WindowReading {
        WindowReading::new(WindowId::monthly(), Percent::FULL).resets_at(resets_at)
    }

    /// The reset of a reading from this source that was read at `at(0)`; `None` if the reading was dropped.
    fn left(source: Source, reading: WindowReading) -> Option<Option<Timestamp>> {
        let mut usage = UsageReport::polled([reading]);
        usage.source = source;
        let rejected = usage.reject_implausible(at(0));
        let left = usage.windows.first().map(|reading| reading.resets_at);
        assert_eq!(rejected.is_empty(), matches!(left, Some(Some(_))), "every dropped value is returned");
        left
    }

    #[test]
    fn a_reset_up_to_two_minutes_beyond_the_length_is_accepted() {
        let last = at(5 * 3600 + 120);

        for source in [Source::Poll, Source::Headers, Source::Local, Source::Statusline] {
            assert_eq!(left(source, five_hour(last)), Some(Some(last)), "{source:?}");
        }
    }

    #[test]
    fn a_provider_reset_too_far_ahead_is_dropped_alone() {
        for source in [Source::Poll, Source::Headers] {
            assert_eq!(left(source, five_hour(at(5 * 3600 + 121))), Some(None), "{source:?}");
        }
    }

    #[test]
    fn another_sources_reading_with_a_reset_too_far_ahead_is_dropped() {
        for source in [Source::Local, Source::Statusline, Source::Unknown] {
            assert_eq!(left(source, five_hour(at(5 * 3600 + 121))), None, "{source:?}");
        }
    }

    #[test]
    fn a_window_of_unknown_length_resets_within_400_days() {
        let day = 24 * 3600;

        assert_eq!(left(Source::Poll, monthly(at(400 * day))), Some(Some(at(400 * day))));
        assert_eq!(left(Source::Poll, monthly(at(400 * day + 1))), Some(None));
        assert_eq!(left(Source::Poll, monthly(Timestamp::MAX)), Some(None));
    }

    #[test]
    fn an_implausible_length_does_not_extend_the_reset_limit() {
        let too_long = monthly(at(401 * 24 * 3600)).length(Duration::MAX);

        assert_eq!(left(Source::Poll, too_long), Some(None));
    }

    #[test]
    fn a_provider_reset_that_has_just_passed_is_preserved() {
        assert_eq!(left(Source::Poll, five_hour(at(-60))), Some(Some(at(-60))));
        assert_eq!(left(Source::Headers, five_hour(at(-3601))), Some(None));
    }

    #[test]
    fn another_sources_reading_with_a_past_reset_is_dropped() {
        for source in [Source::Local, Source::Statusline] {
            assert_eq!(left(source, five_hour(at(0))), None, "{source:?}");
            assert_eq!(left(source, five_hour(at(-9 * 3600))), None, "{source:?}");
        }
    }

    #[test]
    fn a_saved_reset_may_be_long_past_but_not_too_far_ahead() {
        let mut usage = UsageReport::polled([five_hour(at(-90 * 24 * 3600)), monthly(at(401 * 24 * 3600))]);

        let rejected = usage.reject_implausible_saved(at(0));

        assert_eq!(rejected.iter().map(Rejected::field).collect::<Vec<_>>(), ["monthly.resets_at"]);
        assert_eq!(usage.windows[0].resets_at, Some(at(-90 * 24 * 3600)));
    }

    #[test]
    fn a_reading_without_a_reset_is_accepted() {
        let reading = WindowReading::new(WindowId::five_hour(), Percent::FULL);
        let mut usage = UsageReport::from_statusline([reading], at(0));

        assert!(usage.reject_implausible(at(0)).is_empty() && usage.windows.len() == 1);
    }

    #[test]
    fn a_complete_response_does_not_cover_a_dropped_reading() {
        let mut usage = UsageReport::polled([five_hour(at(-9 * 3600))]);
        usage.source = Source::Local;

        let _ = usage.reject_implausible(at(0));

        assert_eq!(usage.coverage, Coverage::complete_except([WindowId::five_hour()]));
    }

    #[test]
    fn a_window_status_survives_an_implausible_reset() {
        let status = WindowStatus::new(WindowId::five_hour(), LimitStatus::Rejected).resets_at(at(6 * 3600));
        let mut usage = UsageReport::from_headers([five_hour(at(60))]).window_statuses([status]);

        let _ = usage.reject_implausible(at(0));

        assert_eq!(
            (usage.window_statuses[0].status, usage.window_statuses[0].resets_at),
            (LimitStatus::Rejected, None)
        );
    }

    #[test]
    fn an_implausible_reset_of_a_status_without_a_reading_is_returned() {
        let status = WindowStatus::new(WindowId::monthly(), LimitStatus::Rejected).resets_at(Timestamp::MAX);
        let mut usage = UsageReport::from_headers([]).window_statuses([status]);

        let rejected = usage.reject_implausible(at(0));

        assert_eq!(rejected.iter().map(Rejected::field).collect::<Vec<_>>(), ["monthly.resets_at"]);
        assert_eq!(usage.window_statuses[0].resets_at, None);
    }

    #[test]
    fn the_bounds_of_a_percentage_depend_on_the_source() {
        let cases = [
            (-100.0, Some(0), None),
            (-100.1, None, None),
            (-0.1, Some(0), None),
            (0.0, Some(0), Some(0)),
            (1_000.0, Some(100_000), Some(100_000)),
            (1_000.1, None, None),
            (1_782_907_200.0, None, None),
            (f64::NAN, None, None),
        ];
        for (value, provider, elsewhere) in cases {
            let read = |source| plausible_percent(value, source).map(Percent::basis_points);
            assert_eq!((read(Source::Poll), read(Source::Headers)), (provider, provider), "{value}");
            assert_eq!((read(Source::Local), read(Source::Statusline)), (elsewhere, elsewhere), "{value}");
        }
    }
}
