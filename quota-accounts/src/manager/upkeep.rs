//! Keeping the numbers of all accounts current: who is stale, and asking about them.
//! What is stale is told by the numbers themselves, never by what lies on disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use quota_core::{AccountId, QuotaError};
use tokio::task::JoinSet;

use super::{FallbackAccountManager, Inner};
use crate::routing::judge;
use crate::{Request, Role, Standing};

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
                let member = &inner.members[claim.at];
                if let Err(error) = member.freshen_for(request.model_name()).await {
                    tracing::debug!(account = %member.id, %error, "refresh brought nothing");
                }
            }
            inner.keep_or_tell().await;
        });
    }

    /// Refreshes an account for a request like this while no caller waits, and keeps what comes of it; with `insist` also
    /// where it is fresh.
    pub(super) fn refresh_in_background(self: &Arc<Self>, at: usize, insist: bool, request: &Request) {
        let member = &self.members[at];
        if (!insist && member.is_held()) || member.refreshing.swap(true, Ordering::AcqRel) {
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
                false => member.freshen_for(request.model_name()).await,
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
