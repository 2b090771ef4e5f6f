//! The checker: the rules of quota as an observer states them, by the provider's ledger, by what the store delivered, and by what
//! callers received. It shares no code with the rules: it reads the stored JSON.

mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::time::Duration;

use jiff::Timestamp;
use quota_core::store::{Document, StoreKey, Version};

use crate::expectations::Expectations;
use crate::facts::Facts;
use crate::ledger::{Call, Caller, Ledger, Outcome};
use crate::names::{START, plan_of};
use crate::plan::{CallerKind, Plan};
use crate::trace::{Trace, Violation};

/// What a caller received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) login: usize,
    pub(crate) serial: u32,
    pub(crate) is_fresh: bool,
}

/// All that one simulation has done so far, and the violations.
#[derive(Debug)]
pub(crate) struct Checker {
    trace: Trace,
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
    /// When the hold of each record was last cleared.
    cleared: BTreeMap<StoreKey, Timestamp>,
    /// The first waits that quota chose, by the record and the fence of the call.
    waits: BTreeMap<(StoreKey, u64), i64>,
    /// The times at which each manager has shown each account, since the last change of its login.
    reads: BTreeMap<(usize, usize), Vec<Timestamp>>,
}

impl Checker {
    pub(crate) fn new(plan: &Plan, keeps_lines: bool) -> Self {
        Self {
            trace: Trace::new(keeps_lines),
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
        // One violation of a rule leads to many.
        if !self.violations.iter().any(|violation| violation.rule == rule) {
            self.violations.push(Violation { rule, detail });
        }
    }

    /// The store has applied a write.
    pub(crate) fn applied(
        &mut self,
        now: Timestamp,
        writer: Caller,
        key: &StoreKey,
        before: Option<&[u8]>,
        body: &[u8],
        version: Version,
    ) {
        let new = Facts::of(version, body);
        self.note(now, ("wrote", writer.process, key, body), || {
            format!("p{} wrote {key} {new:?}", writer.process)
        });
        if !new.is_record {
            return;
        }
        if let Some(before) = before {
            let old = Facts::of(version, before);
            self.check_write(now, writer, key, &old, &new);
        }
        if let Some((fence, _)) = new.lease {
            self.holders.entry((key.clone(), fence)).or_insert(writer.process);
        }
        self.check_hold_write(now, key, before.is_some(), &new);
        self.written.insert(key.clone(), new);
    }

    /// The store has lost writes of a document. `left` is what remains.
    pub(crate) fn lost(&mut self, now: Timestamp, key: &StoreKey, left: Option<&Document>) {
        self.note(now, ("lost", key), || format!("store lost {key}"));
        match left {
            Some(document) => {
                self.written.insert(key.clone(), Facts::of(document.version, &document.body));
            }
            None => {
                self.written.remove(key);
            }
        }
    }

    /// A manager has received a document.
    pub(crate) fn delivered(
        &mut self,
        now: Timestamp,
        manager: usize,
        key: &StoreKey,
        document: Option<&Document>,
    ) {
        let Some(document) = document else {
            self.note(now, ("got nothing", manager, key), || format!("m{manager} got nothing for {key}"));
            return;
        };
        let slot = (manager, key.clone());
        let is_same =
            self.delivered.get(&slot).is_some_and(|(_, facts)| facts.version == document.version.number());
        let version = document.version.number();
        self.note(now, ("got", manager, key, version), || format!("m{manager} got {key} version {version}"));
        if !is_same {
            let written = self.written.get(key).filter(|facts| facts.version == version).cloned();
            let facts = written.unwrap_or_else(|| Facts::of(document.version, &document.body));
            self.delivered.insert(slot, (now, facts));
        }
    }

    /// A manager has received a document with a notice.
    pub(crate) fn noticed(&mut self, now: Timestamp, manager: usize, key: &StoreKey, document: &Document) {
        let version = document.version.number();
        self.note(now, ("noticed", manager, key, version), || {
            format!("m{manager} noticed {key} version {version}")
        });
    }

    /// A process calls the provider. Returns the number of the call.
    pub(crate) fn call_started(
        &mut self,
        now: Timestamp,
        caller: Caller,
        account: usize,
        login: usize,
        fingerprint: &str,
    ) -> usize {
        let call = self.ledger.len();
        let content = ("calls", caller.process, caller.manager, account, login);
        self.note(now, content, || {
            format!(
                "p{} m{} calls for account {account}, login {login} (call {call})",
                caller.process, caller.manager
            )
        });
        self.check_hold(now, caller, account, login, fingerprint);
        let new = Call { caller, account, login, began: now, end: None, serial: None };
        for (rule, detail) in self.ledger.objections(&new, &self.expects, &self.paused) {
            self.violated(now, rule, detail);
        }
        self.ledger.add(new)
    }

    fn check_hold(
        &mut self,
        now: Timestamp,
        caller: Caller,
        account: usize,
        login: usize,
        fingerprint: &str,
    ) {
        // After a pause, a call starts that was granted before it. And a process without the store clears its own copy.
        if self.paused.contains(&caller.process)
            || (self.expects.clears_holds && !self.expects.is_store_reliable)
        {
            return;
        }
        let name = format!("example/{account}");
        let plan = plan_of(login);
        let margin_ms = as_ms(self.expects.clock_error);
        let now_ms = now.as_millisecond();
        let mut broken = None;
        for ((manager, key), (at, facts)) in &self.delivered {
            if *manager != caller.manager || now_ms - at.as_millisecond() < margin_ms {
                continue;
            }
            let is_record = facts.is_record
                && match &facts.login {
                    Some(of) => *of == plan,
                    None => key.as_str() == name,
                };
            let is_cooldown = key.as_str() == "example";
            let Some(hold) = facts.hold.as_ref().filter(|_| is_record || is_cooldown) else { continue };
            // A hold from the future is repaired, so it does not count.
            let is_in_force = hold.until_ms > now_ms + margin_ms && hold.since_ms <= now_ms + margin_ms;
            let admits = is_record
                && !self.expects.states_login
                && !hold.fingerprints.iter().any(|known| known == fingerprint);
            if is_in_force && !admits {
                broken = Some(format!(
                    "p{} calls for {name}, {} ms before the hold in {key} ends",
                    caller.process,
                    hold.until_ms - now_ms
                ));
            }
        }
        if let Some(detail) = broken {
            self.violated(now, "no-call-under-a-hold", detail);
        }
    }

    /// A call has ended, or its future was dropped.
    pub(crate) fn call_ended(&mut self, now: Timestamp, call: usize, outcome: Outcome) {
        self.note(now, ("ended", call), || format!("call {call} ended: {outcome:?}"));
        self.ledger.end(call, now, outcome);
    }

    /// The provider has issued a response for a login with this serial number.
    pub(crate) fn issued(&mut self, now: Timestamp, login: usize, serial: u32, call: Option<usize>) {
        if let Some(call) = call {
            self.ledger.issued(call, serial);
        }
        self.note(now, ("issued", login, serial), || format!("provider issued {serial} for login {login}"));
        self.issued.insert((login, serial), now);
    }

    /// An account has another login now.
    pub(crate) fn login_changed(&mut self, now: Timestamp, account: usize, login: usize) {
        self.note(now, ("login", account, login), || format!("account {account} has login {login}"));
        self.logins.entry(account).or_default().push((now, login));
    }

    /// A process was killed: its calls cannot end any more.
    pub(crate) fn killed(&mut self, now: Timestamp, process: usize) {
        self.note(now, ("killed", process), || format!("p{process} was killed"));
        self.ledger.killed(process, now);
    }

    /// A process was paused. From then on, its calls may begin and end later than they were granted.
    pub(crate) fn paused(&mut self, now: Timestamp, process: usize) {
        self.note(now, ("paused", process), || format!("p{process} was paused"));
        self.paused.insert(process);
    }

    /// A caller has received a reading.
    pub(crate) fn received(&mut self, now: Timestamp, caller: Caller, account: usize, reading: Reading) {
        let Reading { login, serial, is_fresh } = reading;
        let process = caller.process;
        let content = ("shows", process, account, login, serial, is_fresh);
        self.note(now, content, || {
            format!("p{process} shows {serial} of login {login} for account {account}, fresh: {is_fresh}")
        });
        self.check_login(now, caller, account, login);
        let issued = self.issued.get(&(login, serial)).copied();
        let limit = self.expects.max_age + self.expects.clock_error + Duration::from_secs(1);
        match issued {
            Some(at)
                if is_fresh
                    && now.duration_since(at) > jiff::SignedDuration::try_from(limit).unwrap_or_default() =>
            {
                let age = now.duration_since(at).as_secs();
                self.violated(
                    now,
                    "fresh-is-fresh",
                    format!("p{process} shows a reading of {age} s as fresh"),
                );
            }
            Some(_) => {}
            None => self.violated(
                now,
                "no-invented-number",
                format!("p{process} shows {serial} of login {login}"),
            ),
        }
        if self.expects.loses_documents || self.expects.forgets {
            return;
        }
        let shown = self.shown.entry((caller.manager, account, login)).or_default();
        let before = *shown;
        *shown = before.max(serial);
        if self.is_older(login, serial, before) {
            self.violated(
                now,
                "readings-do-not-go-back",
                format!("p{process} shows {serial} after {before} for account {account}"),
            );
        }
    }

    /// Whether the first reading is older than the second, by more than the error of the processes' clocks.
    fn is_older(&self, login: usize, serial: u32, than: u32) -> bool {
        let issued = |serial: u32| self.issued.get(&(login, serial));
        let (Some(at), Some(than)) = (issued(serial), issued(than)) else { return false };
        Duration::try_from(than.duration_since(*at)).is_ok_and(|later| later > self.expects.clock_error)
    }

    /// A read that finds the last check of the login older than a second starts a check. So the readings of a previous login may
    /// be shown until a read after the change, plus the time of the check.
    fn check_login(&mut self, now: Timestamp, caller: Caller, account: usize, login: usize) {
        if !self.expects.states_login || self.paused.contains(&caller.process) {
            return;
        }
        let Some(changes) = self.logins.get(&account) else { return };
        let (changed_at, current) = changes.last().copied().unwrap_or((now, login));
        let current = self.expects.login_in(caller.process, current);
        let reads = self.reads.entry((caller.manager, account)).or_default();
        reads.retain(|at| *at >= changed_at);
        let since = now.checked_sub(LOGIN_NOTICED_WITHIN).unwrap_or(Timestamp::MIN);
        let has_checked = reads.iter().any(|at| *at <= since);
        reads.push(now);
        if login != current && has_checked {
            let process = caller.process;
            self.violated(
                now,
                "readings-of-the-login",
                format!("p{process} shows login {login} for account {account}, which holds {current}"),
            );
        }
    }

    /// A `refresh` that was requested at `asked_at` has succeeded: a call must have ended since.
    pub(crate) fn refreshed(&mut self, now: Timestamp, process: usize, account: usize, asked_at: Timestamp) {
        if !self.ledger.has_call_since(asked_at, account, &self.expects) {
            let waited = now.duration_since(asked_at).as_millis();
            self.violated(
                now,
                "a-refresh-is-a-call",
                format!("p{process} refreshed account {account} within {waited} ms without a call"),
            );
        }
    }

    /// A caller has waited this long for `what`.
    pub(crate) fn waited(
        &mut self,
        now: Timestamp,
        process: usize,
        what: CallerKind,
        waited: Duration,
        limit: Duration,
    ) {
        let content = ("waited", process, waited);
        self.note(now, content, || format!("p{process} waited {} ms for {what:?}", waited.as_millis()));
        if waited > limit.min(self.expects.longest_wait) {
            self.violated(
                now,
                "answered-in-time",
                format!("p{process} waited {} ms for {what:?}", waited.as_millis()),
            );
        }
    }

    /// Code of quota, or of the simulation, has panicked.
    pub(crate) fn panicked(&mut self, now: Timestamp, message: String) {
        self.violated(now, "no-panic", message);
    }

    /// The processes of one login disagree after the end of all faults.
    pub(crate) fn disagree(&mut self, now: Timestamp, detail: String) {
        self.violated(now, "processes-agree", detail);
    }

    /// From now on, refreshes are forced.
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

    /// The number of calls, the trace's hash and length, the violations and the lines.
    pub(crate) fn finish(self) -> (usize, u64, usize, Vec<Violation>, Vec<String>) {
        (self.ledger.len(), self.trace.hash(), self.trace.count(), self.violations, self.trace.into_lines())
    }
}

/// More events than in any simulation without a busy loop.
const MAX_EVENTS: usize = 1_000_000;

fn as_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// How long a process may take to notice another login: one check interval, and the store's round trips.
const LOGIN_NOTICED_WITHIN: Duration = Duration::from_secs(3);
