//! The maximum length of a window, and the latest possible reset.

use std::time::Duration;

use jiff::Timestamp;

use crate::time;

/// A reset may be later than the window's length allows by this much, because clocks differ and a call takes time.
const RESET_SLACK: Duration = Duration::from_secs(2 * 60);

/// The maximum length of a window, and the maximum time to a reset if the length is unknown.
const LONGEST_WINDOW: Duration = Duration::from_secs(400 * 24 * 3600);

/// Returns the length in whole milliseconds, or `None` if it is zero or too long.
pub(crate) fn plausible_length(length: Duration) -> Option<Duration> {
    let ms = Duration::from_millis(length.as_millis().try_into().unwrap_or(u64::MAX));
    (!ms.is_zero() && ms <= LONGEST_WINDOW).then_some(ms)
}

/// Whether a reset is later than the length of the window allows.
pub(crate) fn is_too_far(resets_at: Timestamp, length: Option<Duration>, read_at: Timestamp) -> bool {
    let limit = length.and_then(plausible_length).map_or(LONGEST_WINDOW, |length| length + RESET_SLACK);
    resets_at > time::saturating_add(read_at, limit)
}
