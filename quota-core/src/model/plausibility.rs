//! Whether a value from outside is plausible, by the source that reports it.
//! An implausible value is dropped where readings enter a snapshot; nothing here corrects one.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use super::bounds::is_too_far;
use super::{Percent, Source, UsageReport, WindowId, WindowReading};
use crate::time;

/// Providers reset late: a reset that a provider reports may be this long ago.
const RESET_LAG: Duration = Duration::from_secs(3600);

/// A value that was left out because it cannot be true.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejected {
    /// The window that it was reported for.
    pub window: WindowId,
    /// Whether the whole reading was left out. Otherwise only its reset was.
    pub whole: bool,
    /// Why it cannot be true.
    pub reason: &'static str,
}

impl Rejected {
    /// What was left out: the window's name, or that of its reset.
    #[must_use]
    pub fn field(&self) -> String {
        if self.whole { self.window.to_string() } else { format!("{}.resets_at", self.window) }
    }
}

/// For people: what was left out, and why.
impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field(), self.reason)
    }
}

/// Reads a used share in percent, as `source` reports it; `None` if it cannot be true.
///
/// From a poll or headers that is −100 to 1,000, where below 0 reads as 0; from elsewhere it is 0 to 1,000.
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

/// Keeps a reset that a provider reported at `read_at` for a window of this length, if it can be true.
///
/// It is at most the window's length plus two minutes after `read_at`, or 400 days where the length is unknown. A reset that has
/// just passed stays as the provider sent it.
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
    judge_reset(resets_at, length, read_at, Some(RESET_LAG)).is_ok().then_some(resets_at)
}

/// Checks that a reset is neither too late nor, with `lag`, longer ago than that. The error is the reason.
fn judge_reset(
    resets_at: Timestamp,
    length: Option<Duration>,
    read_at: Timestamp,
    lag: Option<Duration>,
) -> Result<(), &'static str> {
    if is_too_far(resets_at, length, read_at) {
        Err("its reset is further ahead than the window is long")
    } else if lag.is_some_and(|lag| time::saturating_add(resets_at, lag) < read_at) {
        Err("its reset is long past")
    } else {
        Ok(())
    }
}

/// When something was read.
#[derive(Clone, Copy)]
enum ReadAt {
    At(Timestamp),
    /// Unknown, but before this.
    Before(Timestamp),
}

/// Judges one reading: what of it is left out.
pub(crate) fn judge(reading: &WindowReading, read_at: Timestamp, source: Source) -> Option<Rejected> {
    judge_at(reading, ReadAt::At(read_at), source)
}

fn judge_at(reading: &WindowReading, read_at: ReadAt, source: Source) -> Option<Rejected> {
    let resets_at = reading.resets_at?;
    let (read_at, lag) = match read_at {
        ReadAt::At(read_at) if !source.is_provider() && resets_at <= read_at => {
            let reason = "its reset is past, so its use is of an earlier period";
            return Some(Rejected { window: reading.id.clone(), whole: true, reason });
        }
        ReadAt::At(read_at) => (read_at, Some(RESET_LAG)),
        ReadAt::Before(read_at) => (read_at, None),
    };
    let reason = judge_reset(resets_at, reading.length, read_at, lag).err()?;
    Some(Rejected { window: reading.id.clone(), whole: !source.is_provider(), reason })
}

impl UsageReport {
    /// Removes implausible values of a report that was read at `read_at`, and lists them.
    ///
    /// A reset is implausible if it is later than the window's length allows. From a provider only the reset is removed, and the
    /// window stays. From other sources the whole reading is removed. So is one whose reset is past, because its use is unknown.
    ///
    /// [`Snapshot::of`](crate::Snapshot::of) does the same without a list, so nothing gets past it.
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

    /// What [`reject_implausible`](Self::reject_implausible) would remove from the windows.
    pub(crate) fn implausible(&self, read_at: Timestamp) -> Vec<Rejected> {
        self.windows.iter().filter_map(|reading| judge(reading, read_at, self.source)).collect()
    }

    /// The same for a saved response that was read at an unknown time before `now`, so its resets may be long past.
    pub fn reject_implausible_saved(&mut self, now: Timestamp) -> Vec<Rejected> {
        self.reject(ReadAt::Before(now))
    }

    fn reject(&mut self, read_at: ReadAt) -> Vec<Rejected> {
        let source = self.source;
        let (at, lag) = match read_at {
            ReadAt::At(at) => (at, Some(RESET_LAG)),
            ReadAt::Before(at) => (at, None),
        };
        let mut found = Vec::new();
        for verdict in &mut self.window_statuses {
            let of_window = self.windows.iter().find(|reading| reading.id == verdict.window);
            let length = of_window.and_then(|reading| reading.length);
            let Some(reset) = verdict.resets_at else { continue };
            let Err(reason) = judge_reset(reset, length, at, lag) else { continue };
            verdict.resets_at = None;
            if of_window.is_none() {
                found.push(Rejected { window: verdict.window.clone(), whole: false, reason });
            }
        }
        self.windows.retain_mut(|reading| {
            let Some(rejected) = judge_at(reading, read_at, source) else { return true };
            let is_kept = !rejected.whole;
            reading.resets_at = None;
            found.push(rejected);
            is_kept
        });
        let whole = found.iter().filter(|rejected| rejected.whole);
        self.coverage.except_also(whole.map(|rejected| &rejected.window));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Coverage, LimitStatus, WindowStatus};

    const FIVE_HOURS: Duration = Duration::from_secs(5 * 3600);

    /// That many seconds after a morning in 2027.
    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn five_hour(resets_at: Timestamp) -> WindowReading {
        WindowReading::new(WindowId::five_hour(), Percent::FULL).length(FIVE_HOURS).resets_at(resets_at)
    }

    fn monthly(resets_at: Timestamp) -> WindowReading {
        WindowReading::new(WindowId::monthly(), Percent::FULL).resets_at(resets_at)
    }

    /// What is left of a reading from this source, read at `at(0)`: nothing, or its reset.
    fn left(source: Source, reading: WindowReading) -> Option<Option<Timestamp>> {
        let mut usage = UsageReport::polled([reading]);
        usage.source = source;
        let rejected = usage.reject_implausible(at(0));
        let left = usage.windows.first().map(|reading| reading.resets_at);
        assert_eq!(rejected.is_empty(), matches!(left, Some(Some(_))), "what is left out is listed");
        left
    }

    #[test]
    fn a_reset_up_to_two_minutes_beyond_the_length_is_kept() {
        let last = at(5 * 3600 + 120);

        for source in [Source::Poll, Source::Headers, Source::Local, Source::Statusline] {
            assert_eq!(left(source, five_hour(last)), Some(Some(last)), "{source:?}");
        }
    }

    #[test]
    fn a_provider_window_keeps_its_use_without_a_reset_that_is_too_far() {
        for source in [Source::Poll, Source::Headers] {
            assert_eq!(left(source, five_hour(at(5 * 3600 + 121))), Some(None), "{source:?}");
        }
    }

    #[test]
    fn a_reading_from_elsewhere_goes_with_a_reset_that_is_too_far() {
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
    fn an_absurd_length_is_no_excuse_for_a_reset() {
        let endless = monthly(at(401 * 24 * 3600)).length(Duration::MAX);

        assert_eq!(left(Source::Poll, endless), Some(None));
    }

    #[test]
    fn a_reset_that_has_just_passed_counts_as_sent_by_a_provider() {
        assert_eq!(left(Source::Poll, five_hour(at(-60))), Some(Some(at(-60))));
        assert_eq!(left(Source::Headers, five_hour(at(-3601))), Some(None));
    }

    #[test]
    fn a_past_reset_from_elsewhere_takes_the_reading_with_it() {
        for source in [Source::Local, Source::Statusline] {
            assert_eq!(left(source, five_hour(at(0))), None, "{source:?}");
            assert_eq!(left(source, five_hour(at(-9 * 3600))), None, "{source:?}");
        }
    }

    #[test]
    fn the_reset_of_a_saved_answer_may_be_long_past_and_not_too_far_ahead() {
        let mut usage = UsageReport::polled([five_hour(at(-90 * 24 * 3600)), monthly(at(401 * 24 * 3600))]);

        let rejected = usage.reject_implausible_saved(at(0));

        assert_eq!(rejected.iter().map(Rejected::field).collect::<Vec<_>>(), ["monthly.resets_at"]);
        assert_eq!(usage.windows[0].resets_at, Some(at(-90 * 24 * 3600)));
    }

    #[test]
    fn a_reading_without_a_reset_is_kept() {
        let reading = WindowReading::new(WindowId::five_hour(), Percent::FULL);
        let mut usage = UsageReport::from_statusline([reading], at(0));

        assert!(usage.reject_implausible(at(0)).is_empty() && usage.windows.len() == 1);
    }

    #[test]
    fn a_complete_answer_does_not_cover_a_reading_that_was_left_out() {
        let mut usage = UsageReport::polled([five_hour(at(-9 * 3600))]);
        usage.source = Source::Local;

        let _ = usage.reject_implausible(at(0));

        assert_eq!(usage.coverage, Coverage::complete_except([WindowId::five_hour()]));
    }

    #[test]
    fn a_verdict_keeps_its_ruling_without_an_implausible_reset() {
        let verdict = WindowStatus::new(WindowId::five_hour(), LimitStatus::Rejected).resets_at(at(6 * 3600));
        let mut usage = UsageReport::from_headers([five_hour(at(60))]).window_statuses([verdict]);

        let _ = usage.reject_implausible(at(0));

        assert_eq!(
            (usage.window_statuses[0].status, usage.window_statuses[0].resets_at),
            (LimitStatus::Rejected, None)
        );
    }

    #[test]
    fn the_implausible_reset_of_a_verdict_alone_is_listed() {
        let verdict = WindowStatus::new(WindowId::monthly(), LimitStatus::Rejected).resets_at(Timestamp::MAX);
        let mut usage = UsageReport::from_headers([]).window_statuses([verdict]);

        let rejected = usage.reject_implausible(at(0));

        assert_eq!(rejected.iter().map(Rejected::field).collect::<Vec<_>>(), ["monthly.resets_at"]);
        assert_eq!(usage.window_statuses[0].resets_at, None);
    }

    #[test]
    fn a_percentage_has_bounds_that_depend_on_the_source() {
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
