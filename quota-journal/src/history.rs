//! What was used of each window, and when: enough to see its pace, little enough to be kept beside a record.
//! How fast that is, is worked out in `pace`.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Of what is no older than this one sample is kept for each [`STEP`]; of what is older, one for each hour.
const FINE: Duration = Duration::from_secs(24 * 3600);
/// Traffic brings a reading with every answer: more than these say nothing more of a pace.
const STEP: i64 = 180;
/// What is older than this is forgotten.
const KEPT: Duration = Duration::from_secs(35 * 24 * 3600);
/// More windows than any account has.
const MOST_WINDOWS: usize = 32;
/// More samples of one window than there are steps of a day, hours of a month, and resets.
const MOST_SAMPLES: usize = 1500;
const HOUR: i64 = 3600;

/// The samples of all windows of an account.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History {
    windows: BTreeMap<String, Samples>,
}

/// What one reading said of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sample {
    /// In whole seconds since 1970.
    pub at_s: i64,
    /// The use, in hundredths of a percent.
    pub used_bp: u32,
    /// When the window was to begin anew, in whole seconds.
    pub resets_s: Option<i64>,
}

/// The samples of one window, oldest first, one for each moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Columns", into = "Columns")]
struct Samples {
    rows: Vec<Sample>,
    /// What a newer program keeps of the window besides.
    unknown: Map<String, Value>,
}

impl History {
    /// The samples of a window, oldest first.
    #[must_use]
    pub fn of(&self, window: &str) -> &[Sample] {
        self.windows.get(window).map_or(&[], |samples| &samples.rows)
    }

    /// Takes one sample in.
    pub(crate) fn add(&mut self, window: &str, sample: Sample) {
        if self.windows.len() < MOST_WINDOWS || self.windows.contains_key(window) {
            self.windows.entry(window.to_owned()).or_default().take(sample);
        }
    }

    /// Puts two histories of one login together. It does not matter in which order, nor how often.
    #[cfg(test)]
    fn join(&mut self, other: &Self) {
        for (window, samples) in &other.windows {
            for sample in &samples.rows {
                self.add(window, *sample);
            }
        }
    }

    /// Forgets what need not be known any more at `now`.
    pub(crate) fn thin(&mut self, now: Timestamp) {
        for samples in self.windows.values_mut() {
            samples.thin(now.as_second());
        }
        self.windows.retain(|_, samples| !samples.rows.is_empty());
    }

    pub(crate) fn clear(&mut self) {
        self.windows.clear();
    }
}

impl Samples {
    fn take(&mut self, sample: Sample) {
        match self.rows.binary_search_by_key(&sample.at_s, |known| known.at_s) {
            // Of one moment the greater stands, so that the order of coming does not matter.
            Ok(at) => self.rows[at] = self.rows[at].max(sample),
            Err(at) => self.rows.insert(at, sample),
        }
    }

    fn thin(&mut self, now: i64) {
        let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
        let (fine, forgotten) = (now.saturating_sub(seconds(FINE)), now.saturating_sub(seconds(KEPT)));
        let mut kept: Vec<Sample> = Vec::with_capacity(self.rows.len());
        for sample in self.rows.iter().filter(|sample| sample.at_s > forgotten) {
            match kept.last_mut() {
                // The last one of an hour stands for it, by the hours of the clock: everybody keeps the same ones. A
                // reset in mid hour ends the old period with a sample of its own.
                Some(last) if is_of_the_step_of(last, sample, fine) && sample.is_of_the_period_of(last) => {
                    *last = *sample;
                }
                _ => kept.push(*sample),
            }
        }
        let surplus = kept.len().saturating_sub(MOST_SAMPLES);
        kept.drain(..surplus);
        self.rows = kept;
    }
}

/// Whether a sample stands for the one before it as well, by its time.
fn is_of_the_step_of(before: &Sample, sample: &Sample, fine: i64) -> bool {
    let step = if sample.at_s <= fine { HOUR } else { STEP };
    before.at_s.div_euclid(step) == sample.at_s.div_euclid(step)
}

impl Sample {
    /// Whether both were read before the same reset, as far as it was told.
    #[must_use]
    pub fn is_of_the_period_of(&self, other: &Self) -> bool {
        const SAME_PERIOD: i64 = 300;
        match (self.resets_s, other.resets_s) {
            (Some(mine), Some(theirs)) => (mine - theirs).abs() <= SAME_PERIOD,
            (None, None) => true,
            _ => false,
        }
    }
}

/// The samples as they are stored: differences in columns, a third of the room that objects would take.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Columns {
    /// Seconds since 1970, each after the first as the distance from the one before.
    at_s: Vec<i64>,
    used_bp: Vec<u32>,
    /// The reset as the distance from the sample; a reset that was not told is -1.
    resets_in_s: Vec<i64>,
    /// Whatever goes by rows must raise the format number: others add and drop rows.
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

const NOT_TOLD: i64 = -1;

impl From<Samples> for Columns {
    fn from(Samples { rows: samples, unknown }: Samples) -> Self {
        let mut before = 0;
        let at_s = samples.iter().map(|sample| sample.at_s - std::mem::replace(&mut before, sample.at_s));
        Self {
            at_s: at_s.collect(),
            used_bp: samples.iter().map(|sample| sample.used_bp).collect(),
            resets_in_s: samples
                .iter()
                .map(|sample| sample.resets_s.map_or(NOT_TOLD, |reset| (reset - sample.at_s).max(0)))
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
        // One by one: somebody else may have written them out of order.
        for ((step, used_bp), resets_in) in rows {
            at_s = within_time(at_s.saturating_add(step));
            let resets_s = (resets_in >= 0).then(|| within_time(at_s.saturating_add(resets_in)));
            samples.take(Sample { at_s, used_bp, resets_s });
        }
        samples
    }
}

/// The nearest second that is a time: differences of those are numbers, whatever a document says.
fn within_time(second: i64) -> i64 {
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
    fn readings_of_a_day_that_are_minutes_apart_are_all_kept() {
        let mut day = history((0..288).map(|step| sample(step * 300, 0)));

        day.thin(at(DAY - 1));

        assert_eq!(day.of("seven_day").len(), 288);
    }

    #[test]
    fn stored_seconds_beyond_time_are_brought_back_into_it() {
        let stored = r#"{"five_hour":{"at_s":[-9223372036854775808,9223372036854775807,9223372036854775807],
            "used_bp":[1,2,3],"resets_in_s":[0,9223372036854775807,0]}}"#;

        let read: History = serde_json::from_str(stored).unwrap();

        let [first, .., last] = read.of("five_hour") else { panic!("two times are left") };
        assert_eq!((first.at_s, last.at_s), (Timestamp::MIN.as_second(), Timestamp::MAX.as_second()));
        assert!(!first.is_of_the_period_of(last));
        assert!(serde_json::to_string(&read).is_ok());
    }

    #[test]
    fn of_an_older_hour_the_last_reading_is_kept() {
        let mut day = history((0..12).map(|step| sample(step * 300, u32::try_from(step).unwrap())));

        day.thin(at(3 * DAY));

        assert_eq!(day.of("seven_day"), [sample(3300, 11)]);
    }

    #[test]
    fn a_reset_within_an_hour_leaves_the_last_reading_before_it() {
        let before = Sample { at_s: 100, used_bp: 9000, resets_s: Some(1000) };
        let after = Sample { at_s: 2000, used_bp: 10, resets_s: Some(19_000) };
        let mut both = history([before, after]);

        both.thin(at(3 * DAY));

        assert_eq!(both.of("seven_day"), [before, after]);
    }

    #[test]
    fn after_thirty_five_days_a_reading_is_forgotten() {
        let mut old = history([sample(0, 1), sample(DAY, 2)]);

        old.thin(at(35 * DAY + 1));

        assert_eq!(old.of("seven_day"), [sample(DAY, 2)]);
    }

    #[test]
    fn thirty_five_days_of_readings_every_five_minutes_take_little_room() {
        let readings = 35 * 288;
        let mut month = history((0..readings).map(|step| Sample {
            at_s: 1_760_000_000 + step * 300,
            used_bp: 5000,
            resets_s: Some(1_760_000_000 + step * 300 + 500_000),
        }));

        month.thin(at(1_760_000_000 + readings * 300));

        let stored = serde_json::to_vec(&month).unwrap();
        assert_eq!(month.of("seven_day").len(), 34 * 24 + 288);
        assert!(stored.len() < 20_000, "{} bytes", stored.len());
    }

    #[test]
    fn readings_that_busy_traffic_brings_every_few_seconds_cost_no_history() {
        let month = 30 * DAY;
        let mut kept = history((0..30 * 24).map(|hour| sample(hour * HOUR, 5000)));

        for step in 0..2000 {
            kept.add("seven_day", sample(month + step * 5, 5000));
            kept.thin(at(month + step * 5));
        }

        let samples = kept.of("seven_day");
        assert_eq!(samples.first(), Some(&sample(0, 5000)));
        assert_eq!(samples.last(), Some(&sample(month + 1999 * 5, 5000)));
    }

    #[test]
    fn windows_that_a_provider_makes_up_without_end_are_not_all_kept() {
        let mut many = History::default();
        for number in 0..1000 {
            many.add(&format!("window-{number}"), sample(0, 0));
        }

        assert_eq!(many.windows.len(), MOST_WINDOWS);
    }

    #[test]
    fn the_stored_form_stays() {
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
    fn what_a_newer_program_keeps_of_a_window_is_kept() {
        let stored = r#"{"seven_day":{"at_s":[1000],"used_bp":[10],"resets_in_s":[-1],"colour":"blue"}}"#;
        let mut read: History = serde_json::from_str(stored).unwrap();

        read.add("seven_day", sample(1300, 20));
        read.thin(at(1300));

        let kept = serde_json::to_string(&read).unwrap();
        assert_eq!(
            kept,
            r#"{"seven_day":{"at_s":[1000,300],"used_bp":[10,20],"resets_in_s":[-1,-1],"colour":"blue"}}"#
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
        fn two_writers_histories_are_joined_in_any_order(one in samples(), other in samples()) {
            let (one, other) = (history(one), history(other));
            let (mut left, mut right) = (one.clone(), other.clone());
            left.join(&other);
            right.join(&one);
            left.thin(at(40 * DAY));
            right.thin(at(40 * DAY));

            prop_assert_eq!(&left, &right);
            let again = left.clone();
            left.join(&again);
            prop_assert_eq!(left, again);
        }

        #[test]
        fn thinning_twice_is_thinning_once(samples in samples(), now in 0..80 * DAY) {
            let mut once = history(samples);
            once.thin(at(now));
            let mut twice = once.clone();
            twice.thin(at(now));

            prop_assert_eq!(once, twice);
        }

        #[test]
        fn what_is_stored_comes_back(samples in samples()) {
            let history = history(samples);

            let stored = serde_json::to_vec(&history).unwrap();

            prop_assert_eq!(serde_json::from_slice::<History>(&stored).unwrap(), history);
        }
    }
}
