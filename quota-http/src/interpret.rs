//! Interprets an ordinary response by the rules of its provider: the usage in its headers, and why the request was rejected.
//! `response` selects the rules; `quota-accounts` decides what follows.

use std::time::Duration;

use jiff::Timestamp;
use quota_core::UsageReport;
use quota_core::provider::{ParsedResponse, Rejection, RejectionKind, ResponseMeta};

use crate::failure_body::rejection;
use crate::generic_headers::{add_generic, is_generic};
use crate::limit_headers::{HeaderReadings, LimitHeaders, Skipped};
use crate::parsed::SkippedField;

/// How the responses of a provider differ from those of others.
pub(crate) struct ProviderRules {
    /// Whether the header with this name, in any case, is one of the provider's own rate-limit headers.
    pub(crate) is_relevant: fn(&str) -> bool,
    /// Reads the provider's own headers.
    pub(crate) read: fn(&LimitHeaders<'_>, Timestamp, &mut HeaderReadings),
    /// Completes a rejection with information from the headers.
    pub(crate) refine: fn(&ResponseMeta<'_>, &UsageReport, &HeaderReadings, &mut Rejection),
}

impl ProviderRules {
    /// The rules for providers that send only generic headers.
    pub(crate) const GENERIC: Self =
        Self { is_relevant: |_| false, read: |_, _, _| {}, refine: |_, _, _, _| {} };
}

/// The first status of an error.
const MIN_ERROR: u16 = 400;

/// Parses a response. One without relevant headers costs no allocation if its status is not an error.
pub(crate) fn interpret(rules: &ProviderRules, response: &ResponseMeta<'_>) -> ParsedResponse {
    let mut rejected = Vec::new();
    let (parsed, skipped) = read(
        rules,
        response,
        || tracing::enabled!(tracing::Level::DEBUG),
        |usage| {
            rejected = usage.reject_implausible(response.now);
        },
    );
    if !skipped.is_empty() || !rejected.is_empty() {
        tracing::debug!(?skipped, ?rejected, "skipped headers");
    }
    parsed
}

/// Parses a saved response, whose resets may be long past, and lists the skipped headers.
pub(crate) fn inspect(
    rules: &ProviderRules,
    response: &ResponseMeta<'_>,
) -> (ParsedResponse, Vec<SkippedField>) {
    read(rules, response, || true, |_| {})
}

fn read(
    rules: &ProviderRules,
    response: &ResponseMeta<'_>,
    lists_skipped: impl FnOnce() -> bool,
    check: impl FnOnce(&mut UsageReport),
) -> (ParsedResponse, Vec<SkippedField>) {
    let is_relevant = |name: &str| is_generic(name) || (rules.is_relevant)(name);
    let headers = LimitHeaders::collect(response.headers, is_relevant);
    if headers.is_empty() && response.status < MIN_ERROR {
        // Fast path for most responses: the rest of this function would build and drop empty lists.
        return (ParsedResponse::new(UsageReport::from_headers([]), None), Vec::new());
    }
    let mut readings = HeaderReadings::new(Skipped::new(lists_skipped()));
    if !headers.is_empty() {
        (rules.read)(&headers, response.now, &mut readings);
        add_generic(&headers, response.now, &mut readings);
    }
    let mut usage = UsageReport::from_headers(std::mem::take(&mut readings.windows));
    usage.window_statuses = std::mem::take(&mut readings.window_statuses);
    usage.owner_id = readings.owner_id.take();
    usage.credits = readings.credits.take();
    // Do this first, because an exhausted window blocks requests until its reset.
    check(&mut usage);
    let failure = rejection(response).map(|mut failure| {
        let requested = failure.retry_after.take();
        (rules.refine)(response, &usage, &readings, &mut failure);
        let is_throttled = failure.kind == RejectionKind::Throttled;
        let replenished = readings.replenished_at.filter(|_| is_throttled);
        let until = replenished.and_then(|at| Duration::try_from(at.duration_since(response.now)).ok());
        // The provider may request no wait even though its limits reset later.
        failure.retry_after(requested.max(until))
    });
    (ParsedResponse::new(usage, failure), readings.skipped.fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requested_wait_does_not_hide_a_later_reset() {
        let now = Timestamp::UNIX_EPOCH;
        for (requested, waits) in [("0", 60), ("7", 60), ("90", 90)] {
            let headers = [
                ("retry-after", requested),
                ("x-ratelimit-limit-requests", "60"),
                ("x-ratelimit-remaining-requests", "0"),
                ("x-ratelimit-reset-requests", "60s"),
            ];
            let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));

            let parsed = interpret(&ProviderRules::GENERIC, &ResponseMeta::new(429, &headers, now));

            assert_eq!(parsed.failure.unwrap().retry_after, Some(Duration::from_secs(waits)), "{requested}");
        }
    }
}
