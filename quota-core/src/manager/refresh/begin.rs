//! Acquires the limiter's permit and the lease, and waits for their holders.
//! `record` decides whether to grant the lease; `call` uses it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{Access, Refresh};
use crate::clock::Instant;
use crate::manager::error::QuotaError;
use crate::manager::events::Event;
use crate::manager::in_flight::{RefreshRequest, Stage};
use crate::manager::limiter::Permit;
use crate::manager::state::SyncState;
use crate::manager::sync::Origin;
use crate::model::RequestId;
use crate::record::{Lease, LeaseDecision, LeaseRequest, RecentCall, Record};
use crate::store::Notice;
use crate::time;

/// The lease with its permit, or the reason why no call is necessary.
pub(super) enum LeaseAcquired {
    Granted(Lease, Permit),
    /// The readings satisfy the request.
    Fresh,
    /// A recent call satisfies the request. It started at this time and succeeded.
    CallOutcome(Timestamp),
}

impl Refresh {
    /// Acquires a permit and the lease. Every wait for another holder is bounded.
    ///
    /// `ended_fence` is set from the first record that the store returns, so that a call which ended before the request does not
    /// satisfy it. Reads the credential again into `access` before it requests the lease, if the previous read is too old.
    pub(super) async fn begin(
        &self,
        request: RefreshRequest,
        ended_fence: &mut Option<u64>,
        access: &mut Access,
    ) -> Result<LeaseAcquired, QuotaError> {
        let (entry, record) = (&*self.entry, &*self.record);
        let policy = &entry.provider.policy;
        let account = || entry.id.clone();
        let request_id = RequestId::random();
        let max_wait = policy.lease_ttl().saturating_add(policy.fetch_timeout);
        if self.in_flight.stage() != Stage::Begun {
            self.in_flight.set_stage(Stage::Deciding);
        }
        record.repair_clock().await;
        let mut holder = HolderTimer::default();
        let mut is_synced = !record.may_assume_absent();
        let mut permit = None;
        let mut announced = None;
        // Only a request for a call must read the store before it waits. Otherwise it would not know whether a call that it finds
        // afterwards has ended before the request.
        let mut must_read = request.needs_call() && ended_fence.is_none();
        let max_staleness = request.max_staleness(&entry.provider.store_client);
        loop {
            if self.is_superseded() {
                return Err(QuotaError::LoginChanged { account: account() });
            }
            let mut decide = |record: &mut Record, now: Timestamp, origin: Origin| {
                if origin == Origin::Store {
                    ended_fence.get_or_insert_with(|| record.ended_fence(now));
                }
                let lease_request = LeaseRequest::new(request_id, max_staleness)
                    .after_fence(ended_fence.filter(|_| request.needs_call()))
                    .login(access.login.clone())
                    .priority(self.in_flight.priority())
                    .by(Arc::clone(&self.context.process_name))
                    .cooldown(entry.provider.cooldown_at(now));
                record.begin(now, &lease_request, policy)
            };
            // Read the state before the decision, so that a later change of the record ends the wait below.
            let last_state = record.local().sync_state;
            // Decide on the local record first, without a permit or a store access, because often no call is necessary.
            let decision = if permit.is_none() {
                record.dry_run(|record, now| decide(record, now, Origin::Copy))
            } else {
                self.in_flight.set_stage(Stage::Deciding);
                let granted = record.change_for_call(request.needs_call(), decide).await;
                granted.map_err(|error| QuotaError::Store { account: account(), error })?
            };
            // Drop an unused permit before waiting on another lease holder.
            let unused = permit.take();
            let decision = match (decision, unused) {
                (LeaseDecision::Granted(lease), Some(permit)) => {
                    return Ok(LeaseAcquired::Granted(lease, permit));
                }
                (decision, _unused) => decision,
            };
            match decision {
                LeaseDecision::Granted(_) => {
                    self.may_call()?;
                    permit = self.acquire_permit(is_synced && !must_read).await?;
                    if permit.is_some() {
                        self.or_closed(self.reread_access(access)).await??;
                        self.may_call()?;
                    } else if must_read {
                        (must_read, is_synced) = (false, true);
                        *ended_fence = self.read_ended_fence().await?;
                    } else {
                        is_synced = true;
                        record.ensure_synced().await;
                    }
                }
                LeaseDecision::NotNeeded => return Ok(LeaseAcquired::Fresh),
                LeaseDecision::CalledRecently(RecentCall { at, failure: None, .. }) => {
                    return Ok(LeaseAcquired::CallOutcome(at));
                }
                LeaseDecision::CalledRecently(RecentCall { failure: Some(failure), .. }) => {
                    return Err(QuotaError::CalledRecently { account: account(), failure });
                }
                LeaseDecision::OnHold(hold) => return Err(QuotaError::OnHold { account: account(), hold }),
                LeaseDecision::CredentialRejected(failure) => {
                    // Another process may have called with it.
                    entry.provider.credentials.reject(&entry.id, access.login.fingerprint);
                    return Err(QuotaError::CredentialRejected { account: account(), failure });
                }
                LeaseDecision::UnsupportedFormat => {
                    return Err(QuotaError::UnsupportedFormat { account: account() });
                }
                LeaseDecision::InProgress { until, fence } => {
                    let waited = holder.waited_for(fence, entry.provider.clock.instant());
                    // Without the store, the holder's outcome would not arrive.
                    if waited >= max_wait
                        || entry.provider.store_client.is_unavailable()
                        || record.local().is_standalone()
                    {
                        return Err(QuotaError::InProgress { account: account() });
                    }
                    if must_read && ended_fence.is_none() {
                        must_read = false;
                        *ended_fence = self.read_ended_fence().await?;
                        continue;
                    }
                    let max_wait = max_wait - waited;
                    let left = self.time_left().unwrap_or(max_wait).min(max_wait);
                    if left.is_zero() {
                        return Err(QuotaError::InProgress { account: account() });
                    }
                    if announced.replace(until) != Some(until) {
                        let until =
                            until.min(time::saturating_add(entry.provider.store_client.now_estimate(), left));
                        self.emit(|account| Event::Waiting { account, until });
                    }
                    let wait = self.wait_for_holder(last_state, until, max_wait);
                    let _ = self.or_closed(entry.provider.clock.bounded(left, wait)).await?;
                }
            }
        }
    }

    /// Reads the record before a wait; `None` if the store is unavailable. Callers that join from now on read it themselves.
    async fn read_ended_fence(&self) -> Result<Option<u64>, QuotaError> {
        self.in_flight.set_stage(Stage::Deciding);
        self.or_closed(self.record.read_ended_fence(|| false)).await
    }

    /// Acquires a permit. `None` if none is free and the refresh may not wait: it must read the record first, which may make the
    /// call unnecessary.
    async fn acquire_permit(&self, may_wait: bool) -> Result<Option<Permit>, QuotaError> {
        let ticket = self.in_flight.enqueue(&self.entry.provider.limiter);
        let permit = async {
            match ticket.try_acquire() {
                None if may_wait => Ok(Some(self.while_time_is_left(ticket.acquire()).await?)),
                immediate => Ok(immediate),
            }
        };
        self.or_closed(permit).await?
    }

    /// Checks that enough time is left for a call and that the manager is not closing.
    pub(super) fn may_call(&self) -> Result<(), QuotaError> {
        if self.context.tasks.is_closed() {
            return Err(QuotaError::Closed);
        }
        match self.time_left() {
            Some(left) if left < SHORTEST_CALL => Err(self.out_of_time()),
            _ => Ok(()),
        }
    }

    /// Awaits `wait`, but only while enough time is left for a call after it.
    async fn while_time_is_left<T>(&self, wait: impl Future<Output = T>) -> Result<T, QuotaError> {
        let Some(left) = self.time_left() else { return Ok(wait.await) };
        let done = self.entry.provider.clock.bounded(left.saturating_sub(SHORTEST_CALL), wait).await;
        done.ok_or_else(|| self.out_of_time())
    }

    fn out_of_time(&self) -> QuotaError {
        QuotaError::DeadlineExceeded { account: self.entry.id.clone() }
    }

    /// Awaits `wait`, but only until the manager closes, so that no new step starts afterwards.
    async fn or_closed<T>(&self, wait: impl Future<Output = T>) -> Result<T, QuotaError> {
        self.context.tasks.until_closing(wait).await.ok_or(QuotaError::Closed)
    }

    /// Waits until the record changes from `last_state`, the holder's lease expires at `until`, or `max_wait` is over.
    ///
    /// Also returns if the store becomes unavailable, because then no notice arrives.
    async fn wait_for_holder(&self, last_state: SyncState, until: Timestamp, max_wait: Duration) {
        let record = &*self.record;
        let (store_client, clock) = (&record.provider.store_client, &record.provider.clock);
        if record.local().sync_state != last_state {
            return;
        }
        let mut seen = last_state.version();
        loop {
            let left = time::elapsed(store_client.now_estimate(), until).min(max_wait).max(SHORTEST_WAIT);
            let change = clock.bounded(left, store_client.wait_for_change(record.key(), seen));
            let notice = tokio::select! {
                biased;
                () = store_client.wait_unavailable() => return,
                notice = change => notice,
            };
            let (notice, has_failed) = match notice {
                Some(Ok(notice)) => (notice, false),
                // The lease has ended.
                None => (Notice::default(), false),
                Some(Err(_)) => (Notice::default(), true),
            };
            let late =
                if notice.is_unchanged { seen } else { record.sync_by_notice(last_state, &notice).await };
            let has_changed = record.local().sync_state != last_state;
            if late.is_some() && !has_changed {
                seen = late;
                // Prevent a busy loop if all of the store's notices are late.
                clock.sleep(SHORTEST_WAIT).await;
                continue;
            }
            if has_failed || !has_changed {
                // The store sends no notices, or this one was spurious, so poll.
                clock.sleep(left.min(POLL)).await;
            }
            return;
        }
    }
}

/// The fence of the current holder's lease, and when the wait for it began.
///
/// The wait starts again with each holder. Otherwise a crashed holder would use up the wait for its successor.
#[derive(Default)]
struct HolderTimer(Option<(u64, Instant)>);

impl HolderTimer {
    fn waited_for(&mut self, fence: u64, now: Instant) -> Duration {
        let current = self.0.filter(|(current, _)| *current == fence);
        let (_, wait_began) = *self.0.insert(current.unwrap_or((fence, now)));
        now.saturating_since(wait_began)
    }
}

/// No call starts with less time than this before the program's deadline.
const SHORTEST_CALL: Duration = Duration::from_secs(2);

/// The minimum wait for the end of a lease, because the estimate of the store's clock is inexact.
const SHORTEST_WAIT: Duration = Duration::from_millis(20);

/// The poll interval if the store sends no notices.
const POLL: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::manager::QuotaManager;
    use crate::model::AccountId;
    use crate::record::Priority;
    use crate::store::MemoryStore;
    use crate::testing::FakeProvider;

    #[tokio::test(start_paused = true)]
    async fn a_record_changed_since_the_decision_ends_the_wait_at_once() {
        let clock = Clock::virtual_at(Timestamp::UNIX_EPOCH);
        let quota = QuotaManager::builder(MemoryStore::with_clock(clock.clone()))
            .fetcher(FakeProvider::answering("example", 40.0))
            .clock(clock.clone())
            .build()
            .unwrap();
        let account: AccountId = "example/main".parse().unwrap();
        let entry = quota.shared.registry.entry(&account);
        let context = &quota.shared.context;
        let crate::manager::refresh::Joined { in_flight, record, .. } =
            crate::manager::refresh::join(&entry, RefreshRequest::NewCall, Priority::Interactive, context);
        let last_state = record.local().sync_state;
        in_flight.wait().await.as_ref().unwrap();
        let refresh = Refresh::new(in_flight, entry, record, context.clone());

        let minute = Duration::from_secs(60);
        let waited = refresh.wait_for_holder(last_state, time::saturating_add(clock.now(), minute), minute);

        assert!(clock.bounded(Duration::from_secs(1), waited).await.is_some());
    }
}
