//! The reservations that this process has read from the store, and its own.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use quota_core::model::RequestId;
use quota_core::{Percent, WindowId};

use super::{Reservation, Reservations};

/// The reservations of one account, as this process has them.
#[derive(Debug, Default)]
pub(crate) struct LocalReservations {
    known: Reservations,
    own: Vec<OwnReservation>,
}

/// A reservation of this process.
#[derive(Debug)]
struct OwnReservation {
    reservation: Reservation,
    /// What remained of the window, in basis points, when it was requested.
    left: Option<u32>,
    answer: Admission,
    stored: ReservationWrite,
    /// The request has ended, and the store must lose it.
    is_over: bool,
    /// How often the document was read without it since.
    missed: u8,
}

/// Whether the request may use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    /// The store has not confirmed yet that it fits beside the others.
    Pending,
    Admitted,
    Rejected,
}

/// Whether the store has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReservationWrite {
    Absent,
    /// A write with it may have been applied.
    Unknown,
    Written,
}

/// After so many reads without it, a write of unknown outcome was not applied.
const MAX_MISSED: u8 = 3;

impl LocalReservations {
    /// Reserves here if it fits beside the cached reservations. The next sync checks it against the store.
    pub(crate) fn reserve(&mut self, wanted: &Reservation, left: Option<u32>, now: Timestamp) -> bool {
        self.own.retain(|own| own.reservation.is_live(now));
        let fits = self.known.reserve(wanted, left, now);
        if fits {
            let reservation = wanted.clone();
            let (answer, stored) = (Admission::Pending, ReservationWrite::Absent);
            self.own.push(OwnReservation { reservation, left, answer, stored, is_over: false, missed: 0 });
        }
        fits
    }

    /// Whether it fits beside the reservations of others; `None` while that is pending.
    pub(crate) fn admission(&self, id: RequestId) -> Option<bool> {
        match self.own.iter().find(|own| own.reservation.id == id)?.answer {
            Admission::Pending => None,
            answer => Some(answer == Admission::Admitted),
        }
    }

    /// Admits it although the store cannot be used.
    pub(crate) fn admit_locally(&mut self, id: RequestId) {
        for own in self.own.iter_mut().filter(|own| own.reservation.id == id) {
            own.answer = Admission::Admitted;
        }
    }

    /// Releases a reservation. Returns whether the store must lose it.
    pub(crate) fn release(&mut self, id: RequestId) -> bool {
        self.known.release(id);
        self.own.retain(|own| own.reservation.id != id || own.stored != ReservationWrite::Absent);
        let mut is_known = false;
        for own in self.own.iter_mut().filter(|own| own.reservation.id == id && !own.is_over) {
            own.is_over = true;
            is_known = true;
        }
        is_known
    }

    /// Whether the store still has a released reservation.
    pub(crate) fn has_pending_releases(&self) -> bool {
        self.own.iter().any(|own| own.is_over)
    }

    /// Merges into the document: pending reservations that fit, those admitted without the store, and releases.
    ///
    /// It is `now` by the store's clock, which shows `ahead` more than this process's. Doing it again changes nothing.
    pub(crate) fn merge_into(&mut self, document: &mut Reservations, now: Timestamp, ahead: SignedDuration) {
        self.own.retain(|own| own.reservation.moved(ahead).is_live(now));
        for own in &mut self.own {
            let id = own.reservation.id;
            if own.is_over {
                if document.release(id) {
                    own.stored = ReservationWrite::Written;
                }
            } else if document.has(id) {
                (own.stored, own.answer) = (ReservationWrite::Written, Admission::Admitted);
            } else {
                let there = own.reservation.moved(ahead);
                let fits = match own.answer {
                    // The store was unavailable when it was admitted, or has lost it since.
                    Admission::Admitted => {
                        document.add(there);
                        true
                    }
                    Admission::Pending | Admission::Rejected => document.reserve(&there, own.left, now),
                };
                if fits {
                    own.stored = ReservationWrite::Unknown;
                } else {
                    own.answer = Admission::Rejected;
                }
            }
        }
    }

    /// The write was not applied.
    pub(crate) fn write_failed(&mut self) {
        for own in self.own.iter_mut().filter(|own| !own.is_over && own.stored == ReservationWrite::Unknown) {
            own.stored = ReservationWrite::Absent;
        }
    }

    /// Adopts the store's document, with this process's reservations and releases since.
    pub(crate) fn adopt(&mut self, document: Reservations, ahead: SignedDuration) {
        self.known = document.moved(-ahead);
        self.own.retain_mut(|own| {
            let id = own.reservation.id;
            match (own.is_over, self.known.has(id)) {
                (false, true) => (own.stored, own.answer) = (ReservationWrite::Written, Admission::Admitted),
                (false, false) if own.answer == Admission::Rejected => {}
                (false, false) => self.known.add(own.reservation.clone()),
                (true, true) => {
                    own.stored = ReservationWrite::Written;
                    self.known.release(id);
                }
                // The store has lost it, unless a write is still in flight.
                (true, false) => {
                    own.missed += 1;
                    return own.stored == ReservationWrite::Unknown && own.missed < MAX_MISSED;
                }
            }
            true
        });
    }

    /// What is reserved and not over, one by one.
    pub(crate) fn live(&self, now: Timestamp) -> impl Iterator<Item = (WindowId, Percent)> {
        self.known.live(now)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// How long the store keeps the document after its last write.
    pub(crate) const TTL: Duration = Reservation::TTL;
}

#[cfg(test)]
mod tests;
