//! The entry point for ordinary responses of any provider: the usage in their headers, and the reason for a rejection.

use quota_core::ProviderId;
use quota_core::provider::{ParsedResponse, ResponseMeta, ResponseParser};

use crate::interpret::{self, ProviderRules};
use crate::parsed::SkippedField;
use crate::registry::find_provider;

/// Parses an ordinary response of `provider`.
///
/// It reads the provider's own headers and those that many providers and gateways share: `x-ratelimit-…`, `RateLimit`
/// with its older forms, and `Retry-After`. If the request was rejected, it also reads the body, in the formats of
/// Anthropic, OpenAI and Google. An unknown provider counts as one without its own headers.
///
/// It does no I/O. A successful response without rate-limit headers costs no allocation.
///
/// ```
/// use quota_core::provider::{RejectionKind, ResponseMeta};
/// use quota_core::{Percent, ProviderId};
/// use quota_http::parse_response;
///
/// let headers = [
///     ("x-ratelimit-limit-requests".to_owned(), "60".to_owned()),
///     ("x-ratelimit-remaining-requests".to_owned(), "0".to_owned()),
///     ("x-ratelimit-reset-requests".to_owned(), "1m30s".to_owned()),
/// ];
/// let response = ResponseMeta::new(429, &headers, "2026-01-01T12:00:00Z".parse()?);
/// let parsed = parse_response(&ProviderId::new("my-gateway")?, &response);
///
/// assert_eq!(parsed.usage.windows[0].used, Percent::FULL);
/// let failure = parsed.failure.unwrap();
/// assert_eq!((failure.kind, failure.retry_after.unwrap().as_secs()), (RejectionKind::Throttled, 90));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn parse_response(provider: &ProviderId, response: &ResponseMeta<'_>) -> ParsedResponse {
    interpret::interpret(rules(provider), response)
}

/// Parses a saved response of `provider`, whose resets may be long past, and lists the headers that were skipped.
#[must_use]
pub fn inspect_response(
    provider: &ProviderId,
    response: &ResponseMeta<'_>,
) -> (ParsedResponse, Vec<SkippedField>) {
    interpret::inspect(rules(provider), response)
}

/// Interprets the responses of one provider with [`parse_response`].
#[derive(Debug, Clone)]
pub struct AnyResponseParser(ProviderId);

impl AnyResponseParser {
    /// Creates the parser for a provider's responses.
    #[must_use]
    pub fn new(provider: ProviderId) -> Self {
        Self(provider)
    }
}

impl ResponseParser for AnyResponseParser {
    fn provider(&self) -> ProviderId {
        self.0.clone()
    }

    fn parse(&self, response: &ResponseMeta<'_>) -> ParsedResponse {
        parse_response(&self.0, response)
    }
}

fn rules(provider: &ProviderId) -> &'static ProviderRules {
    find_provider(provider.as_str()).map_or(&ProviderRules::GENERIC, |provider| provider.response_rules)
}
