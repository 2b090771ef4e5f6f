//! Which session stays with which account.
//! Whether it may stay is decided in `routing`.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};

use super::Inner;
use crate::routing::{Session, Verdict, evaluate};
use crate::{Request, RoutingMode, RoutingPolicy};
use quota_core::clock::is_from_future;

/// The sessions of one manager, bounded in number and last_used.
#[derive(Debug)]
pub(super) struct SessionTable {
    ttl: Duration,
    capacity: usize,
    enabled: bool,
    sessions: Mutex<HashMap<Session, (usize, Timestamp)>>,
}

impl SessionTable {
    pub(super) fn new(policy: &RoutingPolicy) -> Self {
        Self {
            ttl: policy.session_ttl,
            capacity: policy.max_sessions,
            enabled: policy.mode == RoutingMode::StickyBalanced,
            sessions: Mutex::default(),
        }
    }

    /// The account of a session that was not quiet for too long.
    pub(super) fn get(&self, session: Session, now: Timestamp) -> Option<usize> {
        if !self.enabled {
            return None;
        }
        let sessions = self.sessions();
        let (at, used_at) = sessions.get(&session)?;
        is_current(*used_at, now, self.ttl).then_some(*at)
    }

    /// A session has used an account.
    pub(super) fn set(&self, session: Session, at: usize, now: Timestamp) {
        if !self.enabled || self.capacity == 0 {
            return;
        }
        let mut sessions = self.sessions();
        let known = sessions.insert(session, (at, now));
        if known.is_none() && sessions.len() > self.capacity {
            // An eighth at once, so that a full table is not searched for every new session.
            // One of a clock that was ahead is as old as the others that may go, not the latest of all.
            let last_used =
                |used_at: Timestamp| if is_from_future(used_at, now) { Timestamp::MIN } else { used_at };
            let mut times: Vec<_> = sessions.values().map(|(_, used_at)| last_used(*used_at)).collect();
            let goes = (times.len() / 8).max(1);
            let (_, limit, _) = times.select_nth_unstable(goes - 1);
            let limit = *limit;
            let mut goes = sessions.len().saturating_sub(self.capacity).max(goes);
            sessions.retain(|other, (_, used_at)| {
                let gone = goes > 0 && *other != session && last_used(*used_at) <= limit;
                goes -= usize::from(gone);
                !gone
            });
        }
    }

    /// Forgets sessions that have been quiet for too long.
    pub(super) fn prune(&self, now: Timestamp) {
        let ttl = self.ttl;
        self.sessions().retain(|_, (_, used_at)| {
            if is_from_future(*used_at, now) {
                *used_at = now;
            }
            is_current(*used_at, now, ttl)
        });
    }

    pub(super) fn all(&self) -> Vec<(Session, usize, Timestamp)> {
        self.sessions().iter().map(|(session, (at, used_at))| (*session, *at, *used_at)).collect()
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<Session, (usize, Timestamp)>> {
        self.sessions.lock()
    }
}

fn is_current(used_at: Timestamp, now: Timestamp, ttl: Duration) -> bool {
    Duration::try_from(now.duration_since(used_at)).unwrap_or_default() < ttl
}

impl Inner {
    /// Remembers that the request's session is in use, now that it is served by the account at `at`: there, or still with its
    /// own account, if that is out only for now. `unusable` are the accounts that could not serve though their numbers let them.
    pub(super) fn remember_session(
        &self,
        request: &Request,
        at: usize,
        unusable: &[(usize, Verdict)],
        now: Timestamp,
    ) {
        let Some(session) = request.session() else { return };
        let stays = |own: &usize| {
            let found = unusable.iter().find(|(out, _)| out == own).map(|(_, verdict)| *verdict);
            let found =
                found.unwrap_or_else(|| evaluate(&self.slots[*own].candidate(), request, now, &self.policy));
            !found.ends_affinity()
        };
        let own = self.sessions.get(session, now).filter(|own| *own != at).filter(stays);
        self.sessions.set(session, own.unwrap_or(at), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn sessions(most: usize) -> SessionTable {
        let policy = RoutingPolicy::default().mode(RoutingMode::StickyBalanced);
        SessionTable::new(&policy.sessions(Duration::from_secs(100), most))
    }

    #[test]
    fn the_table_of_sessions_is_bounded_and_keeps_the_latest() {
        let sessions = sessions(16);

        for second in 0..1000 {
            sessions.set(Session::of(&second.to_string()), 0, at(second));
            assert!(sessions.all().len() <= 16);
        }

        assert_eq!(sessions.get(Session::of("999"), at(999)), Some(0));
        assert_eq!(sessions.get(Session::of("1"), at(999)), None);
    }

    #[test]
    fn sessions_of_one_moment_are_bounded_too() {
        let sessions = sessions(16);

        for session in 0..1000 {
            sessions.set(Session::of(&session.to_string()), 0, at(5));
        }

        assert!(sessions.all().len() <= 16);
    }

    #[test]
    fn a_session_that_was_used_before_the_clock_was_set_back_is_not_kept_for_longer() {
        let (sessions, now) = (sessions(16), 1_800_000_000);
        sessions.set(Session::of("s"), 2, at(now + 3600));

        sessions.prune(at(now));

        assert_eq!(sessions.get(Session::of("s"), at(now + 99)), Some(2));
        assert_eq!(sessions.get(Session::of("s"), at(now + 100)), None);
    }

    #[test]
    fn a_session_that_was_quiet_for_too_long_is_forgotten() {
        let sessions = sessions(16);
        sessions.set(Session::of("s"), 2, at(0));

        assert_eq!(sessions.get(Session::of("s"), at(99)), Some(2));
        assert_eq!(sessions.get(Session::of("s"), at(100)), None);

        sessions.prune(at(100));
        assert!(sessions.all().is_empty());
    }

    #[test]
    fn a_full_table_of_a_clock_that_was_ahead_makes_room_for_new_sessions() {
        let (sessions, now) = (sessions(16), 1_800_000_000);
        for session in 0..16 {
            sessions.set(Session::of(&session.to_string()), 0, at(now + 86_400));
        }

        let new = || (0..8).map(|session| Session::of(&format!("new {session}")));
        for (second, session) in (0..).zip(new()) {
            sessions.set(session, 1, at(now + second));
        }

        assert!(new().all(|session| sessions.get(session, at(now + 8)) == Some(1)));
    }
}
