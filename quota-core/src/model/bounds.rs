//! The maximum length of a window, and the latest possible reset.

use std::num::NonZeroU64;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use crate::time;

/// A reset may be later than the window's length allows by this much, because clocks differ and a call takes time.
const RESET_SLACK: Duration = Duration::from_secs(2 * 60);

/// The maximum length of a window, and the maximum time to a reset if the length is unknown.
const LONGEST_WINDOW: Duration = Duration::from_secs(400 * 24 * 3600);

/// The length of a window in whole milliseconds, neither zero nor too long. It takes eight bytes, even as an `Option`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct WindowLength(NonZeroU64);

impl WindowLength {
    /// `None` if the length is zero or too long.
    pub(crate) fn new(length: Duration) -> Option<Self> {
        u64::try_from(length.as_millis()).ok().and_then(Self::from_ms)
    }

    fn from_ms(ms: u64) -> Option<Self> {
        NonZeroU64::new(ms).filter(|_| Duration::from_millis(ms) <= LONGEST_WINDOW).map(Self)
    }

    pub(crate) fn duration(self) -> Duration {
        Duration::from_millis(self.0.get())
    }

    /// Deserializes a length; `None` if it is zero or too long.
    pub(crate) fn deserialize_plausible<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Self>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.and_then(Self::from_ms))
    }
}

/// Whether a reset is later than the length of the window allows.
pub(crate) fn is_too_far(resets_at: Timestamp, length: Option<WindowLength>, read_at: Timestamp) -> bool {
    let limit = length.map_or(LONGEST_WINDOW, |length| length.duration() + RESET_SLACK);
    resets_at > time::saturating_add(read_at, limit)
}
