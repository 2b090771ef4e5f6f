//! Refreshes of an account: callers wait for the refresh that they share. `refresh` runs it; `account` has the reads
//! that need no refresh.

use std::sync::Arc;
use std::time::Duration;

use super::account::Account;
use super::account_usage::{AccountUsage, RefreshOutcome};
use super::credential_reuse::Demand;
use super::entry::RecordEntry;
use super::error::QuotaError;
use super::in_flight::{InFlight, RefreshRequest, RefreshResult, Refreshed, Stage};
use super::login_check;
use super::refresh::{self, Joined};
use crate::clock::Instant;
use crate::record::{HoldReason, Priority};

impl Account {
    /// Calls the provider now if the rules allow it, and returns whether it did.
    ///
    /// A call that is running at the request satisfies it, whether this or another process makes it, and whether it succeeds or fails.
    /// A call that has ended does not. If no refresh is possible, the outcome has the cached usage, and the reason in
    /// [`RefreshOutcome::error`]. If the caller drops the future, the refresh continues.
    ///
    /// # Errors
    ///
    /// [`QuotaError`] if there are no readings.
    pub async fn refresh(&self) -> Result<RefreshOutcome, QuotaError> {
        Box::pin(self.shared_refresh(RefreshRequest::NewCall)).await
    }

    /// Refreshes like [`refresh`](Self::refresh), unless any process that shares the store started a call with the same credential
    /// less than `interval` ago.
    ///
    /// Use it for commands and keys that a user may repeat, because each call counts toward the budget. The result is then the
    /// outcome of that call: [`RefreshOutcome::called_at`] is its start, and [`RefreshOutcome::error`] its failure. Readings that
    /// arrived without a call, such as headers, do not count. If the caller drops the future, the refresh continues.
    ///
    /// # Errors
    ///
    /// [`QuotaError`] if there are no readings.
    pub async fn refresh_unless_called_within(
        &self,
        interval: Duration,
    ) -> Result<RefreshOutcome, QuotaError> {
        Box::pin(self.shared_refresh(RefreshRequest::RecentCall(interval))).await
    }

    async fn shared_refresh(&self, request: RefreshRequest) -> Result<RefreshOutcome, QuotaError> {
        let refreshed = self.shared_refresh_until(request, None).await;
        refreshed.expect("a wait without a deadline ends with a result")
    }

    /// Waits for the refresh of all callers; `None` if it has not ended at `deadline`.
    pub(super) async fn shared_refresh_until(
        &self,
        request: RefreshRequest,
        deadline: Option<Instant>,
    ) -> Option<Result<RefreshOutcome, QuotaError>> {
        let mut tries = 0;
        let mut ended_fence = None;
        let mut successor = None;
        loop {
            tries += 1;
            let mut may_have_joined = false;
            let joined = match successor.take() {
                Some(successor) => successor,
                None => {
                    may_have_joined = self.check_before_joining(request).await;
                    let (ended, context) = (ended_fence.clone(), &self.shared.context);
                    refresh::join_after(&self.entry, request, Priority::Interactive, ended, context)
                }
            };
            let Joined { in_flight, record, stage } = joined;
            let is_covered = in_flight.request.covers(request);
            // The call of another process that this refresh waits for may have ended before this request.
            let may_be_late = match stage {
                Stage::Begun => !is_covered,
                Stage::Calling => false,
                Stage::Deciding | Stage::Called => true,
            };
            let may_read = ended_fence.is_none() && !self.entry.is_unchecked();
            let result = if request.needs_call() && may_be_late && may_read {
                // If the refresh has acquired the lease in the meantime, its own call satisfies this caller.
                let is_needless = || in_flight.stage() == Stage::Calling;
                // Boxed because few waiters read the record, and otherwise each waiter's future would reserve space for
                // it.
                let ended = Box::pin(record.read_ended_fence(is_needless));
                tokio::select! {
                    biased;
                    result = in_flight.wait() => result,
                    ended = ended => {
                        ended_fence = ended.map(|fence| (Arc::clone(&record), fence));
                        in_flight.wait().await
                    }
                }
            } else if let Some(deadline) = deadline {
                in_flight.wait_until(deadline, &self.entry.provider.clock).await?
            } else {
                in_flight.wait().await
            };
            let is_too_late = request.needs_call() && stage == Stage::Called;
            // A refresh that began for a less demanding caller, or earlier, may not satisfy this one.
            let is_enough = match result {
                // That refresh may have read the credential before the user fixed the login.
                Err(error) if may_have_joined && error.is_of_credential() => false,
                Ok(Refreshed { fetched: true, .. }) | Err(QuotaError::Fetch { .. }) => !is_too_late,
                Ok(_) | Err(QuotaError::CalledRecently { .. }) => {
                    is_covered && (stage == Stage::Begun || !request.needs_call())
                }
                Err(QuotaError::OnHold { hold, .. }) => hold.reason != HoldReason::BudgetExhausted,
                // A rejected credential stops a read, but not an explicit refresh.
                Err(QuotaError::CredentialRejected { .. }) => is_covered,
                // The refresh task ended with its runtime; the next attempt runs on this caller's runtime.
                Err(QuotaError::Closed) => self.shared.context.tasks.is_closed(),
                // The account shows another record now, or the refresh began with the credential of another account.
                Err(QuotaError::LoginChanged { .. }) => false,
                Err(_) => true,
            };
            if !is_enough && tries < MAX_REFRESH_ATTEMPTS {
                successor = self.successor_of(&in_flight);
                continue;
            }
            return Some(self.result(&record, result));
        }
    }

    /// Checks the login before an explicit refresh joins one that may be for the previous login, because only the credential source
    /// knows of a change. Returns whether there was one.
    async fn check_before_joining(&self, request: RefreshRequest) -> bool {
        let is_explicit = matches!(request, RefreshRequest::NewCall | RefreshRequest::RecentCall(_));
        let may_join = is_explicit && self.entry.record().local().in_flight.is_some();
        if may_join {
            // A failure is left to the refresh, which reports it.
            let check = login_check::check(&self.entry, Demand::Retry, &self.shared.context);
            let _ = Box::pin(check).await;
        }
        may_join
    }

    /// The refresh that continues `ended` with the login that the account holds now.
    fn successor_of(&self, ended: &InFlight) -> Option<Joined> {
        let successor = ended.successor()?;
        let record = self.entry.record();
        let is_current = *record.key() == successor.record_key;
        let in_flight = Arc::clone(&successor.in_flight);
        is_current.then_some(Joined { in_flight, record, stage: successor.stage })
    }

    fn result(
        &self,
        record: &Arc<RecordEntry>,
        result: &RefreshResult,
    ) -> Result<RefreshOutcome, QuotaError> {
        let view = self.view_handle.load();
        let same_login = self.entry.shows(record);
        match result {
            Ok(refreshed) => {
                let usage = if same_login {
                    AccountUsage::of(view)
                } else {
                    AccountUsage::from_view(Arc::clone(&refreshed.view))
                };
                Ok(RefreshOutcome {
                    usage,
                    fetched: refreshed.fetched,
                    error: None,
                    called_at: refreshed.called_at,
                })
            }
            Err(error) => {
                let error = error.for_account(&self.entry.id);
                let usage = AccountUsage::of(view);
                if usage.is_empty() || !same_login {
                    return Err(error);
                }
                let called_at = match &error {
                    QuotaError::CalledRecently { failure, .. } => Some(failure.at),
                    _ => None,
                };
                Ok(RefreshOutcome { usage, fetched: false, error: Some(error), called_at })
            }
        }
    }

    /// Starts a refresh if the readings are stale and a refresh may succeed, and returns at once.
    ///
    /// The refresh queues behind interactive ones, and does not use the budget's reserve.
    pub fn refresh_in_background(&self) {
        let view = self.view_handle.load();
        let now_ms = view.provider.clock.recent_ms();
        if view.is_fresh_at(now_ms) {
            return;
        }
        let is_refused = view.is_refused_at(now_ms, Priority::Background) && self.view_handle.is_followed();
        if !is_refused {
            let request = RefreshRequest::Age(self.entry.provider.policy.max_age);
            drop(refresh::join(&self.entry, request, Priority::Background, &self.shared.context));
        } else if view.is_check_due_at(now_ms) {
            self.check_credential(now_ms);
        }
    }
}

/// The maximum number of refreshes that one caller waits for.
const MAX_REFRESH_ATTEMPTS: u32 = 3;
