//! Refreshes the readings of many accounts. The quota manager, not the state file, decides which are stale.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quota_core::{AccountId, FetchError, QuotaError};
use tokio::task::JoinSet;

use super::source::Rechecks;
use super::{FallbackAccountManager, Inner};
use crate::Request;
use crate::routing::{Choice, Eligibility, Role, evaluate};

/// After this time, a slow refresh no longer delays the next account.
const SLOW_REFRESH: Duration = Duration::from_secs(2);
/// The timeout of a refresh whose readings are saved when it ends. The call itself has its own timeout.
pub(super) const UNBOUNDED: Duration = Duration::MAX;
/// How many refreshes [`FallbackAccountManager::refresh_until_usable`] runs at once.
const MAX_PARALLEL_REFRESHES: usize = 4;

/// The outcome of refreshing an account that was due.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RefreshReport {
    /// The account.
    pub account: AccountId,
    /// Why there are no fresh readings; `None` if there are.
    pub error: Option<QuotaError>,
}

impl FallbackAccountManager {
    /// Refreshes every account that is stale and may be refreshed now, and saves the readings.
    ///
    /// The result omits accounts that are fresh, on hold or disabled. If the future is dropped, the readings that have arrived
    /// are saved later.
    pub async fn refresh_quota_for_due_accounts(&self) -> Vec<RefreshReport> {
        self.inner.load().await;
        self.refresh(|_| true).await
    }

    /// Refreshes the fallback accounts that are due, and returns those above every minimum, in order.
    ///
    /// A [`route`](Self::route) would use each of them if the accounts before it were unavailable. Both apply the same
    /// rules, check for other logins, and check that the account is logged in. If several accounts have the same login,
    /// only the first is listed. Dropping the future is safe.
    pub async fn usable_fallback_accounts(&self) -> Vec<AccountId> {
        self.inner.load().await;
        self.refresh(|role| role == Role::Fallback).await;
        let usable = self.usable_fallbacks().await;
        usable.into_iter().map(|at| self.inner.slots[at].id.clone()).collect()
    }

    /// Refreshes accounts that are ineligible only because their usage is unknown, in order, until one can serve this
    /// request. Returns how many refreshes ended, successful or not; zero if an account can already serve.
    ///
    /// A [`route`](Self::route) waits for at most four refreshes. This method has no such limit. At most four refreshes run at
    /// once, and one that takes longer than two seconds does not delay the next. It skips accounts whose last refresh failed, and
    /// ends once the quota manager has no time left for a call ([`QuotaError::DeadlineExceeded`]). Dropping the future is safe.
    pub async fn refresh_until_usable(&self, request: &Request) -> usize {
        self.inner.load().await;
        self.inner.refresh_until_usable(request).await
    }

    pub(super) async fn refresh(&self, is_wanted: impl Fn(Role) -> bool) -> Vec<RefreshReport> {
        let inner = &self.inner;
        let mut results = self.refresh_due(&is_wanted, &[]).await;
        inner.recheck_held_logins(&is_wanted).await;
        results.sort_unstable_by_key(|(at, _)| *at);
        let refreshed: Vec<usize> = results.iter().map(|(at, _)| *at).collect();
        results.extend(self.refresh_due(&is_wanted, &refreshed).await);
        results.sort_unstable_by_key(|(at, _)| *at);
        let report = |(at, result): (usize, Result<(), QuotaError>)| RefreshReport {
            account: inner.slots[at].id.clone(),
            error: result.err(),
        };
        results.into_iter().map(report).collect()
    }

    /// Refreshes the accounts that are due, except those `refreshed` before, and returns their results.
    async fn refresh_due(
        &self,
        is_wanted: impl Fn(Role) -> bool,
        refreshed: &[usize],
    ) -> Vec<(usize, Result<(), QuotaError>)> {
        let inner = &self.inner;
        let due = inner.slots.iter().enumerate().filter(|(at, slot)| {
            !slot.disabled
                && is_wanted(slot.role)
                && slot.usage.is_stale()
                && !slot.is_held()
                // `refreshed` is sorted, so this is cheap even for many accounts.
                && refreshed.binary_search(at).is_err()
        });
        let due: Vec<usize> = due.map(|(at, _)| at).collect();
        if due.is_empty() {
            return Vec::new();
        }
        let mut results = Vec::with_capacity(due.len());
        let mut calls = JoinSet::new();
        for at in due {
            if inner.calls_in_turn
                && let Some(done) = calls.join_next().await
            {
                results.extend(done.ok());
            }
            let inner = Arc::clone(inner);
            calls.spawn(async move { (at, inner.slots[at].refresh_if_stale(None, UNBOUNDED).await) });
        }
        while let Some(done) = calls.join_next().await {
            // After a panic, which the quota manager reports, the account is due again.
            results.extend(done.ok());
        }
        inner.save_or_warn().await;
        results
    }
}

impl Inner {
    async fn refresh_until_usable(self: &Arc<Self>, request: &Request) -> usize {
        let mut unknown = self.unknown(request).into_iter();
        let mut refreshes = JoinSet::new();
        let mut refreshed = 0;
        loop {
            if refreshes.len() < MAX_PARALLEL_REFRESHES
                && !self.is_out_of_time()
                && let Some(at) = unknown.next()
            {
                let (inner, model) = (Arc::clone(self), request.model().map(str::to_owned));
                refreshes.spawn(async move { (at, inner.refresh_if_stale(at, model.as_deref()).await) });
            }
            let may_start_another = refreshes.len() < MAX_PARALLEL_REFRESHES && unknown.len() > 0;
            let next = refreshes.join_next();
            let done = match may_start_another {
                true => self.clock.bounded(SLOW_REFRESH, next).await,
                false => Some(next.await),
            };
            match done {
                None => continue,
                Some(None) => break,
                Some(Some(Ok((_, Err(_))))) if self.is_out_of_time() => break,
                Some(Some(Ok((at, _)))) => {
                    refreshed += 1;
                    if self.can_serve(at, request) {
                        break;
                    }
                }
                // The fetcher panicked; the quota manager reports that.
                Some(Some(Err(_))) => refreshed += 1,
            }
        }
        if refreshed > 0 {
            self.schedule_save();
        }
        refreshed
    }

    /// The accounts that are ineligible only because their usage is unknown, and may be refreshed; none if an account can serve.
    fn unknown(&self, request: &Request) -> Vec<usize> {
        let decision = self.decision(request, &[]);
        if !matches!(decision.choice(), Choice::NoAccount { .. }) {
            return Vec::new();
        }
        let evaluated = self.slots.iter().zip(decision.accounts()).enumerate();
        let unknown = evaluated.filter(|(_, (slot, evaluated))| {
            evaluated.verdict().is_unknown()
                && slot.usage.is_stale_for(request.model())
                && slot.usage.peek().error().is_none()
                && !slot.is_refused()
        });
        unknown.map(|(at, _)| at).collect()
    }

    /// Refreshes an account if its readings are stale for a request of `model`.
    pub(super) async fn refresh_if_stale(&self, at: usize, model: Option<&str>) -> Result<(), QuotaError> {
        self.refresh_within(at, model, UNBOUNDED).await
    }

    /// Like [`refresh_if_stale`](Self::refresh_if_stale), but waits for at most `timeout`.
    pub(super) async fn refresh_within(
        &self,
        at: usize,
        model: Option<&str>,
        timeout: Duration,
    ) -> Result<(), QuotaError> {
        let slot = &self.slots[at];
        let result = slot.refresh_if_stale(model, timeout).await;
        if let Err(QuotaError::Fetch {
            error: FetchError::CredentialUnavailable { timed_out: true, .. },
            ..
        }) = &result
        {
            // Otherwise the request would wait for the same source a second time.
            slot.credential_timed_out(self.now());
        }
        if let Err(QuotaError::DeadlineExceeded { .. }) = result {
            self.out_of_time.store(true, Ordering::Relaxed);
        }
        result
    }

    /// Refreshes an account for a request that has already `waited`. If the request's time runs out, the refresh
    /// continues, and its readings are saved when it ends.
    pub(super) async fn wait_for_refresh(
        self: &Arc<Self>,
        at: usize,
        request: &Request,
        waited: &mut Duration,
    ) -> Result<(), QuotaError> {
        let started_at = self.clock.instant();
        let left = self.policy.route_timeout.saturating_sub(*waited);
        let result = self.refresh_within(at, request.model(), left).await;
        *waited = waited.saturating_add(self.clock.instant().saturating_since(started_at));
        if let Err(QuotaError::InProgress { .. }) = result {
            self.refresh_in_background(at, false, request);
        }
        result
    }

    /// Whether the quota manager has no time left for a call. Deadlines never move, so this stays true.
    pub(super) fn is_out_of_time(&self) -> bool {
        self.out_of_time.load(Ordering::Relaxed)
    }

    fn can_serve(&self, at: usize, request: &Request) -> bool {
        let candidate = self.candidate(at, &self.slots[at], None);
        evaluate(&candidate, request, self.now(), &self.policy).eligibility != Eligibility::Ineligible
    }

    /// Reads the credentials of accounts on hold, because a hold does not apply to another login. Waits for them for at most the
    /// policy's `route_timeout`; then they are read in the background.
    async fn recheck_held_logins(self: &Arc<Self>, is_wanted: &impl Fn(Role) -> bool) {
        let now = self.now();
        let held = self.slots.iter().enumerate().filter(|(_, slot)| {
            !slot.disabled
                && is_wanted(slot.role)
                && slot.usage.is_stale()
                && slot.is_held()
                && slot.should_recheck_credential(slot.login_id().as_ref(), now)
                && slot.usage.has_credentials()
        });
        let held: Vec<usize> = held.map(|(at, _)| at).collect();
        let mut rechecks = Rechecks::default();
        rechecks.start(self, &held);
        let mut waited = Duration::ZERO;
        while self.wait_for_checks(&mut rechecks, Duration::MAX, &mut waited).await {}
    }

    /// Refreshes accounts for this request in the background, one at a time, and saves the readings. It skips accounts
    /// with a background refresh in progress.
    pub(super) fn refresh_sequentially(self: &Arc<Self>, indices: &[usize], request: &Request) {
        let guards: Vec<_> = indices.iter().filter_map(|at| self.start_refresh(*at)).collect();
        if guards.is_empty() {
            return;
        }
        let (inner, request) = (Arc::clone(self), request.clone());
        self.in_background(async move {
            for guard in guards {
                if inner.is_out_of_time() {
                    break;
                }
                if let Err(error) = inner.refresh_if_stale(guard.at, request.model()).await {
                    let account = &inner.slots[guard.at].id;
                    tracing::debug!(%account, %error, "refresh failed");
                }
            }
            inner.save_or_warn().await;
        });
    }

    /// Refreshes an account for this request in the background, and saves the readings. With `force` it refreshes fresh readings
    /// too.
    pub(super) fn refresh_in_background(self: &Arc<Self>, at: usize, force: bool, request: &Request) {
        if (!force && self.slots[at].is_refused()) || self.is_out_of_time() {
            return;
        }
        let Some(guard) = self.start_refresh(at) else { return };
        let request = request.clone();
        self.in_background(async move {
            let inner = &guard.inner;
            let slot = &inner.slots[at];
            let result = match force {
                true => slot.refresh().await,
                false => inner.refresh_if_stale(at, request.model()).await,
            };
            let Err(error) = result else {
                inner.save_or_warn().await;
                return;
            };
            tracing::debug!(account = %slot.id, %error, "refresh failed");
            // A failure may leave a hold, which must survive a restart. The save is delayed, because without a hold every
            // request starts a refresh that fails.
            inner.schedule_save();
        });
    }

    /// Marks an account as being refreshed in the background; `None` if it already is.
    fn start_refresh(self: &Arc<Self>, at: usize) -> Option<RefreshGuard> {
        let is_free = !self.slots[at].refreshing.swap(true, Ordering::AcqRel);
        is_free.then(|| RefreshGuard { inner: Arc::clone(self), at })
    }
}

/// The right to refresh an account in the background. Dropping it allows the next refresh, even after a panic or if the runtime
/// ends before the task starts.
struct RefreshGuard {
    inner: Arc<Inner>,
    at: usize,
}

impl Drop for RefreshGuard {
    fn drop(&mut self) {
        self.inner.slots[self.at].refreshing.store(false, Ordering::Release);
    }
}
