//! Computes how fast a window is used, as a pure function: the trend of its recent samples, or otherwise the average
//! since the window started. The trend is the median of the slopes between all pairs of samples (Theil-Sen), which one
//! outlier does not change. With too few samples, the average follows from one reading and the elapsed time.

use std::time::Duration;

use jiff::Timestamp;

use crate::diff::HYSTERESIS_BP;
use crate::history::Sample;

/// The minimum number of samples. With fewer, a trend would be noise.
const MIN_SAMPLES: usize = 3;
/// The trend covers the last fifth of a window's length, within these bounds.
const MIN_TREND_WINDOW: Duration = Duration::from_secs(30 * 60);
const MAX_TREND_WINDOW: Duration = Duration::from_secs(24 * 3600);
/// Used if the window's length is unknown.
const DEFAULT_TREND_WINDOW: Duration = Duration::from_secs(3600);
/// The minimum elapsed share of a window for an average. Earlier, the rounding of the provider's percentages would dominate the
/// average.
const MIN_ELAPSED_SHARE: f64 = 0.05;
/// The minimum time for an average since the usage was lowered.
const MIN_SINCE_LOWERED: Duration = Duration::from_secs(15 * 60);
const ALL_BP: f64 = 10_000.0;

/// The pace of a window, from its samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// How fast the window is used; `None` if there is too little data for a trend or an average.
    pub rate: Option<Rate>,
    /// Whether the window reset after its last reading.
    pub is_rolled_over: bool,
    /// The number of samples for the trend.
    pub samples: usize,
    /// The time from the first to the last of these samples.
    pub covered: Duration,
    /// The time that the samples must cover for a trend.
    pub required: Duration,
}

/// How fast a window is used.
#[derive(Debug, Clone, PartialEq)]
pub struct Rate {
    /// How the rate was computed.
    pub basis: Basis,
    /// The rate in percent per hour. It is negative if the provider lowers the usage, as in a sliding window.
    pub percent_per_hour: f64,
    /// The projected usage at the reset, at least zero.
    pub at_reset_percent: Option<f64>,
    /// When the window runs out at this rate, if that is before its reset.
    pub exhausted_at: Option<Timestamp>,
}

/// How a rate was computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The trend of the recent samples.
    Trend,
    /// The average since the window started.
    Average,
    /// The average since the provider lowered the usage within the period.
    AverageSinceLowered,
}

/// The samples of the current period.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Period {
    /// The samples, oldest first.
    pub samples: Vec<Sample>,
    /// Whether the samples start within the period, at a usage that the provider lowered.
    pub is_lowered: bool,
}

impl Period {
    /// Selects the samples of the current period, for a window that resets at `resets_at`.
    #[must_use]
    pub fn current(samples: &[Sample], resets_at: Option<Timestamp>) -> Self {
        let Some(last) = samples.last() else { return Self::default() };
        let current = Sample { resets_s: resets_at.map(Timestamp::as_second), ..*last };
        let since =
            samples.iter().rposition(|sample| !sample.is_same_period(&current)).map_or(0, |index| index + 1);
        let samples = &samples[since..];
        // A window without a reset may slide, so a decline does not mean that the provider lowered the usage.
        let lowered = if resets_at.is_some() { since_lowered(samples) } else { 0 };
        Self { samples: samples[lowered..].to_vec(), is_lowered: lowered > 0 }
    }
}

/// The index of the first sample after the usage was last lowered within the period; 0 if it was not.
///
/// One sample above both of its neighbors does not count. Such a sample appears when a provider serves an old response.
fn since_lowered(samples: &[Sample]) -> usize {
    let is_above = |one: u32, other: u32| one > other.saturating_add(HYSTERESIS_BP);
    let Some(last) = samples.last() else { return 0 };
    let (mut highest_since, mut first) = (last.used_bp, samples.len() - 1);
    for (at, sample) in samples.iter().enumerate().rev() {
        if is_above(sample.used_bp, highest_since) {
            let is_outlier = at > 0 && !is_above(samples[at - 1].used_bp, highest_since);
            if !is_outlier {
                return first;
            }
        } else {
            (highest_since, first) = (highest_since.max(sample.used_bp), at);
        }
    }
    0
}

impl Estimate {
    /// The estimate for a window that has reset since its last reading: no rate.
    #[must_use]
    pub fn rolled_over() -> Self {
        let (samples, covered, required) = (0, Duration::ZERO, Duration::ZERO);
        Self { rate: None, is_rolled_over: true, samples, covered, required }
    }

    /// Computes the estimate at `now` from the samples of one period. `reading` is the last reading.
    #[must_use]
    pub fn new(
        period: &Period,
        reading: Sample,
        resets_at: Option<Timestamp>,
        length: Option<Duration>,
        now: Timestamp,
    ) -> Self {
        let trend_window = length
            .map_or(DEFAULT_TREND_WINDOW, |length| (length / 5).clamp(MIN_TREND_WINDOW, MAX_TREND_WINDOW));
        let trend_s = i64::try_from(trend_window.as_secs()).unwrap_or(i64::MAX);
        // Count back from now, not from the last sample, because old samples do not show the current rate.
        let since = now.as_second().saturating_sub(trend_s);
        let samples = &period.samples;
        let recent = &samples[samples.partition_point(|sample| sample.at_s < since)..];
        let (covered, required) = (covered_by(recent), trend_window / 2);
        let is_enough = recent.len() >= MIN_SAMPLES && covered >= required;
        let trend = recent.last().filter(|_| is_enough).and_then(|last| {
            let slope = median_slope(recent)?;
            Some(Rate::new(Basis::Trend, slope, last, resets_at))
        });
        let rate = trend.or_else(|| average(period, reading, resets_at, length));
        Self { rate, is_rolled_over: false, samples: recent.len(), covered, required }
    }
}

fn covered_by(samples: &[Sample]) -> Duration {
    let seconds = match samples {
        [first, .., last] => last.at_s - first.at_s,
        _ => 0,
    };
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// The average since the window started, or since its use was lowered; `None` if that was too recent.
fn average(
    period: &Period,
    reading: Sample,
    resets_at: Option<Timestamp>,
    length: Option<Duration>,
) -> Option<Rate> {
    let (basis, started_s, used_before) = if period.is_lowered {
        let first = period.samples.first()?;
        (Basis::AverageSinceLowered, first.at_s, f64::from(first.used_bp))
    } else {
        let started = resets_at?.checked_sub(length?).ok()?;
        (Basis::Average, started.as_second(), 0.0)
    };
    let elapsed = (reading.at_s - started_s) as f64;
    let min_elapsed = match basis {
        Basis::AverageSinceLowered => MIN_SINCE_LOWERED.as_secs_f64(),
        _ => length?.as_secs_f64() * MIN_ELAPSED_SHARE,
    };
    // `elapsed` is negative if the provider reports a wrong length.
    let slope = (f64::from(reading.used_bp) - used_before) / elapsed;
    (elapsed >= min_elapsed && elapsed > 0.0).then(|| Rate::new(basis, slope, &reading, resets_at))
}

impl Rate {
    /// `slope` is in hundredths of a percent per second.
    fn new(basis: Basis, slope: f64, last: &Sample, resets_at: Option<Timestamp>) -> Self {
        let used = f64::from(last.used_bp);
        let at_reset = resets_at.map(|reset| {
            let left = reset.as_second() - last.at_s;
            (used + slope * left as f64).max(0.0) / 100.0
        });
        let exhausted_at = (slope > 0.0 && used < ALL_BP).then(|| (ALL_BP - used) / slope).and_then(|left| {
            let at = Timestamp::from_second(last.at_s).ok()?;
            let left = Duration::try_from_secs_f64(left.round()).ok()?;
            let at = at.checked_add(left).ok()?;
            // Without a reset, no period ends before the window runs out.
            resets_at.is_none_or(|reset| at < reset).then_some(at)
        });
        Self { basis, percent_per_hour: slope * 36.0, at_reset_percent: at_reset, exhausted_at }
    }
}

/// The median of the slopes between all pairs, in hundredths of a percent per second.
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

    /// Samples with these uses, one every five minutes.
    fn samples(used: impl IntoIterator<Item = u32>) -> Vec<Sample> {
        let sample = |(at_s, used_bp)| Sample { at_s, used_bp, resets_s: Some(5 * HOUR) };
        (0..).step_by(300).zip(used).map(sample).collect()
    }

    fn period(samples: &[Sample]) -> Period {
        Period::current(samples, Some(at(5 * HOUR)))
    }

    /// The estimate at the time of the last sample.
    fn estimate(samples: &[Sample]) -> Estimate {
        let last = samples.last().copied().unwrap_or(Sample { at_s: 0, used_bp: 0, resets_s: None });
        Estimate::new(&period(samples), last, Some(at(5 * HOUR)), Some(FIVE_HOURS), at(last.at_s))
    }

    /// The estimate for a window without a length, so that there is no average.
    fn trend_of(samples: &[Sample]) -> Option<Rate> {
        let last = *samples.last().expect("there are samples");
        Estimate::new(&period(samples), last, Some(at(5 * HOUR)), None, at(last.at_s)).rate
    }

    #[test]
    fn a_steady_use_is_projected() {
        // One percent every five minutes.
        let rate = estimate(&samples((0..=12).map(|step| step * 100))).rate.unwrap();

        assert_eq!(rate.percent_per_hour.round(), 12.0);
        assert_eq!(rate.at_reset_percent.unwrap().round(), 60.0);
        assert_eq!(rate.exhausted_at, None);
    }

    #[test]
    fn a_window_that_runs_out_before_its_reset_has_a_time() {
        let rate = estimate(&samples((0..=12).map(|step| step * 500))).rate.unwrap();

        assert_eq!(rate.exhausted_at, Some(at(20 * 300)));
    }

    #[test]
    fn one_outlier_does_not_change_the_rate() {
        let mut outlier = samples((0..=12).map(|step| step * 100));
        outlier[6].used_bp = 9_000;

        let rate = estimate(&outlier).rate.unwrap();

        assert_eq!(rate.percent_per_hour.round(), 12.0);
    }

    #[test]
    fn a_constant_use_never_runs_out() {
        let rate = estimate(&samples([5_000; 13])).rate.unwrap();

        assert_eq!(
            (rate.percent_per_hour, rate.at_reset_percent, rate.exhausted_at),
            (0.0, Some(50.0), None)
        );
    }

    #[test]
    fn only_the_last_fifth_of_a_window_counts() {
        let fast_then_still = (0..12).map(|step| step * 500).chain([6_000; 13]);

        let estimate = estimate(&samples(fast_then_still));

        assert_eq!(estimate.rate.unwrap().percent_per_hour, 0.0);
        assert_eq!((estimate.samples, estimate.covered), (13, Duration::from_secs(3600)));
    }

    #[test]
    fn two_samples_give_no_trend() {
        let two = [samples([0])[0], Sample { at_s: HOUR, used_bp: 100, resets_s: Some(5 * HOUR) }];

        assert_eq!(trend_of(&two), None);
    }

    #[test]
    fn ten_minutes_give_no_trend() {
        assert_eq!(trend_of(&samples([0, 100, 200])), None);
    }

    #[test]
    fn old_samples_give_no_trend() {
        let old = samples((0..=12).map(|step| step * 100));
        let last = *old.last().unwrap();

        let estimate = Estimate::new(&period(&old), last, Some(at(5 * HOUR)), None, at(3 * HOUR));

        assert_eq!((estimate.rate, estimate.samples), (None, 0));
    }

    #[test]
    fn no_samples_give_no_rate() {
        assert_eq!(estimate(&[]).rate, None);
    }

    fn reading(at_s: i64, used_bp: u32) -> Sample {
        Sample { at_s, used_bp, resets_s: Some(5 * HOUR) }
    }

    #[test]
    fn one_reading_gives_the_average_since_the_start() {
        // 67 % of five hours have elapsed.
        let rate = estimate(&[reading(12_060, 8_000)]).rate.unwrap();

        assert_eq!(rate.basis, Basis::Average);
        assert_eq!(rate.at_reset_percent.unwrap().round(), 119.0);
        assert_eq!(rate.exhausted_at, Some(at(15_075)));
    }

    #[test]
    fn a_trend_is_preferred_to_the_average() {
        // No use in the first three hours, then 12 % per hour.
        let late: Vec<_> = samples((0..=12).map(|step| step * 100))
            .iter()
            .map(|s| reading(s.at_s + 3 * HOUR, s.used_bp))
            .collect();

        let rate = estimate(&late).rate.unwrap();

        assert_eq!((rate.basis, rate.percent_per_hour.round()), (Basis::Trend, 12.0));
    }

    #[test]
    fn a_window_that_just_started_has_no_average() {
        assert_eq!(estimate(&[reading(899, 100)]).rate, None);
        assert!(estimate(&[reading(900, 100)]).rate.is_some());
    }

    #[test]
    fn a_lowered_use_restarts_the_history() {
        let before = (0..=12).map(|step| 3_600 + step * 50);
        let after = (0..=12).map(|step| 300 + step * 50);

        let estimate = estimate(&samples(before.chain(after)));

        let rate = estimate.rate.unwrap();
        assert_eq!((rate.basis, rate.percent_per_hour.round()), (Basis::Trend, 6.0));
        assert_eq!(estimate.samples, 13);
    }

    #[test]
    fn the_average_starts_at_a_lowered_use() {
        let all = [reading(0, 4_200), reading(3_600, 4_200), reading(7_200, 300), reading(9_000, 400)];

        let rate = estimate(&all).rate.unwrap();

        assert_eq!((rate.basis, rate.percent_per_hour), (Basis::AverageSinceLowered, 2.0));
        assert_eq!(estimate(&all[..3]).rate, None, "too little time has elapsed since then");
    }

    #[test]
    fn an_old_response_in_between_does_not_restart_the_history() {
        let flapping = samples([4_000, 4_100, 4_200, 300, 4_200, 350, 400]);

        let found = period(&flapping);

        assert!(found.is_lowered);
        assert_eq!(found.samples, flapping[3..]);
        assert_eq!(period(&samples([100, 200, 9_000, 300, 400])).samples.len(), 5);
    }

    #[test]
    fn a_fluctuating_use_was_not_lowered() {
        assert!(!period(&samples([4_000, 4_200, 4_000, 4_100])).is_lowered);
    }

    #[test]
    fn a_window_without_a_reset_may_slide() {
        let falling: Vec<_> =
            samples([6_000, 3_000]).iter().map(|sample| Sample { resets_s: None, ..*sample }).collect();

        assert_eq!(Period::current(&falling, None), Period { samples: falling, is_lowered: false });
    }

    #[test]
    fn a_period_starts_after_the_last_reset() {
        let old = Sample { at_s: 0, used_bp: 9_000, resets_s: Some(HOUR) };
        let new = Sample { at_s: 2 * HOUR, used_bp: 10, resets_s: Some(6 * HOUR) };
        let later = Sample { at_s: 3 * HOUR, used_bp: 20, resets_s: Some(6 * HOUR + 2) };

        let found = Period::current(&[old, new, later], Some(at(6 * HOUR)));

        assert_eq!(found, Period { samples: vec![new, later], is_lowered: false });
        assert_eq!(Period::current(&[], None), Period::default());
    }
}
