//! The settings of one window of an account.
//! How it fills and rolls over is in `meter`.

use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact::optional as span;
use serde::Deserialize;

/// One window: how much of it is used at the start, how it fills, and when it resets.
///
/// After its reset nothing is used, and the next reset is a length later.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    pub(crate) id: Kind,
    pub(crate) model: Option<String>,
    #[serde(default)]
    pub(crate) used: f64,
    #[serde(default)]
    pub(crate) fills_per_hour: f64,
    #[serde(default, with = "span")]
    pub(super) length: Option<Duration>,
    #[serde(default, with = "span")]
    pub(super) resets_in: Option<Duration>,
}

/// The lengths of windows that the provider knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    FiveHour,
    SevenDay,
}

impl Window {
    /// The window of five hours. It has not begun until something is used, unless [`resets_in`](Self::resets_in) is set.
    #[must_use]
    pub fn five_hour() -> Self {
        Self::untouched(Kind::FiveHour)
    }

    /// The window of seven days.
    #[must_use]
    pub fn seven_day() -> Self {
        Self::untouched(Kind::SevenDay)
    }

    /// The window of seven days that counts one model only, by the name people see.
    #[must_use]
    pub fn model(display_name: impl Into<String>) -> Self {
        Self { model: Some(display_name.into()), ..Self::untouched(Kind::SevenDay) }
    }

    fn untouched(id: Kind) -> Self {
        Self { id, model: None, used: 0.0, fills_per_hour: 0.0, length: None, resets_in: None }
    }

    /// Sets how much is used at the start, in percent; may exceed 100.
    #[must_use]
    pub fn used(mut self, percent: f64) -> Self {
        self.used = percent;
        self
    }

    /// Sets how many percent are added in an hour, up to 100 in all.
    #[must_use]
    pub fn fills_per_hour(mut self, percent: f64) -> Self {
        self.fills_per_hour = percent;
        self
    }

    /// Sets how long it lasts, where that is not what its name says.
    #[must_use]
    pub fn length(mut self, length: Duration) -> Self {
        self.length = Some(length);
        self
    }

    /// Sets how long after the start it is reset first; a length otherwise.
    #[must_use]
    pub fn resets_in(mut self, span: Duration) -> Self {
        self.resets_in = Some(span);
        self
    }

    /// How long it lasts.
    pub(crate) fn lasts(&self) -> Duration {
        self.length.unwrap_or(match self.id {
            Kind::FiveHour => Duration::from_secs(5 * 3600),
            Kind::SevenDay => Duration::from_secs(7 * 24 * 3600),
        })
    }

    /// When it is reset first; `None` if it has not begun.
    pub(crate) fn first_reset(&self) -> Option<Duration> {
        let begun = self.id != Kind::FiveHour || self.used > 0.0 || self.fills_per_hour > 0.0;
        self.resets_in.or_else(|| begun.then(|| self.lasts()))
    }
}
