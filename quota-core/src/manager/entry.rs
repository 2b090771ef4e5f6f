//! One account in this process: its local state, its view for readers, and the notification of changes.
//! The local state is defined in `state`; `refresh` and `follower` change it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use arc_swap::Guard;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::events::Event;
use super::provider::Provider;
use super::state::LocalState;
use super::view::View;
use super::view_table::ViewHandle;
use crate::model::AccountId;

/// One account.
#[derive(Debug)]
pub(crate) struct AccountEntry {
    pub(crate) id: AccountId,
    pub(crate) provider: Arc<Provider>,
    pub(crate) view_handle: ViewHandle,
    local: Mutex<LocalState>,
    /// Serializes the account's reads and writes of the store. Otherwise an older response could replace a newer one.
    pub(crate) sync_lock: tokio::sync::Mutex<()>,
    /// Notifies waiters after each change of the view.
    pub(crate) view_changed: Notify,
    pub(crate) requests: AtomicU64,
    pub(crate) watchers: AtomicU32,
    /// Whether the registry has a reference to this entry.
    is_registered: AtomicBool,
}

impl AccountEntry {
    pub(crate) fn new(id: AccountId, provider: Arc<Provider>, view_handle: ViewHandle) -> Arc<Self> {
        let local = LocalState::new(Arc::clone(&view_handle.load_untracked().record));
        Arc::new(Self {
            id,
            provider,
            view_handle,
            local: Mutex::new(local),
            sync_lock: tokio::sync::Mutex::new(()),
            view_changed: Notify::new(),
            requests: AtomicU64::new(0),
            watchers: AtomicU32::new(0),
            is_registered: AtomicBool::new(true),
        })
    }

    pub(crate) fn view(&self) -> Guard<Arc<View>> {
        self.view_handle.load()
    }

    /// Whether a caller has read the view since the previous call of `take_accessed`, or waits for changes.
    pub(crate) fn take_accessed(&self) -> bool {
        self.view_handle.take_accessed() || self.watchers.load(Ordering::Relaxed) > 0
    }

    /// Records that the registry has dropped its reference. Existing handles keep the entry.
    pub(crate) fn mark_unregistered(&self) {
        self.is_registered.store(false, Ordering::Relaxed);
    }

    /// Whether any handle or refresh refers to the entry, besides the registry and this caller.
    pub(crate) fn has_handle(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > 1 + usize::from(self.is_registered.load(Ordering::Relaxed))
    }

    /// Records that the follower has ended: the next decision must read the store.
    pub(crate) fn invalidate(&self, local: &mut LocalState) {
        self.view_handle.set_followed(false);
        local.invalidate();
    }

    pub(crate) fn local(&self) -> MutexGuard<'_, LocalState> {
        self.local.lock()
    }

    /// Changes the local state and publishes the new view.
    pub(crate) fn update<T>(&self, work: impl FnOnce(&mut LocalState) -> T) -> T {
        let mut local = self.local();
        let output = work(&mut local);
        let record = local.effective_record(self.provider.store_client.now_estimate());
        let before = self.view_handle.load_untracked();
        let login_changed = record.is_of_another_login(&before.record);
        if login_changed || record.complete_at() > before.record.complete_at() {
            local.failed = None;
        }
        let flags = local.flags();
        let has_changed = flags.differs_from(&before.flags) || record != before.record;
        let generation = before.generation + u64::from(has_changed);
        let view = View::new(generation, record, Arc::clone(&self.provider), flags);
        // Store the view under the lock, so that an earlier view never replaces a later one.
        self.view_handle.store(Arc::new(view));
        drop(local);
        if has_changed {
            self.view_changed.notify_waiters();
        }
        if login_changed {
            self.provider.store_client.emit(Event::LoginChanged { account: self.id.clone() });
        }
        output
    }
}
