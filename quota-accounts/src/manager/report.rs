//! Reporting the outcome of a route: usage is observed, failures become blocks, and the caller gets advice.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use quota_core::model::{LimitStatus, plausible_reset};
use quota_core::provider::{ParsedResponse, Rejection, RejectionKind};
use quota_core::{AccountId, ProviderId};

use super::route::Route;
use super::{FallbackAccountManager, Inner};
use crate::RoutingPolicy;
use crate::outcome::{RequestOutcome, RetryAdvice, classify};
use crate::routing::Block;

/// What an outcome means for the request.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
#[non_exhaustive]
pub struct Classification {
    /// Why the provider rejected the request; `None` if it did not.
    pub failure: Option<Rejection>,
    /// What to do about it.
    pub next: RetryAdvice,
}

/// Why a report was rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The route belongs to another manager.
    #[error("{account} is not an account of this manager")]
    #[non_exhaustive]
    UnknownAccount {
        /// The account of the route.
        account: AccountId,
    },
}

impl FallbackAccountManager {
    /// Reports the outcome of a route. The manager observes usage in the headers. A rejection blocks the account, or
    /// one model of it, for as long as it lasts.
    ///
    /// A second report for the same route has no effect. Dropping the future may lose changes that are not applied yet.
    ///
    /// # Errors
    ///
    /// [`ReportError`] if the route belongs to another manager.
    pub async fn report(
        &self,
        route: &Route,
        outcome: RequestOutcome,
    ) -> Result<Classification, ReportError> {
        let inner = &self.inner;
        let slot = inner.slots.get(route.index).filter(|slot| slot.id == route.account);
        let unknown = || ReportError::UnknownAccount { account: route.account.clone() };
        let slot = slot.ok_or_else(unknown)?;
        let now = inner.now();
        let answered = outcome.received_or(now);
        let mut seen = inner.parse(&outcome, slot.id.provider(), answered);
        // Use the time of the response, so that a late report does not replace newer readings.
        let read_at = *seen.usage.observed_at.get_or_insert(answered);
        // Parsers are not trusted: a block must not last until an implausible reset.
        let _ = seen.usage.reject_implausible(read_at);
        if let Some(failure) = &mut seen.failure {
            failure.resets_at = failure.resets_at.and_then(|at| plausible_reset(at, None, answered));
        }
        let fingerprint = route.credential.as_ref().and_then(|credential| credential.login.fingerprint);
        let found = seen.failure.as_ref().map(|failure| {
            classify(failure, outcome.status(), &route.request, fingerprint, answered, &inner.policy)
        });
        let others: Vec<Block> = other_spent(&seen)
            .filter_map(|failure| {
                classify(&failure, outcome.status(), &route.request, fingerprint, answered, &inner.policy)
                    .block
            })
            .collect();
        let elapsed = Duration::try_from(now.duration_since(answered)).unwrap_or_default();
        let next = found.as_ref().map_or(RetryAdvice::Done, |found| found.next.later(elapsed));
        let mut report = Classification { failure: seen.failure, next };
        if route.is_reported.swap(true, Ordering::AcqRel) {
            return Ok(report);
        }
        if !seen.usage.windows.is_empty() || seen.usage.owner_id.is_some() {
            // Late headers of an old login state that login, and are rejected.
            seen.usage.login_id =
                route.credential.as_ref().and_then(|credential| credential.login.login_id.clone());
            if slot.usage.observe(&seen.usage).is_err() {
                tracing::debug!(account = %slot.id, "the observed usage belongs to another login");
            }
            inner.schedule_save();
        }
        if let Some(id) = route.reservation {
            // After the observation: otherwise neither the estimate nor the real use would count for a moment.
            inner.release(route.index, id);
        }
        if let Some(found) = found {
            let is_login =
                report.failure.as_ref().is_some_and(|failure| failure.kind == RejectionKind::Unauthorized);
            let has_another = is_login && inner.has_another_credential(route).await;
            if has_another && slot.may_try_another(fingerprint) {
                report.next = RetryAdvice::SameAccount;
            } else {
                // A source that returns another credential each time has none that could end the block.
                let block =
                    found.block.map(|block| if has_another { unmarked(block, &inner.policy) } else { block });
                // Without a credential the login is that of the readings.
                let login =
                    route.credential.as_ref().and_then(|credential| credential.login.login_id.clone());
                let login_id = login.or_else(|| slot.login_id());
                let blocks: Vec<_> = block.into_iter().chain(others).collect();
                let is_blocked = !blocks.is_empty();
                for block in blocks {
                    tracing::debug!(account = %slot.id, kind = block.kind.as_str(), "account blocked");
                    slot.block(block.login_id(login_id.clone()), now);
                }
                if is_blocked {
                    inner.save_now().await;
                }
            }
        } else if outcome.status().is_some() && slot.clear_rejections(answered) {
            inner.schedule_save();
        }
        if slot.usage.needs_refresh(slot.usage.count_request()) {
            inner.refresh_in_background(route.index, !slot.usage.is_stale(), &route.request);
        }
        Ok(report)
    }
}

/// The other windows that the response reports as exhausted. Each is blocked until its own reset.
fn other_spent(seen: &ParsedResponse) -> impl Iterator<Item = Rejection> {
    let main = seen.failure.as_ref().filter(|failure| failure.kind == RejectionKind::QuotaExhausted);
    let verdicts = main.into_iter().flat_map(|_| &seen.usage.window_statuses);
    verdicts
        .filter(move |verdict| {
            verdict.status == LimitStatus::Rejected
                && main.is_some_and(|main| main.window.as_ref() != Some(&verdict.window))
        })
        .map(|verdict| {
            let failure = Rejection::new(RejectionKind::QuotaExhausted).window(verdict.window.clone());
            failure.scope(verdict.scope.clone()).resets_at(verdict.resets_at)
        })
}

/// The same for every credential.
fn unmarked(block: Block, policy: &RoutingPolicy) -> Block {
    let until = block.since.checked_add(policy.forbidden_cooldown).unwrap_or(Timestamp::MAX);
    block.fingerprint(None).until(until)
}

impl Inner {
    /// Parses a response. If the parser panics, only the status counts, and that is logged once per status.
    fn parse(&self, outcome: &RequestOutcome, provider: &ProviderId, now: Timestamp) -> ParsedResponse {
        let parser = self.parsers.get(provider).map(|parser| &**parser);
        catch_unwind(AssertUnwindSafe(|| outcome.parse(parser, now))).unwrap_or_else(|_| {
            if self.panicked.lock().insert((provider.clone(), outcome.status())) {
                tracing::warn!(%provider, status = ?outcome.status(), "the response parser panicked, only the status counts");
            }
            outcome.parse(None, now)
        })
    }

    /// Whether the account has another credential than the one that was refused, or can be given one.
    async fn has_another_credential(&self, route: &Route) -> bool {
        let Some(used) = &route.credential else { return false };
        let Ok(Some(now)) = self.renewed(&self.slots[route.index], used.login.fingerprint).await else {
            return false;
        };
        now.login.fingerprint.is_some() && now.login.fingerprint != used.login.fingerprint
    }
}
