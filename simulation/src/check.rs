//! The checker: quota's rules as an observer can check them, from the provider's ledger, the documents that the store
//! delivered, and the readings that callers received. It shares no code with the rules, because it reads the stored
//! JSON.

mod calls;
mod documents;
mod readings;
mod routes;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::time::Duration;

use jiff::Timestamp;
use quota_core::store::StoreKey;

use self::routes::Rejected;
use crate::expectations::{Expectations, Subject};
use crate::facts::Facts;
use crate::ledger::Ledger;
use crate::names::START;
use crate::plan::Plan;
use crate::trace::{Reads, Report, Trace, Violation};

/// The readings that a caller received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) login: usize,
    pub(crate) serial: u32,
    pub(crate) is_fresh: bool,
}

/// The history of one simulation so far, and its violations.
#[derive(Debug)]
pub(crate) struct Checker {
    trace: Trace,
    tally: Reads,
    violations: Vec<Violation>,
    expects: Expectations,
    /// The records as last written, by key.
    written: BTreeMap<StoreKey, Facts>,
    /// The documents as last delivered, by manager and key.
    delivered: BTreeMap<(usize, StoreKey), (Timestamp, Facts)>,
    ledger: Ledger,
    /// When the provider issued each serial number, by login.
    issued: BTreeMap<(usize, u32), Timestamp>,
    /// The highest serial number that a manager has shown, by account and login.
    shown: BTreeMap<(usize, usize, usize), u32>,
    /// The logins of each account, oldest first.
    logins: BTreeMap<usize, Vec<(Timestamp, usize)>>,
    paused: BTreeSet<usize>,
    /// The process that was granted each lease, by key and fence.
    holders: BTreeMap<(StoreKey, u64), usize>,
    /// When the hold of each record was last cleared, and the fence of that.
    cleared: BTreeMap<StoreKey, (Timestamp, u64)>,
    /// The first waits that quota chose, by the record and the fence of the call.
    waits: BTreeMap<(StoreKey, u64), i64>,
    /// The accounts and logins whose requests the provider has rejected, by the manager of the router.
    rejected: BTreeMap<(usize, Subject), Rejected>,
    /// The readings of each login or account that the store has contained, and since when.
    stored: BTreeMap<Subject, Vec<(Timestamp, u32)>>,
    /// The first and the last time at which each manager has shown each account without a long pause in between.
    used: BTreeMap<(usize, usize), (Timestamp, Timestamp)>,
    /// The times at which each manager has shown each account, since the last change of its login.
    reads: BTreeMap<(usize, usize), Vec<Timestamp>>,
}

impl Checker {
    pub(crate) fn new(plan: &Plan, keeps_lines: bool) -> Self {
        Self {
            trace: Trace::new(keeps_lines),
            tally: Reads::default(),
            violations: Vec::new(),
            expects: Expectations::of(plan),
            ledger: Ledger::default(),
            written: BTreeMap::new(),
            delivered: BTreeMap::new(),
            issued: BTreeMap::new(),
            shown: BTreeMap::new(),
            logins: BTreeMap::new(),
            paused: BTreeSet::new(),
            holders: BTreeMap::new(),
            cleared: BTreeMap::new(),
            waits: BTreeMap::new(),
            rejected: BTreeMap::new(),
            stored: BTreeMap::new(),
            used: BTreeMap::new(),
            reads: BTreeMap::new(),
        }
    }

    /// Adds an event to the trace. `content` has all that `line` shows.
    pub(crate) fn note(&mut self, now: Timestamp, content: impl Hash, line: impl FnOnce() -> String) {
        if self.trace.count() == MAX_EVENTS {
            self.violations.push(Violation { rule: "no-busy-loop", detail: format!("{MAX_EVENTS} events") });
        }
        let at_ms = now.as_millisecond() - START.as_millisecond();
        self.trace.push((at_ms, content), || format!("{at_ms:>11} {}", line()));
    }

    /// Whether a loop makes events without end.
    pub(crate) fn has_too_many_events(&self) -> bool {
        self.trace.count() > MAX_EVENTS
    }

    fn violated(&mut self, now: Timestamp, rule: &'static str, detail: String) {
        self.note(now, (rule, &detail), || format!("VIOLATION {rule}: {detail}"));
        // Keep only the first violation of each rule, because one leads to many.
        if !self.violations.iter().any(|violation| violation.rule == rule) {
            self.violations.push(Violation { rule, detail });
        }
    }

    /// The login of an account has changed.
    pub(crate) fn login_changed(&mut self, now: Timestamp, account: usize, login: usize) {
        self.note(now, ("login", account, login), || format!("account {account} has login {login}"));
        self.logins.entry(account).or_default().push((now, login));
    }

    /// A process was killed, so its calls can no longer end.
    pub(crate) fn killed(&mut self, now: Timestamp, process: usize) {
        self.note(now, ("killed", process), || format!("p{process} was killed"));
        self.ledger.killed(process, now);
    }

    /// A process was paused. From then on, its calls may begin and end later than they were granted.
    pub(crate) fn paused(&mut self, now: Timestamp, process: usize) {
        self.note(now, ("paused", process), || format!("p{process} was paused"));
        self.paused.insert(process);
    }

    /// Whether the first reading is older than the second, by more than the error of the processes' clocks.
    fn is_older(&self, login: usize, serial: u32, than: u32) -> bool {
        let issued = |serial: u32| self.issued.get(&(login, serial));
        let (Some(at), Some(than)) = (issued(serial), issued(than)) else { return false };
        Duration::try_from(than.duration_since(*at)).is_ok_and(|later| later > self.expects.clock_error)
    }

    /// Code of quota, or of the simulation, has panicked.
    pub(crate) fn panicked(&mut self, now: Timestamp, message: String) {
        self.violated(now, "no-panic", message);
    }

    /// The processes of one login disagree after the end of all faults.
    pub(crate) fn disagree(&mut self, now: Timestamp, detail: String) {
        self.violated(now, "processes-agree", detail);
    }

    /// Refreshes are forced from here on.
    pub(crate) fn forces_refreshes(&mut self) {
        self.expects.needs_no_second_call = false;
    }

    /// After the end of all faults, a refresh still fails.
    pub(crate) fn stuck(&mut self, now: Timestamp, detail: String) {
        self.violated(now, "progress", detail);
    }

    /// Readings that a process had were lost although it survived.
    pub(crate) fn survivors_lost(&mut self, now: Timestamp, detail: String) {
        self.violated(now, "survivors-are-merged", detail);
    }

    /// The number of calls so far.
    pub(crate) fn calls(&self) -> usize {
        self.ledger.len()
    }

    /// The report, with the calls until the last fault.
    pub(crate) fn finish(self, planned_calls: usize) -> Report {
        Report {
            calls: self.ledger.len(),
            planned_calls,
            trace_hash: self.trace.hash(),
            events: self.trace.count(),
            reads: self.tally,
            violations: self.violations,
            lines: self.trace.into_lines(),
        }
    }
}

/// The maximum number of events, more than any simulation without a busy loop has.
const MAX_EVENTS: usize = 1_000_000;

fn as_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
