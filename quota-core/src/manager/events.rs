//! The events of a manager and their subscribers.
//! The manager itself never reacts to an event.

use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::tasks::Tasks;
use crate::model::{AccountId, Rejected};
use crate::provider::FetchError;
use crate::record::Hold;

/// A change of an account or of the store that this process made or detected.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// This process called the provider and stored its readings.
    #[non_exhaustive]
    Refreshed {
        /// The account.
        account: AccountId,
    },
    /// A call of this process failed.
    #[non_exhaustive]
    Failed {
        /// The account.
        account: AccountId,
        /// Why it failed.
        error: FetchError,
        /// The hold that the failure armed, if any.
        hold: Option<Hold>,
    },
    /// The account's login changed, and the readings of the previous login were cleared.
    #[non_exhaustive]
    LoginChanged {
        /// The account.
        account: AccountId,
    },
    /// A refresh waits for another process, which is calling the provider for the same account.
    #[non_exhaustive]
    Waiting {
        /// The account.
        account: AccountId,
        /// The end of the wait: when the other process's lease expires, or at this program's deadline if that is earlier.
        until: Timestamp,
    },
    /// Implausible values were dropped from an account's readings.
    #[non_exhaustive]
    Rejected {
        /// The account.
        account: AccountId,
        /// The rejected values, each with its reason.
        values: Vec<Rejected>,
    },
    /// The store became unavailable, so this process runs standalone.
    StoreUnavailable,
    /// The store is available again.
    StoreAvailable,
    /// This subscriber was too slow and missed this many events.
    Missed(u64),
}

/// Logs rejected values and emits an event for them.
pub(crate) fn rejected_values(events: &EventSender, account: &AccountId, values: &[Rejected]) {
    for rejected in values {
        tracing::debug!(%account, window = %rejected.window, reason = rejected.reason, "implausible value left out");
    }
    if !values.is_empty() {
        events.emit(Event::Rejected { account: account.clone(), values: values.to_vec() });
    }
}

/// Sends events. The channel is created with the first subscriber.
#[derive(Debug, Clone, Default)]
pub(crate) struct EventSender(Arc<OnceLock<broadcast::Sender<Event>>>);

impl EventSender {
    /// Sends an event to all subscribers; there may be none.
    pub(crate) fn emit(&self, event: Event) {
        if let Some(sender) = self.0.get() {
            let _ = sender.send(event);
        }
    }

    fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.0.get_or_init(|| broadcast::channel(Events::CAPACITY).0).subscribe()
    }
}

/// A subscription to the events of a manager.
///
/// A slow subscriber misses the oldest events, and receives their number as [`Event::Missed`].
#[derive(Debug)]
pub struct Events {
    events: broadcast::Receiver<Event>,
    tasks: Arc<Tasks>,
}

impl Events {
    /// How many unread events a subscriber can have before it misses the oldest.
    const CAPACITY: usize = 256;

    pub(crate) fn of(sender: &EventSender, tasks: &Arc<Tasks>) -> Self {
        Self { events: sender.subscribe(), tasks: Arc::clone(tasks) }
    }

    /// Waits for the next event. Returns `None` once the manager was closed or dropped and its tasks have ended.
    ///
    /// Dropping the future loses no event.
    pub async fn next(&mut self) -> Option<Event> {
        let received = tokio::select! {
            biased;
            received = self.events.recv() => received,
            // The last task may have sent an event just before its end.
            () = self.tasks.idle() => return self.events.try_recv().ok(),
        };
        match received {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(missed)) => Some(Event::Missed(missed)),
            Err(RecvError::Closed) => None,
        }
    }
}
