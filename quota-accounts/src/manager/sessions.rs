//! The sessions and the accounts they stay with.
//! `routing` decides whether a session may stay.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};

use super::Inner;
use crate::routing::{Session, Verdict, evaluate};
use crate::state::{bit, shard_of};
use crate::{Request, RoutingMode, RoutingPolicy};
use quota_core::clock::is_from_future;

/// The sessions of one router, bounded in number and age.
#[derive(Debug)]
pub(super) struct SessionTable {
    ttl: Duration,
    capacity: usize,
    enabled: bool,
    sessions: Mutex<HashMap<Session, (usize, Timestamp)>>,
    /// The shards with unsaved sessions, as a bit set.
    unsaved: AtomicU64,
}

impl SessionTable {
    pub(super) fn new(policy: &RoutingPolicy) -> Self {
        Self {
            ttl: policy.session_ttl,
            capacity: policy.max_sessions,
            enabled: policy.mode == RoutingMode::StickyBalanced,
            sessions: Mutex::default(),
            unsaved: AtomicU64::new(0),
        }
    }

    /// Whether session affinity is enabled.
    pub(super) fn is_enabled(&self) -> bool {
        self.enabled && self.capacity > 0
    }

    /// The account of a session, unless the session has expired.
    pub(super) fn get(&self, session: Session, now: Timestamp) -> Option<usize> {
        if !self.enabled {
            return None;
        }
        let sessions = self.sessions();
        let (at, used_at) = sessions.get(&session)?;
        is_current(*used_at, now, self.ttl).then_some(*at)
    }

    /// Records that a session used an account.
    pub(super) fn set(&self, session: Session, at: usize, now: Timestamp) {
        self.insert(session, at, now);
        self.mark_unsaved(bit(shard_of(session)));
    }

    /// Adds a stored session, unless a later use is already known. Two files may contain the same session.
    pub(super) fn load(&self, session: Session, at: usize, used_at: Timestamp) {
        let is_known = self.sessions().get(&session).is_some_and(|(_, known)| *known >= used_at);
        if !is_known {
            self.insert(session, at, used_at);
        }
    }

    fn insert(&self, session: Session, at: usize, now: Timestamp) {
        if !self.is_enabled() {
            return;
        }
        let mut sessions = self.sessions();
        let previous = sessions.insert(session, (at, now));
        if previous.is_none() && sessions.len() > self.capacity {
            // Drop an eighth of the table at a time, so that not every new session searches a full table. A timestamp
            // in the future counts as the oldest, not as the latest.
            let last_used =
                |used_at: Timestamp| if is_from_future(used_at, now) { Timestamp::MIN } else { used_at };
            let mut times: Vec<_> = sessions.values().map(|(_, used_at)| last_used(*used_at)).collect();
            let excess = (times.len() / 8).max(1);
            let (_, limit, _) = times.select_nth_unstable(excess - 1);
            let limit = *limit;
            let mut excess = sessions.len().saturating_sub(self.capacity).max(excess);
            sessions.retain(|other, (_, used_at)| {
                let is_dropped = excess > 0 && *other != session && last_used(*used_at) <= limit;
                excess -= usize::from(is_dropped);
                !is_dropped
            });
        }
    }

    /// Drops expired sessions.
    pub(super) fn prune(&self, now: Timestamp) {
        let ttl = self.ttl;
        self.sessions().retain(|_, (_, used_at)| {
            if is_from_future(*used_at, now) {
                *used_at = now;
            }
            is_current(*used_at, now, ttl)
        });
    }

    /// Marks shards as not saved.
    pub(super) fn mark_unsaved(&self, shards: u64) {
        if self.is_enabled() {
            self.unsaved.fetch_or(shards, Ordering::AcqRel);
        }
    }

    /// Takes the set of shards that are not saved. Later uses mark their shards again.
    pub(super) fn take_unsaved(&self) -> u64 {
        self.unsaved.swap(0, Ordering::AcqRel)
    }

    /// The sessions of some shards.
    pub(super) fn of_shards(&self, shards: u64) -> Vec<(Session, usize, Timestamp)> {
        let sessions = self.sessions();
        let wanted = sessions.iter().filter(|(session, _)| shards & bit(shard_of(**session)) != 0);
        wanted.map(|(session, (at, used_at))| (*session, *at, *used_at)).collect()
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<Session, (usize, Timestamp)>> {
        self.sessions.lock()
    }
}

fn is_current(used_at: Timestamp, now: Timestamp, ttl: Duration) -> bool {
    Duration::try_from(now.duration_since(used_at)).unwrap_or_default() < ttl
}

impl Inner {
    /// Remembers the session of a request that the account at `at` serves. A session keeps its own account if that is
    /// only temporarily ineligible. `unusable` contains the accounts that turned out to be unusable even though their
    /// readings admit them.
    pub(super) fn remember_session(
        &self,
        request: &Request,
        at: usize,
        unusable: &[(usize, Verdict)],
        now: Timestamp,
    ) {
        let Some(session) = request.session() else { return };
        let stays = |own: &usize| {
            let verdict = unusable.iter().find(|(other, _)| other == own).map(|(_, verdict)| *verdict);
            let verdict = verdict.unwrap_or_else(|| {
                evaluate(&self.candidate(*own, &self.slots[*own], None), request, now, &self.policy)
            });
            !verdict.ends_affinity()
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

    fn sessions(capacity: usize) -> SessionTable {
        let policy = RoutingPolicy::default().mode(RoutingMode::StickyBalanced);
        SessionTable::new(&policy.sessions(Duration::from_secs(100), capacity))
    }

    #[test]
    fn a_full_table_keeps_the_latest_sessions() {
        let sessions = sessions(16);

        for second in 0..1000 {
            sessions.set(Session::of(&second.to_string()), 0, at(second));
            assert!(sessions.of_shards(u64::MAX).len() <= 16);
        }

        assert_eq!(sessions.get(Session::of("999"), at(999)), Some(0));
        assert_eq!(sessions.get(Session::of("1"), at(999)), None);
    }

    #[test]
    fn sessions_with_equal_timestamps_are_bounded_too() {
        let sessions = sessions(16);

        for session in 0..1000 {
            sessions.set(Session::of(&session.to_string()), 0, at(5));
        }

        assert!(sessions.of_shards(u64::MAX).len() <= 16);
    }

    #[test]
    fn a_session_from_before_a_clock_correction_expires_in_time() {
        let (sessions, now) = (sessions(16), 1_800_000_000);
        sessions.set(Session::of("s"), 2, at(now + 3600));

        sessions.prune(at(now));

        assert_eq!(sessions.get(Session::of("s"), at(now + 99)), Some(2));
        assert_eq!(sessions.get(Session::of("s"), at(now + 100)), None);
    }

    #[test]
    fn a_stored_session_keeps_its_later_use() {
        let sessions = sessions(16);

        for (account, used_at) in [(1, at(20)), (0, at(10))] {
            sessions.load(Session::of("s"), account, used_at);
        }

        assert_eq!(sessions.get(Session::of("s"), at(20)), Some(1));
    }

    #[test]
    fn an_idle_session_expires() {
        let sessions = sessions(16);
        sessions.set(Session::of("s"), 2, at(0));

        assert_eq!(sessions.get(Session::of("s"), at(99)), Some(2));
        assert_eq!(sessions.get(Session::of("s"), at(100)), None);

        sessions.prune(at(100));
        assert!(sessions.of_shards(u64::MAX).is_empty());
    }

    #[test]
    fn a_full_table_from_a_fast_clock_accepts_new_sessions() {
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
