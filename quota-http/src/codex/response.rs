//! Interprets OpenAI's ordinary API responses to Codex: the usage in their headers, and why a request was rejected. `headers`
//! parses the headers; `quota-accounts` decides what follows.

use jiff::Timestamp;
use quota_core::model::{Scope, plausible_reset};
use quota_core::provider::{ParsedResponse, Rejection, RejectionKind, ResponseMeta, ResponseParser};
use quota_core::{Percent, ProviderId, UsageReport};
use serde_json::Value;

use super::OPENAI;
use super::headers::{self, CodexHeaders, Slot};
use crate::classify::is_blocked_by_cloudflare;
use crate::lenient::{number, timestamp};
use quota_core::provider::{retry_after, wait_of_seconds};

/// Interprets OpenAI's responses to ordinary requests of Codex.
///
/// - The length of a window identifies it, not its slot. A slot of zeros is not a window.
/// - A 429 with `usage_limit_reached` means an exhausted quota, until the time that the response states. If the active limit is
///   not the account's, only the models of that limit are exhausted. Any other 429 means throttling.
///
/// ```
/// use quota_core::provider::{RejectionKind, ResponseMeta, ResponseParser};
/// use quota_http::codex::CodexResponseParser;
///
/// let body = br#"{"error":{"type":"usage_limit_reached","resets_in_seconds":600}}"#;
/// let parsed = CodexResponseParser.parse(&ResponseMeta::new(429, &[], "2026-01-01T12:00:00Z".parse()?).body(body));
///
/// let failure = parsed.failure.unwrap();
/// assert_eq!(failure.kind, RejectionKind::QuotaExhausted);
/// assert_eq!(failure.resets_at, Some("2026-01-01T12:10:00Z".parse()?));
/// # Ok::<(), jiff::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct CodexResponseParser;

impl ResponseParser for CodexResponseParser {
    fn provider(&self) -> ProviderId {
        OPENAI
    }

    fn parse(&self, response: &ResponseMeta<'_>) -> ParsedResponse {
        let pairs = response.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let parsed = headers::read(pairs, response.now);
        if !parsed.skipped.is_empty() {
            tracing::debug!(skipped = ?parsed.skipped, "skipped headers");
        }
        let header = |name: &str| response.header(name);
        let failure = failure(response, &parsed, is_blocked_by_cloudflare(header))
            .map(|failure| failure.retry_after(retry_after(header, Some(response.now))));
        ParsedResponse::new(UsageReport::from_headers(parsed.windows()), failure)
    }
}

fn failure(response: &ResponseMeta<'_>, headers: &CodexHeaders, is_blocked: bool) -> Option<Rejection> {
    let by_status = Rejection::of_status(response.status)?;
    if is_blocked && matches!(response.status, 401 | 403) {
        // The response comes from Cloudflare, not from the provider, so the login may be valid.
        return Some(Rejection::new(RejectionKind::Overloaded));
    }
    if response.status != 429 {
        return Some(by_status);
    }
    let body: Value = serde_json::from_slice(response.body).unwrap_or_default();
    // In a WebSocket frame, the body is wrapped in another object.
    let error = body.get("error").or_else(|| body.get("body")?.get("error"));
    let kind = error.and_then(|error| error.get("type")?.as_str());
    // The body may be truncated and so not parse.
    let is_exhausted = kind == Some("usage_limit_reached")
        || (error.is_none() && String::from_utf8_lossy(response.body).contains("\"usage_limit_reached\""));
    if !is_exhausted {
        return Some(by_status);
    }
    let scope = headers.limit.clone().map(Scope::model);
    let slots = if scope.is_some() { &headers.active_limit_slots } else { &headers.slots };
    let full = slots.iter().filter(|slot| slot.used >= Percent::FULL);
    // If several windows are exhausted, the last to reset counts.
    let full: Option<&Slot> = full.max_by_key(|slot| slot.resets_at);
    let reported = error.and_then(|error| reset(error, response.now));
    let failure = Rejection::new(RejectionKind::QuotaExhausted).scope(scope);
    let failure = failure.window(full.and_then(|slot| Some(slot.window.as_ref()?.0.clone())));
    Some(failure.resets_at(reported.or_else(|| full?.resets_at)))
}

/// The reset that the body reports.
fn reset(error: &Value, now: Timestamp) -> Option<Timestamp> {
    let plausible = |at| plausible_reset(at, None, now);
    timestamp(error.get("resets_at")).and_then(plausible).or_else(|| {
        let seconds = number(error.get("resets_in_seconds")).ok()?;
        now.checked_add(wait_of_seconds(seconds, Some(now))?).ok().and_then(plausible)
    })
}

#[cfg(test)]
mod tests;
