//! Timestamps as the shared state stores them: whole milliseconds since 1970. They are truncated on entry, so that a value in
//! memory equals the value that a store returns.

use std::num::NonZeroI64;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Clocks of hosts that share a store differ by less than this. A later timestamp comes from a wrong clock.
pub(crate) const CLOCK_SLACK: Duration = Duration::from_secs(30);

/// The earliest possible time of a record. A machine with an earlier clock has just booted and has not set its clock yet.
pub(crate) const EARLIEST_RECORD: Timestamp = Timestamp::constant(1_735_689_600, 0);

/// The latest timestamp that a correct clock can have written before `now`. A `now` from a clock that was never set rejects
/// nothing.
pub(crate) fn latest_plausible(now: Timestamp) -> Timestamp {
    if now < EARLIEST_RECORD { Timestamp::MAX } else { saturating_add(now, CLOCK_SLACK) }
}

/// Whether a clock that was ahead of `now` wrote `at`, which must be in the past.
///
/// All timestamps in shared documents follow this rule. Clocks of hosts differ by less than 30 seconds, so a smaller
/// difference is not the future. If `now` is before 2025, the clock was never set and the result is false.
#[must_use]
pub fn is_from_future(at: Timestamp, now: Timestamp) -> bool {
    at > latest_plausible(now)
}

/// Truncates a timestamp to whole milliseconds.
pub(crate) fn truncate_ms(at: Timestamp) -> Timestamp {
    from_ms(at.as_millisecond())
}

/// The timestamp that many milliseconds after 1970, clamped to the range of `Timestamp`.
pub(crate) fn from_ms(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(if ms < 0 { Timestamp::MIN } else { MAX })
}

/// The last timestamp in whole milliseconds.
const MAX: Timestamp = Timestamp::constant(253_402_207_200, 0);

/// `at` moved by this many milliseconds, in whole milliseconds, clamped to the range of `Timestamp`.
pub(crate) fn shifted(at: Timestamp, by_ms: i64) -> Timestamp {
    from_ms(at.as_millisecond().saturating_add(by_ms))
}

/// `at` plus `duration` in whole milliseconds, at most [`MAX`].
pub(crate) fn saturating_add(at: Timestamp, duration: Duration) -> Timestamp {
    shifted(at, i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

/// The lowest fence of a lease that is granted at `at`.
pub(crate) fn as_fence(at: Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap_or(0)
}

/// `at` minus `duration` in whole milliseconds, at least `Timestamp::MIN`.
pub(crate) fn saturating_sub(at: Timestamp, duration: Duration) -> Timestamp {
    let ms = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    from_ms(at.as_millisecond().saturating_sub(ms))
}

/// The time from `from` to `to`; zero if `to` is not after `from`.
pub(crate) fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// A timestamp in eight bytes, even as an `Option`. A process with a million accounts stores several per window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct UnixMillis(NonZeroI64);

/// Added to the milliseconds, so that no timestamp is zero. It exceeds the range of `Timestamp` on either side of 1970.
const BIAS: i64 = 1 << 60;

impl UnixMillis {
    pub(crate) fn timestamp(self) -> Timestamp {
        from_ms(self.0.get() - BIAS)
    }

    /// The nearest whole minute.
    pub(crate) fn to_minute(self) -> Self {
        const MINUTE: i64 = 60_000;
        let ms = self.0.get() - BIAS;
        from_ms((ms + MINUTE / 2).div_euclid(MINUTE) * MINUTE).into()
    }

    /// The absolute time between the two.
    pub(crate) fn distance(self, other: Self) -> Duration {
        Duration::from_millis(self.0.get().abs_diff(other.0.get()))
    }

    /// The time from this to `later`; zero if `later` is not after it.
    pub(crate) fn until(self, later: Self) -> Duration {
        Duration::from_millis(u64::try_from(later.0.get().saturating_sub(self.0.get())).unwrap_or(0))
    }
}

impl From<Timestamp> for UnixMillis {
    fn from(at: Timestamp) -> Self {
        Self(
            // Clamped, as in `from_ms`.
            NonZeroI64::new(at.as_millisecond().min(MAX.as_millisecond()) + BIAS)
                .expect("every timestamp is nearer to 1970 than the bias"),
        )
    }
}

impl Serialize for UnixMillis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ms::serialize(&self.timestamp(), serializer)
    }
}

impl<'de> Deserialize<'de> for UnixMillis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ms::deserialize(deserializer).map(Self::from)
    }
}

/// Serializes a timestamp as milliseconds since 1970.
pub(crate) mod ms {
    use super::from_ms;
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(at.as_millisecond())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        i64::deserialize(deserializer).map(from_ms)
    }
}

/// A duration in whole milliseconds on the wire.
pub(crate) mod span_ms {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub(crate) mod option {
        use super::{Deserialize, Deserializer, Duration, Serializer};

        pub(crate) fn serialize<S: Serializer>(
            duration: &Option<Duration>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match duration {
                Some(duration) => {
                    serializer.serialize_some(&u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
                }
                None => serializer.serialize_none(),
            }
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Duration>, D::Error> {
            Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_beyond_the_clock_slack_is_from_the_future() {
        let at = |second| Timestamp::from_second(second).unwrap();

        assert!(!is_from_future(at(1_800_000_030), at(1_800_000_000)));
        assert!(is_from_future(at(1_800_000_031), at(1_800_000_000)));
    }

    #[test]
    fn an_unset_clock_finds_no_timestamp_in_the_future() {
        let at = |second| Timestamp::from_second(second).unwrap();

        assert!(!is_from_future(at(1_800_000_000), at(60)));
    }

    #[test]
    fn adding_a_duration_saturates_at_the_maximum() {
        let end = saturating_add(Timestamp::UNIX_EPOCH, Duration::MAX);

        assert_eq!(end, MAX);
        assert_eq!(truncate_ms(end), end);
    }

    #[test]
    fn timestamps_beyond_the_maximum_are_truncated_to_it() {
        assert_eq!(truncate_ms(Timestamp::MAX), MAX);
        assert_eq!(saturating_add(Timestamp::MAX, Duration::from_secs(1)), MAX);
    }

    #[test]
    fn an_optional_timestamp_takes_eight_bytes() {
        assert_eq!(size_of::<Option<UnixMillis>>(), 8);
        for timestamp in [Timestamp::MIN, Timestamp::UNIX_EPOCH, MAX] {
            assert_eq!(UnixMillis::from(timestamp).timestamp(), timestamp);
        }
        assert!(UnixMillis::from(Timestamp::MIN) < UnixMillis::from(Timestamp::UNIX_EPOCH));
    }

    #[test]
    fn the_time_to_an_earlier_timestamp_is_zero() {
        assert_eq!(elapsed(from_ms(10), from_ms(3)), Duration::ZERO);
    }
}
