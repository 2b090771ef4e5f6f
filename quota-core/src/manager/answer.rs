//! What a reader gets: the numbers, and how far to trust them.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arc_swap::Guard;
use jiff::Timestamp;

use super::error::QuotaError;
use super::view::View;
use crate::time::UnixMillis;
use crate::{Hold, LastFailure, LoginId, Snapshot, Used, WindowId};

/// What is known of an account.
///
/// The readings in it stay as they are; whether they are fresh, and what they say, is judged at the moment it is asked.
/// An answer that is kept for an hour says that it is stale.
#[must_use]
pub struct AccountUsage(Guard<Arc<View>>);

impl AccountUsage {
    pub(crate) fn of(view: Guard<Arc<View>>) -> Self {
        Self(view)
    }

    pub(crate) fn from_view(view: Arc<View>) -> Self {
        Self(Guard::from_inner(view))
    }

    /// The readings. Empty if nothing was ever read, or if it cannot be told whose they are.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        static NOTHING: LazyLock<Snapshot> = LazyLock::new(Snapshot::default);
        if self.0.flags.unattributed { &NOTHING } else { self.0.record.snapshot() }
    }

    /// The readings that are not shown because it cannot be told whose they are; `None` where that is not so.
    ///
    /// They are good for one thing: what was refused by them stays refused until it is known whose the account is.
    #[must_use]
    pub fn unattributed(&self) -> Option<&Snapshot> {
        self.0.flags.unattributed.then(|| self.0.record.snapshot())
    }

    /// What a window says now; [`Used::Unknown`] if there is no such window.
    #[must_use]
    pub fn used(&self, window: &WindowId) -> Used {
        let fresh_for = self.0.provider.policy.max_age;
        self.snapshot().window(window).map_or(Used::Unknown, |window| window.used_at(self.now(), fresh_for))
    }

    /// How long a reading of this account counts as exact, by the policy of its provider.
    #[must_use]
    pub fn max_age(&self) -> Duration {
        self.0.provider.policy.max_age
    }

    /// Whether the readings are fresh, and if not since when and why.
    #[must_use]
    pub fn freshness(&self) -> Freshness {
        if self.0.is_fresh() {
            return Freshness::Fresh;
        }
        Freshness::Stale {
            since: self.0.due_at().filter(|_| !self.0.flags.unattributed),
            reason: self.reason(),
        }
    }

    /// Whether the readings are not fresh.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        !self.0.is_fresh()
    }

    /// Whether the readings are not fresh for a request of `model`: see [`Account::is_stale_for`](crate::Account::is_stale_for).
    #[must_use]
    pub fn is_stale_for(&self, model: Option<&str>) -> bool {
        !self.0.is_fresh_for(model)
    }

    /// When the readings stop being fresh for a request of `model`, or when they did; `None` if there are none.
    ///
    /// No read calls the provider before. So a window that has just reset stays unknown until then: the policy's
    /// [`reset_grace`](crate::Policy#structfield.reset_grace) after its reset, and never within a minute of the last call.
    #[must_use]
    pub fn due_at(&self, model: Option<&str>) -> Option<Timestamp> {
        if self.0.flags.unattributed { None } else { self.0.due_at_for(model) }
    }

    /// How long ago the oldest reading of the whole account's windows was taken, or, without any of these, the oldest of
    /// all; `None` if there is none.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        if self.0.flags.unattributed { None } else { self.0.age() }
    }

    /// The hold that allows no call now: the account's own, or the provider's cooldown, whichever ends later.
    #[must_use]
    pub fn hold(&self) -> Option<Hold> {
        let now = self.now();
        let counts = |hold: &&Hold| hold.is_live(now) && hold.is_plausible(now);
        let own = self.0.record.hold().filter(counts).cloned();
        let cooldown = self.0.provider.cooldown_at(now);
        [own, cooldown].into_iter().flatten().max_by_key(|hold| hold.until)
    }

    /// What went wrong with the last call, unless it went well.
    #[must_use]
    pub fn last_failure(&self) -> Option<&LastFailure> {
        self.0.record.last_failure()
    }

    /// Why this process's last refresh failed; `None` if it succeeded, or if another process has refreshed since.
    #[must_use]
    pub fn error(&self) -> Option<&QuotaError> {
        self.0.flags.failed.as_deref()
    }

    /// The login the readings belong to, where that was said.
    #[must_use]
    pub fn login_id(&self) -> Option<&LoginId> {
        self.0.record.login_id()
    }

    /// Since when this process has been going on without the store; `None` while it has it.
    #[must_use]
    pub fn store_unavailable_since(&self) -> Option<Timestamp> {
        self.0.flags.store_unavailable_since.map(UnixMillis::timestamp)
    }

    /// Whether this process has been going on without the store because the store's record of the account is damaged.
    ///
    /// The record stays as it is until [`Account::clear_hold`](crate::Account::clear_hold) replaces it.
    #[must_use]
    pub fn is_record_damaged(&self) -> bool {
        self.0.flags.is_damaged
    }

    /// What the time is by the store's clock, which all moments in here are by.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.now()
    }

    /// Whether there is any reading at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.flags.unattributed || self.0.record.snapshot().is_empty()
    }

    pub(crate) fn view(&self) -> &View {
        &self.0
    }

    fn reason(&self) -> StaleReason {
        let view = &*self.0;
        let record = &view.record;
        if view.flags.unattributed {
            StaleReason::IdentityUnknown
        } else if record.snapshot().is_empty() {
            StaleReason::NeverRead
        } else if self.hold().is_some() {
            StaleReason::OnHold
        } else if record.last_failure().is_some() {
            StaleReason::Failing
        } else if view.flags.is_damaged {
            StaleReason::RecordDamaged
        } else if view.flags.store_unavailable_since.is_some() {
            StaleReason::StoreUnavailable
        } else if !record.is_writable() {
            StaleReason::UnsupportedFormat
        } else if record
            .snapshot()
            .windows()
            .iter()
            .any(|window| window.scope().is_none() && window.expires_at().is_some_and(|at| at <= self.now()))
        {
            StaleReason::RolledOver
        } else if self.error().is_some() {
            StaleReason::NotRefreshed
        } else {
            StaleReason::Aged
        }
    }
}

impl fmt::Debug for AccountUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountUsage")
            .field("freshness", &self.freshness())
            .field("snapshot", self.snapshot())
            .finish_non_exhaustive()
    }
}

/// How far an answer is to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Freshness {
    /// The readings are young enough, and no window has reset since.
    Fresh,
    /// They are not. What they say is a lower bound until each window's reset; see [`AccountUsage::used`].
    #[non_exhaustive]
    Stale {
        /// Since when; `None` if there are no readings.
        since: Option<Timestamp>,
        /// Why there are no newer ones.
        reason: StaleReason,
    },
}

/// Why there is no fresh reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StaleReason {
    /// Nothing was ever read.
    NeverRead,
    /// The readings are too old, and no refresh was made since.
    Aged,
    /// A window has reset since it was read.
    RolledOver,
    /// No call is allowed now; see [`AccountUsage::hold`].
    OnHold,
    /// The last call failed; see [`AccountUsage::failure`].
    Failing,
    /// The store does not answer: another process may know more.
    StoreUnavailable,
    /// The store's record of the account is damaged; see [`AccountUsage::is_record_damaged`].
    RecordDamaged,
    /// It cannot be told whose the readings are, so they are not shown.
    IdentityUnknown,
    /// A refresh was tried, and was not possible; see [`AccountUsage::error`].
    NotRefreshed,
    /// A newer program keeps the record, and this one must not ask on its behalf.
    UnsupportedFormat,
}

impl StaleReason {
    /// The reason as a stable word for programs, such as `never_read`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NeverRead => "never_read",
            Self::Aged => "aged",
            Self::RolledOver => "rolled_over",
            Self::OnHold => "held",
            Self::Failing => "failing",
            Self::StoreUnavailable => "store_away",
            Self::RecordDamaged => "record_damaged",
            Self::IdentityUnknown => "identity_unknown",
            Self::NotRefreshed => "not_refreshed",
            Self::UnsupportedFormat => "newer",
        }
    }
}

/// For people: the same in words.
impl fmt::Display for StaleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.as_str().replace('_', " "))
    }
}

/// What a refresh came to: an answer, and whether it is news.
#[derive(Debug)]
#[must_use]
#[non_exhaustive]
pub struct RefreshOutcome {
    /// What is known now.
    pub answer: AccountUsage,
    /// Whether the provider was asked, and its readings are in the answer.
    pub fetched: bool,
    /// Why the answer is not news, if it is not.
    pub error: Option<QuotaError>,
    /// When the call was started that made another one needless; only
    /// [`Account::refresh_unless_called_within`](crate::Account::refresh_unless_called_within) is satisfied by one. If that
    /// call failed, `error` says why.
    pub called_at: Option<Timestamp>,
}
