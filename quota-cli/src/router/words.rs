//! A decision in the words of the program.
//! What was decided is in `seen`.

use quota::Percent;
use quota::accounts::Reason;

use super::seen::Outcome;
use super::{Refusal, SeenAccount, may_have_room};
use crate::config::all_disabled_text;
use crate::exit::Exit;
use crate::format::{self, LocalTime};
use crate::hint;
use crate::sanitize::sanitize;
use crate::view::window_name::window_name;

/// Why an account was taken, passed over or refused, and until when.
pub(crate) fn reason(account: &SeenAccount, local: &LocalTime) -> String {
    if account.is_unneeded {
        return "not known, and not asked about, for another has room".to_owned();
    }
    if let Some(why) = account.not_refreshed.as_ref().filter(|_| account.rule == Reason::OwnerUnknown) {
        return sanitize(why);
    }
    if let (Some(pending), Some(window)) = (&account.pending, &account.window) {
        return sanitize(&format!("{}: {}", window_name(window), pending.text(local)));
    }
    let mut told = match (account.rule, &account.window, account.limit) {
        (Reason::BelowMinimum | Reason::BelowKillswitch, Some(window), Some(limit)) => {
            let left = window.used.lower_bound().map_or(Percent::ZERO, Percent::remaining);
            // A model's window is not used at its very limit either.
            let place = if left < limit { "below" } else { "at" };
            let (left, limit) = (format::percent(left), format::percent(limit));
            let what = if account.rule == Reason::BelowKillswitch { "killswitch" } else { "minimum" };
            format!("{left} left of {}, {place} the {what} of {limit}", window_name(window))
        }
        (Reason::Exhausted, Some(window), _) => format!("nothing left of {}", window_name(window)),
        (Reason::LoginRejected, ..) => account.advice.clone(),
        (rule, Some(window), _) if rule.is_unknown() => format!("{rule}: {}", window_name(window)),
        (rule, None, _) if rule.is_unknown() && account.unread.is_some() => {
            format!("{rule}: {}", account.unread.as_deref().unwrap_or_default())
        }
        (rule, ..) => rule.to_string(),
    };
    if let Some(until) = account.until.filter(|until| *until > local.now) {
        told = format!("{told}, again {}", local.relative(until));
    }
    if let Some(why) = account.not_refreshed.as_ref().filter(|_| may_have_room(account.rule)) {
        told = format!("{told} ({why})");
    }
    sanitize(&told)
}

/// That nobody serves a request, and when somebody does.
pub(crate) fn verdict(refusal: &Refusal, local: &LocalTime) -> String {
    let accounts = &refusal.seen.accounts;
    let back = refusal.seen.retry_after.map(|span| local.relative(format::after(local.now, span)));
    if let Outcome::Wait(at) = refusal.seen.outcome {
        let (id, back) = (&accounts[at].id, back.unwrap_or_default());
        return format!("the session stays with {id}, which has room again {back}");
    }
    match refusal.exit {
        Exit::Incomplete => {}
        Exit::NoAccount => return all_disabled_text(accounts.iter().map(|account| &account.id)),
        _ => return "no account can be used".to_owned(),
    }
    let first = accounts.iter().filter(|account| account.until.is_some()).min_by_key(|one| one.until);
    match (first, back) {
        (Some(first), Some(back)) => {
            format!("no account has room; {} is the first to have some again, {back}", first.id)
        }
        _ => "no account has room, and it cannot be told when one will".to_owned(),
    }
}

/// The same in one line that also says why, where that is not plain, and what to do.
pub(crate) fn nobody(refusal: &Refusal, local: &LocalTime) -> String {
    let accounts = &refusal.seen.accounts;
    if refusal.exit == Exit::NoAccount {
        return verdict(refusal, local);
    }
    if let ([account], Outcome::Nobody) = (&accounts[..], refusal.seen.outcome) {
        return format!("{}: {}{}", account.id, reason(account, local), advice(account.rule));
    }
    let verdict = verdict(refusal, local);
    if refusal.exit == Exit::Incomplete {
        return verdict;
    }
    // The one that could serve if it were known says more than those that are spent or switched off.
    let telling = accounts.iter().find(|account| may_have_room(account.rule));
    let telling = telling.or_else(|| accounts.iter().find(|account| account.rule != Reason::Disabled));
    match telling.or(accounts.first()) {
        Some(account) => {
            let (reason, advice) = (reason(account, local), advice(account.rule));
            format!("{verdict}; {}: {reason}{advice}; more: {}", account.id, hint::command("explain"))
        }
        None => verdict,
    }
}

/// What to do about it, beyond what the reason says.
fn advice(rule: Reason) -> &'static str {
    match rule {
        Reason::UnknownDenied => "; to go on anyway, give --unknown allow",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
