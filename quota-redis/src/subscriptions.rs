//! The subscriptions of one connection, and their waiters.
//! `version_tracker` decides which versions wake a waiter; `subscription_task` subscribes, queries and unsubscribes.

mod waiter;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};
use quota_core::store::{Notice, Version};
use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;

use crate::error::Error;
use crate::key::Key;
use crate::script;
use crate::task::Task;
use crate::version_tracker::VersionTracker;

pub(crate) use self::waiter::{Query, Waiter};

/// The subscriptions of one connection.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    table: Mutex<Table>,
    /// Set under the lock, and read by every call without it.
    is_closed: AtomicBool,
    desynced: AtomicBool,
}

#[derive(Debug, Default)]
struct Table {
    /// The subscriptions by channel.
    by_channel: HashMap<Arc<str>, Subscription>,
    /// The number of parked subscriptions.
    parked: usize,
    /// The number of probes so far.
    probes: u64,
}

#[derive(Debug)]
struct Subscription {
    key: Key,
    tracker: VersionTracker,
    phase: SubscriptionPhase,
    /// SUBSCRIBE commands that are not yet confirmed. A confirmation may arrive after its caller has timed out.
    unconfirmed: usize,
    waiters: usize,
    /// Counts all waiters so far. The task uses it to notice a waiter that came and went during its pause.
    arrivals: u64,
    /// The number of the last probe of this key.
    last_probe: u64,
    /// How often the connection was confirmed to deliver all notices.
    confirmations: u64,
    changed: Arc<Notify>,
    last_waiter_left: Arc<Notify>,
    _task: Option<Task>,
}

#[derive(Debug, Clone)]
enum SubscriptionPhase {
    /// Not subscribed, or not yet confirmed. Versions come only from replies.
    Unsubscribed,
    /// Subscribed.
    Subscribed,
    /// Subscribed, but without waiters and without a task.
    Parked,
    /// Unsubscribing.
    Unsubscribing,
    /// Subscribing or querying failed.
    Failed(Error),
}

/// The state in which a subscription task starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartFrom {
    /// There is no subscription.
    Nothing,
    /// There is a subscription.
    Subscribed,
}

/// The connection is replaced if more subscriptions than this, and more than half of all, are parked: their notices then cost
/// more than a new connection.
const MAX_PARKED: usize = 256;

impl Subscriptions {
    /// Handles a push message. The connection calls it in the order of arrival.
    pub(crate) fn on_push(&self, push: PushInfo) {
        let mut data = push.data.into_iter();
        let channel = match data.next() {
            Some(Value::BulkString(channel)) => String::from_utf8(channel).ok(),
            Some(Value::SimpleString(channel)) => Some(channel),
            _ => None,
        };
        let channel = channel.as_deref();
        match push.kind {
            PushKind::Message | PushKind::SMessage => {
                if let (Some(channel), Some(Value::BulkString(message))) = (channel, data.next()) {
                    self.on_message(channel, script::notice(message.into()).unwrap_or_default());
                }
            }
            PushKind::Subscribe | PushKind::SSubscribe => self.on_confirmation(channel, true),
            PushKind::Unsubscribe => self.on_confirmation(channel, false),
            // The redis client mistakes such a message for the reply to the oldest command, and assigns every later
            // reply to the wrong command. This store never sends these commands, but a cluster sends SUnsubscribe when
            // a slot has moved.
            PushKind::SUnsubscribe | PushKind::PSubscribe | PushKind::PUnsubscribe => self.mark_desynced(),
            PushKind::Disconnection => self.close(),
            _ => {}
        }
    }

    fn on_message(&self, channel: &str, notice: Notice) {
        if let Some(subscription) = self.table().by_channel.get_mut(channel) {
            // Treat an unreadable notice as a version that no caller has, so that it wakes all waiters.
            subscription.tracker.on_notice(notice.version.unwrap_or(Version::new(0)), notice.body);
            subscription.changed.notify_waiters();
        }
    }

    fn on_confirmation(&self, channel: Option<&str>, subscribed: bool) {
        let is_ours = channel.is_some_and(|channel| {
            let mut table = self.table();
            match table.by_channel.get_mut(channel) {
                Some(subscription) if subscribed && subscription.unconfirmed > 0 => {
                    subscription.unconfirmed -= 1;
                    if matches!(subscription.phase, SubscriptionPhase::Unsubscribed) {
                        subscription.phase = SubscriptionPhase::Subscribed;
                        subscription.tracker.reset();
                    }
                    true
                }
                Some(subscription) => {
                    !subscribed && matches!(subscription.phase, SubscriptionPhase::Unsubscribing)
                }
                None => false,
            }
        });
        if !is_ours {
            self.mark_desynced();
        }
    }

    /// Call this before sending SUBSCRIBE for the channel.
    pub(crate) fn expect_confirmation(&self, channel: &str) {
        if let Some(subscription) = self.table().by_channel.get_mut(channel) {
            subscription.unconfirmed += 1;
        }
    }

    /// The server rejected SUBSCRIBE, so no confirmation follows.
    pub(crate) fn forget_confirmation(&self, channel: &str) {
        if let Some(subscription) = self.table().by_channel.get_mut(channel) {
            subscription.unconfirmed = subscription.unconfirmed.saturating_sub(1);
        }
    }

    /// Rejects all later replies, because they can no longer be assigned to commands.
    fn mark_desynced(&self) {
        self.desynced.store(true, Ordering::Release);
        self.close();
    }

    /// Whether a reply may belong to another command.
    pub(crate) fn is_desynced(&self) -> bool {
        self.desynced.load(Ordering::Acquire)
    }

    /// Closes the connection and wakes all waiters, because they may have missed a change.
    pub(crate) fn close(&self) {
        let by_channel = {
            let mut table = self.table();
            self.is_closed.store(true, Ordering::Release);
            std::mem::take(&mut table.by_channel)
        };
        for subscription in by_channel.values() {
            subscription.changed.notify_waiters();
            subscription.last_waiter_left.notify_waiters();
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Call this before sending a query for the document of the channel, or a write of the version `own`.
    pub(crate) fn start_query<'a>(&'a self, channel: &'a str, own: Option<Version>) -> Query<'a> {
        let mut query = Query { subscriptions: self, channel, epoch: None, own_pending: None };
        if let Some(subscription) = self.table().by_channel.get_mut(channel) {
            query.epoch = Some(subscription.tracker.start_query());
            // The notice is certain to arrive only if the subscription was confirmed before the write is sent.
            if let Some(version) = own
                && matches!(subscription.phase, SubscriptionPhase::Subscribed | SubscriptionPhase::Parked)
            {
                subscription.tracker.expect_own(version);
                query.own_pending = Some(version);
            }
        }
        query
    }

    /// Starts to wait, and spawns the subscription task if there is none. `None` if the connection is closed.
    ///
    /// # Errors
    ///
    /// If the task could not be spawned.
    pub(crate) fn add_waiter(
        self: &Arc<Self>,
        key: &Key,
        spawn_task: impl FnOnce(StartFrom) -> Result<Task, Error>,
    ) -> Result<Option<Waiter>, Error> {
        let mut guard = self.table();
        let table = &mut *guard;
        let channel = &key.channel;
        if self.is_closed() {
            return Ok(None);
        }
        let subscription = match table.by_channel.get_mut(channel) {
            Some(subscription) => {
                match subscription.phase {
                    SubscriptionPhase::Unsubscribed
                    | SubscriptionPhase::Subscribed
                    | SubscriptionPhase::Unsubscribing => {}
                    SubscriptionPhase::Parked => {
                        subscription._task = Some(spawn_task(StartFrom::Subscribed)?);
                        subscription.phase = SubscriptionPhase::Subscribed;
                        table.parked -= 1;
                    }
                    SubscriptionPhase::Failed(_) => {
                        subscription._task = Some(spawn_task(StartFrom::Nothing)?);
                        subscription.phase = SubscriptionPhase::Unsubscribed;
                        subscription.tracker.reset();
                    }
                }
                subscription
            }
            None => {
                let task = Some(spawn_task(StartFrom::Nothing)?);
                table
                    .by_channel
                    .entry(Arc::clone(channel))
                    .or_insert_with(|| Subscription::new(key.clone(), task))
            }
        };
        subscription.waiters += 1;
        subscription.arrivals += 1;
        let (changed, confirmations) = (Arc::clone(&subscription.changed), subscription.confirmations);
        let (subscriptions, channel) = (Arc::clone(self), Arc::clone(channel));
        Ok(Some(Waiter { subscriptions, channel, changed, confirmations }))
    }

    /// The key with waiters that was probed least recently, so that all keys are probed in turn.
    pub(crate) fn next_awaited_key(&self) -> Option<Key> {
        let mut guard = self.table();
        let table = &mut *guard;
        table.probes += 1;
        let awaited = table.by_channel.values_mut().filter(|subscription| subscription.waiters > 0);
        let next = awaited.min_by_key(|subscription| subscription.last_probe)?;
        next.last_probe = table.probes;
        Some(next.key.clone())
    }

    /// Call this when the server has replied over this connection. All earlier notices have then arrived, and the
    /// waiters are notified of that.
    pub(crate) fn confirm(&self) {
        let mut table = self.table();
        let is_current = |subscription: &&mut Subscription| {
            matches!(subscription.phase, SubscriptionPhase::Subscribed) && subscription.tracker.is_known()
        };
        for subscription in table.by_channel.values_mut().filter(is_current) {
            subscription.confirmations += 1;
            subscription.changed.notify_waiters();
        }
    }

    /// Records that subscribing failed, or the query after it, and wakes the waiters.
    pub(crate) fn fail(&self, channel: &str, error: Error) {
        if let Some(subscription) = self.table().by_channel.get_mut(channel) {
            subscription.phase = SubscriptionPhase::Failed(error);
            subscription.changed.notify_waiters();
        }
    }

    /// Waits until a whole pause has passed without a waiter, then marks the subscription as unsubscribing.
    pub(crate) async fn wait_idle<F: Future<Output = ()>>(&self, channel: &str, pause: impl Fn() -> F) {
        loop {
            let Some(last_waiter_left) = self
                .table()
                .by_channel
                .get(channel)
                .map(|subscription| Arc::clone(&subscription.last_waiter_left))
            else {
                return;
            };
            let mut gone = pin!(last_waiter_left.notified());
            gone.as_mut().enable();
            let arrivals = match self.table().by_channel.get(channel) {
                Some(subscription) if subscription.waiters == 0 => Some(subscription.arrivals),
                Some(_) => None,
                None => return,
            };
            let Some(arrivals) = arrivals else {
                gone.await;
                continue;
            };
            pause().await;
            match self.table().by_channel.get_mut(channel) {
                Some(subscription) if subscription.waiters == 0 && subscription.arrivals == arrivals => {
                    subscription.phase = SubscriptionPhase::Unsubscribing;
                    return;
                }
                Some(_) => {}
                None => return,
            }
        }
    }

    /// Keeps an idle subscription without a task.
    pub(crate) fn park(&self, channel: &str) -> Parked {
        let mut guard = self.table();
        let table = &mut *guard;
        match table.by_channel.get_mut(channel) {
            // A waiter arrived in between.
            Some(subscription) if subscription.waiters > 0 => {
                subscription.phase = SubscriptionPhase::Subscribed;
                return Parked::Wanted;
            }
            Some(subscription) => subscription.phase = SubscriptionPhase::Parked,
            None => return Parked::Yes,
        }
        table.parked += 1;
        if table.parked > MAX_PARKED && table.parked * 2 > table.by_channel.len() {
            Parked::TooMany
        } else {
            Parked::Yes
        }
    }

    /// Removes a subscription without waiters. Returns false if it has waiters; the task must then subscribe again.
    pub(crate) fn remove_if_idle(&self, channel: &str) -> bool {
        let mut table = self.table();
        let removed = match table.by_channel.get_mut(channel) {
            Some(subscription) if subscription.waiters > 0 => {
                subscription.phase = SubscriptionPhase::Unsubscribed;
                return false;
            }
            Some(_) => table.by_channel.remove(channel),
            None => None,
        };
        drop(table);
        // Drop it outside the lock, because it owns the handle of the calling task.
        drop(removed);
        true
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }
}

/// The result of parking an idle subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parked {
    /// It is parked.
    Yes,
    /// It has a waiter again.
    Wanted,
    /// Too many are parked: the connection should be replaced.
    TooMany,
}

impl Subscription {
    fn new(key: Key, task: Option<Task>) -> Self {
        Self {
            key,
            tracker: VersionTracker::default(),
            phase: SubscriptionPhase::Unsubscribed,
            unconfirmed: 0,
            waiters: 0,
            arrivals: 0,
            last_probe: 0,
            confirmations: 0,
            changed: Arc::default(),
            last_waiter_left: Arc::default(),
            _task: task,
        }
    }
}

#[cfg(test)]
mod tests;
