//! How long a provider asks to be left alone, from the headers that say so.
//! What follows from it (a floor under every backoff) is a rule of the record, or of whoever sent the request.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::{rfc2822, strtime};
use jiff::tz::TimeZone;

/// Reads how long to wait from `retry-after-ms`, and from `Retry-After` where that is missing or is not understood.
///
/// `Retry-After` is that of RFC 9110, section 10.2.3: a number of seconds, or a date in any of the three forms of section 5.6.7.
/// Decimals are no part of it, and some providers send them; `retry-after-ms` is theirs, too. `header` gives a header's text by its
/// name in lower case. What is neither says nothing, and what is longer than time goes is [`Duration::MAX`].
///
/// A date counts from the answer's own `Date`: the provider's clock made both. Where there is no such date, or it is far
/// from `now` (an old answer out of some cache), it counts from `now`; without that either, a date says nothing.
///
/// ```
/// use std::time::Duration;
/// use quota_core::retry_after;
///
/// let header = |name: &str| (name == "retry-after").then_some("30");
/// assert_eq!(retry_after(header, None), Some(Duration::from_secs(30)));
/// ```
pub fn retry_after<'a>(header: impl Fn(&str) -> Option<&'a str>, now: Option<Timestamp>) -> Option<Duration> {
    let ms = header("retry-after-ms").and_then(|text| span(text, 1000.0));
    ms.or_else(|| {
        let text = header("retry-after")?;
        span(text, 1.0).or_else(|| {
            let sent = header("date").and_then(http_date).filter(|date| is_near(*date, now));
            Some(between(sent.or(now)?, http_date(text)?))
        })
    })
}

/// Whether a `Date` may be believed.
fn is_near(date: Timestamp, now: Option<Timestamp>) -> bool {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    now.is_none_or(|now| between(date, now).max(between(now, date)) <= DAY)
}

/// Reads a whole or decimal number of units; zero is one, and a sign or an exponent is none. What is beyond all time is as long as time goes.
fn span(text: &str, per_second: f64) -> Option<Duration> {
    let text = text.trim();
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number: f64 = text.parse().ok().filter(|_| plain)?;
    Some(Duration::try_from_secs_f64(number / per_second).unwrap_or(Duration::MAX))
}

/// Reads the three forms that HTTP has for a date.
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

/// The time from `from` to `to`; nothing if `to` is not after `from`.
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
    fn zero_is_said_and_not_missing() {
        assert_eq!(read(&[("retry-after", "0")]), Some(Duration::ZERO));
    }

    // B15
    #[test]
    fn milliseconds_go_before_seconds() {
        assert_eq!(read(&[("retry-after", "9"), ("retry-after-ms", "1500")]), seconds(1.5));
    }

    #[test]
    fn milliseconds_that_are_not_understood_leave_the_seconds() {
        assert_eq!(read(&[("retry-after", "9"), ("retry-after-ms", "soon")]), seconds(9.0));
    }

    #[test]
    fn garbage_is_nothing() {
        for text in
            ["", "soon", "-5", "1e3", "NaN", "inf", "1.2.3", ".", "5 s", "Wed, 99 Jul 2026", "\u{fffd}"]
        {
            assert_eq!(read(&[("retry-after", text)]), None, "{text:?}");
        }
    }

    #[test]
    fn a_huge_value_is_kept_without_a_panic() {
        let digits: &'static str = "9".repeat(400).leak();

        assert_eq!(read(&[("retry-after", digits)]), Some(Duration::MAX));
        assert_eq!(read(&[("retry-after", "99999999999")]), seconds(99_999_999_999.0));
    }

    #[test]
    fn all_three_forms_of_a_date_are_read() {
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
    fn a_date_counts_from_the_date_of_the_answer() {
        let headers =
            [("retry-after", "Wed, 01 Jul 2026 13:00:00 GMT"), ("date", "Wed, 01 Jul 2026 12:59:00 GMT")];

        assert_eq!(read(&headers), seconds(60.0));
        assert_eq!(read_at(&headers, None), seconds(60.0));
    }

    #[test]
    fn an_answer_dated_to_another_day_is_not_believed() {
        let headers =
            [("retry-after", "Wed, 01 Jul 2026 12:01:00 GMT"), ("date", "Mon, 29 Jun 2026 11:59:00 GMT")];

        assert_eq!(read(&headers), seconds(60.0));
    }

    #[test]
    fn a_date_that_is_past_is_no_time_at_all() {
        assert_eq!(
            read_at(&[("retry-after", NOON)], Some(noon() + Duration::from_secs(9))),
            Some(Duration::ZERO)
        );
    }

    #[test]
    fn a_date_without_anything_to_count_from_says_nothing() {
        assert_eq!(read_at(&[("retry-after", NOON)], None), None);
    }
}
