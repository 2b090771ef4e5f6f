//! Whether one account may serve a request, and which rule says so.
//! Which of several accounts is taken is decided in `choose`.

use jiff::Timestamp;
use quota_core::model::Window;
use quota_core::provider::RejectionKind;
use quota_core::{Percent, Used, WindowId};

use super::{
    Candidate, Eligibility, LimitCheck, Limits, Reason, Request, RoutingPolicy, UnknownUsage, Verdict,
};

/// Judges one account.
#[inline]
pub(crate) fn evaluate(
    candidate: &Candidate<'_>,
    request: &Request,
    now: Timestamp,
    policy: &RoutingPolicy,
) -> Verdict {
    evaluate_by(candidate, request, now, policy, |_| None)
}

/// The same, with the end of unknown usage: when the account may be refreshed again.
///
/// Only a request without an account pays for that.
pub(crate) fn evaluate_with_retry(
    candidate: &Candidate<'_>,
    request: &Request,
    now: Timestamp,
    policy: &RoutingPolicy,
) -> Verdict {
    let pause = || now.checked_add(policy.throttle_cooldown).ok();
    let refreshed = |candidate: &Candidate<'_>| candidate.refreshed_from(request.model(), now);
    evaluate_by(candidate, request, now, policy, |candidate| refreshed(candidate).or_else(pause))
}

#[inline]
fn evaluate_by(
    candidate: &Candidate<'_>,
    request: &Request,
    now: Timestamp,
    policy: &RoutingPolicy,
    known_again: impl Fn(&Candidate<'_>) -> Option<Timestamp>,
) -> Verdict {
    if candidate.is_disabled {
        return Verdict::ineligible(Reason::Disabled, None);
    }
    if candidate.login_rejected {
        return Verdict::ineligible(Reason::LoginRejected, None);
    }
    let closed = policy.when_unknown != UnknownUsage::Allow;
    let needs_fresh = policy.when_unknown == UnknownUsage::DenyStale;
    let (min_remaining, killswitch) = limits(candidate, policy);
    // While the owner is unknown, readings may exclude the account but not admit it.
    let snapshot = candidate.raw_snapshot();
    let mut refused = later_of(blocked(candidate, request, now), candidate.credential_verdict());
    if candidate.has_unknown_owner && closed {
        refused = later_of(refused, Some(Verdict::ineligible(Reason::OwnerUnknown, known_again(candidate))));
    }
    let mut low = None;
    let mut unknown = (candidate.has_unknown_owner || snapshot.windows().is_empty()).then_some(None);
    let mut is_any_counted = false;
    for (place, window) in snapshot.windows().iter().enumerate() {
        if !request.counts(window) {
            continue;
        }
        is_any_counted = true;
        let used = window.used_at(now, candidate.fresh_for);
        let reason = match killswitch.check(window, used) {
            LimitCheck::Unknown => {
                unknown = Some(Some(place));
                continue;
            }
            LimitCheck::Exhausted => Reason::Exhausted,
            LimitCheck::Below { .. } => Reason::BelowKillswitch,
            LimitCheck::Passed { is_exact: false, .. } if needs_fresh => {
                unknown = Some(Some(place));
                continue;
            }
            // A stale reading that passes is used: the refresh in the background corrects it.
            LimitCheck::Passed { left, .. } => {
                if !is_reserved(candidate, request, window, || headroom_above(left, window, killswitch)) {
                    if low.is_none() && matches!(min_remaining.check(window, used), LimitCheck::Below { .. })
                    {
                        low = Some(place);
                    }
                    continue;
                }
                Reason::Reserved
            }
        };
        let until = match reason {
            // The end of the requests in flight is unknown, so it is estimated.
            Reason::Reserved => now.checked_add(policy.throttle_cooldown).ok(),
            _ => ends_at(window, candidate),
        };
        refused = later_of(refused, Some(Verdict::ineligible(reason, until).at(place)));
    }
    if let Some(verdict) = refused {
        return verdict;
    }
    if unknown.is_none() {
        let is_unread = |limits| request.first_unread(limits, snapshot).is_some();
        let is_unknown = is_unread(killswitch) || is_unread(min_remaining) || needs_fresh && !is_any_counted;
        unknown = is_unknown.then_some(None);
    }
    match (unknown, low) {
        (Some(place), _) if closed => {
            with_place(Verdict::ineligible(Reason::UnknownDenied, known_again(candidate)), place)
        }
        (_, Some(place)) => Verdict::new(Eligibility::LastResort, Reason::BelowMinimum).at(place),
        (Some(place), None) => with_place(Verdict::eligible(Reason::UnknownAllowed), place),
        (None, None) => Verdict::eligible(Reason::Available),
    }
}

fn with_place(verdict: Verdict, place: Option<usize>) -> Verdict {
    place.map_or(verdict, |place| verdict.at(place))
}

pub(super) fn limits<'a>(candidate: &Candidate<'a>, policy: &'a RoutingPolicy) -> (&'a Limits, &'a Limits) {
    let own = candidate.limits;
    let min_remaining = own.and_then(|own| own.min_remaining.as_ref()).unwrap_or(&policy.min_remaining);
    let killswitch = own.and_then(|own| own.killswitch.as_ref()).unwrap_or(&policy.killswitch);
    (min_remaining, killswitch)
}

/// The block that ends last of those that count.
fn blocked(candidate: &Candidate<'_>, request: &Request, now: Timestamp) -> Option<Verdict> {
    let mut found = None;
    for block in candidate.own_blocks() {
        if !block.is_live(now) || !block.counts_for(request.model()) || block.is_refuted(candidate.snapshot())
        {
            continue;
        }
        let reason = match block.kind {
            RejectionKind::QuotaExhausted => Reason::QuotaExhausted,
            RejectionKind::Throttled => Reason::Throttled,
            RejectionKind::Unauthorized => Reason::LoginRejected,
            RejectionKind::Forbidden => Reason::Forbidden,
            // Neither is the account's fault, so neither is a reason to avoid it.
            RejectionKind::Overloaded | RejectionKind::InvalidRequest => continue,
            _ => Reason::Other,
        };
        found = later_of(found, Some(Verdict::ineligible(reason, block.until)));
    }
    found
}

/// The refusal that lasts longer: an account is of use again when the last of its refusals has ended.
fn later_of(one: Option<Verdict>, other: Option<Verdict>) -> Option<Verdict> {
    let (Some(a), Some(b)) = (one, other) else { return one.or(other) };
    let a_lasts = match (a.retry_at, b.retry_at) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(a), Some(b)) => a >= b,
    };
    Some(if a_lasts { a } else { b })
}

/// When a window that is used up will be no more: at its reset, or, where none was said, when the reading is no longer
/// believed.
fn ends_at(window: &Window, candidate: &Candidate<'_>) -> Option<Timestamp> {
    window.expires_at().or_else(|| window.observed_at().checked_add(candidate.fresh_for).ok())
}

/// What requests under way may use of a window together, in basis points: what is left above the killswitch. `None` if it is not
/// known.
pub(crate) fn headroom(
    candidate: &Candidate<'_>,
    window: &WindowId,
    now: Timestamp,
    policy: &RoutingPolicy,
) -> Option<u32> {
    let window = candidate.snapshot().window(window)?;
    let left = window.used_at(now, candidate.fresh_for).lower_bound()?.remaining();
    Some(headroom_above(left, window, limits(candidate, policy).1))
}

fn headroom_above(left: Percent, window: &Window, killswitch: &Limits) -> u32 {
    left.basis_points().saturating_sub(killswitch.min_remaining_of(window.id()).basis_points())
}

/// Whether requests under way, and this one, would use up the `headroom` that there is.
fn is_reserved(
    candidate: &Candidate<'_>,
    request: &Request,
    window: &Window,
    headroom: impl FnOnce() -> u32,
) -> bool {
    let others = candidate.reserved_of(window.id());
    if others == 0 {
        // An estimate alone must not leave a rest unused.
        return false;
    }
    let own = request.estimate().filter(|(id, _)| *id == window.id());
    let own = own.map_or(0, |(_, share)| u64::from(share.basis_points()));
    others + own.max(1) > u64::from(headroom())
}

/// What can still be spent of a window before the killswitch, in basis points; `None` if it is not known.
pub(super) fn remaining(
    candidate: &Candidate<'_>,
    window: &Window,
    killswitch: &Limits,
    now: Timestamp,
) -> Option<u32> {
    match window.used_at(now, candidate.fresh_for) {
        Used::Exact(used) | Used::AtLeast(used) => {
            let reserved = u32::try_from(candidate.reserved_of(window.id())).unwrap_or(u32::MAX);
            Some(headroom_above(used.remaining(), window, killswitch).saturating_sub(reserved))
        }
        _ => None,
    }
}
