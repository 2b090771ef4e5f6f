//! One refresh of one account as its callers share it: the request, its position in the line to the provider, its result.
//! The task that runs it is in `refresh`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::error::QuotaError;
use super::limiter::{CallLimiter, Ticket};
use super::store_client::StoreClient;
use super::tasks::wait_until;
use super::view::View;
use crate::model::LoginId;
use crate::record::{MaxStaleness, Priority};
use crate::time;

/// A refresh under way.
#[derive(Debug)]
pub(crate) struct InFlight {
    /// The login it was requested for; `None` for the login that the account holds.
    pub(crate) login_id: Option<LoginId>,
    /// The request of its first caller.
    pub(crate) request: RefreshRequest,
    result: OnceLock<RefreshResult>,
    done: Notify,
    position: Mutex<QueuePosition>,
}

/// Its position in the queue for the provider.
#[derive(Debug)]
struct QueuePosition {
    priority: Priority,
    ticket: Option<u64>,
}

/// The outcome of a refresh.
pub(crate) type RefreshResult = Result<Refreshed, QuotaError>;

/// A refresh that ended without an error.
#[derive(Debug)]
pub(crate) struct Refreshed {
    /// Whether the provider was called; otherwise another process's readings were fresh enough.
    pub(crate) fetched: bool,
    /// When the call started that made another one unnecessary, if that is why none was made.
    pub(crate) called_at: Option<Timestamp>,
    /// The view of the requested login at the end of the refresh.
    pub(crate) view: Arc<View>,
}

/// What satisfies a caller of a refresh.
///
/// [`MaxStaleness`] names times of the store's clock. A caller does not know that clock before the store was read, so the request
/// becomes a `MaxStaleness` when the lease is requested.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RefreshRequest {
    /// See [`MaxStaleness::Age`].
    Age(Duration),
    /// See [`MaxStaleness::CompleteAge`].
    CompleteAge(Duration),
    /// Readings of a call that starts after the request.
    NewCall,
    /// The outcome of a call with the same credential that started at most this long before the request, or after it.
    RecentCall(Duration),
}

impl RefreshRequest {
    /// Whether readings that satisfy this satisfy `other` as well.
    pub(crate) fn covers(self, other: Self) -> bool {
        match (self, other) {
            (Self::NewCall, _) => true,
            (Self::Age(mine), Self::Age(others))
            | (Self::CompleteAge(mine), Self::Age(others) | Self::CompleteAge(others))
            | (Self::RecentCall(mine), Self::RecentCall(others)) => mine <= others,
            (Self::Age(_) | Self::CompleteAge(_) | Self::RecentCall(_), _) => false,
        }
    }

    /// The requirement by the store's clock, for a request that is made now.
    pub(crate) fn max_staleness(self, store_client: &StoreClient) -> MaxStaleness {
        match self {
            Self::Age(max_age) => MaxStaleness::Age(max_age),
            Self::CompleteAge(max_age) => MaxStaleness::CompleteAge(max_age),
            Self::NewCall => MaxStaleness::StartedAfter(store_client.now_upper_bound()),
            Self::RecentCall(max_age) => {
                MaxStaleness::CalledAfter(time::saturating_sub(store_client.now_estimate(), max_age))
            }
        }
    }
}

impl InFlight {
    pub(crate) fn new(login_id: Option<LoginId>, request: RefreshRequest, priority: Priority) -> Arc<Self> {
        Arc::new(Self {
            login_id,
            request,
            result: OnceLock::new(),
            done: Notify::new(),
            position: Mutex::new(QueuePosition { priority, ticket: None }),
        })
    }

    /// Waits for the end. Dropping the future does not stop the refresh.
    pub(crate) async fn wait(&self) -> &RefreshResult {
        wait_until(&self.done, || self.is_complete()).await;
        self.result.get().expect("the refresh is complete")
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.result.get().is_some()
    }

    /// Ends it, once, and wakes all who wait.
    pub(crate) fn complete(&self, result: RefreshResult) {
        let _ = self.result.set(result);
        self.done.notify_waiters();
    }

    /// Enters the queue for the provider. Callers that join later can raise its priority.
    pub(crate) fn enqueue(&self, limiter: &Arc<CallLimiter>) -> Ticket {
        let mut position = self.position.lock();
        let ticket = limiter.enqueue(position.priority);
        position.ticket = Some(ticket.number());
        ticket
    }

    /// The highest priority of its callers.
    pub(crate) fn priority(&self) -> Priority {
        self.position.lock().priority
    }

    /// Raises its priority in the queue, if `priority` is higher.
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
