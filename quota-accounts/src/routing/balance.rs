//! The preference among eligible accounts: weighted rendezvous for sessions, and the soonest reset.
//! `evaluate` decides whether an account is eligible.

use jiff::Timestamp;

use super::evaluate::{limits, remaining};
use super::{Candidate, Request, RoutingPolicy};

/// The assumed time to the reset of a window whose reset is unknown.
const UNKNOWN_RUN_SECONDS: i64 = 5 * 3600;
/// The minimum time to a reset, so that an imminent reset does not outweigh everything else.
const MIN_RUN_SECONDS: i64 = 60;
/// The weight of an account without readings: a full window over one day. Its first request provides readings.
const UNKNOWN_WEIGHT: f64 = 10_000.0 / 86_400.0;
/// Less than any other weight, but not zero, so that the score is finite.
const MIN_WEIGHT: f64 = 1e-9;

/// The rate at which an account may be used without exhaustion before a reset, in basis points per second: the minimum over all
/// windows that count. More headroom never lowers it.
pub(super) fn weight(
    candidate: &Candidate<'_>,
    request: &Request,
    now: Timestamp,
    policy: &RoutingPolicy,
) -> f64 {
    let (_, killswitch) = limits(candidate, policy);
    let counted = candidate.snapshot().windows().iter();
    let counted = counted.filter(|window| request.counts(window));
    let rates = counted.filter_map(|window| {
        let left = f64::from(remaining(candidate, window, killswitch, now)?);
        let run = window.expires_at().map_or(UNKNOWN_RUN_SECONDS, |at| at.as_second() - now.as_second());
        #[expect(clippy::cast_precision_loss, reason = "timestamps in seconds are below 2^53")]
        let run = run.max(MIN_RUN_SECONDS) as f64;
        Some(left / run)
    });
    rates.reduce(f64::min).unwrap_or(UNKNOWN_WEIGHT).max(MIN_WEIGHT)
}

/// The score of an account for one session; the lowest wins.
///
/// Weighted rendezvous hashing: a score depends only on the session and the account, so adding or removing an account moves only
/// the sessions that it gains or loses. A greater weight never raises the score.
pub(super) fn rendezvous_score(candidate: &Candidate<'_>, request: &Request, weight: f64) -> u64 {
    let draw = request.session().map_or(1.0, |session| {
        #[expect(clippy::cast_precision_loss, reason = "53 bits are used")]
        let uniform = ((session.with(candidate.id.as_str()) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        // Do not use `f64::ln`, because its last bit differs between platforms, and hosts must agree on the account of
        // a session.
        -libm::log(uniform)
    });
    // The bits of positive floats have the same order as the floats.
    (draw / weight).to_bits()
}

/// The latest reset among the account's windows that count, in milliseconds; `i64::MAX` if unknown.
pub(super) fn latest_reset(candidate: &Candidate<'_>, request: &Request, now: Timestamp) -> i64 {
    let counted = candidate.snapshot().windows().iter();
    let counted = counted.filter(|window| request.counts(window));
    let resets = counted.filter_map(|window| window.expires_at()).filter(|at| *at > now);
    resets.max().map_or(i64::MAX, |at| at.as_millisecond())
}
