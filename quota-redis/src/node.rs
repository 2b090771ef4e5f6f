//! One server, and the one connection to it that all callers share.
//! How a connection is made is in `dial`; which server a key is on, in `servers`.

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::dial::{Dialer, Place};
use crate::failure::Failure;
use crate::task::{self, Task};
use crate::wire::Wire;

/// A server that is connected to when it is first needed.
#[derive(Debug)]
pub(crate) struct Node {
    dialer: Arc<Dialer>,
    place: Place,
    seat: Mutex<Seat>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Seat {
    wire: Option<Arc<Wire>>,
    phase: Phase,
    /// How many attempts there have been: one that is over says nothing about the next.
    attempts: u64,
    dialing: Option<Task>,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Idle,
    /// One task connects, and all wait for it.
    Dialing,
    /// It has failed a moment ago: nobody waits, and nobody tries.
    Resting(Failure),
}

/// How long is rested after a failure, at least; a random part of as much again is added. Short enough that a server that is
/// back is used within 200 ms, and long enough that it is not tried more than ten times a second.
const REST: Duration = Duration::from_millis(100);

/// A connection over which writes are refused is replaced after this long: a name or a proxy may have moved on to the new master.
const READ_ONLY_FOR: Duration = Duration::from_secs(60);

impl Node {
    pub(crate) fn new(dialer: Arc<Dialer>, place: Place) -> Arc<Self> {
        Arc::new(Self { dialer, place, seat: Mutex::default(), news: Notify::new() })
    }

    /// The connection that stands.
    pub(crate) fn standing(&self) -> Option<Arc<Wire>> {
        let wire = self.seat().standing()?;
        if wire.is_silent() {
            self.lose(&wire);
            return None;
        }
        Some(wire)
    }

    /// The connection, made if there is none. Many who ask at once wait for one attempt.
    pub(crate) async fn wire(self: &Arc<Self>) -> Result<Arc<Wire>, Failure> {
        let mut has_tried = false;
        loop {
            let mut news = pin!(self.news.notified());
            // Registered before the look, so that what comes between the two is not missed.
            news.as_mut().enable();
            if let Some(wire) = self.standing() {
                return Ok(wire);
            }
            if let Some(attempt) = self.claim(has_tried)? {
                has_tried = true;
                self.dial(attempt)?;
            }
            news.await;
        }
    }

    /// The number of an attempt that is the caller's to begin; `None` if one is under way.
    fn claim(&self, has_tried: bool) -> Result<Option<u64>, Failure> {
        let mut seat = self.seat();
        match &seat.phase {
            Phase::Dialing => Ok(None),
            Phase::Resting(failure) => Err(failure.clone()),
            // It ended with its runtime, or brought a connection that ended at once: another is for another call.
            Phase::Idle if has_tried => Err(Failure::Lost),
            Phase::Idle => {
                seat.attempts += 1;
                seat.phase = Phase::Dialing;
                Ok(Some(seat.attempts))
            }
        }
    }

    /// Whether sentinels say which server this is.
    pub(crate) fn is_behind_sentinels(&self) -> bool {
        matches!(self.place, Place::Master { .. })
    }

    /// Whether a new connection may lead to another server than this one, which takes no writes: the sentinels may name another by
    /// now, and so may a host name, which is found out now and then only.
    pub(crate) fn may_lead_elsewhere(&self, failure: &Failure, wire: &Wire) -> bool {
        matches!(failure, Failure::ReadOnly) && (self.is_behind_sentinels() || wire.age() >= READ_ONLY_FOR)
    }

    /// This connection is of no more use; the next caller makes another.
    pub(crate) fn lose(&self, lost: &Arc<Wire>) {
        {
            let mut seat = self.seat();
            seat.wire.take_if(|wire| Arc::ptr_eq(wire, lost));
        }
        lost.board().end();
    }

    /// Connects in a task of its own, so that a caller that leaves takes nothing from the others, and rests if it failed.
    fn dial(self: &Arc<Self>, attempt: u64) -> Result<(), Failure> {
        let (dialer, place) = (Arc::clone(&self.dialer), self.place.clone());
        let dialing = Dialing { node: Arc::downgrade(self), attempt };
        // Not under the lock: a runtime that is being shut down drops the task here and now, and that takes the lock.
        let task = task::spawn(async move {
            match dialer.dial(&place).await {
                Ok(wire) => dialing.seated(wire),
                Err(failure) => {
                    dialing.failed(failure);
                    dialer.clock().sleep(REST.mul_f64(1.0 + fastrand::f64() * 0.9)).await;
                }
            }
        })?;
        let mut seat = self.seat();
        let _ended = if seat.attempts == attempt { seat.dialing.replace(task) } else { Some(task) };
        drop(seat);
        Ok(())
    }

    fn seat(&self) -> MutexGuard<'_, Seat> {
        self.seat.lock()
    }
}

impl Seat {
    fn standing(&mut self) -> Option<Arc<Wire>> {
        self.wire.take_if(|wire| wire.board().is_over());
        self.wire.clone()
    }
}

/// An attempt to connect. When it ends, however that is, the next may begin.
struct Dialing {
    node: Weak<Node>,
    attempt: u64,
}

impl Dialing {
    fn seated(&self, wire: Wire) {
        let wire = Arc::new(wire);
        self.ends(|seat| {
            seat.wire = Some(wire);
            seat.phase = Phase::Idle;
        });
    }

    fn failed(&self, failure: Failure) {
        self.ends(|seat| seat.phase = Phase::Resting(failure));
    }

    fn ends(&self, with: impl FnOnce(&mut Seat)) {
        let Some(node) = self.node.upgrade() else { return };
        let mut seat = node.seat();
        if seat.attempts == self.attempt {
            with(&mut seat);
        }
        drop(seat);
        node.news.notify_waiters();
    }
}

impl Drop for Dialing {
    fn drop(&mut self) {
        self.ends(|seat| seat.phase = Phase::Idle);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::runtime::Runtime;

    use super::*;
    use crate::RedisOptions;
    use crate::address::Address;

    fn node() -> Arc<Node> {
        let settings = RedisOptions::single("127.0.0.1", 1).settings;
        #[cfg(feature = "tls")]
        let dialer = Dialer::new(settings, false, None);
        #[cfg(not(feature = "tls"))]
        let dialer = Dialer::new(settings, false);
        Node::new(Arc::new(dialer), Place::At(Address::tcp("127.0.0.1", 1)))
    }

    #[test]
    fn an_attempt_that_is_over_says_nothing_about_the_next() {
        let node = node();
        let first = Dialing { node: Arc::downgrade(&node), attempt: node.claim(false).unwrap().unwrap() };
        first.ends(|seat| seat.phase = Phase::Idle);
        let second = node.claim(false).unwrap();

        drop(first);

        assert_eq!(second, Some(2));
        assert!(matches!(node.seat().phase, Phase::Dialing));
    }

    #[test]
    fn on_a_runtime_that_is_gone_a_caller_is_told_at_once() {
        let node = node();
        let runtime = Runtime::new().unwrap();
        let handle = runtime.handle().clone();
        drop(runtime);
        let _entered = handle.enter();

        let mut wire = Box::pin(node.wire());
        let polled = wire.as_mut().now_or_never();

        assert!(matches!(polled, Some(Err(Failure::Lost))), "{polled:?}");
    }
}
