//! Reading the credential of an account for a request, with a timeout, and of ineligible accounts in the background.
//! `route` and `report` decide what follows for an account without a credential.

use std::sync::Arc;

use quota_core::model::LoginId;
use quota_core::{AccountUsage, Credential, CredentialError};
use tokio::sync::mpsc;

use super::Inner;
use super::slot::AccountSlot;
use crate::routing::{Reason, Verdict};

impl Inner {
    /// The current credential of an account; `None` if it has no source.
    ///
    /// After a timeout the account is skipped for a while. Otherwise each request would wait for its source again.
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
        // A timeout in the future does not count: the clock was set back.
        (since <= now && now < until).then(|| Verdict::ineligible(Reason::CredentialUnavailable, Some(until)))
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
            // Read now: the quota manager may notice another login before the check starts.
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

    /// Waits for the checks, until one has found another credential. Returns whether one has. Dropping the future is safe.
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
    /// Checks whether an ineligible account has another credential by now. Reading the credential of another login also shows the
    /// record of that login. `before` is the login with which the account was ineligible.
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
