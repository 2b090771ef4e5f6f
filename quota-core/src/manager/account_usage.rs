//! The usage of an account that readers get, with its freshness, and the outcome of a refresh.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arc_swap::Guard;
use jiff::Timestamp;

use super::error::QuotaError;
use super::view::View;
use crate::model::{LoginId, Snapshot, Used, WindowId};
use crate::policy::Budget;
use crate::record::{CallRecord, Hold, LastFailure, Priority};
use crate::time::{self, UnixMillis};

/// The usage of an account.
///
/// The readings in a value never change. Each call computes the freshness and the usage of a window at the current time. So a value
/// that a program holds for an hour reports that it is stale.
#[must_use]
pub struct AccountUsage(Guard<Arc<View>>);

impl AccountUsage {
    pub(crate) fn of(view: Guard<Arc<View>>) -> Self {
        Self(view)
    }

    pub(crate) fn from_view(view: Arc<View>) -> Self {
        Self(Guard::from_inner(view))
    }

    /// The readings. Empty if there are none, or if their owner is unknown.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        static EMPTY: LazyLock<Snapshot> = LazyLock::new(Snapshot::default);
        if self.0.unattributed { &EMPTY } else { self.0.record.snapshot() }
    }

    /// The readings that are hidden because their owner is unknown; `None` otherwise.
    ///
    /// A router keeps rejecting an account that it rejected because of them, until their owner is known.
    #[must_use]
    pub fn unattributed(&self) -> Option<&Snapshot> {
        self.0.unattributed.then(|| self.0.record.snapshot())
    }

    /// How much of a window is used now; [`Used::Unknown`] if there is no such window.
    #[must_use]
    pub fn used(&self, window: &WindowId) -> Used {
        let max_age = self.0.provider.policy.max_age;
        self.snapshot().window(window).map_or(Used::Unknown, |window| window.used_at(self.now(), max_age))
    }

    /// How long a reading of this account counts as exact, by the policy of its provider.
    #[must_use]
    pub fn max_age(&self) -> Duration {
        self.0.provider.policy.max_age
    }

    /// Whether the readings are fresh; if not, since when and why.
    #[must_use]
    pub fn freshness(&self) -> Freshness {
        if self.0.is_fresh() {
            return Freshness::Fresh;
        }
        Freshness::Stale { since: self.0.due_at().filter(|_| !self.0.unattributed), reason: self.reason() }
    }

    /// Whether the readings are stale.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        !self.0.is_fresh()
    }

    /// Whether the readings are stale for a request to `model`; see [`Account::is_stale_for`](crate::Account::is_stale_for).
    #[must_use]
    pub fn is_stale_for(&self, model: Option<&str>) -> bool {
        !self.0.is_fresh_for(model)
    }

    /// When the readings become stale, or became stale, for a request to `model`; `None` if there are none.
    ///
    /// No read calls the provider before that time. So a window is unknown between its reset and that time. It is the reset plus
    /// the policy's [`reset_grace`](crate::Policy#structfield.reset_grace), and at least a minute after the last call.
    #[must_use]
    pub fn due_at(&self, model: Option<&str>) -> Option<Timestamp> {
        if self.0.unattributed { None } else { self.0.due_at_for(model) }
    }

    /// The age of the oldest reading among the windows that count all models; `None` if there are no readings.
    ///
    /// Without such a window, it is the age of the oldest reading.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        if self.0.unattributed { None } else { self.0.age() }
    }

    /// The hold in force: the account's own or the provider's cooldown, whichever ends later.
    #[must_use]
    pub fn hold(&self) -> Option<Hold> {
        let now = self.now();
        let own = self.0.record.hold().filter(|hold| hold.is_in_force(now)).cloned();
        [own, self.cooldown()].into_iter().flatten().max_by_key(|hold| hold.until)
    }

    /// The provider's cooldown in force, which applies to all its accounts.
    #[must_use]
    pub fn cooldown(&self) -> Option<Hold> {
        self.0.provider.cooldown_at(self.now())
    }

    /// When a refresh may succeed, if none can succeed now; `None` if one may, or if only a refresh can find out.
    ///
    /// Until then, [`Account::get`](crate::Account::get) returns the cached usage. This applies during a hold or a
    /// cooldown, with an exhausted budget, with a rejected credential, and for a second after the credential could not
    /// be read. A hold that another process clears ends it early. So does another credential, which is checked once a
    /// second in the background while callers read the account. An explicit [`refresh`](crate::Account::refresh)
    /// follows its own rules. [`Timestamp::MAX`] means that no end is known.
    #[must_use]
    pub fn next_attempt_at(&self) -> Option<Timestamp> {
        self.0.next_attempt_at(Priority::Interactive)
    }

    /// The calls that the policy allows per hour.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.0.provider.policy.budget
    }

    /// The calls that all processes made in the last hour, oldest first.
    pub fn recent_calls(&self) -> impl Iterator<Item = &CallRecord> {
        const HOUR: Duration = Duration::from_secs(3600);
        let now = self.now();
        let is_recent = move |at| !time::is_from_future(at, now) && time::elapsed(at, now) < HOUR;
        self.0.record.calls().iter().filter(move |call| is_recent(call.at))
    }

    /// The number of calls that all processes made in the last hour.
    #[must_use]
    pub fn calls_in_last_hour(&self) -> usize {
        self.recent_calls().count()
    }

    /// Why the last call of any process failed; `None` if it succeeded.
    #[must_use]
    pub fn last_failure(&self) -> Option<&LastFailure> {
        self.0.record.last_failure()
    }

    /// Why this process's last refresh failed; `None` if it succeeded, or if another process has refreshed the account since.
    #[must_use]
    pub fn error(&self) -> Option<&QuotaError> {
        self.0.failed()
    }

    /// The login of the readings; `None` if neither the credential nor the provider stated it.
    #[must_use]
    pub fn login_id(&self) -> Option<&LoginId> {
        self.0.record.login_id()
    }

    /// Whether other accounts of this manager hold the same login, so that they share these readings, the budget and the holds.
    #[must_use]
    pub fn is_login_shared(&self) -> bool {
        self.0.is_shared
    }

    /// Since when this process has run without the store; `None` while the store is available.
    #[must_use]
    pub fn store_unavailable_since(&self) -> Option<Timestamp> {
        self.0.store_unavailable_since().map(UnixMillis::timestamp)
    }

    /// Whether this process runs without the store because the store's record of the account is damaged.
    ///
    /// The store keeps the record unchanged until [`Account::clear_hold`](crate::Account::clear_hold) replaces it.
    #[must_use]
    pub fn is_record_damaged(&self) -> bool {
        self.0.is_damaged()
    }

    /// The current time by the store's clock. All timestamps of this value use that clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.now()
    }

    /// The version of this state, with which a caller can detect later changes.
    #[must_use]
    pub fn version(&self) -> UsageVersion {
        UsageVersion(Arc::clone(&self.0))
    }

    /// Whether nothing but the time has changed since `version` of the same account was taken. A provider's cooldown counts as time.
    #[must_use]
    pub fn is_version(&self, version: &UsageVersion) -> bool {
        Arc::ptr_eq(&self.0, &version.0)
    }

    /// Whether there are no readings to show.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.unattributed || self.0.record.snapshot().is_empty()
    }

    pub(crate) fn view(&self) -> &View {
        &self.0
    }

    fn reason(&self) -> StaleReason {
        let view = &*self.0;
        let record = &view.record;
        if view.unattributed {
            StaleReason::OwnerUnknown
        } else if record.snapshot().is_empty() {
            if view.is_unchecked { StaleReason::LoginNotCheckedYet } else { StaleReason::NeverRead }
        } else if self.hold().is_some() {
            StaleReason::OnHold
        } else if record.last_failure().is_some() {
            StaleReason::Failing
        } else if view.is_damaged() {
            StaleReason::RecordDamaged
        } else if view.store_unavailable_since().is_some() {
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

/// The version of an account's state in this process; see [`AccountUsage::version`].
///
/// It keeps the readings in memory, so that no later state is taken for this one.
#[derive(Clone)]
pub struct UsageVersion(Arc<View>);

impl fmt::Debug for UsageVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UsageVersion").finish_non_exhaustive()
    }
}

/// Whether readings are fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Freshness {
    /// The readings are younger than the maximum age, and no window has reset since.
    Fresh,
    /// The readings are not fresh. Each is a lower bound until its window resets; see [`AccountUsage::used`].
    #[non_exhaustive]
    Stale {
        /// Since when; `None` if there are no readings.
        since: Option<Timestamp>,
        /// Why there are no newer ones.
        reason: StaleReason,
    },
}

/// Why readings are stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StaleReason {
    /// There are no readings.
    NeverRead,
    /// The readings are older than the maximum age.
    Aged,
    /// A window has reset since its last reading.
    RolledOver,
    /// No call is allowed now; see [`AccountUsage::hold`].
    OnHold,
    /// The last call failed; see [`AccountUsage::last_failure`].
    Failing,
    /// The store is unavailable: another process may have newer readings.
    StoreUnavailable,
    /// The store's record of the account is damaged; see [`AccountUsage::is_record_damaged`].
    RecordDamaged,
    /// The owner of the readings is unknown, so they are hidden.
    OwnerUnknown,
    /// There are no readings, because the account's login has not been checked yet. The next
    /// [`get`](crate::Account::get), [`refresh`](crate::Account::refresh) or [`sync`](crate::Account::sync) checks it.
    LoginNotCheckedYet,
    /// This process's last refresh failed; see [`AccountUsage::error`].
    NotRefreshed,
    /// A newer program wrote the record, so this program must not change it.
    UnsupportedFormat,
}

impl StaleReason {
    /// The reason as a stable identifier, such as `never_read`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NeverRead => "never_read",
            Self::Aged => "aged",
            Self::RolledOver => "rolled_over",
            Self::OnHold => "on_hold",
            Self::Failing => "failing",
            Self::StoreUnavailable => "store_unavailable",
            Self::RecordDamaged => "record_damaged",
            Self::OwnerUnknown => "owner_unknown",
            Self::LoginNotCheckedYet => "login_not_checked_yet",
            Self::NotRefreshed => "not_refreshed",
            Self::UnsupportedFormat => "unsupported_format",
        }
    }
}

/// [`as_str`](Self::as_str) with spaces, for display.
impl fmt::Display for StaleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.as_str().replace('_', " "))
    }
}

/// The outcome of a refresh.
#[derive(Debug)]
#[must_use]
#[non_exhaustive]
pub struct RefreshOutcome {
    /// The usage after the refresh.
    pub usage: AccountUsage,
    /// Whether this refresh called the provider successfully, so that `usage` includes the new readings.
    pub fetched: bool,
    /// Why there are no new readings, if there are none.
    pub error: Option<QuotaError>,
    /// When another call started that made a new one unnecessary. If that call failed, `error` is the reason.
    pub called_at: Option<Timestamp>,
}
