//! A window's period as a picture: where its samples lie, and where its rate leads to.
//! From 0 to 1 in both directions, upwards and onwards; `plot` and `svg` draw it.

use std::time::Duration;

use jiff::Timestamp;

use super::WindowPace;

/// A point: how far in time, how much used.
pub(super) type Point = (f64, f64);

/// The picture of a period.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chart {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    /// What the upper edge means. All, or more if more is used.
    pub(super) top_percent: f64,
    pub(super) points: Vec<Point>,
    /// From the last sample to the reset, or to where all is used.
    pub(super) ahead: Option<[Point; 2]>,
    /// Where now is.
    pub(super) now: f64,
}

impl Chart {
    /// The picture; `None` if there is nothing to draw, as of a period that nothing is known of yet.
    pub(super) fn of(window: &WindowPace, now: Timestamp) -> Option<Self> {
        if window.estimate.is_rolled_over {
            return None;
        }
        let (first, last) = (window.samples.first()?, window.samples.last()?);
        let second = |at| Timestamp::from_second(at).ok();
        let begun =
            window.resets_at.zip(window.length).and_then(|(reset, length)| reset.checked_sub(length).ok());
        // A sample from before a period's beginning is of a provider that tells its length wrong: it is shown all the same.
        let from =
            begun.map_or(second(first.at_s), |begun| second(first.at_s).map(|first| first.min(begun)))?;
        let to = window.resets_at.unwrap_or(now).max(second(last.at_s)?).max(now);
        let span = Duration::try_from(to.duration_since(from)).ok().filter(|span| !span.is_zero())?;
        let most = window.samples.iter().map(|sample| sample.used_bp).max()?;
        let top_percent = (f64::from(most) / 100.0).max(100.0);
        let along =
            |at: Timestamp| (at.duration_since(from).as_secs_f64() / span.as_secs_f64()).clamp(0.0, 1.0);
        let point = |sample: &quota_journal::Sample| {
            Some((along(second(sample.at_s)?), f64::from(sample.used_bp) / 100.0 / top_percent))
        };
        let ahead = window.rate().zip(point(last)).and_then(|(rate, last)| {
            let end = match (rate.exhausted_at, window.resets_at, rate.at_reset_percent) {
                (Some(at), ..) if at <= to => (along(at), 100.0 / top_percent),
                (_, Some(reset), Some(percent)) => (along(reset), (percent / top_percent).min(1.0)),
                _ => return None,
            };
            Some([last, end])
        });
        let points = window.samples.iter().filter_map(point).collect();
        Some(Self { from, to, top_percent, points, ahead, now: along(now) })
    }
}
