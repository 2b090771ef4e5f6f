//! Events of a manager, for its subscribers.
//! Nothing here causes anything.

use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::tasks::Tasks;
use crate::model::{AccountId, Rejected};
use crate::provider::FetchError;
use crate::record::Hold;

/// Something that happened to an account or to the store, as this process saw it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// This process asked the provider, and its readings stand.
    #[non_exhaustive]
    Refreshed {
        /// The account that was asked about.
        account: AccountId,
    },
    /// This process asked the provider, and it failed.
    #[non_exhaustive]
    Failed {
        /// The account that was asked about.
        account: AccountId,
        /// Why it failed.
        error: FetchError,
        /// The hold that follows from it, if one does.
        hold: Option<Hold>,
    },
    /// The account holds another login than before; what the old one left was cleared.
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
        /// How long it waits at most: until the other process's lease ends, or this program's time.
        until: Timestamp,
    },
    /// Values that cannot be true were left out of what was read of an account.
    #[non_exhaustive]
    Rejected {
        /// The account.
        account: AccountId,
        /// What was left out, and why.
        values: Vec<Rejected>,
    },
    /// The store does not answer: this process goes on with what it knows.
    StoreLost,
    /// The store answers again.
    StoreFound,
    /// So many events were not listened to in time.
    Missed(u64),
}

/// Reports values that were left out because they cannot be true.
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
    /// Tells those who listen, if any do.
    pub(crate) fn emit(&self, event: Event) {
        if let Some(listeners) = self.0.get() {
            let _ = listeners.send(event);
        }
    }

    fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.0.get_or_init(|| broadcast::channel(Events::KEPT).0).subscribe()
    }
}

/// Events from now on.
///
/// A slow subscriber misses the oldest events, and gets their number.
#[derive(Debug)]
pub struct Events {
    events: broadcast::Receiver<Event>,
    tasks: Arc<Tasks>,
}

impl Events {
    /// How many events are kept for a slow listener.
    const KEPT: usize = 256;

    pub(crate) fn of(sender: &EventSender, tasks: &Arc<Tasks>) -> Self {
        Self { events: sender.subscribe(), tasks: Arc::clone(tasks) }
    }

    /// Waits for the next event; `None` once the manager is closed and its tasks have ended, or it is gone. Dropping the
    /// future loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        let received = tokio::select! {
            biased;
            received = self.events.recv() => received,
            // The last task may have sent an event just before it ended.
            () = self.tasks.idle() => return self.events.try_recv().ok(),
        };
        match received {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(missed)) => Some(Event::Missed(missed)),
            Err(RecvError::Closed) => None,
        }
    }
}
