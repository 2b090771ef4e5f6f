//! The hold that is in force for an account: its own, the provider's cooldown, or the budget, whichever ends last.
//! The rules are in `quota`; here they are asked for what is in a store.

use std::time::Duration;

use jiff::Timestamp;
use quota::{
    Ask, AttemptId, Begin, Freshness, Hold, HoldReason, Policy, ProviderId, QuietScope, QuietTime,
    QuotaStore, Record, StoreError, StoreKey, Urgency,
};

/// The cooldown of a provider that is in force at `now`.
///
/// # Errors
///
/// That of the store if it cannot be read. A damaged cooldown is none: the manager goes by the same rule.
pub(crate) async fn cooldown(
    store: &dyn QuotaStore,
    policy: &Policy,
    provider: &ProviderId,
    now: Timestamp,
) -> Result<Option<Hold>, StoreError> {
    let key = match policy.quiet.scope {
        QuietScope::Provider => StoreKey::provider(provider),
        _ => return Ok(None),
    };
    let quiet = store.read(&key).await?.document.and_then(|found| QuietTime::decode(&found.body).ok());
    Ok(quiet.and_then(|quiet| quiet.at(now)))
}

/// The hold that a forced refresh would meet at `now`.
pub(crate) fn in_force(
    record: &Record,
    urgency: Urgency,
    cooldown: Option<&Hold>,
    now: Timestamp,
    policy: &Policy,
) -> Option<Hold> {
    let newer = Freshness::Since(now + Duration::from_millis(1));
    let ask = Ask::new(AttemptId::from(0), newer).urgency(urgency).quiet(cooldown.cloned());
    match record.clone().begin(now, &ask, policy) {
        Begin::Held(hold) => Some(since_last_call(hold, record)),
        _ => None,
    }
}

/// The hold that an account has at `now`: until whatever holds it ends, for the reason of its own if it has one.
pub(crate) fn of(record: &Record, cooldown: Option<&Hold>, now: Timestamp, policy: &Policy) -> Option<Hold> {
    let in_force = in_force(record, Urgency::Interactive, cooldown, now, policy);
    let Some(own) = record.hold().filter(|hold| hold.is_live(now)) else { return in_force };
    let mut hold = own.clone();
    hold.until = in_force.map_or(own.until, |other| other.until.max(own.until));
    Some(hold)
}

/// The budget is used up since the last call, not since the last request for usage.
fn since_last_call(mut hold: Hold, record: &Record) -> Hold {
    if hold.why == HoldReason::BudgetSpent
        && let Some(last) = record.attempts().iter().map(|attempt| attempt.at).max()
    {
        hold.since = last;
    }
    hold
}
