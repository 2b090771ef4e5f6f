//! Lists the fallback accounts that a request could use, with the same checks as a request.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::persistence::CONCURRENT_CHECKS;
use super::route::Attempt;
use super::scan::ChosenBy;
use super::{FallbackAccountManager, Inner};
use crate::Request;
use crate::routing::{Decision, Eligibility, Role, Verdict};

impl FallbackAccountManager {
    /// The fallback accounts above every minimum whose credential can be used, in order.
    pub(super) async fn usable_fallbacks(&self) -> BTreeSet<usize> {
        let (inner, request) = (&self.inner, Request::new());
        let mut attempt = Attempt::default();
        let mut usable = BTreeSet::new();
        // The accounts that hide a fallback with the same login, and whose credential can be used.
        let mut logged_in = BTreeSet::new();
        loop {
            let decision = inner.decision(&request, &attempt.unusable);
            let open = inner.eligible_fallbacks(&decision);
            // Reading a credential may have revealed another login, with which the account is no longer eligible.
            usable.retain(|at| open.contains(at));
            let hidden_by = inner.standing_before_fallbacks(&decision, &open);
            let unread = open.difference(&usable).chain(hidden_by.difference(&logged_in)).copied();
            let unread: BTreeSet<usize> = unread.filter(|at| !attempt.is_unusable(*at)).collect();
            if !unread.is_empty() {
                for (at, checked) in inner.check_credentials(&request, unread).await {
                    match checked {
                        Ok(()) if open.contains(&at) => drop(usable.insert(at)),
                        Ok(()) => drop(logged_in.insert(at)),
                        Err(verdict) => inner.reject(&mut attempt, at, verdict),
                    }
                }
            } else if inner.has_unread(&usable, &mut attempt)
                || inner.recheck_refused_fallbacks(&decision, &mut attempt).await
            {
                self.refresh(|role| role == Role::Fallback).await;
            } else {
                return usable;
            }
        }
    }
}

impl Inner {
    fn eligible_fallbacks(&self, decision: &Decision) -> BTreeSet<usize> {
        let evaluated = decision.accounts().iter().enumerate().filter(|(at, evaluated)| {
            evaluated.eligibility == Eligibility::Eligible && self.slots[*at].role == Role::Fallback
        });
        evaluated.map(|(at, _)| at).collect()
    }

    /// The accounts outside `open` that may serve, and that hide a fallback with the same login. An account without a
    /// usable credential hides none.
    fn standing_before_fallbacks(&self, decision: &Decision, open: &BTreeSet<usize>) -> BTreeSet<usize> {
        let evaluated = self.slots.iter().zip(decision.accounts());
        let hidden = evaluated.filter(|(slot, _)| slot.role == Role::Fallback);
        let standing = hidden.filter_map(|(_, evaluated)| evaluated.same_login_as.as_ref());
        let standing = standing.filter_map(|account| self.index_of.get(account).copied());
        let may_serve = |at: &usize| {
            let verdict = decision.accounts()[*at].verdict();
            verdict.eligibility != Eligibility::Ineligible || verdict.is_unknown()
        };
        standing.filter(|at| !open.contains(at) && may_serve(at)).collect()
    }

    /// Reads the credentials of these accounts as a request does, several at a time; see
    /// [`credential`](Self::credential).
    async fn check_credentials(
        self: &Arc<Self>,
        request: &Request,
        accounts: BTreeSet<usize>,
    ) -> Vec<(usize, Result<(), Option<Verdict>>)> {
        let accounts: Vec<usize> = accounts.into_iter().collect();
        let mut found = Vec::with_capacity(accounts.len());
        for chunk in accounts.chunks(CONCURRENT_CHECKS) {
            let mut checks = JoinSet::new();
            for at in chunk.iter().copied() {
                let chosen = ChosenBy { at: self.now(), login_id: self.slots[at].login_id() };
                let (inner, request) = (Arc::clone(self), request.clone());
                checks.spawn(async move {
                    let mut waited = Duration::ZERO;
                    (at, inner.credential(&request, at, &chosen, &mut waited).await.map(drop))
                });
            }
            found.extend(checks.join_all().await);
        }
        found
    }

    /// Whether one of these accounts must be refreshed because it has no readings. Each account is refreshed only once,
    /// because its login may keep changing.
    fn has_unread(&self, usable: &BTreeSet<usize>, attempt: &mut Attempt) -> bool {
        let is_unread = |at: &usize| {
            let slot = &self.slots[*at];
            slot.has_no_readings()
                && slot.usage.is_stale()
                && !slot.is_refused()
                && !attempt.refreshed.contains(at)
        };
        let unread: Vec<usize> = usable.iter().copied().filter(is_unread).collect();
        attempt.refreshed.extend(&unread);
        !unread.is_empty()
    }

    /// Checks whether ineligible accounts have a different credential now. Returns whether any has.
    async fn recheck_refused_fallbacks(self: &Arc<Self>, decision: &Decision, attempt: &mut Attempt) -> bool {
        let now = self.now();
        let evaluated = self.slots.iter().zip(decision.accounts()).enumerate();
        let refused = evaluated.filter(|(at, (slot, evaluated))| {
            slot.role == Role::Fallback
                && evaluated.eligibility == Eligibility::Ineligible
                && attempt.may_move(*at)
                && slot.should_recheck_credential_after(evaluated.reason, slot.login_id().as_ref(), now)
        });
        let refused: Vec<usize> = refused.map(|(at, _)| at).collect();
        attempt.moved.extend(&refused);
        if !refused.is_empty() {
            attempt.rechecks.start(self, &refused);
        }
        self.wait_for_checks(&mut attempt.rechecks, Duration::MAX, &mut attempt.waited).await
    }
}
