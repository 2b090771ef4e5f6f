//! One account in this process: its desk, the view that readers see, and who waits for changes.
//! What lies on the desk is in `desk`; when it is worked on is in `flight` and `changes`.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::Guard;
use tokio::sync::Notify;

use super::desk::Desk;
use super::events::Event;
use super::provider::Provider;
use super::shelf::Sight;
use super::view::View;
use crate::AccountId;

/// One account.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) id: AccountId,
    pub(crate) provider: Arc<Provider>,
    pub(crate) sight: Sight,
    desk: Mutex<Desk>,
    /// One conversation with the store at a time, so that answers are taken in the order in which they were true.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// The view has changed.
    pub(crate) news: Notify,
    pub(crate) requests: AtomicU64,
    pub(crate) watchers: AtomicU32,
    /// Whether the manager's register holds it, too.
    is_registered: AtomicBool,
}

impl Slot {
    pub(crate) fn new(id: AccountId, provider: Arc<Provider>, sight: Sight) -> Arc<Self> {
        let desk = Desk::on(Arc::clone(&sight.glance().record));
        Arc::new(Self {
            id,
            provider,
            sight,
            desk: Mutex::new(desk),
            turn: tokio::sync::Mutex::new(()),
            news: Notify::new(),
            requests: AtomicU64::new(0),
            watchers: AtomicU32::new(0),
            is_registered: AtomicBool::new(true),
        })
    }

    pub(crate) fn view(&self) -> Guard<Arc<View>> {
        self.sight.look()
    }

    /// Whether anybody has been interested since this was asked last, or is waiting for changes.
    pub(crate) fn take_look(&self) -> bool {
        self.sight.take_look() || self.watchers.load(Ordering::Relaxed) > 0
    }

    /// The manager has forgotten the account; existing handles keep the slot.
    pub(crate) fn leave_register(&self) {
        self.is_registered.store(false, Ordering::Relaxed);
    }

    /// Whether there is a handle or a refresh of the account, beside the register and the caller of this.
    pub(crate) fn has_handle(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > 1 + usize::from(self.is_registered.load(Ordering::Relaxed))
    }

    /// Follows the account no longer.
    pub(crate) fn let_go(&self, desk: &mut Desk) {
        self.sight.set_followed(false);
        desk.let_go();
    }

    pub(crate) fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works at the desk, and shows what came of it.
    pub(crate) fn update<T>(&self, work: impl FnOnce(&mut Desk) -> T) -> T {
        let mut desk = self.desk();
        let done = work(&mut desk);
        let record = desk.shown(self.provider.link.guess());
        let before = self.sight.glance();
        let login_changed = record.is_of_another_login(&before.record);
        if login_changed || record.asked_at() > before.record.asked_at() {
            desk.failed = None;
        }
        let caveats = desk.caveats();
        let is_news = caveats.is_news_after(&before.caveats) || record != before.record;
        let generation = before.generation + u64::from(is_news);
        let view = View::new(generation, record, Arc::clone(&self.provider), caveats);
        // Stored under the lock: of two pictures the later is never replaced by the earlier.
        self.sight.show(Arc::new(view));
        drop(desk);
        if is_news {
            self.news.notify_waiters();
        }
        if login_changed {
            self.provider.link.tell(Event::LoginChanged { account: self.id.clone() });
        }
        done
    }
}
