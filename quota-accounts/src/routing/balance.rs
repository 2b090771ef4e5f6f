//! How new sessions are spread over accounts, and whose windows begin anew soonest.
//! Whether an account may serve at all is decided in `evaluate`.

use jiff::Timestamp;

use super::evaluate::{limits, remaining};
use super::{Candidate, Request, RoutingPolicy};

/// What a window is taken to have left to run where its reset is not known.
const UNKNOWN_RUN_SECONDS: i64 = 5 * 3600;
/// No window is so near its reset that it is worth everything.
const LEAST_RUN_SECONDS: i64 = 60;
/// The weight of an account of which nothing is known: a full day for a full window. It is tried, and then it is known.
const UNKNOWN_WEIGHT: f64 = 10_000.0 / 86_400.0;
/// So little that everything else goes first, and more than nothing: divisions stay finite.
const LEAST_WEIGHT: f64 = 1e-9;

/// How fast an account may be spent without being used up before its resets: of all windows that count, the one that
/// allows least. In basis points per second; more headroom never makes it less.
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
        #[expect(clippy::cast_precision_loss, reason = "seconds of all time fit well enough")]
        let run = run.max(LEAST_RUN_SECONDS) as f64;
        Some(left / run)
    });
    rates.reduce(f64::min).unwrap_or(UNKNOWN_WEIGHT).max(LEAST_WEIGHT)
}

/// The place of an account in the order for one session: least first.
///
/// Weighted rendezvous: each account draws a number that depends on the session and itself alone, so an account that comes
/// or goes moves only the sessions it gains or loses. A greater weight only ever brings an account forward.
pub(super) fn rendezvous_score(candidate: &Candidate<'_>, request: &Request, weight: f64) -> u64 {
    let drawn = request.session().map_or(1.0, |session| {
        #[expect(clippy::cast_precision_loss, reason = "53 bits are drawn")]
        let drawn = ((session.with(candidate.id.as_str()) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        // Not that of the system: the last bit of its logarithm is another one elsewhere, and with it the place of a session.
        -libm::log(drawn)
    });
    // Positive floats are ordered as their bits are.
    (drawn / weight).to_bits()
}

/// When the furthest window of an account begins anew; the end of time if that is not known.
pub(super) fn latest_reset(candidate: &Candidate<'_>, request: &Request, now: Timestamp) -> i64 {
    let counted = candidate.snapshot().windows().iter();
    let counted = counted.filter(|window| request.counts(window));
    let resets = counted.filter_map(|window| window.expires_at()).filter(|at| *at > now);
    resets.max().map_or(i64::MAX, |at| at.as_millisecond())
}
