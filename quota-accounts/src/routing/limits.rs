//! How much must remain of each window. `evaluate` applies the limits.

use std::collections::BTreeMap;

use quota_core::model::{Presence, Window};
use quota_core::{Percent, Snapshot, Used, WindowId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How much must remain of each window, as a share of the window.
///
/// A window of the whole account passes at exactly the limit; a window of one model must be above it. A limit applies only to
/// requests that count against its window: `seven_day/opus` does not apply to requests for other models. Nor does a limit apply to an
/// account whose last complete response has no such window.
///
/// ```
/// use quota_accounts::Limits;
/// use quota_core::{Percent, WindowId};
///
/// let limits = Limits::of(Percent::from_percent(5.0).unwrap())
///     .window(WindowId::seven_day(), Percent::from_percent(10.0).unwrap());
/// assert_eq!(limits.min_remaining_of(&WindowId::five_hour()).as_f64(), 5.0);
/// assert_eq!(limits.min_remaining_of(&WindowId::seven_day()).as_f64(), 10.0);
/// assert_eq!((limits.default_limit().unwrap().as_f64(), limits.windows().count()), (5.0, 1));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// The limit of every window without its own limit.
    #[serde(rename = "every_bp", skip_serializing_if = "Option::is_none")]
    default_limit: Option<Percent>,
    #[serde(rename = "windows_bp", skip_serializing_if = "BTreeMap::is_empty")]
    windows: BTreeMap<WindowId, Percent>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl Limits {
    /// No limits.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// The same limit for every window.
    #[must_use]
    pub fn of(limit: Percent) -> Self {
        Self { default_limit: Some(limit), ..Self::default() }
    }

    /// Sets the limit of one window.
    #[must_use]
    pub fn window(mut self, window: WindowId, limit: Percent) -> Self {
        self.windows.insert(window, limit);
        self
    }

    /// How much must remain of a window.
    #[must_use]
    pub fn min_remaining_of(&self, window: &WindowId) -> Percent {
        // Fast path: this runs for every window of every account, and few limits name a window.
        let own = if self.windows.is_empty() { None } else { self.windows.get(window) };
        own.copied().or(self.default_limit).unwrap_or(Percent::ZERO)
    }

    /// Compares the usage of a window with its limit.
    ///
    /// ```
    /// use quota_accounts::Limits;
    /// use quota_accounts::routing::LimitCheck;
    /// use quota_core::{Percent, Used, WindowId, WindowReading};
    /// use quota_core::model::{Provenance, Source};
    ///
    /// let percent = |percent| Percent::from_percent(percent).unwrap();
    /// let provenance = Provenance::new("2026-01-01T12:00:00Z".parse()?, Source::Poll);
    /// let window = WindowReading::new(WindowId::five_hour(), percent(95.0)).stamped(provenance);
    /// let used = Used::Exact(window.used());
    ///
    /// assert_eq!(Limits::of(percent(5.0)).check(&window, used), LimitCheck::Passed { left: percent(5.0), is_exact: true });
    /// assert_eq!(Limits::of(percent(6.0)).check(&window, used), LimitCheck::Below { left: percent(5.0) });
    /// # Ok::<(), jiff::Error>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn check(&self, window: &Window, used: Used) -> LimitCheck {
        let Some(left) = used.lower_bound().map(Percent::remaining) else { return LimitCheck::Unknown };
        if left == Percent::ZERO {
            return LimitCheck::Exhausted;
        }
        let limit = self.min_remaining_of(window.id());
        // A model's window must be above its limit. If that stops one model, the account can still serve others.
        let is_below = if window.scope().is_none() { left < limit } else { left <= limit };
        match is_below {
            true => LimitCheck::Below { left },
            false => LimitCheck::Passed { left, is_exact: matches!(used, Used::Exact(_)) },
        }
    }

    /// The windows that count for requests for `model` but have no reading: those that the parser could not read in the last
    /// complete response, and those with their own limit that no response has listed yet.
    ///
    /// It omits windows that a complete response does not list, because the account does not have them.
    pub fn unread<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        model: Option<&'a str>,
    ) -> impl Iterator<Item = &'a WindowId> {
        let unlisted = self.windows.keys().filter(|id| snapshot.presence(id) == Presence::Unknown);
        snapshot.unreadable().chain(unlisted).filter(move |id| id.applies_to(model))
    }

    /// The limit of every window without its own limit, if set.
    #[must_use]
    pub fn default_limit(&self) -> Option<Percent> {
        self.default_limit
    }

    /// The windows with their own limit, and that limit.
    pub fn windows(&self) -> impl Iterator<Item = (&WindowId, Percent)> {
        self.windows.iter().map(|(window, limit)| (window, *limit))
    }
}

/// The result of comparing a window with its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LimitCheck {
    /// Enough remains.
    Passed {
        /// What remains, at most.
        left: Percent,
        /// Whether `left` is exact. After a stale reading, less may remain.
        is_exact: bool,
    },
    /// Less remains than the limit.
    Below {
        /// What remains, at most.
        left: Percent,
    },
    /// Nothing remains, regardless of the limit.
    Exhausted,
    /// The remaining part is unknown: the window has reset since the reading, or the reading is stale and has no reset.
    Unknown,
}

/// The limits of one account, which replace those of the policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct AccountLimits {
    /// Replaces [`RoutingPolicy::min_remaining`](crate::RoutingPolicy#structfield.min_remaining).
    // The alias reads files of format 1. Otherwise their limits would be ignored.
    #[serde(alias = "minimum", skip_serializing_if = "Option::is_none")]
    pub min_remaining: Option<Limits>,
    /// Replaces [`RoutingPolicy::killswitch`](crate::RoutingPolicy#structfield.killswitch).
    #[serde(alias = "stop", skip_serializing_if = "Option::is_none")]
    pub killswitch: Option<Limits>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl AccountLimits {
    /// No limits of its own, so the policy's limits apply.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Sets the account's minimum. Below it, the router prefers another account.
    #[must_use]
    pub fn min_remaining(mut self, limits: Limits) -> Self {
        self.min_remaining = Some(limits);
        self
    }

    /// Sets the account's killswitch.
    #[must_use]
    pub fn killswitch(mut self, limits: Limits) -> Self {
        self.killswitch = Some(limits);
        self
    }
}
