//! One account in this process: its local state, the view that readers see, and the waiters for changes.
//! The local state is in `state`; `refresh` and `follower` change it.

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
    /// Serializes trips to the store, so that responses are accepted in the order of the store's versions.
    pub(crate) sync_lock: tokio::sync::Mutex<()>,
    /// The view has changed.
    pub(crate) view_changed: Notify,
    pub(crate) requests: AtomicU64,
    pub(crate) watchers: AtomicU32,
    /// Whether the registry holds it, too.
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

    /// Whether a caller has read the view since the last call of this, or waits for changes.
    pub(crate) fn take_accessed(&self) -> bool {
        self.view_handle.take_accessed() || self.watchers.load(Ordering::Relaxed) > 0
    }

    /// The manager has forgotten the account; existing handles keep the entry.
    pub(crate) fn leave_register(&self) {
        self.is_registered.store(false, Ordering::Relaxed);
    }

    /// Whether there is a handle or a refresh of the account, beside the registry and the caller of this.
    pub(crate) fn has_handle(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > 1 + usize::from(self.is_registered.load(Ordering::Relaxed))
    }

    /// Follows the account no longer.
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
        let done = work(&mut local);
        let record = local.effective_record(self.provider.store_client.now_estimate());
        let before = self.view_handle.load_untracked();
        let login_changed = record.is_of_another_login(&before.record);
        if login_changed || record.complete_at() > before.record.complete_at() {
            local.failed = None;
        }
        let flags = local.flags();
        let is_news = flags.differs_from(&before.flags) || record != before.record;
        let generation = before.generation + u64::from(is_news);
        let view = View::new(generation, record, Arc::clone(&self.provider), flags);
        // Stored under the lock, so that an earlier view never replaces a later one.
        self.view_handle.store(Arc::new(view));
        drop(local);
        if is_news {
            self.view_changed.notify_waiters();
        }
        if login_changed {
            self.provider.store_client.emit(Event::LoginChanged { account: self.id.clone() });
        }
        done
    }
}
