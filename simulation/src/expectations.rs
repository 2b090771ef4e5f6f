//! What the checker may expect of a plan. If the protocol guarantees less, a rule is relaxed here.

use std::collections::BTreeMap;
use std::time::Duration;

use quota_core::Policy;

use crate::plan::{CallerKind, FaultKind, Plan};

/// What the plan allows the checker to expect.
#[derive(Debug)]
pub(crate) struct Expectations {
    pub(crate) per_hour: usize,
    pub(crate) max_age: Duration,
    pub(crate) states_login: bool,
    pub(crate) is_store_reliable: bool,
    pub(crate) loses_documents: bool,
    pub(crate) forgets: bool,
    /// Whether a process may lose readings that it has shown.
    pub(crate) drops_readings: bool,
    pub(crate) clears_holds: bool,
    pub(crate) processes: usize,
    /// How wrong a process's estimate of the store's time may be.
    pub(crate) clock_error: Duration,
    /// The longest time that a caller waits while nothing fails.
    pub(crate) longest_wait: Duration,
    /// Whether all callers accept readings of the usual age, and logins and clocks stay as they are.
    pub(crate) needs_no_second_call: bool,
    /// Whether each process learns immediately that a call of another process was rate limited.
    pub(crate) shares_limits: bool,
    /// Whether a rejection of an ordinary request excludes its account until its end.
    pub(crate) remembers_rejections: bool,
    /// Whether a follower that misses a notice reads the record within two poll intervals.
    pub(crate) reads_again: bool,
    logins: usize,
    offsets: BTreeMap<usize, usize>,
}

impl Expectations {
    pub(crate) fn of(plan: &Plan) -> Self {
        let has_caller = |kinds: &[CallerKind]| {
            plan.processes
                .iter()
                .any(|process| process.callers.iter().any(|caller| kinds.contains(&caller.kind)))
        };
        let has_fault =
            |is_wanted: fn(&FaultKind) -> bool| plan.faults.iter().any(|fault| is_wanted(&fault.kind));
        let has_stopped = has_fault(|kind| {
            matches!(kind, FaultKind::Kill(_) | FaultKind::Pause(_) | FaultKind::PauseInCall(_))
        });
        let has_switched =
            has_fault(|kind| matches!(kind, FaultKind::LoginSwitch { .. } | FaultKind::TokenRotation));
        let clears_holds = has_caller(&[CallerKind::ClearHold]);
        let clock_error = clock_error(plan);
        let clocks_agree = clock_error < Duration::from_secs(1);
        let network = plan.network;
        let is_quiet = plan.faults.is_empty()
            && plan.is_store_reliable()
            && network.lost_notices == 0.0
            && clocks_agree
            && !plan.forgets();
        let slowest = Duration::from_millis(plan.provider_ms.1);
        let policy = Policy::default();
        let forced = [
            CallerKind::Refresh,
            CallerKind::RefreshUnlessRecent,
            CallerKind::GetWithinMinute,
            CallerKind::Forget,
            // Many requests make an account due early.
            CallerKind::Route,
        ];
        Self {
            per_hour: policy.budget.per_hour as usize,
            max_age: policy.max_age,
            states_login: plan.states_login,
            is_store_reliable: plan.is_store_reliable(),
            loses_documents: plan.loses_documents(),
            forgets: plan.forgets(),
            // A process that starts during an outage drops readings from the future when it learns the store's time.
            drops_readings: plan.forgets() || starts_ahead_without_store(plan),
            clears_holds,
            processes: plan.processes.len(),
            clock_error,
            longest_wait: match is_quiet {
                // One call per account, a second apart.
                true => (slowest + Duration::from_secs(1)) * 4 + Duration::from_secs(2),
                false => Duration::MAX,
            },
            needs_no_second_call: !has_caller(&forced) && !has_switched && !has_stopped && clocks_agree,
            shares_limits: plan.is_store_reliable()
                && network.lost_notices == 0.0
                && !clears_holds
                && !has_switched
                && !has_stopped
                && clocks_agree,
            remembers_rejections: plan.states_login || !has_switched,
            // A store that loses no notices confirms that none was lost.
            reads_again: plan.is_store_reliable()
                && network.lost_notices > 0.0
                && !plan.forgets()
                && !has_switched,
            logins: plan.logins,
            offsets: plan.processes.iter().map(|process| (process.id, process.login_offset)).collect(),
        }
    }

    /// The owner of the limits on a call or a request.
    pub(crate) fn subject(&self, account: usize, login: usize) -> Subject {
        if self.states_login { Subject::Login(login) } else { Subject::Account(account) }
    }

    /// The login that a process has for an account that holds `login` elsewhere.
    pub(crate) fn login_in(&self, process: usize, login: usize) -> usize {
        (login + self.offsets.get(&process).copied().unwrap_or_default()) % self.logins
    }
}

/// The owner of limits: a login, or an account whose credential states none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    Login(usize),
    Account(usize),
}

/// How wrong the timestamps of a process may be. Until the store's first response, a process uses its own clock.
fn clock_error(plan: &Plan) -> Duration {
    let jumps = plan.faults.iter().any(|fault| matches!(fault.kind, FaultKind::ClockJump(..)));
    let drift = Duration::from_millis(if jumps { 2_500 } else { 200 });
    let errors = plan.machines.iter().enumerate().map(|(number, machine)| {
        let error = Duration::from_millis(machine.clock_ahead_ms.unsigned_abs());
        // A timestamp from the future does not count. But the store may have been away until its time has come.
        let merged_late = longest_start_without_store(plan, number);
        error.min(LATEST_PLAUSIBLE.saturating_add(merged_late))
    });
    drift + errors.max().unwrap_or_default()
}

/// Whether a process may start during an outage on a machine whose clock is far ahead.
fn starts_ahead_without_store(plan: &Plan) -> bool {
    let latest = i64::try_from(LATEST_MERGED.as_millis()).unwrap_or(i64::MAX);
    plan.machines.iter().enumerate().any(|(number, machine)| {
        machine.clock_ahead_ms >= latest && !longest_start_without_store(plan, number).is_zero()
    })
}

/// How long a process of this machine may run before the store's first response; zero if none starts during an outage.
fn longest_start_without_store(plan: &Plan, machine: usize) -> Duration {
    let outages = plan.faults.iter().filter(|fault| {
        matches!(fault.kind, FaultKind::StoreDown(_) | FaultKind::AccountDown(_) | FaultKind::StoreReadOnly)
    });
    let restarts = |process: usize| {
        let kills = plan.faults.iter().filter(move |fault| fault.kind == FaultKind::Kill(process));
        kills.map(|fault| fault.at.saturating_add(fault.lasts))
    };
    let processes = plan.processes.iter().filter(|process| process.machine == machine);
    let starts_within = |from: Duration, until: Duration| {
        processes.clone().any(|process| {
            // Each command starts a manager.
            process.callers.iter().any(|caller| caller.kind == CallerKind::Command)
                || restarts(process.id).chain([process.starts_at]).any(|at| (from..=until).contains(&at))
        })
    };
    // Outages may follow each other.
    let lengths = outages.filter(|fault| starts_within(fault.at, fault.at.saturating_add(fault.lasts)));
    lengths.map(|fault| fault.lasts).sum()
}

/// A merge drops readings that are further ahead.
const LATEST_MERGED: Duration = Duration::from_secs(30);

/// How far ahead a timestamp may be and still count.
const LATEST_PLAUSIBLE: Duration = Duration::from_secs(60);
