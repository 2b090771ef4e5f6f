//! The credential and the login of an account, for programs.
//! `refresh` reads the credential for a call itself.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::account::Account;
use super::background;
use super::tasks::catch_panic;
use crate::model::{CredentialFingerprint, LoginId};
use crate::provider::{Credential, CredentialError, CredentialSource};

impl Account {
    /// Whether the account has a credential source.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        self.credential_source().is_some()
    }

    /// Sets the account's credential source, replacing the previous one.
    ///
    /// All handles of the account use the new source for their next read of the credential. A refresh in flight may still use the
    /// previous source. Fresh readings stay until they are stale. [`QuotaManager::forget`](crate::QuotaManager::forget) removes the
    /// source if no handle is left.
    pub fn set_credentials(&self, source: impl CredentialSource) {
        self.entry.provider.credentials.set(self.entry.id.clone(), Arc::new(source));
    }

    /// Reads the account's current credential from its source, for a request to the provider; `None` if it has no source.
    ///
    /// If the credential belongs to another login than the readings, the readings are cleared. The source has at most `timeout` to
    /// respond. Dropping the future cancels the read.
    ///
    /// # Errors
    ///
    /// [`CredentialError`] of the source; [`CredentialError::Unreadable`] if the source timed out or panicked.
    pub async fn credential(&self, timeout: Duration) -> Result<Option<Credential>, CredentialError> {
        let Some(source) = self.credential_source() else { return Ok(None) };
        let credential = self.read_credential(timeout, async { source.credential(self.id()).await }).await?;
        self.claim_login(&credential).await;
        Ok(Some(credential))
    }

    /// Returns the credential to use after the provider rejected the one with the fingerprint `rejected`; `None` if the account
    /// has no source. See [`CredentialSource::renew`].
    ///
    /// The timeout and the cancellation are those of [`credential`](Self::credential).
    ///
    /// # Errors
    ///
    /// As [`credential`](Self::credential).
    pub async fn renew_credential(
        &self,
        rejected: Option<CredentialFingerprint>,
        timeout: Duration,
    ) -> Result<Option<Credential>, CredentialError> {
        let Some(source) = self.credential_source() else { return Ok(None) };
        let credential =
            self.read_credential(timeout, async { source.renew(self.id(), rejected).await }).await?;
        self.claim_login(&credential).await;
        Ok(Some(credential))
    }

    /// Clears the readings of another login. If the store is unavailable, they are hidden instead.
    async fn claim_login(&self, credential: &Credential) {
        let Some(login_id) = &credential.login.login_id else { return };
        let record = self.entry.record();
        if record.local().login.is_some() {
            return;
        }
        match record.claim_login(login_id).await {
            // An earlier claim failed and hid the readings. Now their login is confirmed.
            Ok(()) if self.entry.state().unattributed => {
                self.entry.update(|state| state.unattributed = false);
            }
            Ok(()) => {}
            Err(error) => {
                self.entry.update(|state| state.unattributed = true);
                tracing::debug!(account = %self.id(), %error, "could not clear the readings of another login");
            }
        }
    }

    fn credential_source(&self) -> Option<Arc<dyn CredentialSource>> {
        self.entry.provider.credentials.of(&self.entry.id)
    }

    async fn read_credential(
        &self,
        timeout: Duration,
        read: impl Future<Output = Result<Credential, CredentialError>>,
    ) -> Result<Credential, CredentialError> {
        match self.entry.provider.clock.bounded(timeout, catch_panic(read)).await {
            Some(Some(read)) => read,
            Some(None) => Err(CredentialError::unreadable(
                "the credential source panicked",
                io::Error::other("it panicked"),
            )),
            None => Err(CredentialError::timed_out("the credential source timed out")),
        }
    }

    /// Sets the login that the account holds from now on.
    ///
    /// A program whose credential source states the login never calls this. If the login differs from the previous one, the
    /// readings of the previous login are neither shown nor merged any more, and its late responses are not stored. A refresh in
    /// this process that reads a credential of another login then fails.
    ///
    /// After the manager was closed, this changes only the readings that this process shows.
    pub fn set_login(&self, login_id: LoginId) {
        let record = self.entry.record();
        if record.update(|local| local.set_login(login_id)) {
            self.entry.update(|state| state.failed = None);
        }
        background::schedule_flush(&record, &self.shared.context);
    }
}
