//! The table of views. It stores them close together, so that reading many accounts touches little memory.
//! The rest of an account's state, about a kilobyte, is in `entry`. Readers never touch it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};

use super::view::View;

/// The number of views in a chunk.
const CHUNK: usize = 256;

/// A flag: a caller has read the view since `take_accessed` last cleared the flag.
const ACCESSED: u8 = 1;

/// A flag: a follower keeps the view current.
const FOLLOWED: u8 = 2;

/// A flag: reads must check which login the account holds.
const CHECKS_LOGIN: u8 = 4;

/// The time between two checks of the login.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The cell of one account's view.
#[derive(Debug)]
struct ViewCell {
    view: ArcSwap<View>,
    /// Stored next to the view, because every read needs both.
    flags: AtomicU8,
    /// When the last check of the login began, by the coarse clock in milliseconds. It wraps, which costs one check.
    login_checked_ms: AtomicU32,
}

/// A handle to one account's view.
#[derive(Debug, Clone)]
pub(crate) struct ViewHandle {
    chunk: Arc<[ViewCell; CHUNK]>,
    cell: u8,
}

/// Allocates the cells of one provider's accounts, in chunks. A cell is never reused.
#[derive(Debug, Default)]
pub(crate) struct ViewTable {
    chunk: Option<Arc<[ViewCell; CHUNK]>>,
    used: usize,
}

impl ViewTable {
    /// Adds a cell with `view`. All cells of a chunk start with the same view.
    pub(crate) fn add(&mut self, view: &Arc<View>) -> ViewHandle {
        let new_cell = || ViewCell {
            view: ArcSwap::new(Arc::clone(view)),
            flags: AtomicU8::new(0),
            login_checked_ms: AtomicU32::new(0),
        };
        let chunk = self.chunk.get_or_insert_with(|| Arc::new(std::array::from_fn(|_| new_cell())));
        let cell = u8::try_from(self.used).expect("the index of a cell is less than CHUNK");
        let view_handle = ViewHandle { chunk: Arc::clone(chunk), cell };
        self.used += 1;
        if self.used == CHUNK {
            *self = Self::default();
        }
        view_handle
    }
}

impl ViewHandle {
    fn cell(&self) -> &ViewCell {
        &self.chunk[usize::from(self.cell)]
    }

    /// Loads the view. Every read runs this.
    #[inline]
    pub(crate) fn load(&self) -> Guard<Arc<View>> {
        self.mark_accessed();
        self.cell().view.load()
    }

    /// Loads the view as an `Arc` that can be stored.
    pub(crate) fn load_owned(&self) -> Arc<View> {
        self.mark_accessed();
        self.cell().view.load_full()
    }

    /// Loads the view without marking it as accessed.
    pub(crate) fn load_untracked(&self) -> Guard<Arc<View>> {
        self.cell().view.load()
    }

    pub(crate) fn store(&self, view: Arc<View>) {
        self.cell().view.store(view);
    }

    /// Marks the view as read by a caller.
    #[inline]
    pub(crate) fn mark_accessed(&self) {
        let flags = &self.cell().flags;
        // Write only if the flag is not set, so that readers on many cores do not contend for the cache line.
        if flags.load(Ordering::Relaxed) & ACCESSED == 0 {
            flags.fetch_or(ACCESSED, Ordering::Relaxed);
        }
    }

    /// Whether a caller has read the view since the previous call of `take_accessed`.
    pub(crate) fn take_accessed(&self) -> bool {
        self.cell().flags.fetch_and(!ACCESSED, Ordering::Relaxed) & ACCESSED != 0
    }

    /// Whether a follower keeps the view current.
    #[inline]
    pub(crate) fn is_followed(&self) -> bool {
        self.cell().flags.load(Ordering::Relaxed) & FOLLOWED != 0
    }

    pub(crate) fn set_followed(&self, followed: bool) {
        self.set_flag(FOLLOWED, followed);
    }

    /// Sets whether reads must check which login the account holds.
    pub(crate) fn set_checks_login(&self, checks_login: bool) {
        self.set_flag(CHECKS_LOGIN, checks_login);
    }

    fn set_flag(&self, flag: u8, is_set: bool) {
        let flags = &self.cell().flags;
        if is_set {
            flags.fetch_or(flag, Ordering::Relaxed);
        } else {
            flags.fetch_and(!flag, Ordering::Relaxed);
        }
    }

    /// Whether reads must check which login the account holds.
    #[inline]
    pub(crate) fn checks_login(&self) -> bool {
        self.cell().flags.load(Ordering::Relaxed) & CHECKS_LOGIN != 0
    }

    /// Whether the last check began at least this long before `now_ms`, or later than it.
    pub(crate) fn is_login_check_due(&self, now_ms: i64, interval: Duration) -> bool {
        since(self.cell().login_checked_ms.load(Ordering::Relaxed), now_ms) >= interval
    }

    /// Records that a check begins, if one is due. Only one of several concurrent callers gets `true`.
    pub(crate) fn claim_login_check(&self, now_ms: i64, interval: Duration) -> bool {
        let checked = &self.cell().login_checked_ms;
        let last = checked.load(Ordering::Relaxed);
        let claim = || checked.compare_exchange(last, wrapped(now_ms), Ordering::Relaxed, Ordering::Relaxed);
        since(last, now_ms) >= interval && claim().is_ok()
    }

    /// Records that a check begins.
    pub(crate) fn login_check_begins(&self, now_ms: i64) {
        self.cell().login_checked_ms.store(wrapped(now_ms), Ordering::Relaxed);
    }

    /// Requires a check at the next read.
    pub(crate) fn require_login_check(&self, now_ms: i64) {
        let long_ago = wrapped(now_ms).wrapping_add(u32::MAX / 2);
        self.cell().login_checked_ms.store(long_ago, Ordering::Relaxed);
    }
}

/// The time from `last` to `now_ms`, which is very long if the clock was set back.
fn since(last: u32, now_ms: i64) -> Duration {
    Duration::from_millis(u64::from(wrapped(now_ms).wrapping_sub(last)))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "only differences matter")]
fn wrapped(now_ms: i64) -> u32 {
    now_ms as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_due_after_a_second_and_after_the_clock_was_set_back() {
        let start = 1_700_000_000_000;
        let is_due = |now_ms| since(wrapped(start), now_ms) >= CHECK_INTERVAL;

        assert_eq!([start, start + 999, start + 1_000, start - 1].map(is_due), [false, false, true, true]);
    }
}
