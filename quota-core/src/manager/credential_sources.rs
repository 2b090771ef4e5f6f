//! The credential sources of one provider's accounts.
//! `refresh` and `Account::credential` read credentials from them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use crate::model::AccountId;
use crate::provider::CredentialSource;

/// Maps each account to its own source, otherwise to the provider's.
///
/// The map belongs to the provider and not to the account, because most accounts have no own source and an entry must stay small.
#[derive(Debug, Default)]
pub(crate) struct CredentialSources {
    shared: Option<Arc<dyn CredentialSource>>,
    /// Whether any account ever had its own source. If not, a read takes no lock.
    has_own: AtomicBool,
    own: RwLock<HashMap<AccountId, Arc<dyn CredentialSource>>>,
}

impl CredentialSources {
    /// Creates the map; `shared` is the source of accounts without their own.
    pub(crate) fn new(shared: Option<Arc<dyn CredentialSource>>) -> Self {
        Self { shared, has_own: AtomicBool::new(false), own: RwLock::default() }
    }

    /// The source of an account.
    pub(crate) fn of(&self, account: &AccountId) -> Option<Arc<dyn CredentialSource>> {
        if !self.has_own.load(Ordering::Acquire) {
            return self.shared.clone();
        }
        let own = self.own.read();
        own.get(account).or(self.shared.as_ref()).cloned()
    }

    /// Sets an account's own source, replacing the previous one.
    pub(crate) fn set(&self, account: AccountId, source: Arc<dyn CredentialSource>) {
        let previous = self.own.write().insert(account, source);
        self.has_own.store(true, Ordering::Release);
        // The source's `Drop` may run foreign code, so drop it after the lock is released.
        drop(previous);
    }

    /// Removes an account's own source and returns it. The caller must not drop it under a lock, because its `Drop` may run
    /// foreign code.
    pub(crate) fn remove(&self, account: &AccountId) -> Option<Arc<dyn CredentialSource>> {
        self.own.write().remove(account)
    }
}
