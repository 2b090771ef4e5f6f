//! An account in this process, and the entry of the record that it shows.
//! The record's local state is defined in `state`; `sync`, `refresh` and `follower` change it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::Guard;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::error::QuotaError;
use super::events::Event;
use super::provider::Provider;
use super::state::LocalState;
use super::tasks::wait_until;
use super::view::{CredentialCheck, View, ViewFlags};
use super::view_table::ViewHandle;
use crate::model::{AccountId, LoginInfo};
use crate::record::Record;
use crate::store::StoreKey;

/// One record in this process, with the accounts that show it.
///
/// Locks are taken in this order: the local state of the record, its list of accounts, the state of an account.
#[derive(Debug)]
pub(crate) struct RecordEntry {
    pub(crate) key: StoreKey,
    pub(crate) provider: Arc<Provider>,
    local: Mutex<LocalState>,
    accounts: Mutex<AccountList>,
    /// Notifies waiters after each change of a view of this record, and after each release of its sync lock.
    pub(crate) changed: Notify,
}

/// The accounts of a record. Nearly all of a million records have one, so that one is stored without a list.
#[derive(Debug)]
enum AccountList {
    One(Weak<AccountEntry>),
    #[expect(clippy::box_collection, reason = "rare, and then a pointer instead of a list")]
    Many(Box<Vec<Weak<AccountEntry>>>),
}

impl AccountList {
    fn as_slice(&self) -> &[Weak<AccountEntry>] {
        match self {
            Self::One(account) => std::slice::from_ref(account),
            Self::Many(accounts) => accounts,
        }
    }

    /// Adds an account, and drops those that no longer exist.
    fn add(&mut self, account: &Arc<AccountEntry>) {
        let mut accounts: Vec<_> =
            self.as_slice().iter().filter(|account| account.strong_count() > 0).cloned().collect();
        accounts.push(Arc::downgrade(account));
        *self = match accounts.pop() {
            Some(only) if accounts.is_empty() => Self::One(only),
            last => {
                accounts.extend(last);
                Self::Many(Box::new(accounts))
            }
        };
    }
}

/// One account: the name by which programs read and refresh a record.
#[derive(Debug)]
pub(crate) struct AccountEntry {
    pub(crate) id: AccountId,
    pub(crate) provider: Arc<Provider>,
    pub(crate) view_handle: ViewHandle,
    state: Mutex<AccountState>,
    pub(crate) requests: AtomicU64,
    pub(crate) watchers: AtomicU32,
}

/// The state of an account that is not in its record.
#[derive(Debug)]
pub(crate) struct AccountState {
    record: Arc<RecordEntry>,
    /// Whether it is unknown which login the readings belong to.
    pub(crate) unattributed: bool,
    /// Why this process's last refresh failed; `None` if another process has refreshed the account since.
    pub(crate) failed: Option<Arc<QuotaError>>,
    /// The last check of the credential; `None` if the login or the source has changed since.
    pub(crate) checked: Option<Arc<CredentialCheck>>,
}

impl AccountState {
    /// Stores what a check of the credential found out.
    pub(crate) fn credential_checked(&mut self, at_ms: i64, login: Result<LoginInfo, QuotaError>) {
        self.checked = Some(Arc::new(CredentialCheck { at_ms, login }));
    }

    /// Claims the next check of the credential; `false` if another reader has claimed it.
    fn claim_check(&mut self, now_ms: i64) -> bool {
        let is_old = |checked: &&mut Arc<CredentialCheck>| now_ms >= checked.next_ms();
        let Some(checked) = self.checked.as_mut().filter(is_old) else { return false };
        Arc::make_mut(checked).at_ms = now_ms;
        true
    }

    /// Stores the error of a refresh.
    pub(crate) fn refresh_failed(&mut self, error: QuotaError) {
        // The error of the recent call is more specific than `CalledRecently`.
        if !matches!(error, QuotaError::CalledRecently { .. }) || self.failed.is_none() {
            self.failed = Some(Arc::new(error));
        }
    }
}

impl RecordEntry {
    pub(crate) fn new(key: StoreKey, provider: Arc<Provider>, base: Arc<Record>) -> Arc<Self> {
        Arc::new(Self {
            key,
            provider,
            local: Mutex::new(LocalState::new(base)),
            accounts: Mutex::new(AccountList::One(Weak::new())),
            changed: Notify::new(),
        })
    }

    pub(crate) fn local(&self) -> MutexGuard<'_, LocalState> {
        self.local.lock()
    }

    /// The accounts that show this record.
    pub(crate) fn accounts(&self) -> Vec<Arc<AccountEntry>> {
        self.accounts.lock().as_slice().iter().filter_map(Weak::upgrade).collect()
    }

    /// Locks the reads and writes of the stored record. Otherwise an older response could replace a newer one.
    ///
    /// Not a mutex of tokio, which would need 40 bytes more for each account.
    pub(crate) async fn lock_sync(&self) -> SyncGuard<'_> {
        wait_until(&self.changed, || !std::mem::replace(&mut self.local().is_syncing, true)).await;
        SyncGuard(self)
    }

    /// The record for readers.
    pub(crate) fn effective_record(&self) -> Arc<Record> {
        self.local().effective_record(self.provider.store_client.now_estimate())
    }

    /// Changes the local state and publishes the new view of each account.
    pub(crate) fn update<T>(&self, work: impl FnOnce(&mut LocalState) -> T) -> T {
        let mut local = self.local();
        let output = work(&mut local);
        let record = local.effective_record(self.provider.store_client.now_estimate());
        let flags = local.flags();
        let mut changes = Vec::new();
        for account in self.accounts() {
            // Publish under the lock of the local state, so that an earlier view never replaces a later one.
            let change = account.publish(&mut account.state.lock(), &record, &flags);
            changes.push((account, change));
        }
        drop(local);
        self.announce(&changes);
        output
    }

    /// Wakes the waiters and emits the events of these changes.
    fn announce(&self, changes: &[(Arc<AccountEntry>, ViewChange)]) {
        if changes.iter().any(|(_, change)| change.has_changed) {
            self.changed.notify_waiters();
        }
        for (account, _) in changes.iter().filter(|(_, change)| change.has_new_login) {
            self.provider.store_client.emit(Event::LoginChanged { account: account.id.clone() });
        }
    }

    /// Whether a caller has read a view since the previous call of `take_accessed`, or waits for changes.
    pub(crate) fn take_accessed(&self) -> bool {
        // Not `any`, which would leave the flags of the other accounts set.
        self.accounts().iter().fold(false, |accessed, account| account.take_accessed() | accessed)
    }

    /// Records that a follower starts; `false` if there is one already. The caller holds the lock of the local state.
    pub(crate) fn try_start_following(&self, local: &mut LocalState) -> bool {
        if local.is_followed {
            return false;
        }
        self.set_followed(local, true);
        true
    }

    /// Records that the follower has ended: the next decision must read the store.
    pub(crate) fn invalidate(&self, local: &mut LocalState) {
        self.set_followed(local, false);
        local.invalidate();
    }

    fn set_followed(&self, local: &mut LocalState, is_followed: bool) {
        local.is_followed = is_followed;
        for account in self.accounts() {
            account.view_handle.set_followed(is_followed);
        }
    }
}

/// The lock of a record's reads and writes.
#[must_use]
pub(crate) struct SyncGuard<'a>(&'a RecordEntry);

impl Drop for SyncGuard<'_> {
    fn drop(&mut self) {
        self.0.local().is_syncing = false;
        self.0.changed.notify_waiters();
    }
}

/// What a new view changes.
#[derive(Debug, Clone, Copy)]
struct ViewChange {
    has_changed: bool,
    has_new_login: bool,
}

impl AccountEntry {
    pub(crate) fn new(id: AccountId, record: Arc<RecordEntry>, view_handle: ViewHandle) -> Arc<Self> {
        let state =
            AccountState { record: Arc::clone(&record), unattributed: false, failed: None, checked: None };
        let account = Arc::new(Self {
            id,
            provider: Arc::clone(&record.provider),
            view_handle,
            state: Mutex::new(state),
            requests: AtomicU64::new(0),
            watchers: AtomicU32::new(0),
        });
        record.accounts.lock().add(&account);
        account
    }

    /// The entry of the record that the account shows.
    pub(crate) fn record(&self) -> Arc<RecordEntry> {
        Arc::clone(&self.state.lock().record)
    }

    pub(crate) fn view(&self) -> Guard<Arc<View>> {
        self.view_handle.load()
    }

    /// The state of the account. To change what readers see, use `update`.
    pub(crate) fn state(&self) -> MutexGuard<'_, AccountState> {
        self.state.lock()
    }

    /// Changes the state of the account and publishes the new view.
    pub(crate) fn update(self: &Arc<Self>, work: impl FnOnce(&mut AccountState)) {
        let record = self.record();
        let local = record.local();
        let effective = local.effective_record(self.provider.store_client.now_estimate());
        let change = {
            let mut state = self.state.lock();
            work(&mut state);
            self.publish(&mut state, &effective, &local.flags())
        };
        drop(local);
        record.announce(&[(Arc::clone(self), change)]);
    }

    /// Claims the next check of the credential; `false` if another reader has claimed it.
    pub(crate) fn claim_check(self: &Arc<Self>, now_ms: i64) -> bool {
        let mut is_claimed = false;
        self.update(|state| is_claimed = state.claim_check(now_ms));
        is_claimed
    }

    /// Records the login of a credential that was read for a request. If it is a new one, a refresh may succeed at once.
    pub(crate) fn note_login(self: &Arc<Self>, login: &LoginInfo) {
        let is_new = |checked: &CredentialCheck| checked.login.as_ref().ok() != Some(login);
        if self.state().checked.as_deref().is_some_and(is_new) {
            self.update(|state| state.credential_checked(self.provider.clock.now_ms(), Ok(login.clone())));
        }
    }

    /// Stores a new view. The caller holds the lock of the record's local state.
    fn publish(&self, state: &mut AccountState, record: &Arc<Record>, flags: &ViewFlags) -> ViewChange {
        let before = self.view_handle.load_untracked();
        let has_new_login = record.is_of_another_login(&before.record);
        if has_new_login || record.complete_at() > before.record.complete_at() {
            state.failed = None;
        }
        let (failed, checked) = (state.failed.clone(), state.checked.clone());
        let flags = ViewFlags { unattributed: state.unattributed, failed, checked, ..flags.clone() };
        let has_changed = flags.differs_from(&before.flags) || *record != before.record;
        let generation = before.generation + u64::from(has_changed);
        let view = View::new(generation, Arc::clone(record), Arc::clone(&self.provider), flags);
        self.view_handle.store(Arc::new(view));
        ViewChange { has_changed, has_new_login }
    }

    fn take_accessed(&self) -> bool {
        self.view_handle.take_accessed() || self.watchers.load(Ordering::Relaxed) > 0
    }
}
