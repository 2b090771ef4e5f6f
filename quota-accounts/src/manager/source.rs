//! Reading the credential of an account for a request, with a timeout.
//! `route` and `report` decide what follows for an account without a credential.

use quota_core::{Credential, CredentialError};

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
