//! What was decided, with every account that was looked at and the rule that took or refused it.
//! Deciding is in `choose`.

use std::time::Duration;

use jiff::Timestamp;
use quota_core::{AccountId, UsedAt, Window};

use super::{Candidate, Role, Verdict};

/// What a choice came to. Accounts are named by their place among the candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Choice {
    /// The request goes to this account.
    #[non_exhaustive]
    Take {
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
    Nobody {
        /// When the first of them may again, as far as that can be told.
        retry_at: Option<Timestamp>,
    },
}

/// A choice with its reasons: every account that was looked at, its readings, and the rule that took or refused it.
#[derive(Debug)]
#[must_use]
pub struct Decision<'a> {
    now: Timestamp,
    choice: Choice,
    weighed: Vec<Weighed<'a>>,
}

impl<'a> Decision<'a> {
    pub(super) fn new(now: Timestamp, choice: Choice, weighed: Vec<Weighed<'a>>) -> Self {
        Self { now, choice, weighed }
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
    pub fn chosen(&self) -> Option<&Weighed<'a>> {
        match self.choice {
            Choice::Take { at } => self.weighed.get(at),
            _ => None,
        }
    }

    /// Every account, in the order it was given.
    #[must_use]
    pub fn weighed(&self) -> &[Weighed<'a>] {
        &self.weighed
    }

    /// How long to wait before asking again: `None` if there is no need to, or no telling.
    ///
    /// Where nobody may serve, it is the least of what each account needs, and an account needs the most of what each of
    /// its refusals does. One of which something is not known is worth another look when somebody may ask about it again;
    /// after [a pause](crate::RoutingPolicy#structfield.pause), if that is now.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let at = match self.choice {
            Choice::Take { .. } => return None,
            Choice::Wait { until, .. } => until,
            Choice::Nobody { retry_at } => retry_at?,
        };
        Some(Duration::try_from(at.duration_since(self.now)).unwrap_or_default())
    }
}

/// An account that was looked at.
#[derive(Debug)]
pub struct Weighed<'a> {
    candidate: Candidate<'a>,
    verdict: Verdict,
}

impl<'a> Weighed<'a> {
    pub(super) fn new(candidate: Candidate<'a>, verdict: Verdict) -> Self {
        Self { candidate, verdict }
    }

    pub(super) fn candidate(&self) -> &Candidate<'a> {
        &self.candidate
    }

    /// The account's name.
    #[must_use]
    pub fn id(&self) -> &AccountId {
        self.candidate.id
    }

    /// Whether it is the main one.
    #[must_use]
    pub fn role(&self) -> Role {
        self.candidate.role
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
        self.candidate.snapshot().windows().get(place)
    }

    /// What is known of each of its windows at `now`.
    pub fn readings(&self, now: Timestamp) -> impl Iterator<Item = Reading<'_>> {
        self.candidate.snapshot().windows().iter().map(move |window| Reading {
            window,
            used: window.used_at(now, self.candidate.fresh_for),
            age: Duration::try_from(now.duration_since(window.observed_at())).unwrap_or_default(),
        })
    }
}

/// What is known of a window at a moment.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Reading<'a> {
    /// The window.
    pub window: &'a Window,
    /// What it says.
    pub used: UsedAt,
    /// How long ago it was read.
    pub age: Duration,
}
