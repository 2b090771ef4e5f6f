//! Interprets OpenAI's ordinary API responses to Codex: the usage in their headers, and why a request was rejected. `headers`
//! parses the headers; `quota-accounts` decides what follows.

use quota_core::model::plausible_reset;
use quota_core::provider::{ParsedResponse, Rejection, RejectionKind, ResponseMeta, ResponseParser};
use quota_core::{Percent, ProviderId, UsageReport};

use super::OPENAI;
use super::headers::{is_relevant, read};
use crate::interpret::{ProviderRules, interpret};
use crate::limit_headers::HeaderReadings;

/// Interprets OpenAI's responses to ordinary requests of Codex.
///
/// - A window is identified by its length, not by its slot. A slot of zeros is not a window.
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
        interpret(&RULES, response)
    }
}

pub(crate) const RULES: ProviderRules = ProviderRules { is_relevant, read, refine };

/// Adds the exhausted window of the active limit to a rejection.
fn refine(
    response: &ResponseMeta<'_>,
    usage: &UsageReport,
    readings: &HeaderReadings,
    rejection: &mut Rejection,
) {
    if rejection.kind != RejectionKind::QuotaExhausted {
        return;
    }
    rejection.scope.clone_from(&readings.active_scope);
    let full = usage.windows.iter().filter(|window| window.used >= Percent::FULL);
    let full = full.filter(|window| window.scope == readings.active_scope);
    // If several windows are exhausted, the last to reset counts.
    let full = full.max_by_key(|window| window.resets_at);
    rejection.window = full.map(|window| window.id.clone());
    let unnamed = readings.unnamed_reset.and_then(|at| plausible_reset(at, None, response.now));
    let of_headers = full.and_then(|window| window.resets_at).or(unnamed);
    rejection.resets_at = rejection.resets_at.or(of_headers);
}

#[cfg(test)]
mod tests;
