//! A refresh in flight, which its callers share: the request, the position in the provider's queue, the result.
//! `refresh` runs its task.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
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
use crate::clock::{Clock, Instant};
use crate::record::{MaxStaleness, Priority};
use crate::store::StoreKey;
use crate::time;

/// The refresh that continues with another login of an account.
#[derive(Debug)]
pub(crate) struct Successor {
    pub(crate) in_flight: Arc<InFlight>,
    /// The key of its record.
    pub(crate) record_key: StoreKey,
    /// Its stage at the time when the earlier refresh joined or started it.
    pub(crate) stage: Stage,
}

/// A refresh of one record.
#[derive(Debug)]
pub(crate) struct InFlight {
    /// The request of its first caller.
    pub(crate) request: RefreshRequest,
    result: OnceLock<RefreshResult>,
    /// The refresh that continues with another login of the account.
    successor: OnceLock<Successor>,
    /// Wakes the waiters when the refresh ends, and when one of them has waited long enough.
    done: Notify,
    began: Instant,
    /// When a waiter must be woken next, in milliseconds since `began`; [`NEVER`] if none has a deadline.
    wake_ms: AtomicU64,
    /// Announces an earlier `wake_ms`.
    wakes_earlier: Notify,
    position: Mutex<QueuePosition>,
    stage: Mutex<Stage>,
}

/// No waiter has a deadline.
const NEVER: u64 = u64::MAX;

/// The progress of a refresh, which decides whether its outcome satisfies a caller that joins now and requires a new call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It has not read the store yet, so its outcome is of a call that is running now or begins later.
    Begun,
    /// It may have read the store. The call of another process that it waits for may have ended.
    Deciding,
    /// Its own call is running.
    Calling,
    /// Its own call has ended, and the outcome is being stored.
    Called,
}

/// The position of a refresh in the provider's queue.
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
    /// When the ended call started that made a new one unnecessary, if there was one.
    pub(crate) called_at: Option<Timestamp>,
    /// The view of the record at the end of the refresh.
    pub(crate) view: Arc<View>,
}

/// The requirements of a caller.
///
/// [`MaxStaleness`] uses the store's clock, which is unknown before the first read of the store. So a request becomes a
/// `MaxStaleness` only when the refresh requests the lease.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RefreshRequest {
    /// See [`MaxStaleness::Age`].
    Age(Duration),
    /// See [`MaxStaleness::CompleteAge`].
    CompleteAge(Duration),
    /// The outcome of a call that is running at the request, or begins later.
    NewCall,
    /// As above, or the outcome of a call with the same credential that started at most this long before the request.
    RecentCall(Duration),
}

impl RefreshRequest {
    /// Whether it requires a new or running call, regardless of the age of the readings.
    pub(crate) fn needs_call(self) -> bool {
        matches!(self, Self::NewCall | Self::RecentCall(_))
    }

    /// Whether readings that satisfy this request also satisfy `other`.
    pub(crate) fn covers(self, other: Self) -> bool {
        match (self, other) {
            (Self::NewCall, _) => true,
            (Self::Age(mine), Self::Age(others))
            | (Self::CompleteAge(mine), Self::Age(others) | Self::CompleteAge(others))
            | (Self::RecentCall(mine), Self::RecentCall(others)) => mine <= others,
            (Self::Age(_) | Self::CompleteAge(_) | Self::RecentCall(_), _) => false,
        }
    }

    /// The requirement by the store's clock, for a request made now.
    pub(crate) fn max_staleness(self, store_client: &StoreClient) -> MaxStaleness {
        match self {
            Self::Age(max_age) => MaxStaleness::Age(max_age),
            Self::CompleteAge(max_age) => MaxStaleness::CompleteAge(max_age),
            Self::NewCall => MaxStaleness::NewCall,
            Self::RecentCall(max_age) => {
                MaxStaleness::CalledAfter(time::saturating_sub(store_client.now_estimate(), max_age))
            }
        }
    }
}

impl InFlight {
    pub(crate) fn new(
        request: RefreshRequest,
        priority: Priority,
        stage: Stage,
        began: Instant,
    ) -> Arc<Self> {
        Arc::new(Self {
            request,
            result: OnceLock::new(),
            successor: OnceLock::new(),
            done: Notify::new(),
            began,
            wake_ms: AtomicU64::new(NEVER),
            wakes_earlier: Notify::new(),
            position: Mutex::new(QueuePosition { priority, ticket: None }),
            stage: Mutex::new(stage),
        })
    }

    /// Waits for the result. Dropping the future does not stop the refresh.
    pub(crate) async fn wait(&self) -> &RefreshResult {
        wait_until(&self.done, || self.is_complete()).await;
        self.result.get().expect("the refresh is complete")
    }

    /// Waits for the result, but at most until `deadline`. Dropping the future does not stop the refresh.
    ///
    /// The task of the refresh has the only timer. A timer for each waiter would double the cost of a waiter.
    pub(crate) async fn wait_until(&self, deadline: Instant, clock: &Clock) -> Option<&RefreshResult> {
        let deadline_ms = self.since_began(deadline);
        wait_until(&self.done, || {
            if self.is_complete() || self.since_began(clock.instant()) >= deadline_ms {
                return true;
            }
            // Do this each time, because the task clears the deadlines when it wakes the waiters.
            if self.wake_ms.load(Ordering::Relaxed) > deadline_ms
                && self.wake_ms.fetch_min(deadline_ms, Ordering::AcqRel) > deadline_ms
            {
                self.wakes_earlier.notify_one();
            }
            false
        })
        .await;
        self.result.get()
    }

    /// Wakes the waiters at their deadlines. The refresh's task runs it concurrently with the refresh.
    pub(crate) async fn wake_at_deadlines(&self, clock: &Clock) -> Infallible {
        loop {
            let wake_ms = self.wake_ms.load(Ordering::Acquire);
            let left_ms = wake_ms.saturating_sub(self.since_began(clock.instant()));
            if wake_ms == NEVER {
                self.wakes_earlier.notified().await;
            } else if left_ms > 0 {
                tokio::select! {
                    () = self.wakes_earlier.notified() => {}
                    () = clock.sleep(Duration::from_millis(left_ms)) => {}
                }
            } else {
                // A waiter that sets its deadline after this line is not lost: the notification wakes it, and it sets
                // its deadline again.
                self.wake_ms.store(NEVER, Ordering::Release);
                self.done.notify_waiters();
            }
        }
    }

    /// The time since the refresh began, in milliseconds, rounded up.
    fn since_began(&self, at: Instant) -> u64 {
        let since = at.saturating_since(self.began).as_nanos().div_ceil(1_000_000);
        u64::try_from(since).unwrap_or(NEVER - 1)
    }

    /// The refresh that continues with another login. Its call begins after the request of each caller of this refresh.
    pub(crate) fn successor(&self) -> Option<&Successor> {
        self.successor.get()
    }

    /// Sets the refresh that continues with another login. Call this before `complete`.
    pub(crate) fn set_successor(&self, successor: Successor) {
        let _ = self.successor.set(successor);
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.result.get().is_some()
    }

    /// Sets the result and wakes all waiters. Only the first call has an effect.
    pub(crate) fn complete(&self, result: RefreshResult) {
        let _ = self.result.set(result);
        self.done.notify_waiters();
    }

    pub(crate) fn stage(&self) -> Stage {
        *self.stage.lock()
    }

    pub(crate) fn set_stage(&self, stage: Stage) {
        *self.stage.lock() = stage;
    }

    /// Enters the provider's queue. Callers that join later can raise the priority.
    pub(crate) fn enqueue(&self, limiter: &Arc<CallLimiter>) -> Ticket {
        let mut position = self.position.lock();
        let ticket = limiter.enqueue(position.priority);
        position.ticket = Some(ticket.number());
        ticket
    }

    /// The highest priority among the callers.
    pub(crate) fn priority(&self) -> Priority {
        self.position.lock().priority
    }

    /// Raises the refresh to `priority` if that is higher, even while it is queued.
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
