//! The observation of the headers of one response, compared with iterating over them.

use std::hint::black_box;

use allocation_counter::measure;
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use quota_core::ProviderId;
use quota_core::provider::{HeaderSource, ResponseMeta};
use quota_http::parse_response;

use crate::measure::interleaved;
use crate::row::Row;

const ITERATIONS: usize = 4_000;
/// The most that an observation may take, in nanoseconds.
const MAX_NONE: f64 = 200.0;
const MAX_ALL: f64 = 2_000.0;

pub(super) const ANTHROPIC: ProviderId = ProviderId::from_static("anthropic");
pub(super) const NOW: Timestamp = Timestamp::constant(1_790_000_000, 0);

/// Twenty headers of an ordinary response, none of them about limits.
pub(super) fn none() -> HeaderMap {
    map([
        ("content-type", "text/event-stream; charset=utf-8"),
        ("cache-control", "no-cache"),
        ("date", "Mon, 21 Sep 2026 12:53:20 GMT"),
        ("connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("vary", "accept-encoding"),
        ("via", "1.1 made-up"),
        ("server", "made-up"),
        ("server-timing", "proxy;dur=120"),
        ("strict-transport-security", "max-age=31536000; includeSubDomains"),
        ("x-robots-tag", "none"),
        ("x-envoy-upstream-service-time", "117"),
        ("x-content-type-options", "nosniff"),
        ("request-id", "req-made-up"),
        ("content-security-policy", "default-src 'none'"),
        ("access-control-allow-origin", "*"),
        ("access-control-expose-headers", "request-id"),
        ("referrer-policy", "no-referrer"),
        ("alt-svc", "h3=\":443\""),
        ("age", "0"),
    ])
}

/// Twenty headers about limits.
pub(super) fn all() -> HeaderMap {
    map([
        ("anthropic-ratelimit-unified-status", "allowed_warning"),
        ("anthropic-ratelimit-unified-reset", "1790010000"),
        ("anthropic-ratelimit-unified-representative-claim", "five_hour"),
        ("anthropic-ratelimit-unified-5h-status", "allowed_warning"),
        ("anthropic-ratelimit-unified-5h-utilization", "0.91"),
        ("anthropic-ratelimit-unified-5h-reset", "1790010000"),
        ("anthropic-ratelimit-unified-5h-surpassed-threshold", "0.9"),
        ("anthropic-ratelimit-unified-7d-status", "allowed"),
        ("anthropic-ratelimit-unified-7d-utilization", "0.35"),
        ("anthropic-ratelimit-unified-7d-reset", "1790400000"),
        ("anthropic-ratelimit-unified-7d_oi-status", "allowed"),
        ("anthropic-ratelimit-unified-7d_oi-utilization", "0.5"),
        ("anthropic-ratelimit-unified-7d_oi-reset", "1790400000"),
        ("anthropic-ratelimit-unified-fallback", "available"),
        ("anthropic-ratelimit-unified-fallback-percentage", "0.5"),
        ("anthropic-ratelimit-unified-overage-status", "rejected"),
        ("anthropic-ratelimit-unified-overage-disabled-reason", "out_of_credits"),
        ("anthropic-ratelimit-requests-limit", "50"),
        ("anthropic-ratelimit-requests-remaining", "49"),
        ("anthropic-ratelimit-requests-reset", "2026-09-21T12:54:00Z"),
    ])
}

fn map(headers: [(&'static str, &'static str); 20]) -> HeaderMap {
    headers
        .into_iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect()
}

struct Headers<'a>(&'a HeaderMap);

impl HeaderSource for Headers<'_> {
    fn for_each<'a>(&'a self, visit: &mut dyn FnMut(&'a str, &'a [u8])) {
        for (name, value) in self.0 {
            visit(name.as_str(), value.as_bytes());
        }
    }
}

fn observe(headers: &HeaderMap) {
    let source: &dyn HeaderSource = &Headers(black_box(headers));
    black_box(parse_response(&ANTHROPIC, &ResponseMeta::new(200, source, NOW)));
}

fn iterate(headers: &HeaderMap) {
    let length = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
    black_box(black_box(headers).iter().map(length).sum::<usize>());
}

pub(super) fn rows() -> [Row; 2] {
    let (none, all) = (none(), all());
    let [of_none, iterated_none, of_all, iterated_all] = interleaved(
        1,
        ITERATIONS,
        [
            &|range| range.for_each(|_| observe(&none)),
            &|range| range.for_each(|_| iterate(&none)),
            &|range| range.for_each(|_| observe(&all)),
            &|range| range.for_each(|_| iterate(&all)),
        ],
    );
    let allocations = measure(|| observe(&none)).count_total;
    let peer = "iterating the header map";
    [
        Row::within(
            "headers.none",
            (of_none, "ns"),
            (peer, iterated_none),
            &format!("≤ {MAX_NONE} ns, 0 allocations ({allocations})"),
            of_none <= MAX_NONE && allocations == 0,
        ),
        Row::within(
            "headers.all",
            (of_all, "ns"),
            (peer, iterated_all),
            &format!("≤ {MAX_ALL} ns"),
            of_all <= MAX_ALL,
        ),
    ]
}
