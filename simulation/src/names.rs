//! The names of accounts and logins, and the time at which every simulation starts.

use jiff::Timestamp;
use quota_core::AccountId;

/// The start of every simulation, by the store's clock.
pub(crate) const START: Timestamp = Timestamp::constant(1_800_000_000, 0);

/// The text of a login, which is its plan and its login id.
pub(crate) fn plan_of(login: usize) -> String {
    format!("login-{login}")
}

/// The login that a plan names.
pub(crate) fn login_in(plan: &str) -> Option<usize> {
    plan.strip_prefix("login-")?.parse().ok()
}

/// The number of an account: `example/2` is 2.
pub(crate) fn number_of(account: &AccountId) -> usize {
    number_in(account.as_str())
}

/// The number in an account's name, or in the key of its record.
pub(crate) fn number_in(text: &str) -> usize {
    text.rsplit('/').next().and_then(|number| number.parse().ok()).unwrap_or(usize::MAX)
}

/// The id of account number `number`.
pub(crate) fn account_id(number: usize) -> AccountId {
    format!("example/{number}").parse().expect("a number is a valid name")
}
