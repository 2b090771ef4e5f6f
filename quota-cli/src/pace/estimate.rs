//! How fast a window is used, from its samples: the median of the slopes between all pairs (Theil and Sen).
//! A pure function; a single odd reading does not bend it, and where there is too little it says so.

use std::time::Duration;

use jiff::Timestamp;

use crate::journal::Sample;

/// A rate of less than so many samples would be drawn through chance.
const FEWEST_SAMPLES: usize = 3;
/// "Now" is the last fifth of a window, between these.
const SHORTEST_LOOK: Duration = Duration::from_secs(30 * 60);
const LONGEST_LOOK: Duration = Duration::from_secs(24 * 3600);
/// Where nothing is known of a window's length.
const USUAL_LOOK: Duration = Duration::from_secs(3600);
const ALL_BP: f64 = 10_000.0;

/// What follows from the samples of a window.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Estimate {
    /// `None` if there is not enough history.
    pub(super) rate: Option<Rate>,
    /// Whether the window began anew since it was read.
    pub(super) is_rolled_over: bool,
    /// How many samples were looked at, and how long a time they span.
    pub(super) samples: usize,
    pub(super) span: Duration,
}

/// How fast it goes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rate {
    /// Percent in an hour. Below zero where a provider takes use back, as with windows that slide.
    pub(super) percent_per_hour: f64,
    /// What it comes to at the reset, at this rate; not below zero.
    pub(super) at_reset_percent: Option<f64>,
    /// When all is used at this rate, if that is before the reset.
    pub(super) used_up_at: Option<Timestamp>,
}

/// The samples of the present period, oldest first.
pub(super) fn period(samples: &[Sample], resets_at: Option<Timestamp>) -> Vec<Sample> {
    let Some(last) = samples.last() else { return Vec::new() };
    let present = Sample { resets_s: resets_at.map(Timestamp::as_second), ..*last };
    let since =
        samples.iter().rposition(|sample| !sample.is_of_the_period_of(&present)).map_or(0, |at| at + 1);
    samples[since..].to_vec()
}

impl Estimate {
    pub(super) fn rolled_over() -> Self {
        Self { rate: None, is_rolled_over: true, samples: 0, span: Duration::ZERO }
    }

    /// What follows at `now` from the samples of one period.
    pub(super) fn of(
        samples: &[Sample],
        resets_at: Option<Timestamp>,
        length: Option<Duration>,
        now: Timestamp,
    ) -> Self {
        let look = length.map_or(USUAL_LOOK, |length| (length / 5).clamp(SHORTEST_LOOK, LONGEST_LOOK));
        let look_s = i64::try_from(look.as_secs()).unwrap_or(i64::MAX);
        // Of now, not of the last sample: what was read long ago says nothing of the rate now.
        let since = now.as_second().saturating_sub(look_s);
        let recent = &samples[samples.partition_point(|sample| sample.at_s < since)..];
        let span_s = match recent {
            [first, .., last] => last.at_s - first.at_s,
            _ => 0,
        };
        let span = Duration::from_secs(u64::try_from(span_s).unwrap_or(0));
        let is_enough = recent.len() >= FEWEST_SAMPLES && span >= look / 2;
        let rate = recent.last().filter(|_| is_enough).and_then(|last| {
            let slope = median_slope(recent)?;
            Some(Rate::of(slope, last, resets_at))
        });
        Self { rate, is_rolled_over: false, samples: recent.len(), span }
    }
}

impl Rate {
    /// `slope` is in hundredths of a percent for each second.
    fn of(slope: f64, last: &Sample, resets_at: Option<Timestamp>) -> Self {
        let used = f64::from(last.used_bp);
        let at_reset = resets_at.map(|reset| {
            let left = reset.as_second() - last.at_s;
            (used + slope * left as f64).max(0.0) / 100.0
        });
        let used_up_at = (slope > 0.0 && used < ALL_BP).then(|| (ALL_BP - used) / slope).and_then(|left| {
            let at = Timestamp::from_second(last.at_s).ok()?;
            let left = Duration::try_from_secs_f64(left.round()).ok()?;
            let at = at.checked_add(left).ok()?;
            // Without a reset there is no period in which it could not be used up.
            resets_at.is_none_or(|reset| at < reset).then_some(at)
        });
        Self { percent_per_hour: slope * 36.0, at_reset_percent: at_reset, used_up_at }
    }
}

/// The median of the slopes between all pairs, in hundredths of a percent for each second.
fn median_slope(samples: &[Sample]) -> Option<f64> {
    let pairs = samples
        .iter()
        .enumerate()
        .flat_map(|(at, one)| samples[at + 1..].iter().map(move |other| (one, other)));
    let mut slopes: Vec<_> = pairs
        .map(|(one, other)| {
            (f64::from(other.used_bp) - f64::from(one.used_bp)) / (other.at_s - one.at_s) as f64
        })
        .filter(|slope| slope.is_finite())
        .collect();
    slopes.sort_unstable_by(f64::total_cmp);
    let middle = slopes.len() / 2;
    let upper = *slopes.get(middle)?;
    if slopes.len() % 2 == 1 {
        return Some(upper);
    }
    Some(slopes.get(middle.checked_sub(1)?)?.midpoint(upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600;
    const FIVE_HOURS: Duration = Duration::from_secs(5 * 3600);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// So much used, one sample every five minutes.
    fn samples(used: impl IntoIterator<Item = u32>) -> Vec<Sample> {
        let sample = |(at_s, used_bp)| Sample { at_s, used_bp, resets_s: Some(5 * HOUR) };
        (0..).step_by(300).zip(used).map(sample).collect()
    }

    fn of(samples: &[Sample]) -> Estimate {
        let now = samples.last().map_or(0, |last| last.at_s);
        Estimate::of(samples, Some(at(5 * HOUR)), Some(FIVE_HOURS), at(now))
    }

    #[test]
    fn a_steady_use_goes_on() {
        // One percent every five minutes.
        let rate = of(&samples((0..=12).map(|step| step * 100))).rate.unwrap();

        assert_eq!(rate.percent_per_hour.round(), 12.0);
        assert_eq!(rate.at_reset_percent.unwrap().round(), 60.0);
        assert_eq!(rate.used_up_at, None);
    }

    #[test]
    fn what_is_used_up_before_the_reset_is_told_when() {
        let rate = of(&samples((0..=12).map(|step| step * 500))).rate.unwrap();

        assert_eq!(rate.used_up_at, Some(at(20 * 300)));
    }

    #[test]
    fn one_odd_reading_does_not_bend_the_rate() {
        let mut odd = samples((0..=12).map(|step| step * 100));
        odd[6].used_bp = 9_000;

        let rate = of(&odd).rate.unwrap();

        assert_eq!(rate.percent_per_hour.round(), 12.0);
    }

    #[test]
    fn a_use_that_stands_still_is_never_used_up() {
        let rate = of(&samples([5_000; 13])).rate.unwrap();

        assert_eq!((rate.percent_per_hour, rate.at_reset_percent, rate.used_up_at), (0.0, Some(50.0), None));
    }

    #[test]
    fn only_the_last_fifth_of_a_window_is_now() {
        let fast_then_still = (0..12).map(|step| step * 500).chain([6_000; 13]);

        let estimate = of(&samples(fast_then_still));

        assert_eq!(estimate.rate.unwrap().percent_per_hour, 0.0);
        assert_eq!((estimate.samples, estimate.span), (13, Duration::from_secs(3600)));
    }

    #[test]
    fn two_samples_are_not_enough() {
        let two = [samples([0])[0], Sample { at_s: HOUR, used_bp: 100, resets_s: Some(5 * HOUR) }];

        assert_eq!(of(&two).rate, None);
    }

    #[test]
    fn ten_minutes_are_not_enough() {
        assert_eq!(of(&samples([0, 100, 200])).rate, None);
    }

    #[test]
    fn what_was_read_long_ago_says_nothing_of_now() {
        let old = samples((0..=12).map(|step| step * 100));

        let estimate = Estimate::of(&old, Some(at(5 * HOUR)), Some(FIVE_HOURS), at(3 * HOUR));

        assert_eq!((estimate.rate, estimate.samples), (None, 0));
    }

    #[test]
    fn nothing_is_no_history() {
        assert_eq!(of(&[]).rate, None);
    }

    #[test]
    fn a_period_begins_after_the_last_reset() {
        let old = Sample { at_s: 0, used_bp: 9_000, resets_s: Some(HOUR) };
        let new = Sample { at_s: 2 * HOUR, used_bp: 10, resets_s: Some(6 * HOUR) };
        let later = Sample { at_s: 3 * HOUR, used_bp: 20, resets_s: Some(6 * HOUR + 2) };

        assert_eq!(period(&[old, new, later], Some(at(6 * HOUR))), [new, later]);
        assert_eq!(period(&[], None), []);
    }
}
