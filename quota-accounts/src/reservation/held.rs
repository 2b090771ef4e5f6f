//! What this process knows to be reserved, and which of its own reservations others know of.
//! Times are by this process's clock, and brought to that of the store where they meet its document.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use quota_core::{AttemptId, Percent, WindowId};

use super::{Reservation, Reservations};

/// What is reserved of one account, as far as it is known here.
#[derive(Debug, Default)]
pub(crate) struct Held {
    known: Reservations,
    own: Vec<Own>,
}

/// A reservation of this process.
#[derive(Debug)]
struct Own {
    reservation: Reservation,
    told: Told,
    /// Its result is known, so others are to be told that it is over.
    is_over: bool,
}

/// Whether others know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Its request is still asking whether it fits beside theirs.
    Asking,
    /// They do not: it was let in while the store was away.
    No,
    /// A write with it may have been applied.
    Perhaps,
    Yes,
}

/// What bringing this process's part into the document came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Brought {
    /// Whether what was wanted fits beside what others have reserved.
    pub(crate) fits: bool,
    /// Whether there is anything to write.
    pub(crate) is_changed: bool,
}

impl Held {
    /// Reserves here, if it fits beside what is known; others are to be asked next.
    pub(crate) fn reserve(&mut self, wanted: &Reservation, left: Option<Percent>, now: Timestamp) -> bool {
        self.own.retain(|own| own.reservation.is_live(now));
        let fits = self.known.reserve(wanted, left, now);
        if fits {
            self.own.push(Own { reservation: wanted.clone(), told: Told::Asking, is_over: false });
        }
        fits
    }

    /// Lets it in though others could not be asked.
    pub(crate) fn go_alone(&mut self, id: AttemptId) {
        for own in self.own.iter_mut().filter(|own| own.reservation.id == id && own.told == Told::Asking) {
            own.told = Told::No;
        }
    }

    /// Gives a reservation back; whether others are to be told.
    pub(crate) fn release(&mut self, id: AttemptId) -> bool {
        self.known.release(id);
        self.own.retain(|own| own.reservation.id != id || matches!(own.told, Told::Perhaps | Told::Yes));
        let mut is_known = false;
        for own in self.own.iter_mut().filter(|own| own.reservation.id == id && !own.is_over) {
            own.is_over = true;
            is_known = true;
        }
        is_known
    }

    /// Brings what others are to know into the document, and what is wanted, if it fits.
    ///
    /// It is `now` by the store's clock, which shows `ahead` more than this process's. Doing it again changes nothing.
    pub(crate) fn bring(
        &mut self,
        document: &mut Reservations,
        wanted: Option<(AttemptId, Option<Percent>)>,
        (now, ahead): (Timestamp, SignedDuration),
    ) -> Brought {
        let mut brought = Brought { fits: true, is_changed: false };
        self.own.retain(|own| own.reservation.moved(ahead).is_live(now));
        for own in &mut self.own {
            let (id, there) = (own.reservation.id, own.reservation.moved(ahead));
            if own.is_over {
                if document.release(id) {
                    // It was applied after all.
                    own.told = Told::Yes;
                    brought.is_changed = true;
                }
                continue;
            }
            if document.has(id) {
                own.told = Told::Yes;
                continue;
            }
            match wanted.filter(|(wanted, _)| *wanted == id) {
                Some((_, left)) => brought.fits = document.reserve(&there, left, now),
                // Another request's, which asks for itself.
                None if own.told == Told::Asking => continue,
                // The store was away when it was let in, or has lost it since.
                None => document.add(there),
            }
            if document.has(id) {
                own.told = Told::Perhaps;
                brought.is_changed = true;
            }
        }
        brought
    }

    /// Takes over what the store has, beside what this process has reserved or given back meanwhile.
    pub(crate) fn take_over(&mut self, document: Reservations, ahead: SignedDuration) {
        self.known = document.moved(-ahead);
        for own in &mut self.own {
            let id = own.reservation.id;
            match (own.is_over, self.known.has(id)) {
                (false, true) => own.told = Told::Yes,
                (false, false) => self.known.add(own.reservation.clone()),
                (true, true) => {
                    own.told = Told::Yes;
                    self.known.release(id);
                }
                // Others know that it is over; unless a write is still on its way, nothing is left to tell.
                (true, false) if own.told == Told::Yes => own.told = Told::No,
                (true, false) => {}
            }
        }
        self.own.retain(|own| !(own.is_over && own.told == Told::No));
    }

    /// What is reserved and not over, one by one.
    pub(crate) fn live(&self, now: Timestamp) -> impl Iterator<Item = (WindowId, Percent)> {
        self.known.live(now)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// For how long the store is to keep what was written last.
    pub(crate) const KEPT: Duration = Reservation::LASTS;
}

#[cfg(test)]
mod tests;
