//! The guards of one subscription: a query in flight, and a waiter. Dropping either one updates the subscription, even when its
//! future is cancelled.

use std::pin::pin;
use std::sync::Arc;

use quota_core::store::{Notice, Version};
use tokio::sync::Notify;

use super::{Subscription, SubscriptionPhase, Subscriptions};
use crate::error::Error;
use crate::version_tracker::QueryEpoch;

/// A query or write in flight. If it is dropped without a reply, the notice of its write is no longer expected.
#[derive(Debug)]
pub(crate) struct Query<'a> {
    pub(super) subscriptions: &'a Subscriptions,
    pub(super) channel: &'a str,
    pub(super) epoch: Option<QueryEpoch>,
    pub(super) own_pending: Option<Version>,
}

impl Query<'_> {
    /// The reply contains the current version.
    pub(crate) fn on_version(self, version: Option<Version>) {
        if let Some(epoch) = self.epoch
            && let Some(subscription) = self.subscriptions.table().by_channel.get_mut(self.channel)
            && subscription.tracker.on_reply(epoch, version)
        {
            subscription.changed.notify_waiters();
        }
    }

    /// The write is applied. `published` is true if its notice arrives on this connection.
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

/// A caller that waits for a change.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(super) subscriptions: Arc<Subscriptions>,
    pub(super) channel: Arc<str>,
    pub(super) changed: Arc<Notify>,
    /// The confirmations of the subscription when the wait began.
    pub(super) confirmations: u64,
}

impl Waiter {
    /// Completes once the document may have a version other than `seen`, the connection is closed, or it is confirmed that no
    /// notice is missing.
    ///
    /// # Errors
    ///
    /// If neither notices nor queries are possible.
    pub(crate) async fn changed(&self, seen: Option<Version>) -> Result<Notice, Error> {
        loop {
            let mut changed = pin!(self.changed.notified());
            // Register before the check, so that a change in between is not missed.
            changed.as_mut().enable();
            match self.subscriptions.table().by_channel.get(&self.channel) {
                None => return Ok(Notice::default()),
                Some(Subscription { phase: SubscriptionPhase::Failed(error), .. }) => {
                    return Err(error.clone());
                }
                Some(subscription) if subscription.tracker.differs_from(seen) => {
                    return Ok(subscription.tracker.notice());
                }
                Some(subscription) if subscription.confirmations != self.confirmations => {
                    return Ok(Notice::unchanged());
                }
                Some(_) => {}
            }
            changed.await;
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let Some(subscription) = self.subscriptions.table().by_channel.get_mut(&self.channel) {
            // A subscription that was removed and added again has not counted this waiter.
            subscription.waiters = subscription.waiters.saturating_sub(1);
            if subscription.waiters == 0 {
                subscription.last_waiter_left.notify_waiters();
            }
        }
    }
}
