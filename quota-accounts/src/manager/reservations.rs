//! Reserves the expected usage of a request, locally and for all hosts in the store.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use quota_core::model::{LoginId, RequestId};
use quota_core::store::{Start, StoreError, StoreKey, WriteState, update};
use quota_core::{AccountId, AccountUsage, Percent, ProviderId, QuotaStore, WindowId};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::Inner;
use super::login_index::LoginFilter;
use super::slot::AccountSlot;
use crate::Request;
use crate::reservation::{LocalReservations, Reservation, Reservations};
use crate::routing::{Reason, RoutingPolicy, Verdict, headroom};

/// The minimum time that a request allows for the store.
const MIN_TIME: Duration = Duration::from_millis(100);
/// How long the router avoids the store after a failure. Otherwise each request would wait for it.
const COOLDOWN: Duration = Duration::from_secs(1);

/// The owner of reservations: a login, or an account whose credential states none. Accounts with the same login share
/// its limits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum RecordId {
    Login(ProviderId, LoginId),
    Account(AccountId),
}

impl RecordId {
    fn of(account: &AccountId, usage: &AccountUsage) -> Self {
        match usage.login_id() {
            Some(login) => Self::Login(account.provider().clone(), login.clone()),
            None => Self::Account(account.clone()),
        }
    }

    /// The key of the document with the reservations.
    fn key(&self) -> StoreKey {
        let record = match self {
            Self::Login(provider, login) => StoreKey::login(provider, login),
            Self::Account(account) => StoreKey::account(account),
        };
        record.extension("reservations")
    }
}

/// The expected usage of requests in flight, for one record.
#[derive(Debug)]
pub(super) struct ReservationState {
    record: RecordId,
    held: Mutex<LocalReservations>,
    /// One request syncs with the store on behalf of all. The value is the sequence number of the last successful sync.
    sync_lock: tokio::sync::Mutex<u64>,
    /// How many syncs have started.
    sync_seq: AtomicU64,
}

impl ReservationState {
    fn change<R>(&self, change: impl FnOnce(&mut LocalReservations) -> R) -> R {
        change(&mut self.held.lock())
    }

    fn has_pending_releases(&self) -> bool {
        self.held.lock().has_pending_releases()
    }
}

/// The reservations of this process, and those that it has read from the store, by record.
#[derive(Debug, Default)]
pub(super) struct ReservationTable {
    states: Mutex<HashMap<RecordId, Arc<ReservationState>>>,
    /// The logins with reservations.
    logins: LoginFilter,
}

impl ReservationTable {
    /// The live reservations of the record that the account shows.
    pub(super) fn live(&self, account: &AccountId, usage: &AccountUsage) -> Vec<(WindowId, Percent)> {
        let state = self.states.lock().get(&RecordId::of(account, usage)).cloned();
        state.map(|state| state.held.lock().live(usage.now()).collect()).unwrap_or_default()
    }

    /// Whether an account with this login may have reservations.
    #[inline]
    pub(super) fn may_have_of(&self, login: &LoginId) -> bool {
        self.logins.may_contain(login)
    }

    fn get_or_create(&self, record: RecordId) -> Arc<ReservationState> {
        if let RecordId::Login(_, login) = &record {
            self.logins.insert(login);
        }
        let mut states = self.states.lock();
        let new = || {
            let (held, sync_lock, sync_seq) = Default::default();
            Arc::new(ReservationState { record: record.clone(), held, sync_lock, sync_seq })
        };
        Arc::clone(states.entry(record.clone()).or_insert_with(new))
    }

    fn with_pending_releases(&self) -> Vec<Arc<ReservationState>> {
        self.states.lock().values().filter(|state| state.has_pending_releases()).cloned().collect()
    }
}

/// A reservation of a request.
#[derive(Debug, Clone)]
pub(super) struct ReservationHandle {
    state: Arc<ReservationState>,
    id: RequestId,
}

/// The store for reservations, and whether it works.
#[derive(Debug)]
pub(super) struct SharedReservations {
    store: Arc<dyn QuotaStore>,
    /// When the store last failed, in milliseconds; [`NEVER`](Self::NEVER) if it has worked since.
    failed_at: AtomicI64,
    /// Releases reservations once the store works again. The task ends with the manager.
    release_retry: Mutex<JoinSet<()>>,
}

impl SharedReservations {
    const NEVER: i64 = i64::MIN;

    pub(super) fn on(store: Arc<dyn QuotaStore>) -> Self {
        Self { store, failed_at: AtomicI64::new(Self::NEVER), release_retry: Mutex::default() }
    }

    fn in_cooldown(&self, now: Timestamp) -> bool {
        // Use the absolute difference, because the clock may have been set back since.
        let since = now.as_millisecond().abs_diff(self.failed_at.load(Ordering::Relaxed));
        u128::from(since) < COOLDOWN.as_millis()
    }

    fn record_outcome(&self, now: Timestamp, error: Option<&StoreError>) {
        let at = error.map_or(Self::NEVER, |_| now.as_millisecond());
        let before = self.failed_at.swap(at, Ordering::Relaxed);
        match (error, before == Self::NEVER) {
            (Some(error), true) => {
                tracing::warn!(%error, "could not share reservations, only those of this process count");
            }
            (None, false) => tracing::info!("reservations are shared again"),
            _ => {}
        }
    }
}

/// Releases a reservation when dropped, unless it was handed to a route.
pub(super) struct ReservationGuard {
    inner: Arc<Inner>,
    reservation: ReservationHandle,
    is_kept: bool,
}

impl ReservationGuard {
    /// Keeps the reservation until the request is reported.
    pub(super) fn keep(mut self) -> ReservationHandle {
        self.is_kept = true;
        self.reservation.clone()
    }
}

impl Drop for ReservationGuard {
    fn drop(&mut self) {
        if !self.is_kept {
            self.inner.release(&self.reservation);
        }
    }
}

impl Inner {
    /// Reserves the estimated usage of the request. If it does not fit next to other reservations, the error is the
    /// verdict.
    ///
    /// Without an estimate, it reserves nothing. If the store is unavailable, or the request has already `waited` for
    /// too long, only the reservations of this process count.
    pub(super) async fn reserve(
        self: &Arc<Self>,
        request: &Request,
        at: usize,
        waited: &mut Duration,
    ) -> Result<Option<ReservationGuard>, Verdict> {
        let Some((window, share)) = request.estimate() else { return Ok(None) };
        let slot = &self.slots[at];
        let state = self.reservations_of(slot, waited).await;
        slot.is_reserved.store(true, Ordering::Release);
        let now = self.now();
        let wanted = Reservation::new(window.clone(), share, now);
        let left = headroom(&slot.candidate(), window, now, &self.policy);
        let full =
            || Verdict::ineligible(Reason::Reserved, now.checked_add(self.policy.throttle_cooldown).ok());
        if !state.change(|held| held.reserve(&wanted, left, now)) {
            return Err(full());
        }
        let id = wanted.id;
        let reserved = self.guard_for(ReservationHandle { state: Arc::clone(&state), id });
        match self.sync_within(&state, Some(id), waited).await {
            Some(false) => return Err(full()),
            Some(true) => {}
            None => state.change(|held| held.admit_locally(id)),
        }
        Ok(Some(reserved))
    }

    /// The reservations of the record that the account shows.
    async fn reservations_of(&self, slot: &AccountSlot, waited: &mut Duration) -> Arc<ReservationState> {
        if self.reservations.is_some() {
            // Check the login first. Before that, hosts could use different documents.
            self.in_time(waited, slot.usage.record_key()).await;
        }
        self.reserved.get_or_create(RecordId::of(&slot.id, &slot.usage.peek()))
    }

    /// Reads the reservations of all hosts.
    pub(super) async fn read_reservations(&self, at: usize, waited: &mut Duration) {
        let state = self.reservations_of(&self.slots[at], waited).await;
        self.sync_within(&state, None, waited).await;
    }

    /// Syncs for a request that has already `waited`; `None` also if its time runs out.
    async fn sync_within(
        &self,
        state: &ReservationState,
        requested: Option<RequestId>,
        waited: &mut Duration,
    ) -> Option<bool> {
        let timeout = self.time_left(*waited).min(self.policy.reservation_timeout);
        self.in_time(waited, self.sync_reservations(state, requested, timeout)).await?
    }

    /// Waits for a step of a request that has already `waited`; `None` if its time runs out.
    async fn in_time<T>(&self, waited: &mut Duration, step: impl Future<Output = T>) -> Option<T> {
        let started_at = self.clock.instant();
        let done = self.clock.bounded(self.time_left(*waited), step).await;
        *waited = waited.saturating_add(self.clock.instant().saturating_since(started_at));
        done
    }

    /// The remaining time of a request that has `waited`. Little may be left after a slow refresh, but a working store
    /// needs no more than the minimum.
    fn time_left(&self, waited: Duration) -> Duration {
        self.policy.route_timeout.saturating_sub(waited).max(MIN_TIME)
    }

    /// A guard that releases the reservation when dropped, so that a cancelled sender leaves none behind.
    pub(super) fn guard_for(self: &Arc<Self>, reservation: ReservationHandle) -> ReservationGuard {
        ReservationGuard { inner: Arc::clone(self), reservation, is_kept: false }
    }

    /// Releases a reservation, even if the account shows another record now. A second release has no effect.
    pub(super) fn release(self: &Arc<Self>, reservation: &ReservationHandle) {
        let ReservationHandle { state, id } = reservation.clone();
        let is_pending = state.change(|held| held.release(id));
        // Without a runtime, the next sync releases it, or it expires.
        if is_pending && self.reservations.is_some() && Handle::try_current().is_ok() {
            let inner = Arc::clone(self);
            self.in_background(async move {
                inner.sync_reservations(&state, None, inner.policy.reservation_timeout).await;
                if state.has_pending_releases() {
                    inner.retry_releases();
                }
            });
        }
    }

    /// Retries releases until they are in the store.
    fn retry_releases(self: &Arc<Self>) {
        let Some(shared) = &self.reservations else { return };
        let mut release_retry = shared.release_retry.lock();
        while release_retry.try_join_next().is_some() {}
        if !release_retry.is_empty() {
            return;
        }
        // Use a weak reference, because the task must not keep the manager alive.
        let (inner, clock) = (Arc::downgrade(self), self.clock.clone());
        release_retry.spawn(async move {
            loop {
                clock.sleep(COOLDOWN).await;
                let Some(inner) = inner.upgrade() else { return };
                for state in inner.reserved.with_pending_releases() {
                    inner.sync_reservations(&state, None, inner.policy.reservation_timeout).await;
                }
                if inner.reserved.with_pending_releases().is_empty() {
                    return;
                }
            }
        });
    }

    /// Merges this process's reservations and releases into the store's document, and adopts the result. Returns
    /// whether the reservation fits; `None` if the store is unavailable.
    ///
    /// The holder of the lock syncs for all waiting requests, so that they do not wait for one round trip each.
    async fn sync_reservations(
        &self,
        state: &ReservationState,
        requested: Option<RequestId>,
        timeout: Duration,
    ) -> Option<bool> {
        let shared = self.reservations.as_ref()?;
        if shared.in_cooldown(self.clock.now()) {
            return None;
        }
        let before = state.sync_seq.load(Ordering::Acquire);
        let mut synced_seq = state.sync_lock.lock().await;
        let admission = || requested.and_then(|id| state.change(|held| held.admission(id)));
        if let Some(is_admitted) = admission() {
            return Some(is_admitted);
        }
        if requested.is_none() && *synced_seq > before {
            // Another request has synced since this one started to wait.
            return Some(true);
        }
        if shared.in_cooldown(self.clock.now()) {
            // The previous holder of the lock has just waited for the store without success.
            return None;
        }
        let seq = state.sync_seq.fetch_add(1, Ordering::AcqRel) + 1;
        // The limit of one trip is never shorter than `timeout`, so that an error is one of the store.
        let trip = self.policy.reservation_timeout;
        let sync = sync_with_store(&*shared.store, state, || self.now(), trip);
        let synced = match self.clock.bounded(timeout, sync).await {
            Some(synced) => synced,
            None if timeout < conclusive_timeout(&self.policy) => return None,
            None => Err(timed_out(timeout)),
        };
        shared.record_outcome(self.clock.now(), synced.as_ref().err());
        synced.ok()?;
        *synced_seq = seq;
        Some(admission().unwrap_or(true))
    }
}

fn timed_out(timeout: Duration) -> StoreError {
    StoreError::unavailable(WriteState::Unknown, format!("timed out after {} ms", timeout.as_millis()))
}

/// The shortest timeout after which the store counts as unavailable. A request that waited for a refresh gives the store less, and then
/// a working store may be late.
///
/// If `route_timeout` is shorter than `reservation_timeout`, no request gives the store the whole `reservation_timeout`.
fn conclusive_timeout(policy: &RoutingPolicy) -> Duration {
    policy.reservation_timeout.min(policy.route_timeout / 2)
}

/// Merges this process's reservations and releases into the store's document, and adopts the result.
async fn sync_with_store(
    store: &dyn QuotaStore,
    state: &ReservationState,
    local_now: impl Fn() -> Timestamp,
    timeout: Duration,
) -> Result<(), StoreError> {
    let key = state.record.key();
    let (mut offset, mut attempts) = (SignedDuration::ZERO, 0);
    let merge = |document: &mut Reservations, now: Timestamp| {
        offset = now.duration_since(local_now());
        attempts += 1;
        state.change(|held| {
            if attempts > 1 {
                // The previous swap conflicted. If it was applied after all, the document contains it.
                held.write_failed();
            }
            held.merge_into(document, now, offset);
        });
    };
    let updated = update(store, &key, Start::Read, LocalReservations::TTL, timeout, merge).await?;
    state.change(|held| held.adopt(Arc::unwrap_or_clone(updated.document), offset));
    Ok(())
}
