//! The wait that a provider requests in response headers. The record and the sender of the request apply it as a lower
//! bound of every backoff.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::{rfc2822, strtime};
use jiff::tz::TimeZone;

/// The longest requested wait that quota honors. If a provider requests more, one call is made after this time.
///
/// Providers sometimes request far too long a wait by mistake, such as 18 days, and may end a real wait early. One call a day
/// detects both.
pub const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// The part of a requested wait that quota honors: at most [`LONGEST_WAIT`].
///
/// Every requested wait passes through this function before it becomes a hold or a pause. A block until a window's reset is not
/// a wait.
///
/// ```
/// use std::time::Duration;
/// use quota_core::provider::{LONGEST_WAIT, bounded_wait};
///
/// assert_eq!(bounded_wait(Duration::from_secs(2974)), Duration::from_secs(2974));
/// assert_eq!(bounded_wait(Duration::MAX), LONGEST_WAIT);
/// ```
#[must_use]
pub fn bounded_wait(requested: Duration) -> Duration {
    requested.min(LONGEST_WAIT)
}

/// Parses the wait from `retry-after-ms`, or from `Retry-After` if the former is missing or malformed.
///
/// `Retry-After` is that of RFC 9110, section 10.2.3: a number of seconds, or a date in any of the three forms of section 5.6.7.
/// Some providers also send decimals, and `retry-after-ms`, which no RFC defines. `header` returns a header's text by its name in
/// lower case. A malformed value is ignored, and a value above the range of `Duration` is [`Duration::MAX`].
///
/// A number of seconds of 10⁹ or more is a Unix timestamp, see [`wait_of_seconds`]. In `retry-after-ms`, a Unix timestamp is
/// 10¹² or more, which is the same length of time. 10⁹ milliseconds are 12 days, a possible wait for a monthly limit.
///
/// A date or a Unix timestamp is relative to the response's `Date`, because both are times of the provider's clock. If that is
/// missing or far from `now` (a response from a cache), it counts from `now`. Without `now` it is ignored.
///
/// The result is the requested wait; [`bounded_wait`] limits it.
///
/// ```
/// use std::time::Duration;
/// use quota_core::provider::retry_after;
///
/// let header = |name: &str| (name == "retry-after").then_some("30");
/// assert_eq!(retry_after(header, None), Some(Duration::from_secs(30)));
/// ```
pub fn retry_after<'a>(header: impl Fn(&str) -> Option<&'a str>, now: Option<Timestamp>) -> Option<Duration> {
    let from = || header("date").and_then(http_date).filter(|date| is_near(*date, now)).or(now);
    let ms = header("retry-after-ms").and_then(number).and_then(|ms| wait_of_ms(ms, from()));
    ms.or_else(|| {
        let text = header("retry-after")?;
        match number(text) {
            Some(seconds) => wait_of_seconds(seconds, from()),
            None => Some(between(from()?, http_date(text)?)),
        }
    })
}

/// The wait that a number of seconds requests.
///
/// A value of 10⁹ (31 years) or more is a Unix timestamp in seconds, and one of 10¹² or more in milliseconds, because some
/// providers send a time instead of a wait. The wait is the time from `now` until the timestamp, or zero if it is in the past.
/// `None` for a time without `now`, and for a number that is not a length of time.
///
/// ```
/// use std::time::Duration;
/// use jiff::Timestamp;
/// use quota_core::provider::wait_of_seconds;
///
/// let now = Timestamp::from_second(1_795_989_238)?;
/// assert_eq!(wait_of_seconds(90.0, Some(now)), Some(Duration::from_secs(90)));
/// assert_eq!(wait_of_seconds(1_795_989_298.0, Some(now)), Some(Duration::from_secs(60)));
/// assert_eq!(wait_of_seconds(1_795_989_298_000.0, Some(now)), Some(Duration::from_secs(60)));
/// # Ok::<(), jiff::Error>(())
/// ```
#[must_use]
pub fn wait_of_seconds(seconds: f64, now: Option<Timestamp>) -> Option<Duration> {
    if seconds >= EPOCH_MS {
        wait_of_ms(seconds, now)
    } else if seconds >= EPOCH_SECONDS {
        until_epoch(seconds, now)
    } else {
        duration(seconds)
    }
}

fn wait_of_ms(ms: f64, now: Option<Timestamp>) -> Option<Duration> {
    if ms >= EPOCH_MS { until_epoch(ms / 1000.0, now) } else { duration(ms / 1000.0) }
}

/// A number of seconds of at least this (September 2001) is a Unix timestamp, not a wait.
const EPOCH_SECONDS: f64 = 1e9;

/// The same time in milliseconds.
const EPOCH_MS: f64 = 1e12;

fn until_epoch(seconds: f64, now: Option<Timestamp>) -> Option<Duration> {
    let now = now?;
    let epoch = duration(seconds).and_then(|since| Timestamp::UNIX_EPOCH.checked_add(since).ok());
    // The time is beyond the range of `Timestamp`.
    Some(epoch.map_or(Duration::MAX, |epoch| between(now, epoch)))
}

/// A number of seconds as a duration, at most [`Duration::MAX`]; `None` if it is negative.
fn duration(seconds: f64) -> Option<Duration> {
    (seconds >= 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

/// Whether a `Date` is near enough to `now` to come from a current response.
fn is_near(date: Timestamp, now: Option<Timestamp>) -> bool {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    now.is_none_or(|now| between(date, now).max(between(now, date)) <= DAY)
}

/// Reads a whole or decimal number without a sign or an exponent; infinity if it has too many digits.
fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().ok().filter(|_| plain)
}

/// Parses the three date formats of HTTP.
fn http_date(text: &str) -> Option<Timestamp> {
    const RFC_850: &str = "%A, %d-%b-%y %H:%M:%S GMT";
    const ASCTIME: &str = "%a %b %e %H:%M:%S %Y";
    let text = text.trim();
    let old = |form| {
        let civil = strtime::parse(form, text).ok()?.to_datetime().ok()?;
        TimeZone::UTC.to_timestamp(civil).ok()
    };
    let parser = rfc2822::DateTimeParser::new().relaxed_weekday(true);
    parser.parse_timestamp(text).ok().or_else(|| old(RFC_850)).or_else(|| old(ASCTIME))
}

/// The time from `from` to `to`; zero if `to` is not after `from`.
fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: &str = "Wed, 01 Jul 2026 12:00:00 GMT";

    fn noon() -> Timestamp {
        "2026-07-01T12:00:00Z".parse().unwrap()
    }

    fn read(headers: &[(&str, &'static str)]) -> Option<Duration> {
        read_at(headers, Some(noon()))
    }

    fn read_at(headers: &[(&str, &'static str)], now: Option<Timestamp>) -> Option<Duration> {
        retry_after(|name| headers.iter().find(|header| header.0 == name).map(|header| header.1), now)
    }

    fn seconds(seconds: f64) -> Option<Duration> {
        Some(Duration::from_secs_f64(seconds))
    }

    #[test]
    fn seconds_may_be_whole_or_decimal() {
        assert_eq!(read(&[("retry-after", "2974")]), seconds(2974.0));
        assert_eq!(read(&[("retry-after", " 1.5 ")]), seconds(1.5));
    }

    #[test]
    fn a_wait_of_zero_is_not_missing() {
        assert_eq!(read(&[("retry-after", "0")]), Some(Duration::ZERO));
    }

    #[test]
    fn retry_after_ms_takes_precedence_over_seconds() {
        assert_eq!(read(&[("retry-after", "9"), ("retry-after-ms", "1500")]), seconds(1.5));
    }

    #[test]
    fn malformed_milliseconds_fall_back_to_the_seconds() {
        assert_eq!(read(&[("retry-after", "9"), ("retry-after-ms", "soon")]), seconds(9.0));
    }

    #[test]
    fn malformed_values_are_ignored() {
        for text in
            ["", "soon", "-5", "1e3", "NaN", "inf", "1.2.3", ".", "5 s", "Wed, 99 Jul 2026", "\u{fffd}"]
        {
            assert_eq!(read(&[("retry-after", text)]), None, "{text:?}");
        }
    }

    #[test]
    fn a_huge_value_saturates() {
        let digits: &'static str = "9".repeat(400).leak();

        assert_eq!(read(&[("retry-after", digits)]), Some(Duration::MAX));
        assert_eq!(read(&[("retry-after-ms", digits)]), Some(Duration::MAX));
        assert_eq!(read(&[("retry-after", "999999999999")]), Some(Duration::MAX));
    }

    #[test]
    fn a_billion_seconds_or_more_is_a_unix_timestamp() {
        let epoch = noon().as_second() + 90;

        for text in [epoch.to_string(), format!("{epoch}.0"), format!("{epoch}000")] {
            assert_eq!(read(&[("retry-after", text.clone().leak())]), seconds(90.0), "{text}");
        }
        assert_eq!(read(&[("retry-after", "999999999")]), seconds(999_999_999.0));
    }

    #[test]
    fn a_trillion_milliseconds_or_more_is_a_unix_timestamp() {
        let epoch = format!("{}500", noon().as_second() + 90);

        assert_eq!(read(&[("retry-after-ms", epoch.leak())]), seconds(90.5));
        assert_eq!(read(&[("retry-after-ms", "2592000000")]), seconds(30.0 * 24.0 * 3600.0));
    }

    #[test]
    fn a_past_unix_timestamp_is_a_wait_of_zero() {
        assert_eq!(read(&[("retry-after", "1000000000")]), Some(Duration::ZERO));
        assert_eq!(read(&[("retry-after", "1000000000000")]), Some(Duration::ZERO));
    }

    #[test]
    fn a_unix_timestamp_is_relative_to_the_response_date() {
        let epoch = (noon().as_second() + 90).to_string().leak();
        let headers = [("retry-after", &*epoch), ("date", "Wed, 01 Jul 2026 12:01:00 GMT")];

        assert_eq!(read(&headers), seconds(30.0));
        assert_eq!(read_at(&headers[..1], None), None);
    }

    #[test]
    fn negative_and_nan_seconds_are_ignored() {
        for number in [-1.0, f64::NAN, f64::NEG_INFINITY] {
            assert_eq!(wait_of_seconds(number, Some(noon())), None, "{number}");
        }
    }

    #[test]
    fn a_wait_is_limited_to_one_day() {
        let days = |days: u64| Duration::from_secs(days * 24 * 3600);

        assert_eq!(bounded_wait(days(18)), days(1));
        assert_eq!(bounded_wait(days(1)), days(1));
    }

    #[test]
    fn all_three_date_forms_are_parsed() {
        let forms = [
            "Wed, 01 Jul 2026 12:02:00 GMT",
            "Wednesday, 01-Jul-26 12:02:00 GMT",
            "Wed Jul  1 12:02:00 2026",
        ];

        for form in forms {
            assert_eq!(read(&[("retry-after", form)]), seconds(120.0), "{form}");
        }
    }

    #[test]
    fn a_date_is_relative_to_the_response_date() {
        let headers =
            [("retry-after", "Wed, 01 Jul 2026 13:00:00 GMT"), ("date", "Wed, 01 Jul 2026 12:59:00 GMT")];

        assert_eq!(read(&headers), seconds(60.0));
        assert_eq!(read_at(&headers, None), seconds(60.0));
    }

    #[test]
    fn a_response_date_more_than_a_day_from_now_is_ignored() {
        let headers =
            [("retry-after", "Wed, 01 Jul 2026 12:01:00 GMT"), ("date", "Mon, 29 Jun 2026 11:59:00 GMT")];

        assert_eq!(read(&headers), seconds(60.0));
    }

    #[test]
    fn a_past_date_is_a_wait_of_zero() {
        assert_eq!(
            read_at(&[("retry-after", NOON)], Some(noon() + Duration::from_secs(9))),
            Some(Duration::ZERO)
        );
    }

    #[test]
    fn a_date_without_a_reference_time_is_ignored() {
        assert_eq!(read_at(&[("retry-after", NOON)], None), None);
    }
}
