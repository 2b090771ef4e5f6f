//! The settings of routing: plain data with defaults.
//! `evaluate` and `choose` apply them.

use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as span;
use serde::{Deserialize, Serialize};

use super::Limits;

/// Which account to prefer, how much must remain of each, and when to try another one.
///
/// Each field names its default.
///
/// ```
/// use quota_accounts::{Limits, RoutingMode, RoutingPolicy};
/// use quota_core::Percent;
///
/// let policy = RoutingPolicy::default()
///     .mode(RoutingMode::StickyBalanced)
///     .min_remaining(Limits::of(Percent::from_percent(20.0).unwrap()))
///     .killswitch(Limits::of(Percent::from_percent(5.0).unwrap()));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RoutingPolicy {
    /// Which of the available accounts serves a request. Default: main account first.
    pub mode: RoutingMode,
    /// The minimum that should remain of each window. Default: none.
    ///
    /// An account below it serves only if no account is above its own minimum.
    pub min_remaining: Limits,
    /// The killswitch: an account with less remaining is never used. Default: off.
    ///
    /// A window of one model must be above this limit and above the minimum, not just at it: see [`Limits`].
    pub killswitch: Limits,
    /// What to do with an account if the usage of a window is unknown. Default: allow.
    pub when_unknown: UnknownUsage,
    /// The statuses after which a request is retried on another account. Default: 401, 403 and 429.
    ///
    /// An exhausted quota always causes a retry, regardless of the status.
    pub fallback_on: Vec<u16>,
    /// How long a throttled account is skipped if the provider states no wait. If no account is available, it is also the wait
    /// for an account of unknown usage or with an unreadable credential. Default: 30 seconds.
    #[serde(with = "span")]
    pub throttle_cooldown: Duration,
    /// How long an exhausted account is skipped if the provider states no reset. Default: 5 minutes.
    #[serde(with = "span")]
    pub exhausted_cooldown: Duration,
    /// How long an account is skipped after a provider or an organization forbade a request. A new login ends this early.
    /// Default: 1 hour.
    #[serde(with = "span")]
    pub forbidden_cooldown: Duration,
    /// How long a request or a report waits for the credential of an account. Default: 20 seconds.
    ///
    /// The sources of `quota-credentials` have shorter timeouts, unless one is configured with more. After a timeout the account
    /// is skipped for [`throttle_cooldown`](Self#structfield.throttle_cooldown).
    #[serde(with = "span")]
    pub credential_timeout: Duration,
    /// How long a request waits in total for refreshes, for the credentials of ineligible accounts, and for
    /// reservations in the store. Default: 5 seconds. Then the router decides from the available readings, and the
    /// refreshes and reads continue.
    #[serde(with = "span")]
    pub route_timeout: Duration,
    /// How long a session stays with its account after its last request. Default: 7 days.
    #[serde(with = "span")]
    pub session_ttl: Duration,
    /// How many sessions are remembered. The longest idle one is dropped first. Default: 10,000.
    pub max_sessions: usize,
    /// A session waits for its account instead of moving if the account is available again within this time. Default: 2 minutes.
    #[serde(with = "span")]
    pub max_session_wait: Duration,
    /// How long a request waits for the store to confirm its reservation. After that only the reservations of this process count.
    /// Default: 250 milliseconds.
    #[serde(with = "span")]
    pub reservation_timeout: Duration,
}

impl Default for RoutingPolicy {
    fn default() -> Self {
        Self {
            mode: RoutingMode::default(),
            min_remaining: Limits::none(),
            killswitch: Limits::none(),
            when_unknown: UnknownUsage::default(),
            fallback_on: vec![401, 403, 429],
            throttle_cooldown: Duration::from_secs(30),
            exhausted_cooldown: Duration::from_secs(5 * 60),
            forbidden_cooldown: Duration::from_secs(3600),
            credential_timeout: Duration::from_secs(20),
            route_timeout: Duration::from_secs(5),
            session_ttl: Duration::from_secs(7 * 24 * 3600),
            max_sessions: 10_000,
            max_session_wait: Duration::from_secs(2 * 60),
            reservation_timeout: Duration::from_millis(250),
        }
    }
}

impl RoutingPolicy {
    /// Sets which account is preferred.
    #[must_use]
    pub fn mode(mut self, mode: RoutingMode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets the minimum that should remain of each window.
    #[must_use]
    pub fn min_remaining(mut self, limits: Limits) -> Self {
        self.min_remaining = limits;
        self
    }

    /// Sets the killswitch.
    #[must_use]
    pub fn killswitch(mut self, limits: Limits) -> Self {
        self.killswitch = limits;
        self
    }

    /// Sets what to do with an account if the usage of a window is unknown.
    #[must_use]
    pub fn when_unknown(mut self, unknown: UnknownUsage) -> Self {
        self.when_unknown = unknown;
        self
    }

    /// Sets the statuses after which a request is retried on another account.
    #[must_use]
    pub fn fallback_on(mut self, statuses: impl IntoIterator<Item = u16>) -> Self {
        self.fallback_on = statuses.into_iter().collect();
        self
    }

    /// Sets how long a session waits for its account instead of moving.
    #[must_use]
    pub fn max_session_wait(mut self, wait: Duration) -> Self {
        self.max_session_wait = wait;
        self
    }

    /// Sets how long a request waits in total for refreshes and the credentials of ineligible accounts.
    #[must_use]
    pub fn route_timeout(mut self, timeout: Duration) -> Self {
        self.route_timeout = timeout;
        self
    }

    /// Sets how long a request waits for the store to confirm its reservation.
    #[must_use]
    pub fn reservation_timeout(mut self, timeout: Duration) -> Self {
        self.reservation_timeout = timeout;
        self
    }

    /// Sets how long a session stays with its account, and how many are remembered.
    #[must_use]
    pub fn sessions(mut self, ttl: Duration, max_sessions: usize) -> Self {
        (self.session_ttl, self.max_sessions) = (ttl, max_sessions);
        self
    }
}

/// Which of the available accounts serves a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RoutingMode {
    /// The main account, then the fallbacks in their order.
    #[default]
    MainFirst,
    /// The fallbacks in their order, then the main account.
    FallbackFirst,
    /// A session stays with its account. New sessions are spread by how much each account can use before its resets.
    StickyBalanced,
    /// The account whose last window resets soonest, because quota that remains at the reset is lost.
    SoonestResetFirst,
}

/// What to do with an account if the usage of a window is unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum UnknownUsage {
    /// Use it: the provider rejects the request if the account is exhausted.
    #[default]
    Allow,
    /// Do not use it until there are readings.
    Deny,
    /// Do not use it until a fresh reading of every window that counts shows that enough remains.
    ///
    /// It suits a single decision. A policy with it is serialized, but never read: in a configuration file it would make every
    /// request wait for a refresh.
    #[serde(skip_deserializing)]
    DenyStale,
}
