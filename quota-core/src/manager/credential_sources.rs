//! The credential sources of one provider's accounts.
//! The manager reads them in `refresh` and for `Account::credential`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use crate::model::AccountId;
use crate::provider::CredentialSource;

/// The source of each account: its own, otherwise the provider's.
///
/// The accounts' own sources are in a map of the provider, because most accounts have none and an account must stay small.
#[derive(Debug, Default)]
pub(crate) struct CredentialSources {
    shared: Option<Arc<dyn CredentialSource>>,
    /// Whether an account ever had a source of its own. If not, a router that chooses an account takes no lock here.
    has_own: AtomicBool,
    own: RwLock<HashMap<AccountId, Arc<dyn CredentialSource>>>,
}

impl CredentialSources {
    /// The accounts have `shared` unless they get a source of their own.
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

    /// Gives an account a source of its own, in place of the one that it had.
    pub(crate) fn set(&self, account: AccountId, source: Arc<dyn CredentialSource>) {
        let before = self.own.write().insert(account, source);
        self.has_own.store(true, Ordering::Release);
        // After the lock is released: dropping a source can run other code.
        drop(before);
    }

    /// Removes an account's own source and returns it. Dropping a source can run other code, so drop it without a lock.
    pub(crate) fn remove(&self, account: &AccountId) -> Option<Arc<dyn CredentialSource>> {
        self.own.write().remove(account)
    }
}
