//! Those who have to do with one topic of a board: a question on its way, and somebody who waits.
//! Both leave their mark on the board when they go, however they go.

use std::pin::pin;
use std::sync::Arc;

use quota_core::Version;
use tokio::sync::Notify;

use super::{Subscription, SubscriptionPhase, Subscriptions};
use crate::error::Error;
use crate::version_tracker::QueryEpoch;

/// A question on its way. Dropped without an answer, a write in it is awaited no longer.
#[derive(Debug)]
pub(crate) struct Query<'a> {
    pub(super) subscriptions: &'a Subscriptions,
    pub(super) channel: &'a str,
    pub(super) epoch: Option<QueryEpoch>,
    pub(super) own_pending: Option<Version>,
}

impl Query<'_> {
    /// The answer says which version stands.
    pub(crate) fn on_version(self, version: Option<Version>) {
        if let Some(epoch) = self.epoch
            && let Some(subscription) = self.subscriptions.table().by_channel.get_mut(self.channel)
            && subscription.tracker.on_reply(epoch, version)
        {
            subscription.changed.notify_waiters();
        }
    }

    /// The write was carried out; `told` if its notice comes here.
    pub(crate) fn on_applied(mut self, version: Version, published: bool) {
        if published && self.own_pending.is_some() {
            self.own_pending = None;
        } else {
            self.on_version(Some(version));
        }
    }
}

impl Drop for Query<'_> {
    fn drop(&mut self) {
        if let Some(version) = self.own_pending
            && let Some(subscription) = self.subscriptions.table().by_channel.get_mut(self.channel)
        {
            subscription.tracker.forget_own(version);
            subscription.changed.notify_waiters();
        }
    }
}

/// Somebody who waits.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(super) subscriptions: Arc<Subscriptions>,
    pub(super) channel: Arc<str>,
    pub(super) changed: Arc<Notify>,
}

impl Waiter {
    /// Ready once the document may have moved past `seen`, or the connection is over.
    ///
    /// # Errors
    ///
    /// If there can be no notices and no look-ups.
    pub(crate) async fn changed(&self, seen: Option<Version>) -> Result<(), Error> {
        loop {
            let mut changed = pin!(self.changed.notified());
            // Registered before the look, so that what comes between the two is not missed.
            changed.as_mut().enable();
            match self.subscriptions.table().by_channel.get(&self.channel) {
                None => return Ok(()),
                Some(Subscription { phase: SubscriptionPhase::Failed(error), .. }) => {
                    return Err(error.clone());
                }
                Some(subscription) if subscription.tracker.differs_from(seen) => return Ok(()),
                Some(_) => {}
            }
            changed.await;
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let Some(subscription) = self.subscriptions.table().by_channel.get_mut(&self.channel) {
            // An entry that was taken away and came back knows nothing of this visit.
            subscription.waiters = subscription.waiters.saturating_sub(1);
            if subscription.waiters == 0 {
                subscription.last_waiter_left.notify_waiters();
            }
        }
    }
}
