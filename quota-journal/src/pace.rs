//! How fast a window is used: the trend of its last samples, or else the average since it began.
//! A pure function. The trend is the median of the slopes between all pairs (Theil and Sen), which a single odd reading does not
//! bend; where there is too little for it, one reading and the time that has passed give the average.

use std::time::Duration;

use jiff::Timestamp;

use crate::derive::WAVER_BP;
use crate::history::Sample;

/// A trend of less than so many samples would be drawn through chance.
const FEWEST_SAMPLES: usize = 3;
/// "Now" is the last fifth of a window, between these.
const SHORTEST_LOOK: Duration = Duration::from_secs(30 * 60);
const LONGEST_LOOK: Duration = Duration::from_secs(24 * 3600);
/// Where nothing is known of a window's length.
const USUAL_LOOK: Duration = Duration::from_secs(3600);
/// An average of less than this share of a window is mostly rounding.
const LEAST_ELAPSED: f64 = 0.05;
/// The same since the use was lowered.
const LEAST_SINCE_LOWERED: Duration = Duration::from_secs(15 * 60);
const ALL_BP: f64 = 10_000.0;

/// What follows from the samples of a window.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// How fast the window is used; `None` if there is not enough for a trend or an average.
    pub rate: Option<Rate>,
    /// Whether the window began anew since it was read.
    pub is_rolled_over: bool,
    /// How many samples the trend has.
    pub samples: usize,
    /// How long a time they span.
    pub span: Duration,
    /// How long a time a trend needs.
    pub needs: Duration,
}

/// How fast it goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Rate {
    /// What it rests on.
    pub basis: Basis,
    /// Percent in an hour. Below zero where a provider takes use back, as with windows that slide.
    pub percent_per_hour: f64,
    /// What it comes to at the reset, at this rate; not below zero.
    pub at_reset_percent: Option<f64>,
    /// When all is used at this rate, if that is before the reset.
    pub used_up_at: Option<Timestamp>,
}

/// What a rate is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// How fast it is used now.
    Trend,
    /// How fast it was used since the window began.
    Average,
    /// How fast it was used since the provider lowered its use within the period.
    AverageSinceLowered,
}

/// The samples of the present period.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Period {
    /// Oldest first.
    pub samples: Vec<Sample>,
    /// Whether they begin in mid period, where the provider lowered the use.
    pub is_lowered: bool,
}

impl Period {
    /// The samples, oldest first, that belong to the period of a window that resets at `resets_at`.
    #[must_use]
    pub fn of(samples: &[Sample], resets_at: Option<Timestamp>) -> Self {
        let Some(last) = samples.last() else { return Self::default() };
        let present = Sample { resets_s: resets_at.map(Timestamp::as_second), ..*last };
        let since =
            samples.iter().rposition(|sample| !sample.is_of_the_period_of(&present)).map_or(0, |at| at + 1);
        let samples = &samples[since..];
        // A window without a reset may slide, and then every decline is its own.
        let lowered = if resets_at.is_some() { since_lowered(samples) } else { 0 };
        Self { samples: samples[lowered..].to_vec(), is_lowered: lowered > 0 }
    }
}

/// The first sample since the use was last lowered within the period; 0 if it was not.
///
/// A single reading above its neighbours, as when a provider serves an old answer, is no end of anything.
fn since_lowered(samples: &[Sample]) -> usize {
    let is_above = |one: u32, other: u32| one > other.saturating_add(WAVER_BP);
    let Some(last) = samples.last() else { return 0 };
    let (mut highest_since, mut first) = (last.used_bp, samples.len() - 1);
    for (at, sample) in samples.iter().enumerate().rev() {
        if is_above(sample.used_bp, highest_since) {
            let is_odd = at > 0 && !is_above(samples[at - 1].used_bp, highest_since);
            if !is_odd {
                return first;
            }
        } else {
            (highest_since, first) = (highest_since.max(sample.used_bp), at);
        }
    }
    0
}

impl Estimate {
    /// What is known of a window that began anew since it was read: nothing.
    #[must_use]
    pub fn rolled_over() -> Self {
        let (samples, span, needs) = (0, Duration::ZERO, Duration::ZERO);
        Self { rate: None, is_rolled_over: true, samples, span, needs }
    }

    /// What follows at `now` from the samples of one period, of which `reading` is the last.
    #[must_use]
    pub fn of(
        period: &Period,
        reading: Sample,
        resets_at: Option<Timestamp>,
        length: Option<Duration>,
        now: Timestamp,
    ) -> Self {
        let look = length.map_or(USUAL_LOOK, |length| (length / 5).clamp(SHORTEST_LOOK, LONGEST_LOOK));
        let look_s = i64::try_from(look.as_secs()).unwrap_or(i64::MAX);
        // Of now, not of the last sample: what was read long ago says nothing of the rate now.
        let since = now.as_second().saturating_sub(look_s);
        let samples = &period.samples;
        let recent = &samples[samples.partition_point(|sample| sample.at_s < since)..];
        let (span, needs) = (span_of(recent), look / 2);
        let is_enough = recent.len() >= FEWEST_SAMPLES && span >= needs;
        let trend = recent.last().filter(|_| is_enough).and_then(|last| {
            let slope = median_slope(recent)?;
            Some(Rate::of(Basis::Trend, slope, last, resets_at))
        });
        let rate = trend.or_else(|| average(period, reading, resets_at, length));
        Self { rate, is_rolled_over: false, samples: recent.len(), span, needs }
    }
}

fn span_of(samples: &[Sample]) -> Duration {
    let span_s = match samples {
        [first, .., last] => last.at_s - first.at_s,
        _ => 0,
    };
    Duration::from_secs(u64::try_from(span_s).unwrap_or(0))
}

/// The average since the window began, or since its use was lowered; `None` if that is too short a time ago.
fn average(
    period: &Period,
    reading: Sample,
    resets_at: Option<Timestamp>,
    length: Option<Duration>,
) -> Option<Rate> {
    let (basis, begun_s, used_before) = if period.is_lowered {
        let first = period.samples.first()?;
        (Basis::AverageSinceLowered, first.at_s, f64::from(first.used_bp))
    } else {
        let begun = resets_at?.checked_sub(length?).ok()?;
        (Basis::Average, begun.as_second(), 0.0)
    };
    let elapsed = (reading.at_s - begun_s) as f64;
    let least = match basis {
        Basis::AverageSinceLowered => LEAST_SINCE_LOWERED.as_secs_f64(),
        _ => length?.as_secs_f64() * LEAST_ELAPSED,
    };
    // A reading from before its own period is of a provider that tells the length wrong.
    let slope = (f64::from(reading.used_bp) - used_before) / elapsed;
    (elapsed >= least && elapsed > 0.0).then(|| Rate::of(basis, slope, &reading, resets_at))
}

impl Rate {
    /// `slope` is in hundredths of a percent for each second.
    fn of(basis: Basis, slope: f64, last: &Sample, resets_at: Option<Timestamp>) -> Self {
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
        Self { basis, percent_per_hour: slope * 36.0, at_reset_percent: at_reset, used_up_at }
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

    fn period(samples: &[Sample]) -> Period {
        Period::of(samples, Some(at(5 * HOUR)))
    }

    /// What follows from these at the time of the last of them.
    fn of(samples: &[Sample]) -> Estimate {
        let last = samples.last().copied().unwrap_or(Sample { at_s: 0, used_bp: 0, resets_s: None });
        Estimate::of(&period(samples), last, Some(at(5 * HOUR)), Some(FIVE_HOURS), at(last.at_s))
    }

    /// The same without a length, so that no average is known.
    fn trend_of(samples: &[Sample]) -> Option<Rate> {
        let last = *samples.last().expect("there are some");
        Estimate::of(&period(samples), last, Some(at(5 * HOUR)), None, at(last.at_s)).rate
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
    fn two_samples_are_no_trend() {
        let two = [samples([0])[0], Sample { at_s: HOUR, used_bp: 100, resets_s: Some(5 * HOUR) }];

        assert_eq!(trend_of(&two), None);
    }

    #[test]
    fn ten_minutes_are_no_trend() {
        assert_eq!(trend_of(&samples([0, 100, 200])), None);
    }

    #[test]
    fn samples_of_long_ago_are_no_trend() {
        let old = samples((0..=12).map(|step| step * 100));
        let last = *old.last().unwrap();

        let estimate = Estimate::of(&period(&old), last, Some(at(5 * HOUR)), None, at(3 * HOUR));

        assert_eq!((estimate.rate, estimate.samples), (None, 0));
    }

    #[test]
    fn no_sample_is_no_rate() {
        assert_eq!(of(&[]).rate, None);
    }

    fn reading(at_s: i64, used_bp: u32) -> Sample {
        Sample { at_s, used_bp, resets_s: Some(5 * HOUR) }
    }

    #[test]
    fn one_reading_gives_the_average_since_the_window_began() {
        // 67 % of five hours have passed.
        let rate = of(&[reading(12_060, 8_000)]).rate.unwrap();

        assert_eq!(rate.basis, Basis::Average);
        assert_eq!(rate.at_reset_percent.unwrap().round(), 119.0);
        assert_eq!(rate.used_up_at, Some(at(15_075)));
    }

    #[test]
    fn a_trend_is_preferred_to_the_average() {
        // Nothing in the first three hours, then 12 % an hour.
        let late: Vec<_> = samples((0..=12).map(|step| step * 100))
            .iter()
            .map(|s| reading(s.at_s + 3 * HOUR, s.used_bp))
            .collect();

        let rate = of(&late).rate.unwrap();

        assert_eq!((rate.basis, rate.percent_per_hour.round()), (Basis::Trend, 12.0));
    }

    #[test]
    fn a_window_that_has_just_begun_has_no_average() {
        assert_eq!(of(&[reading(899, 100)]).rate, None);
        assert!(of(&[reading(900, 100)]).rate.is_some());
    }

    #[test]
    fn a_use_that_was_lowered_within_its_period_begins_the_history_anew() {
        let before = (0..=12).map(|step| 3_600 + step * 50);
        let after = (0..=12).map(|step| 300 + step * 50);

        let estimate = of(&samples(before.chain(after)));

        let rate = estimate.rate.unwrap();
        assert_eq!((rate.basis, rate.percent_per_hour.round()), (Basis::Trend, 6.0));
        assert_eq!(estimate.samples, 13);
    }

    #[test]
    fn after_it_was_lowered_the_average_is_that_since() {
        let all = [reading(0, 4_200), reading(3_600, 4_200), reading(7_200, 300), reading(9_000, 400)];

        let rate = of(&all).rate.unwrap();

        assert_eq!((rate.basis, rate.percent_per_hour), (Basis::AverageSinceLowered, 2.0));
        assert_eq!(of(&all[..3]).rate, None, "nothing is known of the time since");
    }

    #[test]
    fn an_old_answer_in_between_does_not_begin_the_history_anew() {
        let flapping = samples([4_000, 4_100, 4_200, 300, 4_200, 350, 400]);

        let found = period(&flapping);

        assert!(found.is_lowered);
        assert_eq!(found.samples, flapping[3..]);
        assert_eq!(period(&samples([100, 200, 9_000, 300, 400])).samples.len(), 5);
    }

    #[test]
    fn a_use_that_wavers_was_not_lowered() {
        assert!(!period(&samples([4_000, 4_200, 4_000, 4_100])).is_lowered);
    }

    #[test]
    fn a_window_without_a_reset_may_slide() {
        let falling: Vec<_> =
            samples([6_000, 3_000]).iter().map(|sample| Sample { resets_s: None, ..*sample }).collect();

        assert_eq!(Period::of(&falling, None), Period { samples: falling, is_lowered: false });
    }

    #[test]
    fn a_period_begins_after_the_last_reset() {
        let old = Sample { at_s: 0, used_bp: 9_000, resets_s: Some(HOUR) };
        let new = Sample { at_s: 2 * HOUR, used_bp: 10, resets_s: Some(6 * HOUR) };
        let later = Sample { at_s: 3 * HOUR, used_bp: 20, resets_s: Some(6 * HOUR + 2) };

        let found = Period::of(&[old, new, later], Some(at(6 * HOUR)));

        assert_eq!(found, Period { samples: vec![new, later], is_lowered: false });
        assert_eq!(Period::of(&[], None), Period::default());
    }
}
