//! Keeping the numbers of all accounts current: who is stale, and asking about them.
//! What is stale is told by the numbers themselves, never by what lies on disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quota_core::{AccountId, QuotaError};
use tokio::task::JoinSet;

use super::{FallbackAccountManager, Inner};
use crate::routing::{Choice, judge};
use crate::{Request, Role, Standing};

/// After how long a refresh no longer holds up that of the next account.
const SLOW_REFRESH: Duration = Duration::from_secs(2);
/// How many refreshes [`FallbackAccountManager::refresh_until_usable`] runs at once.
const MAX_REFRESHES: usize = 4;

/// What came of refreshing an account that was due.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RefreshReport {
    /// The account.
    pub account: AccountId,
    /// Why there are no fresh numbers; `None` if there are.
    pub error: Option<QuotaError>,
}

impl FallbackAccountManager {
    /// Refreshes every account whose numbers are stale and about which somebody may ask now, and keeps what comes of it.
    ///
    /// Accounts that are fresh, held or switched off cost nothing, and are not in the answer. Dropping the future gives up
    /// waiting; what was fetched by then is kept at the next occasion.
    pub async fn refresh_quota_for_due_accounts(&self) -> Vec<RefreshReport> {
        self.inner.load().await;
        self.refresh(|_| true).await
    }

    /// The fallbacks that may serve a request of which nothing is known: above every minimum, by fresh numbers where they
    /// can be had. In their order.
    pub async fn usable_fallback_accounts(&self) -> Vec<AccountId> {
        self.inner.load().await;
        let is_fallback = |role| role == Role::Fallback;
        self.refresh(is_fallback).await;
        let (inner, request) = (&self.inner, Request::new());
        let now = inner.now();
        let fallbacks = inner.members.iter().enumerate().filter(|(_, member)| is_fallback(member.role));
        let is_open = |candidate| judge(&candidate, &request, now, &inner.policy).standing == Standing::Open;
        let usable = fallbacks.filter(|(at, member)| is_open(inner.candidate(*at, member, None)));
        usable.map(|(_, member)| member.id.clone()).collect()
    }

    /// Refreshes the accounts that cannot serve this request only because their usage is unknown, in their order, until one
    /// can. Returns how many it refreshed, with or without success; none if an account can serve already.
    ///
    /// A [`route`](Self::route) waits for four refreshes at most, because a request waits for it. This is for programs that
    /// need an answer more than a fast one. A refresh that takes longer than two seconds no longer holds up the next one; at
    /// most four run at once. Accounts whose last refresh failed are left out. Once the quota manager has no time left for a
    /// call ([`QuotaError::DeadlineExceeded`]), no further account is tried. Dropping the future is safe.
    pub async fn refresh_until_usable(&self, request: &Request) -> usize {
        self.inner.load().await;
        self.inner.refresh_until_usable(request).await
    }

    async fn refresh(&self, is_wanted: impl Fn(Role) -> bool) -> Vec<RefreshReport> {
        let inner = &self.inner;
        inner.look_behind_holds(&is_wanted).await;
        let due = inner.members.iter().enumerate().filter(|(_, member)| {
            !member.disabled && is_wanted(member.role) && member.usage.is_stale() && !member.is_held()
        });
        let due: Vec<usize> = due.map(|(at, _)| at).collect();
        if due.is_empty() {
            return Vec::new();
        }
        let mut found = Vec::with_capacity(due.len());
        let mut calls = JoinSet::new();
        for at in due {
            if inner.calls_in_turn
                && let Some(done) = calls.join_next().await
            {
                found.extend(done.ok());
            }
            let inner = Arc::clone(inner);
            calls.spawn(async move { (at, inner.members[at].freshen_for(None).await) });
        }
        while let Some(done) = calls.join_next().await {
            // A call that broke has told so by its own means, and is due again.
            found.extend(done.ok());
        }
        inner.keep_or_tell().await;
        found.sort_unstable_by_key(|(at, _)| *at);
        let told = |(at, result): (usize, Result<(), QuotaError>)| RefreshReport {
            account: inner.members[at].id.clone(),
            error: result.err(),
        };
        found.into_iter().map(told).collect()
    }
}

impl Inner {
    async fn refresh_until_usable(self: &Arc<Self>, request: &Request) -> usize {
        let mut unknown = self.unknown(request).into_iter();
        let mut refreshes = JoinSet::new();
        let mut refreshed = 0;
        loop {
            if refreshes.len() < MAX_REFRESHES
                && !self.is_out_of_time()
                && let Some(at) = unknown.next()
            {
                let (inner, model) = (Arc::clone(self), request.model_name().map(str::to_owned));
                refreshes.spawn(async move { (at, inner.freshen(at, model.as_deref()).await) });
            }
            let may_start_another = refreshes.len() < MAX_REFRESHES && unknown.len() > 0;
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
            self.keep_soon();
        }
        refreshed
    }

    /// The accounts that are refused only because their usage is unknown and that may be refreshed; none if an account can serve.
    fn unknown(&self, request: &Request) -> Vec<usize> {
        let decision = self.decision(request, &[]);
        if !matches!(decision.choice(), Choice::Nobody { .. }) {
            return Vec::new();
        }
        let weighed = self.members.iter().zip(decision.weighed()).enumerate();
        let unknown = weighed.filter(|(_, (member, weighed))| {
            weighed.verdict().is_unknown()
                && member.usage.is_stale_for(request.model_name())
                && member.usage.peek().error().is_none()
                && !member.is_held()
        });
        unknown.map(|(at, _)| at).collect()
    }

    /// Makes an account's usage fresh for a request of `model`, if it is not.
    pub(super) async fn freshen(&self, at: usize, model: Option<&str>) -> Result<(), QuotaError> {
        let result = self.members[at].freshen_for(model).await;
        if let Err(QuotaError::DeadlineExceeded { .. }) = result {
            self.out_of_time.store(true, Ordering::Relaxed);
        }
        result
    }

    /// Whether the quota manager has no time left for a call. A deadline is never moved, so this stays true.
    pub(super) fn is_out_of_time(&self) -> bool {
        self.out_of_time.load(Ordering::Relaxed)
    }

    fn can_serve(&self, at: usize, request: &Request) -> bool {
        let candidate = self.candidate(at, &self.members[at], None);
        judge(&candidate, request, self.now(), &self.policy).standing != Standing::Refused
    }

    /// Looks whether accounts about which nobody may ask are another login's by now, to whom the hold does not apply, or
    /// those that only know of a new login if they are told.
    async fn look_behind_holds(self: &Arc<Self>, is_wanted: &impl Fn(Role) -> bool) {
        if self.credentials.is_none() {
            return;
        }
        let now = self.now();
        let held = self.members.iter().enumerate().filter(|(_, member)| {
            !member.disabled
                && is_wanted(member.role)
                && member.usage.is_stale()
                && (member.is_held() || member.is_told.load(Ordering::Acquire))
                && member.is_worth_a_look(now)
        });
        let held: Vec<usize> = held.map(|(at, _)| at).collect();
        self.look_at_credentials(&held).await;
    }

    /// Refreshes accounts for a request like this while no caller waits, one after the other, and keeps what comes of it. Those
    /// with a refresh in the background are left out.
    pub(super) fn refresh_in_turn(self: &Arc<Self>, places: &[usize], request: &Request) {
        let is_free = |at: &&usize| !self.members[**at].refreshing.swap(true, Ordering::AcqRel);
        let free = places.iter().filter(is_free);
        let claims: Vec<Claim> = free.map(|at| Claim { inner: Arc::clone(self), at: *at }).collect();
        if claims.is_empty() {
            return;
        }
        let (inner, request) = (Arc::clone(self), request.clone());
        self.in_background(async move {
            for claim in claims {
                if inner.is_out_of_time() {
                    break;
                }
                if let Err(error) = inner.freshen(claim.at, request.model_name()).await {
                    let account = &inner.members[claim.at].id;
                    tracing::debug!(%account, %error, "refresh brought nothing");
                }
            }
            inner.keep_or_tell().await;
        });
    }

    /// Refreshes an account for a request like this while no caller waits, and keeps what comes of it; with `insist` also
    /// where it is fresh.
    pub(super) fn refresh_in_background(self: &Arc<Self>, at: usize, insist: bool, request: &Request) {
        let member = &self.members[at];
        if (!insist && member.is_held())
            || self.is_out_of_time()
            || member.refreshing.swap(true, Ordering::AcqRel)
        {
            return;
        }
        // However it ends, even if the fetcher breaks or the runtime ends before it begins, the next one may begin.
        let claim = Claim { inner: Arc::clone(self), at };
        let request = request.clone();
        self.in_background(async move {
            let inner = &claim.inner;
            let member = &inner.members[at];
            let result = match insist {
                true => member.refresh().await,
                false => inner.freshen(at, request.model_name()).await,
            };
            let Err(error) = result else {
                inner.keep_or_tell().await;
                return;
            };
            tracing::debug!(account = %member.id, %error, "refresh brought nothing");
            // The hold that it left is kept: the next program must not ask before that ends either. Not at once, for where it
            // leaves none, each request has a refresh that fails.
            inner.keep_soon();
        });
    }
}

/// The right to refresh an account in the background, until it is dropped.
struct Claim {
    inner: Arc<Inner>,
    at: usize,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.inner.members[self.at].refreshing.store(false, Ordering::Release);
    }
}
