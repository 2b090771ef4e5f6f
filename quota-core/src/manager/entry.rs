//! An account in this process, and the entry of the record that it shows.
//! The record's local state is defined in `state`; `sync`, `refresh` and `follower` change it. `records` selects the record.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Weak};

use arc_swap::Guard;
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use tokio::sync::Notify;

use super::account_state::{AccountState, Selection};
use super::events::Event;
use super::provider::Provider;
use super::state::{LocalState, Pending, SyncState};
use super::tasks::wait_until;
use super::view::{CredentialCheck, View, ViewFlags};
use super::view_table::ViewHandle;
use crate::model::{AccountId, LoginId, LoginInfo};
use crate::record::Record;
use crate::store::StoreKey;

/// One record in this process, with the accounts that show it.
///
/// Locks are taken in this order: the local state of the record, its list of accounts, the state of an account.
#[derive(Debug)]
pub(crate) struct RecordEntry {
    id: RecordId,
    pub(crate) provider: Arc<Provider>,
    local: Mutex<LocalState>,
    accounts: Mutex<AccountList>,
    /// Notifies waiters after each change of a view of this record, and after each release of its sync lock.
    pub(crate) changed: Notify,
}

/// The owner of a record, which determines its key in the store.
#[derive(Debug)]
enum RecordId {
    /// An account whose credential states no login.
    Name(StoreKey),
    /// A login, with the record if the store has none. Boxed because nearly all of a million accounts have no login.
    Login(Box<(StoreKey, Arc<Record>)>),
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

    /// Removes `account` and those that no longer exist, and adds `new`.
    fn replace(&mut self, account: Option<&Arc<AccountEntry>>, new: Option<&Arc<AccountEntry>>) {
        let stays = |entry: &&Weak<AccountEntry>| {
            entry.strong_count() > 0 && account.is_none_or(|account| entry.as_ptr() != Arc::as_ptr(account))
        };
        let mut accounts: Vec<_> = self.as_slice().iter().filter(stays).cloned().collect();
        accounts.extend(new.map(Arc::downgrade));
        *self = match accounts.len() {
            0 | 1 => Self::One(accounts.pop().unwrap_or_default()),
            _ => Self::Many(Box::new(accounts)),
        };
    }
}

/// One account: the name by which programs read and refresh a record.
#[derive(Debug)]
pub(crate) struct AccountEntry {
    pub(crate) id: AccountId,
    pub(crate) provider: Arc<Provider>,
    pub(crate) view_handle: ViewHandle,
    shown: Mutex<Shown>,
    pub(crate) requests: AtomicU64,
    pub(crate) watchers: AtomicU32,
}

/// The record that an account shows, and the account's own state.
#[derive(Debug)]
struct Shown {
    record: Arc<RecordEntry>,
    state: AccountState,
}

impl RecordId {
    fn empty(&self) -> &Arc<Record> {
        static EMPTY: LazyLock<Arc<Record>> = LazyLock::new(Arc::default);
        match self {
            Self::Name(_) => &EMPTY,
            Self::Login(login) => &login.1,
        }
    }
}

impl RecordEntry {
    /// Creates the entry of the record of `login`, or without one, of the account with the name `key`.
    pub(crate) fn new(key: StoreKey, provider: Arc<Provider>, login: Option<&LoginId>) -> Arc<Self> {
        let id = match login {
            Some(login) => RecordId::Login(Box::new((key, Arc::new(Record::of_login(login))))),
            None => RecordId::Name(key),
        };
        let local = Mutex::new(LocalState::new(Arc::clone(id.empty())));
        Arc::new(Self {
            id,
            provider,
            local,
            accounts: Mutex::new(AccountList::One(Weak::new())),
            changed: Notify::new(),
        })
    }

    /// The login of the record; `None` if it belongs to an account whose credential states none.
    pub(crate) fn login(&self) -> Option<&LoginId> {
        self.id.empty().login_id()
    }

    /// The key of the record in the store.
    pub(crate) fn key(&self) -> &StoreKey {
        match &self.id {
            RecordId::Name(key) => key,
            RecordId::Login(login) => &login.0,
        }
    }

    /// The record if the store has none. It states the login.
    pub(crate) fn empty(&self) -> &Arc<Record> {
        self.id.empty()
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
    /// It is not a tokio mutex, because that would need 40 more bytes per account, and would hand the lock to a waiter
    /// whose future may not be polled. A release wakes the waiters in order. A task that finds waiters lets them run
    /// first. Otherwise a task that reads the store in a loop would always take the lock again before a woken waiter
    /// runs.
    pub(crate) async fn lock_sync(&self) -> SyncGuard<'_> {
        let has_waiters = self.local().sync_waiters > 0;
        if has_waiters {
            tokio::task::yield_now().await;
        }
        let _waiter = SyncWaiter::new(self);
        wait_until(&self.changed, || !std::mem::replace(&mut self.local().is_syncing, true)).await;
        SyncGuard(self)
    }

    /// A view of the record that belongs to no account.
    pub(crate) fn view(&self) -> Arc<View> {
        let local = self.local();
        let record = local.effective_record(self.provider.store_client.now_estimate());
        Arc::new(View::new(0, record, Arc::clone(&self.provider), local.flags(), None))
    }

    /// Changes the local state and publishes the new view of each account.
    pub(crate) fn update<T>(&self, work: impl FnOnce(&mut LocalState) -> T) -> T {
        let mut local = self.local();
        let output = work(&mut local);
        let changes = self.publish(&local);
        drop(local);
        self.announce(&changes);
        output
    }

    /// Publishes under the lock of the local state, so that an earlier view never replaces a later one.
    fn publish(&self, local: &LocalState) -> Vec<(Arc<AccountEntry>, ViewChange)> {
        let record = local.effective_record(self.provider.store_client.now_estimate());
        let flags = self.flags(local);
        let published = self.accounts().into_iter().map(|account| {
            let change = account.publish(&mut account.state(), &record, &flags);
            (account, change)
        });
        published.collect()
    }

    /// The flags of the record for the views of its accounts.
    fn flags(&self, local: &LocalState) -> ViewFlags {
        ViewFlags { is_shared: self.accounts.lock().as_slice().len() > 1, ..local.flags() }
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

    /// Whether the entry must be kept: an account shows it, it is being refreshed, or it has changes that are not in
    /// the store.
    pub(crate) fn is_in_use(&self) -> bool {
        let local = self.local();
        local.in_flight.is_some()
            || !local.is_saved()
            || self.accounts.lock().as_slice().iter().any(|account| account.strong_count() > 0)
    }

    /// Removes an account that no longer shows this record. Returns the changes that it made before its login was first checked.
    pub(crate) fn detach(&self, account: &Arc<AccountEntry>) -> Option<Box<Pending>> {
        let mut local = self.local();
        self.accounts.lock().replace(Some(account), None);
        if account.is_unchecked() { local.pending.take() } else { None }
    }

    /// Makes an account show this record, and adds the changes that it made before its login was first checked. Changes of another
    /// login are dropped.
    pub(crate) fn attach(
        self: &Arc<Self>,
        account: &Arc<AccountEntry>,
        selection: Selection,
        pending: Option<Box<Pending>>,
    ) {
        let mut local = self.local();
        if let Some(pending) = pending {
            let now = self.provider.store_client.now_estimate();
            let _ = local.observe(now, &pending.seed, pending.owner_id.as_ref());
        }
        self.accounts.lock().replace(Some(account), Some(account));
        {
            let mut shown = account.shown.lock();
            shown.record = Arc::clone(self);
            shown.state.record_selected(selection);
        }
        account.view_handle.set_followed(local.is_followed);
        let changes = self.publish(&local);
        drop(local);
        self.announce(&changes);
    }

    /// Whether a caller has read a view since the previous call of `take_accessed`, or waits for changes.
    pub(crate) fn take_accessed(&self) -> bool {
        // Do not use `any`, which would leave the flags of later accounts set.
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

/// Counts a task that waits for the lock.
struct SyncWaiter<'a>(&'a RecordEntry);

impl<'a> SyncWaiter<'a> {
    fn new(record: &'a RecordEntry) -> Self {
        record.local().sync_waiters += 1;
        Self(record)
    }
}

impl Drop for SyncWaiter<'_> {
    fn drop(&mut self) {
        self.0.local().sync_waiters -= 1;
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

/// The effects of a new view.
#[derive(Debug, Clone, Copy)]
struct ViewChange {
    has_changed: bool,
    has_new_login: bool,
}

impl AccountEntry {
    /// Creates the entry of an account that shows the record of its name.
    pub(crate) fn new(
        id: AccountId,
        record: Arc<RecordEntry>,
        view_handle: ViewHandle,
        selection: Selection,
    ) -> Arc<Self> {
        let state = AccountState::new(selection, record.provider.clock.recent_ms());
        view_handle.set_checks_login(selection == Selection::Unchecked);
        let account = Arc::new(Self {
            id,
            provider: Arc::clone(&record.provider),
            view_handle,
            shown: Mutex::new(Shown { record: Arc::clone(&record), state }),
            requests: AtomicU64::new(0),
            watchers: AtomicU32::new(0),
        });
        record.accounts.lock().replace(None, Some(&account));
        account
    }

    /// The entry of the record that the account shows.
    pub(crate) fn record(&self) -> Arc<RecordEntry> {
        Arc::clone(&self.shown.lock().record)
    }

    /// Whether the account shows this record.
    pub(crate) fn shows(&self, record: &Arc<RecordEntry>) -> bool {
        Arc::ptr_eq(&self.shown.lock().record, record)
    }

    /// Why the account shows its record.
    pub(crate) fn selection(&self) -> Selection {
        self.state().selection
    }

    /// Whether the login of the account was never checked.
    pub(crate) fn is_unchecked(&self) -> bool {
        self.selection() == Selection::Unchecked
    }

    pub(crate) fn view(&self) -> Guard<Arc<View>> {
        self.view_handle.load()
    }

    /// The state of the account. To change what readers see, use `update`.
    pub(crate) fn state(&self) -> MappedMutexGuard<'_, AccountState> {
        MutexGuard::map(self.shown.lock(), |shown| &mut shown.state)
    }

    /// Requires a check of the login, because the account has another credential source.
    pub(crate) fn source_changed(self: &Arc<Self>) {
        let record = self.record();
        let is_unused = record.login().is_none() && {
            let local = record.local();
            local.sync_state == SyncState::Unsynced && local.base == *record.empty()
        };
        match self.selection() {
            Selection::Program => return,
            Selection::Source if is_unused => self.update(|state| state.selection = Selection::Unchecked),
            Selection::Source | Selection::Alias | Selection::Unchecked => {}
        }
        self.view_handle.set_checks_login(true);
        self.view_handle.require_login_check(self.provider.clock.recent_ms());
    }

    /// Records that the account keeps its record, for this reason. Readings that were hidden because their login was unknown are
    /// shown again.
    pub(crate) fn confirm(self: &Arc<Self>, selection: Selection) {
        let needs_update = {
            let state = self.state();
            state.selection != selection || state.unattributed
        };
        if needs_update {
            self.update(|state| (state.selection, state.unattributed) = (selection, false));
        }
    }

    /// Changes the state of the account and publishes the new view.
    pub(crate) fn update(self: &Arc<Self>, work: impl FnOnce(&mut AccountState)) {
        loop {
            let record = self.record();
            let local = record.local();
            let effective = local.effective_record(self.provider.store_client.now_estimate());
            let flags = record.flags(&local);
            let mut shown = self.shown.lock();
            // Another task may have selected another record before the locks were taken.
            if !Arc::ptr_eq(&shown.record, &record) {
                continue;
            }
            work(&mut shown.state);
            let change = self.publish(&mut shown.state, &effective, &flags);
            drop(shown);
            drop(local);
            return record.announce(&[(Arc::clone(self), change)]);
        }
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
        let flags = ViewFlags {
            unattributed: state.unattributed,
            is_unchecked: state.selection == Selection::Unchecked,
            failed: state.failed.clone(),
            ..flags.clone()
        };
        let has_changed = flags.differ_from(&before) || *record != before.record;
        let generation = before.generation + u64::from(has_changed);
        let view = View::new(
            generation,
            Arc::clone(record),
            Arc::clone(&self.provider),
            flags,
            state.checked.as_ref(),
        );
        self.view_handle.store(Arc::new(view));
        ViewChange { has_changed, has_new_login }
    }

    fn take_accessed(&self) -> bool {
        self.view_handle.take_accessed() || self.watchers.load(Ordering::Relaxed) > 0
    }
}
