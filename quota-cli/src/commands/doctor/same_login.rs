//! Finds accounts that hold the same login, and explains the consequences.

use quota::AccountId;
use quota::model::LoginInfo;

use super::{Area, Check, Incident};
use crate::config::AccountSettings;
use crate::hint;

/// A warning for each account whose login an earlier account also has.
///
/// Equal login ids prove this, and so do equal token fingerprints. A copied file contains the token, but states no
/// login.
///
/// Accounts whose requests have different headers or query parameters may read the limits of different organizations.
pub(super) fn of(logins: &[(&AccountSettings, LoginInfo)]) -> Vec<Check> {
    let check = |(at, (account, login)): (usize, &(&AccountSettings, LoginInfo))| {
        let is_comparable = |other: &AccountSettings| {
            other.id.provider() == account.id.provider() && other.scope() == account.scope()
        };
        let before = logins[..at].iter().filter(|(other, _)| is_comparable(other));
        let (first, kind) = before
            .filter_map(|(other, known)| Some((&other.id, Same::of(known, login)?)))
            .min_by_key(|(_, kind)| *kind)?;
        Some(kind.check(&account.id, first))
    };
    logins.iter().enumerate().filter_map(check).collect()
}

/// Why two accounts hold the same login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Same {
    /// Both state the same login id, so they share a record.
    Login,
    /// They have the same token but not the same login id, so each has its own record.
    Token,
}

impl Same {
    fn of(one: &LoginInfo, other: &LoginInfo) -> Option<Self> {
        if one.login_id.is_some() && one.login_id == other.login_id {
            return Some(Self::Login);
        }
        (one.fingerprint.is_some() && one.fingerprint == other.fingerprint).then_some(Self::Token)
    }

    fn check(self, account: &AccountId, first: &AccountId) -> Check {
        let message = match self {
            Self::Login => format!(
                "same login as {first}: both share one budget of calls and one set of readings, \
                 and neither is a fallback for the other"
            ),
            Self::Token => format!(
                "same token as {first}, but not known as the same login: each has its own budget of calls, \
                 and neither is a real fallback for the other"
            ),
        };
        let remove = hint::command_without_store(&format!("accounts remove {account}"));
        let hint = format!("log in to another account there, or run: {remove}");
        let incident = Incident { reason: "same_login".to_owned(), at: None, until: None, requested: None };
        Check::warning(Area::Login, account.as_str(), message, hint).with_incident(incident)
    }
}

#[cfg(test)]
mod tests {
    use quota::model::{CredentialFingerprint, LoginId};

    use super::*;
    use crate::config::LoginSource;

    fn login(id: Option<&str>, token: u64) -> LoginInfo {
        let login = id.map_or_else(LoginInfo::unknown, |id| LoginInfo::new(LoginId::new(id)));
        login.fingerprint(CredentialFingerprint::from_hash(token))
    }

    fn found(logins: [LoginInfo; 3]) -> Vec<(String, String)> {
        let accounts = ["anthropic/a", "anthropic/b", "anthropic/c"]
            .map(|id| AccountSettings::new(id.parse().unwrap(), LoginSource::ClaudeCode));
        found_for(&accounts, logins)
    }

    fn found_for(accounts: &[AccountSettings], logins: [LoginInfo; 3]) -> Vec<(String, String)> {
        let logins: Vec<_> = accounts.iter().zip(logins).collect();
        let checks = of(&logins).into_iter();
        let words = |message: &str| message.split([':', ',']).next().unwrap().to_owned();
        checks.map(|check| (check.subject.clone(), words(&check.message))).collect()
    }

    fn pair(subject: &str, words: &str) -> (String, String) {
        (subject.to_owned(), words.to_owned())
    }

    #[test]
    fn accounts_with_one_login_id_are_named() {
        let found = found([login(Some("x"), 1), login(Some("y"), 2), login(Some("x"), 3)]);

        assert_eq!(found, [pair("anthropic/c", "same login as anthropic/a")]);
    }

    #[test]
    fn accounts_with_one_token_are_named() {
        let found = found([login(Some("x"), 1), login(None, 1), login(None, 2)]);

        assert_eq!(found, [pair("anthropic/b", "same token as anthropic/a")]);
    }

    #[test]
    fn accounts_whose_requests_differ_are_not_named() {
        let mut accounts = ["anthropic/a", "anthropic/b", "anthropic/c"]
            .map(|id| AccountSettings::new(id.parse().unwrap(), LoginSource::ClaudeCode));
        for (account, team) in accounts.iter_mut().zip(["x", "y", "x"]) {
            account.headers.insert("x-team".to_owned(), team.to_owned());
        }

        let found = found_for(&accounts, [login(Some("x"), 1), login(Some("x"), 1), login(Some("x"), 1)]);

        assert_eq!(found, [pair("anthropic/c", "same login as anthropic/a")]);
    }

    #[test]
    fn a_login_id_is_preferred_to_a_token() {
        let found = found([login(None, 1), login(Some("x"), 2), login(Some("x"), 1)]);

        assert_eq!(found, [pair("anthropic/c", "same login as anthropic/b")]);
    }

    #[test]
    fn logins_that_differ_or_are_unknown_are_not_named() {
        let unknown = LoginInfo::unknown;

        assert_eq!(found([login(Some("x"), 1), login(Some("y"), 2), unknown()]), []);
        assert_eq!(found([unknown(), unknown(), unknown()]), []);
    }
}
