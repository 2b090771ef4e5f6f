//! How much must be left of windows.
//! What happens below it is decided in `judge`.

use std::collections::BTreeMap;

use quota_core::{Percent, Window, WindowId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How much must be left of each window, as a share of the whole.
///
/// A window that counts the whole account passes with exactly that much, one that counts a model only needs more.
///
/// ```
/// use quota_accounts::Limits;
/// use quota_core::{Percent, WindowId};
///
/// let limits = Limits::of(Percent::from_percent(5.0).unwrap())
///     .window(WindowId::seven_day(), Percent::from_percent(10.0).unwrap());
/// assert_eq!(limits.left_of(&WindowId::five_hour()).as_f64(), 5.0);
/// assert_eq!(limits.left_of(&WindowId::seven_day()).as_f64(), 10.0);
/// assert_eq!((limits.every().unwrap().as_f64(), limits.windows().count()), (5.0, 1));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// For every window that is not named.
    #[serde(rename = "every_bp", skip_serializing_if = "Option::is_none")]
    every: Option<Percent>,
    #[serde(rename = "windows_bp", skip_serializing_if = "BTreeMap::is_empty")]
    windows: BTreeMap<WindowId, Percent>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl Limits {
    /// Nothing must be left.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// That much must be left of every window.
    #[must_use]
    pub fn of(left: Percent) -> Self {
        Self { every: Some(left), ..Self::default() }
    }

    /// That much must be left of this window, and it must be known where unknown windows count against an account.
    #[must_use]
    pub fn window(mut self, window: WindowId, left: Percent) -> Self {
        self.windows.insert(window, left);
        self
    }

    /// How much must be left of a window.
    #[must_use]
    pub fn left_of(&self, window: &WindowId) -> Percent {
        // Nearly always there are none, and this is asked for every window of every account.
        let own = if self.windows.is_empty() { None } else { self.windows.get(window) };
        own.copied().or(self.every).unwrap_or(Percent::ZERO)
    }

    /// Whether too little is left of a window. A window of the whole account passes with exactly what must be left; a model's
    /// does not: all that remains of it is what must, so nothing is there to spend, and the rest of the account goes on.
    pub(crate) fn are_broken(&self, window: &Window, left: Percent) -> bool {
        let limit = self.left_of(window.id());
        if window.scope().is_none() { left < limit } else { left <= limit }
    }

    /// How much must be left of every window that is not named; `None` if that was not said.
    #[must_use]
    pub fn every(&self) -> Option<Percent> {
        self.every
    }

    /// The windows that were named, and how much must be left of each.
    pub fn windows(&self) -> impl Iterator<Item = (&WindowId, Percent)> {
        self.windows.iter().map(|(window, left)| (window, *left))
    }

    /// The windows that were named.
    pub(crate) fn named(&self) -> impl Iterator<Item = &WindowId> {
        self.windows.keys()
    }
}

/// The limits of one account, where they differ from the policy's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct AccountLimits {
    /// In place of [`RoutingPolicy::minimum`](crate::RoutingPolicy#structfield.minimum).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum: Option<Limits>,
    /// In place of [`RoutingPolicy::stop`](crate::RoutingPolicy#structfield.stop).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<Limits>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl AccountLimits {
    /// No limits but the policy's.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Sets how much must be left for the account to be taken while another has more.
    #[must_use]
    pub fn minimum(mut self, limits: Limits) -> Self {
        self.minimum = Some(limits);
        self
    }

    /// Sets the account's killswitch.
    #[must_use]
    pub fn stop(mut self, limits: Limits) -> Self {
        self.stop = Some(limits);
        self
    }
}
