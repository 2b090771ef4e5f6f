//! A decision: every account with its readings, and the reason that selected or excluded it.
//! `choose` makes decisions; `decision_json` serializes them.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use quota_core::model::Window;
use quota_core::{AccountId, Percent, Used, WindowId};

use super::evaluate::limits;
use super::{Candidate, Eligibility, Reason, Request, Role, RoutingPolicy, Verdict};

/// The result of a choice. Accounts are named by their index among the candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Choice {
    /// The request goes to this account.
    #[non_exhaustive]
    Use {
        /// The index of the account.
        index: usize,
    },
    /// The session's own account is unavailable for a short time: waiting is better than moving.
    #[non_exhaustive]
    Wait {
        /// The index of the account.
        index: usize,
        /// When it is available again.
        until: Timestamp,
    },
    /// No account may serve the request.
    #[non_exhaustive]
    NoAccount {
        /// When the first account may serve again; `None` if that is unknown.
        retry_at: Option<Timestamp>,
    },
}

impl Choice {
    /// The request goes to the account at `index`.
    #[must_use]
    pub fn use_account(index: usize) -> Self {
        Self::Use { index }
    }

    /// The session waits for the account at `index`.
    #[must_use]
    pub fn wait(index: usize, until: Timestamp) -> Self {
        Self::Wait { index, until }
    }

    /// No account may serve the request before then.
    #[must_use]
    pub fn no_account(retry_at: Option<Timestamp>) -> Self {
        Self::NoAccount { retry_at }
    }
}

/// A choice with its reasons: every account, its readings, and the reason that selected or excluded it.
///
/// It is a plain value: later readings do not change it. `Display` prints one line for each account. Serialized, it is one
/// object:
///
/// | field | meaning |
/// |---|---|
/// | `now` | when it was decided; times are RFC 3339 in UTC and whole seconds |
/// | `account` | the account that the request goes to, or `null` |
/// | `waits_for` | the account that the session waits for instead of moving, or `null` |
/// | `retry_after_seconds` | how long to wait before the next attempt, or `null` if that is unknown or not needed |
/// | `accounts` | all accounts in their order |
///
/// Each account has `account`, `role` (`main`, `fallback`), `eligibility` ([`Eligibility::as_str`]), `reason`
/// ([`Reason::as_str`]), `same_login_as`, `window`, `limit_percent`, `retry_at`, `not_refreshed` and `windows`. Each window has `id`,
/// `used_percent`, `certainty`, `resets_at`, `resets_in_seconds`, `observed_at`, `age_seconds`, `source`, `scope` and
/// `length_seconds`.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Decision {
    now: Timestamp,
    choice: Choice,
    accounts: Vec<Evaluated>,
}

/// The consequence of a decision for one of its accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Disposition {
    /// The request goes to it.
    Selected,
    /// The session waits for it.
    Awaited,
    /// Another account serves the request.
    Standby,
    /// It is below its minimum.
    Skipped,
    /// It may not serve the request.
    Unavailable,
}

impl Disposition {
    /// The disposition as a word, such as `selected`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Selected => "selected",
            Self::Awaited => "awaited",
            Self::Standby => "standby",
            Self::Skipped => "skipped",
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for Disposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Decision {
    /// Creates a decision, for tests of programs that print decisions.
    pub fn new(now: Timestamp, choice: Choice, accounts: Vec<Evaluated>) -> Self {
        Self { now, choice, accounts }
    }

    /// The result.
    #[must_use]
    pub fn choice(&self) -> Choice {
        self.choice
    }

    /// When it was decided.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The account that the request goes to; `None` if it must wait, or no account may serve it.
    #[must_use]
    pub fn chosen(&self) -> Option<&Evaluated> {
        match self.choice {
            Choice::Use { index } => self.accounts.get(index),
            _ => None,
        }
    }

    /// The account that the session waits for, if it waits.
    #[must_use]
    pub fn awaited(&self) -> Option<&Evaluated> {
        match self.choice {
            Choice::Wait { index, .. } => self.accounts.get(index),
            _ => None,
        }
    }

    /// Every account, in the order of the candidates.
    #[must_use]
    pub fn accounts(&self) -> &[Evaluated] {
        &self.accounts
    }

    /// The consequence of the decision for the account at `index`.
    #[must_use]
    pub fn disposition(&self, index: usize) -> Disposition {
        let is_served = match self.choice {
            Choice::Use { index: chosen } if chosen == index => return Disposition::Selected,
            Choice::Wait { index: awaited, .. } if awaited == index => return Disposition::Awaited,
            choice => matches!(choice, Choice::Use { .. }),
        };
        // No refresh failed: the request did not need this account, so it was not refreshed.
        let is_unneeded = |account: &Evaluated| {
            is_served && account.reason == Reason::UnknownDenied && account.not_refreshed.is_none()
        };
        match self.accounts.get(index) {
            Some(account) if is_unneeded(account) => Disposition::Standby,
            Some(account) => match account.eligibility {
                Eligibility::Eligible => Disposition::Standby,
                Eligibility::LastResort => Disposition::Skipped,
                Eligibility::Ineligible => Disposition::Unavailable,
            },
            None => Disposition::Unavailable,
        }
    }

    /// How long to wait before the next attempt; `None` if a wait is not needed, or its end is unknown.
    ///
    /// If no account may serve, it is the shortest wait of any account. An account's wait lasts until its last exclusion ends. The
    /// wait for an account of unknown usage ends when the account may be refreshed again, or else after
    /// [`throttle_cooldown`](crate::RoutingPolicy#structfield.throttle_cooldown).
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let at = match self.choice {
            Choice::Use { .. } => return None,
            Choice::Wait { until, .. } => until,
            Choice::NoAccount { retry_at } => retry_at?,
        };
        Some(Duration::try_from(at.duration_since(self.now)).unwrap_or_default())
    }

    pub(crate) fn with_choice(self, choice: Choice) -> Self {
        Self { choice, ..self }
    }
}

/// One line for each account: its name, its disposition and the reason.
impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, account) in self.accounts.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}: {}, {account:#}", account.account, self.disposition(index))?;
        }
        Ok(())
    }
}

/// An account in a decision: whether it may serve the request, the reason, and its readings.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Evaluated {
    /// The account.
    pub account: AccountId,
    /// Whether the account is the main one.
    pub role: Role,
    /// Whether it may serve the request.
    pub eligibility: Eligibility,
    /// The reason.
    pub reason: Reason,
    /// When the exclusion ends by itself; `None` if it does not, or that is unknown.
    pub retry_at: Option<Timestamp>,
    /// The account with the same login that is considered in its place; `None` without [`Reason::SameLogin`].
    pub same_login_as: Option<AccountId>,
    /// The window that the reason is about, if any. It may have no reading.
    pub window: Option<WindowId>,
    /// The limit that the window is below, if that is the reason.
    pub limit: Option<Percent>,
    /// The account's readings, shortest windows first.
    pub windows: Vec<WindowUsage>,
    /// When the account may be refreshed, if the policy delays that: after a window's reset, or after a recent call.
    pub refresh_at: Option<Timestamp>,
    /// A text that explains why the readings are not newer, if a refresh failed or is not allowed. A
    /// [`Route`](crate::Route) omits it.
    pub not_refreshed: Option<String>,
}

impl Evaluated {
    /// Creates an account without readings, for tests of programs that print decisions.
    #[must_use]
    pub fn new(account: AccountId, role: Role, eligibility: Eligibility, reason: Reason) -> Self {
        Self {
            account,
            role,
            eligibility,
            reason,
            retry_at: None,
            same_login_as: None,
            window: None,
            limit: None,
            windows: Vec::new(),
            refresh_at: None,
            not_refreshed: None,
        }
    }

    /// Combines the candidate with its verdict and its readings.
    pub(crate) fn of(
        candidate: &Candidate<'_>,
        verdict: Verdict,
        request: &Request,
        now: Timestamp,
        policy: &RoutingPolicy,
    ) -> Self {
        let snapshot = candidate.snapshot();
        let window = verdict.window.and_then(|index| snapshot.windows().get(usize::try_from(index).ok()?));
        let (min_remaining, killswitch) = limits(candidate, policy);
        let violated = match verdict.reason {
            Reason::BelowMinimum => Some(min_remaining),
            Reason::BelowKillswitch => Some(killswitch),
            _ => None,
        };
        let limit = violated.zip(window).map(|(limits, window)| limits.min_remaining_of(window.id()));
        let mut window = window.map(|window| window.id().clone());
        if verdict.reason.is_unknown() && verdict.window.is_none() {
            let unread = |limits| request.first_unread(limits, snapshot);
            window = unread(killswitch).or_else(|| unread(min_remaining)).cloned();
        }
        let readings = snapshot.windows().iter();
        let mut windows: Vec<_> = readings.map(|window| WindowUsage::of(window, candidate, now)).collect();
        windows.sort_by_cached_key(WindowUsage::rank);
        Self {
            account: candidate.id.clone(),
            role: candidate.role,
            eligibility: verdict.eligibility,
            reason: verdict.reason,
            retry_at: verdict.retry_at,
            same_login_as: None,
            window,
            limit,
            windows,
            refresh_at: candidate.refresh_at(request.model(), now),
            not_refreshed: None,
        }
    }

    /// The reading of the window that the reason is about, if there is one.
    #[must_use]
    pub fn window_usage(&self) -> Option<&WindowUsage> {
        let id = self.window.as_ref()?;
        self.windows.iter().find(|usage| usage.window.id() == id)
    }

    /// The verdict without its window.
    pub(crate) fn verdict(&self) -> Verdict {
        Verdict { retry_at: self.retry_at, ..Verdict::new(self.eligibility, self.reason) }
    }
}

/// Prints the reason. The alternate form (`{:#}`) adds the window, what prevents a refresh, and when the exclusion ends.
impl fmt::Display for Evaluated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.same_login_as {
            Some(other) => write!(f, "same login as {other}")?,
            None => write!(f, "{}", self.reason)?,
        }
        if !f.alternate() {
            return Ok(());
        }
        if let Some(window) = &self.window {
            write!(f, " ({window})")?;
        }
        if let Some(why) = self.not_refreshed.as_ref().filter(|_| self.reason.is_unknown()) {
            write!(f, ", {why}")?;
        }
        self.retry_at.map_or(Ok(()), |at| write!(f, ", until {}", seconds(at)))
    }
}

/// The time in RFC 3339, UTC, whole seconds.
pub(super) fn seconds(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

/// The wait in seconds, rounded up, so that a program that waits this long does not retry too early.
pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0))
}

/// The reading of a window at the time of a decision.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct WindowUsage {
    /// The window.
    pub window: Window,
    /// How much of it is used.
    pub used: Used,
    /// The age of the reading.
    pub age: Duration,
}

impl WindowUsage {
    /// Creates the reading of a window.
    #[must_use]
    pub fn new(window: Window, used: Used, age: Duration) -> Self {
        Self { window, used, age }
    }

    fn of(window: &Window, candidate: &Candidate<'_>, now: Timestamp) -> Self {
        let age = Duration::try_from(now.duration_since(window.observed_at())).unwrap_or_default();
        Self::new(window.clone(), window.used_at(now, candidate.max_age), age)
    }

    /// The sort key: short windows first, windows of the whole account before those of a part.
    fn rank(&self) -> (Duration, bool, WindowId) {
        let window = &self.window;
        (window.length().unwrap_or(Duration::MAX), window.scope().is_some(), window.id().clone())
    }
}
