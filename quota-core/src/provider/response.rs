//! Ordinary API responses: what they say about limits, and why a request was rejected.
//! A parser knows a provider's format; the router decides what follows for accounts.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use crate::model::{ProviderId, Scope, UnknownWord, UsageReport, WindowId};

/// Parses ordinary responses of a provider.
///
/// A parser does no I/O and reads no clock. It ignores what it does not recognise and never fails, because a served response must
/// not be lost for an unknown header.
pub trait ResponseParser: fmt::Debug + Send + Sync + 'static {
    /// The provider whose responses it parses.
    fn provider(&self) -> ProviderId;

    /// Parses one response.
    fn parse(&self, response: &ResponseMeta<'_>) -> ParsedResponse;
}

/// Metadata of one response.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct ResponseMeta<'a> {
    /// The status.
    pub status: u16,
    /// The headers; names may be in any case.
    pub headers: &'a [(String, String)],
    /// The body of a rejection, or its beginning; empty if it was not read.
    pub body: &'a [u8],
    /// When the response arrived.
    pub now: Timestamp,
}

impl<'a> ResponseMeta<'a> {
    /// Creates the metadata of a response that arrived at `now`.
    #[must_use]
    pub fn new(status: u16, headers: &'a [(String, String)], now: Timestamp) -> Self {
        Self { status, headers, body: &[], now }
    }

    /// Sets the body, or its beginning.
    #[must_use]
    pub fn body(mut self, body: &'a [u8]) -> Self {
        self.body = body;
        self
    }

    /// The first header of this name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        let header = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        header.map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for ResponseMeta<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither headers nor body: both may contain secrets.
        f.debug_struct("ResponseMeta").field("status", &self.status).finish_non_exhaustive()
    }
}

/// What a response says.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ParsedResponse {
    /// What it reports about windows; empty if nothing.
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
    /// The kind of rejection, by what follows from it.
    pub kind: RejectionKind,
    /// How long to wait, if the provider states it.
    pub retry_after: Option<Duration>,
    /// The exhausted window, if stated.
    pub window: Option<WindowId>,
    /// When that window resets, if stated.
    pub resets_at: Option<Timestamp>,
    /// What that window counts, if not everything: the rest of the account stays available.
    pub scope: Option<Scope>,
}

impl Rejection {
    /// Creates a rejection of this kind without details.
    #[must_use]
    pub fn new(kind: RejectionKind) -> Self {
        Self { kind, retry_after: None, window: None, resets_at: None, scope: None }
    }

    /// What a status alone says; `None` if it is no rejection.
    ///
    /// A 429 alone does not mean an exhausted quota: only a provider-specific parser can tell.
    #[must_use]
    pub fn of_status(status: u16) -> Option<Self> {
        let kind = match status {
            0..=399 => return None,
            401 => RejectionKind::Unauthorized,
            403 => RejectionKind::Forbidden,
            429 => RejectionKind::Throttled,
            408 | 500.. => RejectionKind::Overloaded,
            _ => RejectionKind::InvalidRequest,
        };
        Some(Self::new(kind))
    }

    /// Sets how long to wait.
    #[must_use]
    pub fn retry_after(mut self, span: impl Into<Option<Duration>>) -> Self {
        self.retry_after = span.into();
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

    /// Sets what the exhausted window counts.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<Option<Scope>>) -> Self {
        self.scope = scope.into();
        self
    }
}

/// The kinds of rejection, by what follows from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RejectionKind {
    /// A window is exhausted: the account, or one model on it, is unavailable until the window resets.
    QuotaExhausted,
    /// Rate limited: pause. The account has quota left.
    Throttled,
    /// The login was rejected: a person must log in again.
    Unauthorized,
    /// The credential is valid, but a policy forbids this.
    Forbidden,
    /// The provider is overloaded, failing or unreachable, for any account.
    Overloaded,
    /// The request is invalid: every account would reject it.
    InvalidRequest,
    /// A kind that only a newer program knows. It is written back unchanged.
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

/// The kind in words, for people.
impl fmt::Display for RejectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::QuotaExhausted => "quota spent",
            Self::Throttled => "throttled for a moment",
            Self::Unauthorized => "login refused",
            Self::Forbidden => "not allowed",
            Self::Overloaded => "provider overloaded",
            Self::InvalidRequest => "the request is at fault",
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
    fn a_429_alone_is_no_spent_quota() {
        assert_eq!(kind_of(429), Some(RejectionKind::Throttled));
    }

    #[test]
    fn a_good_answer_is_no_failure() {
        assert_eq!((kind_of(200), kind_of(304)), (None, None));
    }

    #[test]
    fn a_provider_that_is_overloaded_is_not_the_accounts_fault() {
        for status in [408, 500, 502, 503, 529] {
            assert_eq!(kind_of(status), Some(RejectionKind::Overloaded), "{status}");
        }
    }

    #[test]
    fn a_request_that_is_at_fault_is_at_fault_everywhere() {
        for status in [400, 404, 413, 422] {
            assert_eq!(kind_of(status), Some(RejectionKind::InvalidRequest), "{status}");
        }
    }

    #[test]
    fn every_kind_is_read_back_from_its_word() {
        for kind in
            [RejectionKind::QuotaExhausted, RejectionKind::InvalidRequest, RejectionKind::Unauthorized]
        {
            let text = serde_json::to_string(&kind).unwrap();

            assert_eq!(text, format!("\"{}\"", kind.as_str()));
            assert_eq!(serde_json::from_str::<RejectionKind>(&text).unwrap(), kind);
        }
    }

    #[test]
    fn a_kind_of_a_newer_program_is_written_back_as_it_was() {
        let kind: RejectionKind = serde_json::from_str("\"eclipse\"").unwrap();

        assert_eq!(kind, RejectionKind::Other("eclipse".into()));
        assert_eq!(serde_json::to_string(&kind).unwrap(), "\"eclipse\"");
    }

    #[test]
    fn neither_headers_nor_body_are_shown() {
        let headers = [("x-key".to_owned(), "n33dle".to_owned())];
        let traffic = ResponseMeta::new(429, &headers, Timestamp::UNIX_EPOCH).body(b"n33dle");

        assert!(!format!("{traffic:?}").contains("n33dle"));
    }
}
