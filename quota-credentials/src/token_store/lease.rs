//! The right to exchange a token of a provider: among this file's processes a lock, among hosts a lease in the store.

use std::sync::Arc;
use std::time::Duration;

use quota_core::file::{FileError, FileLock, JsonFile};
use quota_core::store::{Acquire, LeaseDoc, Start, update};
use quota_core::{Clock, ProviderId, QuotaStore, RequestId, StoreError, StoreKey};

/// Longer than an exchange and what is written after it may take, and shorter than the margin before a token's end.
const LEASE_DURATION: Duration = Duration::from_secs(60);
/// The store may forget a lease that expired this long ago or was released.
const TTL: Duration = LEASE_DURATION.saturating_mul(2);
/// How long one trip to the store may take; without it, the lock of the file must do.
const TRIP_TIMEOUT: Duration = Duration::from_millis(250);
/// How long to wait for other processes, each of which may take as long as an exchange does.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(120);
/// How often to try again if no notice of a change comes.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The right to exchange a token of one provider. Dropping it unlocks the file; the lease in the store must be released.
#[derive(Debug)]
pub(super) struct RenewalLease {
    _lock: FileLock,
    shared: Option<SharedLease>,
}

#[derive(Debug)]
struct SharedLease {
    store: Arc<dyn QuotaStore>,
    key: StoreKey,
    holder: RequestId,
}

/// Waits for the right; `None` if other processes kept it for too long.
///
/// Without a store, or while that cannot be used, the lock of the file has to do. May be dropped: a lease that was just acquired
/// then expires by itself.
pub(super) async fn acquire(
    document: &JsonFile,
    store: Option<&Arc<dyn QuotaStore>>,
    clock: &Clock,
    provider: &ProviderId,
) -> Result<Option<RenewalLease>, FileError> {
    let lock = match document.lock_sibling(&format!(".{provider}.turn"), ACQUIRE_TIMEOUT).await {
        Ok(lock) => lock,
        Err(FileError::Locked { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut lease = RenewalLease { _lock: lock, shared: None };
    let Some(store) = store else { return Ok(Some(lease)) };
    let key = StoreKey::provider_extension(provider, "logins");
    let shared = SharedLease { store: Arc::clone(store), key, holder: RequestId::random() };
    match clock.bounded(ACQUIRE_TIMEOUT, shared.acquire(clock)).await {
        Some(Ok(is_acquired)) => {
            lease.shared = is_acquired.then_some(shared);
            Ok(Some(lease))
        }
        Some(Err(error)) => {
            tracing::warn!(%provider, %error, "store not usable, renewing logins under the file's lock only");
            Ok(Some(lease))
        }
        None => Ok(None),
    }
}

impl RenewalLease {
    /// Releases the lease for other hosts. If that fails it expires by itself.
    pub(super) async fn release(self) {
        let Some(shared) = &self.shared else { return };
        if let Err(error) = shared.release().await {
            tracing::debug!(%error, "renewal lease not released, it expires by itself");
        }
    }
}

impl SharedLease {
    /// Waits until the lease is acquired; `false` if a newer program's document is there, which must not be changed.
    async fn acquire(&self, clock: &Clock) -> Result<bool, StoreError> {
        loop {
            let acquire = |lease: &mut LeaseDoc, now| lease.acquire(self.holder, now, LEASE_DURATION);
            let updated = update(&*self.store, &self.key, Start::Read, TTL, TRIP_TIMEOUT, acquire).await?;
            match updated.value {
                Acquire::Acquired => return Ok(true),
                Acquire::Busy { .. } => {}
                _ => return Ok(false),
            }
            // Bounded, because the holder may have been killed.
            let changed = self.store.wait_for_change(&self.key, updated.version);
            if let Some(Err(_)) = clock.bounded(RETRY_INTERVAL, changed).await {
                // The store has no notices now.
                clock.sleep(RETRY_INTERVAL).await;
            }
        }
    }

    async fn release(&self) -> Result<(), StoreError> {
        let release = |lease: &mut LeaseDoc, _| lease.release(self.holder);
        update(&*self.store, &self.key, Start::Read, TTL, TRIP_TIMEOUT, release).await.map(drop)
    }
}
