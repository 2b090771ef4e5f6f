//! The handle to one account: reads, observations and hold clearing. `account_refresh` has its refreshes.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::Guard;

use super::account_usage::AccountUsage;
use super::entry::AccountEntry;
use super::error::{ObserveError, QuotaError};
use super::events::rejected_values;
use super::in_flight::RefreshRequest;
use super::view::View;
use super::view_table::{CHECK_INTERVAL, ViewHandle};
use super::{Shared, login_check, refresh};
use crate::model::{AccountId, Rejected, Snapshot, UsageReport};
use crate::record::{Cleared, Hold, MergeOutcome, Priority, Record, Seed};
use crate::store::StoreKey;
use crate::time;

/// A handle to one account. It is cheap to clone. All handles of one manager to one account share their state.
///
/// The first [`get`](Self::get), refresh, observation, [`watch`](Self::watch) or [`sync`](Self::sync) starts a follower, which
/// merges the writes of other processes. The follower stops after a few minutes without a reader, and the next of these calls
/// starts a new one. [`peek`](Self::peek) does not start one.
#[derive(Clone)]
pub struct Account {
    /// A copy of the entry's handle, so that reads do not touch the entry.
    pub(super) view_handle: ViewHandle,
    pub(super) entry: Arc<AccountEntry>,
    pub(super) shared: Arc<Shared>,
}

impl Account {
    pub(crate) fn new(entry: Arc<AccountEntry>, shared: Arc<Shared>) -> Self {
        Self { view_handle: entry.view_handle.clone(), entry, shared }
    }

    /// The key of the account's record in the store: that of its login, or without one, that of its name.
    ///
    /// Other documents of the login derive their keys from it; see [`StoreKey::extension`]. It changes with the login.
    /// This waits until the login has been checked once. If the check fails, it returns the key of the name. Dropping
    /// the future is safe.
    pub async fn record_key(&self) -> StoreKey {
        if self.entry.is_unchecked() {
            login_check::ensure_checked(&self.entry, &self.shared.context).await;
        }
        self.entry.record().key().clone()
    }

    /// The account's name.
    #[must_use]
    pub fn id(&self) -> &AccountId {
        &self.entry.id
    }

    /// Returns the cached usage. Takes no lock, does no I/O, does not wait and does not read a clock.
    ///
    /// It is empty before the first [`get`](Self::get), [`refresh`](Self::refresh) or [`sync`](Self::sync).
    #[inline]
    pub fn peek(&self) -> AccountUsage {
        AccountUsage::of(self.load())
    }

    /// Loads the view. If the login was last checked more than a second ago, starts a check in the background.
    #[inline(always)]
    fn load(&self) -> Guard<Arc<View>> {
        let view = self.view_handle.load();
        if self.view_handle.checks_login() {
            self.check_login(&view);
        }
        view
    }

    #[inline(never)]
    fn check_login(&self, view: &View) {
        let now_ms = view.provider.clock.recent_ms();
        // Before the first check, only calls that wait for it start it.
        if !view.is_unchecked && self.view_handle.is_login_check_due(now_ms, CHECK_INTERVAL) {
            login_check::check_in_background(&self.entry, &self.shared.context);
        }
    }

    /// The readings, if a follower keeps the view current and no refresh is needed or possible; otherwise the view, and
    /// the time by the coarse clock.
    #[inline(always)]
    fn peek_settled(&self) -> Result<AccountUsage, (Guard<Arc<View>>, i64)> {
        let view = self.view_handle.load();
        let now_ms = view.provider.clock.recent_ms();
        let is_fresh = view.is_fresh_at(now_ms);
        if !is_fresh && !view.is_settled_at(now_ms) || !self.view_handle.is_followed() {
            return Err((view, now_ms));
        }
        // While no refresh can succeed, the check of the credential also checks the login.
        if is_fresh && self.view_handle.checks_login() {
            self.check_login(&view);
        }
        Ok(AccountUsage::of(view))
    }

    /// The cached usage with the reason, if no refresh can succeed now.
    ///
    /// It reads no credential. If the last check is older than the check interval, it starts one in the background, because another
    /// credential may be allowed to call.
    #[inline(never)]
    fn peek_refused(&self, view: Guard<Arc<View>>, now_ms: i64) -> Option<Result<AccountUsage, QuotaError>> {
        if !view.is_refused_at(now_ms, Priority::Interactive) || !self.view_handle.is_followed() {
            return None;
        }
        if view.is_check_due_at(now_ms) {
            self.check_credential(now_ms);
        }
        let usage = AccountUsage::of(view);
        if !usage.is_empty() {
            return Some(Ok(usage));
        }
        usage.view().refusal(self.id()).map(Err)
    }

    /// Checks the credential in the background, through a background refresh, which calls the provider if the rules
    /// allow it.
    #[cold]
    pub(super) fn check_credential(&self, now_ms: i64) {
        if self.entry.claim_check(now_ms) {
            let request = RefreshRequest::Age(self.entry.provider.policy.max_age);
            drop(refresh::join(&self.entry, request, Priority::Background, &self.shared.context));
        }
    }

    /// Whether the cached readings are stale.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        !self.load().is_fresh()
    }

    /// Whether the cached readings are stale for a request to `model`, by its name in requests.
    ///
    /// The age of a window that counts one model matters only for requests to that model. The full refresh, once an hour by
    /// default, reads it anyway.
    #[must_use]
    pub fn is_stale_for(&self, model: Option<&str>) -> bool {
        !self.load().is_fresh_for(model)
    }

    /// Whether the caller should refresh before request number `request`: the cached readings are stale, or the policy's
    /// [`every_n_requests`](crate::Policy#structfield.every_n_requests) requires it.
    #[must_use]
    pub fn needs_refresh(&self, request: u64) -> bool {
        self.is_stale() || self.entry.provider.policy.refreshes_on_request(request)
    }

    /// Counts a request and returns its number, starting at 1, for [`needs_refresh`](Self::needs_refresh).
    pub fn count_request(&self) -> u64 {
        self.entry.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Returns fresh readings: cached ones, or those of one refresh that all callers share.
    ///
    /// If no refresh is possible, this returns the cached readings, marked as stale with the reason. So it does if the refresh takes
    /// longer than [`get_timeout`](crate::Policy#structfield.get_timeout). The refresh then continues, as it does if the caller drops
    /// the future. The timer is that of the manager's runtime.
    ///
    /// # Errors
    ///
    /// [`QuotaError`] if there are no readings.
    #[inline]
    pub fn get(&self) -> GetFuture<'_> {
        GetFuture::of(self)
    }

    /// Like [`get`](Self::get), with `max_age` in place of the policy's maximum age.
    ///
    /// # Errors
    ///
    /// [`QuotaError`] if there are no readings.
    pub async fn get_with_max_age(&self, max_age: Duration) -> Result<AccountUsage, QuotaError> {
        Box::pin(self.get_cold(Some(max_age), self.entry.provider.policy.get_timeout)).await
    }

    /// Like [`get`](Self::get), for a request to `model`: the windows that count only this model must be fresh too.
    ///
    /// # Errors
    ///
    /// [`QuotaError`] if there are no readings.
    pub async fn get_for(&self, model: Option<&str>) -> Result<AccountUsage, QuotaError> {
        self.get_for_within(model, self.entry.provider.policy.get_timeout).await
    }

    /// Like [`get_for`](Self::get_for), with `timeout` in place of the policy's
    /// [`get_timeout`](crate::Policy#structfield.get_timeout).
    ///
    /// # Errors
    ///
    /// [`QuotaError`] if there are no readings.
    pub async fn get_for_within(
        &self,
        model: Option<&str>,
        timeout: Duration,
    ) -> Result<AccountUsage, QuotaError> {
        let view = self.load();
        if !view.has_windows_of(model) || view.is_fresh_for(model) {
            drop(view);
            if let Ok(usage) = self.peek_settled() {
                return Ok(usage);
            }
            return Box::pin(self.get_cold(None, timeout)).await;
        }
        let now_ms = view.provider.clock.recent_ms();
        if let Some(result) = self.peek_refused(view, now_ms) {
            return result;
        }
        let _followed = OnDrop(|| self.follow());
        let request = RefreshRequest::CompleteAge(self.entry.provider.policy.max_age);
        Box::pin(self.wait_for_readings(request, timeout)).await
    }

    async fn get_cold(
        &self,
        max_age: Option<Duration>,
        timeout: Duration,
    ) -> Result<AccountUsage, QuotaError> {
        let _followed = OnDrop(|| self.follow());
        let view = self.load();
        // The refresh checks the login first, so before the first check even seeded readings do not count as fresh.
        let is_fresh = max_age.map_or_else(|| view.is_fresh(), |max_age| view.is_fresh_within(max_age));
        if is_fresh && !view.is_unchecked {
            return Ok(AccountUsage::of(view));
        }
        let now_ms = view.provider.clock.recent_ms();
        if let Some(result) = self.peek_refused(view, now_ms) {
            return result;
        }
        let request = RefreshRequest::Age(max_age.unwrap_or(self.entry.provider.policy.max_age));
        self.wait_for_readings(request, timeout).await
    }

    /// Waits for a refresh for at most `timeout`.
    async fn wait_for_readings(
        &self,
        request: RefreshRequest,
        timeout: Duration,
    ) -> Result<AccountUsage, QuotaError> {
        let deadline = self.entry.provider.clock.instant().after(timeout);
        if let Some(refreshed) = self.shared_refresh_until(request, deadline).await {
            return Ok(refreshed?.usage);
        }
        let error = QuotaError::InProgress { account: self.entry.id.clone() };
        self.entry.record().update(|local| {
            // If it has just ended, it has stored its own outcome.
            if local.in_flight.is_some() {
                self.entry.state().refresh_failed(error.clone());
            }
        });
        let usage = self.peek();
        if usage.is_empty() { Err(error) } else { Ok(usage) }
    }

    /// Reads the account's record and the provider's cooldown from the store, without calling the provider.
    ///
    /// It has no effect while the store is unavailable; see [`AccountUsage::store_unavailable_since`].
    pub async fn sync(&self) -> AccountUsage {
        // Start the follower after this read, because it would read the record too. The guard also starts it if the caller drops
        // the future.
        let _followed = OnDrop(|| self.follow());
        login_check::ensure_checked(&self.entry, &self.shared.context).await;
        let cooldown = async {
            if let Some(shared_cooldown) = &self.entry.provider.shared_cooldown {
                shared_cooldown.load_once(self.entry.provider.policy.record_ttl).await;
            }
        };
        // Read both concurrently, so that this waits for only one round trip.
        let record = self.entry.record();
        let sync = async {
            if !self.entry.is_unchecked() {
                record.sync(None).await;
            }
        };
        tokio::join!(Box::pin(sync), cooldown);
        self.peek()
    }

    /// Merges readings that arrived without a usage call, such as the headers of an ordinary response.
    ///
    /// Readers in this process get the readings at once, and other processes within a few seconds. Holds stay unchanged. Returns
    /// the implausible values, which are not merged; see [`UsageReport::reject_implausible`].
    ///
    /// # Errors
    ///
    /// [`ObserveError`] if the readings belong to a login other than the account's current one, if a newer program wrote the
    /// record, or if the manager was closed.
    pub fn observe(&self, usage: &UsageReport) -> Result<Vec<Rejected>, ObserveError> {
        let now = self.entry.provider.store_client.now_estimate();
        let at = usage.observed_at.map_or(now, |observed| observed.min(time::latest_plausible(now)));
        let rejected = usage.implausible(at);
        rejected_values(&self.shared.context.events, self.id(), &rejected);
        let seed = Seed::new(Snapshot::of(usage, at)).login_id(usage.login_id.clone());
        self.merge(&seed, usage.owner_id.as_ref()).map(|()| rejected)
    }

    /// Merges persisted readings at their original age, and a hold that is still in force, without a call.
    ///
    /// # Errors
    ///
    /// [`ObserveError`] if the seed belongs to a login other than the account's current one, if a newer program wrote the record,
    /// or if the manager was closed.
    pub fn seed(&self, seed: &Seed) -> Result<(), ObserveError> {
        self.merge(seed, None)
    }

    fn merge(&self, seed: &Seed, owner_id: Option<&crate::model::OwnerId>) -> Result<(), ObserveError> {
        let account = || self.entry.id.clone();
        if self.shared.context.tasks.is_closed() {
            return Err(ObserveError::Closed);
        }
        let now = self.entry.provider.store_client.now_estimate();
        let record = self.entry.record();
        match record.update(|local| local.observe(now, seed, owner_id)) {
            MergeOutcome::Merged => {
                self.follow();
                // The manager may have closed after the check above, so the write may not start.
                if self.shared.context.tasks.is_closed() { Err(ObserveError::Closed) } else { Ok(()) }
            }
            MergeOutcome::OtherLogin => {
                // The login may have changed since the last check.
                self.view_handle.require_login_check(self.entry.provider.clock.recent_ms());
                login_check::check_in_background(&self.entry, &self.shared.context);
                Err(ObserveError::AnotherLogin { account: account() })
            }
            MergeOutcome::UnsupportedFormat => Err(ObserveError::UnsupportedFormat { account: account() }),
        }
    }

    /// Clears the account's hold for all processes that share the store, and resets its count of consecutive failures.
    ///
    /// Returns the cleared hold; `None` if none was in force. Another process that has the hold cached does not restore it. The
    /// next failed call can arm a new hold. The provider's cooldown, the budget and a credential rejection stay. This process's
    /// copy replaces a damaged record. If the future is dropped, the hold may or may not be cleared.
    ///
    /// # Errors
    ///
    /// [`QuotaError::Store`] if the write to the store failed. With
    /// [`StoreOutagePolicy::Standalone`](crate::policy::StoreOutagePolicy::Standalone), this process clears the hold at once, and
    /// the others after the outage. [`QuotaError::UnsupportedFormat`] if a newer program wrote the record.
    pub async fn clear_hold(&self) -> Result<Option<Hold>, QuotaError> {
        let account = || self.entry.id.clone();
        login_check::ensure_checked(&self.entry, &self.shared.context).await;
        let cleared = self.entry.record().change_shared(Record::clear_hold).await;
        self.follow();
        match cleared {
            Ok(Cleared::Lifted(hold)) => Ok(Some(hold)),
            Ok(Cleared::NoHold) => Ok(None),
            Ok(Cleared::UnsupportedFormat) => Err(QuotaError::UnsupportedFormat { account: account() }),
            Err(error) => Err(QuotaError::Store { account: account(), error }),
        }
    }

    pub(super) fn follow(&self) {
        login_check::follow(&self.entry, &self.shared.context);
    }
}

/// Runs a closure on drop.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("id", &self.entry.id)
            .field("usage", &self.peek())
            .finish_non_exhaustive()
    }
}

/// The future of [`Account::get`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct GetFuture<'a> {
    account: &'a Account,
    /// Boxed to keep the future of the fast path small.
    cold: Option<ColdGet<'a>>,
}

type ColdGet<'a> = Pin<Box<dyn Future<Output = Result<AccountUsage, QuotaError>> + Send + 'a>>;

impl<'a> GetFuture<'a> {
    #[inline]
    fn of(account: &'a Account) -> Self {
        Self { account, cold: None }
    }
}

// Hand-written, because every read runs this: the state machine of an `async fn` makes a read 50 % slower.
impl Future for GetFuture<'_> {
    type Output = Result<AccountUsage, QuotaError>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if this.cold.is_some() {
            return this.wait(context);
        }
        match this.account.peek_settled() {
            Ok(usage) => Poll::Ready(Ok(usage)),
            Err((view, now_ms)) => this.poll_stale(view, now_ms, context),
        }
    }
}

impl GetFuture<'_> {
    /// It is not inlined, so that the fast path does not copy the large result of the other cases.
    #[inline(never)]
    fn poll_stale(
        &mut self,
        view: Guard<Arc<View>>,
        now_ms: i64,
        context: &mut Context<'_>,
    ) -> Poll<Result<AccountUsage, QuotaError>> {
        match self.account.peek_refused(view, now_ms) {
            Some(result) => Poll::Ready(result),
            None => self.wait(context),
        }
    }

    #[cold]
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<Result<AccountUsage, QuotaError>> {
        let account = self.account;
        let timeout = account.entry.provider.policy.get_timeout;
        self.cold.get_or_insert_with(|| Box::pin(account.get_cold(None, timeout))).as_mut().poll(context)
    }
}

impl fmt::Debug for GetFuture<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetFuture").field("account", self.account).finish_non_exhaustive()
    }
}
