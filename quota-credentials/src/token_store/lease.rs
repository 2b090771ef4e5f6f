//! The exclusive right to renew logins of a provider: a file lock between processes that share a file, and a lease in the store between
//! hosts.

use std::sync::Arc;
use std::time::Duration;

use quota_core::file::{FileError, FileLock, JsonFile};
use quota_core::model::RequestId;
use quota_core::store::{Acquire, LeaseDoc, Start, StoreError, StoreKey, update};
use quota_core::{Clock, ProviderId, QuotaStore};

/// The duration of the lease: longer than a renewal and its writes can take, and shorter than the margin before a token
/// expires.
const LEASE_DURATION: Duration = Duration::from_secs(60);
/// How long the store keeps the lease document after its last change.
const TTL: Duration = LEASE_DURATION.saturating_mul(2);
/// The timeout of a store operation. After it, only the file lock excludes other processes.
const STORE_TIMEOUT: Duration = Duration::from_millis(250);
/// How long to wait for other processes. Each of them may need the time of a renewal.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(120);
/// How often to retry if no change notice arrives.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The right to renew logins of one provider. Dropping it unlocks the file, but does not release the lease in the store.
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

/// Waits for the lease; `None` if other processes held it for too long.
///
/// Without a store, or while it is unavailable, the file lock is enough. If the future is dropped, an acquired lease expires by itself.
pub(super) async fn acquire(
    file: &JsonFile,
    store: Option<&Arc<dyn QuotaStore>>,
    clock: &Clock,
    provider: &ProviderId,
) -> Result<Option<RenewalLease>, FileError> {
    let lock = match file.lock_sibling(&format!(".{provider}.renewal"), ACQUIRE_TIMEOUT).await {
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
            tracing::warn!(%provider, %error, "store unavailable, renewing under the file lock only");
            Ok(Some(lease))
        }
        None => Ok(None),
    }
}

impl RenewalLease {
    /// Releases the lease for other hosts. If that fails, the lease expires by itself.
    pub(super) async fn release(self) {
        let Some(shared) = &self.shared else { return };
        if let Err(error) = shared.release().await {
            tracing::debug!(%error, "renewal lease not released");
        }
    }
}

impl SharedLease {
    /// Waits for the lease. Returns false if a newer program wrote the document, which must then not be changed.
    async fn acquire(&self, clock: &Clock) -> Result<bool, StoreError> {
        loop {
            let acquire = |lease: &mut LeaseDoc, now| lease.acquire(self.holder, now, LEASE_DURATION);
            let updated = update(&*self.store, &self.key, Start::Read, TTL, STORE_TIMEOUT, acquire).await?;
            match updated.value {
                Acquire::Acquired => return Ok(true),
                Acquire::Busy { .. } => {}
                _ => return Ok(false),
            }
            // Bound the wait, because the holder may have been killed.
            let changed = self.store.wait_for_change(&self.key, updated.version);
            if let Some(Err(_)) = clock.bounded(RETRY_INTERVAL, changed).await {
                // Poll if there are no notices.
                clock.sleep(RETRY_INTERVAL).await;
            }
        }
    }

    async fn release(&self) -> Result<(), StoreError> {
        let release = |lease: &mut LeaseDoc, _| lease.release(self.holder);
        update(&*self.store, &self.key, Start::Read, TTL, STORE_TIMEOUT, release).await.map(drop)
    }
}
