//! What this process knows to be reserved, and which of its own reservations others know of.
//! Times are by this process's clock, and brought to that of the store where they meet its document.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use quota_core::{Percent, RequestId, WindowId};

use super::{Reservation, Reservations};

/// What is reserved of one account, as far as it is known here.
#[derive(Debug, Default)]
pub(crate) struct LocalReservations {
    known: Reservations,
    own: Vec<OwnReservation>,
}

/// A reservation of this process.
#[derive(Debug)]
struct OwnReservation {
    reservation: Reservation,
    /// What was left of the window, in basis points, when it was asked for.
    left: Option<u32>,
    answer: Admission,
    stored: ReservationWrite,
    /// Its result is known, so others are to be told that it is over.
    is_over: bool,
    /// How often the document was seen without it since.
    missed: u8,
}

/// Whether it may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    /// Whether it fits beside those of others is still to be seen.
    Pending,
    Admitted,
    Rejected,
}

/// Whether others know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReservationWrite {
    Absent,
    /// A write with it may have been applied.
    Unknown,
    Written,
}

/// A write that nobody heard of has arrived before the document was seen so often without it.
const MAX_MISSED: u8 = 3;

impl LocalReservations {
    /// Reserves here, if it fits beside what is known; whether it does beside what others have reserved is to be seen next.
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

    /// Whether it fits beside what others have reserved; `None` if that is still to be seen.
    pub(crate) fn admission(&self, id: RequestId) -> Option<bool> {
        match self.own.iter().find(|own| own.reservation.id == id)?.answer {
            Admission::Pending => None,
            answer => Some(answer == Admission::Admitted),
        }
    }

    /// Lets it in though others could not be asked.
    pub(crate) fn admit_locally(&mut self, id: RequestId) {
        for own in self.own.iter_mut().filter(|own| own.reservation.id == id) {
            own.answer = Admission::Admitted;
        }
    }

    /// Gives a reservation back; whether others are to be told.
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

    /// Whether others are still to be told that something is over.
    pub(crate) fn has_pending_releases(&self) -> bool {
        self.own.iter().any(|own| own.is_over)
    }

    /// Brings what others are to know into the document: what is wanted and fits, what was let in without them, and what is over.
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
                    // The store was away when it was let in, or has lost it since.
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

    /// Takes over what the store has, beside what this process has reserved or given back meanwhile.
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
                // Others know that it is over, unless a write is still on its way.
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

    /// For how long the store is to keep what was written last.
    pub(crate) const TTL: Duration = Reservation::TTL;
}

#[cfg(test)]
mod tests;
