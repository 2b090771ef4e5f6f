//! Reading the credential of an account for a request, bounded in time.
//! What follows for an account without a credential is decided in `route` and `report`.

use quota_core::model::CredentialFingerprint;
use quota_core::{Credential, CredentialError};

use super::Inner;
use super::slot::AccountSlot;
use crate::routing::{Reason, Verdict};

impl Inner {
    /// The current credential of an account; `None` if it has no source.
    ///
    /// After a timeout the account is skipped for a pause. Otherwise each request would wait for its source again.
    pub(super) async fn read_credential(
        &self,
        slot: &AccountSlot,
    ) -> Result<Option<Credential>, CredentialError> {
        if self.hangs(slot).is_some() {
            return Err(timed_out());
        }
        let read = slot.usage.credential(self.policy.credential_timeout).await;
        match &read {
            Ok(_) => slot.hangs_no_more(),
            Err(error) if error.is_timeout() => slot.hangs_since(self.now()),
            Err(_) => {}
        }
        read
    }

    /// The credential after the provider rejected the one with this fingerprint: another, or the same; `None` if the account has no
    /// source.
    pub(super) async fn renewed(
        &self,
        slot: &AccountSlot,
        rejected: Option<CredentialFingerprint>,
    ) -> Result<Option<Credential>, CredentialError> {
        slot.usage.renew_credential(rejected, self.policy.credential_timeout).await
    }

    /// That an account is skipped because its source timed out a moment ago.
    pub(super) fn hangs(&self, slot: &AccountSlot) -> Option<Verdict> {
        let since = slot.credential_timeout_at()?;
        let now = self.now();
        let until = since.checked_add(self.policy.throttle_cooldown).ok()?;
        // Not if it is in the future: the clock has been set back since.
        (since <= now && now < until).then(|| Verdict::ineligible(Reason::CredentialUnavailable, Some(until)))
    }
}

fn timed_out() -> CredentialError {
    CredentialError::timed_out("the source of the credential did not answer in time")
}
