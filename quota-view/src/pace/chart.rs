//! A window's period as a chart: its readings, and the projection of its rate.
//! Both axes range from 0 to 1.

use std::time::Duration;

use jiff::Timestamp;

use super::WindowPace;

/// A point: elapsed time and usage, both from 0 to 1.
pub type Point = (f64, f64);

/// The chart of a period.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// The start of the time axis.
    pub from: Timestamp,
    /// The end of the time axis.
    pub to: Timestamp,
    /// The value of the upper edge: 100 %, or more if more is used.
    pub top_percent: f64,
    /// The readings, oldest first.
    pub points: Vec<Point>,
    /// From the last reading to the reset, or to the time when the window is exhausted.
    pub projection: Option<[Point; 2]>,
    /// The current time on the time axis.
    pub now: f64,
}

impl Chart {
    /// Builds the chart; `None` if there is nothing to draw, for example without readings in the period.
    #[must_use]
    pub fn of(window: &WindowPace, now: Timestamp) -> Option<Self> {
        if window.estimate.is_rolled_over {
            return None;
        }
        let (first, last) = (window.samples.first()?, window.samples.last()?);
        let second = |at| Timestamp::from_second(at).ok();
        let start =
            window.resets_at.zip(window.length).and_then(|(reset, length)| reset.checked_sub(length).ok());
        // If the provider reports a wrong length, a reading may be older than its period. The chart still shows it.
        let from =
            start.map_or(second(first.at_s), |start| second(first.at_s).map(|first| first.min(start)))?;
        let to = window.resets_at.unwrap_or(now).max(second(last.at_s)?).max(now);
        let period = Duration::try_from(to.duration_since(from)).ok().filter(|period| !period.is_zero())?;
        let most = window.samples.iter().map(|sample| sample.used_bp).max()?;
        let top_percent = (f64::from(most) / 100.0).max(100.0);
        let along =
            |at: Timestamp| (at.duration_since(from).as_secs_f64() / period.as_secs_f64()).clamp(0.0, 1.0);
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
