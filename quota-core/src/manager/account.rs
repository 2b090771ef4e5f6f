//! The handle through which a program uses one account.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use super::account_usage::{AccountUsage, RefreshOutcome};
use super::entry::AccountEntry;
use super::error::{ObserveError, QuotaError};
use super::events::rejected_values;
use super::in_flight::{InFlight, RefreshRequest};
use super::view_table::ViewHandle;
use super::{Shared, background, follower, refresh};
use crate::model::{AccountId, Rejected, Snapshot, UsageReport};
use crate::record::{Cleared, Hold, HoldReason, MergeOutcome, Priority, Record, Seed};
use crate::time;

/// A handle to one account. Cheap to clone; all handles of one manager to one account share their state.
///
/// From the first [`get`](Self::get), refresh, observation, [`watch`](Self::watch) or [`sync`](Self::sync) on, the account's
/// view follows what other processes write, for as long as a caller reads it. An account without readers for a few
/// minutes is followed again from the next of these on; a [`peek`](Self::peek) alone does not begin it.
#[derive(Clone)]
pub struct Account {
    /// Straight to the view: readers touch nothing else.
    pub(super) view_handle: ViewHandle,
    pub(super) entry: Arc<AccountEntry>,
    pub(super) shared: Arc<Shared>,
}

impl Account {
    pub(crate) fn new(entry: Arc<AccountEntry>, shared: Arc<Shared>) -> Self {
        Self { view_handle: entry.view_handle.clone(), entry, shared }
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
        AccountUsage::of(self.view_handle.load())
    }

    /// The cached usage, if it is fresh and a follower keeps it current.
    #[inline(always)]
    fn peek_fresh(&self) -> Option<AccountUsage> {
        let view = self.view_handle.load();
        (view.is_fresh() && self.view_handle.is_followed()).then(|| AccountUsage::of(view))
    }

    /// Whether the cached readings are stale.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        !self.view_handle.load().is_fresh()
    }

    /// Whether the cached readings are stale for a request to `model`, by its name in requests.
    ///
    /// A window of one model affects only requests to that model. Other requests are not stale because of it; the full refresh
    /// reads it, once an hour by default.
    #[must_use]
    pub fn is_stale_for(&self, model: Option<&str>) -> bool {
        !self.view_handle.load().is_fresh_for(model)
    }

    /// Whether the request of this number should refresh first: because what is known is stale, or by the policy's
    /// [`every_n_requests`](crate::Policy#structfield.every_n_requests).
    #[must_use]
    pub fn needs_refresh(&self, request: u64) -> bool {
        self.is_stale() || self.entry.provider.policy.refreshes_on_request(request)
    }

    /// Counts a request and returns its number, starting at 1. For [`needs_refresh`](Self::needs_refresh).
    pub fn count_request(&self) -> u64 {
        self.entry.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Returns fresh readings: cached ones, or those of one refresh that all callers share.
    ///
    /// If no refresh is possible, the cached readings are returned, marked as stale with the reason. Dropping the
    /// future stops waiting; the refresh continues.
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
        Box::pin(self.get_cold(Some(max_age))).await
    }

    /// Like [`get`](Self::get), for a request to `model`: the windows that count this model must be fresh too.
    ///
    /// # Errors
    ///
    /// [`QuotaError`] if there are no readings.
    pub async fn get_for(&self, model: Option<&str>) -> Result<AccountUsage, QuotaError> {
        let view = self.view_handle.load();
        if !view.has_windows_of(model) || view.is_fresh_for(model) {
            drop(view);
            return self.get().await;
        }
        drop(view);
        let _followed = OnDrop(|| self.follow());
        let request = RefreshRequest::CompleteAge(self.entry.provider.policy.max_age);
        Ok(Box::pin(self.shared_refresh(request)).await?.usage)
    }

    async fn get_cold(&self, max_age: Option<Duration>) -> Result<AccountUsage, QuotaError> {
        let _followed = OnDrop(|| self.follow());
        let view = self.view_handle.load();
        if max_age.map_or_else(|| view.is_fresh(), |max_age| view.is_fresh_within(max_age)) {
            return Ok(AccountUsage::of(view));
        }
        drop(view);
        let request = RefreshRequest::Age(max_age.unwrap_or(self.entry.provider.policy.max_age));
        let refreshed = self.shared_refresh(request).await?;
        Ok(refreshed.usage)
    }

    /// Calls the provider now if the rules allow it, and returns whether it did.
    ///
    /// A refresh that is under way is joined. When none is possible, the outcome has the cached usage, and the reason in
    /// [`RefreshOutcome::error`]. Dropping the future stops waiting; the refresh continues.
    ///
    /// # Errors
    ///
    /// [`QuotaError`] if there are no readings.
    pub async fn refresh(&self) -> Result<RefreshOutcome, QuotaError> {
        Box::pin(self.shared_refresh(RefreshRequest::NewCall)).await
    }

    /// Refreshes like [`refresh`](Self::refresh), unless a call with the same credential was started less than `span` ago, by
    /// any process that shares the store. Use it for commands and keys that a user may repeat, because each call counts in the budget.
    ///
    /// The outcome of that call is the result, whether it succeeded or failed: [`RefreshOutcome::called_at`] is its start,
    /// [`RefreshOutcome::error`] its failure. Readings that arrived without a call, such as headers, do not count. Dropping the
    /// future stops waiting; the refresh continues.
    ///
    /// # Errors
    ///
    /// [`QuotaError`] if there are no readings.
    pub async fn refresh_unless_called_within(&self, span: Duration) -> Result<RefreshOutcome, QuotaError> {
        Box::pin(self.shared_refresh(RefreshRequest::RecentCall(span))).await
    }

    async fn shared_refresh(&self, request: RefreshRequest) -> Result<RefreshOutcome, QuotaError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let in_flight = refresh::join(&self.entry, request, Priority::Interactive, &self.shared.context);
            let result = in_flight.wait().await;
            // A refresh that began for a less demanding caller may not satisfy this one.
            let enough = match result {
                Ok(refresh_done) => refresh_done.fetched || in_flight.request.covers(request),
                Err(QuotaError::OnHold { hold, .. }) => hold.reason != HoldReason::BudgetExhausted,
                // An explicit refresh may try where a read is rejected.
                Err(QuotaError::CredentialRejected { .. } | QuotaError::CalledRecently { .. }) => {
                    in_flight.request.covers(request)
                }
                // The refresh task ended with its runtime; the next attempt runs on this caller's runtime.
                Err(QuotaError::Closed) => self.shared.context.tasks.is_closed(),
                Err(_) => true,
            };
            if !enough && tries < MAX_REFRESH_ATTEMPTS {
                continue;
            }
            return self.result(&in_flight, result);
        }
    }

    fn result(
        &self,
        in_flight: &InFlight,
        result: &super::in_flight::RefreshResult,
    ) -> Result<RefreshOutcome, QuotaError> {
        let view = self.view_handle.load();
        let same_login = match (&in_flight.login_id, view.record.login_id()) {
            (Some(asked), Some(effective_record)) => asked == effective_record,
            _ => true,
        };
        match result {
            Ok(refresh_done) => {
                let usage = if same_login {
                    AccountUsage::of(view)
                } else {
                    AccountUsage::from_view(Arc::clone(&refresh_done.view))
                };
                Ok(RefreshOutcome {
                    usage,
                    fetched: refresh_done.fetched,
                    error: None,
                    called_at: refresh_done.called_at,
                })
            }
            Err(error) => {
                let usage = AccountUsage::of(view);
                if usage.is_empty() || !same_login {
                    return Err(error.clone());
                }
                let called_at = match error {
                    QuotaError::CalledRecently { failure, .. } => Some(failure.at),
                    _ => None,
                };
                Ok(RefreshOutcome { usage, fetched: false, error: Some(error.clone()), called_at })
            }
        }
    }

    /// Starts a refresh if the readings are not fresh, and returns at once.
    ///
    /// It queues behind interactive refreshes, and does not use the reserve of the budget.
    pub fn refresh_in_background(&self) {
        if self.is_stale() {
            let request = RefreshRequest::Age(self.entry.provider.policy.max_age);
            drop(refresh::join(&self.entry, request, Priority::Background, &self.shared.context));
        }
    }

    /// Reads shared state from the store without calling the provider: the account's record and the provider's cooldown.
    ///
    /// If the store is unavailable, this has no effect; see [`AccountUsage::store_unavailable_since`].
    pub async fn sync(&self) -> AccountUsage {
        // Followed after the read, or the follower would read it too; also if the caller drops the future.
        let _followed = OnDrop(|| self.follow());
        let cooldown = async {
            if let Some(shared_cooldown) = &self.entry.provider.shared_cooldown {
                shared_cooldown.load_once(self.entry.provider.policy.record_ttl).await;
            }
        };
        // Read both concurrently, so that only one round trip is waited for.
        tokio::join!(Box::pin(self.entry.sync(None)), cooldown);
        self.peek()
    }

    /// Merges readings that arrived without a usage call, such as the headers of an ordinary response.
    ///
    /// Holds stay as they are. Readers of this process see them at once; the store within a few seconds. Returns what was left
    /// out because it cannot be true; see [`UsageReport::reject_implausible`].
    ///
    /// # Errors
    ///
    /// [`ObserveError`] if the readings belong to a login other than the account's current one, or the manager was closed.
    pub fn observe(&self, usage: &UsageReport) -> Result<Vec<Rejected>, ObserveError> {
        let now = self.entry.provider.store_client.now_estimate();
        let at = usage.observed_at.map_or(now, |observed| observed.min(time::latest_plausible(now)));
        let rejected = usage.implausible(at);
        rejected_values(&self.shared.context.events, self.id(), &rejected);
        let seed = Seed::new(Snapshot::of(usage, at)).login_id(usage.login_id.clone());
        self.join_in(&seed, usage.owner_id.as_ref()).map(|()| rejected)
    }

    /// Merges persisted readings at their original age, and a hold that is still in force, without a call.
    ///
    /// # Errors
    ///
    /// [`ObserveError`] if it belongs to a login other than the account's current one, or the manager was closed.
    pub fn seed(&self, seed: &Seed) -> Result<(), ObserveError> {
        self.join_in(seed, None)
    }

    fn join_in(&self, seed: &Seed, owner_id: Option<&crate::model::OwnerId>) -> Result<(), ObserveError> {
        let account = || self.entry.id.clone();
        if self.shared.context.tasks.is_closed() {
            return Err(ObserveError::Closed);
        }
        let now = self.entry.provider.store_client.now_estimate();
        match self.entry.update(|local| local.observe(now, seed, owner_id)) {
            MergeOutcome::Merged => {
                self.follow();
                background::schedule_flush(&self.entry, &self.shared.context);
                // The manager may have closed after the check above, so the write may not start.
                if self.shared.context.tasks.is_closed() { Err(ObserveError::Closed) } else { Ok(()) }
            }
            MergeOutcome::OtherLogin => {
                // The local record may be outdated. Following brings it up to date.
                self.follow();
                Err(ObserveError::AnotherLogin { account: account() })
            }
            MergeOutcome::UnsupportedFormat => Err(ObserveError::UnsupportedFormat { account: account() }),
        }
    }

    /// Clears the account's hold for all processes that share the store, and resets its count of consecutive failures.
    ///
    /// Returns the hold that was lifted; `None` if none was in force. A process that still knows it does not bring it back, and
    /// a call that fails after this arms a new one. A damaged record is replaced by this process's copy. The provider's cooldown, the
    /// budget and the rejection of a credential stay.
    ///
    /// # Errors
    ///
    /// [`QuotaError::Store`] if the store did not take it. Where the policy is to go on without the store, the hold is lifted in
    /// this process, and for the others once the store is back. [`QuotaError::UnsupportedFormat`] if a newer program keeps the record.
    ///
    /// If the future is dropped, the hold may or may not be cleared.
    pub async fn clear_hold(&self) -> Result<Option<Hold>, QuotaError> {
        let account = || self.entry.id.clone();
        let cleared = self.entry.change_shared(Record::clear_hold).await;
        self.follow();
        match cleared {
            Ok(Cleared::Lifted(hold)) => Ok(Some(hold)),
            Ok(Cleared::NoHold) => Ok(None),
            Ok(Cleared::UnsupportedFormat) => Err(QuotaError::UnsupportedFormat { account: account() }),
            Err(error) => Err(QuotaError::Store { account: account(), error }),
        }
    }

    pub(super) fn follow(&self) {
        follower::follow(&self.entry, &self.shared.context);
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

/// The future that [`Account::get`] returns. Nothing happens before it is polled.
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

// Hand-written instead of an `async fn`: every reader runs this, and a generated state machine makes a read 50 % slower.
impl Future for GetFuture<'_> {
    type Output = Result<AccountUsage, QuotaError>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if this.cold.is_none()
            && let Some(usage) = this.account.peek_fresh()
        {
            return Poll::Ready(Ok(usage));
        }
        this.wait(context)
    }
}

impl GetFuture<'_> {
    #[cold]
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<Result<AccountUsage, QuotaError>> {
        let account = self.account;
        self.cold.get_or_insert_with(|| Box::pin(account.get_cold(None))).as_mut().poll(context)
    }
}

impl fmt::Debug for GetFuture<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetFuture").field("account", self.account).finish_non_exhaustive()
    }
}

/// The maximum number of refreshes that one call waits for.
const MAX_REFRESH_ATTEMPTS: u32 = 3;
