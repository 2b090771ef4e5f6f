//! What was decided, with every account that was looked at and the rule that took or refused it.
//! Deciding is in `choose`.

use std::time::Duration;

use jiff::Timestamp;
use quota_core::{AccountId, Percent, Used, Window, WindowId};

use super::evaluate::limits;
use super::{Candidate, Reason, Request, Role, RoutingPolicy, Verdict};

/// What a choice came to. Accounts are named by their place among the candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Choice {
    /// The request goes to this account.
    #[non_exhaustive]
    Use {
        /// Which one.
        at: usize,
    },
    /// The session's own account is out only until then: waiting is better than moving.
    #[non_exhaustive]
    Wait {
        /// Which one.
        at: usize,
        /// Until when.
        until: Timestamp,
    },
    /// No account may serve.
    #[non_exhaustive]
    NoAccount {
        /// When the first of them may again, as far as that can be told.
        retry_at: Option<Timestamp>,
    },
}

/// A choice with its reasons: every account that was considered, its readings, and the rule that took or refused it.
///
/// It is a value of its own: what is learned later does not change it.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Decision {
    now: Timestamp,
    choice: Choice,
    evaluated: Vec<Evaluated>,
}

impl Decision {
    pub(super) fn new(now: Timestamp, choice: Choice, evaluated: Vec<Evaluated>) -> Self {
        Self { now, choice, evaluated }
    }

    /// What it came to.
    #[must_use]
    pub fn choice(&self) -> Choice {
        self.choice
    }

    /// When it was decided.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The account that the request goes to; `None` if it is to wait, or nobody may serve.
    #[must_use]
    pub fn chosen(&self) -> Option<&Evaluated> {
        match self.choice {
            Choice::Use { at } => self.evaluated.get(at),
            _ => None,
        }
    }

    /// Every account, in the order it was given.
    #[must_use]
    pub fn accounts(&self) -> &[Evaluated] {
        &self.evaluated
    }

    /// How long to wait before asking again: `None` if there is no need to, or no telling.
    ///
    /// Where nobody may serve, it is the least of what each account needs, and an account needs the most of what each of
    /// its refusals does. One of which something is not known is worth another look when somebody may ask about it again;
    /// after [a pause](crate::RoutingPolicy#structfield.throttle_cooldown), if that is now.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let at = match self.choice {
            Choice::Use { .. } => return None,
            Choice::Wait { until, .. } => until,
            Choice::NoAccount { retry_at } => retry_at?,
        };
        Some(Duration::try_from(at.duration_since(self.now)).unwrap_or_default())
    }
}

/// An account that was looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluated {
    id: AccountId,
    role: Role,
    verdict: Verdict,
    readings: Vec<Reading>,
    limit: Option<Percent>,
    unread: Option<WindowId>,
}

impl Evaluated {
    /// An account of which this was found at `now`.
    pub(super) fn new(
        candidate: &Candidate<'_>,
        verdict: Verdict,
        request: &Request,
        now: Timestamp,
        policy: &RoutingPolicy,
    ) -> Self {
        let snapshot = candidate.snapshot();
        let readings = snapshot.windows().iter().map(|window| Reading {
            window: window.clone(),
            used: window.used_at(now, candidate.fresh_for),
            age: Duration::try_from(now.duration_since(window.observed_at())).unwrap_or_default(),
        });
        let mut evaluated = Self {
            id: candidate.id.clone(),
            role: candidate.role,
            verdict,
            readings: readings.collect(),
            limit: None,
            unread: None,
        };
        let (min_remaining, killswitch) = limits(candidate, policy);
        let broken = match verdict.reason {
            Reason::BelowMinimum => Some(min_remaining),
            Reason::BelowKillswitch => Some(killswitch),
            _ => None,
        };
        evaluated.limit =
            broken.zip(evaluated.window()).map(|(limits, window)| limits.min_remaining_of(window.id()));
        if verdict.reason.is_unknown() && verdict.window.is_none() {
            let model = request.model();
            let mut unread = killswitch.unread(snapshot, model).chain(min_remaining.unread(snapshot, model));
            evaluated.unread = unread.next().cloned();
        }
        evaluated
    }

    /// The account's name.
    #[must_use]
    pub fn id(&self) -> &AccountId {
        &self.id
    }

    /// Whether it is the main one.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// What was found of it, and by which rule.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The window that the rule is about, if it is about one.
    #[must_use]
    pub fn window(&self) -> Option<&Window> {
        let place = usize::try_from(self.verdict.window?).ok()?;
        self.readings.get(place).map(|reading| &reading.window)
    }

    /// How much must be left of that window, if the rule is that less is left.
    #[must_use]
    pub fn limit(&self) -> Option<Percent> {
        self.limit
    }

    /// The window of which there is no reading, if the rule is that one is not known and there is such a window.
    #[must_use]
    pub fn unread(&self) -> Option<&WindowId> {
        self.unread.as_ref()
    }

    /// What is known of each of its windows.
    #[must_use]
    pub fn readings(&self) -> &[Reading] {
        &self.readings
    }
}

/// What is known of a window at the time of a decision.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Reading {
    /// The window.
    pub window: Window,
    /// What it says.
    pub used: Used,
    /// How long ago it was read.
    pub age: Duration,
}
