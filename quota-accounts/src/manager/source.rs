//! Reads the credential of an account for a request, with a timeout, and those of ineligible accounts in the
//! background. It also returns the verdicts on accounts without a usable credential. `route` decides which account
//! comes next.

use std::sync::Arc;
use std::time::Duration;

use quota_core::model::{LoginId, LoginInfo};
use quota_core::provider::{RejectionKind, bounded_wait};
use quota_core::{AccountUsage, Credential, CredentialError, FetchError, QuotaError};
use tokio::sync::mpsc;

use super::Inner;
use super::scan::ChosenBy;
use super::slot::AccountSlot;
use crate::Request;
use crate::routing::{Eligibility, Reason, Verdict, evaluate, evaluate_with_retry};

impl Inner {
    /// The current credential of an account; `None` if it has no source.
    ///
    /// After a timeout, the account is skipped for a while. Otherwise each request would wait for its source again.
    pub(super) async fn read_credential(
        &self,
        slot: &AccountSlot,
    ) -> Result<Option<Credential>, CredentialError> {
        if self.credential_cooldown(slot).is_some() {
            return Err(CredentialError::timed_out("the credential source timed out"));
        }
        let read = slot.usage.credential(self.policy.credential_timeout).await;
        match &read {
            Ok(_) => slot.clear_credential_timeout(),
            Err(error) if error.is_timeout() => slot.credential_timed_out(self.now()),
            Err(_) => {}
        }
        read
    }

    /// Excludes an account whose credential source timed out less than
    /// [`throttle_cooldown`](crate::RoutingPolicy#structfield.throttle_cooldown) ago.
    pub(super) fn credential_cooldown(&self, slot: &AccountSlot) -> Option<Verdict> {
        let since = slot.credential_timeout_at()?;
        let now = self.now();
        let until = since.checked_add(self.policy.throttle_cooldown).ok()?;
        // A timeout in the future does not count, because the clock was set back.
        (since <= now && now < until).then(|| Verdict::ineligible(Reason::CredentialUnavailable, Some(until)))
    }

    /// Refreshes an account whose login has changed since the choice, because its readings now come from another
    /// record.
    async fn refresh_new_login(self: &Arc<Self>, at: usize, waited: &mut Duration) {
        let slot = &self.slots[at];
        tracing::debug!(account = %slot.id, "the account has another login");
        // First restore its stored state, which may be fresh.
        self.restore_login(at);
        if let Err(error) = self.wait_for_refresh(at, &Request::new(), waited).await {
            tracing::debug!(account = %slot.id, %error, "refresh failed, no readings of the new login");
        }
        self.schedule_save();
    }

    /// Reads the credential, and evaluates the account again. The error is the verdict if the account is unusable; `None` if it has
    /// another login now, so that the choice and the reservation must be made again.
    pub(super) async fn credential(
        self: &Arc<Self>,
        request: &Request,
        at: usize,
        chosen: &ChosenBy,
        waited: &mut Duration,
    ) -> Result<Option<Credential>, Option<Verdict>> {
        let slot = &self.slots[at];
        // Check this first, because programs without credential sources are common.
        if !slot.usage.has_credentials() {
            return Ok(None);
        }
        let credential = self.read_credential(slot).await.map_err(|error| {
            tracing::debug!(account = %slot.id, %error, "no usable credential");
            Some(self.without_credential(&error))
        })?;
        if let Some(credential) = &credential {
            slot.clear_for_login(&credential.login);
            slot.record_read(&credential.login);
            if let Some(verdict) = self.rejected_under_another_name(at, &credential.login, request) {
                return Err(Some(verdict));
            }
            let login_id = slot.login_id();
            // The quota manager may have noticed it before the credential was read.
            let is_another = chosen.login_id.is_some() && login_id != chosen.login_id;
            if is_another {
                self.refresh_new_login(at, waited).await;
                return Err(None);
            }
            // With an estimate, the reservation belongs to the account until its login is known.
            let must_choose_again = slot.usage.peek().is_login_shared() || request.estimate().is_some();
            if login_id != chosen.login_id && must_choose_again {
                return Err(None);
            }
            // Reading the credential may take a while, so usage readings may have changed.
            let now = self.now();
            if now != chosen.at {
                // The request has its own reservation, which must not exclude the account or hide another reason.
                let candidate = self.candidate(at, slot, None).reserved([]);
                if evaluate(&candidate, request, now, &self.policy).eligibility == Eligibility::Ineligible {
                    return Err(Some(evaluate_with_retry(&candidate, request, now, &self.policy)));
                }
            }
        }
        Ok(credential)
    }

    /// The verdict if the provider has rejected this same credential under another name of its login.
    fn rejected_under_another_name(
        &self,
        at: usize,
        login: &LoginInfo,
        request: &Request,
    ) -> Option<Verdict> {
        let of_login = login.login_id.clone().or_else(|| self.slots[at].login_id())?;
        let now = self.now();
        let block_of = |other: usize| self.slots[other].block_of_credential(login, request.model(), now);
        let block = self.other_blocked(at, &of_login).into_iter().find_map(block_of)?;
        let reason = match block.kind {
            RejectionKind::Forbidden => Reason::Forbidden,
            _ => Reason::LoginRejected,
        };
        Some(Verdict::ineligible(reason, block.until))
    }

    /// The verdict on an account whose refresh failed because of its credential.
    pub(super) fn without_credential_for(&self, error: &QuotaError) -> Option<Verdict> {
        let QuotaError::Fetch { error, .. } = error else { return None };
        let (reason, wait) = match error {
            FetchError::NotLoggedIn { .. } => return Some(Verdict::ineligible(Reason::LoginRejected, None)),
            FetchError::CredentialUnavailable { retry_after, .. } => {
                (Reason::CredentialUnavailable, *retry_after)
            }
            _ => return None,
        };
        let wait = wait.map_or(self.policy.throttle_cooldown, bounded_wait);
        Some(Verdict::ineligible(reason, self.now().checked_add(wait).ok()))
    }

    /// The verdict on an account without a usable credential. Only a missing login requires the user to act.
    fn without_credential(&self, error: &CredentialError) -> Verdict {
        let (reason, wait) = match error {
            CredentialError::NotLoggedIn { .. } => return Verdict::ineligible(Reason::LoginRejected, None),
            CredentialError::TemporarilyUnavailable { retry_after, .. } => {
                (Reason::LoginRenewing, *retry_after)
            }
            // A locked keychain, a file during a rewrite, a command that failed once, or an error kind unknown to this version.
            _ => (Reason::CredentialUnavailable, None),
        };
        Verdict::ineligible(
            reason,
            self.now().checked_add(wait.map_or(self.policy.throttle_cooldown, bounded_wait)).ok(),
        )
    }
}

/// The running checks whether ineligible accounts have other credentials by now. They continue in the background if the value is
/// dropped.
#[derive(Debug, Default)]
pub(super) struct Rechecks(Vec<mpsc::UnboundedReceiver<bool>>);

impl Rechecks {
    /// Starts a check of each account.
    pub(super) fn start(&mut self, inner: &Arc<Inner>, indices: &[usize]) {
        let (sender, receiver) = mpsc::unbounded_channel();
        for at in indices {
            let (inner, sender, at) = (Arc::clone(inner), sender.clone(), *at);
            // Read this now, because the quota manager may notice another login before the check starts.
            let before = inner.slots[at].login_id();
            inner.clone().in_background(async move {
                // The request may have ended.
                let _ = sender.send(inner.recheck_credential(at, before.as_ref()).await);
            });
        }
        self.0.push(receiver);
    }

    /// Whether a check may still find another credential.
    pub(super) fn is_running(&self) -> bool {
        self.0.iter().any(|receiver| !receiver.is_closed())
    }

    /// Waits for the checks until one has found another credential. Returns whether one has. Dropping the future is
    /// safe.
    pub(super) async fn any_changed(&mut self) -> bool {
        while let Some(receiver) = self.0.last_mut() {
            match receiver.recv().await {
                Some(true) => return true,
                Some(false) => {}
                None => drop(self.0.pop()),
            }
        }
        false
    }
}

impl Inner {
    /// Checks whether an ineligible account has a new credential. If the credential belongs to another login, reading
    /// it also switches the account to that login's record. `before` is the login with which the account was
    /// ineligible.
    async fn recheck_credential(self: &Arc<Self>, at: usize, before: Option<&LoginId>) -> bool {
        let slot = &self.slots[at];
        let Ok(Some(credential)) = self.read_credential(slot).await else { return false };
        let has_cleared = slot.clear_for_login(&credential.login);
        let is_other = |usage: AccountUsage| {
            let failure = usage.last_failure();
            failure.is_some_and(|failure| slot.has_other_credential(failure.fingerprint))
        };
        let is_new = slot.record_read(&credential.login) && is_other(slot.usage.peek());
        let has_other_login = slot.login_id().as_ref() != before;
        if has_other_login {
            tracing::debug!(account = %slot.id, "the account has another login");
        }
        if has_cleared || has_other_login {
            self.schedule_save();
        }
        has_cleared || has_other_login || is_new
    }
}
