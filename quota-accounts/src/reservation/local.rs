//! The reservations of this process, and those it has read from the store.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use quota_core::model::RequestId;
use quota_core::{Percent, WindowId};

use super::{Reservation, Reservations};

/// The reservations of one account that this process knows.
#[derive(Debug, Default)]
pub(crate) struct LocalReservations {
    cached: Reservations,
    own: Vec<OwnReservation>,
}

/// A reservation of this process.
#[derive(Debug)]
struct OwnReservation {
    reservation: Reservation,
    /// What remained of the window at the time of the request, in basis points.
    left: Option<u32>,
    admission: Admission,
    stored: ReservationWrite,
    /// Whether the request has ended, so that the reservation must be removed from the store.
    is_over: bool,
    /// How many reads since the request ended found no such reservation.
    missed: u8,
}

/// Whether the reservation was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    /// The store has not yet confirmed that it fits.
    Pending,
    Admitted,
    Rejected,
}

/// Whether the reservation is in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReservationWrite {
    Absent,
    /// A write may have been applied.
    Unknown,
    Written,
}

/// After this many reads without the reservation, a write with an unknown outcome counts as not applied.
const MAX_MISSED: u8 = 3;

impl LocalReservations {
    /// Adds a reservation locally if it fits in addition to the cached ones. The next sync checks it against the store.
    pub(crate) fn reserve(&mut self, wanted: &Reservation, left: Option<u32>, now: Timestamp) -> bool {
        self.own.retain(|own| own.reservation.is_live(now));
        let fits = self.cached.reserve(wanted, left, now);
        if fits {
            let reservation = wanted.clone();
            let (admission, stored) = (Admission::Pending, ReservationWrite::Absent);
            self.own.push(OwnReservation { reservation, left, admission, stored, is_over: false, missed: 0 });
        }
        fits
    }

    /// Whether the reservation was admitted; `None` while that is pending.
    pub(crate) fn admission(&self, id: RequestId) -> Option<bool> {
        match self.own.iter().find(|own| own.reservation.id == id)?.admission {
            Admission::Pending => None,
            admission => Some(admission == Admission::Admitted),
        }
    }

    /// Admits a reservation because the store is unavailable.
    pub(crate) fn admit_locally(&mut self, id: RequestId) {
        for own in self.own.iter_mut().filter(|own| own.reservation.id == id) {
            own.admission = Admission::Admitted;
        }
    }

    /// Releases a reservation. Returns whether it must be removed from the store.
    pub(crate) fn release(&mut self, id: RequestId) -> bool {
        self.cached.release(id);
        self.own.retain(|own| own.reservation.id != id || own.stored != ReservationWrite::Absent);
        let mut is_stored = false;
        for own in self.own.iter_mut().filter(|own| own.reservation.id == id && !own.is_over) {
            own.is_over = true;
            is_stored = true;
        }
        is_stored
    }

    /// Whether the store still has a released reservation.
    pub(crate) fn has_pending_releases(&self) -> bool {
        self.own.iter().any(|own| own.is_over)
    }

    /// Adds the pending reservations that fit and the locally admitted ones to the document, and removes the released ones.
    ///
    /// `now` is the store's time, and `offset` is how far the store's clock is ahead of this process's clock. A second
    /// merge into the same document has no effect.
    pub(crate) fn merge_into(&mut self, document: &mut Reservations, now: Timestamp, offset: SignedDuration) {
        self.own.retain(|own| own.reservation.moved(offset).is_live(now));
        for own in &mut self.own {
            let id = own.reservation.id;
            if own.is_over {
                if document.release(id) {
                    own.stored = ReservationWrite::Written;
                }
            } else if document.has(id) {
                (own.stored, own.admission) = (ReservationWrite::Written, Admission::Admitted);
            } else {
                let stored = own.reservation.moved(offset);
                let fits = match own.admission {
                    // The store was unavailable at the admission, or has lost the reservation since.
                    Admission::Admitted => {
                        document.add(stored);
                        true
                    }
                    Admission::Pending | Admission::Rejected => document.reserve(&stored, own.left, now),
                };
                if fits {
                    own.stored = ReservationWrite::Unknown;
                } else {
                    own.admission = Admission::Rejected;
                }
            }
        }
    }

    /// Records that the last write was not applied.
    pub(crate) fn write_failed(&mut self) {
        for own in self.own.iter_mut().filter(|own| !own.is_over && own.stored == ReservationWrite::Unknown) {
            own.stored = ReservationWrite::Absent;
        }
    }

    /// Replaces the cached reservations with the store's document, then applies later reservations and releases of this process.
    pub(crate) fn adopt(&mut self, document: Reservations, offset: SignedDuration) {
        self.cached = document.moved(-offset);
        self.own.retain_mut(|own| {
            let id = own.reservation.id;
            match (own.is_over, self.cached.has(id)) {
                (false, true) => {
                    (own.stored, own.admission) = (ReservationWrite::Written, Admission::Admitted)
                }
                (false, false) if own.admission == Admission::Rejected => {}
                (false, false) => self.cached.add(own.reservation.clone()),
                (true, true) => {
                    own.stored = ReservationWrite::Written;
                    self.cached.release(id);
                }
                // The store no longer has it, unless a write is still in flight.
                (true, false) => {
                    own.missed += 1;
                    return own.stored == ReservationWrite::Unknown && own.missed < MAX_MISSED;
                }
            }
            true
        });
    }

    /// The live reservations: window and share.
    pub(crate) fn live(&self, now: Timestamp) -> impl Iterator<Item = (WindowId, Percent)> {
        self.cached.live(now)
    }

    /// How long the store keeps the document after its last write.
    pub(crate) const TTL: Duration = Reservation::TTL;
}

#[cfg(test)]
mod tests;
