//! The settings of routing: plain data with sound defaults.
//! What they mean in action is in `evaluate` and `choose`.

use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as span;
use serde::{Deserialize, Serialize};

use super::Limits;

/// Which account to prefer, how much to leave on each, and what turns a request to another one.
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
    /// Which of the accounts that have room is taken. The main one first.
    pub mode: RoutingMode,
    /// How much must be left of each window for an account to be taken while another has more. Nothing.
    ///
    /// An account below it is passed over, and still used when no other is above it.
    #[serde(rename = "min_remaining")]
    pub min_remaining: Limits,
    /// The killswitch: an account of which less is left is never used, whatever happens. Off.
    ///
    /// Of a window that counts one model only, more than that must be left, here and for the minimum: see [`Limits`].
    #[serde(rename = "killswitch")]
    pub killswitch: Limits,
    /// What to do with an account of which a window is not known. Use it.
    pub when_unknown: UnknownUsage,
    /// The statuses after which a request is tried on another account. 401, 403 and 429.
    ///
    /// A spent quota is a reason whatever its status.
    pub fallback_on: Vec<u16>,
    /// How long a throttled account is skipped if the provider states no time. Also how long until the next attempt at
    /// an account of unknown usage, or with an unreadable credential, if no other account is available. Thirty
    /// seconds.
    #[serde(with = "span")]
    pub throttle_cooldown: Duration,
    /// How long an exhausted account is skipped if the provider states no reset. Five minutes.
    #[serde(with = "span")]
    pub exhausted_cooldown: Duration,
    /// How long an account is skipped after a provider or an organisation forbade the request, unless there is a new
    /// login. One hour.
    #[serde(with = "span")]
    pub forbidden_cooldown: Duration,
    /// How long a request or a report waits for the credential of an account. Twenty seconds.
    ///
    /// The sources of `quota-credentials` have shorter timeouts of their own, unless a command was given more time.
    /// After a timeout the account is skipped for [`throttle_cooldown`](Self#structfield.throttle_cooldown).
    #[serde(with = "span")]
    pub credential_timeout: Duration,
    /// How long a session stays with its account after its last request. Seven days.
    #[serde(with = "span")]
    pub session_ttl: Duration,
    /// How many sessions are remembered. The one that was idle longest is dropped first. 10,000.
    pub max_sessions: usize,
    /// A session waits for its account instead of moving if the account is available again within this. Two minutes.
    #[serde(with = "span")]
    pub max_session_wait: Duration,
    /// How long a request waits for the store to confirm its reservation. After that only the reservations of this
    /// process count. A quarter of a second.
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

    /// Sets how much must be left for an account to be taken while another has more.
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

    /// Sets what to do with an account of which a window is not known.
    #[must_use]
    pub fn when_unknown(mut self, what: UnknownUsage) -> Self {
        self.when_unknown = what;
        self
    }

    /// Sets the statuses after which a request is tried on another account.
    #[must_use]
    pub fn fallback_on(mut self, statuses: impl IntoIterator<Item = u16>) -> Self {
        self.fallback_on = statuses.into_iter().collect();
        self
    }

    /// Sets within which time of a reset a session waits for its account instead of moving.
    #[must_use]
    pub fn max_session_wait(mut self, span: Duration) -> Self {
        self.max_session_wait = span;
        self
    }

    /// Sets how long a request waits to reserve what it is expected to use.
    #[must_use]
    pub fn reservation_timeout(mut self, span: Duration) -> Self {
        self.reservation_timeout = span;
        self
    }

    /// Sets how long a session stays with its account, and how many are remembered.
    #[must_use]
    pub fn sessions(mut self, session_ttl: Duration, most: usize) -> Self {
        (self.session_ttl, self.max_sessions) = (session_ttl, most);
        self
    }
}

/// Which of the accounts that have room is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RoutingMode {
    /// The main account, then the fallbacks in their order.
    #[default]
    MainFirst,
    /// The fallbacks in their order, then the main account.
    FallbackFirst,
    /// A session stays with its account; new ones are spread by what can be spent before each account's reset.
    StickyBalanced,
    /// The account whose furthest window begins anew soonest: what is left of it then is lost.
    SoonestResetFirst,
}

/// What to do with an account of which a window is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum UnknownUsage {
    /// Use it: the provider will say if it is spent.
    #[default]
    Allow,
    /// Do not use it before its numbers are known.
    Deny,
    /// Do not use it before a fresh reading of every window that counts shows that enough remains. Not for configurations.
    #[serde(skip)]
    DenyStale,
}
