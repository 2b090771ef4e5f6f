//! What every provider says in the same way: the status, and how long it wants to be left alone.
//! How one provider says more than that is known to its `TrafficReader`.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use quota_core::{Failure, Seen, Traffic, Usage};

/// Reads the status, and `retry-after-ms` or `Retry-After`.
pub(super) fn read(answer: &Traffic<'_>) -> Seen {
    let failure = Failure::of_status(answer.status);
    Seen::new(Usage::from_headers([]), failure.map(|failure| failure.retry_after(retry_after(answer))))
}

/// A number of seconds, whole or decimal, or a date.
///
/// A date counts from the answer's own `Date`, since the provider's clock made both; where there is none, or it is a day away
/// (an old answer out of some cache), from when the answer arrived.
fn retry_after(answer: &Traffic<'_>) -> Option<Duration> {
    let header =
        |name: &str| answer.headers.iter().find(|(known, _)| known == name).map(|(_, text)| text.trim());
    let ms = header("retry-after-ms").and_then(|text| span(text, 1000.0));
    ms.or_else(|| {
        let text = header("retry-after")?;
        span(text, 1.0).or_else(|| {
            let sent = header("date").and_then(date).filter(|sent| is_near(*sent, answer.now));
            Some(between(sent.unwrap_or(answer.now), date(text)?))
        })
    })
}

/// Reads a whole or decimal number of units. What is beyond all time is as long as time goes.
fn span(text: &str, per_second: f64) -> Option<Duration> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number: f64 = text.parse().ok().filter(|_| is_plain)?;
    Some(Duration::try_from_secs_f64(number / per_second).unwrap_or(Duration::MAX))
}

/// Reads a date in the form that servers write.
fn date(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok()
}

fn is_near(sent: Timestamp, now: Timestamp) -> bool {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    between(sent, now).max(between(now, sent)) <= DAY
}

/// The time from `from` to `to`; nothing if `to` is not after `from`.
fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(headers: &[(&str, &str)]) -> Option<Duration> {
        let headers: Vec<_> =
            headers.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let noon = "2026-07-01T12:00:00Z".parse().unwrap();
        read(&Traffic::new(429, &headers, noon)).failure.unwrap().retry_after
    }

    fn seconds(seconds: f64) -> Option<Duration> {
        Some(Duration::from_secs_f64(seconds))
    }

    // B15
    #[test]
    fn a_wait_is_a_number_of_seconds_whole_or_decimal() {
        assert_eq!(wait(&[("retry-after", "2974")]), seconds(2974.0));
        assert_eq!(wait(&[("retry-after", " 1.5 ")]), seconds(1.5));
        assert_eq!(wait(&[("retry-after", "0")]), seconds(0.0));
        assert_eq!(wait(&[("retry-after", "9"), ("retry-after-ms", "1500")]), seconds(1.5));
    }

    // B15
    #[test]
    fn a_wait_is_a_date_and_counts_from_the_date_of_the_answer() {
        let at = ("retry-after", "Wed, 01 Jul 2026 12:49:34 GMT");

        assert_eq!(wait(&[at]), seconds(2974.0));
        assert_eq!(wait(&[at, ("date", "Wed, 01 Jul 2026 12:49:30 GMT")]), seconds(4.0));
        assert_eq!(
            wait(&[at, ("date", "Mon, 29 Jun 2026 12:00:00 GMT")]),
            seconds(2974.0),
            "out of some cache"
        );
        assert_eq!(wait(&[("retry-after", "Wed, 01 Jul 2026 11:00:00 GMT")]), seconds(0.0), "it is past");
    }

    #[test]
    fn what_is_no_wait_says_nothing() {
        for text in ["", "soon", "-5", "1e9", "NaN", "inf", "5s", "Wed, 99 Jul 2026"] {
            assert_eq!(wait(&[("retry-after", text)]), None, "{text:?}");
        }
    }

    // B15
    #[test]
    fn a_wait_beyond_all_time_is_as_long_as_time_goes() {
        assert_eq!(wait(&[("retry-after", &"9".repeat(400))]), Some(Duration::MAX));
    }
}
