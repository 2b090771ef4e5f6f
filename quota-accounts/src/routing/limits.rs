//! How much must be left of windows.
//! What happens below it is decided in `evaluate`.

use std::collections::BTreeMap;

use quota_core::model::{Presence, Window};
use quota_core::{Percent, Snapshot, Used, WindowId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How much must be left of each window, as a share of the whole.
///
/// A window that counts the whole account passes with exactly that much, one that counts a model only needs more. A limit
/// applies to the requests that its window counts: one of `seven_day/opus` concerns no request of another model, and no account
/// of which a complete answer says that it has no such window.
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
    /// For every window that is not named.
    #[serde(rename = "every_bp", skip_serializing_if = "Option::is_none")]
    default_limit: Option<Percent>,
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
        Self { default_limit: Some(left), ..Self::default() }
    }

    /// That much must be left of this window.
    #[must_use]
    pub fn window(mut self, window: WindowId, left: Percent) -> Self {
        self.windows.insert(window, left);
        self
    }

    /// How much must be left of a window.
    #[must_use]
    pub fn min_remaining_of(&self, window: &WindowId) -> Percent {
        // Nearly always there are none, and this is asked for every window of every account.
        let own = if self.windows.is_empty() { None } else { self.windows.get(window) };
        own.copied().or(self.default_limit).unwrap_or(Percent::ZERO)
    }

    /// Compares one window, of which so much is used, with its limit.
    ///
    /// ```
    /// use quota_accounts::Limits;
    /// use quota_accounts::routing::LimitCheck;
    /// use quota_core::{Percent, Used, WindowId, WindowReading};
    /// use quota_core::model::{Provenance, Source};
    ///
    /// let percent = |percent| Percent::from_percent(percent).unwrap();
    /// let stamp = Provenance::new("2026-01-01T12:00:00Z".parse()?, Source::Poll);
    /// let window = WindowReading::new(WindowId::five_hour(), percent(95.0)).stamped(stamp);
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
        // Of a model's window all that remains at its limit is what must remain, and the rest of the account goes on.
        let is_below = if window.scope().is_none() { left < limit } else { left <= limit };
        match is_below {
            true => LimitCheck::Below { left },
            false => LimitCheck::Passed { left, is_exact: matches!(used, Used::Exact(_)) },
        }
    }

    /// The windows that count for requests of `model` and of which there is no reading: those that the last complete answer
    /// held in a form that could not be read, and those with a limit of their own that no answer has named yet.
    ///
    /// A window that a complete answer left out is not among them: the account has none.
    pub fn unread<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        model: Option<&'a str>,
    ) -> impl Iterator<Item = &'a WindowId> {
        let unnamed = self.windows.keys().filter(|id| snapshot.presence(id) == Presence::Unknown);
        snapshot.unreadable().chain(unnamed).filter(move |id| id.applies_to(model))
    }

    /// How much must be left of every window that is not named; `None` if that was not said.
    #[must_use]
    pub fn default_limit(&self) -> Option<Percent> {
        self.default_limit
    }

    /// The windows that were named, and how much must be left of each.
    pub fn windows(&self) -> impl Iterator<Item = (&WindowId, Percent)> {
        self.windows.iter().map(|(window, left)| (window, *left))
    }
}

/// How a window compares with its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LimitCheck {
    /// Enough is left.
    Passed {
        /// What is left.
        left: Percent,
        /// Whether that is exact. What an old reading says is left is the most that can be: more may be used by now.
        is_exact: bool,
    },
    /// Less is left than the limit.
    Below {
        /// What is left, at most.
        left: Percent,
    },
    /// Nothing is left, whatever the limit.
    Exhausted,
    /// It is not known how much is left: the window has reset since, or its reading is old and has no reset.
    Unknown,
}

/// The limits of one account, where they differ from the policy's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct AccountLimits {
    /// In place of [`RoutingPolicy::min_remaining`](crate::RoutingPolicy#structfield.min_remaining).
    // The alias reads a file of format 1: a limit that went unnoticed would be none.
    #[serde(rename = "min_remaining", alias = "minimum", skip_serializing_if = "Option::is_none")]
    pub min_remaining: Option<Limits>,
    /// In place of [`RoutingPolicy::killswitch`](crate::RoutingPolicy#structfield.killswitch).
    #[serde(rename = "killswitch", alias = "stop", skip_serializing_if = "Option::is_none")]
    pub killswitch: Option<Limits>,
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
