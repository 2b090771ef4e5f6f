//! The call to the provider, and storing its report or its failure in the record.
//! What a report or a failure does to the record is decided in `record`.

use std::sync::Arc;

use super::{Cut, Refresh};
use crate::manager::entry::AccountEntry;
use crate::manager::error::QuotaError;
use crate::manager::events::{Event, rejected_values};
use crate::manager::limiter::Permit;
use crate::manager::view::{View, ViewFlags};
use crate::model::{Snapshot, UsageReport};
use crate::provider::{Credential, FetchError, LONGEST_WAIT, UsageFetcher};
use crate::record::{CommitOutcome, FailOutcome, Lease, Record};

/// What became of a call that was answered.
pub(super) enum CallOutcome {
    Stored,
    TooLate(Box<UsageReport>),
}

/// A lease that is in use. If the call is dropped with its runtime, the next write of this process releases the lease: otherwise
/// all callers would wait until it expires.
struct LeaseInUse<'a> {
    entry: &'a AccountEntry,
    lease: &'a Lease,
    has_ended: bool,
}

impl Drop for LeaseInUse<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.entry.local().abandoned = Some(Box::new(self.lease.clone()));
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
        let mut in_use = LeaseInUse { entry: &self.entry, lease, has_ended: false };
        let called = self.call_once(fetcher, lease, credential, permit).await;
        in_use.has_ended = true;
        called
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
        if let Err(cut) = self.may_call() {
            // No request was sent.
            entry.change_always(|record, _| record.withdraw(lease)).await;
            return Err(cut);
        }
        permit.mark_started();
        let fetched = self.bounded(async { fetcher.fetch(&entry.id, credential).await }).await;
        drop(permit);
        let mut usage = match fetched {
            Ok(Ok(usage)) => usage,
            Ok(Err(error)) => return Err(self.failed(lease, error).await),
            // `may_call` left the provider at least two seconds. Without a hold, a program that is run again and again would
            // call a provider that hangs until the budget is spent.
            Err(Cut::TimedOut | Cut::DeadlineExceeded) => {
                return Err(self.failed(lease, FetchError::TimedOut).await);
            }
            // Neither is the provider's fault, so no hold follows. The call counts: the provider may have received it.
            Err(cut @ (Cut::Cancelled | Cut::Panicked)) => {
                entry.change_always(|record, _| record.release(lease)).await;
                return Err(self.cut_off(cut));
            }
        };
        usage.login_id = usage.login_id.or_else(|| credential.login.login_id.clone());
        if !usage.is_empty() {
            // A plan of the credential alone would make an empty report a successful one.
            usage.plan = usage.plan.or_else(|| credential.plan.clone());
        }
        let read_at = usage.observed_at.map_or(lease.granted_at, |at| at.min(lease.granted_at));
        let rejected = usage.reject_implausible(read_at);
        rejected_values(&self.context.events, &entry.id, &rejected);
        match entry.change_always(|record, now| record.commit(now, lease, &usage)).await {
            CommitOutcome::Empty => {
                Err(self.failed(lease, FetchError::malformed("it says nothing at all")).await)
            }
            CommitOutcome::Forgotten => Err(QuotaError::Forgotten { account: account() }),
            CommitOutcome::TooLate => {
                tracing::debug!(account = %entry.id, fence = lease.fence, "answer came too late, not stored");
                Ok(CallOutcome::TooLate(Box::new(usage)))
            }
            _ => {
                self.context.events.emit(Event::Refreshed { account: account() });
                Ok(CallOutcome::Stored)
            }
        }
    }

    /// Draws the consequences of a failed call.
    async fn failed(&self, lease: &Lease, error: FetchError) -> QuotaError {
        let entry = &*self.entry;
        let policy = &entry.provider.policy;
        tracing::debug!(account = %entry.id, fence = lease.fence, %error, "fetch failed");
        let failed = entry.change_always(|record, now| record.fail(now, lease, &error, policy)).await;
        let (hold, cooldown) = match failed {
            FailOutcome::Stored { hold, cooldown } => (hold, cooldown),
            // Another login holds the account by now. The provider's cooldown still applies to its other accounts.
            FailOutcome::TooLate => {
                (None, Record::quiet_after(entry.provider.store_client.now_estimate(), &error, policy))
            }
        };
        if let Some(requested) = error.retry_after().filter(|requested| *requested > LONGEST_WAIT) {
            tracing::warn!(
                account = %entry.id,
                requested_s = requested.as_secs(),
                obeyed_s = LONGEST_WAIT.as_secs(),
                "the provider asked for a longer wait than is obeyed",
            );
        }
        if let (Some(cooldown), Some(shared_cooldown)) = (cooldown, &entry.provider.shared_cooldown) {
            shared_cooldown.publish(&cooldown, policy.record_ttl).await;
        }
        self.context.events.emit(Event::Failed { account: entry.id.clone(), error: error.clone(), hold });
        QuotaError::Fetch { account: entry.id.clone(), error }
    }

    /// The call's own numbers, for those who asked for them by their login.
    pub(super) fn orphan_view(&self, lease: &Lease, usage: &UsageReport) -> Arc<View> {
        let mut record = Record::default();
        let login_id = usage.login_id.as_ref().or(self.in_flight.login_id.as_ref());
        let snapshot = Snapshot::of(usage, lease.granted_at);
        let _ = record.observe(lease.granted_at, &snapshot, login_id, usage.owner_id.as_ref());
        Arc::new(View::new(0, Arc::new(record), Arc::clone(&self.entry.provider), ViewFlags::default()))
    }
}
