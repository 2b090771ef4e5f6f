//! The call itself, and putting what it said, or what its failure means, where everybody sees it.
//! What an answer or a failure does to the record is decided in `record`.

use std::sync::Arc;

use super::{Cut, Refresh};
use crate::manager::error::QuotaError;
use crate::manager::events::{Event, rejected_values};
use crate::manager::gate::Pass;
use crate::manager::slot::Slot;
use crate::manager::view::{Caveats, View};
use crate::record::{CommitOutcome, FailOutcome};
use crate::{Credential, FetchError, LONGEST_WAIT, Lease, Record, Snapshot, UsageFetcher, UsageReport};

/// What became of a call that was answered.
pub(super) enum Called {
    Stored,
    TooLate(Box<UsageReport>),
}

/// A lease that is in use. If the call is dropped with its runtime, the next write of this process releases the lease: otherwise
/// all callers would wait until it expires.
struct LeaseInUse<'a> {
    slot: &'a Slot,
    lease: &'a Lease,
    has_ended: bool,
}

impl Drop for LeaseInUse<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.slot.desk().abandoned = Some(Box::new(self.lease.clone()));
        }
    }
}

impl Refresh {
    /// Asks the provider, and puts what it said, or what its failure means, into the record.
    pub(super) async fn call(
        &self,
        fetcher: &dyn UsageFetcher,
        lease: &Lease,
        credential: &Credential,
        pass: Pass,
    ) -> Result<Called, QuotaError> {
        let mut in_use = LeaseInUse { slot: &self.slot, lease, has_ended: false };
        let called = self.call_once(fetcher, lease, credential, pass).await;
        in_use.has_ended = true;
        called
    }

    async fn call_once(
        &self,
        fetcher: &dyn UsageFetcher,
        lease: &Lease,
        credential: &Credential,
        mut pass: Pass,
    ) -> Result<Called, QuotaError> {
        let slot = &*self.slot;
        let account = || slot.id.clone();
        tracing::debug!(account = %slot.id, fence = lease.fence, "lease granted");
        if let Err(cut) = self.may_call() {
            // No request was sent.
            slot.conclude(|record, _| record.withdraw(lease)).await;
            return Err(cut);
        }
        pass.call();
        let fetched = self.bounded(async { fetcher.fetch(&slot.id, credential).await }).await;
        drop(pass);
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
                slot.conclude(|record, _| record.release(lease)).await;
                return Err(self.cut_off(cut));
            }
        };
        usage.login_id = usage.login_id.or_else(|| credential.login.login_id.clone());
        usage.plan = usage.plan.or_else(|| credential.plan.clone());
        let read_at = usage.observed_at.map_or(lease.granted_at, |at| at.min(lease.granted_at));
        let rejected = usage.reject_implausible(read_at);
        rejected_values(&self.crew.events, &slot.id, &rejected);
        match slot.conclude(|record, now| record.commit(now, lease, &usage)).await {
            CommitOutcome::Empty => {
                Err(self.failed(lease, FetchError::malformed("it says nothing at all")).await)
            }
            CommitOutcome::Forgotten => Err(QuotaError::Forgotten { account: account() }),
            CommitOutcome::TooLate => {
                tracing::debug!(account = %slot.id, fence = lease.fence, "answer came too late, not stored");
                Ok(Called::TooLate(Box::new(usage)))
            }
            _ => {
                self.crew.events.tell(Event::Refreshed { account: account() });
                Ok(Called::Stored)
            }
        }
    }

    /// Draws the consequences of a failed call.
    async fn failed(&self, lease: &Lease, error: FetchError) -> QuotaError {
        let slot = &*self.slot;
        let policy = &slot.provider.policy;
        tracing::debug!(account = %slot.id, fence = lease.fence, %error, "fetch failed");
        let failed = slot.conclude(|record, now| record.fail(now, lease, &error, policy)).await;
        let (hold, cooldown) = match failed {
            FailOutcome::Stored { hold, cooldown } => (hold, cooldown),
            // The account is somebody else's by now, and its neighbours are to be quiet all the same.
            FailOutcome::TooLate => (None, Record::quiet_after(slot.provider.link.guess(), &error, policy)),
        };
        if let Some(requested) = error.retry_after().filter(|requested| *requested > LONGEST_WAIT) {
            tracing::warn!(
                account = %slot.id,
                requested_s = requested.as_secs(),
                obeyed_s = LONGEST_WAIT.as_secs(),
                "the provider asked for a longer wait than is obeyed",
            );
        }
        if let (Some(cooldown), Some(quieted)) = (cooldown, &slot.provider.quieted) {
            quieted.impose(&cooldown, policy.record_ttl).await;
        }
        self.crew.events.tell(Event::Failed { account: slot.id.clone(), error: error.clone(), hold });
        QuotaError::Fetch { account: slot.id.clone(), error }
    }

    /// The call's own numbers, for those who asked for them by their login.
    pub(super) fn apart(&self, lease: &Lease, usage: &UsageReport) -> Arc<View> {
        let mut record = Record::default();
        let login_id = usage.login_id.as_ref().or(self.flight.login_id.as_ref());
        let snapshot = Snapshot::of(usage, lease.granted_at);
        let _ = record.observe(lease.granted_at, &snapshot, login_id, usage.owner_id.as_ref());
        Arc::new(View::new(0, Arc::new(record), Arc::clone(&self.slot.provider), Caveats::default()))
    }
}
