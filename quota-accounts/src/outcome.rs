//! The outcome of a request, and its consequence for the account, the model and the next attempt.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use quota_core::UsageReport;
use quota_core::model::{CredentialFingerprint, Scope};
use quota_core::provider::{
    ParsedResponse, Rejection, RejectionKind, ResponseMeta, ResponseParser, bounded_wait, retry_after,
};

use crate::routing::Block;
use crate::{Request, RoutingPolicy};

/// The outcome of a request that a program sent to a provider.
///
/// ```
/// use quota_accounts::RequestOutcome;
///
/// let outcome = RequestOutcome::from_response(429, [("retry-after", "30")]);
/// let outcome = outcome.body(br#"{"error":{"type":"rate_limit_error"}}"#);
/// ```
///
/// The account's [`ResponseParser`] selects the headers it needs. Headers with credentials are not stored, and `Debug` shows
/// neither headers nor the body.
#[derive(Clone)]
#[must_use]
pub struct RequestOutcome {
    kind: Response,
    received_at: Option<Timestamp>,
}

#[derive(Clone)]
enum Response {
    Answered { status: u16, headers: Vec<(String, String)>, body: Vec<u8> },
    Unreachable,
    Cancelled,
}

impl RequestOutcome {
    /// The provider responded with this status and these headers, such as `&http::HeaderMap`.
    pub fn from_response<N: AsRef<str>, V: AsRef<[u8]>>(
        status: u16,
        headers: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let mut stored = Vec::new();
        for (name, value) in headers {
            if stored.len() == MAX_HEADERS {
                break;
            }
            let name = name.as_ref();
            let Ok(value) = std::str::from_utf8(value.as_ref()) else { continue };
            if value.len() <= MAX_VALUE_LEN && !has_credentials(name) {
                stored.push((name.to_ascii_lowercase(), value.to_owned()));
            }
        }
        Self::of(Response::Answered { status, headers: stored, body: Vec::new() })
    }

    /// The provider was unreachable, or closed the connection early.
    pub fn unreachable() -> Self {
        Self::of(Response::Unreachable)
    }

    /// The request was cancelled before its outcome was known.
    pub fn cancelled() -> Self {
        Self::of(Response::Cancelled)
    }

    fn of(kind: Response) -> Self {
        Self { kind, received_at: None }
    }

    /// Sets when the headers arrived, for a response that is reported later, such as after a long stream. Readings get this
    /// time, and waits count from it. The default is the time of the report, which also replaces a time in the future.
    ///
    /// Use the manager's clock.
    pub fn received_at(mut self, at: Timestamp) -> Self {
        self.received_at = Some(at);
        self
    }

    /// When the response arrived: the time that was set, but not after `now`.
    pub(crate) fn received_or(&self, now: Timestamp) -> Timestamp {
        self.received_at.map_or(now, |at| at.min(now))
    }

    /// Sets the body of a rejection, or its beginning. Some providers state the reason only there.
    pub fn body(mut self, bytes: &[u8]) -> Self {
        if let Response::Answered { body, .. } = &mut self.kind {
            *body = bytes[..bytes.len().min(MAX_BODY_LEN)].to_vec();
        }
        self
    }

    /// The status, if the provider responded.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match &self.kind {
            Response::Answered { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Parses the response. Without a parser, only the status and the requested wait count.
    pub(crate) fn parse(&self, parser: Option<&dyn ResponseParser>, now: Timestamp) -> ParsedResponse {
        let no_usage = || UsageReport::from_headers([]);
        match &self.kind {
            Response::Answered { status, headers, body } => {
                let response = ResponseMeta::new(*status, headers, now).body(body);
                if let Some(parser) = parser {
                    return parser.parse(&response);
                }
                let wait = retry_after(|name| response.header(name), Some(now));
                let failure = Rejection::of_status(*status).map(|failure| failure.retry_after(wait));
                ParsedResponse::new(no_usage(), failure)
            }
            Response::Unreachable => {
                ParsedResponse::new(no_usage(), Some(Rejection::new(RejectionKind::Overloaded)))
            }
            Response::Cancelled => ParsedResponse::new(no_usage(), None),
        }
    }
}

/// Shows only the kind and the status, because the headers and the body may contain secrets.
impl fmt::Debug for RequestOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Response::Answered { status, .. } => f.debug_tuple("Answered").field(status).finish(),
            Response::Unreachable => f.write_str("Unreachable"),
            Response::Cancelled => f.write_str("Cancelled"),
        }
    }
}

/// Bounds on the stored part of a hostile response.
const MAX_HEADERS: usize = 256;
const MAX_VALUE_LEN: usize = 1024;
const MAX_BODY_LEN: usize = 16 * 1024;

/// Whether HTTP defines the header to carry a credential.
fn has_credentials(name: &str) -> bool {
    ["authorization", "cookie", "proxy-authorization", "set-cookie"]
        .iter()
        .any(|other| other.eq_ignore_ascii_case(name))
}

/// What to do with a request after its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryAdvice {
    /// Do nothing: the request succeeded.
    Done,
    /// Retry at once on another account.
    OtherAccount,
    /// Retry at once on the same account, with its current credential.
    SameAccount,
    /// Retry after this wait; another account would not help. The wait is at least one second from the response, minus the time
    /// since [`RequestOutcome::received_at`].
    After(Duration),
    /// Do not retry: every account would reject the request.
    DoNotRetry,
}

impl RetryAdvice {
    /// The advice when `elapsed` has passed since the response.
    pub(crate) fn later(self, elapsed: Duration) -> Self {
        match self {
            Self::After(wait) => Self::After(wait.saturating_sub(elapsed)),
            other => other,
        }
    }
}

/// The consequence of a rejection.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Consequence {
    pub(crate) block: Option<Block>,
    pub(crate) next: RetryAdvice,
}

/// Classifies a rejection: which block it causes, and whether and where to retry.
pub(crate) fn classify(
    failure: &Rejection,
    status: Option<u16>,
    request: &Request,
    fingerprint: Option<CredentialFingerprint>,
    now: Timestamp,
    policy: &RoutingPolicy,
) -> Consequence {
    let fallback_on = status.is_some_and(|status| policy.fallback_on.contains(&status));
    let later = |wait: Duration| now.checked_add(wait).unwrap_or(Timestamp::MAX);
    let requested = failure.retry_after.map(bounded_wait);
    let wait = requested.unwrap_or(policy.throttle_cooldown).max(MIN_WAIT);
    let block = |until: Option<Timestamp>| Block::new(failure.kind, now).until(until);
    let stay = RetryAdvice::After(wait);
    match failure.kind {
        RejectionKind::QuotaExhausted => {
            let reset = failure.resets_at.filter(|at| *at > now);
            // A wait of zero gives no information about the quota, and would have no effect.
            let requested = requested.filter(|wait| !wait.is_zero());
            let wait = requested.unwrap_or(policy.exhausted_cooldown).max(MIN_WAIT);
            let until = reset.unwrap_or_else(|| later(wait));
            // If the response does not name the model, use the requested one. A 402 is about money, which no window
            // counts.
            let needs_payment = status == Some(402);
            let block = block(Some(until)).window(failure.window.clone()).needs_payment(needs_payment);
            let block = match (&failure.scope, request.model()) {
                (None, _) => Some(block),
                (Some(Scope { model: Some(model), .. }), _) => Some(block.model(model.clone())),
                (Some(_), Some(model)) => Some(block.exactly(model.to_owned())),
                // An unnamed part of the account is exhausted. It must not block the rest.
                (Some(_), None) => None,
            };
            Consequence { block, next: RetryAdvice::OtherAccount }
        }
        RejectionKind::Throttled => {
            let block = Some(block(Some(later(wait))));
            Consequence { block, next: if fallback_on { RetryAdvice::OtherAccount } else { stay } }
        }
        RejectionKind::Unauthorized => {
            let next = if fallback_on { RetryAdvice::OtherAccount } else { RetryAdvice::DoNotRetry };
            // Without a fingerprint, the router cannot recognize a new credential, so the block must expire.
            let until = fingerprint.is_none().then(|| later(policy.forbidden_cooldown));
            Consequence { block: Some(block(until).fingerprint(fingerprint)), next }
        }
        RejectionKind::Forbidden => {
            let until = later(policy.forbidden_cooldown);
            let next = if fallback_on { RetryAdvice::OtherAccount } else { RetryAdvice::DoNotRetry };
            Consequence { block: Some(block(Some(until)).fingerprint(fingerprint)), next }
        }
        RejectionKind::Overloaded => {
            Consequence { block: None, next: if fallback_on { RetryAdvice::OtherAccount } else { stay } }
        }
        RejectionKind::InvalidRequest => Consequence {
            block: None,
            next: if fallback_on { RetryAdvice::OtherAccount } else { RetryAdvice::DoNotRetry },
        },
        _ => Consequence { block: None, next: RetryAdvice::DoNotRetry },
    }
}

/// The minimum wait before a retry. Otherwise `Retry-After: 0` would cause a hot loop.
const MIN_WAIT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use quota_core::provider::LONGEST_WAIT;
    use quota_core::{Percent, Snapshot, WindowId, WindowReading};

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn after(failure: Rejection, status: u16) -> Consequence {
        let request = Request::new().with_model("claude-opus-4-5");
        classify(&failure, Some(status), &request, None, now(), &RoutingPolicy::default())
    }

    fn read(outcome: &RequestOutcome) -> Option<Rejection> {
        outcome.parse(None, now()).failure
    }

    #[test]
    fn an_exhausted_quota_blocks_the_account_until_its_reset() {
        let reset = now() + SignedDuration::from_hours(3);
        let failure =
            Rejection::new(RejectionKind::QuotaExhausted).window(WindowId::five_hour()).resets_at(reset);

        let Consequence { block, next } = after(failure, 429);

        let block = block.unwrap();
        assert_eq!((block.until, block.model, next), (Some(reset), None, RetryAdvice::OtherAccount));
    }

    #[test]
    fn an_exhausted_window_of_an_unnamed_model_blocks_the_requested_model() {
        let failure = Rejection::new(RejectionKind::QuotaExhausted).scope(Scope::unknown_model());

        let block = after(failure, 429).block.unwrap();

        assert_eq!(block.model.as_deref(), Some("claude-opus-4-5"));
    }

    #[test]
    fn an_exhausted_unnamed_part_does_not_block_the_account() {
        let failure = Rejection::new(RejectionKind::QuotaExhausted).scope(Scope::unknown_model());

        let found = classify(&failure, Some(429), &Request::new(), None, now(), &RoutingPolicy::default());

        assert_eq!(found, Consequence { block: None, next: RetryAdvice::OtherAccount });
    }

    #[test]
    fn an_exhausted_quota_moves_the_request_whatever_the_status() {
        assert_eq!(after(Rejection::new(RejectionKind::QuotaExhausted), 400).next, RetryAdvice::OtherAccount);
    }

    #[test]
    fn a_past_reset_is_replaced_by_the_exhausted_cooldown() {
        let failure = Rejection::new(RejectionKind::QuotaExhausted).resets_at(now());

        let block = after(failure, 429).block.unwrap();

        assert_eq!(block.until, Some(now() + SignedDuration::from_mins(5)));
    }

    #[test]
    fn an_exhausted_quota_with_a_wait_of_zero_has_the_exhausted_cooldown() {
        for status in [402, 429] {
            let failure = Rejection::new(RejectionKind::QuotaExhausted).retry_after(Duration::ZERO);

            let block = after(failure, status).block.unwrap();

            assert_eq!(block.until, Some(now() + SignedDuration::from_mins(5)), "{status}");
        }
        let short = Rejection::new(RejectionKind::QuotaExhausted).retry_after(Duration::from_millis(1));
        assert_eq!(after(short, 429).block.unwrap().until, Some(now() + SignedDuration::from_secs(1)));
    }

    #[test]
    fn windows_with_capacity_do_not_end_a_block_by_a_402() {
        let half = WindowReading::new(WindowId::five_hour(), Percent::from_basis_points(5000));
        let later = Snapshot::of(&UsageReport::polled([half]), now() + SignedDuration::from_mins(1));
        let is_refuted = |status| {
            let failure = Rejection::new(RejectionKind::QuotaExhausted);
            after(failure, status).block.unwrap().is_refuted(&later)
        };

        assert_eq!((is_refuted(402), is_refuted(429)), (false, true));
    }

    #[test]
    fn a_429_without_details_is_throttling_not_exhausted_quota() {
        let failure = read(&RequestOutcome::from_response(429, [("content-type", "text/html")])).unwrap();

        let block = after(failure, 429).block.unwrap();

        assert_eq!(block.kind, RejectionKind::Throttled);
        assert_eq!(block.until, Some(now() + SignedDuration::from_secs(30)));
    }

    #[test]
    fn a_throttled_account_is_blocked_as_requested_for_at_least_a_second() {
        let requested = read(&RequestOutcome::from_response(429, [("Retry-After", "7")])).unwrap();
        let zero = read(&RequestOutcome::from_response(429, [("retry-after", "0")])).unwrap();

        assert_eq!(after(requested, 429).block.unwrap().until, Some(now() + SignedDuration::from_secs(7)));
        assert_eq!(after(zero, 429).block.unwrap().until, Some(now() + SignedDuration::from_secs(1)));
    }

    #[test]
    fn a_throttled_request_stays_if_fallback_on_lacks_429() {
        let failure = Rejection::new(RejectionKind::Throttled).retry_after(Duration::from_secs(7));
        let policy = RoutingPolicy::default().fallback_on([401]);

        let found = classify(&failure, Some(429), &Request::new(), None, now(), &policy);

        assert_eq!(found.next, RetryAdvice::After(Duration::from_secs(7)));
    }

    #[test]
    fn a_403_moves_the_request_and_blocks_the_credential() {
        let failure = read(&RequestOutcome::from_response(403, [("a", "b")])).unwrap();
        let fingerprint = CredentialFingerprint::from_hash(7);

        let found = classify(
            &failure,
            Some(403),
            &Request::new(),
            Some(fingerprint),
            now(),
            &RoutingPolicy::default(),
        );

        assert_eq!(found.next, RetryAdvice::OtherAccount);
        assert_eq!(found.block.unwrap().fingerprint, Some(fingerprint));
    }

    #[test]
    fn a_401_blocks_the_credential_until_it_changes() {
        let (failure, fingerprint) =
            (Rejection::new(RejectionKind::Unauthorized), Some(CredentialFingerprint::from_hash(7)));
        let found =
            classify(&failure, Some(401), &Request::new(), fingerprint, now(), &RoutingPolicy::default());

        assert_eq!((found.block.unwrap().until, found.next), (None, RetryAdvice::OtherAccount));
    }

    #[test]
    fn a_401_without_a_fingerprint_blocks_for_a_limited_time() {
        let found = after(Rejection::new(RejectionKind::Unauthorized), 401);

        let hour = now() + RoutingPolicy::default().forbidden_cooldown;
        assert_eq!(found.block.unwrap().until, Some(hour));
    }

    #[test]
    fn an_overloaded_provider_blocks_no_account_and_the_request_waits() {
        let failure = read(&RequestOutcome::from_response(529, [("retry-after", "3")])).unwrap();

        assert_eq!(
            after(failure, 529),
            Consequence { block: None, next: RetryAdvice::After(Duration::from_secs(3)) }
        );
    }

    #[test]
    fn a_requested_wait_of_zero_becomes_a_second() {
        let policy = RoutingPolicy::default().fallback_on([]);
        for status in [429, 503, 529] {
            let failure = read(&RequestOutcome::from_response(status, [("retry-after", "0")])).unwrap();

            let found = classify(&failure, Some(status), &Request::new(), None, now(), &policy);

            assert_eq!(found.next, RetryAdvice::After(Duration::from_secs(1)), "{status}");
        }
    }

    #[test]
    fn a_requested_wait_is_limited_to_24_hours() {
        let huge = "9".repeat(400);
        let failure = read(&RequestOutcome::from_response(529, [("retry-after", &huge)])).unwrap();
        let throttled = read(&RequestOutcome::from_response(429, [("retry-after", &huge)])).unwrap();

        let exhausted = Rejection::new(RejectionKind::QuotaExhausted).retry_after(Duration::MAX);

        let day = now().checked_add(LONGEST_WAIT).ok();
        assert_eq!(after(failure, 529).next, RetryAdvice::After(LONGEST_WAIT));
        assert_eq!(after(throttled, 429).block.unwrap().until, day);
        assert_eq!(after(exhausted, 429).block.unwrap().until, day);
    }

    #[test]
    fn a_wait_given_as_an_epoch_ends_at_that_time() {
        let at = (now().as_second() + 90).to_string();
        let failure = read(&RequestOutcome::from_response(429, [("retry-after", &*at)])).unwrap();

        assert_eq!(after(failure, 429).block.unwrap().until, Some(now() + SignedDuration::from_secs(90)));
    }

    #[test]
    fn an_exhausted_window_blocks_until_its_reset_even_if_weeks_away() {
        let reset = now() + SignedDuration::from_hours(29 * 24);
        let failure =
            Rejection::new(RejectionKind::QuotaExhausted).window(WindowId::monthly()).resets_at(reset);

        assert_eq!(after(failure.retry_after(Duration::MAX), 429).block.unwrap().until, Some(reset));
    }

    #[test]
    fn a_status_in_fallback_on_moves_the_request() {
        let failure = Rejection::new(RejectionKind::Overloaded);
        let policy = RoutingPolicy::default().fallback_on([529]);

        let found = classify(&failure, Some(529), &Request::new(), None, now(), &policy);

        assert_eq!(found.next, RetryAdvice::OtherAccount);
    }

    #[test]
    fn an_invalid_request_is_not_retried() {
        let failure = read(&RequestOutcome::from_response(400, [("a", "b")])).unwrap();

        assert_eq!(after(failure, 400), Consequence { block: None, next: RetryAdvice::DoNotRetry });
    }

    #[test]
    fn an_unreachable_provider_counts_as_overloaded() {
        let failure = read(&RequestOutcome::unreachable()).unwrap();

        assert_eq!(failure.kind, RejectionKind::Overloaded);
    }

    #[test]
    fn headers_with_credentials_are_not_stored() {
        let headers = [("set-cookie", "n33dle"), ("Authorization", "n33dle"), ("X-RateLimit-Reset", "5")];
        let outcome = RequestOutcome::from_response(200, headers);

        let Response::Answered { headers, .. } = &outcome.kind else { panic!("not a response") };
        assert_eq!(headers, &[("x-ratelimit-reset".to_owned(), "5".to_owned())]);
    }

    fn wait(headers: &[(&str, &str)]) -> Option<Duration> {
        let outcome = RequestOutcome::from_response(429, headers.iter().copied());
        outcome.parse(None, "2026-07-01T12:00:00Z".parse().unwrap()).failure.unwrap().retry_after
    }

    fn seconds(seconds: f64) -> Option<Duration> {
        Some(Duration::from_secs_f64(seconds))
    }

    #[test]
    fn without_a_parser_a_wait_in_seconds_counts() {
        assert_eq!(wait(&[("retry-after", "2974")]), seconds(2974.0));
        assert_eq!(wait(&[("retry-after", " 1.5 ")]), seconds(1.5));
        assert_eq!(wait(&[("retry-after", "0")]), seconds(0.0));
        assert_eq!(wait(&[("retry-after", "9"), ("retry-after-ms", "1500")]), seconds(1.5));
    }

    #[test]
    fn without_a_parser_a_wait_until_a_date_counts_from_the_responses_date() {
        let at = ("retry-after", "Wed, 01 Jul 2026 12:49:34 GMT");

        assert_eq!(wait(&[at]), seconds(2974.0));
        assert_eq!(wait(&[at, ("date", "Wed, 01 Jul 2026 12:49:30 GMT")]), seconds(4.0));
        assert_eq!(
            wait(&[at, ("date", "Mon, 29 Jun 2026 12:00:00 GMT")]),
            seconds(2974.0),
            "the response is from a cache"
        );
        assert_eq!(wait(&[("retry-after", "Wed, 01 Jul 2026 11:00:00 GMT")]), seconds(0.0), "it has passed");
    }

    #[derive(Debug)]
    struct Cloudflare;

    impl ResponseParser for Cloudflare {
        fn provider(&self) -> quota_core::ProviderId {
            quota_core::ProviderId::from_static("example")
        }

        fn parse(&self, response: &ResponseMeta<'_>) -> ParsedResponse {
            let failure = response.header("cf-mitigated").map(|_| Rejection::new(RejectionKind::Overloaded));
            ParsedResponse::new(UsageReport::from_headers([]), failure)
        }
    }

    #[test]
    fn a_parser_receives_headers_that_are_not_about_limits() {
        let outcome = RequestOutcome::from_response(403, [("CF-Mitigated", "challenge")]);

        let failure = outcome.parse(Some(&Cloudflare), now()).failure;

        assert_eq!(failure.map(|failure| failure.kind), Some(RejectionKind::Overloaded));
    }

    #[test]
    fn debug_shows_neither_headers_nor_body() {
        let outcome = RequestOutcome::from_response(429, [("x-ratelimit-a", "n33dle")]).body(b"n33dle");

        assert!(!format!("{outcome:?}").contains("n33dle"));
    }

    #[test]
    fn the_stored_part_of_a_hostile_response_is_bounded() {
        let headers = (0..10_000).map(|at| (format!("x-ratelimit-{at}"), "1"));
        let outcome = RequestOutcome::from_response(429, headers).body(&[b'a'; 1_000_000]);

        let Response::Answered { headers, body, .. } = &outcome.kind else { panic!("not a response") };
        assert_eq!((headers.len(), body.len()), (MAX_HEADERS, MAX_BODY_LEN));
    }
}
