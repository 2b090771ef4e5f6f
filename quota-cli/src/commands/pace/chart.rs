//! A window's period as a chart: its readings, and the projection of its rate.
//! Both axes go from 0 to 1; `plot` and `svg` draw it.

use std::time::Duration;

use jiff::Timestamp;

use super::WindowPace;

/// A point: the share of the time, and the share of the use.
pub(super) type Point = (f64, f64);

/// The chart of a period.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chart {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    /// The value of the upper edge: 100 %, or more if more is used.
    pub(super) top_percent: f64,
    pub(super) points: Vec<Point>,
    /// From the last reading to the reset, or to the time when all is used.
    pub(super) projection: Option<[Point; 2]>,
    /// The present on the time axis.
    pub(super) now: f64,
}

impl Chart {
    /// The chart; `None` if there is nothing to draw, as for a period without a reading.
    pub(super) fn of(window: &WindowPace, now: Timestamp) -> Option<Self> {
        if window.estimate.is_rolled_over {
            return None;
        }
        let (first, last) = (window.samples.first()?, window.samples.last()?);
        let second = |at| Timestamp::from_second(at).ok();
        let begin =
            window.resets_at.zip(window.length).and_then(|(reset, length)| reset.checked_sub(length).ok());
        // A provider that reports a wrong length makes a reading seem older than its period; it is shown nevertheless.
        let from =
            begin.map_or(second(first.at_s), |begin| second(first.at_s).map(|first| first.min(begin)))?;
        let to = window.resets_at.unwrap_or(now).max(second(last.at_s)?).max(now);
        let span = Duration::try_from(to.duration_since(from)).ok().filter(|span| !span.is_zero())?;
        let most = window.samples.iter().map(|sample| sample.used_bp).max()?;
        let top_percent = (f64::from(most) / 100.0).max(100.0);
        let along =
            |at: Timestamp| (at.duration_since(from).as_secs_f64() / span.as_secs_f64()).clamp(0.0, 1.0);
        let point = |sample: &quota_journal::Sample| {
            Some((along(second(sample.at_s)?), f64::from(sample.used_bp) / 100.0 / top_percent))
        };
        let projection = window.rate().zip(point(last)).and_then(|(rate, last)| {
            let end = match (rate.exhausted_at, window.resets_at, rate.at_reset_percent) {
                (Some(at), ..) if at <= to => (along(at), 100.0 / top_percent),
                (_, Some(reset), Some(percent)) => (along(reset), (percent / top_percent).min(1.0)),
                _ => return None,
            };
            Some([last, end])
        });
        let points = window.samples.iter().filter_map(point).collect();
        Some(Self { from, to, top_percent, points, projection, now: along(now) })
    }
}
