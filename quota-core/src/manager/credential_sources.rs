//! The credential sources of one provider's accounts, and the caches in front of them.
//! `refresh` and `Account::credential` get credentials from them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use super::credential_cache::{Caller, CredentialCache};
use super::credential_reuse::ReadOutcome;
use crate::model::{AccountId, CredentialFingerprint};
use crate::provider::CredentialSource;

/// Maps each account to its own source, or to the provider's, and to its cached credential.
///
/// The maps belong to the provider and not to the account, because most accounts have no own source and an entry must stay small.
#[derive(Debug, Default)]
pub(crate) struct CredentialSources {
    shared: Option<Arc<dyn CredentialSource>>,
    /// Whether any account ever had its own source. If not, finding a source takes no lock.
    has_own: AtomicBool,
    own: RwLock<HashMap<AccountId, Arc<dyn CredentialSource>>>,
    /// The accounts whose credential was read.
    caches: RwLock<HashMap<AccountId, Arc<CredentialCache>>>,
}

impl CredentialSources {
    /// Creates the map; `shared` is the source of accounts without their own.
    pub(crate) fn new(shared: Option<Arc<dyn CredentialSource>>) -> Self {
        Self { shared, ..Self::default() }
    }

    /// The source of an account.
    fn of(&self, account: &AccountId) -> Option<Arc<dyn CredentialSource>> {
        if !self.has_own.load(Ordering::Acquire) {
            return self.shared.clone();
        }
        let own = self.own.read();
        own.get(account).or(self.shared.as_ref()).cloned()
    }

    /// Whether an account has a source.
    pub(crate) fn has(&self, account: &AccountId) -> bool {
        self.shared.is_some()
            || (self.has_own.load(Ordering::Acquire) && self.own.read().contains_key(account))
    }

    /// Sets an account's own source, replacing the previous one with its cached credential and its read in flight.
    pub(crate) fn set(&self, account: AccountId, source: Arc<dyn CredentialSource>) {
        let previous = self.own.write().insert(account.clone(), source);
        self.has_own.store(true, Ordering::Release);
        // Do this last, so that reads that start from now on use the new source.
        self.clear(&account);
        // The source's `Drop` may run foreign code, so drop it after the lock is released.
        drop(previous);
    }

    /// Drops the cached credential of an account, and discards a read in flight.
    pub(crate) fn clear(&self, account: &AccountId) {
        if let Some(cache) = self.existing_cache(account) {
            cache.clear();
        }
    }

    /// Removes an account's own source and its cached credential, and returns the source. The caller must not drop it under a lock,
    /// because its `Drop` may run foreign code.
    pub(crate) fn remove(&self, account: &AccountId) -> Option<Arc<dyn CredentialSource>> {
        let source = self.own.write().remove(account);
        let cache = self.caches.write().remove(account);
        if let Some(cache) = cache {
            cache.clear();
        }
        source
    }

    /// The credential of an account, from its cache or its source; `None` if it has no source.
    ///
    /// Concurrent callers share one read, which continues if they stop waiting. Each waits for at most its own timeout.
    pub(crate) async fn credential(&self, caller: &Caller<'_>) -> Option<ReadOutcome> {
        if !self.has(caller.account) {
            return None;
        }
        self.cache(caller.account).get(caller, || self.of(caller.account)).await
    }

    /// Records that the provider rejected a credential of this account.
    pub(crate) fn reject(&self, account: &AccountId, fingerprint: Option<CredentialFingerprint>) {
        if let (Some(cache), Some(fingerprint)) = (self.existing_cache(account), fingerprint) {
            cache.reject(fingerprint);
        }
    }

    /// Records that the provider accepted a credential of this account.
    pub(crate) fn accept(&self, account: &AccountId, fingerprint: Option<CredentialFingerprint>) {
        if let (Some(cache), Some(fingerprint)) = (self.existing_cache(account), fingerprint) {
            cache.accept(fingerprint);
        }
    }

    /// Whether the files of the account's source were being written when its credential was read.
    pub(crate) fn is_unsettled(&self, account: &AccountId) -> bool {
        self.existing_cache(account).is_some_and(|cache| cache.is_unsettled())
    }

    fn existing_cache(&self, account: &AccountId) -> Option<Arc<CredentialCache>> {
        self.caches.read().get(account).cloned()
    }

    fn cache(&self, account: &AccountId) -> Arc<CredentialCache> {
        if let Some(cache) = self.existing_cache(account) {
            return cache;
        }
        Arc::clone(self.caches.write().entry(account.clone()).or_default())
    }
}
