//! The settings of one window of an account.
//! `window_sim` computes how it fills and resets.

use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact::optional as span;
use serde::Deserialize;

/// One window: its initial usage, its growth, and its reset.
///
/// At a reset, the usage becomes zero. The next reset follows one length later.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    pub(crate) id: Kind,
    pub(crate) model: Option<String>,
    #[serde(default)]
    pub(crate) used: f64,
    #[serde(default)]
    pub(crate) growth_per_hour: f64,
    #[serde(default, with = "span")]
    pub(super) length: Option<Duration>,
    #[serde(default, with = "span")]
    pub(super) resets_in: Option<Duration>,
}

/// The lengths of the provider's windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    FiveHour,
    SevenDay,
}

impl Window {
    /// The five-hour window. It starts with its first use, unless [`resets_in`](Self::resets_in) is set.
    #[must_use]
    pub fn five_hour() -> Self {
        Self::unused(Kind::FiveHour)
    }

    /// The seven-day window.
    #[must_use]
    pub fn seven_day() -> Self {
        Self::unused(Kind::SevenDay)
    }

    /// The seven-day window of one model, by its display name.
    #[must_use]
    pub fn model(display_name: impl Into<String>) -> Self {
        Self { model: Some(display_name.into()), ..Self::unused(Kind::SevenDay) }
    }

    fn unused(id: Kind) -> Self {
        Self { id, model: None, used: 0.0, growth_per_hour: 0.0, length: None, resets_in: None }
    }

    /// Sets the initial usage in percent. It may exceed 100.
    #[must_use]
    pub fn used(mut self, percent: f64) -> Self {
        self.used = percent;
        self
    }

    /// Sets the growth in percent per hour. Growth stops at 100 percent.
    #[must_use]
    pub fn growth_per_hour(mut self, percent: f64) -> Self {
        self.growth_per_hour = percent;
        self
    }

    /// Sets a length that differs from the one in the name.
    #[must_use]
    pub fn length(mut self, length: Duration) -> Self {
        self.length = Some(length);
        self
    }

    /// Sets the time of the first reset, measured from the start. The default is one length.
    #[must_use]
    pub fn resets_in(mut self, wait: Duration) -> Self {
        self.resets_in = Some(wait);
        self
    }

    /// The length.
    pub(crate) fn full_length(&self) -> Duration {
        self.length.unwrap_or(match self.id {
            Kind::FiveHour => Duration::from_secs(5 * 3600),
            Kind::SevenDay => Duration::from_secs(7 * 24 * 3600),
        })
    }

    /// The first reset; `None` if the window has not started.
    pub(crate) fn first_reset(&self) -> Option<Duration> {
        let has_started = self.id != Kind::FiveHour || self.used > 0.0 || self.growth_per_hour > 0.0;
        self.resets_in.or_else(|| has_started.then(|| self.full_length()))
    }
}
