//! Maps an HTTP status to a `FetchError`. Error texts never repeat the response body. The module of each provider parses
//! successful responses.

use std::borrow::Cow;

use jiff::Timestamp;
use quota_core::FetchError;
use reqwest::header::{CONTENT_TYPE, HeaderMap};

use quota_core::provider::retry_after;

/// Returns the error for this response; `None` if its status is 2xx.
pub(crate) fn classify(status: u16, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Option<FetchError> {
    let unavailable = |reason: &'static str| FetchError::unavailable(reason);
    let error = match status {
        200..=299 => return None,
        401 | 403 | 503 if is_blocked_by_cloudflare(|name| header(headers, name)) => {
            FetchError::unavailable(format!(
                "Cloudflare blocked the request (status {status}); the login may be valid, retry later or from another network"
            ))
        }
        429 => FetchError::throttled(None),
        401 => FetchError::Unauthorized,
        403 => forbidden_reason(body),
        300..=399 => unavailable("the provider sent a redirect, which is not followed; check base_url"),
        404 => unavailable("the usage endpoint was not found; check base_url"),
        407 => unavailable("the proxy requires authentication (status 407)"),
        408 => unavailable("the provider timed out waiting for the request (status 408)"),
        500 => unavailable("internal error of the provider (status 500)"),
        502 | 504 => {
            FetchError::unavailable(format!("the provider's gateway could not reach it (status {status})"))
        }
        503 => unavailable("the provider is temporarily unavailable (status 503)"),
        529 => unavailable("the provider is overloaded (status 529)"),
        _ => FetchError::unavailable(format!("unexpected status {status}")),
    };
    Some(error.with_retry_after(retry_after(|name| header(headers, name), Some(now))))
}

/// Whether the response is a challenge or an error page of Cloudflare, not a response of the provider.
///
/// Such a page does not mean that the login was rejected, because the provider responds in JSON.
pub(crate) fn is_blocked_by_cloudflare<'a>(header: impl Fn(&str) -> Option<&'a str>) -> bool {
    // Cloudflare sets this header on challenges:
    // developers.cloudflare.com/cloudflare-challenges/challenge-types/challenge-pages/detect-response
    let is_mitigated = header("cf-mitigated").is_some();
    let is_cloudflare = header("server").is_some_and(|server| server.eq_ignore_ascii_case("cloudflare"));
    let is_page =
        header(CONTENT_TYPE.as_str()).is_some_and(|kind| essence(kind).eq_ignore_ascii_case("text/html"));
    is_mitigated || (is_cloudflare && is_page)
}

/// The reason for a 403, recognized by phrases in the providers' error messages.
fn forbidden_reason(body: &[u8]) -> FetchError {
    const SCOPE: &str = "user:profile";
    let body = String::from_utf8_lossy(body).to_lowercase();
    if body.contains(SCOPE) {
        FetchError::missing_scope(SCOPE)
    } else if body.contains("not allowed for this organization") {
        FetchError::forbidden("the organization's policy does not allow this login; ask its administrator")
    } else {
        FetchError::forbidden("access to usage was denied (status 403)")
    }
}

/// The error for a successful status whose body cannot be parsed. It names the content type, the length and the parse error,
/// and repeats no part of the body.
pub(crate) fn malformed(
    headers: &HeaderMap,
    body: &[u8],
    reason: impl Into<Cow<'static, str>>,
) -> FetchError {
    FetchError::malformed(format!("{}, {} bytes: {}", content_type(headers), body.len(), reason.into()))
}

/// The content type, if it is a common one. Others are not repeated, because the header may contain any text.
fn content_type(headers: &HeaderMap) -> &'static str {
    const KNOWN: [&str; 8] = [
        "application/json",
        "application/octet-stream",
        "application/problem+json",
        "application/xml",
        "text/event-stream",
        "text/html",
        "text/plain",
        "text/xml",
    ];
    let Some(value) = header(headers, CONTENT_TYPE.as_str()) else { return "no content type" };
    KNOWN
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(essence(value)))
        .unwrap_or("an unknown content type")
}

/// A content type without its parameters.
fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// The value of a header, if present and valid text.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::{HeaderName, HeaderValue};
    use std::time::Duration;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn error_for(status: u16) -> Option<FetchError> {
        classify(status, &HeaderMap::new(), b"", Timestamp::UNIX_EPOCH)
    }

    fn forbidden_for(body: &str) -> String {
        classify(403, &HeaderMap::new(), body.as_bytes(), Timestamp::UNIX_EPOCH).unwrap().to_string()
    }

    #[test]
    fn a_2xx_status_is_no_error() {
        assert!(error_for(200).is_none());
    }

    #[test]
    fn a_429_keeps_retry_after() {
        let headers = headers(&[("retry-after", "3037")]);

        let error = classify(429, &headers, b"", Timestamp::UNIX_EPOCH);

        assert!(
            matches!(error, Some(FetchError::Throttled { retry_after: Some(delay), .. }) if delay == Duration::from_secs(3037))
        );
    }

    #[test]
    fn a_429_without_retry_after_is_throttled() {
        assert!(matches!(error_for(429), Some(FetchError::Throttled { retry_after: None, .. })));
    }

    #[test]
    fn a_503_keeps_retry_after() {
        let headers = headers(&[("retry-after", "120")]);

        let error = classify(503, &headers, b"", Timestamp::UNIX_EPOCH).unwrap();

        assert_eq!(error.retry_after(), Some(Duration::from_secs(120)));
    }

    #[test]
    fn a_401_is_unauthorized() {
        assert!(matches!(error_for(401), Some(FetchError::Unauthorized)));
    }

    #[test]
    fn a_missing_scope_hints_at_the_setup_token() {
        let body = r#"{"error":{"message":"OAuth token does not meet scope requirement user:profile"}}"#;

        let error = classify(403, &HeaderMap::new(), body.as_bytes(), Timestamp::UNIX_EPOCH).unwrap();

        assert!(matches!(&error, FetchError::MissingScope { scope, .. } if scope == "user:profile"));
        assert!(error.to_string().contains("setup token"), "{error}");
    }

    #[test]
    fn an_organization_policy_is_named() {
        let reason = forbidden_for("OAuth authentication is currently Not Allowed for this organization.");

        assert!(reason.contains("policy"), "{reason}");
    }

    #[test]
    fn another_403_does_not_repeat_the_body() {
        let reason = forbidden_for("sk-ant-oat01-echo");

        assert_eq!(reason, "forbidden: access to usage was denied (status 403)");
    }

    const CHALLENGE: [(&str, &str); 2] = [("cf-mitigated", "challenge"), ("content-type", "text/html")];
    const BLOCK_PAGE: [(&str, &str); 2] =
        [("server", "cloudflare"), ("content-type", "text/html; charset=UTF-8")];

    #[test]
    fn a_cloudflare_page_is_transient() {
        for (status, pairs) in [(403, CHALLENGE), (503, CHALLENGE), (403, BLOCK_PAGE), (401, BLOCK_PAGE)] {
            let error = classify(status, &headers(&pairs), b"<html>", Timestamp::UNIX_EPOCH).unwrap();

            assert!(error.is_transient(), "{status} {pairs:?}");
            assert!(error.to_string().starts_with("Cloudflare blocked the request"), "{error}");
        }
    }

    #[test]
    fn a_json_403_behind_cloudflare_is_forbidden() {
        let headers = headers(&[("server", "cloudflare"), ("content-type", "application/json")]);

        let error = classify(403, &headers, b"{}", Timestamp::UNIX_EPOCH);

        assert!(matches!(error, Some(FetchError::Forbidden { .. })), "{error:?}");
    }

    #[test]
    fn every_other_status_is_unavailable() {
        for status in [301, 307, 400, 404, 407, 408, 418, 500, 502, 503, 504, 529, 599] {
            assert!(matches!(error_for(status), Some(FetchError::Unavailable { .. })), "{status}");
        }
    }

    #[test]
    fn a_404_hints_at_base_url() {
        assert!(error_for(404).unwrap().to_string().ends_with("check base_url"));
    }

    #[test]
    fn a_malformed_body_is_described_by_type_and_length() {
        let headers = headers(&[("content-type", "Text/HTML; charset=utf-8")]);

        let error = malformed(&headers, b"<html>", "not JSON");

        let expected = "could not parse the provider's response: text/html, 6 bytes: not JSON";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn an_unknown_content_type_is_not_repeated() {
        let headers = headers(&[("content-type", "sk-ant-oat01-echo")]);

        assert!(!malformed(&headers, b"", "not JSON").to_string().contains("oat01"));
    }
}
