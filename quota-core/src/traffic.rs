//! What a provider says on ordinary traffic, and why it turned a request away.
//! A parser knows a provider's format; the router decides what follows for accounts.

mod retry_after;

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

pub use retry_after::{LONGEST_WAIT, bounded_wait, retry_after, wait_of_seconds};

use crate::{ProviderId, Scope, UnknownWord, UsageReport, WindowId};

/// Reads what a provider says on ordinary traffic.
///
/// It works on what it is given and nothing else: no I/O, no clock. What it does not understand says nothing; it never
/// fails, because a response that was served must not be lost for a header that was not understood.
pub trait ResponseParser: fmt::Debug + Send + Sync + 'static {
    /// The provider whose answers this reads.
    fn provider(&self) -> ProviderId;

    /// Reads one answer.
    fn read(&self, answer: &ResponseMeta<'_>) -> ParsedResponse;
}

/// One answer of a provider, as far as it speaks of limits.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct ResponseMeta<'a> {
    /// The status.
    pub status: u16,
    /// The headers; names may be in any case.
    pub headers: &'a [(String, String)],
    /// The body, or its beginning, of an answer that turned the request away; empty if it was not kept.
    pub body: &'a [u8],
    /// When the answer arrived.
    pub now: Timestamp,
}

impl<'a> ResponseMeta<'a> {
    /// An answer of this status, which arrived at `now`.
    #[must_use]
    pub fn new(status: u16, headers: &'a [(String, String)], now: Timestamp) -> Self {
        Self { status, headers, body: &[], now }
    }

    /// Gives the body, or its beginning.
    #[must_use]
    pub fn body(mut self, body: &'a [u8]) -> Self {
        self.body = body;
        self
    }
}

impl fmt::Debug for ResponseMeta<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither headers nor body: either may hold anything.
        f.debug_struct("ResponseMeta").field("status", &self.status).finish_non_exhaustive()
    }
}

/// What an answer said.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ParsedResponse {
    /// What it said about windows; empty if nothing.
    pub usage: UsageReport,
    /// Why it turned the request away; `None` if it did not.
    pub failure: Option<Rejection>,
}

impl ParsedResponse {
    /// What was said about windows, and why the request was turned away if it was.
    #[must_use]
    pub fn new(usage: UsageReport, failure: Option<Rejection>) -> Self {
        Self { usage, failure }
    }
}

/// Why a provider turned an ordinary request away.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Rejection {
    /// What kind of failure it is, by what follows from it.
    pub kind: RejectionKind,
    /// How long the provider wants to be left alone, if it said.
    pub retry_after: Option<Duration>,
    /// The window that is spent, where that was said.
    pub window: Option<WindowId>,
    /// When that window begins anew, where that was said.
    pub resets_at: Option<Timestamp>,
    /// What that window counts, if not everything: the rest of the account goes on.
    pub scope: Option<Scope>,
}

impl Rejection {
    /// A failure of which nothing else is known.
    #[must_use]
    pub fn new(kind: RejectionKind) -> Self {
        Self { kind, retry_after: None, window: None, resets_at: None, scope: None }
    }

    /// What a status alone says; `None` if it is no rejection.
    ///
    /// A 429 alone is not a spent quota: that needs a provider's word for it.
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

    /// Says how long the provider wants to be left alone.
    #[must_use]
    pub fn retry_after(mut self, span: impl Into<Option<Duration>>) -> Self {
        self.retry_after = span.into();
        self
    }

    /// Says which window is spent.
    #[must_use]
    pub fn window(mut self, window: impl Into<Option<WindowId>>) -> Self {
        self.window = window.into();
        self
    }

    /// Says when the spent window begins anew.
    #[must_use]
    pub fn resets_at(mut self, at: impl Into<Option<Timestamp>>) -> Self {
        self.resets_at = at.into();
        self
    }

    /// Says what the spent window counts.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<Option<Scope>>) -> Self {
        self.scope = scope.into();
        self
    }
}

/// The kinds of failure, by what follows from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RejectionKind {
    /// A window of the account is used up: the account, or one model on it, is out until the window begins anew.
    #[serde(rename = "quota_spent")]
    QuotaExhausted,
    /// Too many requests in a moment: pause. The account has quota left.
    Throttled,
    /// The login was rejected: a person must log in again.
    #[serde(rename = "login_dead")]
    Unauthorized,
    /// The credential is valid, but a policy forbids this.
    #[serde(rename = "not_allowed")]
    Forbidden,
    /// The provider is overloaded, broken or out of reach, whatever the account.
    Overloaded,
    /// The request itself is at fault: it would be turned away everywhere.
    #[serde(rename = "ours")]
    InvalidRequest,
    /// A kind that only a newer program knows.
    #[serde(untagged)]
    Other(UnknownWord),
}

impl RejectionKind {
    /// The kind as a stable word for programs, such as `quota_spent`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QuotaExhausted => "quota_spent",
            Self::Throttled => "throttled",
            Self::Unauthorized => "login_dead",
            Self::Forbidden => "not_allowed",
            Self::Overloaded => "overloaded",
            Self::InvalidRequest => "ours",
            Self::Other(word) => word.as_str(),
        }
    }
}

/// For people: the same in words.
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
