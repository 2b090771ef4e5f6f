//! Reserves the expected use of a request, locally and in the store for all hosts.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use quota_core::QuotaStore;
use quota_core::model::RequestId;
use quota_core::store::{Start, StoreError, WriteState, update};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::Inner;
use super::slot::AccountSlot;
use crate::Request;
use crate::reservation::{LocalReservations, Reservation, Reservations};
use crate::routing::{Reason, Verdict, headroom};

/// How long the store is not used after a failure. Otherwise each request would wait for it.
const COOLDOWN: Duration = Duration::from_secs(1);

/// The store for reservations, and whether it works.
#[derive(Debug)]
pub(super) struct SharedReservations {
    store: Arc<dyn QuotaStore>,
    /// When the store last failed, in milliseconds; [`NEVER`](Self::NEVER) if it has worked since.
    failed_at: AtomicI64,
    /// Releases reservations once the store works again. It ends with the manager.
    release_retry: Mutex<JoinSet<()>>,
}

impl SharedReservations {
    const NEVER: i64 = i64::MIN;

    pub(super) fn on(store: Arc<dyn QuotaStore>) -> Self {
        Self { store, failed_at: AtomicI64::new(Self::NEVER), release_retry: Mutex::default() }
    }

    fn in_cooldown(&self, now: Timestamp) -> bool {
        // The absolute difference, because the clock may have been set back since.
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
    at: usize,
    id: RequestId,
    is_kept: bool,
}

impl ReservationGuard {
    /// Keeps the reservation until the request is reported.
    pub(super) fn keep(mut self) -> RequestId {
        self.is_kept = true;
        self.id
    }
}

impl Drop for ReservationGuard {
    fn drop(&mut self) {
        if !self.is_kept {
            self.inner.release(self.at, self.id);
        }
    }
}

impl Inner {
    /// Reserves the estimated use of the request. The error is the verdict if that does not fit beside other reservations.
    ///
    /// It reserves nothing without an estimate. If the store is unavailable, only the reservations of this process count.
    pub(super) async fn reserve(
        self: &Arc<Self>,
        request: &Request,
        at: usize,
    ) -> Result<Option<ReservationGuard>, Verdict> {
        let Some((window, share)) = request.estimate() else { return Ok(None) };
        let slot = &self.slots[at];
        let now = self.now();
        let wanted = Reservation::new(window.clone(), share, now);
        let left = headroom(&slot.candidate(), window, now, &self.policy);
        let full =
            || Verdict::ineligible(Reason::Reserved, now.checked_add(self.policy.throttle_cooldown).ok());
        if !slot.change_reservations(|held| held.reserve(&wanted, left, now)) {
            return Err(full());
        }
        let id = wanted.id;
        let reserved = self.guard_for(at, id);
        match self.sync_reservations(at, Some(id)).await {
            Some(false) => return Err(full()),
            Some(true) => {}
            None => slot.change_reservations(|held| held.admit_locally(id)),
        }
        Ok(Some(reserved))
    }

    /// Reads the reservations of all hosts.
    pub(super) async fn read_reservations(&self, at: usize) {
        self.sync_reservations(at, None).await;
    }

    /// A guard that releases the reservation when dropped, so that a cancelled sender leaves none behind.
    pub(super) fn guard_for(self: &Arc<Self>, at: usize, id: RequestId) -> ReservationGuard {
        ReservationGuard { inner: Arc::clone(self), at, id, is_kept: false }
    }

    /// Releases a reservation; a second release changes nothing.
    pub(super) fn release(self: &Arc<Self>, at: usize, id: RequestId) {
        let is_pending = self.slots[at].change_reservations(|held| held.release(id));
        // Without a runtime the next sync releases it, or it expires.
        if is_pending && self.reservations.is_some() && Handle::try_current().is_ok() {
            let inner = Arc::clone(self);
            self.in_background(async move {
                inner.sync_reservations(at, None).await;
                if inner.slots[at].has_pending_releases() {
                    inner.retry_releases();
                }
            });
        }
    }

    /// Retries releases until the store has them.
    fn retry_releases(self: &Arc<Self>) {
        let Some(shared) = &self.reservations else { return };
        let mut release_retry = shared.release_retry.lock();
        while release_retry.try_join_next().is_some() {}
        if !release_retry.is_empty() {
            return;
        }
        // Weak: the task must not keep the manager alive.
        let (inner, clock) = (Arc::downgrade(self), self.clock.clone());
        release_retry.spawn(async move {
            loop {
                clock.sleep(COOLDOWN).await;
                let Some(inner) = inner.upgrade() else { return };
                let pending =
                    || inner.slots.iter().enumerate().filter(|(_, slot)| slot.has_pending_releases());
                for (at, _) in pending() {
                    inner.sync_reservations(at, None).await;
                }
                if pending().next().is_none() {
                    return;
                }
            }
        });
    }

    /// Merges this process's reservations and releases into the store's document, and adopts the result. Returns
    /// whether the reservation fits; `None` if the store is unavailable.
    ///
    /// The holder of the lock syncs for all waiting requests, so that they do not wait for one round trip each.
    async fn sync_reservations(&self, at: usize, requested: Option<RequestId>) -> Option<bool> {
        let shared = self.reservations.as_ref()?;
        let slot = &self.slots[at];
        if shared.in_cooldown(self.clock.now()) {
            return None;
        }
        let before = slot.sync_seq();
        let mut synced_seq = slot.sync_lock().await;
        let admission = || requested.and_then(|id| slot.change_reservations(|held| held.admission(id)));
        if let Some(is_admitted) = admission() {
            return Some(is_admitted);
        }
        if requested.is_none() && *synced_seq > before {
            // Another request has synced since this one started to wait.
            return Some(true);
        }
        if shared.in_cooldown(self.clock.now()) {
            // The previous holder of the lock has just waited for the store in vain.
            return None;
        }
        let seq = slot.start_sync();
        let timeout = self.policy.reservation_timeout;
        let synced = self.clock.bounded(timeout, sync_with_store(&*shared.store, slot, timeout)).await;
        let synced = synced.unwrap_or_else(|| {
            Err(StoreError::unavailable(
                WriteState::Unknown,
                format!("timed out after {} ms", timeout.as_millis()),
            ))
        });
        shared.record_outcome(self.clock.now(), synced.as_ref().err());
        synced.ok()?;
        *synced_seq = seq;
        Some(admission().unwrap_or(true))
    }
}

/// Merges this process's reservations and releases into the store's document, and adopts the result.
async fn sync_with_store(
    store: &dyn QuotaStore,
    slot: &AccountSlot,
    timeout: Duration,
) -> Result<(), StoreError> {
    // Accounts with one login share its limits.
    let key = slot.usage.record_key().await.extension("reservations");
    let (mut offset, mut attempts) = (SignedDuration::ZERO, 0);
    let merge = |document: &mut Reservations, now: Timestamp| {
        offset = now.duration_since(slot.now());
        attempts += 1;
        slot.change_reservations(|held| {
            if attempts > 1 {
                // The previous swap conflicted. If it was applied nevertheless, the document shows it.
                held.write_failed();
            }
            held.merge_into(document, now, offset);
        });
    };
    let updated = update(store, &key, Start::Read, LocalReservations::TTL, timeout, merge).await?;
    slot.change_reservations(|held| held.adopt(Arc::unwrap_or_clone(updated.document), offset));
    Ok(())
}

impl AccountSlot {
    fn has_pending_releases(&self) -> bool {
        self.with_reservations(LocalReservations::has_pending_releases).unwrap_or(false)
    }
}
