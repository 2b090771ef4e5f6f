//! Holds, which forbid calls, and the failure of the last call. The rules that arm and clear holds are in `record`.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::extra_fields::ExtraFields;
use crate::model::{CredentialFingerprint, UnknownWord};
use crate::provider::{FetchError, LONGEST_WAIT};
use crate::time;

/// Forbids calls for this account before `until`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Hold {
    /// When the hold was armed.
    #[serde(rename = "since_ms", with = "time::ms")]
    pub since: Timestamp,
    /// When calls are allowed again.
    #[serde(rename = "until_ms", with = "time::ms")]
    pub until: Timestamp,
    /// The reason of the hold.
    pub reason: HoldReason,
    /// The wait that the provider requested, if any. It is a lower bound under every other rule.
    #[serde(
        rename = "retry_after_ms",
        with = "time::span_ms::option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub retry_after: Option<Duration>,
    /// The calls that encountered this hold; absent if no call of this record armed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    calls: Option<Box<Calls>>,
    #[serde(flatten)]
    unknown: ExtraFields,
}

/// The calls that encountered a hold: the call that armed it, and the calls that were admitted later.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Calls {
    /// The fence of the call that armed the hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fence: Option<u64>,
    /// The credentials of these calls: that of the first call, and one other that was admitted later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    fingerprints: Vec<CredentialFingerprint>,
    #[serde(flatten)]
    unknown: ExtraFields,
}

impl Hold {
    /// Creates a hold from `since` until `until`.
    #[must_use]
    pub fn new(since: Timestamp, until: Timestamp, reason: HoldReason) -> Self {
        Self {
            since: time::truncate_ms(since),
            until: time::truncate_ms(until),
            reason,
            retry_after: None,
            calls: None,
            unknown: ExtraFields::default(),
        }
    }

    /// Sets the wait that the provider requested.
    #[must_use]
    pub fn retry_after(mut self, retry_after: Option<Duration>) -> Self {
        self.retry_after =
            retry_after.map(|span| Duration::from_millis(span.as_millis().try_into().unwrap_or(u64::MAX)));
        self
    }

    /// The wait that the provider requested, if the hold is shorter. Such a hold ends after [`LONGEST_WAIT`], and then one
    /// call is made.
    #[must_use]
    pub fn shortened_from(&self) -> Option<Duration> {
        self.retry_after.filter(|requested| *requested > LONGEST_WAIT)
    }

    /// Shortens a hold that is longer than [`LONGEST_WAIT`], and stores its former length.
    ///
    /// A hold with a fence is not shortened. The program that armed it limits requested waits, so only its own backoff can be
    /// longer. Seeds and holds of older programs without this limit have no fence.
    pub(crate) fn shorten(&mut self) {
        let is_named = self.calls.as_ref().is_some_and(|calls| calls.fence.is_some());
        let length = time::elapsed(self.since, self.until);
        if length > LONGEST_WAIT && !is_named {
            self.until = time::saturating_add(self.since, LONGEST_WAIT);
            self.retry_after = self.retry_after.max(Some(length));
        }
    }

    /// The order among leases and clearings: the fence of the call, or the time of the hold without one.
    pub(crate) fn order(&self) -> u64 {
        let fence = self.calls.as_ref().and_then(|calls| calls.fence);
        fence.unwrap_or_else(|| time::as_fence(self.since))
    }

    /// Sets the fence of the call that armed the hold.
    pub(crate) fn armed_by(mut self, fence: u64) -> Self {
        self.calls.get_or_insert_default().fence = Some(fence);
        self
    }

    /// Whether a call with this credential is admitted. That requires that another credential armed the hold and that no
    /// other was admitted since.
    pub(crate) fn admits(&self, credential: Option<CredentialFingerprint>) -> bool {
        self.fingerprints().len() == 1
            && credential.is_some_and(|credential| !self.fingerprints().contains(&credential))
    }

    /// Adds credentials that encountered the hold. Once there are two, no others are admitted.
    pub(crate) fn met_by(&mut self, credentials: impl IntoIterator<Item = CredentialFingerprint>) {
        let all: BTreeSet<_> = self.fingerprints().iter().copied().chain(credentials).collect();
        if !all.is_empty() {
            self.calls.get_or_insert_default().fingerprints = all.into_iter().take(2).collect();
        }
    }

    /// Removes a credential whose call was not made.
    pub(crate) fn unmet_by(&mut self, credential: Option<CredentialFingerprint>) {
        if let Some(calls) = self.calls.as_mut().filter(|calls| calls.fingerprints.len() > 1) {
            calls.fingerprints.retain(|one| Some(*one) != credential);
        }
    }

    /// The known credentials that encountered the hold.
    pub(crate) fn fingerprints(&self) -> &[CredentialFingerprint] {
        self.calls.as_ref().map_or(&[], |calls| &calls.fingerprints)
    }

    /// Whether the hold is still in force.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        now < self.until
    }

    /// Whether readers of a stored hold obey it: it is live, and not from the future.
    ///
    /// A reader cannot store a repaired hold. If it counted the length of the hold from each read, the hold would never end.
    #[must_use]
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.is_live(now) && !time::is_from_future(self.since, now)
    }

    /// Moves the hold by this many milliseconds.
    pub(crate) fn shift(&mut self, by_ms: i64) {
        for at in [&mut self.since, &mut self.until] {
            *at = time::shifted(*at, by_ms);
        }
    }

    /// Moves a hold from the future to start now, with the same length.
    pub(crate) fn repair_clock(&mut self, now: Timestamp) {
        if time::is_from_future(self.since, now) {
            self.until = time::saturating_add(now, time::elapsed(self.since, self.until));
            self.since = time::truncate_ms(now);
        }
    }
}

/// The reason of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HoldReason {
    /// The provider rate limited this account.
    RateLimited,
    /// The provider's cooldown after a 429, to this account or to another one.
    ProviderRateLimited,
    /// The provider failed, was unreachable or sent an unreadable response.
    Failing,
    /// The hourly call budget is exhausted.
    BudgetExhausted,
    /// A reason that a newer program defined. A rewrite preserves it.
    #[serde(untagged)]
    Other(UnknownWord),
}

impl<'de> Deserialize<'de> for HoldReason {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match &*std::borrow::Cow::<str>::deserialize(deserializer)? {
            "rate_limited" => Self::RateLimited,
            "provider_rate_limited" => Self::ProviderRateLimited,
            "failing" => Self::Failing,
            "budget_exhausted" => Self::BudgetExhausted,
            word => Self::Other(word.into()),
        })
    }
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::RateLimited => "rate limited",
            Self::ProviderRateLimited => "provider cooldown after a 429",
            Self::Failing => "provider error",
            Self::BudgetExhausted => "hourly call budget used up",
            Self::Other(_) => "on hold",
        })
    }
}

/// Why the last call failed; a success clears it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LastFailure {
    /// When the failed call started.
    #[serde(rename = "at_ms", with = "time::ms")]
    pub at: Timestamp,
    /// The kind of failure.
    pub kind: LastFailureKind,
    /// One line of text for users.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The credential that was used, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<CredentialFingerprint>,
    /// The fence of the call; zero if it equals the time.
    #[serde(default, skip_serializing_if = "is_zero")]
    fence: u64,
    #[serde(flatten)]
    unknown: ExtraFields,
}

/// A provider may grant a scope to an existing credential, so a credential without it is retried after this time.
pub(crate) const MISSING_SCOPE_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

impl LastFailure {
    const MAX_MESSAGE_CHARS: usize = 200;

    pub(crate) fn of(error: &FetchError, at: Timestamp, fingerprint: Option<CredentialFingerprint>) -> Self {
        let kind = match error {
            FetchError::Throttled { .. } => LastFailureKind::Throttled,
            FetchError::Unauthorized => LastFailureKind::Unauthorized,
            FetchError::Forbidden { .. } => LastFailureKind::Forbidden,
            FetchError::MissingScope { .. } => LastFailureKind::MissingScope,
            FetchError::TimedOut => LastFailureKind::TimedOut,
            // Only a call without a response has a transport error as its source.
            FetchError::Unavailable { source: Some(_), .. } => LastFailureKind::Unreachable,
            _ => LastFailureKind::Failing,
        };
        let message =
            error.to_string().chars().filter(|c| !c.is_control()).take(Self::MAX_MESSAGE_CHARS).collect();
        Self { at, kind, message, fingerprint, fence: 0, unknown: ExtraFields::default() }
    }

    /// Sets the fence of the failed call.
    pub(crate) fn of_call(mut self, fence: u64) -> Self {
        self.fence = if fence == time::as_fence(self.at) { 0 } else { fence };
        self
    }

    /// The order of the failed call among leases and clearings.
    pub(crate) fn order(&self) -> u64 {
        if self.fence == 0 { time::as_fence(self.at) } else { self.fence }
    }

    /// Whether a missing scope still blocks the credential at `now`.
    pub(crate) fn blocks_at(&self, now: Timestamp) -> bool {
        self.kind == LastFailureKind::MissingScope && time::elapsed(self.at, now) < MISSING_SCOPE_RETRY_AFTER
    }

    /// Whether only a user can fix the failure, because another call with the same credential would fail too.
    #[must_use]
    pub fn is_credential_rejection(&self) -> bool {
        matches!(
            self.kind,
            LastFailureKind::Unauthorized | LastFailureKind::Forbidden | LastFailureKind::MissingScope
        )
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The kinds of failure, by their remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LastFailureKind {
    /// Rate limited: wait.
    Throttled,
    /// The provider failed: wait.
    Failing,
    /// The provider was unreachable: check the network, or wait.
    Unreachable,
    /// The provider timed out: wait.
    TimedOut,
    /// The login was rejected: log in again.
    Unauthorized,
    /// The provider's policy forbids the call: contact an administrator.
    Forbidden,
    /// The credential lacks a scope that reading usage needs: replace it.
    MissingScope,
    /// A kind that a newer program defined. A rewrite preserves it.
    #[serde(untagged)]
    Other(UnknownWord),
}

impl<'de> Deserialize<'de> for LastFailureKind {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match &*std::borrow::Cow::<str>::deserialize(deserializer)? {
            "throttled" => Self::Throttled,
            "failing" => Self::Failing,
            "unreachable" => Self::Unreachable,
            "timed_out" => Self::TimedOut,
            "unauthorized" => Self::Unauthorized,
            "forbidden" => Self::Forbidden,
            "missing_scope" => Self::MissingScope,
            word => Self::Other(word.into()),
        })
    }
}
