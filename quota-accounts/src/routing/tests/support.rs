//! Owned accounts for tests, from which candidates can be built repeatedly.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use quota_core::model::{LoginId, Provenance, Scope, Source};
use quota_core::{AccountId, Percent, Snapshot, UsageReport, WindowId, WindowReading};

use crate::routing::{Block, Candidate, Choice, Role, Verdict, choose};
use crate::{AccountLimits, Decision, Limits, Request, RoutingPolicy};

pub(super) const FRESH: Duration = Duration::from_secs(300);

/// The time of every decision.
pub(super) fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("a valid timestamp")
}

pub(super) fn minutes(minutes: i64) -> Timestamp {
    now() + SignedDuration::from_mins(minutes)
}

pub(super) fn hours(hours: i64) -> Timestamp {
    minutes(60 * hours)
}

pub(super) fn percent(percent: f64) -> Percent {
    Percent::from_percent(percent).expect("a valid percentage")
}

pub(super) fn left(left: f64) -> Limits {
    Limits::of(percent(left))
}

pub(super) fn opus() -> WindowId {
    WindowId::seven_day().for_model("Opus").expect("a valid name")
}

/// A reading of a window with this much left, which resets at `reset`.
pub(super) fn with_left(id: WindowId, left: f64, reset: Timestamp) -> WindowReading {
    WindowReading::new(id, percent(100.0 - left)).resets_at(reset)
}

pub(super) fn five_hour(left: f64) -> WindowReading {
    with_left(WindowId::five_hour(), left, hours(2))
}

pub(super) fn seven_day(left: f64) -> WindowReading {
    with_left(WindowId::seven_day(), left, hours(72))
}

pub(super) fn opus_week(left: f64) -> WindowReading {
    with_left(opus(), left, hours(96)).scope(Scope::model("Opus"))
}

/// An account.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) id: AccountId,
    pub(super) snapshot: Snapshot,
    pub(super) blocks: Vec<Block>,
    pub(super) limits: AccountLimits,
    pub(super) is_disabled: bool,
    pub(super) is_session_account: bool,
    pub(super) has_unknown_owner: bool,
    pub(super) reserved: Vec<(WindowId, Percent)>,
    pub(super) login: Option<LoginId>,
}

impl Given {
    /// An account with readings that are a minute old.
    pub(super) fn new(name: &str, readings: impl IntoIterator<Item = WindowReading>) -> Self {
        Self::read_at(name, minutes(-1), readings)
    }

    pub(super) fn read_at(
        name: &str,
        at: Timestamp,
        readings: impl IntoIterator<Item = WindowReading>,
    ) -> Self {
        let mut snapshot = Snapshot::default();
        let provenance = Provenance::new(at, Source::Poll);
        let readings: Vec<_> = readings.into_iter().collect();
        if !readings.is_empty() {
            snapshot.join(&Snapshot::of(&UsageReport::polled(readings), provenance.at));
        }
        Self {
            id: format!("anthropic/{name}").parse().expect("a valid name"),
            snapshot,
            blocks: Vec::new(),
            limits: AccountLimits::none(),
            is_disabled: false,
            is_session_account: false,
            has_unknown_owner: false,
            reserved: Vec::new(),
            login: None,
        }
    }

    pub(super) fn session_account(mut self) -> Self {
        self.is_session_account = true;
        self
    }

    pub(super) fn disabled(mut self) -> Self {
        self.is_disabled = true;
        self
    }

    pub(super) fn login(mut self, login: &str) -> Self {
        self.login = Some(LoginId::new(login));
        self
    }

    pub(super) fn limits(mut self, limits: AccountLimits) -> Self {
        self.limits = limits;
        self
    }

    pub(super) fn blocked(mut self, block: Block) -> Self {
        self.blocks.push(block);
        self
    }
}

/// Chooses among accounts. The first is the main one.
pub(super) fn decide(given: &[Given], request: &Request, policy: &RoutingPolicy) -> Decision {
    let candidates = given.iter().enumerate().map(|(at, given)| {
        let role = if at == 0 { Role::Main } else { Role::Fallback };
        let mut candidate = Candidate::new(&given.id, role, &given.snapshot, FRESH)
            .disabled(given.is_disabled)
            .session_account(given.is_session_account)
            .owner_unknown(given.has_unknown_owner)
            .limits(&given.limits)
            .login(given.login.clone())
            .blocks(given.blocks.clone());
        if !given.reserved.is_empty() {
            candidate = candidate.reserved(given.reserved.clone());
        }
        candidate
    });
    choose(candidates, request, now(), policy)
}

/// The index of the chosen account.
pub(super) fn chosen(given: &[Given], request: &Request, policy: &RoutingPolicy) -> Option<usize> {
    match decide(given, request, policy).choice() {
        Choice::Use { index } => Some(index),
        _ => None,
    }
}

/// The verdict on one account alone.
pub(super) fn verdict(given: Given, request: &Request, policy: &RoutingPolicy) -> Verdict {
    decide(&[given], request, policy).accounts()[0].verdict()
}
