//! The text of a decision: why an account is selected or unavailable, and why no account serves a request.

use quota::AccountId;
use quota::accounts::Decision;
use quota::accounts::routing::{Disposition, Evaluated, Reason};
use quota_view::decision::{self, Outcome, outcome};
pub(crate) use quota_view::decision::{account_reason, may_be_available};

use crate::account_picker::exit_of;
use crate::config::{AccountSettings, all_disabled_text};
use crate::exit::Exit;
use crate::format::LocalTime;
use crate::hint;

/// Why an account of the decision is selected, skipped or unavailable, and until when.
pub(crate) fn reason(
    decision: &Decision,
    index: usize,
    settings: &[AccountSettings],
    local: &LocalTime,
) -> String {
    let account = &decision.accounts()[index];
    let is_unneeded =
        decision.disposition(index) == Disposition::Standby && account.reason == Reason::UnknownDenied;
    match is_unneeded {
        true => "no data, not refreshed because another account is available".to_owned(),
        false => account_reason(account, &login_hint(settings, &account.account), local),
    }
}

/// What to do if the account's login is rejected or missing.
fn login_hint(settings: &[AccountSettings], account: &AccountId) -> String {
    let own = settings.iter().find(|settings| settings.id == *account);
    own.map_or_else(|| "log in again".to_owned(), |own| own.login.hint())
}

/// The verdict if no account serves a request, with the next available one.
pub(crate) fn verdict(decision: &Decision, local: &LocalTime) -> String {
    match outcome(decision) {
        Outcome::AllDisabled => all_disabled_text(decision.accounts().iter().map(|account| &account.account)),
        _ => decision::verdict(decision, local),
    }
}

/// The verdict in one line, with the reason for one account and a suggested fix.
pub(crate) fn no_account(decision: &Decision, settings: &[AccountSettings], local: &LocalTime) -> String {
    let accounts = decision.accounts();
    let exit = exit_of(decision);
    if exit == Exit::NoAccount {
        return verdict(decision, local);
    }
    let explained = |account: &Evaluated| {
        let reason = account_reason(account, &login_hint(settings, &account.account), local);
        let advice = match account.reason {
            Reason::UnknownDenied => "; use --unknown allow to proceed anyway",
            _ => "",
        };
        format!("{}: {reason}{advice}", account.account)
    };
    if let ([account], None) = (accounts, decision.awaited()) {
        return explained(account);
    }
    let verdict = verdict(decision, local);
    if exit == Exit::Incomplete {
        return verdict;
    }
    // Prefer an account that may become available, because its reason is more useful than an exhausted or disabled one.
    let explaining = accounts.iter().find(|account| may_be_available(account.reason));
    let explaining =
        explaining.or_else(|| accounts.iter().find(|account| account.reason != Reason::Disabled));
    match explaining.or(accounts.first()) {
        Some(account) => format!("{verdict}; {}; details: {}", explained(account), hint::command("explain")),
        None => verdict,
    }
}

#[cfg(test)]
mod tests;
