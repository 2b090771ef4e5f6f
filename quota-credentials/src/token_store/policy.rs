//! The rules of renewal: when to renew a login, and how a renewal changes the file. They are pure functions; `renewal`
//! does the I/O.

use std::time::Duration;

use jiff::Timestamp;
use quota_core::AccountId;
use quota_core::clock::is_from_future;
use quota_core::model::CredentialFingerprint;
use quota_core::policy::Backoff;
use quota_core::provider::{TokenError, Tokens, bounded_wait};

use super::login::{FailureKind, LoginsFile, RenewalFailure, StoredLogin, owner_hash};
use crate::token;

/// The credential that a caller needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Demand {
    /// The credential.
    Credential,
    /// A credential other than the rejected one with this fingerprint.
    Replacement(CredentialFingerprint),
}

/// The next action for a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TokenAction {
    /// Return the stored credential.
    Use,
    /// Renew the credential. `is_usable` says whether the stored one can be used during the renewal.
    Renew { is_usable: bool },
    /// Fail: no credential is usable, and no renewal is allowed before `until`.
    Wait { until: Timestamp },
    /// Fail: the user must log in.
    Reauthenticate,
}

/// When to renew, and how long to back off after a failure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RenewalTiming {
    /// How long before its expiry an access token is renewed, at most.
    pub(crate) margin: Duration,
    /// From 0 to below 1. It is random per process, so that processes do not renew at the same time.
    pub(crate) jitter: f64,
    pub(crate) backoff: Backoff,
}

/// The maximum number of used refresh tokens that are remembered.
const MAX_USED_TOKENS: usize = 16;

impl LoginsFile {
    /// Decides what to do for a caller; `None` if the account has no login.
    pub(crate) fn action(
        &self,
        account: &AccountId,
        demand: Demand,
        now: Timestamp,
        timing: &RenewalTiming,
    ) -> Option<TokenAction> {
        let login = self.logins.get(account)?;
        let is_rejected = demand == Demand::Replacement(login.access_fingerprint());
        let is_usable = !is_rejected && login.expires_at.is_none_or(|expiry| now < expiry);
        let is_due = is_rejected || login.renew_at(timing).is_some_and(|due| due <= now);
        if !is_due {
            return Some(TokenAction::Use);
        }
        let unless_usable = |action| Some(if is_usable { TokenAction::Use } else { action });
        if login.refresh_token.is_none() {
            return unless_usable(TokenAction::Reauthenticate);
        }
        if is_rejected && login.from_rejection {
            return Some(TokenAction::Reauthenticate);
        }
        let failure = login.current_failure();
        if failure.is_some_and(|failure| failure.kind == FailureKind::InvalidGrant) {
            return unless_usable(TokenAction::Reauthenticate);
        }
        let backoff = failure.and_then(|failure| failure.blocked_until(now));
        match backoff.max(self.provider_backoff_until(account, now)) {
            Some(until) => unless_usable(TokenAction::Wait { until }),
            None => Some(TokenAction::Renew { is_usable }),
        }
    }

    /// When the rate limit that blocks renewals of all logins of the provider ends.
    ///
    /// Other failures block only their own login, so that a login that always fails does not starve its siblings.
    fn provider_backoff_until(&self, account: &AccountId, now: Timestamp) -> Option<Timestamp> {
        let siblings = self.logins.iter().filter(|(id, _)| id.provider() == account.provider());
        let failures = siblings.filter_map(|(_, login)| login.current_failure());
        let rate_limits = failures.filter(|failure| failure.kind == FailureKind::RateLimited);
        rate_limits.filter_map(|failure| failure.blocked_until(now)).max()
    }

    /// Records that a refresh token is about to be sent, because the process may be killed before the result is stored.
    ///
    /// After the first attempt the token may be sent again at once, because some providers repeat a lost response for a short time.
    /// Later attempts back off. Returns false if another token has been stored since.
    pub(crate) fn mark_sending(
        &mut self,
        account: &AccountId,
        fingerprint: CredentialFingerprint,
        now: Timestamp,
        timing: &RenewalTiming,
    ) -> bool {
        let Some(login) = self.login_with(account, fingerprint) else { return false };
        let attempts = login.attempts().saturating_add(1);
        let wait = if attempts == 1 { Duration::ZERO } else { timing.delay(attempts - 1) };
        let reason = "the response to its renewal was lost".to_owned();
        login.set_failure(fingerprint, FailureKind::Sent, now, wait, attempts, reason);
        true
    }

    /// Stores the tokens of a renewal. Returns false if another refresh token has been stored since, which is newer.
    pub(crate) fn apply(
        &mut self,
        account: &AccountId,
        fingerprint: CredentialFingerprint,
        exchanged: &Exchanged,
    ) -> bool {
        let Some(login) = self.login_with(account, fingerprint) else { return false };
        let Exchanged { tokens, started_at, from_rejection } = exchanged;
        login.access_token = tokens.access_token.clone();
        if let Some(next) =
            tokens.refresh_token.as_ref().filter(|next| token::fingerprint(next) != fingerprint)
        {
            login.refresh_token = Some(next.clone());
            login.used_refresh_tokens.push(fingerprint);
            let excess = login.used_refresh_tokens.len().saturating_sub(MAX_USED_TOKENS);
            login.used_refresh_tokens.drain(..excess);
        }
        login.issued_at = Some(*started_at);
        login.expires_at = tokens.expires_in.map(|lifetime| saturating_add(*started_at, lifetime));
        login.from_rejection = *from_rejection;
        login.last_failure = None;
        if let Some(owner) = tokens.owner_id.as_ref().map(owner_hash) {
            if login.owner.is_some_and(|previous| previous != owner) {
                // Readings of the previous owner do not apply to this owner.
                login.login_id = StoredLogin::new_login_id();
            }
            login.owner = Some(owner);
        }
        true
    }

    /// Records why a renewal failed. Returns false if another refresh token has been stored since.
    pub(crate) fn record_failure(
        &mut self,
        account: &AccountId,
        fingerprint: CredentialFingerprint,
        error: &TokenError,
        now: Timestamp,
        timing: &RenewalTiming,
    ) -> bool {
        let Some(login) = self.login_with(account, fingerprint) else { return false };
        if login.current_failure().is_some_and(|failure| failure.at > now) {
            // Another process has sent the token since this failure, which was written late.
            return true;
        }
        let attempts = login.attempts().max(1);
        let (kind, wait) = match error {
            TokenError::InvalidGrant { .. } => (FailureKind::InvalidGrant, Duration::ZERO),
            // Only a changed setting helps, so retry as rarely as the backoff allows.
            TokenError::InvalidClient { .. } => (FailureKind::InvalidClient, timing.backoff.max),
            _ => match error.retry_after() {
                Some(wait) => (FailureKind::RateLimited, timing.delay(attempts).max(bounded_wait(wait))),
                None => (FailureKind::Transient, timing.delay(attempts)),
            },
        };
        login.set_failure(fingerprint, kind, now, wait, attempts, reason(error));
        true
    }

    /// The login of an account, if its refresh token still has this fingerprint.
    fn login_with(
        &mut self,
        account: &AccountId,
        fingerprint: CredentialFingerprint,
    ) -> Option<&mut StoredLogin> {
        self.logins.get_mut(account).filter(|login| login.refresh_fingerprint() == Some(fingerprint))
    }
}

/// New tokens of a renewal.
#[derive(Debug, Clone)]
pub(crate) struct Exchanged {
    pub(crate) tokens: Tokens,
    /// When the request was sent. The lifetime of the access token starts no earlier.
    pub(crate) started_at: Timestamp,
    /// Whether the provider had rejected the previous access token.
    pub(crate) from_rejection: bool,
}

impl StoredLogin {
    /// When to renew the access token; `None` if it has no expiry.
    fn renew_at(&self, timing: &RenewalTiming) -> Option<Timestamp> {
        let expiry = self.expires_at?;
        // Otherwise a short-lived token would be renewed constantly.
        let lifetime =
            self.issued_at.and_then(|issued| Duration::try_from(expiry.duration_since(issued)).ok());
        let margin = lifetime.map_or(timing.margin, |lifetime| timing.margin.min(lifetime / 4));
        let margin = margin.mul_f64(0.5 + timing.jitter.clamp(0.0, 1.0) / 2.0);
        Some(expiry.checked_sub(margin).unwrap_or(Timestamp::MIN))
    }

    /// How often the current refresh token was sent.
    fn attempts(&self) -> u32 {
        self.current_failure().map_or(0, |failure| failure.attempts)
    }

    fn set_failure(
        &mut self,
        fingerprint: CredentialFingerprint,
        kind: FailureKind,
        at: Timestamp,
        wait: Duration,
        attempts: u32,
        reason: String,
    ) {
        let unknown = self.current_failure().map(|failure| failure.unknown.clone()).unwrap_or_default();
        let retry_at = saturating_add(at, wait);
        self.last_failure =
            Some(RenewalFailure { fingerprint, kind, at, retry_at, attempts, reason, unknown });
    }
}

impl RenewalFailure {
    /// Until when the token must not be sent; `None` if it may be sent now.
    fn blocked_until(&self, now: Timestamp) -> Option<Timestamp> {
        Some(self.retry_at).filter(|retry_at| now < *retry_at && !is_from_future(self.at, now))
    }
}

impl RenewalTiming {
    fn delay(&self, attempts: u32) -> Duration {
        self.backoff.delay(attempts, self.jitter)
    }
}

/// The cause without the advice in the error text.
fn reason(error: &TokenError) -> String {
    match error {
        TokenError::InvalidGrant { reason: why, .. }
        | TokenError::InvalidClient { reason: why, .. }
        | TokenError::Transient { reason: why, .. } => why.clone().into_owned(),
        other => other.to_string(),
    }
}

fn saturating_add(at: Timestamp, duration: Duration) -> Timestamp {
    at.checked_add(duration).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
