//! Why nobody asks now, and what went wrong last.
//! Nothing here decides; the rules that arm and end holds are in `record`.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::time;
use crate::unknown::Unknown;
use crate::{FetchError, Mark};

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
    pub why: HoldReason,
    /// How long the provider itself asked to be left alone, if it did: a floor under every rule of ours.
    #[serde(
        rename = "retry_after_ms",
        with = "time::span_ms::option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub retry_after: Option<Duration>,
    #[serde(flatten)]
    unknown: Unknown,
}

impl Hold {
    /// Holds from `since` until `until`.
    #[must_use]
    pub fn new(since: Timestamp, until: Timestamp, why: HoldReason) -> Self {
        Self {
            since: time::to_ms(since),
            until: time::to_ms(until),
            why,
            retry_after: None,
            unknown: Unknown::default(),
        }
    }

    /// Says how long the provider asked to be left alone.
    #[must_use]
    pub fn retry_after(mut self, retry_after: Option<Duration>) -> Self {
        self.retry_after =
            retry_after.map(|span| Duration::from_millis(span.as_millis().try_into().unwrap_or(u64::MAX)));
        self
    }

    /// Whether it still holds.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        now < self.until
    }

    /// Whether the clock that armed it can have been right; what another one meant cannot be told.
    pub(crate) fn is_plausible(&self, now: Timestamp) -> bool {
        self.since <= time::later(now, time::CLOCK_SLACK)
    }

    /// Moves a hold that was armed by a clock ahead of `now` to begin now, as long as it was.
    pub(crate) fn rebase(&mut self, now: Timestamp) {
        self.until = time::later(now, time::between(self.since, self.until));
        self.since = time::to_ms(now);
    }
}

/// Why there is a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HoldReason {
    /// The provider asked this account to slow down.
    RateLimited,
    /// The provider asked a neighbour to slow down.
    NeighbourRateLimited,
    /// The provider failed, or could not be reached or understood.
    Failing,
    /// The calls of this hour are spent.
    BudgetSpent,
    /// A reason that only a newer program knows.
    Other,
}

impl<'de> Deserialize<'de> for HoldReason {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match &*std::borrow::Cow::<str>::deserialize(deserializer)? {
            "rate_limited" => Self::RateLimited,
            "neighbour_rate_limited" => Self::NeighbourRateLimited,
            "failing" => Self::Failing,
            "budget_spent" => Self::BudgetSpent,
            _ => Self::Other,
        })
    }
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::RateLimited => "rate limited",
            Self::NeighbourRateLimited => "another account was rate limited",
            Self::Failing => "provider failing",
            Self::BudgetSpent => "this hour's calls are spent",
            Self::Other => "on hold",
        })
    }
}

/// What went wrong with the last call; a success clears it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Trouble {
    /// When the call that failed was started.
    #[serde(rename = "at_ms", with = "time::ms")]
    pub at: Timestamp,
    /// What kind of failure it was.
    pub kind: TroubleKind,
    /// One line about it, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Which credential was used, where that was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
    #[serde(flatten)]
    unknown: Unknown,
}

impl Trouble {
    const MAX_NOTE: usize = 200;

    pub(crate) fn of(error: &FetchError, at: Timestamp, mark: Option<Mark>) -> Self {
        let kind = match error {
            FetchError::Throttled { .. } => TroubleKind::Throttled,
            FetchError::Unauthorized => TroubleKind::LoginRefused,
            FetchError::Forbidden { .. } => TroubleKind::Forbidden,
            _ => TroubleKind::Failing,
        };
        let note = error.to_string().chars().filter(|c| !c.is_control()).take(Self::MAX_NOTE).collect();
        Self { at, kind, note, mark, unknown: Unknown::default() }
    }

    /// Whether only a person can mend it: asking again with the same credential is pointless.
    #[must_use]
    pub fn bars(&self) -> bool {
        matches!(self.kind, TroubleKind::LoginRefused | TroubleKind::Forbidden)
    }
}

/// The kinds of trouble, by who can mend them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TroubleKind {
    /// The provider asked to slow down: wait.
    Throttled,
    /// The provider failed: wait.
    Failing,
    /// The credential was refused: log in again.
    LoginRefused,
    /// The provider's policy forbids it: ask whoever sets it.
    Forbidden,
    /// A kind that only a newer program knows.
    Other,
}

impl<'de> Deserialize<'de> for TroubleKind {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match &*std::borrow::Cow::<str>::deserialize(deserializer)? {
            "throttled" => Self::Throttled,
            "failing" => Self::Failing,
            "login_refused" => Self::LoginRefused,
            "forbidden" => Self::Forbidden,
            _ => Self::Other,
        })
    }
}
