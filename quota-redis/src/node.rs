//! One server, and the one connection to it that all callers share.
//! How a connection is made is in `dial`; which server a key is on, in `servers`.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use crate::dial::{Dialer, Place};
use crate::failure::Failure;
use crate::task::Task;
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

impl Node {
    pub(crate) fn new(dialer: Arc<Dialer>, place: Place) -> Arc<Self> {
        Arc::new(Self { dialer, place, seat: Mutex::default(), news: Notify::new() })
    }

    /// The connection that stands.
    pub(crate) fn standing(&self) -> Option<Arc<Wire>> {
        self.seat().standing()
    }

    /// The connection, made if there is none. Many who ask at once wait for one attempt.
    pub(crate) async fn wire(self: &Arc<Self>) -> Result<Arc<Wire>, Failure> {
        loop {
            let mut news = pin!(self.news.notified());
            // Registered before the look, so that what comes between the two is not missed.
            news.as_mut().enable();
            {
                let mut seat = self.seat();
                if let Some(wire) = seat.standing() {
                    return Ok(wire);
                }
                match &seat.phase {
                    Phase::Dialing => {}
                    Phase::Resting(failure) => return Err(failure.clone()),
                    Phase::Idle => {
                        seat.dialing = Some(self.dial()?);
                        seat.phase = Phase::Dialing;
                    }
                }
            }
            news.await;
        }
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
    fn dial(self: &Arc<Self>) -> Result<Task, Failure> {
        let (dialer, place) = (Arc::clone(&self.dialer), self.place.clone());
        let dialing = Dialing(Arc::downgrade(self));
        Task::spawn(async move {
            match dialer.dial(&place).await {
                Ok(wire) => dialing.seated(wire),
                Err(failure) => {
                    dialing.failed(failure);
                    dialer.clock().sleep(REST.mul_f64(1.0 + fastrand::f64() * 0.9)).await;
                }
            }
        })
    }

    fn seat(&self) -> MutexGuard<'_, Seat> {
        // Nothing under this lock panics halfway through a change, so what a poisoned one guards is whole.
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    fn standing(&mut self) -> Option<Arc<Wire>> {
        self.wire.take_if(|wire| wire.board().is_over());
        self.wire.clone()
    }
}

/// An attempt to connect. When it ends, however that is, the next may begin.
struct Dialing(Weak<Node>);

impl Dialing {
    fn seated(&self, wire: Wire) {
        if let Some(node) = self.0.upgrade() {
            let mut seat = node.seat();
            seat.wire = Some(Arc::new(wire));
            seat.phase = Phase::Idle;
            drop(seat);
            node.news.notify_waiters();
        }
    }

    fn failed(&self, failure: Failure) {
        if let Some(node) = self.0.upgrade() {
            node.seat().phase = Phase::Resting(failure);
            node.news.notify_waiters();
        }
    }
}

impl Drop for Dialing {
    fn drop(&mut self) {
        if let Some(node) = self.0.upgrade() {
            node.seat().phase = Phase::Idle;
            node.news.notify_waiters();
        }
    }
}
