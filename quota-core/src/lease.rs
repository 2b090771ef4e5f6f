//! The right to ask the provider now, and what is asked of the record to get it.
//! Who gets the right is decided in `record`.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::extra_fields::ExtraFields;
use crate::{Hold, LastFailure, LoginInfo};
use crate::{random, time};

/// Names one attempt to refresh, so that an attempt whose answer was lost can be repeated without counting twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(u128);

impl RequestId {
    /// A new, random name.
    #[must_use]
    pub fn random() -> Self {
        Self(u128::from(random::random_u64()) << 64 | u128::from(random::random_u64()))
    }

    /// A number from 0 to below 1 that is drawn once per attempt; it spreads backoffs over a fleet.
    #[must_use]
    pub fn jitter_unit(self) -> f64 {
        #[expect(clippy::cast_possible_truncation, reason = "the low bits are as random as all of them")]
        let bits = self.0 as u32;
        f64::from(bits) / (f64::from(u32::MAX) + 1.0)
    }
}

impl From<u128> for RequestId {
    fn from(bits: u128) -> Self {
        Self(bits)
    }
}

impl FromStr for RequestId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({self})")
    }
}

impl Serialize for RequestId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RequestId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The right to ask the provider about one account, until it is given back or its time is over.
///
/// The fence rises with every lease, even if the store lost the record meanwhile: whoever comes back with an older one is
/// too late and changes nothing. (Fencing tokens; see Kleppmann, "How to do distributed locking", 2016.)
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Lease {
    /// The number of this lease; higher than that of every earlier one of the account.
    pub fence: u64,
    /// The attempt it was given to.
    pub attempt: RequestId,
    /// When it was given. The readings that come of it are as old as this.
    #[serde(rename = "granted_ms", with = "time::ms")]
    pub granted_at: Timestamp,
    /// When somebody else may take over.
    #[serde(rename = "until_ms", with = "time::ms")]
    pub until: Timestamp,
    /// Which credential will be used, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "mark")]
    pub(crate) fingerprint: Option<crate::CredentialFingerprint>,
    #[serde(flatten)]
    pub(crate) unknown: ExtraFields,
}

impl Lease {
    /// Whether its holder may still be asking.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        // A lease from the future was given by a clock that has been set back since: the fence guards what it is for.
        now < self.until && self.granted_at <= time::saturating_add(now, time::CLOCK_SLACK)
    }
}

/// One call to the provider that was made, or is being made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct CallRecord {
    /// When it was started. The budget counts by this time.
    pub at: Timestamp,
    /// The fence of its lease, which tells it from the account's other calls. Only two processes that go on without the
    /// store at the same moment can give one fence twice.
    pub fence: u64,
    /// Which process made it, in its own words; empty if it did not say.
    pub by: Arc<str>,
}

/// The last call with a credential, and how it ended.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RecentCall {
    /// When it was started.
    pub at: Timestamp,
    /// Why it failed; `None` if it succeeded.
    pub failure: Option<LastFailure>,
}

/// A wish to refresh an account.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LeaseRequest {
    /// The attempt: asking again with the same one gets the same lease.
    pub attempt: RequestId,
    /// The login that would be used.
    pub login: LoginInfo,
    /// What would be fresh enough, so that no call is needed.
    pub max_staleness: MaxStaleness,
    /// Whether somebody waits for the result.
    pub priority: Priority,
    /// Who asks, for the list of calls that were made.
    pub by: Arc<str>,
    /// What the provider's other accounts have to say: a quiet time that holds for all of them.
    pub cooldown: Option<Hold>,
}

impl LeaseRequest {
    /// A wish of somebody who waits, by a login of which nothing is said.
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

    /// Says which login would be used.
    #[must_use]
    pub fn login(mut self, login: LoginInfo) -> Self {
        self.login = login;
        self
    }

    /// Says whether somebody waits.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Says who asks.
    #[must_use]
    pub fn by(mut self, by: Arc<str>) -> Self {
        self.by = by;
        self
    }

    /// Says that the provider's accounts are to stay quiet.
    #[must_use]
    pub fn cooldown(mut self, cooldown: Option<Hold>) -> Self {
        self.cooldown = cooldown;
        self
    }
}

/// What is fresh enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MaxStaleness {
    /// Readings of the whole account's windows younger than this, none of which has reset since.
    Age(Duration),
    /// Readings of every window younger than this, none of which has reset since, including windows of one model.
    CompleteAge(Duration),
    /// Readings of a call that was started at this moment or later.
    StartedAfter(Timestamp),
    /// A call with the same credential that was started at this moment or later, whether it succeeded or failed. Readings that
    /// arrived without a call do not count.
    CalledAfter(Timestamp),
}

/// Whether somebody waits for a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Priority {
    /// Nobody waits. Queues behind those for whom somebody does, and leaves the reserve of the budget alone.
    Background,
    /// Somebody waits.
    Interactive,
}

/// What came of a wish to refresh.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
#[non_exhaustive]
pub enum LeaseDecision {
    /// Ask the provider now, and come back with this.
    Granted(Lease),
    /// What is known is fresh enough.
    NotNeeded,
    /// A call that is recent enough has been made; see [`MaxStaleness::CalledAfter`].
    CalledRecently(RecentCall),
    /// Somebody is asking right now: wait for what they bring.
    #[non_exhaustive]
    InProgress {
        /// When their time is over.
        until: Timestamp,
        /// When they began.
        since: Timestamp,
    },
    /// Nobody may ask now.
    OnHold(Hold),
    /// The provider refused this very credential a short while ago; a new one, or a person, is needed.
    CredentialRejected(LastFailure),
    /// The record was written by a newer program. It can be read, and must not be changed.
    UnsupportedFormat,
}
