//! Which session stays with which account.
//! Whether it may stay is decided in `routing`.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::Inner;
use crate::ahead::is_ahead;
use crate::routing::{Session, Verdict, judge};
use crate::{Mode, Request, RoutingPolicy};

/// The sessions of one manager, bounded in number and age.
#[derive(Debug)]
pub(super) struct Pins {
    keep: Duration,
    most: usize,
    sticks: bool,
    pins: Mutex<HashMap<Session, (usize, Timestamp)>>,
}

impl Pins {
    pub(super) fn new(policy: &RoutingPolicy) -> Self {
        Self {
            keep: policy.pin_for,
            most: policy.most_pins,
            sticks: policy.mode == Mode::StickyBalanced,
            pins: Mutex::default(),
        }
    }

    /// The account of a session that was not quiet for too long.
    pub(super) fn get(&self, session: Session, now: Timestamp) -> Option<usize> {
        if !self.sticks {
            return None;
        }
        let pins = self.pins();
        let (at, used_at) = pins.get(&session)?;
        is_kept(*used_at, now, self.keep).then_some(*at)
    }

    /// A session has used an account.
    pub(super) fn set(&self, session: Session, at: usize, now: Timestamp) {
        if !self.sticks || self.most == 0 {
            return;
        }
        let mut pins = self.pins();
        let known = pins.insert(session, (at, now));
        if known.is_none() && pins.len() > self.most {
            // An eighth at once, so that a full table is not searched for every new session.
            // One of a clock that was ahead is as old as the others that may go, not the latest of all.
            let age = |used_at: Timestamp| if is_ahead(used_at, now) { Timestamp::MIN } else { used_at };
            let mut times: Vec<_> = pins.values().map(|(_, used_at)| age(*used_at)).collect();
            let goes = (times.len() / 8).max(1);
            let (_, limit, _) = times.select_nth_unstable(goes - 1);
            let limit = *limit;
            let mut goes = pins.len().saturating_sub(self.most).max(goes);
            pins.retain(|other, (_, used_at)| {
                let gone = goes > 0 && *other != session && age(*used_at) <= limit;
                goes -= usize::from(gone);
                !gone
            });
        }
    }

    /// Forgets sessions that have been quiet for too long.
    pub(super) fn forget(&self, now: Timestamp) {
        let keep = self.keep;
        self.pins().retain(|_, (_, used_at)| {
            if is_ahead(*used_at, now) {
                *used_at = now;
            }
            is_kept(*used_at, now, keep)
        });
    }

    pub(super) fn all(&self) -> Vec<(Session, usize, Timestamp)> {
        self.pins().iter().map(|(session, (at, used_at))| (*session, *at, *used_at)).collect()
    }

    fn pins(&self) -> MutexGuard<'_, HashMap<Session, (usize, Timestamp)>> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_kept(used_at: Timestamp, now: Timestamp, keep: Duration) -> bool {
    Duration::try_from(now.duration_since(used_at)).unwrap_or_default() < keep
}

impl Inner {
    /// Remembers that the request's session is in use, now that it is served by the account at `at`: there, or still with its
    /// own account, if that is out only for now. `unusable` are the accounts that could not serve though their numbers let them.
    pub(super) fn pin(&self, request: &Request, at: usize, unusable: &[(usize, Verdict)], now: Timestamp) {
        let Some(session) = request.session_key() else { return };
        let stays = |own: &usize| {
            let found = unusable.iter().find(|(out, _)| out == own).map(|(_, verdict)| *verdict);
            let found =
                found.unwrap_or_else(|| judge(&self.members[*own].candidate(), request, now, &self.policy));
            !found.is_gone()
        };
        let own = self.pins.get(session, now).filter(|own| *own != at).filter(stays);
        self.pins.set(session, own.unwrap_or(at), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn pins(most: usize) -> Pins {
        let policy = RoutingPolicy::default().mode(Mode::StickyBalanced);
        Pins::new(&policy.pins(Duration::from_secs(100), most))
    }

    #[test]
    fn the_table_of_sessions_is_bounded_and_keeps_the_latest() {
        let pins = pins(16);

        for second in 0..1000 {
            pins.set(Session::of(&second.to_string()), 0, at(second));
            assert!(pins.all().len() <= 16);
        }

        assert_eq!(pins.get(Session::of("999"), at(999)), Some(0));
        assert_eq!(pins.get(Session::of("1"), at(999)), None);
    }

    #[test]
    fn sessions_of_one_moment_are_bounded_too() {
        let pins = pins(16);

        for session in 0..1000 {
            pins.set(Session::of(&session.to_string()), 0, at(5));
        }

        assert!(pins.all().len() <= 16);
    }

    #[test]
    fn a_session_that_was_used_before_the_clock_was_set_back_is_not_kept_for_longer() {
        let (pins, now) = (pins(16), 1_800_000_000);
        pins.set(Session::of("s"), 2, at(now + 3600));

        pins.forget(at(now));

        assert_eq!(pins.get(Session::of("s"), at(now + 99)), Some(2));
        assert_eq!(pins.get(Session::of("s"), at(now + 100)), None);
    }

    #[test]
    fn a_session_that_was_quiet_for_too_long_is_forgotten() {
        let pins = pins(16);
        pins.set(Session::of("s"), 2, at(0));

        assert_eq!(pins.get(Session::of("s"), at(99)), Some(2));
        assert_eq!(pins.get(Session::of("s"), at(100)), None);

        pins.forget(at(100));
        assert!(pins.all().is_empty());
    }

    #[test]
    fn a_full_table_of_a_clock_that_was_ahead_makes_room_for_new_sessions() {
        let (pins, now) = (pins(16), 1_800_000_000);
        for session in 0..16 {
            pins.set(Session::of(&session.to_string()), 0, at(now + 86_400));
        }

        let new = || (0..8).map(|session| Session::of(&format!("new {session}")));
        for (second, session) in (0..).zip(new()) {
            pins.set(session, 1, at(now + second));
        }

        assert!(new().all(|session| pins.get(session, at(now + 8)) == Some(1)));
    }
}
