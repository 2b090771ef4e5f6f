//! An index of the logins with blocks or reservations, so that a choice among many accounts looks up only these.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use quota_core::model::LoginId;

/// A set of logins that may contain false positives but no false negatives. Reading it takes no lock.
#[derive(Debug, Default)]
pub(super) struct LoginFilter(AtomicU64);

impl LoginFilter {
    pub(super) fn insert(&self, login: &LoginId) {
        self.0.fetch_or(bit_of(login), Ordering::AcqRel);
    }

    #[inline]
    pub(super) fn may_contain(&self, login: &LoginId) -> bool {
        let bits = self.0.load(Ordering::Acquire);
        bits != 0 && bits & bit_of(login) != 0
    }
}

fn bit_of(login: &LoginId) -> u64 {
    let hash = |hash: u32, byte: &u8| hash.wrapping_mul(31).wrapping_add(u32::from(*byte));
    1 << (login.as_str().as_bytes().iter().rev().take(8).fold(0, hash) % 64)
}

/// The accounts that have received blocks, by the login of the blocks. An account keeps its blocks when it leaves the
/// login.
#[derive(Debug, Default)]
pub(super) struct BlockedLogins {
    filter: LoginFilter,
    accounts: Mutex<Accounts>,
}

#[derive(Debug, Default)]
struct Accounts {
    by_login: HashMap<LoginId, BTreeSet<usize>>,
    /// How many logins were left when entries without blocks were last removed.
    left: usize,
}

impl BlockedLogins {
    /// Records that an account has blocks of a login. Occasionally it removes entries for which `is_blocked` is false.
    pub(super) fn insert(&self, login: &LoginId, at: usize, is_blocked: impl Fn(usize, &LoginId) -> bool) {
        let mut accounts = self.accounts.lock();
        let Accounts { by_login, left } = &mut *accounts;
        by_login.entry(login.clone()).or_default().insert(at);
        self.filter.insert(login);
        // Doubling makes the amortized cost per block small.
        if by_login.len() > (2 * *left).max(16) {
            by_login.retain(|login, accounts| {
                accounts.retain(|at| is_blocked(*at, login));
                !accounts.is_empty()
            });
            *left = by_login.len();
        }
    }

    /// The accounts except `at` that have received blocks of this login, of any provider.
    #[inline]
    pub(super) fn others(&self, login: &LoginId, at: usize) -> Vec<usize> {
        if !self.filter.may_contain(login) {
            return Vec::new();
        }
        let accounts = self.accounts.lock();
        accounts.by_login.get(login).into_iter().flatten().copied().filter(|other| *other != at).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_without_blocks_are_removed() {
        let blocked = BlockedLogins::default();
        let logins: Vec<_> = (0..100).map(|at| LoginId::new(&at.to_string())).collect();
        for (at, login) in logins.iter().enumerate() {
            blocked.insert(login, at, |other, _| other == at);
        }

        assert!(blocked.accounts.lock().by_login.len() <= 16);
        assert_eq!(blocked.others(&logins[99], 7), [99]);
        assert!(blocked.others(&logins[0], 7).is_empty());
    }
}
