//! What a status means: which failure it is, in words that are ours.
//! Reading a good answer is each provider's own business; nothing here repeats a body.

use std::borrow::Cow;

use jiff::Timestamp;
use quota_core::FetchError;
use reqwest::header::{CONTENT_TYPE, HeaderMap};

use quota_core::retry_after;

/// Sorts an answer by its status; `None` if it is a good one.
pub(crate) fn classify(status: u16, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Option<FetchError> {
    let unavailable = |why: &'static str| FetchError::unavailable(why);
    let error = match status {
        200..=299 => return None,
        401 | 403 | 503 if is_blocked_by_cloudflare(|name| header(headers, name)) => {
            FetchError::unavailable(format!(
                "Cloudflare blocked the request (status {status}), which says nothing about the login; \
                 retry later or from another network"
            ))
        }
        429 => FetchError::throttled(None),
        401 => FetchError::Unauthorized,
        403 => refusal(body),
        300..=399 => {
            unavailable("the provider answered with a redirect, which is not followed; check base_url")
        }
        404 => unavailable("the usage endpoint was not found; check base_url"),
        407 => unavailable("the proxy on the way asks for a login"),
        408 => unavailable("the provider gave up waiting for the request (status 408)"),
        500 => unavailable("the provider failed (status 500)"),
        502 | 504 => {
            FetchError::unavailable(format!("the provider's gateway did not reach it (status {status})"))
        }
        503 => unavailable("the provider is out of service for now (status 503)"),
        529 => unavailable("the provider is overloaded (status 529)"),
        _ => FetchError::unavailable(format!("the provider answered with status {status}")),
    };
    Some(error.after(retry_after(|name| header(headers, name), Some(now))))
}

/// Whether Cloudflare answered in the provider's place, with a challenge or a page of its own.
///
/// The provider answers in JSON; what it says of a login cannot be read from such a page.
pub(crate) fn is_blocked_by_cloudflare<'a>(header: impl Fn(&str) -> Option<&'a str>) -> bool {
    // Set on challenges: developers.cloudflare.com/cloudflare-challenges/challenge-types/challenge-pages/detect-response
    let is_mitigated = header("cf-mitigated").is_some();
    let is_cloudflare = header("server").is_some_and(|server| server.eq_ignore_ascii_case("cloudflare"));
    let is_page =
        header(CONTENT_TYPE.as_str()).is_some_and(|kind| essence(kind).eq_ignore_ascii_case("text/html"));
    is_mitigated || (is_cloudflare && is_page)
}

/// Why a good credential is turned away, from what is known of the providers' own words for it.
fn refusal(body: &[u8]) -> FetchError {
    const SCOPE: &str = "user:profile";
    let body = String::from_utf8_lossy(body).to_lowercase();
    if body.contains(SCOPE) {
        FetchError::missing_scope(SCOPE)
    } else if body.contains("not allowed for this organization") {
        FetchError::forbidden(
            "the organization's policy does not allow this login; ask whoever administers it",
        )
    } else {
        FetchError::forbidden("reading usage was refused (status 403)")
    }
}

/// The failure that a good status with an answer nobody understands is: what kind of content it is and how long, and
/// where understanding ended, but none of it.
pub(crate) fn not_understood(
    headers: &HeaderMap,
    body: &[u8],
    why: impl Into<Cow<'static, str>>,
) -> FetchError {
    FetchError::malformed(format!("{}, {} bytes: {}", content_type(headers), body.len(), why.into()))
}

/// The kind of content, if it is one that is known: the header is the provider's text, and could be any.
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
    let Some(said) = header(headers, CONTENT_TYPE.as_str()) else { return "no content type" };
    KNOWN
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(essence(said)))
        .unwrap_or("an unknown content type")
}

/// A content type without its parameters.
fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// The value of a header, if it is there and is text.
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

    fn of_status(status: u16) -> Option<FetchError> {
        classify(status, &HeaderMap::new(), b"", Timestamp::UNIX_EPOCH)
    }

    fn forbidden_for(body: &str) -> String {
        classify(403, &HeaderMap::new(), body.as_bytes(), Timestamp::UNIX_EPOCH).unwrap().to_string()
    }

    #[test]
    fn a_good_status_is_no_failure() {
        assert!(of_status(200).is_none());
    }

    #[test]
    fn a_429_carries_how_long_to_wait() {
        let headers = headers(&[("retry-after", "3037")]);

        let error = classify(429, &headers, b"", Timestamp::UNIX_EPOCH);

        assert!(
            matches!(error, Some(FetchError::Throttled { retry_after: Some(span), .. }) if span == Duration::from_secs(3037))
        );
    }

    #[test]
    fn a_429_that_says_nothing_is_throttled_all_the_same() {
        assert!(matches!(of_status(429), Some(FetchError::Throttled { retry_after: None, .. })));
    }

    #[test]
    fn a_503_carries_how_long_to_wait() {
        let headers = headers(&[("retry-after", "120")]);

        let error = classify(503, &headers, b"", Timestamp::UNIX_EPOCH).unwrap();

        assert_eq!(error.retry_after(), Some(Duration::from_secs(120)));
    }

    #[test]
    fn a_401_is_a_login_problem() {
        assert!(matches!(of_status(401), Some(FetchError::Unauthorized)));
    }

    #[test]
    fn a_missing_scope_says_which_login_to_use() {
        let body = r#"{"error":{"message":"OAuth token does not meet scope requirement user:profile"}}"#;

        let error = classify(403, &HeaderMap::new(), body.as_bytes(), Timestamp::UNIX_EPOCH).unwrap();

        assert!(matches!(&error, FetchError::MissingScope { scope, .. } if scope == "user:profile"));
        assert!(error.to_string().contains("setup token"), "{error}");
    }

    #[test]
    fn a_policy_of_the_organization_is_named() {
        let why = forbidden_for("OAuth authentication is currently Not Allowed for this organization.");

        assert!(why.contains("policy"), "{why}");
    }

    #[test]
    fn another_refusal_is_told_without_its_body() {
        let why = forbidden_for("sk-ant-oat01-echo");

        assert_eq!(why, "the provider does not allow it: reading usage was refused (status 403)");
    }

    const CHALLENGE: [(&str, &str); 2] = [("cf-mitigated", "challenge"), ("content-type", "text/html")];
    const BLOCK_PAGE: [(&str, &str); 2] =
        [("server", "cloudflare"), ("content-type", "text/html; charset=UTF-8")];

    #[test]
    fn a_cloudflare_page_is_transient_and_says_nothing_about_the_login() {
        for (status, pairs) in [(403, CHALLENGE), (503, CHALLENGE), (403, BLOCK_PAGE), (401, BLOCK_PAGE)] {
            let error = classify(status, &headers(&pairs), b"<html>", Timestamp::UNIX_EPOCH).unwrap();

            assert!(error.is_transient(), "{status} {pairs:?}");
            assert!(error.to_string().starts_with("Cloudflare blocked the request"), "{error}");
        }
    }

    #[test]
    fn a_refusal_in_json_behind_cloudflare_is_the_providers_own() {
        let headers = headers(&[("server", "cloudflare"), ("content-type", "application/json")]);

        let error = classify(403, &headers, b"{}", Timestamp::UNIX_EPOCH);

        assert!(matches!(error, Some(FetchError::Forbidden { .. })), "{error:?}");
    }

    #[test]
    fn every_other_status_is_unavailable() {
        for status in [301, 307, 400, 404, 407, 408, 418, 500, 502, 503, 504, 529, 599] {
            assert!(matches!(of_status(status), Some(FetchError::Unavailable { .. })), "{status}");
        }
    }

    #[test]
    fn a_missing_endpoint_points_at_the_base_url() {
        assert!(of_status(404).unwrap().to_string().ends_with("check base_url"));
    }

    #[test]
    fn an_answer_nobody_understands_is_told_by_kind_and_length() {
        let headers = headers(&[("content-type", "Text/HTML; charset=utf-8")]);

        let error = not_understood(&headers, b"<html>", "not JSON");

        let told = "the provider's answer was not understood: text/html, 6 bytes: not JSON";
        assert_eq!(error.to_string(), told);
    }

    #[test]
    fn a_content_type_that_is_not_known_is_not_repeated() {
        let headers = headers(&[("content-type", "sk-ant-oat01-echo")]);

        assert!(!not_understood(&headers, b"", "not JSON").to_string().contains("oat01"));
    }
}
