//! Times, durations and amounts as text for people.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use quota::Percent;

use crate::zone;

/// The current time and the user's time zone.
#[derive(Debug, Clone)]
pub struct LocalTime {
    /// The current time.
    pub now: Timestamp,
    /// The time zone.
    pub zone: TimeZone,
}

impl LocalTime {
    /// Now, in the time zone of `TZ` or of this machine.
    pub fn now() -> Self {
        Self { now: quota::Clock::system().now(), zone: zone::local_time_zone() }
    }

    /// `in 2 h 10 min (14:05)`, or `5 min ago (11:50)`.
    pub fn relative(&self, at: Timestamp) -> String {
        format!("{} ({})", self.relative_only(at), self.time_of_day(at))
    }

    /// `in 2 h 10 min`, or `5 min ago`.
    pub fn relative_only(&self, at: Timestamp) -> String {
        if at > self.now {
            format!("in {}", duration(between(self.now, at)))
        } else {
            ago(between(at, self.now))
        }
    }

    /// The time of day, with the part of the date that identifies the day.
    pub fn time_of_day(&self, at: Timestamp) -> String {
        const DAY: i64 = 24 * 3600;
        let (then, now) =
            (at.to_zoned_datetime(self.zone.clone()), self.now.to_zoned_datetime(self.zone.clone()));
        let far = (at.as_second() - self.now.as_second()).abs();
        let form = match () {
            () if then.date() == now.date() => "%H:%M",
            // Seven days from now, the weekday is the same as today's.
            () if far < 6 * DAY => "%a %H:%M",
            () if far < 300 * DAY => "%-d %b %H:%M",
            () => "%Y-%m-%d",
        };
        then.strftime(form).to_string()
    }

    /// The time of day, with seconds if the time is within an hour.
    pub fn time_of_day_with_seconds(&self, at: Timestamp) -> String {
        if between(self.now, at).max(between(at, self.now)) < Duration::from_secs(3600) {
            return at.to_zoned_datetime(self.zone.clone()).strftime("%H:%M:%S").to_string();
        }
        self.time_of_day(at)
    }
}

/// The duration from `from` to `to`; zero if `to` is not later.
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// The time `duration` after `at`; the maximum if that overflows.
pub fn after(at: Timestamp, duration: Duration) -> Timestamp {
    at.checked_add(duration).unwrap_or(Timestamp::MAX)
}

/// A duration in its two largest units, rounded: `45 s`, `12 min`, `2 h 10 min`, `3 d 4 h`.
pub fn duration(duration: Duration) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    let seconds = duration.as_secs().saturating_add(u64::from(duration.subsec_millis() >= 500));
    let rounded = |to: u64| (seconds.saturating_add(to / 2)) / to;
    let two = |large: u64, large_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large} {large_unit}"),
        _ => format!("{large} {large_unit} {small} {small_unit}"),
    };
    if seconds < MINUTE {
        format!("{seconds} s")
    } else if rounded(MINUTE) < 60 {
        format!("{} min", rounded(MINUTE))
    } else if rounded(MINUTE) < 24 * 60 {
        two(rounded(MINUTE) / 60, "h", rounded(MINUTE) % 60, "min")
    } else {
        two(rounded(HOUR) / 24, "d", rounded(HOUR) % 24, "h")
    }
}

/// A short duration in seconds: `0.5 s`, `2 s`.
pub fn seconds(duration: Duration) -> String {
    format!("{} s", (duration.as_secs_f64() * 100.0).round() / 100.0)
}

/// A wait in whole seconds, rounded up. Otherwise a program that sleeps this long would retry too early.
pub fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0))
}

/// An age: `5 min ago`.
pub fn ago(age: Duration) -> String {
    if age < Duration::from_secs(1) { "just now".to_owned() } else { format!("{} ago", duration(age)) }
}

/// A percentage with at most one decimal. It is truncated, because 99.96 % is not 100 %.
pub fn percent(used: Percent) -> String {
    let tenths = used.basis_points() / 10;
    match tenths % 10 {
        0 => format!("{} %", tenths / 10),
        part => format!("{}.{part} %", tenths / 10),
    }
}

/// A time in RFC 3339, in UTC and whole seconds.
pub fn rfc3339(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A number with separated thousands: `12,345`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with its noun: `1 account`, `1,000 consumers`.
pub fn pluralize(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", thousands(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// 2026-11-23 11:55 in a time zone two hours ahead of UTC.
    fn local() -> LocalTime {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        LocalTime { now: at("2026-11-23T09:55:00Z"), zone }
    }

    #[test]
    fn a_wait_in_seconds_is_rounded_up() {
        for (ms, seconds) in [(0, 0), (1, 1), (1_000, 1), (12_700, 13)] {
            assert_eq!(whole_seconds(Duration::from_millis(ms)), seconds, "{ms}");
        }
    }

    #[test]
    fn a_duration_has_its_two_largest_units() {
        let texts =
            [0, 45, 60, 89, 90, 3_599, 7_800, 86_399, 90_000, 266_400].map(Duration::from_secs).map(duration);

        assert_eq!(
            texts,
            ["0 s", "45 s", "1 min", "1 min", "2 min", "1 h", "2 h 10 min", "1 d", "1 d 1 h", "3 d 2 h"]
        );
    }

    #[test]
    fn a_duration_is_rounded_to_minutes() {
        assert_eq!(duration(Duration::from_millis(7_799_990)), "2 h 10 min");
    }

    #[test]
    fn the_longest_duration_is_formatted() {
        assert!(duration(Duration::MAX).ends_with(" h"));
    }

    #[test]
    fn a_short_duration_is_in_seconds() {
        assert_eq!([500, 2_000, 1_234].map(Duration::from_millis).map(seconds), ["0.5 s", "2 s", "1.23 s"]);
    }

    #[test]
    fn less_than_a_second_ago_is_just_now() {
        assert_eq!(ago(Duration::from_millis(999)), "just now");
        assert_eq!(ago(Duration::from_secs(1)), "1 s ago");
    }

    #[test]
    fn a_time_of_today_has_no_date() {
        assert_eq!(local().relative(at("2026-11-23T12:05:00Z")), "in 2 h 10 min (14:05)");
        assert_eq!(local().relative(at("2026-11-23T09:50:00Z")), "5 min ago (11:50)");
    }

    #[test]
    fn a_time_of_this_week_has_its_weekday() {
        assert_eq!(local().time_of_day(at("2026-11-26T12:05:00Z")), "Thu 14:05");
    }

    #[test]
    fn a_time_on_todays_weekday_has_its_date() {
        assert_eq!(local().time_of_day(at("2026-11-30T09:55:00Z")), "30 Nov 11:55");
        assert_eq!(local().time_of_day(at("2027-11-30T09:55:00Z")), "2027-11-30");
    }

    #[test]
    fn a_time_within_an_hour_has_seconds() {
        assert_eq!(local().time_of_day_with_seconds(at("2026-11-23T09:55:15Z")), "11:55:15");
        assert_eq!(local().time_of_day_with_seconds(at("2026-11-23T12:05:00Z")), "14:05");
    }

    #[test]
    fn a_percentage_is_truncated() {
        assert_eq!(percent(Percent::from_basis_points(9_999)), "99.9 %");
        assert_eq!(percent(Percent::FULL), "100 %");
        assert_eq!(percent(Percent::from_basis_points(10_150)), "101.5 %");
    }

    #[test]
    fn rfc3339_is_in_whole_seconds_of_utc() {
        assert_eq!(rfc3339(at("2026-11-23T09:55:00.282668Z")), "2026-11-23T09:55:00Z");
    }

    #[test]
    fn pluralize_adds_an_s_except_for_one() {
        assert_eq!([1, 1_000].map(|number| pluralize(number, "account")), ["1 account", "1,000 accounts"]);
    }

    #[test]
    fn thousands_are_separated() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }
}
