//! The tokens of one account: refresh tokens that work once, and what happens when a spent one comes again.
//! Nothing here reads a clock or writes bytes; see `routes` and `wire::token` for that.

use std::time::Duration;

use crate::clock::SimTime;
use crate::script::Account;

/// All tokens that were given for an account.
#[derive(Debug)]
pub(crate) struct TokenIssuer {
    name: String,
    /// Those that open the account, and when each ends.
    access: Vec<(String, Option<SimTime>)>,
    refresh: String,
    spent: Vec<Spent>,
    /// How many were given by exchange.
    given: u32,
    is_revoked: bool,
    lives: Duration,
    grace: Duration,
}

/// A refresh token that was exchanged, and what for.
#[derive(Debug)]
struct Spent {
    token: String,
    at: SimTime,
    given: Grant,
}

/// What a refresh token is exchanged for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) access: String,
    pub(crate) refresh: String,
    pub(crate) ends: SimTime,
}

/// What comes of an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Exchange {
    /// New tokens.
    Given(Grant),
    /// The token was spent so short a time ago that it gets the same tokens again.
    GivenAgain(Grant),
    /// The token was spent: all tokens of its login end.
    Reused,
    /// The login has ended.
    Revoked,
}

/// How long an access token opens its account, unless the script says otherwise.
const LIVES: Duration = Duration::from_secs(8 * 3600);

impl TokenIssuer {
    pub(crate) fn new(account: &Account) -> Self {
        let ends = account.token_lives.map(|span| SimTime::START + span);
        Self {
            name: account.name().to_owned(),
            access: vec![(account.token().into_owned(), ends)],
            refresh: account.refresh_token().into_owned(),
            spent: Vec::new(),
            given: 0,
            is_revoked: false,
            lives: account.token_lives.unwrap_or(LIVES),
            grace: account.reuse_grace,
        }
    }

    /// Whether a token opens the account.
    pub(crate) fn is_opened_by(&self, token: &str, now: SimTime) -> bool {
        let mut tokens = self.access.iter();
        tokens.any(|(access, ends)| access == token && ends.is_none_or(|ends| now < ends))
    }

    /// Whether a refresh token is, or was, of this account.
    pub(crate) fn has_given(&self, refresh: &str) -> bool {
        self.refresh == refresh || self.spent.iter().any(|spent| spent.token == refresh)
    }

    /// Exchanges a refresh token that is, or was, of this account.
    pub(crate) fn exchange(&mut self, refresh: &str, now: SimTime) -> Exchange {
        if self.is_revoked {
            return Exchange::Revoked;
        }
        if let Some(spent) = self.spent.iter().find(|spent| spent.token == refresh) {
            // Its successor was not used yet: the client lost the response.
            if now.since(spent.at) < self.grace && spent.given.refresh == self.refresh {
                return Exchange::GivenAgain(spent.given.clone());
            }
            self.is_revoked = true;
            self.access.clear();
            return Exchange::Reused;
        }
        self.given += 1;
        let number = self.given + 1;
        let given = Grant {
            access: format!("sim-token-{}-{number}", self.name),
            refresh: format!("sim-refresh-{}-{number}", self.name),
            ends: now + self.lives,
        };
        let token = std::mem::replace(&mut self.refresh, given.refresh.clone());
        self.access.push((given.access.clone(), Some(given.ends)));
        self.spent.push(Spent { token, at: now, given: given.clone() });
        Exchange::Given(given)
    }

    /// The account is opened by this token and no other.
    pub(crate) fn set_access(&mut self, token: String) {
        self.access = vec![(token, None)];
    }

    /// No access token that was given so far opens the account any more.
    pub(crate) fn end_access(&mut self) {
        self.access.clear();
    }

    /// Replaces the login; tokens of the previous one become invalid.
    pub(crate) fn log_in(&mut self, access: String, refresh: String) {
        self.set_access(access);
        self.refresh = refresh;
        self.spent.clear();
        self.is_revoked = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn grants(grace: Duration) -> TokenIssuer {
        TokenIssuer::new(&Account::new("main").reuse_grace(grace))
    }

    fn at(hours: u32) -> SimTime {
        SimTime::START + HOUR * hours
    }

    #[test]
    fn a_refresh_token_works_once_and_reuse_ends_the_login() {
        let mut grants = grants(Duration::ZERO);

        let first = grants.exchange("sim-refresh-main", at(0));
        let again = grants.exchange("sim-refresh-main", at(0));
        let next = grants.exchange("sim-refresh-main-2", at(0));

        assert!(matches!(first, Exchange::Given(_)), "{first:?}");
        assert_eq!((again, next), (Exchange::Reused, Exchange::Revoked));
        assert!(!grants.is_opened_by("sim-token-main-2", at(0)));
    }

    #[test]
    fn within_the_grace_a_lost_answer_is_given_again() {
        let mut grants = grants(HOUR);
        let Exchange::Given(given) = grants.exchange("sim-refresh-main", at(0)) else { panic!() };

        assert_eq!(grants.exchange("sim-refresh-main", at(0)), Exchange::GivenAgain(given));
        assert_eq!(grants.exchange("sim-refresh-main", at(1)), Exchange::Reused);
    }

    #[test]
    fn an_access_token_ends_when_it_is_said_to() {
        let mut grants = grants(Duration::ZERO);
        let Exchange::Given(given) = grants.exchange("sim-refresh-main", at(0)) else { panic!() };

        assert_eq!(given.ends, at(8));
        assert!(grants.is_opened_by(&given.access, at(7)));
        assert!(!grants.is_opened_by(&given.access, at(8)));
    }

    #[test]
    fn a_new_login_is_good_whatever_became_of_the_old_one() {
        let mut grants = grants(Duration::ZERO);
        grants.exchange("sim-refresh-main", at(0));
        grants.exchange("sim-refresh-main", at(0));

        grants.log_in("sim-a".into(), "sim-r".into());

        assert!(grants.is_opened_by("sim-a", at(0)));
        assert!(matches!(grants.exchange("sim-r", at(0)), Exchange::Given(_)));
        assert!(!grants.has_given("sim-refresh-main"));
    }
}
