//! The tokens of one account: refresh tokens that work once, and the effect of reuse. This module reads no clock. `wire::token`
//! writes the responses.

use std::time::Duration;

use crate::clock::SimTime;
use crate::script::Account;

/// All tokens that were issued for an account.
#[derive(Debug)]
pub(crate) struct TokenIssuer {
    name: String,
    /// The access tokens, and when each expires.
    access: Vec<(String, Option<SimTime>)>,
    refresh: String,
    used: Vec<UsedToken>,
    /// The number of tokens that exchanges have issued.
    issued_count: u32,
    is_revoked: bool,
    ttl: Duration,
    reuse_grace: Duration,
}

/// A refresh token that was exchanged, and the tokens issued for it.
#[derive(Debug)]
struct UsedToken {
    token: String,
    at: SimTime,
    issued: IssuedTokens,
}

/// The tokens that are issued for a refresh token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IssuedTokens {
    pub(crate) access: String,
    pub(crate) refresh: String,
    pub(crate) expires_at: SimTime,
}

/// The result of an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TokenResult {
    /// The exchange succeeded.
    Issued(IssuedTokens),
    /// The token was reused within the grace period, so the client receives the same tokens again.
    Replayed(IssuedTokens),
    /// The token was used before, so the whole login is revoked.
    ReuseDetected,
    /// The login was already revoked.
    Revoked,
}

/// How long an access token is valid by default.
const DEFAULT_TTL: Duration = Duration::from_secs(8 * 3600);

impl TokenIssuer {
    pub(crate) fn new(account: &Account) -> Self {
        let expires_at = account.token_ttl.map(|duration| SimTime::START + duration);
        Self {
            name: account.name().to_owned(),
            access: vec![(account.token().into_owned(), expires_at)],
            refresh: account.refresh_token().into_owned(),
            used: Vec::new(),
            issued_count: 0,
            is_revoked: false,
            ttl: account.token_ttl.unwrap_or(DEFAULT_TTL),
            reuse_grace: account.reuse_grace,
        }
    }

    /// Whether an access token is valid.
    pub(crate) fn accepts(&self, token: &str, now: SimTime) -> bool {
        let mut tokens = self.access.iter();
        tokens.any(|(access, expires_at)| {
            access == token && expires_at.is_none_or(|expires_at| now < expires_at)
        })
    }

    /// Whether a refresh token belongs or belonged to this account.
    pub(crate) fn has_issued(&self, refresh: &str) -> bool {
        self.refresh == refresh || self.used.iter().any(|used| used.token == refresh)
    }

    /// Exchanges a current or used refresh token of this account.
    pub(crate) fn exchange(&mut self, refresh: &str, now: SimTime) -> TokenResult {
        if self.is_revoked {
            return TokenResult::Revoked;
        }
        if let Some(used) = self.used.iter().find(|used| used.token == refresh) {
            // The client has not used the new token, so it has lost the response.
            if now.since(used.at) < self.reuse_grace && used.issued.refresh == self.refresh {
                return TokenResult::Replayed(used.issued.clone());
            }
            self.is_revoked = true;
            self.access.clear();
            return TokenResult::ReuseDetected;
        }
        let issued = self.issue(now);
        let token = std::mem::replace(&mut self.refresh, issued.refresh.clone());
        self.used.push(UsedToken { token, at: now, issued: issued.clone() });
        TokenResult::Issued(issued)
    }

    /// Issues the tokens of a new login. The refresh tokens of the previous one become invalid.
    pub(crate) fn log_in(&mut self, now: SimTime) -> IssuedTokens {
        let issued = self.issue(now);
        self.refresh.clone_from(&issued.refresh);
        self.used.clear();
        self.is_revoked = false;
        issued
    }

    fn issue(&mut self, now: SimTime) -> IssuedTokens {
        self.issued_count += 1;
        let number = self.issued_count + 1;
        let issued = IssuedTokens {
            access: format!("sim-token-{}-{number}", self.name),
            refresh: format!("sim-refresh-{}-{number}", self.name),
            expires_at: now + self.ttl,
        };
        self.access.push((issued.access.clone(), Some(issued.expires_at)));
        issued
    }

    /// Makes this access token the only valid one.
    pub(crate) fn set_access(&mut self, token: String) {
        self.access = vec![(token, None)];
    }

    /// Invalidates all access tokens.
    pub(crate) fn expire_access_tokens(&mut self) {
        self.access.clear();
    }

    /// Replaces the login; tokens of the previous one become invalid.
    pub(crate) fn replace_login(&mut self, access: String, refresh: String) {
        self.set_access(access);
        self.refresh = refresh;
        self.used.clear();
        self.is_revoked = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn tokens(reuse_grace: Duration) -> TokenIssuer {
        TokenIssuer::new(&Account::new("main").reuse_grace(reuse_grace))
    }

    fn at(hours: u32) -> SimTime {
        SimTime::START + HOUR * hours
    }

    #[test]
    fn a_refresh_token_works_once_and_reuse_ends_the_login() {
        let mut tokens = tokens(Duration::ZERO);

        let first = tokens.exchange("sim-refresh-main", at(0));
        let again = tokens.exchange("sim-refresh-main", at(0));
        let next = tokens.exchange("sim-refresh-main-2", at(0));

        assert!(matches!(first, TokenResult::Issued(_)), "{first:?}");
        assert_eq!((again, next), (TokenResult::ReuseDetected, TokenResult::Revoked));
        assert!(!tokens.accepts("sim-token-main-2", at(0)));
    }

    #[test]
    fn a_lost_response_is_replayed_within_the_reuse_grace() {
        let mut tokens = tokens(HOUR);
        let TokenResult::Issued(issued) = tokens.exchange("sim-refresh-main", at(0)) else { panic!() };

        assert_eq!(tokens.exchange("sim-refresh-main", at(0)), TokenResult::Replayed(issued));
        assert_eq!(tokens.exchange("sim-refresh-main", at(1)), TokenResult::ReuseDetected);
    }

    #[test]
    fn an_access_token_expires_after_its_ttl() {
        let mut tokens = tokens(Duration::ZERO);
        let TokenResult::Issued(issued) = tokens.exchange("sim-refresh-main", at(0)) else { panic!() };

        assert_eq!(issued.expires_at, at(8));
        assert!(tokens.accepts(&issued.access, at(7)));
        assert!(!tokens.accepts(&issued.access, at(8)));
    }

    #[test]
    fn a_new_login_is_valid_after_a_revoked_one() {
        let mut tokens = tokens(Duration::ZERO);
        tokens.exchange("sim-refresh-main", at(0));
        tokens.exchange("sim-refresh-main", at(0));

        tokens.replace_login("sim-a".into(), "sim-r".into());

        assert!(tokens.accepts("sim-a", at(0)));
        assert!(matches!(tokens.exchange("sim-r", at(0)), TokenResult::Issued(_)));
        assert!(!tokens.has_issued("sim-refresh-main"));
    }
}
