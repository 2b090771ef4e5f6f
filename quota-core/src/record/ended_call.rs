//! The last ended calls, and which refreshes they satisfy. The rules compare fences, never clocks.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{LastFailure, RecentCall, Record};
use crate::model::CredentialFingerprint;
use crate::model::extra_fields::ExtraFields;
use crate::time;

/// The last call that succeeded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SucceededCall {
    fence: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fingerprint: Option<CredentialFingerprint>,
    #[serde(flatten)]
    unknown: ExtraFields,
}

impl Record {
    /// The fence up to which all calls have ended at `now`. A higher fence belongs to the running call, or to a later one.
    ///
    /// A refresh takes this fence from the first record that it reads from the store. A call with a higher fence then satisfies
    /// the refresh; see [`LeaseRequest::after_fence`](super::LeaseRequest#structfield.after_fence). An outdated copy of the
    /// record would also include calls that ended before the request.
    #[must_use]
    pub fn ended_fence(&self, now: Timestamp) -> u64 {
        let running = self.lease().filter(|lease| lease.is_live(now));
        let ended = running.map_or(self.fence, |lease| lease.fence.saturating_sub(1));
        ended.max(self.succeeded_fence()).max(self.failed_fence())
    }

    /// A call with a higher fence than `fence` that has ended and counts for this credential. A success is preferred.
    ///
    /// A failure counts only for the credential that failed. In a record without a login, another credential may belong
    /// to another login, so the same applies to a success.
    pub(super) fn call_after(
        &self,
        fence: u64,
        credential: Option<CredentialFingerprint>,
    ) -> Option<RecentCall> {
        let is_of_login =
            |succeeded: &&SucceededCall| self.owner.login_id.is_some() || succeeded.fingerprint == credential;
        let succeeded = self.succeeded.as_deref().filter(|call| call.fence > fence).filter(is_of_login);
        let succeeded = succeeded.map(|call| RecentCall { at: self.start_of(call), failure: None });
        let failed = || {
            let failed = self.failed.as_deref().filter(|failure| failure.order() > fence);
            failed.filter(|failure| failure.fingerprint == credential)
        };
        succeeded
            .or_else(|| failed().map(|failure| RecentCall { at: failure.at, failure: Some(failure.clone()) }))
    }

    /// Records the success of the call with this fence.
    pub(super) fn record_success(&mut self, fence: u64, fingerprint: Option<CredentialFingerprint>) {
        let has_login = self.owner.login_id.is_some();
        // The success satisfies every refresh that the failure would satisfy.
        self.failed.take_if(|failure| has_login || failure.fingerprint == fingerprint);
        let call = SucceededCall { fence, fingerprint, unknown: ExtraFields::default() };
        self.succeeded = Some(Box::new(call));
    }

    /// Records the failure of a call.
    pub(super) fn record_failure(&mut self, failure: &LastFailure) {
        self.failed = Some(Box::new(failure.clone()));
    }

    /// Whether the last success was the call with this fence.
    pub(super) fn has_succeeded(&self, fence: u64) -> bool {
        self.succeeded.as_ref().is_some_and(|call| call.fence == fence)
    }

    /// Whether the last failure was the call with this fence.
    pub(super) fn has_failed(&self, fence: u64) -> bool {
        self.failed.as_ref().is_some_and(|failure| failure.order() == fence)
    }

    /// Drops both calls, so that they satisfy no refresh.
    pub(super) fn forget_ended_calls(&mut self) {
        (self.succeeded, self.failed) = (None, None);
    }

    pub(super) fn succeeded_fence(&self) -> u64 {
        self.succeeded.as_ref().map_or(0, |call| call.fence)
    }

    pub(super) fn failed_fence(&self) -> u64 {
        self.failed.as_ref().map_or(0, |failure| failure.order())
    }

    /// When the call started, for users. A fence is at least the time of its grant.
    fn start_of(&self, call: &SucceededCall) -> Timestamp {
        let by_fence = || time::from_ms(i64::try_from(call.fence).unwrap_or(i64::MAX));
        self.refreshed_at.map_or_else(by_fence, time::UnixMillis::timestamp)
    }
}
