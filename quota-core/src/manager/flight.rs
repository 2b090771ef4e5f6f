//! One refresh of one account, shared by everybody who wants it: a task that nobody's leaving stops.
//! What the task does is in `refresh`.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;

use super::changes;
use super::error::QuotaError;
use super::events::Stage;
use super::gate::Ticket;
use super::refresh::Refresh;
use super::slot::Slot;
use super::tasks::{Tasks, wait_for};
use super::view::View;
use crate::clock::Instant;
use crate::{Lineage, Urgency};

/// A refresh under way.
#[derive(Debug)]
pub(crate) struct Flight {
    /// The login it was asked for; `None` if it is for whichever the account holds.
    pub(crate) lineage: Option<Lineage>,
    /// What was wanted by whoever began it.
    pub(crate) wish: Wish,
    landed: OnceLock<Landing>,
    done: Notify,
    place: Mutex<Place>,
}

/// Where it stands in the line to the provider.
#[derive(Debug)]
struct Place {
    urgency: Urgency,
    ticket: Option<u64>,
}

/// What a refresh came to.
pub(crate) type Landing = Result<Landed, QuotaError>;

/// A refresh that ended without an error.
#[derive(Debug)]
pub(crate) struct Landed {
    /// Whether the provider was asked; otherwise somebody else's readings were fresh enough.
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

impl Flight {
    /// The flight for the login the account holds: the one that is under way, or a new one.
    pub(crate) fn join(slot: &Arc<Slot>, wish: Wish, urgency: Urgency, crew: &Crew) -> Arc<Self> {
        let flight = {
            let mut desk = slot.desk();
            if let Some(flight) = desk.flight() {
                let flight = Arc::clone(flight);
                drop(desk);
                flight.hurry(slot, urgency);
                return flight;
            }
            let flight = Arc::new(Self {
                lineage: desk.login.clone(),
                wish,
                landed: OnceLock::new(),
                done: Notify::new(),
                place: Mutex::new(Place { urgency, ticket: None }),
            });
            desk.flights.push(Arc::clone(&flight));
            flight
        };
        changes::follow(slot, crew);
        // Made before the task: if the task is never run, it is dropped, and that lands the flight.
        let refresh = Refresh::new(Arc::clone(&flight), Arc::clone(slot), crew.clone());
        crew.tasks.spawn(async move {
            let landing = refresh.run(wish).await;
            refresh.land(landing);
        });
        flight
    }

    /// Waits for the end. Whoever stops waiting stops nothing else.
    pub(crate) async fn wait(&self) -> &Landing {
        wait_for(&self.done, || self.landed.get().is_some()).await;
        self.landed.get().expect("it has landed")
    }

    /// Ends it, once, and tells everybody who waits.
    pub(crate) fn land(self: &Arc<Self>, slot: &Slot, landing: Landing) {
        if self.landed.get().is_some() {
            return;
        }
        let failed = landing.as_ref().err().filter(|error| !matches!(error, QuotaError::Closed));
        match failed.cloned() {
            // Shown before anybody is told, so that whoever waited finds the reason.
            Some(error) => slot.update(|desk| desk.crashed(self, error)),
            None => {
                let is_over = {
                    let mut desk = slot.desk();
                    desk.landed(self);
                    landing.is_ok() && desk.failed.is_some() && self.lineage == desk.login
                };
                if is_over {
                    slot.update(|desk| desk.failed = None);
                }
            }
        }
        let _ = self.landed.set(landing);
        self.done.notify_waiters();
    }

    /// Takes a place in the line to the provider, where those who join later can move it up.
    pub(crate) fn queue(&self, slot: &Slot) -> Ticket {
        let mut place = self.place();
        let ticket = slot.provider.gate.queue(place.urgency);
        place.ticket = Some(ticket.number());
        ticket
    }

    /// The urgency of the most urgent of those who have joined.
    pub(crate) fn urgency(&self) -> Urgency {
        self.place().urgency
    }

    fn hurry(&self, slot: &Slot, urgency: Urgency) {
        let mut place = self.place();
        if urgency > place.urgency {
            place.urgency = urgency;
            if let Some(ticket) = place.ticket {
                slot.provider.gate.hurry(ticket);
            }
        }
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a flight needs of its manager.
#[derive(Debug, Clone)]
pub(crate) struct Crew {
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) events: Stage,
    pub(crate) by: Arc<str>,
    /// When this program ends, if that is known: no call outlasts it.
    pub(crate) deadline: Option<Instant>,
}

impl Crew {
    /// How much time is left at `now`; `None` if there is no deadline.
    pub(crate) fn time_left(&self, now: Instant) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_since(now))
    }
}
