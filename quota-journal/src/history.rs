//! The usage of each window over time, as samples: enough to compute its pace, and few enough to store in one document.
//! `pace` computes the pace.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Up to this age there is one sample per [`BUCKET`]. Older samples are reduced to one per hour.
const FULL_RESOLUTION: Duration = Duration::from_secs(24 * 3600);
/// The length in seconds. Every response to a busy account has a reading, but more frequent samples do not improve a
/// pace.
const BUCKET: i64 = 180;
/// Older samples are dropped.
const RETENTION: Duration = Duration::from_secs(35 * 24 * 3600);
/// The maximum number of windows, more than any account has.
const MAX_WINDOWS: usize = 32;
/// The maximum number of samples per window, more than one can have: the buckets of a day, the hours of a month, and
/// the resets.
const MAX_SAMPLES: usize = 1500;
const HOUR: i64 = 3600;

/// The samples of all windows of an account.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History {
    windows: BTreeMap<String, Samples>,
}

/// One reading of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sample {
    /// When it was read, in whole seconds since 1970.
    pub at_s: i64,
    /// The use, in hundredths of a percent.
    pub used_bp: u32,
    /// When the window resets, in whole seconds since 1970.
    pub resets_s: Option<i64>,
}

/// The samples of one window, oldest first, at most one per second.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Columns", into = "Columns")]
struct Samples {
    rows: Vec<Sample>,
    /// Fields that a newer program wrote.
    unknown: Map<String, Value>,
}

impl History {
    /// The samples of a window, oldest first.
    #[must_use]
    pub fn samples(&self, window: &str) -> &[Sample] {
        self.windows.get(window).map_or(&[], |samples| &samples.rows)
    }

    /// Adds one sample.
    pub(crate) fn add(&mut self, window: &str, sample: Sample) {
        if self.windows.len() < MAX_WINDOWS || self.windows.contains_key(window) {
            self.windows.entry(window.to_owned()).or_default().insert(sample);
        }
    }

    /// Merges another history of the same login. The merge is commutative and idempotent.
    #[cfg(test)]
    fn merge(&mut self, other: &Self) {
        for (window, samples) in &other.windows {
            for sample in &samples.rows {
                self.add(window, *sample);
            }
        }
    }

    /// Drops the samples that a pace at `now` does not need.
    pub(crate) fn downsample(&mut self, now: Timestamp) {
        for samples in self.windows.values_mut() {
            samples.downsample(now.as_second());
        }
        self.windows.retain(|_, samples| !samples.rows.is_empty());
    }

    /// Drops the samples for which `keep` is false.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Sample) -> bool) {
        for samples in self.windows.values_mut() {
            samples.rows.retain(&keep);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.windows.clear();
    }
}

impl Samples {
    fn insert(&mut self, sample: Sample) {
        match self.rows.binary_search_by_key(&sample.at_s, |stored| stored.at_s) {
            // If two samples have the same second, the greater one wins, so that the order of arrival does not matter.
            Ok(index) => self.rows[index] = self.rows[index].max(sample),
            Err(index) => self.rows.insert(index, sample),
        }
    }

    fn downsample(&mut self, now: i64) {
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        let (full_resolution, oldest) =
            (now.saturating_sub(seconds(FULL_RESOLUTION)), now.saturating_sub(seconds(RETENTION)));
        let mut remaining: Vec<Sample> = Vec::with_capacity(self.rows.len());
        for sample in self.rows.iter().filter(|sample| sample.at_s > oldest) {
            match remaining.last_mut() {
                // Keep the last sample of each clock hour, so that every process keeps the same ones. A reset within an hour
                // ends the old period, which keeps its own last sample.
                Some(last)
                    if is_same_bucket(last, sample, full_resolution) && sample.is_same_period(last) =>
                {
                    *last = *sample;
                }
                _ => remaining.push(*sample),
            }
        }
        let surplus = remaining.len().saturating_sub(MAX_SAMPLES);
        remaining.drain(..surplus);
        self.rows = remaining;
    }
}

/// Whether two samples are in the same bucket. Beyond the age of full resolution, a bucket is an hour.
fn is_same_bucket(before: &Sample, sample: &Sample, full_resolution: i64) -> bool {
    let bucket = if sample.at_s <= full_resolution { HOUR } else { BUCKET };
    before.at_s.div_euclid(bucket) == sample.at_s.div_euclid(bucket)
}

impl Sample {
    /// Whether both samples belong to one period of the window, judging by their resets.
    pub(crate) fn is_same_period(&self, other: &Self) -> bool {
        const SAME_PERIOD: i64 = 300;
        match (self.resets_s, other.resets_s) {
            (Some(one), Some(two)) => (one - two).abs() <= SAME_PERIOD,
            (None, None) => true,
            _ => false,
        }
    }
}

/// The stored form of samples: columns of differences, which take a third of the size of objects.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Columns {
    /// Seconds since 1970. Each value after the first is the difference from the previous one.
    at_s: Vec<i64>,
    used_bp: Vec<u32>,
    /// The reset as the difference from the sample's time, or -1 if the reading had no reset.
    resets_in_s: Vec<i64>,
    /// A new column must raise the format number, because an older program adds and drops rows.
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

const NO_RESET: i64 = -1;

impl From<Samples> for Columns {
    fn from(Samples { rows: samples, unknown }: Samples) -> Self {
        let mut before = 0;
        let at_s = samples.iter().map(|sample| sample.at_s - std::mem::replace(&mut before, sample.at_s));
        Self {
            at_s: at_s.collect(),
            used_bp: samples.iter().map(|sample| sample.used_bp).collect(),
            resets_in_s: samples
                .iter()
                .map(|sample| sample.resets_s.map_or(NO_RESET, |reset| (reset - sample.at_s).max(0)))
                .collect(),
            unknown,
        }
    }
}

impl From<Columns> for Samples {
    fn from(columns: Columns) -> Self {
        let mut at_s = 0_i64;
        let rows = columns.at_s.into_iter().zip(columns.used_bp).zip(columns.resets_in_s);
        let mut samples = Self { rows: Vec::new(), unknown: columns.unknown };
        // `insert` sorts the rows, in case another program wrote them out of order.
        for ((difference, used_bp), resets_in) in rows {
            at_s = clamp_to_timestamps(at_s.saturating_add(difference));
            let resets_s = (resets_in >= 0).then(|| clamp_to_timestamps(at_s.saturating_add(resets_in)));
            samples.insert(Sample { at_s, used_bp, resets_s });
        }
        samples
    }
}

/// The nearest second in the range of `Timestamp`, so that the difference of two such seconds never overflows.
fn clamp_to_timestamps(second: i64) -> i64 {
    second.clamp(Timestamp::MIN.as_second(), Timestamp::MAX.as_second())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: i64 = 24 * HOUR;

    fn sample(at_s: i64, used_bp: u32) -> Sample {
        Sample { at_s, used_bp, resets_s: None }
    }

    fn history(samples: impl IntoIterator<Item = Sample>) -> History {
        let mut history = History::default();
        for sample in samples {
            history.add("seven_day", sample);
        }
        history
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn all_readings_of_one_day_minutes_apart_are_kept() {
        let mut day = history((0..288).map(|step| sample(step * 300, 0)));

        day.downsample(at(DAY - 1));

        assert_eq!(day.samples("seven_day").len(), 288);
    }

    #[test]
    fn stored_seconds_out_of_range_are_clamped() {
        let stored = r#"{"five_hour":{"at_s":[-9223372036854775808,9223372036854775807,9223372036854775807],
            "used_bp":[1,2,3],"resets_in_s":[0,9223372036854775807,0]}}"#;

        let read: History = serde_json::from_str(stored).unwrap();

        let [first, .., last] = read.samples("five_hour") else { panic!("there should be two samples") };
        assert_eq!((first.at_s, last.at_s), (Timestamp::MIN.as_second(), Timestamp::MAX.as_second()));
        assert!(!first.is_same_period(last));
        assert!(serde_json::to_string(&read).is_ok());
    }

    #[test]
    fn the_last_reading_of_an_older_hour_is_kept() {
        let mut day = history((0..12).map(|step| sample(step * 300, u32::try_from(step).unwrap())));

        day.downsample(at(3 * DAY));

        assert_eq!(day.samples("seven_day"), [sample(3300, 11)]);
    }

    #[test]
    fn a_reset_within_an_hour_keeps_the_reading_before_it() {
        let before = Sample { at_s: 100, used_bp: 9000, resets_s: Some(1000) };
        let after = Sample { at_s: 2000, used_bp: 10, resets_s: Some(19_000) };
        let mut both = history([before, after]);

        both.downsample(at(3 * DAY));

        assert_eq!(both.samples("seven_day"), [before, after]);
    }

    #[test]
    fn a_reading_is_dropped_after_35_days() {
        let mut old = history([sample(0, 1), sample(DAY, 2)]);

        old.downsample(at(35 * DAY + 1));

        assert_eq!(old.samples("seven_day"), [sample(DAY, 2)]);
    }

    #[test]
    fn a_month_of_readings_every_five_minutes_fits_in_20_kb() {
        let readings = 35 * 288;
        let mut month = history((0..readings).map(|step| Sample {
            at_s: 1_760_000_000 + step * 300,
            used_bp: 5000,
            resets_s: Some(1_760_000_000 + step * 300 + 500_000),
        }));

        month.downsample(at(1_760_000_000 + readings * 300));

        let stored = serde_json::to_vec(&month).unwrap();
        assert_eq!(month.samples("seven_day").len(), 34 * 24 + 288);
        assert!(stored.len() < 20_000, "{} bytes", stored.len());
    }

    #[test]
    fn frequent_readings_do_not_displace_older_ones() {
        let month = 30 * DAY;
        let mut month_long = history((0..30 * 24).map(|hour| sample(hour * HOUR, 5000)));

        for step in 0..2000 {
            month_long.add("seven_day", sample(month + step * 5, 5000));
            month_long.downsample(at(month + step * 5));
        }

        let samples = month_long.samples("seven_day");
        assert_eq!(samples.first(), Some(&sample(0, 5000)));
        assert_eq!(samples.last(), Some(&sample(month + 1999 * 5, 5000)));
    }

    #[test]
    fn the_number_of_windows_is_bounded() {
        let mut many = History::default();
        for number in 0..1000 {
            many.add(&format!("window-{number}"), sample(0, 0));
        }

        assert_eq!(many.windows.len(), MAX_WINDOWS);
    }

    #[test]
    fn the_stored_format_is_unchanged() {
        let stored = history([
            Sample { at_s: 1000, used_bp: 10, resets_s: Some(5000) },
            Sample { at_s: 1300, used_bp: 20, resets_s: None },
        ]);

        insta::assert_snapshot!(
            serde_json::to_string(&stored).unwrap(),
            @r#"{"seven_day":{"at_s":[1000,300],"used_bp":[10,20],"resets_in_s":[4000,-1]}}"#
        );
    }

    #[test]
    fn unknown_fields_of_a_window_are_preserved() {
        let stored = r#"{"seven_day":{"at_s":[1000],"used_bp":[10],"resets_in_s":[-1],"color":"blue"}}"#;
        let mut read: History = serde_json::from_str(stored).unwrap();

        read.add("seven_day", sample(1300, 20));
        read.downsample(at(1300));

        let rewritten = serde_json::to_string(&read).unwrap();
        assert_eq!(
            rewritten,
            r#"{"seven_day":{"at_s":[1000,300],"used_bp":[10,20],"resets_in_s":[-1,-1],"color":"blue"}}"#
        );
    }

    fn samples() -> impl Strategy<Value = Vec<Sample>> {
        let one = (0..40 * DAY, 0..10_000_u32, proptest::option::of(0..7 * DAY));
        let one = one.prop_map(|(at_s, used_bp, left)| Sample {
            at_s,
            used_bp,
            resets_s: left.map(|left| at_s + left),
        });
        proptest::collection::vec(one, 0..60)
    }

    proptest! {
        #[test]
        fn the_merge_of_two_histories_does_not_depend_on_order(one in samples(), other in samples()) {
            let (one, other) = (history(one), history(other));
            let (mut left, mut right) = (one.clone(), other.clone());
            left.merge(&other);
            right.merge(&one);
            left.downsample(at(40 * DAY));
            right.downsample(at(40 * DAY));

            prop_assert_eq!(&left, &right);
            let again = left.clone();
            left.merge(&again);
            prop_assert_eq!(left, again);
        }

        #[test]
        fn downsampling_twice_changes_nothing(samples in samples(), now in 0..80 * DAY) {
            let mut once = history(samples);
            once.downsample(at(now));
            let mut twice = once.clone();
            twice.downsample(at(now));

            prop_assert_eq!(once, twice);
        }

        #[test]
        fn a_history_survives_encoding_and_decoding(samples in samples()) {
            let history = history(samples);

            let stored = serde_json::to_vec(&history).unwrap();

            prop_assert_eq!(serde_json::from_slice::<History>(&stored).unwrap(), history);
        }
    }
}
