//! Reports the outcome of a route: the router observes usage, blocks rejected accounts, and advises the caller.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use quota_core::model::{LimitStatus, LoginId, plausible_reset};
use quota_core::provider::{ParsedResponse, Rejection, RejectionKind};
use quota_core::{AccountId, ProviderId, UsageReport};

use super::route::Route;
use super::{FallbackAccountManager, Inner};
use crate::RoutingPolicy;
use crate::outcome::{Consequence, RequestOutcome, RetryAdvice, classify};
use crate::routing::Block;

/// The consequence of an outcome for the request.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
#[non_exhaustive]
pub struct Classification {
    /// Why the provider rejected the request; `None` if it did not.
    pub failure: Option<Rejection>,
    /// Whether and where to retry.
    pub next: RetryAdvice,
}

/// Why a report was rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The route belongs to an account that this manager does not have.
    #[error("{account} is not an account of this manager")]
    #[non_exhaustive]
    UnknownAccount {
        /// The account of the route.
        account: AccountId,
    },
}

impl FallbackAccountManager {
    /// Reports the outcome of a route. The router observes the usage in the headers, and a rejection may block the account or one
    /// of its models.
    ///
    /// The manager may differ from that of the route, for example after a configuration change, if it has the account.
    ///
    /// A second report of the same route has no effect. If the future is dropped, changes that are not applied yet may be lost.
    ///
    /// # Errors
    ///
    /// [`ReportError`] if this manager does not have the account of the route.
    pub async fn report(
        &self,
        route: &Route,
        outcome: RequestOutcome,
    ) -> Result<Classification, ReportError> {
        let inner = &self.inner;
        // Look it up by name, because the account may have another index in a manager with a later configuration.
        let unknown = || ReportError::UnknownAccount { account: route.account.clone() };
        let at = inner.index_of.get(&route.account).copied().ok_or_else(unknown)?;
        let slot = &inner.slots[at];
        let now = inner.now();
        let received_at = outcome.received_or(now);
        let ParsedResponse { mut usage, mut failure, .. } =
            inner.parse(&outcome, slot.id.provider(), received_at);
        // Use the time of the response, so that a late report does not replace newer readings.
        let read_at = *usage.observed_at.get_or_insert(received_at);
        // Parsers are not trusted: a block must not last until an implausible reset.
        let _ = usage.reject_implausible(read_at);
        if let Some(failure) = &mut failure {
            failure.resets_at = failure.resets_at.and_then(|at| plausible_reset(at, None, received_at));
        }
        let login = route.credential.as_ref().map(|credential| &credential.login);
        let fingerprint = login.and_then(|login| login.fingerprint);
        let login_id = login.and_then(|login| login.login_id.clone());
        let classify = |failure: &Rejection| {
            classify(failure, outcome.status(), &route.request, fingerprint, received_at, &inner.policy)
        };
        let consequence = failure.as_ref().map(classify);
        let others = other_exhausted(failure.as_ref(), &usage);
        let other_blocks: Vec<Block> = others.filter_map(|failure| classify(&failure).block).collect();
        let elapsed = Duration::try_from(now.duration_since(received_at)).unwrap_or_default();
        let next = consequence.as_ref().map_or(RetryAdvice::Done, |found| found.next.later(elapsed));
        let mut report = Classification { failure, next };
        if route.is_reported.swap(true, Ordering::AcqRel) {
            return Ok(report);
        }
        if !usage.windows.is_empty() || usage.owner_id.is_some() {
            // Late headers of an old login name that login, and are rejected.
            usage.login_id.clone_from(&login_id);
            if slot.usage.observe(&usage).is_err() {
                tracing::debug!(account = %slot.id, "the observed usage belongs to another login");
            }
            inner.schedule_save();
        }
        if let Some(reservation) = &route.reservation {
            // Release it after the observation. Otherwise there would be a gap in which neither the estimate nor the
            // real usage counts.
            inner.release(reservation);
        }
        if let Some(Consequence { block, .. }) = consequence {
            let is_login =
                report.failure.as_ref().is_some_and(|failure| failure.kind == RejectionKind::Unauthorized);
            let has_another = is_login && inner.has_another_credential(at, route).await;
            if has_another && slot.may_try_another(fingerprint) {
                report.next = RetryAdvice::SameAccount;
            } else {
                // If the source returns another credential each time, a change of credential must not end the block.
                let block = block.map(|block| match has_another {
                    true => for_any_credential(block, &inner.policy),
                    false => block,
                });
                // Without a credential, the block belongs to the login of the readings.
                let login_id = login_id.or_else(|| slot.login_id());
                let blocks: Vec<_> = block.into_iter().chain(other_blocks).collect();
                let is_blocked = !blocks.is_empty();
                for block in blocks {
                    tracing::debug!(account = %slot.id, kind = block.kind.as_str(), "account blocked");
                    slot.block(block.login_id(login_id.clone()), now);
                    inner.mark_blocked(at);
                }
                if is_blocked {
                    inner.save_now().await;
                }
            }
        } else if outcome.status().is_some()
            && inner.clear_rejections(at, login_id.or_else(|| slot.login_id()).as_ref(), received_at)
        {
            inner.schedule_save();
        }
        if slot.usage.needs_refresh(slot.usage.count_request()) {
            inner.refresh_in_background(at, !slot.usage.is_stale(), &route.request);
        }
        Ok(report)
    }
}

/// The other windows that the response reports as exhausted. Each is blocked until its own reset.
fn other_exhausted(failure: Option<&Rejection>, usage: &UsageReport) -> impl Iterator<Item = Rejection> {
    let main = failure.filter(|failure| failure.kind == RejectionKind::QuotaExhausted);
    let statuses =
        main.into_iter().flat_map(|main| usage.window_statuses.iter().map(move |status| (main, status)));
    statuses
        .filter(|(main, status)| {
            status.status == LimitStatus::Rejected && main.window.as_ref() != Some(&status.window)
        })
        .map(|(_, status)| {
            let failure = Rejection::new(RejectionKind::QuotaExhausted).window(status.window.clone());
            failure.scope(status.scope.clone()).resets_at(status.resets_at)
        })
}

/// The same block, but for every credential and therefore for a limited time.
fn for_any_credential(block: Block, policy: &RoutingPolicy) -> Block {
    let until = block.since.checked_add(policy.forbidden_cooldown).unwrap_or(Timestamp::MAX);
    block.fingerprint(None).until(until)
}

impl Inner {
    /// Clears the rejections before `served_at` of the login that served a request as the account at `at`. The account
    /// may have left the login since. Returns whether there were any.
    fn clear_rejections(&self, at: usize, login: Option<&LoginId>, served_at: Timestamp) -> bool {
        self.slots[at].credential_accepted();
        let has_cleared = self.slots[at].clear_rejections(login, served_at, |_| true);
        let others = login.map(|login| self.other_blocked(at, login)).unwrap_or_default();
        // The other accounts may have credentials that are still rejected.
        others.into_iter().fold(has_cleared, |has_cleared, other| {
            let is_cleared = |block: &Block| block.fingerprint.is_none() && block.login_id.as_ref() == login;
            self.slots[other].clear_rejections(login, served_at, is_cleared) || has_cleared
        })
    }

    /// Parses a response. If the parser panics, only the status and the requested wait count.
    fn parse(&self, outcome: &RequestOutcome, provider: &ProviderId, now: Timestamp) -> ParsedResponse {
        let parser = self.parsers.get(provider).map(|parser| &**parser);
        catch_unwind(AssertUnwindSafe(|| outcome.parse(parser, now))).unwrap_or_else(|_| {
            if self.panicked.lock().insert((provider.clone(), outcome.status())) {
                tracing::warn!(%provider, status = ?outcome.status(), "the response parser panicked, only the status counts");
            }
            outcome.parse(None, now)
        })
    }

    /// Whether the account has a credential other than the rejected one, or its source can renew it.
    async fn has_another_credential(&self, at: usize, route: &Route) -> bool {
        let Some(used) = &route.credential else { return false };
        let usage = &self.slots[at].usage;
        let renewed = usage.renew_credential(used.login.fingerprint, self.policy.credential_timeout).await;
        let Ok(Some(renewed)) = renewed else { return false };
        renewed.login.fingerprint.is_some() && renewed.login.fingerprint != used.login.fingerprint
    }
}
