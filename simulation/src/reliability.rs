//! The page `docs/reliability.md`: what each fault means for readers and for the number of calls. Each row is one simulation.

use std::fmt::Write as _;
use std::time::Duration;

use crate::fleet::run;
use crate::plan::{
    Caller, CallerKind, Fault, FaultKind, MachinePlan, Network, Plan, ProcessPlan, ProviderFault,
};
use crate::trace::{Reads, Report};

/// One fault in a small fleet.
#[derive(Debug)]
pub struct Scenario {
    /// A short name, for `scripts/simulate --fault NAME`.
    pub name: &'static str,
    /// The fault in words.
    pub fault: &'static str,
    /// The effect on a reader.
    pub effect: &'static str,
    /// The file with more tests of it, from the root of the repository.
    pub tests: &'static str,
    /// The simulation.
    pub plan: Plan,
}

/// Three processes on three machines, which read one account every 15 s on average for an hour.
fn fleet() -> Plan {
    let minute = Duration::from_secs(60);
    let caller = Caller { account: 0, kind: CallerKind::Get, every: Duration::from_secs(15) };
    let process = |id| ProcessPlan {
        id,
        machine: id,
        starts_at: Duration::ZERO,
        is_older: false,
        login_offset: 0,
        callers: vec![caller.clone()],
    };
    Plan {
        seed: 1,
        length: minute * 60,
        accounts: 1,
        logins: 1,
        states_login: true,
        states_owner: true,
        has_outage_files: true,
        network: Network::RELIABLE,
        request_bp: 20,
        window_age: Duration::ZERO,
        provider_ms: (100, 400),
        machines: vec![MachinePlan::default(); 3],
        processes: (0..3).map(process).collect(),
        faults: Vec::new(),
    }
}

/// The same fleet with a fault after 20 minutes, for five minutes.
fn with_fault(kind: FaultKind) -> Plan {
    let minute = Duration::from_secs(60);
    Plan { faults: vec![Fault { at: minute * 20, lasts: minute * 5, kind }], ..fleet() }
}

/// The same fleet, in which each caller is a command.
fn commands(kind: FaultKind) -> Plan {
    let mut plan = with_fault(kind);
    let callers = plan.processes.iter_mut().flat_map(|process| process.callers.iter_mut());
    callers.for_each(|caller| caller.kind = CallerKind::Command);
    plan
}

fn provider(fault: ProviderFault) -> Plan {
    with_fault(FaultKind::Provider(fault))
}

/// All rows of the page.
#[must_use]
pub fn scenarios() -> Vec<Scenario> {
    let row = |name, fault, effect, tests, plan| Scenario { name, fault, effect, tests, plan };
    let lossy =
        Network { lost_requests: 0.02, late_requests: 0.01, lost_responses: 0.02, ..Network::RELIABLE };
    let silent = Network { lost_notices: 0.5, notice_ms: 3_000, spurious_notices: 0.1, ..Network::RELIABLE };
    let ahead = MachinePlan { clock_ahead_ms: 3_600_000, clock_drift_ppm: 0 };
    let mut clocks = fleet();
    clocks.machines[0] = ahead;
    let mut older = fleet();
    older.processes[0].is_older = true;
    let two_logins =
        Plan { accounts: 1, logins: 2, ..with_fault(FaultKind::LoginSwitch { account: 0, login: 1 }) };
    let without_files = Plan { has_outage_files: false, ..commands(FaultKind::StoreDown(None)) };
    vec![
        row(
            "none",
            "none",
            "one process calls, the others get its readings",
            "quota-core/tests/manager/single_flight.rs",
            fleet(),
        ),
        row(
            "store-down",
            "the store does not answer for 5 minutes",
            "each process continues on its own copy, and merges it afterward",
            "quota-core/tests/manager/store_outage.rs",
            with_fault(FaultKind::StoreDown(None)),
        ),
        row(
            "store-down-for-one",
            "one process does not reach the store for 5 minutes",
            "this process continues on its own copy",
            "quota-core/tests/manager/store_recovery.rs",
            with_fault(FaultKind::StoreDown(Some(0))),
        ),
        row(
            "commands-store-down",
            "as above for all, and each reader is a short command",
            "the commands of a machine share a file",
            "quota-core/tests/manager/outage.rs",
            commands(FaultKind::StoreDown(None)),
        ),
        row(
            "commands-without-file",
            "as above, without a place for the file",
            "only an explicit refresh calls",
            "quota-core/tests/manager/store_outage.rs",
            without_files,
        ),
        row(
            "read-only",
            "the store rejects writes for 5 minutes",
            "reads merge what others wrote",
            "quota-core/tests/manager/store_errors.rs",
            with_fault(FaultKind::StoreReadOnly),
        ),
        row(
            "account-down",
            "the store does not answer for one account",
            "as if the whole store did not answer",
            "quota-core/tests/manager/store_recovery.rs",
            with_fault(FaultKind::AccountDown(0)),
        ),
        row(
            "failover",
            "a failover loses the writes of the last minute",
            "a process that knows them writes them again",
            "quota-core/tests/manager/lost_writes.rs",
            Plan {
                faults: vec![Fault {
                    at: Duration::from_secs(1_200),
                    lasts: Duration::from_secs(60),
                    kind: FaultKind::StoreLoses,
                }],
                ..fleet()
            },
        ),
        row(
            "flushed",
            "the store loses all documents",
            "a process that knows them writes them again",
            "quota-core/tests/manager/lost_writes.rs",
            with_fault(FaultKind::StoreFlushed),
        ),
        row(
            "expired",
            "a document expires early",
            "a process that knows it writes it again",
            "quota-core/tests/manager/notices.rs",
            with_fault(FaultKind::DocumentExpires(0)),
        ),
        row(
            "lossy-network",
            "5 % of the requests or answers are lost",
            "a wait ends at the timeout of the store, and the process continues on its copy",
            "quota-core/tests/manager/store_errors.rs",
            Plan { network: lossy, ..fleet() },
        ),
        row(
            "lost-notices",
            "half of the notices are lost, others are late",
            "followers read once a minute",
            "quota-core/tests/manager/notices.rs",
            Plan { network: silent, ..fleet() },
        ),
        row(
            "killed",
            "a process is killed, and starts again after 5 minutes",
            "its lease expires, and the next process calls",
            "quota-core/tests/manager/lifecycle.rs",
            with_fault(FaultKind::Kill(0)),
        ),
        row(
            "suspended",
            "a process is suspended for 5 minutes",
            "its lease expires, and the next process calls",
            "quota-core/tests/manager/deadlines.rs",
            with_fault(FaultKind::Pause(0)),
        ),
        row(
            "clock-ahead",
            "the clock of a machine is an hour ahead",
            "none: all times are the store's",
            "quota-core/tests/manager/reads.rs",
            clocks,
        ),
        row(
            "clock-jumps",
            "the clock of a machine jumps two hours ahead and back",
            "the process reads the store before it decides",
            "quota-core/tests/manager/reads.rs",
            with_fault(FaultKind::ClockJump(0, 7_200_000)),
        ),
        row(
            "rate-limited",
            "the provider answers 429",
            "readings become stale; a backoff and a cooldown",
            "quota-core/tests/manager/holds.rs",
            provider(ProviderFault::RateLimited),
        ),
        row(
            "rate-limited-for",
            "the provider answers 429 and requests 10 minutes",
            "no call for 10 minutes",
            "quota-core/tests/manager/holds.rs",
            provider(ProviderFault::RateLimitedFor(600)),
        ),
        row(
            "server-error",
            "the provider answers 5xx",
            "readings become stale; a backoff",
            "quota-core/tests/manager/holds.rs",
            provider(ProviderFault::ServerError),
        ),
        row(
            "hang",
            "the provider does not answer",
            "a call ends at its timeout; then a backoff",
            "quota-core/tests/manager/deadlines.rs",
            provider(ProviderFault::Hang),
        ),
        row(
            "malformed",
            "the response cannot be parsed",
            "readings become stale; a backoff",
            "quota-core/tests/manager/holds.rs",
            provider(ProviderFault::Malformed),
        ),
        row(
            "panic",
            "the fetcher panics",
            "the next read calls again; after the second panic readings become stale, with a backoff",
            "quota-core/tests/manager/single_flight.rs",
            provider(ProviderFault::Panic),
        ),
        row(
            "forbidden",
            "the provider rejects the credential",
            "no call with it until it changes, or for the maximum age",
            "quota-core/tests/manager/missing_scope.rs",
            provider(ProviderFault::Forbidden),
        ),
        row(
            "login-switch",
            "the account gets another login for 5 minutes",
            "the readings of the other login, at the latest 3 s after the next read",
            "quota-core/tests/manager/login_records.rs",
            two_logins,
        ),
        row(
            "token-rotation",
            "all tokens rotate",
            "none",
            "quota-core/tests/manager/credentials.rs",
            with_fault(FaultKind::TokenRotation),
        ),
        row(
            "older-program",
            "one process runs an older version",
            "none: it keeps the fields that it does not know",
            "quota-core/tests/wire.rs",
            older,
        ),
    ]
}

/// The page.
#[must_use]
pub fn page() -> String {
    let mut page = String::from(HEAD);
    for Scenario { name, fault, effect, tests, plan } in scenarios() {
        let Report { planned_calls, reads, violations, .. } = run(&plan, false);
        assert!(violations.is_empty(), "{name}: {violations:?}");
        let file = tests.rsplit('/').next().unwrap_or(tests);
        let _ = writeln!(
            page,
            "| {fault} | {effect} | {} | {planned_calls} | `{name}`, [{file}](../{tests}) |",
            sentence(&reads)
        );
    }
    page
}

/// The readings that the callers received, rounded, so that only a change of behavior changes the page.
fn sentence(reads: &Reads) -> String {
    let Reads { count, with_readings, stale, oldest, longest_wait } = *reads;
    let percent = |part: usize| part * 100 / count.max(1);
    let empty = match count - with_readings {
        0 => "all have readings".to_owned(),
        empty => format!("{} % have none", percent(empty).max(1)),
    };
    let minutes = oldest.as_secs().div_ceil(60);
    let wait = match longest_wait.as_millis() {
        0..1_000 => "under 1 s".to_owned(),
        _ => format!("{} s", longest_wait.as_secs() + 1),
    };
    format!("{empty}, {} % stale, at most {minutes} min old; longest wait {wait}", percent(stale))
}

const HEAD: &str = "# Reliability

What a fault means for readers and for the provider. `scripts/simulate --reliability` writes this page, and a test compares it
(`simulation/tests/reliability.rs`). Each row is one simulation with all rules of the checker ([simulation.md](simulation.md)): three
processes on three machines read one account for an hour, each every 15 s on average. The fault begins after 20 minutes and lasts 5
minutes, unless the row says otherwise. `scripts/simulate --fault NAME` prints its trace.

| fault | effect | reads | provider calls | scenario, more tests |
|---|---|---|---:|---|
";
