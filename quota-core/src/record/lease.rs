//! The lease, which is the right to call the provider, and the request for it. The module `begin` decides whether to
//! grant it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Hold, LastFailure};
use crate::model::extra_fields::ExtraFields;
use crate::model::{LoginInfo, RequestId};
use crate::policy::LEASE_MARGIN;
use crate::time;

/// The right to call the provider for one account, until it is released or expires.
///
/// The fence rises with every lease, even if the store lost the record in between. A holder with an older fence can change
/// nothing. (Fencing tokens; see Kleppmann, "How to do distributed locking", 2016.)
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Lease {
    /// The fence of this lease, higher than that of every earlier lease of the account.
    pub fence: u64,
    /// The id of the attempt that holds the lease.
    pub attempt: RequestId,
    /// When the lease was granted. The age of its readings counts from this time.
    #[serde(rename = "granted_ms", with = "time::ms")]
    pub granted_at: Timestamp,
    /// When another process may take over the lease.
    #[serde(rename = "until_ms", with = "time::ms")]
    pub until: Timestamp,
    /// The credential that the call uses, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fingerprint: Option<crate::model::CredentialFingerprint>,
    #[serde(flatten)]
    pub(crate) unknown: ExtraFields,
}

impl Lease {
    /// Whether the holder may still be calling the provider.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        now < self.until
    }

    /// How long a call that starts at `now` may take: this timeout, or less, so that it ends before another process may take over the
    /// lease. `None` if that is less than half of the timeout.
    pub(crate) fn call_timeout(&self, now: Timestamp, timeout: Duration) -> Option<Duration> {
        let left = Duration::try_from(self.until.duration_since(now)).unwrap_or_default();
        if left >= timeout {
            return Some(timeout);
        }
        // The other process's estimate of the store's time may be ahead.
        Some(left.saturating_sub(LEASE_MARGIN)).filter(|left| *left >= timeout / 2)
    }
}

/// One call to the provider, finished or running.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct CallRecord {
    /// When the call started. The budget counts from this time.
    pub at: Timestamp,
    /// The fence of the lease, which identifies the call. Two calls share a fence only if two processes without the store
    /// granted it at the same time.
    pub fence: u64,
    /// The name of the calling process; empty if it has none.
    pub by: Arc<str>,
}

/// An ended call, and its result.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RecentCall {
    /// When the call started.
    pub at: Timestamp,
    /// Why the call failed; `None` if it succeeded.
    pub failure: Option<LastFailure>,
}

/// A request for the lease of an account.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LeaseRequest {
    /// The id of the attempt. A second request with the same id gets the same lease.
    pub attempt: RequestId,
    /// The login that the call would use.
    pub login: LoginInfo,
    /// How fresh the readings must be to make a call unnecessary.
    pub max_staleness: MaxStaleness,
    /// An ended call with a higher fence satisfies the request, regardless of its age; see
    /// [`ended_fence`](super::Record::ended_fence).
    pub after_fence: Option<u64>,
    /// Whether a caller waits for the result.
    pub priority: Priority,
    /// The name of the calling process, for the list of calls.
    pub by: Arc<str>,
    /// The cooldown of the provider, if one is in force.
    pub cooldown: Option<Hold>,
}

impl LeaseRequest {
    /// Creates an interactive request for an unknown login.
    #[must_use]
    pub fn new(attempt: RequestId, max_staleness: MaxStaleness) -> Self {
        Self {
            attempt,
            login: LoginInfo::unknown(),
            max_staleness,
            after_fence: None,
            priority: Priority::Interactive,
            by: Arc::from(""),
            cooldown: None,
        }
    }

    /// Sets the login that the call would use.
    #[must_use]
    pub fn login(mut self, login: LoginInfo) -> Self {
        self.login = login;
        self
    }

    /// Sets the fence above which an ended call satisfies the request.
    #[must_use]
    pub fn after_fence(mut self, fence: Option<u64>) -> Self {
        self.after_fence = fence;
        self
    }

    /// Sets whether a caller waits for the result.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Sets the name of the calling process.
    #[must_use]
    pub fn by(mut self, by: Arc<str>) -> Self {
        self.by = by;
        self
    }

    /// Sets the cooldown of the provider.
    #[must_use]
    pub fn cooldown(mut self, cooldown: Option<Hold>) -> Self {
        self.cooldown = cooldown;
        self
    }
}

/// How fresh readings must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MaxStaleness {
    /// The account-wide windows have readings younger than this, and none has reset since.
    Age(Duration),
    /// All windows, including those of one model, have readings younger than this, and none has reset since.
    CompleteAge(Duration),
    /// No readings are fresh enough: only a new call satisfies the request, or one above [`LeaseRequest::after_fence`].
    NewCall,
    /// A call with the same credential started at this time or later, whether it succeeded or failed. Readings without a call
    /// do not count.
    CalledAfter(Timestamp),
}

/// Whether a caller waits for a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Priority {
    /// No caller waits. Such a refresh queues behind interactive ones and does not use the reserve of the budget.
    Background,
    /// A caller waits.
    Interactive,
}

/// The result of a request for the lease.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
#[non_exhaustive]
pub enum LeaseDecision {
    /// The caller must call the provider now, and then commit or fail with this lease.
    Granted(Lease),
    /// The readings are fresh enough.
    NotNeeded,
    /// An ended call satisfies the request; see [`MaxStaleness::CalledAfter`] and [`LeaseRequest::after_fence`].
    CalledRecently(RecentCall),
    /// Another process is calling the provider, and the caller must wait for its result.
    #[non_exhaustive]
    InProgress {
        /// When its lease expires.
        until: Timestamp,
        /// The fence of its lease.
        fence: u64,
    },
    /// No call is allowed now.
    OnHold(Hold),
    /// The provider recently rejected this credential. A new credential or an action of the user is needed.
    CredentialRejected(LastFailure),
    /// A newer program wrote the record. This program can read it but must not change it.
    UnsupportedFormat,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_ends_before_its_lease() {
        let second = |at: i64| Timestamp::from_second(1_800_000_000 + at).expect("a valid time");
        let lease = Lease {
            fence: 1,
            attempt: RequestId::from(1),
            granted_at: second(0),
            until: second(12),
            fingerprint: None,
            unknown: ExtraFields::default(),
        };
        let timeout_at =
            |at| lease.call_timeout(second(at), Duration::from_secs(10)).map(|timeout| timeout.as_secs());

        assert_eq!([-9, 0, 2].map(timeout_at), [Some(10); 3], "the clock may have been set back");
        assert_eq!([3, 5, 6, 60].map(timeout_at), [Some(7), Some(5), None, None]);
    }
}
