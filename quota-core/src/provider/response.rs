//! Ordinary API responses: the limits that they report, and the reasons of rejections.
//! A parser interprets a provider's format. The router decides how to react.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use crate::model::{ProviderId, Scope, UnknownWord, UsageReport, WindowId};

/// Parses ordinary responses of a provider.
///
/// A parser does no I/O and reads no clock. It ignores unknown headers and never fails, because a served response must
/// reach the caller.
pub trait ResponseParser: fmt::Debug + Send + Sync + 'static {
    /// The provider of the responses.
    fn provider(&self) -> ProviderId;

    /// Parses one response.
    fn parse(&self, response: &ResponseMeta<'_>) -> ParsedResponse;
}

/// Metadata of one response.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct ResponseMeta<'a> {
    /// The HTTP status code.
    pub status: u16,
    /// The headers.
    pub headers: ResponseHeaders<'a>,
    /// The body of a rejection, or its beginning; empty if it was not read.
    pub body: &'a [u8],
    /// When the response arrived.
    pub now: Timestamp,
}

impl<'a> ResponseMeta<'a> {
    /// Creates the metadata of a response that arrived at `now`.
    #[must_use]
    pub fn new(status: u16, headers: impl Into<ResponseHeaders<'a>>, now: Timestamp) -> Self {
        Self { status, headers: headers.into(), body: &[], now }
    }

    /// Sets the body, or its beginning.
    #[must_use]
    pub fn body(mut self, body: &'a [u8]) -> Self {
        self.body = body;
        self
    }

    /// The first header of this name, in any case; `None` if it is not text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.get(name)
    }
}

/// The headers of a response, borrowed from the program's own representation: pairs of text, or a [`HeaderSource`].
///
/// A parser reads them in place. So a response without relevant headers costs no allocation.
///
/// ```
/// use quota_core::provider::ResponseHeaders;
///
/// let pairs = [("Retry-After".to_owned(), "30".to_owned())];
/// assert_eq!(ResponseHeaders::from(&pairs).get("retry-after"), Some("30"));
/// ```
#[derive(Clone, Copy)]
pub struct ResponseHeaders<'a>(Repr<'a>);

#[derive(Clone, Copy)]
enum Repr<'a> {
    Pairs(&'a [(String, String)]),
    Source(&'a dyn HeaderSource),
}

/// A representation of headers that a parser can read, such as the header map of an HTTP library.
pub trait HeaderSource {
    /// Calls `visit` with each header, in order: its name in any case, and its value, which need not be text.
    fn for_each<'a>(&'a self, visit: &mut dyn FnMut(&'a str, &'a [u8]));

    /// The first value of `name`, in any case.
    fn first<'a>(&'a self, name: &str) -> Option<&'a [u8]> {
        let mut first = None;
        self.for_each(&mut |other, value| {
            if first.is_none() && other.eq_ignore_ascii_case(name) {
                first = Some(value);
            }
        });
        first
    }
}

impl<'a> ResponseHeaders<'a> {
    /// Calls `visit` with each header, in order: its name in any case, and its value, which need not be text.
    pub fn for_each(&self, mut visit: impl FnMut(&'a str, &'a [u8])) {
        match self.0 {
            Repr::Pairs(pairs) => pairs.iter().for_each(|(name, value)| visit(name, value.as_bytes())),
            Repr::Source(source) => source.for_each(&mut visit),
        }
    }

    /// The first header of this name, in any case; `None` if it is not text.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        match self.0 {
            Repr::Pairs(pairs) => {
                let header = pairs.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
                header.map(|(_, value)| value.as_str())
            }
            Repr::Source(source) => std::str::from_utf8(source.first(name)?).ok(),
        }
    }
}

impl<'a> From<&'a [(String, String)]> for ResponseHeaders<'a> {
    fn from(pairs: &'a [(String, String)]) -> Self {
        Self(Repr::Pairs(pairs))
    }
}

impl<'a, const N: usize> From<&'a [(String, String); N]> for ResponseHeaders<'a> {
    fn from(pairs: &'a [(String, String); N]) -> Self {
        Self(Repr::Pairs(pairs))
    }
}

impl<'a> From<&'a Vec<(String, String)>> for ResponseHeaders<'a> {
    fn from(pairs: &'a Vec<(String, String)>) -> Self {
        Self(Repr::Pairs(pairs))
    }
}

impl<'a> From<&'a dyn HeaderSource> for ResponseHeaders<'a> {
    fn from(source: &'a dyn HeaderSource) -> Self {
        Self(Repr::Source(source))
    }
}

impl fmt::Debug for ResponseHeaders<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers may contain secrets.
        f.debug_struct("ResponseHeaders").finish_non_exhaustive()
    }
}

impl fmt::Debug for ResponseMeta<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The headers and the body may contain secrets.
        f.debug_struct("ResponseMeta").field("status", &self.status).finish_non_exhaustive()
    }
}

/// The parsed content of a response.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ParsedResponse {
    /// The reported windows; empty if the response reports none.
    pub usage: UsageReport,
    /// Why the request was rejected; `None` if it was not.
    pub failure: Option<Rejection>,
}

impl ParsedResponse {
    /// Creates a result of these parts.
    #[must_use]
    pub fn new(usage: UsageReport, failure: Option<Rejection>) -> Self {
        Self { usage, failure }
    }
}

/// Why a provider rejected an ordinary request.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Rejection {
    /// The kind of rejection, by the caller's reaction.
    pub kind: RejectionKind,
    /// How long to wait, if the provider states it.
    pub retry_after: Option<Duration>,
    /// The exhausted window, if stated.
    pub window: Option<WindowId>,
    /// When that window resets, if stated.
    pub resets_at: Option<Timestamp>,
    /// The scope of that window; `None` for the whole account. The rest of the account stays available.
    pub scope: Option<Scope>,
}

impl Rejection {
    /// Creates a rejection of this kind without details.
    #[must_use]
    pub fn new(kind: RejectionKind) -> Self {
        Self { kind, retry_after: None, window: None, resets_at: None, scope: None }
    }

    /// The rejection that a status code alone implies; `None` if it implies none.
    ///
    /// A 429 alone does not imply an exhausted quota. Only a provider-specific parser can detect that.
    #[must_use]
    pub fn of_status(status: u16) -> Option<Self> {
        let kind = match status {
            0..=399 => return None,
            401 => RejectionKind::Unauthorized,
            // The account has no money left for the request.
            402 => RejectionKind::QuotaExhausted,
            403 => RejectionKind::Forbidden,
            429 => RejectionKind::Throttled,
            408 | 500.. => RejectionKind::Overloaded,
            _ => RejectionKind::InvalidRequest,
        };
        Some(Self::new(kind))
    }

    /// Sets how long to wait.
    #[must_use]
    pub fn retry_after(mut self, duration: impl Into<Option<Duration>>) -> Self {
        self.retry_after = duration.into();
        self
    }

    /// Sets the exhausted window.
    #[must_use]
    pub fn window(mut self, window: impl Into<Option<WindowId>>) -> Self {
        self.window = window.into();
        self
    }

    /// Sets when the exhausted window resets.
    #[must_use]
    pub fn resets_at(mut self, at: impl Into<Option<Timestamp>>) -> Self {
        self.resets_at = at.into();
        self
    }

    /// Sets the scope of the exhausted window.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<Option<Scope>>) -> Self {
        self.scope = scope.into();
        self
    }
}

/// The kinds of rejection, by the caller's reaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RejectionKind {
    /// A window is exhausted. The account, or one model on it, is unavailable until the window resets.
    QuotaExhausted,
    /// The request was rate limited, so the caller must pause. The account has quota left.
    Throttled,
    /// The login was rejected, so the user must log in again.
    Unauthorized,
    /// The credential is valid, but a policy of the provider forbids the request.
    Forbidden,
    /// The provider is overloaded, failing or unreachable, for any account.
    Overloaded,
    /// The request is invalid, and would be rejected for every account.
    InvalidRequest,
    /// A kind that a newer program defined. A rewrite preserves it.
    #[serde(untagged)]
    Other(UnknownWord),
}

impl RejectionKind {
    /// The kind as a stable identifier, such as `quota_exhausted`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QuotaExhausted => "quota_exhausted",
            Self::Throttled => "throttled",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Overloaded => "overloaded",
            Self::InvalidRequest => "invalid_request",
            Self::Other(word) => word.as_str(),
        }
    }
}

/// Displays the kind as text for users.
impl fmt::Display for RejectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::QuotaExhausted => "quota exhausted",
            Self::Throttled => "rate limited",
            Self::Unauthorized => "login rejected",
            Self::Forbidden => "forbidden",
            Self::Overloaded => "provider overloaded",
            Self::InvalidRequest => "invalid request",
            Self::Other(_) => "failed",
        })
    }
}

impl<'de> Deserialize<'de> for RejectionKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let known = [
            Self::QuotaExhausted,
            Self::Throttled,
            Self::Unauthorized,
            Self::Forbidden,
            Self::Overloaded,
            Self::InvalidRequest,
        ];
        let word = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Ok(known
            .into_iter()
            .find(|kind| kind.as_str() == word)
            .unwrap_or_else(|| Self::Other((&*word).into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(status: u16) -> Option<RejectionKind> {
        Rejection::of_status(status).map(|failure| failure.kind)
    }

    #[test]
    fn a_429_alone_does_not_imply_an_exhausted_quota() {
        assert_eq!(kind_of(429), Some(RejectionKind::Throttled));
    }

    #[test]
    fn required_payment_is_an_exhausted_quota() {
        assert_eq!(kind_of(402), Some(RejectionKind::QuotaExhausted));
    }

    #[test]
    fn a_successful_status_is_no_rejection() {
        assert_eq!((kind_of(200), kind_of(304)), (None, None));
    }

    #[test]
    fn server_errors_are_an_overloaded_provider() {
        for status in [408, 500, 502, 503, 529] {
            assert_eq!(kind_of(status), Some(RejectionKind::Overloaded), "{status}");
        }
    }

    #[test]
    fn client_errors_are_an_invalid_request() {
        for status in [400, 404, 413, 422] {
            assert_eq!(kind_of(status), Some(RejectionKind::InvalidRequest), "{status}");
        }
    }

    #[test]
    fn kinds_survive_serialization() {
        for kind in
            [RejectionKind::QuotaExhausted, RejectionKind::InvalidRequest, RejectionKind::Unauthorized]
        {
            let text = serde_json::to_string(&kind).unwrap();

            assert_eq!(text, format!("\"{}\"", kind.as_str()));
            assert_eq!(serde_json::from_str::<RejectionKind>(&text).unwrap(), kind);
        }
    }

    #[test]
    fn an_unknown_kind_survives_serialization() {
        let kind: RejectionKind = serde_json::from_str("\"eclipse\"").unwrap();

        assert_eq!(kind, RejectionKind::Other("eclipse".into()));
        assert_eq!(serde_json::to_string(&kind).unwrap(), "\"eclipse\"");
    }

    #[test]
    fn a_header_source_is_read_by_name_in_any_case() {
        struct Two;
        impl HeaderSource for Two {
            fn for_each<'a>(&'a self, visit: &mut dyn FnMut(&'a str, &'a [u8])) {
                visit("Retry-After", b"1");
                visit("retry-after", b"2");
                visit("x-binary", b"\xff");
            }
        }
        let response = ResponseMeta::new(429, &Two as &dyn HeaderSource, Timestamp::UNIX_EPOCH);

        assert_eq!((response.header("retry-after"), response.header("x-binary")), (Some("1"), None));
    }

    #[test]
    fn debug_hides_headers_and_body() {
        let headers = [("x-key".to_owned(), "n33dle".to_owned())];
        let response = ResponseMeta::new(429, &headers, Timestamp::UNIX_EPOCH).body(b"n33dle");

        assert!(!format!("{response:?}").contains("n33dle"));
    }
}
