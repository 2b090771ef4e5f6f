//! The view of an account: an immutable value that readers load without a lock.
//! `entry` replaces it after each change.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::error::QuotaError;
use super::provider::Provider;
use crate::clock::Clock;
use crate::model::Window;
use crate::record::{Counted, Record};
use crate::time;
use crate::time::UnixMillis;

/// The state of an account for readers.
#[derive(Debug)]
pub(crate) struct View {
    /// Counts the changes of this account's view.
    pub(crate) generation: u64,
    /// The shared record, merged with this process's pending changes.
    pub(crate) record: Arc<Record>,
    pub(crate) provider: Arc<Provider>,
    pub(crate) flags: ViewFlags,
    /// When the view was created, by this process's wall clock in milliseconds.
    created_ms: i64,
    /// When the readings become stale, by the same clock; `i64::MIN` if they are never fresh.
    due_ms: i64,
}

/// The state of an account that is not in the record.
#[derive(Debug, Clone, Default)]
pub(crate) struct ViewFlags {
    /// Whether it is unknown which login the readings belong to. Then no readings are shown.
    pub(crate) unattributed: bool,
    /// Since when this process runs without the store.
    pub(crate) store_unavailable_since: Option<UnixMillis>,
    /// Whether this process runs without the store because the store's record of the account is damaged.
    pub(crate) is_damaged: bool,
    /// Why this process's last refresh failed.
    pub(crate) failed: Option<Arc<QuotaError>>,
}

impl ViewFlags {
    /// Whether a reader must be notified of the change from `before`.
    pub(crate) fn differs_from(&self, before: &Self) -> bool {
        let failed = |flags: &Self| flags.failed.as_deref().map(std::mem::discriminant);
        let state = |flags: &Self| (flags.unattributed, flags.store_unavailable_since, flags.is_damaged);
        state(self) != state(before) || failed(self) != failed(before)
    }
}

/// If the wall clock is more than this before the creation of the view, it was set back, and the view is stale.
const SET_BACK_MS: i64 = 1_000;

impl View {
    pub(crate) fn new(
        generation: u64,
        record: Arc<Record>,
        provider: Arc<Provider>,
        flags: ViewFlags,
    ) -> Self {
        let policy = &provider.policy;
        // A record from the future is never fresh; the next refresh repairs it.
        let due = record
            .due_at(policy.max_age, Counted::Account, policy)
            .filter(|_| !record.needs_clock_repair(provider.store_client.now_estimate()));
        let offset_ms = provider.store_client.offset_ms();
        let due_ms = match due {
            Some(due) if !flags.unattributed => due.as_millisecond().saturating_sub(offset_ms),
            _ => i64::MIN,
        };
        let created_ms = provider.clock.now_ms();
        Self { generation, record, provider, flags, created_ms, due_ms }
    }

    /// Whether the readings are fresh.
    ///
    /// Every read runs this, so it makes only three comparisons and one read of the coarse clock. The fine clock decides in the
    /// last 10 ms, because the coarse one lags.
    #[inline]
    pub(crate) fn is_fresh(&self) -> bool {
        let clock = &self.provider.clock;
        let now_ms = clock.recent_ms();
        now_ms < self.due_ms
            && now_ms >= self.created_ms - SET_BACK_MS
            && (now_ms < self.due_ms - Clock::RECENT_LAG_MS || clock.now_ms() < self.due_ms)
    }

    /// Whether the readings are fresh by `max_age` instead of the policy's maximum age.
    pub(crate) fn is_fresh_within(&self, max_age: Duration) -> bool {
        self.is_fresh_by(max_age, Counted::Account)
    }

    /// Whether the readings are fresh for a request to `model`, including the windows that count only this model.
    pub(crate) fn is_fresh_for(&self, model: Option<&str>) -> bool {
        // Fast path: most accounts have no window of the model.
        self.is_fresh()
            && (!self.has_windows_of(model)
                || self.is_fresh_by(self.provider.policy.max_age, Counted::for_model(model)))
    }

    /// Whether any window counts only this model.
    pub(crate) fn has_windows_of(&self, model: Option<&str>) -> bool {
        let windows = self.record.snapshot().windows();
        model.is_some() && windows.iter().any(|window| window.scope().is_some() && window.applies_to(model))
    }

    fn is_fresh_by(&self, max_age: Duration, counted: Counted<'_>) -> bool {
        // Hidden readings and readings from the future are never fresh.
        let is_usable =
            self.due_ms > i64::MIN && self.provider.clock.now_ms() >= self.created_ms - SET_BACK_MS;
        let due = self.record.due_at(max_age, counted, &self.provider.policy);
        is_usable && due.is_some_and(|due| self.now() < due)
    }

    /// When the readings become stale, by the store's clock; `None` if there are none.
    pub(crate) fn due_at(&self) -> Option<Timestamp> {
        self.record.due_at(self.provider.policy.max_age, Counted::Account, &self.provider.policy)
    }

    /// When the readings become stale for a request to `model`, by the store's clock; `None` if there are none.
    pub(crate) fn due_at_for(&self, model: Option<&str>) -> Option<Timestamp> {
        let of_account = self.due_at()?;
        if !self.has_windows_of(model) {
            return Some(of_account);
        }
        let policy = &self.provider.policy;
        let of_model = self.record.due_at(policy.max_age, Counted::for_model(model), policy);
        Some(of_model.map_or(of_account, |of_model| of_model.min(of_account)))
    }

    /// The current time by the store's clock, which all timestamps in the record use.
    pub(crate) fn now(&self) -> Timestamp {
        self.provider.store_client.now_estimate()
    }

    /// The age of the oldest reading among the windows that count all models; without such a window, of the oldest reading.
    pub(crate) fn age(&self) -> Option<Duration> {
        let windows = self.record.snapshot().windows();
        let of_account = windows.iter().filter(|window| window.scope().is_none());
        let oldest = of_account.map(Window::observed_at).min();
        let oldest = oldest.or_else(|| windows.iter().map(Window::observed_at).min());
        let oldest = oldest.or(self.record.complete_at());
        oldest.map(|oldest| time::elapsed(oldest, self.now()))
    }
}
