//! What Anthropic says on ordinary answers: usage in headers, and why a request was turned away.
//! Reading the headers themselves is in `headers`; what follows is decided by whoever routes.

use quota_core::{Failure, FailureKind, ProviderId, Ruling, Seen, Traffic, TrafficReader, Usage, Verdict};

use super::{ANTHROPIC, parse_headers};
use crate::classify::is_blocked_by_cloudflare;
use quota_core::retry_after;

/// Reads the answers of Anthropic to ordinary requests.
///
/// - A 429 with a rejected window of the whole account is a spent quota, until the last of those windows begins anew; with
///   a rejected window of one model, that model's. Without any rejected window the pace was too high, and nothing is spent.
/// - A body that says `overloaded_error` is no quota, whatever the status; one that says that extra usage is used up is one.
///
/// ```
/// use quota_core::{FailureKind, Traffic, TrafficReader};
/// use quota_http::anthropic::AnthropicTraffic;
///
/// let headers = [("anthropic-ratelimit-unified-5h-status".to_owned(), "rejected".to_owned())];
/// let seen = AnthropicTraffic.read(&Traffic::new(429, &headers, "2026-01-01T12:00:00Z".parse()?));
///
/// assert_eq!(seen.failure.unwrap().kind, FailureKind::QuotaSpent);
/// # Ok::<(), jiff::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct AnthropicTraffic;

impl TrafficReader for AnthropicTraffic {
    fn provider(&self) -> ProviderId {
        ANTHROPIC
    }

    fn read(&self, answer: &Traffic<'_>) -> Seen {
        let pairs = answer.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut parsed = parse_headers(Some(answer.status), pairs);
        // Before a failure is made of them: it lasts until the reset.
        let rejected = parsed.usage.reject_implausible(answer.now);
        if !parsed.ignored.is_empty() || !rejected.is_empty() {
            tracing::debug!(ignored = ?parsed.ignored, ?rejected, "headers left out");
        }
        let header = |name: &str| {
            let named = answer.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            named.map(|(_, value)| value.as_str())
        };
        let failure = failure(answer, &parsed.usage, is_blocked_by_cloudflare(header))
            .map(|failure| failure.retry_after(retry_after(header, Some(answer.now))));
        Seen::new(parsed.usage, failure)
    }
}

fn failure(answer: &Traffic<'_>, usage: &Usage, is_blocked: bool) -> Option<Failure> {
    let by_status = Failure::of_status(answer.status)?;
    if is_blocked && matches!(answer.status, 401 | 403) {
        // Cloudflare answered, not the provider: nothing is known of the login.
        return Some(Failure::new(FailureKind::Overloaded));
    }
    let body = String::from_utf8_lossy(answer.body).to_lowercase();
    if body.contains("overloaded_error") {
        return Some(Failure::new(FailureKind::Overloaded));
    }
    if matches!(answer.status, 400 | 429) && body.contains("out of extra usage") {
        return Some(spent(usage).unwrap_or_else(|| Failure::new(FailureKind::QuotaSpent)));
    }
    if answer.status == 429 {
        return Some(spent(usage).unwrap_or(by_status));
    }
    Some(by_status)
}

/// The rejected window that keeps most from being sent, and of equal ones the one that begins anew last.
fn spent(usage: &Usage) -> Option<Failure> {
    let rejected = usage.verdicts.iter().filter(|verdict| verdict.ruling == Ruling::Rejected);
    let worst = rejected.max_by_key(|verdict| (verdict.scope.is_none(), verdict.resets_at))?;
    let Verdict { window, scope, resets_at, .. } = worst;
    let spent = Failure::new(FailureKind::QuotaSpent).window(window.clone());
    Some(spent.scope(scope.clone()).resets_at(*resets_at))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use quota_core::{Percent, Scope, WindowId};

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn seen(status: u16, headers: &[(&str, &str)], body: &str) -> Seen {
        let named = |(name, value): &(&str, &str)| {
            let name = if matches!(*name, "retry-after" | "cf-mitigated") {
                (*name).to_owned()
            } else {
                format!("anthropic-ratelimit-unified-{name}")
            };
            (name, (*value).to_owned())
        };
        let headers: Vec<_> = headers.iter().map(named).collect();
        AnthropicTraffic.read(&Traffic::new(status, &headers, now()).body(body.as_bytes()))
    }

    fn kind(status: u16, headers: &[(&str, &str)], body: &str) -> Option<FailureKind> {
        seen(status, headers, body).failure.map(|failure| failure.kind)
    }

    #[test]
    fn a_good_answer_tells_usage_and_no_failure() {
        let seen = seen(200, &[("5h-utilization", "0.25"), ("5h-status", "allowed")], "");

        assert_eq!(seen.usage.windows[0].used, Percent::from_percent(25.0).unwrap());
        assert_eq!(seen.failure, None);
    }

    #[test]
    fn a_rejected_window_of_the_account_is_a_spent_quota_until_its_reset() {
        let failure =
            seen(429, &[("5h-status", "rejected"), ("5h-reset", "1800003600")], "").failure.unwrap();

        assert_eq!(
            (failure.kind, failure.window, failure.scope),
            (FailureKind::QuotaSpent, Some(WindowId::five_hour()), None)
        );
        assert_eq!(failure.resets_at, Timestamp::from_second(1_800_003_600).ok());
    }

    #[test]
    fn a_rejected_window_with_an_implausible_reset_is_a_spent_quota_without_one() {
        let headers = [("5h-status", "rejected"), ("5h-utilization", "1"), ("5h-reset", "1800086400")];

        let seen = seen(429, &headers, "");

        assert_eq!(seen.failure.unwrap().resets_at, None);
        assert_eq!((seen.usage.windows[0].used, seen.usage.windows[0].resets_at), (Percent::FULL, None));
    }

    // B68
    #[test]
    fn a_rejected_window_of_one_model_is_that_models() {
        let headers = [("5h-status", "allowed"), ("7d-status", "allowed"), ("7d_oi-status", "rejected")];

        let failure = seen(429, &headers, "").failure.unwrap();

        assert_eq!((failure.kind, failure.scope), (FailureKind::QuotaSpent, Some(Scope::unnamed())));
    }

    // B74
    #[test]
    fn of_several_rejected_windows_the_last_to_begin_anew_counts_with_its_own_reset() {
        let headers = [
            ("5h-status", "rejected"),
            ("5h-reset", "1800003600"),
            ("7d-status", "rejected"),
            ("7d-reset", "1800300000"),
        ];

        let failure = seen(429, &headers, "").failure.unwrap();

        assert_eq!(failure.window, Some(WindowId::seven_day()));
        assert_eq!(failure.resets_at, Timestamp::from_second(1_800_300_000).ok());
    }

    #[test]
    fn a_window_of_the_whole_account_counts_before_a_models() {
        let headers = [
            ("5h-status", "rejected"),
            ("5h-reset", "1800003600"),
            ("7d_oi-status", "rejected"),
            ("7d_oi-reset", "1800300000"),
        ];

        assert_eq!(seen(429, &headers, "").failure.unwrap().window, Some(WindowId::five_hour()));
    }

    #[test]
    fn a_429_with_every_window_allowed_is_a_pause() {
        let seen = seen(429, &[("5h-status", "allowed"), ("retry-after", "12")], "");

        let failure = seen.failure.unwrap();
        assert_eq!(
            (failure.kind, failure.retry_after),
            (FailureKind::Throttled, Some(Duration::from_secs(12)))
        );
    }

    // B69
    #[test]
    fn a_429_without_headers_is_a_pause() {
        assert_eq!(kind(429, &[], "{}"), Some(FailureKind::Throttled));
    }

    // B17
    #[test]
    fn a_permission_error_is_a_policy() {
        assert_eq!(kind(403, &[], r#"{"error":{"type":"permission_error"}}"#), Some(FailureKind::NotAllowed));
    }

    #[test]
    fn a_cloudflare_challenge_says_nothing_about_the_login() {
        assert_eq!(kind(403, &[("cf-mitigated", "challenge")], "<html>"), Some(FailureKind::Overloaded));
    }

    // B87
    #[test]
    fn an_overload_is_no_quota_whatever_its_status() {
        for status in [429, 500, 529] {
            assert_eq!(
                kind(status, &[], r#"{"error":{"type":"overloaded_error"}}"#),
                Some(FailureKind::Overloaded)
            );
        }
    }

    // B87
    #[test]
    fn extra_usage_that_is_used_up_is_quota_although_the_status_is_400() {
        assert_eq!(kind(400, &[], "You're out of extra usage."), Some(FailureKind::QuotaSpent));
        assert_eq!(kind(400, &[], "messages: field required"), Some(FailureKind::Ours));
    }
}
