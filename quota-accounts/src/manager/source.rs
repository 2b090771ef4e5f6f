//! Asking the source of credentials, which may be anybody's: bounded in time, and its panic caught.
//! What follows for an account from having no credential is decided in `route` and `report`.

use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use quota_core::{AccountId, Credential, CredentialError, CredentialFingerprint};

use super::Inner;
use super::slot::AccountSlot;
use crate::routing::{Reason, Verdict};

impl Inner {
    /// The credential of an account as it is now; `None` if there is no source.
    ///
    /// Whatever the source does, this ends. One that hung about the account is left alone for a pause, or each request would
    /// wait for it anew.
    pub(super) async fn read_credential(
        &self,
        slot: &AccountSlot,
    ) -> Option<Result<Credential, CredentialError>> {
        let source = self.credentials.as_ref()?;
        if self.hangs(slot).is_some() {
            return Some(Err(late()));
        }
        let asked = self.guarded(async { source.credential(&slot.id).await }).await;
        match &asked {
            None => slot.hangs_since(self.now()),
            Some(Ok(_)) => slot.hangs_no_more(),
            Some(Err(_)) => {}
        }
        Some(asked.unwrap_or_else(|| Err(late())))
    }

    /// Another credential than the one that was refused, or the same; `None` if there is no source.
    pub(super) async fn renewed(
        &self,
        account: &AccountId,
        refused: Option<CredentialFingerprint>,
    ) -> Option<Result<Credential, CredentialError>> {
        let source = self.credentials.as_ref()?;
        let asked = self.guarded(async { source.renew(account, refused).await }).await;
        Some(asked.unwrap_or_else(|| Err(late())))
    }

    /// That an account is out because the source hung about it a moment ago.
    pub(super) fn hangs(&self, slot: &AccountSlot) -> Option<Verdict> {
        let since = slot.credential_timeout_at()?;
        let now = self.now();
        let until = since.checked_add(self.policy.throttle_cooldown).ok()?;
        // Not if it is in the future: the clock has been set back since.
        (since <= now && now < until).then(|| Verdict::ineligible(Reason::CredentialUnavailable, Some(until)))
    }

    /// Runs what a source does; `None` if its time was over.
    async fn guarded(
        &self,
        work: impl Future<Output = Result<Credential, CredentialError>>,
    ) -> Option<Result<Credential, CredentialError>> {
        let done = self.clock.bounded(self.policy.credential_timeout, unwinding(work)).await?;
        Some(done.unwrap_or_else(|| Err(broken())))
    }
}

/// Runs `work`; `None` if it panicked.
async fn unwinding<F: Future>(work: F) -> Option<F::Output> {
    let mut work = pin!(work);
    // The future is dropped after a panic and never looked at again, so nothing half done is seen.
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
        Ok(Poll::Ready(output)) => Poll::Ready(Some(output)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(_panic) => Poll::Ready(None),
    })
    .await
}

fn late() -> CredentialError {
    CredentialError::unreadable("the source did not answer in time", io::Error::from(io::ErrorKind::TimedOut))
}

fn broken() -> CredentialError {
    CredentialError::unreadable("the source broke", io::Error::other("it panicked"))
}
