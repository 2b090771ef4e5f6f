//! The view of an account: an immutable value that readers load without a lock.
//! `entry` replaces it after each change.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::error::QuotaError;
use super::provider::Provider;
use crate::clock::Clock;
use crate::model::{AccountId, LoginInfo, RequestId, Window};
use crate::record::{Counted, LeaseDecision, LeaseRequest, MaxStaleness, Priority, Record};
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
    /// Whether it is unknown which login the readings belong to. Then no readings are shown.
    pub(crate) unattributed: bool,
    /// Whether the account's login was never checked; see [`ViewFlags`].
    pub(crate) is_unchecked: bool,
    /// Whether other accounts of this manager show the same record.
    pub(crate) is_shared: bool,
    /// When the view was created, by this process's wall clock in milliseconds.
    created_ms: i64,
    /// When the readings become stale, by the same clock; `i64::MIN` if they are never fresh.
    due_ms: i64,
    /// Boxed because nearly all of a million accounts have none.
    trouble: Option<Box<Trouble>>,
}

/// Why the last refresh failed or the store is not in use, and until when a refresh may not succeed.
#[derive(Debug)]
struct Trouble {
    failed: Option<Arc<QuotaError>>,
    store_unavailable_since: Option<UnixMillis>,
    is_damaged: bool,
    /// Until when there are readings, no interactive refresh can succeed, and no check of the credential is due, by this process's
    /// wall clock in milliseconds; `i64::MIN` without readings.
    settled_until_ms: i64,
    next_attempt: NextAttempt,
    /// The last check of the credential.
    checked: Option<Arc<CredentialCheck>>,
}

/// Until when no refresh can succeed, by this process's wall clock in milliseconds.
#[derive(Debug, Clone, Copy)]
struct NextAttempt {
    /// For interactive callers; `i64::MIN` if one may call now, or if only a refresh can find out.
    interactive_ms: i64,
    /// For background callers, who must leave the budget's reserve.
    background_ms: i64,
    /// Whether the provider's cooldown alone would stop a refresh. It changes without a new view, so each read checks it.
    obeys_cooldown: bool,
    /// When a reader checks the credential again while no refresh can succeed.
    check_ms: i64,
}

/// How often the credential is checked while no refresh can succeed, because a new credential may be allowed to call.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The state of an account that is not in the record, from which a view is made.
#[derive(Debug, Clone, Default)]
pub(crate) struct ViewFlags {
    /// Whether it is unknown which login the readings belong to. Then no readings are shown.
    pub(crate) unattributed: bool,
    /// Whether the account's login was never checked. The readings are then only those that this process seeded or
    /// observed.
    pub(crate) is_unchecked: bool,
    /// Since when this process runs without the store.
    pub(crate) store_unavailable_since: Option<UnixMillis>,
    /// Whether this process runs without the store because the store's record of the account is damaged.
    pub(crate) is_damaged: bool,
    /// Why this process's last refresh failed.
    pub(crate) failed: Option<Arc<QuotaError>>,
    /// Whether other accounts of this manager show the same record.
    pub(crate) is_shared: bool,
}

/// The last check of the account's credential by this process.
#[derive(Debug, Clone)]
pub(crate) struct CredentialCheck {
    /// When, by this process's wall clock in milliseconds.
    pub(crate) at_ms: i64,
    /// The login of the next call, or why the credential could not be read.
    pub(crate) login: Result<LoginInfo, QuotaError>,
}

impl CredentialCheck {
    /// When the next check is due, by the same clock.
    pub(crate) fn next_ms(&self) -> i64 {
        self.at_ms.saturating_add(i64::try_from(CHECK_INTERVAL.as_millis()).unwrap_or(i64::MAX))
    }
}

impl ViewFlags {
    /// Whether a reader must be notified of the change from `before`.
    pub(crate) fn differ_from(&self, before: &View) -> bool {
        let kind = |failed: Option<&QuotaError>| failed.map(std::mem::discriminant);
        (self.unattributed, self.is_unchecked) != (before.unattributed, before.is_unchecked)
            || self.store_unavailable_since != before.store_unavailable_since()
            || self.is_damaged != before.is_damaged()
            || kind(self.failed.as_deref()) != kind(before.failed())
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
        checked: Option<&Arc<CredentialCheck>>,
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
        // After a success, the next refresh may succeed too.
        let has_failed = flags.failed.is_some() || checked.is_some_and(|checked| checked.login.is_err());
        let ViewFlags { unattributed, is_unchecked, store_unavailable_since, is_damaged, failed, is_shared } =
            flags;
        let trouble = (has_failed || store_unavailable_since.is_some() || is_damaged).then(|| {
            let checked = checked.filter(|_| has_failed);
            let next_attempt = match has_failed {
                true => {
                    NextAttempt::of(&record, &provider, failed.as_deref(), checked.map(|checked| &**checked))
                }
                false => NextAttempt::NOW,
            };
            let has_readings = !unattributed && !record.snapshot().is_empty();
            let settled_until_ms = if has_readings { next_attempt.settled_until_ms() } else { i64::MIN };
            let checked = checked.cloned();
            let trouble = Trouble {
                failed,
                store_unavailable_since,
                is_damaged,
                settled_until_ms,
                next_attempt,
                checked,
            };
            Box::new(trouble)
        });
        Self {
            generation,
            record,
            provider,
            unattributed,
            is_unchecked,
            is_shared,
            created_ms,
            due_ms,
            trouble,
        }
    }

    /// Why this process's last refresh failed.
    pub(crate) fn failed(&self) -> Option<&QuotaError> {
        self.trouble.as_ref()?.failed.as_deref()
    }

    /// Since when this process runs without the store.
    pub(crate) fn store_unavailable_since(&self) -> Option<UnixMillis> {
        self.trouble.as_ref()?.store_unavailable_since
    }

    /// Whether this process runs without the store because the store's record of the account is damaged.
    pub(crate) fn is_damaged(&self) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| trouble.is_damaged)
    }

    /// Whether the readings are fresh.
    ///
    /// Every read runs this, so it makes only three comparisons and one read of the coarse clock. The fine clock decides in the
    /// last 10 ms, because the coarse one lags.
    #[inline]
    pub(crate) fn is_fresh(&self) -> bool {
        self.is_fresh_at(self.provider.clock.recent_ms())
    }

    /// Like [`is_fresh`](Self::is_fresh), at this time by the coarse clock.
    #[inline]
    pub(crate) fn is_fresh_at(&self, now_ms: i64) -> bool {
        self.is_before(now_ms, self.due_ms)
    }

    /// Whether an interactive read returns stale readings without any other work, at this time by the coarse clock.
    ///
    /// These two comparisons do not find every refusal; see [`is_refused_at`](Self::is_refused_at).
    #[inline]
    pub(crate) fn is_settled_at(&self, now_ms: i64) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| self.is_before(now_ms, trouble.settled_until_ms))
    }

    /// Whether no refresh of this priority can succeed now, at this time by the coarse clock. The view then has the reason.
    #[inline]
    pub(crate) fn is_refused_at(&self, now_ms: i64, priority: Priority) -> bool {
        let next_attempt = self.next_attempt();
        self.is_before(now_ms, next_attempt.of_priority(priority))
            || next_attempt.obeys_cooldown && self.is_before(now_ms, self.provider.cooldown_until_ms(now_ms))
            || self.is_refused_by_store()
    }

    #[inline]
    fn next_attempt(&self) -> NextAttempt {
        self.trouble.as_ref().map_or(NextAttempt::NOW, |trouble| trouble.next_attempt)
    }

    /// The last check of the credential, if a refresh may not succeed now.
    fn checked(&self) -> Option<&CredentialCheck> {
        self.trouble.as_ref().and_then(|trouble| trouble.checked.as_deref())
    }

    /// Whether the policy allows no calls without the store, and the store is unavailable.
    fn is_refused_by_store(&self) -> bool {
        let is_store_error = |error: &QuotaError| matches!(error, QuotaError::Store { .. });
        self.failed().is_some_and(is_store_error) && self.provider.store_client.is_unavailable()
    }

    /// When this process last checked the credential, by the store's clock.
    pub(crate) fn checked_at(&self) -> Option<Timestamp> {
        let checked = self.checked()?;
        Some(time::from_ms(checked.at_ms.saturating_add(self.provider.store_client.offset_ms())))
    }

    /// Whether a reader must check the credential again, if no refresh can succeed.
    pub(crate) fn is_check_due_at(&self, now_ms: i64) -> bool {
        now_ms >= self.next_attempt().check_ms
    }

    /// When a refresh of this priority can succeed, by the store's clock; `None` if it may succeed now.
    pub(crate) fn next_attempt_at(&self, priority: Priority) -> Option<Timestamp> {
        let now_ms = self.provider.clock.recent_ms();
        if !self.is_refused_at(now_ms, priority) {
            return None;
        }
        if self.is_refused_by_store() {
            return Some(Timestamp::MAX);
        }
        let cooldown_ms = if self.next_attempt().obeys_cooldown {
            self.provider.cooldown_until_ms(now_ms)
        } else {
            i64::MIN
        };
        let until_ms = self.next_attempt().of_priority(priority).max(cooldown_ms);
        Some(time::from_ms(until_ms.saturating_add(self.provider.store_client.offset_ms())))
    }

    /// Why an interactive refresh of the account cannot succeed now; `None` if it may.
    pub(crate) fn refusal(&self, account: &AccountId) -> Option<QuotaError> {
        let checked = self.checked();
        if let Some(Err(error)) = checked.map(|checked| &checked.login) {
            return Some(error.clone());
        }
        let failed = self.failed()?;
        if refuses_always(failed) || self.is_refused_by_store() {
            return Some(failed.clone());
        }
        let login = checked?.login.as_ref().ok()?.clone();
        if !self.record.is_writable() {
            return Some(QuotaError::UnsupportedFormat { account: account.clone() });
        }
        let now = self.now();
        let policy = &self.provider.policy;
        let request = lease_request(login, Priority::Interactive, policy.max_age);
        let request = request.cooldown(self.provider.cooldown_at(now));
        match self.record.refusal_at(now, &request, policy)? {
            LeaseDecision::OnHold(hold) => Some(QuotaError::OnHold { account: account.clone(), hold }),
            LeaseDecision::CredentialRejected(failure) => {
                Some(QuotaError::CredentialRejected { account: account.clone(), failure })
            }
            _ => None,
        }
    }

    /// Whether it is before `until_ms` by the coarse clock. The fine clock decides in the last 10 ms, because the coarse one lags.
    #[inline]
    fn is_before(&self, now_ms: i64, until_ms: i64) -> bool {
        now_ms < until_ms
            && now_ms >= self.created_ms - SET_BACK_MS
            && (now_ms < until_ms - Clock::RECENT_LAG_MS || self.provider.clock.now_ms() < until_ms)
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

impl NextAttempt {
    /// Any refresh may succeed.
    const NOW: Self =
        Self { interactive_ms: i64::MIN, background_ms: i64::MIN, obeys_cooldown: false, check_ms: i64::MAX };

    /// Until when no interactive refresh can succeed, and no check of the credential is due.
    fn settled_until_ms(&self) -> i64 {
        self.interactive_ms.min(self.check_ms)
    }

    #[inline]
    fn of_priority(&self, priority: Priority) -> i64 {
        match priority {
            Priority::Interactive => self.interactive_ms,
            Priority::Background => self.background_ms,
        }
    }

    fn both(until_ms: i64) -> Self {
        Self { interactive_ms: until_ms, background_ms: until_ms, ..Self::NOW }
    }

    /// The next attempt after the last refresh of this process failed. Without a failure, a refresh must find out whether it can
    /// succeed: only then the credential, which may be allowed to call despite a hold, and the reason are known.
    fn of(
        record: &Record,
        provider: &Provider,
        failed: Option<&QuotaError>,
        checked: Option<&CredentialCheck>,
    ) -> Self {
        let check_ms = checked.map_or(i64::MAX, CredentialCheck::next_ms);
        if checked.is_some_and(|checked| checked.login.is_err()) {
            return Self::both(check_ms);
        }
        let Some(failed) = failed else { return Self::NOW };
        let now = provider.store_client.now_estimate();
        // Only a refresh repairs timestamps from the future.
        if !is_refusal(failed) || record.is_writable() && record.needs_clock_repair(now) {
            return Self::NOW;
        }
        if refuses_always(failed) {
            return Self::both(i64::MAX);
        }
        let Some(Ok(login)) = checked.map(|checked| &checked.login) else { return Self::NOW };
        let next_ms = |priority| {
            let request = lease_request(login.clone(), priority, provider.policy.max_age);
            let next = record.next_attempt_at(now, &request, &provider.policy)?;
            // Another process has armed a longer hold since, so the last refresh does not have the reason.
            let is_explained = !matches!(failed, QuotaError::OnHold { hold, .. } if hold.until < next);
            is_explained.then(|| next.as_millisecond().saturating_sub(provider.store_client.offset_ms()))
        };
        Self {
            interactive_ms: next_ms(Priority::Interactive).unwrap_or(i64::MIN),
            background_ms: next_ms(Priority::Background).unwrap_or(i64::MIN),
            obeys_cooldown: true,
            check_ms,
        }
    }
}

/// Whether a refresh that failed with this error makes no call while its cause lasts.
fn is_refusal(error: &QuotaError) -> bool {
    matches!(
        error,
        QuotaError::NoFetcher { .. }
            | QuotaError::OnHold { .. }
            | QuotaError::CredentialRejected { .. }
            | QuotaError::CalledRecently { .. }
            | QuotaError::Fetch { .. }
            | QuotaError::UnsupportedFormat { .. }
            | QuotaError::DeadlineExceeded { .. }
    )
}

/// Whether every later refresh of this process fails with this error too. A manager gets no fetcher later, and no deadline moves.
fn refuses_always(error: &QuotaError) -> bool {
    matches!(error, QuotaError::NoFetcher { .. } | QuotaError::DeadlineExceeded { .. })
}

/// The request that a read makes if its readings are stale.
fn lease_request(login: LoginInfo, priority: Priority, max_age: Duration) -> LeaseRequest {
    LeaseRequest::new(RequestId::from(0), MaxStaleness::Age(max_age)).login(login).priority(priority)
}
