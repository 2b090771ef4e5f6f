//! Whether one account may serve a request, and which rule says so.
//! Which of several accounts is taken is decided in `choose`.

use jiff::Timestamp;
use quota_core::{Percent, RejectionKind, Used, Window, WindowId};

use super::{Candidate, LimitCheck, Limits, Request, RoutingPolicy, Rule, Standing, Verdict, WhenUnknown};

/// Judges one account.
#[inline]
pub(crate) fn judge(
    candidate: &Candidate<'_>,
    request: &Request,
    now: Timestamp,
    policy: &RoutingPolicy,
) -> Verdict {
    judge_by(candidate, request, now, policy, |_| None)
}

/// The same for those who give up: what is not known ends when somebody may ask about it again.
///
/// Only they pay for finding out when that is; to whoever is served, it is nothing.
pub(crate) fn judge_when(
    candidate: &Candidate<'_>,
    request: &Request,
    now: Timestamp,
    policy: &RoutingPolicy,
) -> Verdict {
    let pause = || now.checked_add(policy.pause).ok();
    let refreshed = |candidate: &Candidate<'_>| candidate.refreshed_from(request.model_name(), now);
    judge_by(candidate, request, now, policy, |candidate| refreshed(candidate).or_else(pause))
}

#[inline]
fn judge_by(
    candidate: &Candidate<'_>,
    request: &Request,
    now: Timestamp,
    policy: &RoutingPolicy,
    known_again: impl Fn(&Candidate<'_>) -> Option<Timestamp>,
) -> Verdict {
    if candidate.is_disabled {
        return Verdict::refused(Rule::Disabled, None);
    }
    if candidate.is_refused {
        return Verdict::refused(Rule::LoginDead, None);
    }
    let closed = policy.when_unknown == WhenUnknown::Closed;
    let (minimum, stop) = limits(candidate, policy);
    // Restrictions stay while it cannot be told whose the account is; that it has room is not said then.
    let snapshot = candidate.held_against();
    let mut refused = longer(blocked(candidate, request, now), candidate.what_was_found());
    if candidate.is_nobodys && closed {
        refused = longer(refused, Some(Verdict::refused(Rule::IdentityUnknown, known_again(candidate))));
    }
    let mut low = None;
    let mut unknown = (candidate.is_nobodys || snapshot.windows().is_empty()).then_some(None);
    for (place, window) in snapshot.windows().iter().enumerate() {
        if !window.applies_to(request.model_name()) {
            continue;
        }
        let used = window.used_at(now, candidate.fresh_for);
        let rule = match stop.check(window, used) {
            LimitCheck::Unknown => {
                unknown = Some(Some(place));
                continue;
            }
            LimitCheck::Exhausted => Rule::Exhausted,
            LimitCheck::Below { .. } => Rule::Killed,
            // An old number that passes is used: the refresh behind the request corrects it.
            LimitCheck::Passed { left, .. } => {
                if !spoken_for(candidate, request, window, || above(left, window, stop)) {
                    if low.is_none() && matches!(minimum.check(window, used), LimitCheck::Below { .. }) {
                        low = Some(place);
                    }
                    continue;
                }
                Rule::Reserved
            }
        };
        let until = match rule {
            // Nobody can tell when the requests under way end; a pause is as good a guess as any.
            Rule::Reserved => now.checked_add(policy.pause).ok(),
            _ => ends_at(window, candidate),
        };
        refused = longer(refused, Some(Verdict::refused(rule, until).at(place)));
    }
    if let Some(verdict) = refused {
        return verdict;
    }
    if unknown.is_none() {
        let model = request.model_name();
        let mut unread = stop.unread(snapshot, model).chain(minimum.unread(snapshot, model));
        unknown = unread.next().is_some().then_some(None);
    }
    match (unknown, low) {
        (Some(place), _) if closed => {
            with_place(Verdict::refused(Rule::UnknownClosed, known_again(candidate)), place)
        }
        (_, Some(place)) => {
            Verdict { standing: Standing::Low, rule: Rule::BelowMinimum, until: None, window: None }.at(place)
        }
        (Some(place), None) => with_place(Verdict::open(Rule::NotKnown), place),
        (None, None) => Verdict::open(Rule::HasRoom),
    }
}

fn with_place(verdict: Verdict, place: Option<usize>) -> Verdict {
    place.map_or(verdict, |place| verdict.at(place))
}

pub(super) fn limits<'a>(candidate: &Candidate<'a>, policy: &'a RoutingPolicy) -> (&'a Limits, &'a Limits) {
    let own = candidate.limits;
    let minimum = own.and_then(|own| own.minimum.as_ref()).unwrap_or(&policy.minimum);
    let stop = own.and_then(|own| own.stop.as_ref()).unwrap_or(&policy.stop);
    (minimum, stop)
}

/// The block that ends last of those that count.
fn blocked(candidate: &Candidate<'_>, request: &Request, now: Timestamp) -> Option<Verdict> {
    let mut found = None;
    for block in candidate.own_blocks() {
        if !block.is_live(now)
            || !block.counts_for(request.model_name())
            || block.is_refuted(candidate.snapshot())
        {
            continue;
        }
        let rule = match block.kind {
            RejectionKind::QuotaExhausted => Rule::QuotaSpent,
            RejectionKind::Throttled => Rule::Throttled,
            RejectionKind::Unauthorized => Rule::LoginDead,
            RejectionKind::Forbidden => Rule::NotAllowed,
            // Neither is the account's fault, so neither is a reason to avoid it.
            RejectionKind::Overloaded | RejectionKind::InvalidRequest => continue,
            _ => Rule::Other,
        };
        found = longer(found, Some(Verdict::refused(rule, block.until)));
    }
    found
}

/// The refusal that lasts longer: an account is of use again when the last of its refusals has ended.
fn longer(one: Option<Verdict>, other: Option<Verdict>) -> Option<Verdict> {
    let (Some(a), Some(b)) = (one, other) else { return one.or(other) };
    let a_lasts = match (a.until, b.until) {
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
pub(crate) fn room(
    candidate: &Candidate<'_>,
    window: &WindowId,
    now: Timestamp,
    policy: &RoutingPolicy,
) -> Option<u32> {
    let window = candidate.snapshot().window(window)?;
    let left = window.used_at(now, candidate.fresh_for).lower_bound()?.remaining();
    Some(above(left, window, limits(candidate, policy).1))
}

fn above(left: Percent, window: &Window, stop: &Limits) -> u32 {
    left.basis_points().saturating_sub(stop.left_of(window.id()).basis_points())
}

/// Whether requests under way, and this one, would use up the `room` that there is.
fn spoken_for(
    candidate: &Candidate<'_>,
    request: &Request,
    window: &Window,
    room: impl FnOnce() -> u32,
) -> bool {
    let others = candidate.reserved_of(window.id());
    if others == 0 {
        // Nobody is in the way: an estimate alone keeps nobody from what is left.
        return false;
    }
    let own = request.estimated().filter(|(id, _)| *id == window.id());
    let own = own.map_or(0, |(_, share)| u64::from(share.basis_points()));
    others + own.max(1) > u64::from(room())
}

/// What can still be spent of a window before the killswitch, in basis points; `None` if it is not known.
pub(super) fn spendable(
    candidate: &Candidate<'_>,
    window: &Window,
    stop: &Limits,
    now: Timestamp,
) -> Option<u32> {
    match window.used_at(now, candidate.fresh_for) {
        Used::Exact(used) | Used::AtLeast(used) => {
            let reserved = u32::try_from(candidate.reserved_of(window.id())).unwrap_or(u32::MAX);
            Some(above(used.remaining(), window, stop).saturating_sub(reserved))
        }
        _ => None,
    }
}
