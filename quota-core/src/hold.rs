//! Why nobody asks now, and what went wrong last.
//! Nothing here decides; the rules that arm and end holds are in `record`.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::extra_fields::ExtraFields;
use crate::time;
use crate::{CredentialFingerprint, FetchError, LONGEST_WAIT, UnknownWord};

/// Do not ask before `until`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Hold {
    /// When it was armed.
    #[serde(rename = "since_ms", with = "time::ms")]
    pub since: Timestamp,
    /// The first moment at which asking is allowed again.
    #[serde(rename = "until_ms", with = "time::ms")]
    pub until: Timestamp,
    /// Why.
    #[serde(rename = "why")]
    pub reason: HoldReason,
    /// How long the provider itself asked to be left alone, if it did: a floor under every rule of ours.
    #[serde(
        rename = "retry_after_ms",
        with = "time::span_ms::option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub retry_after: Option<Duration>,
    /// The calls that have met it; absent if it was armed elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    calls: Option<Box<Calls>>,
    #[serde(flatten)]
    unknown: ExtraFields,
}

/// The calls that have met a hold: the one whose failure armed it, and those that were let through since.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Calls {
    /// The fence of the call that armed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fence: Option<u64>,
    /// The credentials they used: that of the first, and another one that has tried since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    fingerprints: Vec<CredentialFingerprint>,
    #[serde(flatten)]
    unknown: ExtraFields,
}

impl Hold {
    /// Holds from `since` until `until`.
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

    /// Says how long the provider asked to be left alone.
    #[must_use]
    pub fn retry_after(mut self, retry_after: Option<Duration>) -> Self {
        self.retry_after =
            retry_after.map(|span| Duration::from_millis(span.as_millis().try_into().unwrap_or(u64::MAX)));
        self
    }

    /// The wait that the provider asked for, if it was too long to be obeyed in full: the hold ends after [`LONGEST_WAIT`],
    /// and one call is made then.
    #[must_use]
    pub fn shortened_from(&self) -> Option<Duration> {
        self.retry_after.filter(|requested| *requested > LONGEST_WAIT)
    }

    /// Cuts a hold that is longer than [`LONGEST_WAIT`], and keeps how long it was.
    ///
    /// A hold that names the call that armed it stays: its program obeyed no longer wait, so only its own backoff can be
    /// longer. Seeds, and programs that obeyed any wait, name none.
    pub(crate) fn shorten(&mut self) {
        let is_named = self.calls.as_ref().is_some_and(|calls| calls.fence.is_some());
        let length = time::elapsed(self.since, self.until);
        if length > LONGEST_WAIT && !is_named {
            self.until = time::saturating_add(self.since, LONGEST_WAIT);
            self.retry_after = self.retry_after.max(Some(length));
        }
    }

    /// Where it stands among leases and clearings: the fence of its call, or else the time it was armed at.
    pub(crate) fn order(&self) -> u64 {
        let fence = self.calls.as_ref().and_then(|calls| calls.fence);
        fence.unwrap_or_else(|| time::as_fence(self.since))
    }

    /// Says which call armed it.
    pub(crate) fn armed_by(mut self, fence: u64) -> Self {
        self.calls.get_or_insert_default().fence = Some(fence);
        self
    }

    /// Whether a call with this credential is let through: it is another than the one that armed the hold, and no other has
    /// tried since.
    pub(crate) fn admits(&self, credential: Option<CredentialFingerprint>) -> bool {
        self.admits_another()
            && credential.is_some_and(|credential| !self.fingerprints().contains(&credential))
    }

    /// Whether there is any such credential.
    pub(crate) fn admits_another(&self) -> bool {
        self.fingerprints().len() == 1
    }

    /// Notes credentials that have met the hold. Two are enough to admit no further one.
    pub(crate) fn met_by(&mut self, credentials: impl IntoIterator<Item = CredentialFingerprint>) {
        let all: BTreeSet<_> = self.fingerprints().iter().copied().chain(credentials).collect();
        if !all.is_empty() {
            self.calls.get_or_insert_default().fingerprints = all.into_iter().take(2).collect();
        }
    }

    /// The credential has met the hold, and has not been used.
    pub(crate) fn unmet_by(&mut self, credential: Option<CredentialFingerprint>) {
        if let Some(calls) = self.calls.as_mut().filter(|calls| calls.fingerprints.len() > 1) {
            calls.fingerprints.retain(|one| Some(*one) != credential);
        }
    }

    /// The credentials that have met the hold, as far as they are known.
    pub(crate) fn fingerprints(&self) -> &[CredentialFingerprint] {
        self.calls.as_ref().map_or(&[], |calls| &calls.fingerprints)
    }

    /// Whether it still holds.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        now < self.until
    }

    /// Whether the clock that armed it can have been right; what another one meant cannot be told.
    pub(crate) fn is_plausible(&self, now: Timestamp) -> bool {
        self.since <= time::saturating_add(now, time::CLOCK_SLACK)
    }

    /// Moves a hold that was armed by a clock ahead of `now` to begin now, as long as it was.
    pub(crate) fn rebase_to(&mut self, now: Timestamp) {
        self.until = time::saturating_add(now, time::elapsed(self.since, self.until));
        self.since = time::truncate_ms(now);
    }
}

/// Why there is a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HoldReason {
    /// The provider asked this account to slow down.
    RateLimited,
    /// The provider's cooldown after a 429, to this account or to another one.
    #[serde(rename = "neighbour_rate_limited")]
    ProviderRateLimited,
    /// The provider failed, or could not be reached or understood.
    Failing,
    /// The calls of this hour are spent.
    #[serde(rename = "budget_spent")]
    BudgetExhausted,
    /// A reason that only a newer program knows.
    #[serde(untagged)]
    Other(UnknownWord),
}

impl<'de> Deserialize<'de> for HoldReason {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match &*std::borrow::Cow::<str>::deserialize(deserializer)? {
            "rate_limited" => Self::RateLimited,
            "neighbour_rate_limited" => Self::ProviderRateLimited,
            "failing" => Self::Failing,
            "budget_spent" => Self::BudgetExhausted,
            word => Self::Other(word.into()),
        })
    }
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::RateLimited => "rate limited",
            Self::ProviderRateLimited => "provider cooldown after a 429",
            Self::Failing => "provider failing",
            Self::BudgetExhausted => "this hour's calls are spent",
            Self::Other(_) => "on hold",
        })
    }
}

/// What went wrong with the last call; a success clears it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LastFailure {
    /// When the call that failed was started.
    #[serde(rename = "at_ms", with = "time::ms")]
    pub at: Timestamp,
    /// What kind of failure it was.
    pub kind: LastFailureKind,
    /// One line about it, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[serde(rename = "note")]
    pub message: String,
    /// Which credential was used, where that was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "mark")]
    pub fingerprint: Option<CredentialFingerprint>,
    /// The fence of its call; zero where that is the time.
    #[serde(default, skip_serializing_if = "is_zero")]
    fence: u64,
    #[serde(flatten)]
    unknown: ExtraFields,
}

/// A provider may grant a scope to a credential that exists, so one without it is tried again after this.
pub(crate) const MISSING_SCOPE_LASTS: Duration = Duration::from_secs(24 * 3600);

impl LastFailure {
    const MAX_NOTE: usize = 200;

    pub(crate) fn of(error: &FetchError, at: Timestamp, fingerprint: Option<CredentialFingerprint>) -> Self {
        let kind = match error {
            FetchError::Throttled { .. } => LastFailureKind::Throttled,
            FetchError::Unauthorized => LastFailureKind::Unauthorized,
            FetchError::Forbidden { .. } => LastFailureKind::Forbidden,
            FetchError::MissingScope { .. } => LastFailureKind::MissingScope,
            FetchError::TimedOut => LastFailureKind::TimedOut,
            // Only what never got an answer has a failure of the transport beneath it.
            FetchError::Unavailable { source: Some(_), .. } => LastFailureKind::Unreachable,
            _ => LastFailureKind::Failing,
        };
        let message = error.to_string().chars().filter(|c| !c.is_control()).take(Self::MAX_NOTE).collect();
        Self { at, kind, message, fingerprint, fence: 0, unknown: ExtraFields::default() }
    }

    /// Says which call it is of.
    pub(crate) fn of_call(mut self, fence: u64) -> Self {
        self.fence = if fence == time::as_fence(self.at) { 0 } else { fence };
        self
    }

    /// Where its call is among leases and clearings.
    pub(crate) fn order(&self) -> u64 {
        if self.fence == 0 { time::as_fence(self.at) } else { self.fence }
    }

    /// Whether it is a missing scope that still bars its credential at `now`.
    pub(crate) fn bars_at(&self, now: Timestamp) -> bool {
        self.kind == LastFailureKind::MissingScope && time::elapsed(self.at, now) < MISSING_SCOPE_LASTS
    }

    /// Whether only a person can mend it: asking again with the same credential is pointless.
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

/// The kinds of trouble, by who can mend them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LastFailureKind {
    /// The provider asked to slow down: wait.
    Throttled,
    /// The provider failed: wait.
    Failing,
    /// The provider could not be reached: see whether this machine is online, or wait.
    Unreachable,
    /// The provider did not answer in time: wait.
    TimedOut,
    /// The credential was refused: log in again.
    #[serde(rename = "login_refused")]
    Unauthorized,
    /// The provider's policy forbids it: ask whoever sets it.
    Forbidden,
    /// The credential lacks a scope that reading usage needs: replace it.
    MissingScope,
    /// A kind that only a newer program knows.
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
            "login_refused" => Self::Unauthorized,
            "forbidden" => Self::Forbidden,
            "missing_scope" => Self::MissingScope,
            word => Self::Other(word.into()),
        })
    }
}
