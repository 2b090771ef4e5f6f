//! Whether one account may serve a request, and why.
//! `choose` selects among several accounts.

use jiff::Timestamp;
use quota_core::model::Window;
use quota_core::provider::RejectionKind;
use quota_core::{Percent, Used, WindowId};

use super::{
    Candidate, Eligibility, LimitCheck, Limits, Reason, Request, RoutingPolicy, UnknownUsage, Verdict,
};

/// Evaluates one account.
#[inline]
pub(crate) fn evaluate(
    candidate: &Candidate<'_>,
    request: &Request,
    now: Timestamp,
    policy: &RoutingPolicy,
) -> Verdict {
    evaluate_by(candidate, request, now, policy, Extent::Everything, |_| None)
}

/// When the login becomes available again under another name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Standing {
    /// `None` if the account considered for the login states this itself, or if it is unknown.
    pub(super) retry_at: Option<Timestamp>,
}

/// The verdict for every account with the same login: the account's own, if it is available or excluded by more than
/// its credential; otherwise `None`.
pub(super) fn stands_for_login(
    candidate: &Candidate<'_>,
    verdict: Verdict,
    request: &Request,
    now: Timestamp,
    policy: &RoutingPolicy,
) -> Option<Standing> {
    match verdict.reason {
        Reason::Disabled => None,
        reason if reason.may_be_about_credential() => {
            let by_usage = evaluate_by(candidate, request, now, policy, Extent::WithoutCredential, |_| None);
            // Unknown usage does not count, because only another name has a credential that can read it.
            let is_excluded = by_usage.eligibility == Eligibility::Ineligible && !by_usage.is_unknown();
            is_excluded.then_some(Standing { retry_at: by_usage.retry_at })
        }
        _ => Some(Standing { retry_at: None }),
    }
}

/// The scope of an evaluation.
#[derive(Clone, Copy, PartialEq)]
enum Extent {
    Everything,
    /// Everything except the account's own credential, because another account with the same login may have a usable
    /// one.
    WithoutCredential,
}

/// Evaluates one account. If its usage is unknown, `retry_at` is when it may be refreshed again.
///
/// It costs more than [`evaluate`], so it runs only for accounts that may not serve.
pub(crate) fn evaluate_with_retry(
    candidate: &Candidate<'_>,
    request: &Request,
    now: Timestamp,
    policy: &RoutingPolicy,
) -> Verdict {
    evaluate_by(candidate, request, now, policy, Extent::Everything, |candidate| {
        let refresh_at = candidate.refreshed_from(request.model(), now);
        refresh_at.or_else(|| now.checked_add(policy.throttle_cooldown).ok())
    })
}

#[inline]
fn evaluate_by(
    candidate: &Candidate<'_>,
    request: &Request,
    now: Timestamp,
    policy: &RoutingPolicy,
    extent: Extent,
    unknown_until: impl Fn(&Candidate<'_>) -> Option<Timestamp>,
) -> Verdict {
    if candidate.is_disabled {
        return Verdict::ineligible(Reason::Disabled, None);
    }
    let counts_credential = extent == Extent::Everything;
    if candidate.login_rejected && counts_credential {
        return Verdict::ineligible(Reason::LoginRejected, None);
    }
    let denies_unknown = policy.when_unknown != UnknownUsage::Allow;
    let needs_fresh = policy.when_unknown == UnknownUsage::DenyStale;
    let (min_remaining, killswitch) = limits(candidate, policy);
    // While the owner is unknown, readings may exclude the account but not admit it.
    let snapshot = candidate.raw_snapshot();
    let credential_verdict = candidate.credential_verdict().filter(|_| counts_credential);
    let mut excluded = later_of(blocked(candidate, request, now, extent), credential_verdict);
    if candidate.has_unknown_owner && denies_unknown {
        excluded =
            later_of(excluded, Some(Verdict::ineligible(Reason::OwnerUnknown, unknown_until(candidate))));
    }
    let mut low = None;
    let mut unknown = (candidate.has_unknown_owner || snapshot.windows().is_empty()).then_some(None);
    let mut is_any_counted = false;
    for (index, window) in snapshot.windows().iter().enumerate() {
        if !request.counts(window) {
            continue;
        }
        is_any_counted = true;
        let used = window.used_at(now, candidate.max_age);
        let reason = match killswitch.check(window, used) {
            LimitCheck::Unknown => {
                unknown = Some(Some(index));
                continue;
            }
            LimitCheck::Exhausted => Reason::Exhausted,
            LimitCheck::Below { .. } => Reason::BelowKillswitch,
            LimitCheck::Passed { is_exact: false, .. } if needs_fresh => {
                unknown = Some(Some(index));
                continue;
            }
            // A stale reading may admit an account, because the refresh in the background corrects it.
            LimitCheck::Passed { left, .. } => {
                if !is_reserved(candidate, request, window, || headroom_above(left, window, killswitch)) {
                    if low.is_none() && matches!(min_remaining.check(window, used), LimitCheck::Below { .. })
                    {
                        low = Some(index);
                    }
                    continue;
                }
                Reason::Reserved
            }
        };
        let until = match reason {
            // The end of requests in flight is unknown.
            Reason::Reserved => now.checked_add(policy.throttle_cooldown).ok(),
            _ => ends_at(window, candidate),
        };
        excluded = later_of(excluded, Some(Verdict::ineligible(reason, until).at(index)));
    }
    if let Some(verdict) = excluded {
        return verdict;
    }
    if unknown.is_none() {
        let is_unread = |limits| request.first_unread(limits, snapshot).is_some();
        let is_unknown = is_unread(killswitch) || is_unread(min_remaining) || needs_fresh && !is_any_counted;
        unknown = is_unknown.then_some(None);
    }
    match (unknown, low) {
        (Some(index), _) if denies_unknown => {
            with_window(Verdict::ineligible(Reason::UnknownDenied, unknown_until(candidate)), index)
        }
        (_, Some(index)) => Verdict::new(Eligibility::LastResort, Reason::BelowMinimum).at(index),
        (Some(index), None) => with_window(Verdict::eligible(Reason::UnknownAllowed), index),
        (None, None) => Verdict::eligible(Reason::Available),
    }
}

fn with_window(verdict: Verdict, index: Option<usize>) -> Verdict {
    index.map_or(verdict, |index| verdict.at(index))
}

pub(super) fn limits<'a>(candidate: &Candidate<'a>, policy: &'a RoutingPolicy) -> (&'a Limits, &'a Limits) {
    let own = candidate.limits;
    let min_remaining = own.and_then(|own| own.min_remaining.as_ref()).unwrap_or(&policy.min_remaining);
    let killswitch = own.and_then(|own| own.killswitch.as_ref()).unwrap_or(&policy.killswitch);
    (min_remaining, killswitch)
}

/// The verdict of the applicable block that ends last.
fn blocked(candidate: &Candidate<'_>, request: &Request, now: Timestamp, extent: Extent) -> Option<Verdict> {
    let mut found = None;
    for block in candidate.own_blocks() {
        if !block.is_live(now) || !block.counts_for(request.model()) || block.is_refuted(candidate.snapshot())
        {
            continue;
        }
        if block.fingerprint.is_some() && extent == Extent::WithoutCredential {
            continue;
        }
        let reason = match block.kind {
            RejectionKind::QuotaExhausted => Reason::QuotaExhausted,
            RejectionKind::Throttled => Reason::Throttled,
            RejectionKind::Unauthorized if extent == Extent::WithoutCredential => continue,
            RejectionKind::Unauthorized => Reason::LoginRejected,
            RejectionKind::Forbidden => Reason::Forbidden,
            // The account did not cause this.
            RejectionKind::Overloaded | RejectionKind::InvalidRequest => continue,
            _ => Reason::Other,
        };
        found = later_of(found, Some(Verdict::ineligible(reason, block.until)));
    }
    found
}

/// The exclusion that lasts longer, because an account is available only after its last exclusion has ended.
fn later_of(one: Option<Verdict>, other: Option<Verdict>) -> Option<Verdict> {
    let (Some(a), Some(b)) = (one, other) else { return one.or(other) };
    let a_lasts = match (a.retry_at, b.retry_at) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(a), Some(b)) => a >= b,
    };
    Some(if a_lasts { a } else { b })
}

/// When an exhausted window is available again: at its reset, or, without one, when its reading becomes stale.
fn ends_at(window: &Window, candidate: &Candidate<'_>) -> Option<Timestamp> {
    window.expires_at().or_else(|| window.observed_at().checked_add(candidate.max_age).ok())
}

/// The part of a window above the killswitch, in basis points, that all requests in flight share; `None` if unknown.
pub(crate) fn headroom(
    candidate: &Candidate<'_>,
    window: &WindowId,
    now: Timestamp,
    policy: &RoutingPolicy,
) -> Option<u32> {
    let window = candidate.snapshot().window(window)?;
    let left = window.used_at(now, candidate.max_age).lower_bound()?.remaining();
    Some(headroom_above(left, window, limits(candidate, policy).1))
}

fn headroom_above(left: Percent, window: &Window, killswitch: &Limits) -> u32 {
    left.basis_points().saturating_sub(killswitch.min_remaining_of(window.id()).basis_points())
}

/// Whether the requests in flight and this one would exceed the `headroom`.
fn is_reserved(
    candidate: &Candidate<'_>,
    request: &Request,
    window: &Window,
    headroom: impl FnOnce() -> u32,
) -> bool {
    let others = candidate.reserved_of(window.id());
    if others == 0 {
        // A single request always fits, so that a high estimate does not leave the rest unused.
        return false;
    }
    let own = request.estimate().filter(|(id, _)| *id == window.id());
    let own = own.map_or(0, |(_, share)| u64::from(share.basis_points()));
    others + own.max(1) > u64::from(headroom())
}

/// The part of a window above the killswitch that is not reserved, in basis points; `None` if unknown.
pub(super) fn remaining(
    candidate: &Candidate<'_>,
    window: &Window,
    killswitch: &Limits,
    now: Timestamp,
) -> Option<u32> {
    match window.used_at(now, candidate.max_age) {
        Used::Exact(used) | Used::AtLeast(used) => {
            let reserved = u32::try_from(candidate.reserved_of(window.id())).unwrap_or(u32::MAX);
            Some(headroom_above(used.remaining(), window, killswitch).saturating_sub(reserved))
        }
        _ => None,
    }
}
