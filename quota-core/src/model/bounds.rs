//! The maximum length of a window, and the latest possible reset.

use std::time::Duration;

use jiff::Timestamp;

use crate::time;

/// A reset may be later than the window's length allows by this much, because clocks differ and a call takes time.
const RESET_SLACK: Duration = Duration::from_secs(2 * 60);

/// The longest time to a reset where the length of the window is unknown; nor is a window longer than this.
const LONGEST_WINDOW: Duration = Duration::from_secs(400 * 24 * 3600);

/// A length in whole milliseconds; `None` if no window can have it.
pub(crate) fn plausible_length(length: Duration) -> Option<Duration> {
    let ms = Duration::from_millis(length.as_millis().try_into().unwrap_or(u64::MAX));
    (!ms.is_zero() && ms <= LONGEST_WINDOW).then_some(ms)
}

/// Whether a reset is later than the length of the window allows.
pub(crate) fn is_too_far(resets_at: Timestamp, length: Option<Duration>, read_at: Timestamp) -> bool {
    let longest = length.and_then(plausible_length).map_or(LONGEST_WINDOW, |length| length + RESET_SLACK);
    resets_at > time::saturating_add(read_at, longest)
}
