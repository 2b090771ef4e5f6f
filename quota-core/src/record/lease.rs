//! The lease: the right to call the provider, and what a request for it states.
//! The decision is in `record`.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Hold, LastFailure};
use crate::model::extra_fields::ExtraFields;
use crate::model::{LoginInfo, RequestId};
use crate::time;

/// The right to call the provider for one account, until it is released or expires.
///
/// The fence rises with every lease, even if the store lost the record in between. A holder with an older fence is too late and
/// changes nothing. (Fencing tokens; see Kleppmann, "How to do distributed locking", 2016.)
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Lease {
    /// The fence of this lease, higher than that of every earlier lease of the account.
    pub fence: u64,
    /// The attempt that holds it.
    pub attempt: RequestId,
    /// When it was granted. Its readings are as old as this.
    #[serde(rename = "granted_ms", with = "time::ms")]
    pub granted_at: Timestamp,
    /// When another process may take over.
    #[serde(rename = "until_ms", with = "time::ms")]
    pub until: Timestamp,
    /// The credential that the call uses, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fingerprint: Option<crate::model::CredentialFingerprint>,
    #[serde(flatten)]
    pub(crate) unknown: ExtraFields,
}

impl Lease {
    /// Whether its holder may still be calling the provider.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        now < self.until
    }
}

/// One call to the provider, finished or running.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct CallRecord {
    /// When it started. The budget counts by this time.
    pub at: Timestamp,
    /// The fence of its lease, which identifies the call. Two calls share a fence only if two processes without the store granted
    /// it at once.
    pub fence: u64,
    /// The name that the calling process gave itself; empty if it gave none.
    pub by: Arc<str>,
}

/// The last call with a credential, and how it ended.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RecentCall {
    /// When it started.
    pub at: Timestamp,
    /// Why it failed; `None` if it succeeded.
    pub failure: Option<LastFailure>,
}

/// A request for the lease of an account.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LeaseRequest {
    /// The attempt. A second request with the same id gets the same lease.
    pub attempt: RequestId,
    /// The login that the call would use.
    pub login: LoginInfo,
    /// How fresh the readings must be so that no call is needed.
    pub max_staleness: MaxStaleness,
    /// Whether a caller waits for the result.
    pub priority: Priority,
    /// The name of the calling process, for the list of calls.
    pub by: Arc<str>,
    /// The cooldown of the provider, if one is in force.
    pub cooldown: Option<Hold>,
}

impl LeaseRequest {
    /// An interactive request by an unknown login.
    #[must_use]
    pub fn new(attempt: RequestId, max_staleness: MaxStaleness) -> Self {
        Self {
            attempt,
            login: LoginInfo::unknown(),
            max_staleness,
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
    /// Readings of the whole account's windows younger than this, none of which has reset since.
    Age(Duration),
    /// Readings of every window younger than this, none of which has reset since, including windows of one model.
    CompleteAge(Duration),
    /// Readings of a call that started at this time or later.
    StartedAfter(Timestamp),
    /// A call with the same credential that started at this time or later, whether it succeeded or failed. Readings that arrived
    /// without a call do not count.
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

/// The answer to a request for the lease.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
#[non_exhaustive]
pub enum LeaseDecision {
    /// Call the provider now, then commit or fail with this lease.
    Granted(Lease),
    /// The readings are fresh enough.
    NotNeeded,
    /// A recent enough call was made; see [`MaxStaleness::CalledAfter`].
    CalledRecently(RecentCall),
    /// Another process is calling the provider. Wait for its result.
    #[non_exhaustive]
    InProgress {
        /// When its lease expires.
        until: Timestamp,
        /// When its lease was granted.
        since: Timestamp,
    },
    /// No call is allowed now.
    OnHold(Hold),
    /// The provider rejected this credential recently. A new credential, or a person, is needed.
    CredentialRejected(LastFailure),
    /// A newer program wrote the record. It can be read, and must not be changed.
    UnsupportedFormat,
}
