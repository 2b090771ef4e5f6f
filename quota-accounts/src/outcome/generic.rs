//! What every provider says in the same way: the status, and how long it wants to be left alone.
//! How one provider says more than that is known to its `TrafficReader`.

use std::time::Duration;

use quota_core::{ParsedResponse, Rejection, ResponseMeta, UsageReport, retry_after};

/// Reads the status, and `retry-after-ms` or `Retry-After`.
pub(super) fn read(answer: &ResponseMeta<'_>) -> ParsedResponse {
    let failure = Rejection::of_status(answer.status);
    ParsedResponse::new(
        UsageReport::from_headers([]),
        failure.map(|failure| failure.retry_after(wait(answer))),
    )
}

/// How long it wants to be left alone, as every provider says it.
fn wait(answer: &ResponseMeta<'_>) -> Option<Duration> {
    let header = |name: &str| answer.headers.iter().find(|(known, _)| known == name).map(|(_, text)| &**text);
    retry_after(header, Some(answer.now))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(headers: &[(&str, &str)]) -> Option<Duration> {
        let headers: Vec<_> =
            headers.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let noon = "2026-07-01T12:00:00Z".parse().unwrap();
        read(&ResponseMeta::new(429, &headers, noon)).failure.unwrap().retry_after
    }

    fn seconds(seconds: f64) -> Option<Duration> {
        Some(Duration::from_secs_f64(seconds))
    }

    #[test]
    fn a_wait_is_a_number_of_seconds_whole_or_decimal() {
        assert_eq!(wait(&[("retry-after", "2974")]), seconds(2974.0));
        assert_eq!(wait(&[("retry-after", " 1.5 ")]), seconds(1.5));
        assert_eq!(wait(&[("retry-after", "0")]), seconds(0.0));
        assert_eq!(wait(&[("retry-after", "9"), ("retry-after-ms", "1500")]), seconds(1.5));
    }

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
}
