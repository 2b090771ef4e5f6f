//! Taking the lease and a permit of the limiter, and waiting for other holders of either.
//! Whether the lease is granted is decided in `record`; `call` uses it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{Access, Refresh};
use crate::clock::Instant;
use crate::manager::error::QuotaError;
use crate::manager::events::Event;
use crate::manager::in_flight::RefreshRequest;
use crate::manager::limiter::Permit;
use crate::manager::state::SyncState;
use crate::model::RequestId;
use crate::record::{Lease, LeaseDecision, LeaseRequest, MaxStaleness, RecentCall, Record};
use crate::store::StoreKey;
use crate::time;

/// The lease with a permit, or no need for a call.
pub(super) enum LeaseAcquired {
    Granted(Lease, Permit),
    Fresh,
    /// A call that was started then has succeeded, and is recent enough.
    CallOutcome(Timestamp),
}

impl Refresh {
    /// Takes a permit and the lease. Waits for other holders, with a bound.
    ///
    /// A credential that was read too long before the call is read again into `access`, before the lease is taken.
    pub(super) async fn begin(
        &self,
        request: RefreshRequest,
        access: &mut Access,
    ) -> Result<LeaseAcquired, QuotaError> {
        let entry = &*self.entry;
        let policy = &entry.provider.policy;
        let account = || entry.id.clone();
        let attempt = RequestId::random();
        let patience = policy.lease_ttl().saturating_add(policy.fetch_timeout);
        entry.repair_clock().await;
        let mut holder = HolderTimer::default();
        let mut is_known = !entry.may_assume_absent();
        let mut permit = None;
        let mut announced = None;
        // Whether the lease of a holder was read from the store for this request. Only a caller that requires a new call needs that:
        // other callers accept the readings of a call that is over, if they are fresh enough.
        let mut is_confirmed = !matches!(request, RefreshRequest::NewCall | RefreshRequest::RecentCall(_));
        let mut max_staleness = request.max_staleness(&entry.provider.store_client);
        loop {
            if self.in_flight.login_id.is_none() && self.is_superseded() {
                return Err(QuotaError::LoginChanged { account: account() });
            }
            let decide = |record: &mut Record, now: Timestamp| {
                let ask = LeaseRequest::new(attempt, max_staleness)
                    .login(access.login.clone())
                    .priority(self.in_flight.priority())
                    .by(Arc::clone(&self.context.by))
                    .cooldown(entry.provider.cooldown_at(now));
                // Another login holds the account by now. This refresh must neither take it back nor clear its readings.
                let superseded = match (&self.in_flight.login_id, record.login_id()) {
                    (Some(ours), Some(holder)) => ours != holder,
                    _ => false,
                };
                (!superseded).then(|| record.begin(now, &ask, policy))
            };
            // Before the decision: a change of the record after it must wake the wait below.
            let seen = entry.local().sync_state;
            // First decide on the local record, without a permit and without a trip to the store: often no call is needed.
            let begin = if permit.is_none() {
                entry.dry_run(decide)
            } else {
                entry.change(decide).await.map_err(|error| QuotaError::Store { account: account(), error })?
            };
            let Some(begin) = begin else { return Err(QuotaError::LoginChanged { account: account() }) };
            // Drop an unused permit before waiting on another lease holder.
            let unused = permit.take();
            let begin = match (begin, unused) {
                (LeaseDecision::Granted(lease), Some(permit)) => {
                    return Ok(LeaseAcquired::Granted(lease, permit));
                }
                (begin, _unused) => begin,
            };
            match begin {
                LeaseDecision::Granted(_) => {
                    self.may_call()?;
                    permit = self.acquire_permit(&mut is_known).await?;
                    if permit.is_some() {
                        self.or_closed(self.reread_access(access)).await??;
                        self.may_call()?;
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
                    return Err(QuotaError::CredentialRejected { account: account(), failure });
                }
                LeaseDecision::UnsupportedFormat => {
                    return Err(QuotaError::UnsupportedFormat { account: account() });
                }
                LeaseDecision::InProgress { until, since } => {
                    let waited = holder.waited_for(since, entry.provider.clock.instant());
                    // Without the store, the holder's outcome would not arrive here.
                    if waited >= patience
                        || entry.provider.store_client.is_away()
                        || entry.local().is_standalone()
                    {
                        return Err(QuotaError::InProgress { account: account() });
                    }
                    if !is_confirmed {
                        is_confirmed = true;
                        self.or_closed(entry.sync(None)).await?;
                        continue;
                    }
                    // The outcome of the holder's call satisfies this request too.
                    max_staleness = match max_staleness {
                        MaxStaleness::StartedAfter(moment) => MaxStaleness::StartedAfter(moment.min(since)),
                        MaxStaleness::CalledAfter(moment) => MaxStaleness::CalledAfter(moment.min(since)),
                        within => within,
                    };
                    let patience = patience - waited;
                    let left = self.time_left().unwrap_or(patience).min(patience);
                    if left.is_zero() {
                        return Err(QuotaError::InProgress { account: account() });
                    }
                    if announced.replace(until) != Some(until) {
                        let until =
                            until.min(time::saturating_add(entry.provider.store_client.now_estimate(), left));
                        self.context.events.emit(Event::Waiting { account: account(), until });
                    }
                    let wait = self.wait_for_holder(seen, until, patience);
                    let _ = self.or_closed(entry.provider.clock.bounded(left, wait)).await?;
                }
            }
        }
    }

    /// A permit from the queue. `None` if none was free at once and the record had not been read: it is read now, because it may
    /// make the call unnecessary.
    async fn acquire_permit(&self, is_known: &mut bool) -> Result<Option<Permit>, QuotaError> {
        let ticket = self.in_flight.enqueue(&self.entry.provider.limiter);
        let may_wait = *is_known;
        let permit = async {
            match ticket.try_acquire() {
                None if may_wait => Ok(Some(self.while_time_is_left(ticket.acquire()).await?)),
                at_once => Ok(at_once),
            }
        };
        let permit = self.or_closed(permit).await??;
        if permit.is_none() {
            self.entry.ensure_synced().await;
            *is_known = true;
        }
        Ok(permit)
    }

    /// Whether a call may be started now: there is time for it, and the manager is not being closed.
    pub(super) fn may_call(&self) -> Result<(), QuotaError> {
        if self.context.tasks.is_closed() {
            return Err(QuotaError::Closed);
        }
        match self.time_left() {
            Some(left) if left < SHORTEST_CALL => Err(self.out_of_time()),
            _ => Ok(()),
        }
    }

    /// Waits for `wait`, but no longer than a call after it still has time.
    async fn while_time_is_left<T>(&self, wait: impl Future<Output = T>) -> Result<T, QuotaError> {
        let Some(left) = self.time_left() else { return Ok(wait.await) };
        let done = self.entry.provider.clock.bounded(left.saturating_sub(SHORTEST_CALL), wait).await;
        done.ok_or_else(|| self.out_of_time())
    }

    fn out_of_time(&self) -> QuotaError {
        QuotaError::DeadlineExceeded { account: self.entry.id.clone() }
    }

    /// Waits for `wait` until the manager is being closed: no new step starts after that.
    async fn or_closed<T>(&self, wait: impl Future<Output = T>) -> Result<T, QuotaError> {
        self.context.tasks.until_closing(wait).await.ok_or(QuotaError::Closed)
    }

    /// Waits until the record changes from the state `seen`, the holder's lease or `patience` ends, or the store becomes
    /// unavailable, because then no notice arrives.
    async fn wait_for_holder(&self, seen: SyncState, until: Timestamp, patience: Duration) {
        let entry = &*self.entry;
        let store_client = &entry.provider.store_client;
        if entry.local().sync_state != seen {
            return;
        }
        let left = time::elapsed(store_client.now_estimate(), until).min(patience).max(SHORTEST_WAIT);
        let key = StoreKey::account(&entry.id);
        let moved = entry.provider.clock.bounded(left, store_client.wait_for_change(&key, seen.version()));
        let notice = tokio::select! {
            biased;
            () = store_client.wait_unavailable() => return,
            notice = moved => notice,
        };
        entry.sync(Some(seen)).await;
        if matches!(notice, Some(Err(_))) || entry.local().sync_state == seen {
            // No notice, or a spurious one: poll at an interval.
            entry.provider.clock.sleep(left.min(POLL)).await;
        }
    }
}

/// The holder of the lease, identified by the time of its grant, and when the wait for it began.
///
/// A holder that dies must not use up the time of the next.
#[derive(Default)]
struct HolderTimer(Option<(Timestamp, Instant)>);

impl HolderTimer {
    fn waited_for(&mut self, granted_at: Timestamp, now: Instant) -> Duration {
        let same = self.0.filter(|(known, _)| *known == granted_at);
        let (_, began) = *self.0.insert(same.unwrap_or((granted_at, now)));
        now.saturating_since(began)
    }
}

/// No call is started with less time than this before the program's deadline.
const SHORTEST_CALL: Duration = Duration::from_secs(2);

/// The store's clock and ours differ a little: a wait for the end of a lease is never shorter than this.
const SHORTEST_WAIT: Duration = Duration::from_millis(20);

/// The interval of polls if there are no notices.
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
    async fn what_moves_the_record_after_the_look_is_not_waited_for() {
        let clock = Clock::anchored(Timestamp::UNIX_EPOCH);
        let quota = QuotaManager::builder(MemoryStore::with_clock(clock.clone()))
            .fetcher(FakeProvider::answering("example", 40.0))
            .clock(clock.clone())
            .build()
            .unwrap();
        let account: AccountId = "example/main".parse().unwrap();
        let entry = quota.shared.registry.entry(&account);
        let context = &quota.shared.context;
        let in_flight =
            crate::manager::refresh::join(&entry, RefreshRequest::NewCall, Priority::Interactive, context);
        let accessed_at = entry.local().sync_state;
        in_flight.wait().await.as_ref().unwrap();
        let refresh = Refresh::new(in_flight, entry, context.clone());

        let minute = Duration::from_secs(60);
        let waited = refresh.wait_for_holder(accessed_at, time::saturating_add(clock.now(), minute), minute);

        assert!(clock.bounded(Duration::from_secs(1), waited).await.is_some());
    }
}
