//! The credential and the login of an account, for programs.
//! `refresh` gets the credential for a call from the same cache.

use std::sync::Arc;
use std::time::Duration;

use super::account::Account;
use super::account_state::Selection;
use super::credential_cache::Caller;
use super::credential_reuse::Demand;
use super::login_check::LoginCheck;
use crate::model::{CredentialFingerprint, LoginId};
use crate::provider::{Credential, CredentialError, CredentialSource};

impl Account {
    /// Whether the account has a credential source.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        self.entry.provider.credentials.has(&self.entry.id)
    }

    /// Sets the account's credential source, replacing the previous one.
    ///
    /// All handles of the account use the new source for their next read of the credential. The cached credential is dropped, and a
    /// read in flight starts over with the new source. A call in flight may still use the previous credential. Fresh readings stay until they are stale. [`QuotaManager::forget`](crate::QuotaManager::forget) removes the
    /// source if no handle is left.
    pub fn set_credentials(&self, source: impl CredentialSource) {
        self.entry.provider.credentials.set(self.entry.id.clone(), Arc::new(source));
        // A refresh with the new source may succeed at once.
        self.entry.update(|state| state.checked = None);
        self.entry.source_changed();
    }

    /// The account's current credential, for a request to the provider; `None` if it has no source.
    ///
    /// It comes from the cache in front of the source, which a refresh uses too; [`CredentialSource::version`] decides
    /// when the source is read again. A failure is cached for a second. The time doubles with each repeated failure, up
    /// to a minute; [`refresh`](Self::refresh) reads the source at once. If the credential belongs to another login
    /// than the readings, the account shows the record of that login from now on. This waits for the source for at most
    /// `timeout`. If the future is dropped, the read continues for other callers. If the manager is closed, a read ends
    /// with its caller.
    ///
    /// # Errors
    ///
    /// [`CredentialError`] of the source; [`CredentialError::Unreadable`] if the source timed out or panicked;
    /// [`CredentialError::TemporarilyUnavailable`] if the source has not answered within `timeout`. Its read then continues, for at
    /// least ten seconds or the longest timeout of its callers.
    pub async fn credential(&self, timeout: Duration) -> Result<Option<Credential>, CredentialError> {
        self.current_credential(Demand::Current, timeout).await
    }

    /// Returns the credential to use after the provider rejected the one with the fingerprint `rejected`; `None` if the account
    /// has no source. See [`CredentialSource::renew`].
    ///
    /// Concurrent callers share one renewal. A cached credential that the provider has not rejected is returned without one. The
    /// timeout and the cancellation are those of [`credential`](Self::credential).
    ///
    /// # Errors
    ///
    /// As [`credential`](Self::credential). [`CredentialError::NotLoggedIn`] if the source returns a credential that was rejected
    /// before.
    pub async fn renew_credential(
        &self,
        rejected: Option<CredentialFingerprint>,
        timeout: Duration,
    ) -> Result<Option<Credential>, CredentialError> {
        self.current_credential(Demand::Replacement(rejected), timeout).await
    }

    async fn current_credential(
        &self,
        demand: Demand,
        timeout: Duration,
    ) -> Result<Option<Credential>, CredentialError> {
        let provider = &self.entry.provider;
        let check = LoginCheck::begin(&self.entry);
        let (account, clock, tasks) = (&self.entry.id, &provider.clock, &self.shared.context.tasks);
        let read = provider.credentials.credential(&Caller { account, demand, timeout, clock, tasks }).await;
        let Some(credential) = read.transpose()? else { return Ok(None) };
        self.apply_login(check, &credential);
        Ok(Some(credential))
    }

    /// Shows the record of the credential's login. Readings that were hidden because their login was unknown are shown again.
    fn apply_login(&self, check: LoginCheck, credential: &Credential) {
        let was_unchecked = self.entry.is_unchecked();
        let is_switched = check.apply(&self.entry, credential.login.login_id.as_ref(), &self.shared.context);
        if is_switched || was_unchecked {
            self.follow();
            return;
        }
        if self.entry.selection() != Selection::Program {
            self.entry.note_login(&credential.login);
        }
        if self.entry.state().unattributed {
            self.entry.update(|state| state.unattributed = false);
        }
    }

    /// Sets the login that the account holds from now on.
    ///
    /// A program whose credential source states the login never calls this. From now on the account shows the record of this login,
    /// which is empty until it is read from the store. A refresh in this process that reads a credential of another login then fails.
    ///
    /// Readings that this process seeded or observed before the first check of the login are added to that record.
    pub fn set_login(&self, login_id: LoginId) {
        if self.entry.record().login() != Some(&login_id) {
            // Before the login changes, so that no call for the new login uses a credential of the previous one.
            self.entry.provider.credentials.clear(self.id());
        }
        self.shared.context.records.select(&self.entry, Some(&login_id), Selection::Program, None);
        self.view_handle.set_checks_login(false);
        self.follow();
    }
}
