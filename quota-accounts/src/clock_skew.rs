//! What a clock that was ahead has left behind, told from what a clock that is right has.
//! What follows is up to whoever finds it; the numbers' own rules for it are the record's, in `quota-core`.

use std::time::Duration;

use jiff::Timestamp;

/// Clocks of hosts that share a disk differ by less than this; what claims to be later comes from a wrong clock.
const MAX_SKEW: Duration = Duration::from_secs(30);

/// Nothing was kept before this. A machine whose clock says so has just started, and its clock has nothing to say.
const EARLIEST_PLAUSIBLE: Timestamp = Timestamp::constant(1_735_689_600, 0);

/// Whether a moment that is said to be past lies ahead of `now`.
pub(crate) fn is_from_future(at: Timestamp, now: Timestamp) -> bool {
    now >= EARLIEST_PLAUSIBLE && now.checked_add(MAX_SKEW).is_ok_and(|limit| limit < at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_moment_is_ahead_only_by_more_than_clocks_differ() {
        let now = at(1_800_000_000);

        assert!(!is_from_future(at(1_800_000_030), now));
        assert!(is_from_future(at(1_800_000_031), now));
    }

    #[test]
    fn a_clock_that_was_never_set_finds_nothing_ahead() {
        assert!(!is_from_future(at(1_800_000_000), at(60)));
    }
}
