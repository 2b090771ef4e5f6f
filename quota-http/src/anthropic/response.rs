//! Interprets Anthropic's ordinary API responses: the usage in their headers, and why a request was rejected. `headers` parses
//! the headers; `quota-accounts` decides what follows.

use jiff::Timestamp;
use quota_core::model::{LimitStatus, WindowStatus};
use quota_core::provider::{ParsedResponse, Rejection, RejectionKind, ResponseMeta, ResponseParser};
use quota_core::{ProviderId, UsageReport};

use super::ANTHROPIC;
use super::headers::{add_windows, is_relevant, owner_id};
use crate::interpret::{ProviderRules, interpret};
use crate::limit_headers::{HeaderReadings, LimitHeaders};

/// Interprets Anthropic's responses to ordinary requests.
///
/// - A 429 with a rejected window of the whole account means an exhausted quota, until the last of those windows resets. With a
///   rejected window of one model, only that model is exhausted. Without a rejected window, the request rate was too high.
/// - A body with `overloaded_error` is not a quota problem, regardless of the status. A body that reports used-up extra usage
///   is one.
///
/// ```
/// use quota_core::provider::{RejectionKind, ResponseMeta, ResponseParser};
/// use quota_http::anthropic::AnthropicResponseParser;
///
/// let headers = [("anthropic-ratelimit-unified-5h-status".to_owned(), "rejected".to_owned())];
/// let parsed = AnthropicResponseParser.parse(&ResponseMeta::new(429, &headers, "2026-01-01T12:00:00Z".parse()?));
///
/// assert_eq!(parsed.failure.unwrap().kind, RejectionKind::QuotaExhausted);
/// # Ok::<(), jiff::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct AnthropicResponseParser;

impl ResponseParser for AnthropicResponseParser {
    fn provider(&self) -> ProviderId {
        ANTHROPIC
    }

    fn parse(&self, response: &ResponseMeta<'_>) -> ParsedResponse {
        interpret(&RULES, response)
    }
}

pub(crate) const RULES: ProviderRules = ProviderRules { is_relevant, read, refine };

fn read(headers: &LimitHeaders<'_>, _now: Timestamp, readings: &mut HeaderReadings) {
    readings.owner_id = owner_id(headers);
    add_windows(headers, readings);
}

/// A rejected window is exhausted. An account is exhausted if the body reports used-up extra usage.
fn refine(response: &ResponseMeta<'_>, usage: &UsageReport, _: &HeaderReadings, rejection: &mut Rejection) {
    if rejection.kind == RejectionKind::Overloaded || !matches!(response.status, 400 | 429) {
        return;
    }
    let body = String::from_utf8_lossy(response.body).to_lowercase();
    let is_out_of_money = body.contains("out of extra usage");
    if response.status == 429 || is_out_of_money {
        if let Some(exhausted) = exhausted(usage) {
            *rejection = exhausted;
        } else if is_out_of_money {
            *rejection = Rejection::new(RejectionKind::QuotaExhausted);
        }
    }
}

/// The rejection for the widest rejected window. Among equally wide ones, the last to reset counts.
fn exhausted(usage: &UsageReport) -> Option<Rejection> {
    let rejected = usage.window_statuses.iter().filter(|window| window.status == LimitStatus::Rejected);
    let worst = rejected.max_by_key(|window| (window.scope.is_none(), window.resets_at))?;
    let WindowStatus { window, scope, resets_at, .. } = worst;
    let failure = Rejection::new(RejectionKind::QuotaExhausted).window(window.clone());
    Some(failure.scope(scope.clone()).resets_at(*resets_at))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use quota_core::model::Scope;
    use quota_core::{Percent, WindowId};

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn parse(status: u16, headers: &[(&str, &str)], body: &str) -> ParsedResponse {
        let named = |(name, value): &(&str, &str)| {
            let name = if matches!(*name, "retry-after" | "cf-mitigated") {
                (*name).to_owned()
            } else {
                format!("anthropic-ratelimit-unified-{name}")
            };
            (name, (*value).to_owned())
        };
        let headers: Vec<_> = headers.iter().map(named).collect();
        AnthropicResponseParser.parse(&ResponseMeta::new(status, &headers, now()).body(body.as_bytes()))
    }

    fn kind(status: u16, headers: &[(&str, &str)], body: &str) -> Option<RejectionKind> {
        parse(status, headers, body).failure.map(|failure| failure.kind)
    }

    #[test]
    fn a_successful_response_has_usage_and_no_failure() {
        let parsed = parse(200, &[("5h-utilization", "0.25"), ("5h-status", "allowed")], "");

        assert_eq!(parsed.usage.windows[0].used, Percent::from_percent(25.0).unwrap());
        assert_eq!(parsed.failure, None);
    }

    #[test]
    fn a_rejected_account_window_is_exhausted_until_its_reset() {
        let failure =
            parse(429, &[("5h-status", "rejected"), ("5h-reset", "1800003600")], "").failure.unwrap();

        assert_eq!(
            (failure.kind, failure.window, failure.scope),
            (RejectionKind::QuotaExhausted, Some(WindowId::five_hour()), None)
        );
        assert_eq!(failure.resets_at, Timestamp::from_second(1_800_003_600).ok());
    }

    #[test]
    fn an_implausible_reset_of_a_rejected_window_is_dropped() {
        let headers = [("5h-status", "rejected"), ("5h-utilization", "1"), ("5h-reset", "1800086400")];

        let parsed = parse(429, &headers, "");

        assert_eq!(parsed.failure.unwrap().resets_at, None);
        assert_eq!((parsed.usage.windows[0].used, parsed.usage.windows[0].resets_at), (Percent::FULL, None));
    }

    #[test]
    fn a_rejected_model_window_exhausts_only_that_model() {
        let headers = [("5h-status", "allowed"), ("7d-status", "allowed"), ("7d_oi-status", "rejected")];

        let failure = parse(429, &headers, "").failure.unwrap();

        assert_eq!(
            (failure.kind, failure.scope),
            (RejectionKind::QuotaExhausted, Some(Scope::unknown_model()))
        );
    }

    #[test]
    fn the_rejected_window_that_resets_last_counts() {
        let headers = [
            ("5h-status", "rejected"),
            ("5h-reset", "1800003600"),
            ("7d-status", "rejected"),
            ("7d-reset", "1800300000"),
        ];

        let failure = parse(429, &headers, "").failure.unwrap();

        assert_eq!(failure.window, Some(WindowId::seven_day()));
        assert_eq!(failure.resets_at, Timestamp::from_second(1_800_300_000).ok());
    }

    #[test]
    fn an_account_window_has_precedence_over_a_model_window() {
        let headers = [
            ("5h-status", "rejected"),
            ("5h-reset", "1800003600"),
            ("7d_oi-status", "rejected"),
            ("7d_oi-reset", "1800300000"),
        ];

        assert_eq!(parse(429, &headers, "").failure.unwrap().window, Some(WindowId::five_hour()));
    }

    #[test]
    fn a_429_with_all_windows_allowed_is_throttling() {
        let parsed = parse(429, &[("5h-status", "allowed"), ("retry-after", "12")], "");

        let failure = parsed.failure.unwrap();
        assert_eq!(
            (failure.kind, failure.retry_after),
            (RejectionKind::Throttled, Some(Duration::from_secs(12)))
        );
    }

    #[test]
    fn a_429_without_headers_is_throttling() {
        assert_eq!(kind(429, &[], "{}"), Some(RejectionKind::Throttled));
    }

    #[test]
    fn a_permission_error_is_not_allowed() {
        assert_eq!(
            kind(403, &[], r#"{"error":{"type":"permission_error"}}"#),
            Some(RejectionKind::Forbidden)
        );
    }

    #[test]
    fn a_cloudflare_challenge_is_not_a_rejected_login() {
        assert_eq!(kind(403, &[("cf-mitigated", "challenge")], "<html>"), Some(RejectionKind::Overloaded));
    }

    #[test]
    fn overloaded_error_is_overload_regardless_of_the_status() {
        for status in [429, 500, 529] {
            assert_eq!(
                kind(status, &[], r#"{"error":{"type":"overloaded_error"}}"#),
                Some(RejectionKind::Overloaded)
            );
        }
    }

    #[test]
    fn used_up_extra_usage_is_exhausted_quota_despite_status_400() {
        assert_eq!(kind(400, &[], "You're out of extra usage."), Some(RejectionKind::QuotaExhausted));
        assert_eq!(kind(400, &[], "messages: field required"), Some(RejectionKind::InvalidRequest));
    }
}
