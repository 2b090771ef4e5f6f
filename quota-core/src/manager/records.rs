//! The records of logins that accounts of this manager show or have shown, and the selection of an account's record.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::account_state::Selection;
use super::entry::{AccountEntry, RecordEntry};
use crate::model::LoginId;
use crate::store::StoreKey;

/// The entries of records by their key: those of logins, and those of names whose account shows another record now.
///
/// The entry of an account's own name is not in it while the account shows it, because most of a million accounts show it.
#[derive(Debug, Default)]
pub(crate) struct Records {
    by_key: Mutex<HashMap<StoreKey, Arc<RecordEntry>>>,
}

impl Records {
    /// Makes the account show the record of `login`, or without one, the record of its name. Returns whether it showed another one.
    ///
    /// Has no effect for a `check` that began before the last applied one, and for a check after the program has set the login.
    /// The previous record stays in this process while it is refreshed or has changes that the store does not have.
    pub(crate) fn select(
        &self,
        account: &Arc<AccountEntry>,
        login: Option<&LoginId>,
        selection: Selection,
        check: Option<u16>,
    ) -> bool {
        // Hold this until the end, so that selections for one account never overlap.
        let mut by_key = self.by_key.lock();
        if check.is_some_and(|check| !account.state().accept_check(check)) {
            return false;
        }
        let previous = account.record();
        if previous.login() == login {
            account.confirm(selection);
            return false;
        }
        let provider = &account.provider;
        let key = login
            .map_or_else(|| StoreKey::account(&account.id), |login| StoreKey::login(&provider.id, login));
        let known = if login.is_some() { by_key.get(&key).cloned() } else { by_key.remove(&key) };
        let record = known.unwrap_or_else(|| RecordEntry::new(key.clone(), Arc::clone(provider), login));
        let pending = previous.detach(account);
        record.attach(account, selection, pending);
        by_key.retain(|_, record| record.is_in_use());
        if login.is_some() {
            by_key.insert(key, record);
        }
        if previous.login().is_none() && previous.is_in_use() {
            by_key.insert(previous.key().clone(), Arc::clone(&previous));
        }
        drop(by_key);
        // Tasks that wait for a change of the account's view continue with the new record.
        previous.changed.notify_waiters();
        true
    }

    /// The records with changes that are not in the store, except the records of names that their own account shows.
    pub(crate) fn unsaved(&self) -> Vec<Arc<RecordEntry>> {
        let by_key = self.by_key.lock();
        by_key.values().filter(|record| !record.local().is_saved()).cloned().collect()
    }
}
