//! The settings of routing: plain data with sound defaults.
//! What they mean in action is in `judge` and `choose`.

use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as span;
use serde::{Deserialize, Serialize};

use super::Limits;

/// Which account to prefer, how much to leave on each, and what turns a request to another one.
///
/// ```
/// use quota_accounts::{Limits, Mode, RoutingPolicy};
/// use quota_core::Percent;
///
/// let policy = RoutingPolicy::default()
///     .mode(Mode::StickyBalanced)
///     .minimum(Limits::of(Percent::from_percent(20.0).unwrap()))
///     .stop(Limits::of(Percent::from_percent(5.0).unwrap()));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RoutingPolicy {
    /// Which of the accounts that have room is taken. The main one first.
    pub mode: Mode,
    /// How much must be left of each window for an account to be taken while another has more. Nothing.
    ///
    /// An account below it is passed over, and still used when no other is above it.
    #[serde(rename = "min_remaining")]
    pub minimum: Limits,
    /// The killswitch: an account of which less is left is never used, whatever happens. Off.
    ///
    /// Of a window that counts one model only, more than that must be left, here and for the minimum: see [`Limits`].
    #[serde(rename = "killswitch")]
    pub stop: Limits,
    /// What to do with an account of which a window is not known. Use it.
    pub when_unknown: WhenUnknown,
    /// The statuses after which a request is tried on another account. 401, 403 and 429.
    ///
    /// A spent quota is a reason whatever its status.
    pub triggers: Vec<u16>,
    /// How long an account that was throttled for a moment rests if the provider does not say; and after how long one of which
    /// something is not known, or whose credential could not be read, is worth another look if nobody else is left. Thirty
    /// seconds.
    #[serde(with = "span")]
    pub pause: Duration,
    /// How long an account rests whose quota is spent, if the provider does not say until when. Five minutes.
    #[serde(with = "span")]
    pub spent_pause: Duration,
    /// How long an account rests that somebody's policy does not allow, unless there is a new login. One hour.
    #[serde(with = "span")]
    pub not_allowed_pause: Duration,
    /// How long a request, or a report, waits for the source of credentials to answer about an account. Twenty seconds.
    ///
    /// The sources of this crate give up by themselves before that, unless a command was given more time: a question that a
    /// keychain asks its user is not waited for. One that had to be given up is not asked about that account for a
    /// [pause](Self#structfield.pause).
    #[serde(with = "span")]
    pub credential_timeout: Duration,
    /// How long a session stays with its account after its last request. Seven days.
    #[serde(with = "span")]
    pub pin_for: Duration,
    /// How many sessions are remembered; the one that was quiet longest is forgotten first. 10,000.
    pub most_pins: usize,
    /// A session waits for its account, instead of moving, if a window that is spent begins anew within this. Two minutes.
    #[serde(with = "span")]
    pub wait_for_reset: Duration,
    /// How long a store that is asked to reserve what requests are expected to use is waited for; after that only this process's
    /// count. A quarter of a second. A request that comes while others are being answered waits for those too.
    #[serde(with = "span")]
    pub reserve_patience: Duration,
}

impl Default for RoutingPolicy {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            minimum: Limits::none(),
            stop: Limits::none(),
            when_unknown: WhenUnknown::default(),
            triggers: vec![401, 403, 429],
            pause: Duration::from_secs(30),
            spent_pause: Duration::from_secs(5 * 60),
            not_allowed_pause: Duration::from_secs(3600),
            credential_timeout: Duration::from_secs(20),
            pin_for: Duration::from_secs(7 * 24 * 3600),
            most_pins: 10_000,
            wait_for_reset: Duration::from_secs(2 * 60),
            reserve_patience: Duration::from_millis(250),
        }
    }
}

impl RoutingPolicy {
    /// Sets which account is preferred.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets how much must be left for an account to be taken while another has more.
    #[must_use]
    pub fn minimum(mut self, limits: Limits) -> Self {
        self.minimum = limits;
        self
    }

    /// Sets the killswitch.
    #[must_use]
    pub fn stop(mut self, limits: Limits) -> Self {
        self.stop = limits;
        self
    }

    /// Sets what to do with an account of which a window is not known.
    #[must_use]
    pub fn when_unknown(mut self, what: WhenUnknown) -> Self {
        self.when_unknown = what;
        self
    }

    /// Sets the statuses after which a request is tried on another account.
    #[must_use]
    pub fn triggers(mut self, statuses: impl IntoIterator<Item = u16>) -> Self {
        self.triggers = statuses.into_iter().collect();
        self
    }

    /// Sets within which time of a reset a session waits for its account instead of moving.
    #[must_use]
    pub fn wait_for_reset(mut self, span: Duration) -> Self {
        self.wait_for_reset = span;
        self
    }

    /// Sets how long a request waits to reserve what it is expected to use.
    #[must_use]
    pub fn reserve_patience(mut self, span: Duration) -> Self {
        self.reserve_patience = span;
        self
    }

    /// Sets how long a session stays with its account, and how many are remembered.
    #[must_use]
    pub fn pins(mut self, pin_for: Duration, most: usize) -> Self {
        (self.pin_for, self.most_pins) = (pin_for, most);
        self
    }
}

/// Which of the accounts that have room is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Mode {
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
pub enum WhenUnknown {
    /// Use it: the provider will say if it is spent.
    #[default]
    #[serde(rename = "allow")]
    Open,
    /// Do not use it before its numbers are known.
    #[serde(rename = "deny")]
    Closed,
}
