//! The highest usage that any source reported in one period of a window.
//! It distinguishes a new untimed reading from an old one that an idle session repeats.

use std::cmp::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Percent;
use super::bounds::{WindowLength, is_too_far};
use super::extra_fields::ExtraFields;
use crate::time::{self, UnixMillis};

/// The highest usage that any source reported in one period.
///
/// Windows of one model or surface have no peak, because only timestamped sources report them.
///
/// Between two peaks, the later period counts, then the higher usage, then the earlier arrival. A timestamped reading
/// counts as the earliest arrival, because no untimed reading is needed to prove it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peak {
    #[serde(rename = "used_bp", deserialize_with = "Percent::deserialize_any")]
    pub(crate) used: Percent,
    /// The end of the period.
    #[serde(rename = "resets_ms", default, skip_serializing_if = "Option::is_none")]
    pub(crate) resets_at: Option<UnixMillis>,
    /// When the reading arrived, if its source has no timestamps.
    #[serde(rename = "arrived_ms", default, skip_serializing_if = "Option::is_none")]
    pub(crate) arrived_at: Option<UnixMillis>,
    #[serde(
        rename = "length_ms",
        deserialize_with = "WindowLength::deserialize_plausible",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) length: Option<WindowLength>,
    #[serde(flatten)]
    pub(crate) unknown: ExtraFields,
}

/// The maximum distance between a reset and its nearest minute.
const ROUNDING: Duration = Duration::from_secs(30);

impl Peak {
    /// Creates the peak of a timestamped reading.
    ///
    /// The reset is rounded to the minute. Otherwise each idle account would store a peak in addition to its reading if
    /// the provider's resets vary by a few milliseconds.
    pub(crate) fn timed(used: Percent, resets_at: Option<UnixMillis>, length: Option<WindowLength>) -> Self {
        let resets_at = resets_at.map(UnixMillis::to_minute);
        Self { used, resets_at, arrived_at: None, length, unknown: ExtraFields::default() }
    }

    /// The total order of peaks. The greater peak wins.
    pub(crate) fn order(&self, other: &Self) -> Ordering {
        let by_arrival = match (self.arrived_at, other.arrived_at) {
            (Some(mine), Some(theirs)) => theirs.cmp(&mine),
            (mine, theirs) => mine.is_none().cmp(&theirs.is_none()),
        };
        let rest = |peak: &Self| (peak.resets_at, peak.length);
        self.by_period(other)
            .then_with(|| self.used.cmp(&other.used))
            .then(by_arrival)
            .then_with(|| rest(self).cmp(&rest(other)))
            .then_with(|| self.unknown.cmp(&other.unknown))
    }

    /// Whether the period is over. The true reset may be half a minute later than the rounded one.
    pub(crate) fn is_over(&self, now: UnixMillis) -> bool {
        let rounding = if self.arrived_at.is_none() { ROUNDING } else { Duration::ZERO };
        self.resets_at
            .is_some_and(|reset| time::saturating_add(reset.timestamp(), rounding) <= now.timestamp())
    }

    /// Whether a stored peak, whose readings are no later than `read_at`, is plausible.
    pub(crate) fn is_plausible(&self, read_at: Option<UnixMillis>) -> bool {
        let is_too_far = |reset: UnixMillis| {
            // Without either timestamp, `forget_peaks` checks the reset.
            let latest = self.arrived_at.max(read_at)?;
            let latest = time::saturating_add(latest.timestamp(), ROUNDING);
            Some(is_too_far(reset.timestamp(), self.length, latest))
        };
        self.used.is_plausible() && self.resets_at.and_then(is_too_far) != Some(true)
    }

    /// Compares the periods. A reading without a reset states no period, and counts as earlier.
    fn by_period(&self, other: &Self) -> Ordering {
        if let (Some(mine), Some(theirs)) = (self.resets_at, other.resets_at) {
            let is_same = match self.length.max(other.length) {
                Some(length) => mine.distance(theirs) < length.duration() / 2,
                // Do not compare distances, because that is not transitive. If three resets are each near the next, the
                // first and the last could be in different periods, and the result would depend on the order of
                // arrival.
                None => mine.to_minute() == theirs.to_minute(),
            };
            if is_same {
                return Ordering::Equal;
            }
        }
        self.resets_at.cmp(&other.resets_at)
    }
}
