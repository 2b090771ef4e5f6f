//! Calls the provider and stores the report or the failure in the record.
//! `record` decides how a report or a failure changes the record.

use super::{Interruption, REREAD_TIMEOUT, Refresh};
use crate::manager::credential_reuse::Demand;
use crate::manager::entry::RecordEntry;
use crate::manager::error::QuotaError;
use crate::manager::events::{Event, rejected_values};
use crate::manager::in_flight::Stage;
use crate::manager::limiter::Permit;
use crate::manager::login_check::LoginCheck;
use crate::model::{AccountId, UsageReport};
use crate::provider::{Credential, FetchError, LONGEST_WAIT, UsageFetcher};
use crate::record::{CommitOutcome, FailOutcome, Hold, Lease, Record};
use crate::store::update::update_through;
use crate::store::{LoginAlias, Start};

/// The outcome of a successful call.
pub(super) enum CallOutcome {
    Stored,
    /// The report was not stored: another process took over the lease or may do so during the call, the record's owner
    /// changed, or the credential was read in the middle of a login switch.
    TooLate,
}

/// A lease during its call. If the call is dropped with its runtime, this process's next write releases the lease. Otherwise all
/// callers would wait until it expires.
struct LeaseInUse<'a> {
    record: &'a RecordEntry,
    lease: &'a Lease,
    has_ended: bool,
}

impl Drop for LeaseInUse<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.record.local().abandoned = Some(Box::new(self.lease.clone()));
        }
    }
}

impl Refresh {
    /// Calls the provider, and stores its report or its failure in the record.
    pub(super) async fn call(
        &self,
        fetcher: &dyn UsageFetcher,
        lease: &Lease,
        credential: &Credential,
        permit: Permit,
    ) -> Result<CallOutcome, QuotaError> {
        let mut in_use = LeaseInUse { record: &self.record, lease, has_ended: false };
        let outcome = self.call_once(fetcher, lease, credential, permit).await;
        in_use.has_ended = true;
        outcome
    }

    async fn call_once(
        &self,
        fetcher: &dyn UsageFetcher,
        lease: &Lease,
        credential: &Credential,
        mut permit: Permit,
    ) -> Result<CallOutcome, QuotaError> {
        let entry = &*self.entry;
        let account = || entry.id.clone();
        tracing::debug!(account = %entry.id, fence = lease.fence, "lease granted");
        if let Err(error) = self.may_call() {
            // Withdraw the call from the budget, because no request was sent.
            self.record.change_always(|record, _| record.withdraw(lease)).await;
            return Err(error);
        }
        let timeout = self.at_most(entry.provider.policy.fetch_timeout);
        let Some(timeout) = lease.call_timeout(entry.provider.store_client.now_estimate(), timeout) else {
            // This process was suspended, its clock was set, or the store was slow. During a call of the full length another process
            // could take over the lease and call too.
            tracing::debug!(account = %entry.id, fence = lease.fence, "too little of the lease is left, call withdrawn");
            self.record.change_always(|record, _| record.withdraw(lease)).await;
            return Ok(CallOutcome::TooLate);
        };
        let is_unsettled = entry.provider.credentials.is_unsettled(&entry.id);
        permit.mark_started();
        self.in_flight.set_stage(Stage::Calling);
        let fetch = async {
            let fetched = self.bounded(timeout, async { fetcher.fetch(&entry.id, credential).await }).await;
            match &fetched {
                Ok(Err(error)) => self.start_cooldown(error),
                Ok(Ok(UsageReport { throttled: Some(throttled), .. })) => {
                    self.start_cooldown(&FetchError::throttled(throttled.retry_after));
                }
                _ => {}
            }
            self.in_flight.set_stage(Stage::Called);
            fetched
        };
        // Run both concurrently, so that no caller waits for this.
        let (fetched, ()) = tokio::join!(fetch, self.confirm_alias());
        drop(permit);
        let fetched = match fetched {
            Ok(fetched) => fetched,
            // `may_call` left the provider at least two seconds, so this is the provider's timeout. Without a hold, a program that
            // runs repeatedly would call a hanging provider until the budget is used up.
            Err(Interruption::TimedOut) => Err(FetchError::TimedOut),
            Err(Interruption::Panicked) => {
                self.panicked(lease).await;
                return Err(QuotaError::Panicked { account: account() });
            }
            // The provider is not at fault, so no hold is armed. The call counts toward the budget, because the provider may have
            // received it.
            Err(Interruption::Cancelled) => {
                self.record.change_always(|record, _| record.release(lease)).await;
                return Err(QuotaError::Closed);
            }
        };
        if is_unsettled {
            let has_switched = self.has_switched(credential).await;
            if !matches!(has_switched, Ok(false)) {
                self.record.change_always(|record, _| record.release(lease)).await;
                if let Err(error) = &fetched {
                    // A hold would apply to a login that may not have failed.
                    self.publish_cooldown(self.cooldown_after(error)).await;
                }
                return has_switched.map(|_| CallOutcome::TooLate);
            }
        }
        let mut usage = match fetched {
            Ok(usage) => usage,
            Err(error) => return Err(self.failed(lease, error).await),
        };
        // The record belongs to this login, regardless of the response.
        usage.login_id = self.record.login().cloned().or(usage.login_id);
        if !usage.is_empty() {
            // An empty report stays empty: a plan from the credential alone would make it count as a success.
            usage.plan = usage.plan.or_else(|| credential.plan.clone());
        }
        let read_at = usage.observed_at.map_or(lease.granted_at, |at| at.min(lease.granted_at));
        let rejected = usage.reject_implausible(read_at);
        for account in self.record.accounts() {
            rejected_values(&self.context.events, &account.id, &rejected);
        }
        let policy = &entry.provider.policy;
        let commit = |record: &mut Record, now| record.commit_throttled(now, lease, &usage, policy);
        let committed = self.record.change_always(commit).await;
        if let Some(throttled) = usage.throttled {
            self.publish_cooldown(self.cooldown_after(&FetchError::throttled(throttled.retry_after))).await;
        }
        match committed {
            CommitOutcome::Empty => {
                Err(self.failed(lease, FetchError::malformed("the response contains no usage")).await)
            }
            CommitOutcome::Forgotten => Err(QuotaError::Forgotten { account: account() }),
            CommitOutcome::TooLate => {
                tracing::debug!(account = %entry.id, fence = lease.fence, "lease or owner changed during the call, report not stored");
                Ok(CallOutcome::TooLate)
            }
            _ => {
                self.emit(|account| Event::Refreshed { account });
                Ok(CallOutcome::Stored)
            }
        }
    }

    /// Whether the account's credential differs from that of this call, so that the report may belong to another login.
    ///
    /// A program that logs in writes several files in sequence. In between, the token of one login is stored with the
    /// name of the other. So a credential from files that were being written is read again before its report is stored.
    async fn has_switched(&self, credential: &Credential) -> Result<bool, QuotaError> {
        let check = LoginCheck::begin(&self.entry);
        // If the check fails, keep trusting the credential.
        let Ok(Some(current)) = self.credential(Demand::Current, REREAD_TIMEOUT).await else {
            return Ok(false);
        };
        if current.login == credential.login {
            return Ok(false);
        }
        // Ends the refresh if the account shows the record of another login now.
        self.access(Some(check), current).map(|_| true)
    }

    /// Starts the cooldown after a 429 in this process. Call this before the permit is released: otherwise the next call in the queue
    /// would begin while the failure is stored.
    fn start_cooldown(&self, error: &FetchError) {
        let cooldown = self.cooldown_after(error);
        if let (Some(cooldown), Some(shared_cooldown)) = (cooldown, &self.entry.provider.shared_cooldown) {
            shared_cooldown.start(&cooldown);
        }
    }

    /// The provider's cooldown after this failure, by the estimated time of the store.
    fn cooldown_after(&self, error: &FetchError) -> Option<Hold> {
        let provider = &self.entry.provider;
        Record::cooldown_after(provider.store_client.now_estimate(), error, &provider.policy)
    }

    /// Starts the provider's cooldown, and stores it.
    async fn publish_cooldown(&self, cooldown: Option<Hold>) {
        let provider = &self.entry.provider;
        if let (Some(cooldown), Some(shared_cooldown)) = (cooldown, &provider.shared_cooldown) {
            shared_cooldown.publish(&cooldown, provider.policy.record_ttl).await;
        }
    }

    /// Stores a failed call: arms the hold, starts the provider's cooldown and emits the event.
    async fn failed(&self, lease: &Lease, error: FetchError) -> QuotaError {
        let entry = &*self.entry;
        let policy = &entry.provider.policy;
        tracing::debug!(account = %entry.id, fence = lease.fence, %error, "fetch failed");
        let failed = self.record.change_always(|record, now| record.fail(now, lease, &error, policy)).await;
        let (hold, cooldown) = match failed {
            FailOutcome::Stored { hold, cooldown } => (hold, cooldown),
            // The record has another owner now. The provider's cooldown still applies to its other accounts.
            FailOutcome::TooLate => (None, self.cooldown_after(&error)),
        };
        if let Some(requested) = error.retry_after().filter(|requested| *requested > LONGEST_WAIT) {
            tracing::warn!(
                account = %entry.id,
                requested_s = requested.as_secs(),
                obeyed_s = LONGEST_WAIT.as_secs(),
                "provider requested a longer wait than the maximum",
            );
        }
        self.publish_cooldown(cooldown).await;
        self.emit(|account| Event::Failed { account, error: error.clone(), hold: hold.clone() });
        QuotaError::Fetch { account: entry.id.clone(), error }
    }

    /// Stores a call whose fetcher panicked. Emits the event if that arms a hold.
    async fn panicked(&self, lease: &Lease) {
        let policy = &self.entry.provider.policy;
        let panicked = self.record.change_always(|record, now| record.panicked(now, lease, policy)).await;
        if let FailOutcome::Stored { hold: hold @ Some(_), .. } = panicked {
            let error = Record::panic_failure();
            self.emit(|account| Event::Failed { account, error: error.clone(), hold: hold.clone() });
        }
    }

    /// Writes the login of this call to the account's alias if the alias differs, for readers without the credential.
    ///
    /// If this process stops before the write, the next refresh writes it. Until then such readers use the previous record.
    async fn confirm_alias(&self) {
        let entry = &*self.entry;
        let login = self.record.login();
        let ttl = entry.provider.policy.record_ttl;
        if !entry.state().claim_alias_check(entry.provider.clock.now_ms(), ttl / 4) {
            return;
        }
        let set = |alias: &mut LoginAlias, now| alias.set(login, now, ttl);
        let key = LoginAlias::key(&entry.id);
        let written = update_through(&entry.provider.store_client, &key, Start::Read, ttl, set).await;
        if let Err(error) = written {
            tracing::debug!(account = %entry.id, %error, "could not write which login the account holds");
            entry.state().require_alias_check();
        }
    }

    /// Emits an event for each account that shows the record.
    pub(super) fn emit(&self, event: impl Fn(AccountId) -> Event) {
        for account in self.record.accounts() {
            self.context.events.emit(event(account.id.clone()));
        }
    }
}
