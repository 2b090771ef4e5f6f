//! One refresh of one account as its callers share it: the request, its position in the line to the provider, its result.
//! The task that runs it is in `refresh`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::error::QuotaError;
use super::limiter::{CallLimiter, Ticket};
use super::tasks::wait_until;
use super::view::View;
use crate::model::LoginId;
use crate::record::Priority;

/// A refresh under way.
#[derive(Debug)]
pub(crate) struct InFlight {
    /// The login it was asked for; `None` if it is for whichever the account holds.
    pub(crate) login_id: Option<LoginId>,
    /// What its first caller wanted.
    pub(crate) wish: Wish,
    result: OnceLock<RefreshResult>,
    done: Notify,
    position: Mutex<QueuePosition>,
}

/// Where it stands in the line to the provider.
#[derive(Debug)]
struct QueuePosition {
    priority: Priority,
    ticket: Option<u64>,
}

/// What a refresh came to.
pub(crate) type RefreshResult = Result<Refreshed, QuotaError>;

/// A refresh that ended without an error.
#[derive(Debug)]
pub(crate) struct Refreshed {
    /// Whether the provider was called; otherwise another process's readings were fresh enough.
    pub(crate) fetched: bool,
    /// When the call was started that made another one needless, where that is why none was made.
    pub(crate) called_at: Option<Timestamp>,
    /// What was known then, of the login it was asked for.
    pub(crate) view: Arc<View>,
}

impl Wish {
    /// Whether what satisfies this satisfies `other` as well.
    pub(crate) fn covers(self, other: Self) -> bool {
        match (self, other) {
            (Self::Now, _) => true,
            (Self::Within(mine), Self::Within(others))
            | (Self::CompleteWithin(mine), Self::Within(others) | Self::CompleteWithin(others))
            | (Self::UnlessCalledWithin(mine), Self::UnlessCalledWithin(others)) => mine <= others,
            (Self::Within(_) | Self::CompleteWithin(_) | Self::UnlessCalledWithin(_), _) => false,
        }
    }
}

/// What would be fresh enough.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wish {
    /// Readings of the whole account's windows younger than this.
    Within(Duration),
    /// Readings of every window younger than this, including windows of one model.
    CompleteWithin(Duration),
    /// Readings of a call that has yet to be started.
    Now,
    /// The outcome of a call with the same credential that was started less than so long ago, or has yet to be started.
    UnlessCalledWithin(Duration),
}

impl InFlight {
    pub(crate) fn new(login_id: Option<LoginId>, wish: Wish, priority: Priority) -> Arc<Self> {
        Arc::new(Self {
            login_id,
            wish,
            result: OnceLock::new(),
            done: Notify::new(),
            position: Mutex::new(QueuePosition { priority, ticket: None }),
        })
    }

    /// Waits for the end. Dropping the future does not stop the refresh.
    pub(crate) async fn wait(&self) -> &RefreshResult {
        wait_until(&self.done, || self.is_complete()).await;
        self.result.get().expect("it has landed")
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.result.get().is_some()
    }

    /// Ends it, once, and wakes all who wait.
    pub(crate) fn complete(&self, result: RefreshResult) {
        let _ = self.result.set(result);
        self.done.notify_waiters();
    }

    /// Takes a place in the line to the provider, where those who join later can move it up.
    pub(crate) fn enqueue(&self, limiter: &Arc<CallLimiter>) -> Ticket {
        let mut position = self.position.lock();
        let ticket = limiter.enqueue(position.priority);
        position.ticket = Some(ticket.number());
        ticket
    }

    /// The urgency of the most urgent of those who have joined.
    pub(crate) fn priority(&self) -> Priority {
        self.position.lock().priority
    }

    /// Moves it up in the line, if this is more urgent.
    pub(crate) fn raise_priority(&self, limiter: &CallLimiter, priority: Priority) {
        let mut position = self.position.lock();
        if priority > position.priority {
            position.priority = priority;
            if let Some(ticket) = position.ticket {
                limiter.raise_priority(ticket);
            }
        }
    }
}
