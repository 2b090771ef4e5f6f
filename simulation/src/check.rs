//! The checker: the rules of quota as an observer states them, by the provider's ledger, by what the store delivered, and by what
//! callers received. It shares no code with the rules: it reads the stored JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::time::Duration;

use jiff::Timestamp;
use quota_core::Policy;
use quota_core::store::{Document, StoreKey, Version};
use serde_json::Value;

use crate::names::{START, login_in, plan_of};
use crate::plan::{CallerKind, FaultKind, Plan};
use crate::trace::{Trace, Violation};

/// The process and the manager of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) process: usize,
    pub(crate) manager: usize,
}

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
    calls: Vec<Call>,
    /// When the provider issued each serial number, by login.
    issued: BTreeMap<(usize, u32), Timestamp>,
    /// The highest serial number that a manager has shown, by account and login.
    shown: BTreeMap<(usize, usize, usize), u32>,
    /// The logins of each account, oldest first.
    logins: BTreeMap<usize, Vec<(Timestamp, usize)>>,
    paused: BTreeSet<usize>,
    /// The times at which each manager has shown each account, since the last change of its login.
    reads: BTreeMap<(usize, usize), Vec<Timestamp>>,
}

/// What the plan allows the checker to expect.
#[derive(Debug)]
struct Expectations {
    per_hour: usize,
    max_age: Duration,
    states_login: bool,
    is_store_reliable: bool,
    loses_documents: bool,
    forgets: bool,
    clears_holds: bool,
    processes: usize,
    /// How wrong a process's estimate of the store's time may be.
    clock_error: Duration,
}

/// A call to the provider.
#[derive(Debug)]
struct Call {
    caller: Caller,
    account: usize,
    login: usize,
    began: Timestamp,
    ended: Option<Timestamp>,
}

/// What the checker reads in a stored document.
#[derive(Debug, Clone, Default, PartialEq)]
struct Facts {
    is_record: bool,
    version: u64,
    revision: u64,
    fence: u64,
    forgotten_ms: i64,
    login: Option<String>,
    plan: Option<String>,
    serial: Option<u32>,
    lease: Option<(u64, i64)>,
    hold: Option<HoldFacts>,
}

#[derive(Debug, Clone, PartialEq)]
struct HoldFacts {
    since_ms: i64,
    until_ms: i64,
    fingerprints: Vec<String>,
}

impl Facts {
    fn of(version: Version, body: &[u8]) -> Self {
        let document: Value = serde_json::from_slice(body).unwrap_or_default();
        let number = |value: &Value| value.as_i64().unwrap_or_default();
        let unsigned = |value: &Value| value.as_u64().unwrap_or_default();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let hold = &document["hold"];
        let lease = &document["lease"];
        let windows = document["snapshot"]["windows"].as_array();
        let week = windows.into_iter().flatten().find(|window| window["id"] == "seven_day");
        Self {
            is_record: document.get("snapshot").is_some(),
            version: version.number(),
            revision: unsigned(&document["revision"]),
            fence: unsigned(&document["fence"]),
            forgotten_ms: number(&document["forgotten_ms"]),
            login: text(&document["login_id"]),
            plan: text(&document["snapshot"]["plan"]["value"]),
            serial: week.and_then(|week| u32::try_from(unsigned(&week["used_bp"])).ok()),
            lease: lease.is_object().then(|| (unsigned(&lease["fence"]), number(&lease["until_ms"]))),
            hold: hold.is_object().then(|| HoldFacts {
                since_ms: number(&hold["since_ms"]),
                until_ms: number(&hold["until_ms"]),
                fingerprints: hold["calls"]["fingerprints"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(text)
                    .collect(),
            }),
        }
    }
}

impl Checker {
    pub(crate) fn new(plan: &Plan, keeps_lines: bool) -> Self {
        let has_caller = |kind| {
            plan.processes.iter().any(|process| process.callers.iter().any(|caller| caller.kind == kind))
        };
        let policy = Policy::default();
        Self {
            trace: Trace::new(keeps_lines),
            violations: Vec::new(),
            expects: Expectations {
                per_hour: policy.budget.per_hour as usize,
                max_age: policy.max_age,
                states_login: plan.states_login,
                is_store_reliable: plan.is_store_reliable(),
                loses_documents: plan.loses_documents(),
                forgets: plan.forgets(),
                clears_holds: has_caller(CallerKind::ClearHold),
                processes: plan.processes.len(),
                clock_error: clock_error(plan),
            },
            written: BTreeMap::new(),
            delivered: BTreeMap::new(),
            calls: Vec::new(),
            issued: BTreeMap::new(),
            shown: BTreeMap::new(),
            logins: BTreeMap::new(),
            paused: BTreeSet::new(),
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
        process: usize,
        key: &StoreKey,
        before: Option<&[u8]>,
        body: &[u8],
        version: Version,
    ) {
        let new = Facts::of(version, body);
        self.note(now, ("wrote", process, key, body), || format!("p{process} wrote {key} {new:?}"));
        if !new.is_record {
            return;
        }
        if let Some(before) = before {
            let old = Facts::of(version, before);
            self.check_write(now, key, &old, &new);
        }
        self.written.insert(key.clone(), new);
    }

    fn check_write(&mut self, now: Timestamp, key: &StoreKey, old: &Facts, new: &Facts) {
        if new.revision <= old.revision {
            self.violated(now, "revision-rises", format!("{key}: {} after {}", new.revision, old.revision));
        }
        if new.fence < old.fence {
            self.violated(now, "fence-rises", format!("{key}: {} after {}", new.fence, old.fence));
        }
        let is_forgotten = new.forgotten_ms > old.forgotten_ms;
        let is_same_login = old.login == new.login && old.plan == new.plan;
        if let (Some((old_fence, until_ms)), Some((new_fence, _))) = (old.lease, new.lease)
            && old_fence != new_fence
            && until_ms > now.as_millisecond() + 1
            && !is_forgotten
            && is_same_login
            && self.expects.is_store_reliable
        {
            let left = until_ms - now.as_millisecond();
            self.violated(
                now,
                "one-lease",
                format!("{key}: {new_fence} replaced {old_fence}, which had {left} ms left"),
            );
        }
        if let (Some(old_serial), Some(new_serial)) = (old.serial, new.serial)
            && let Some(login) = new.plan.as_deref().and_then(login_in)
            && is_same_login
            && !is_forgotten
            && self.is_older(login, new_serial, old_serial)
        {
            self.violated(now, "newer-reading-stays", format!("{key}: {new_serial} replaced {old_serial}"));
        }
        if let (Some(login), Some(plan)) = (&new.login, &new.plan)
            && login != plan
            && self.expects.states_login
        {
            self.violated(
                now,
                "record-of-one-login",
                format!("{key}: readings of {plan} in the record of {login}"),
            );
        }
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
        let call = self.calls.len();
        let content = ("calls", caller.process, caller.manager, account, login);
        self.note(now, content, || {
            format!(
                "p{} m{} calls for account {account}, login {login} (call {call})",
                caller.process, caller.manager
            )
        });
        self.check_concurrency(now, caller, account, login);
        self.check_budget(now, account, login);
        self.check_hold(now, caller, account, login, fingerprint);
        self.calls.push(Call { caller, account, login, began: now, ended: None });
        call
    }

    /// Whether two calls are for one record.
    fn is_same_record(&self, call: &Call, account: usize, login: usize) -> bool {
        if self.expects.states_login { call.login == login } else { call.account == account }
    }

    fn check_concurrency(&mut self, now: Timestamp, caller: Caller, account: usize, login: usize) {
        if !self.expects.is_store_reliable || self.expects.forgets {
            return;
        }
        let is_concurrent = |call: &&Call| {
            call.ended.is_none()
                && self.is_same_record(call, account, login)
                && !self.paused.contains(&call.caller.process)
                && !self.paused.contains(&caller.process)
        };
        if let Some(other) = self.calls.iter().find(is_concurrent) {
            let (own, other) = (caller.process, other.caller.process);
            self.violated(
                now,
                "one-call-at-a-time",
                format!("p{own} calls for account {account} during the call of p{other}"),
            );
        }
    }

    fn check_budget(&mut self, now: Timestamp, account: usize, login: usize) {
        let hour = Duration::from_secs(3600);
        let recent = self.calls.iter().filter(|call| {
            self.is_same_record(call, account, login)
                && now.duration_since(call.began) < jiff::SignedDuration::try_from(hour).unwrap_or_default()
        });
        let count = recent.count() + 1;
        let copies = if self.expects.is_store_reliable { 1 } else { 1 + self.expects.processes };
        if count > self.expects.per_hour * copies {
            self.violated(
                now,
                "budget",
                format!("call {count} within an hour for account {account}, login {login}"),
            );
        }
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
        let margin_ms = i64::try_from(self.expects.clock_error.as_millis()).unwrap_or(i64::MAX);
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
    pub(crate) fn call_ended(&mut self, now: Timestamp, call: usize) {
        self.note(now, ("ended", call), || format!("call {call} ended"));
        self.calls[call].ended = Some(now);
    }

    /// The provider has issued a response for a login with this serial number.
    pub(crate) fn issued(&mut self, now: Timestamp, login: usize, serial: u32) {
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
        for call in self.calls.iter_mut().filter(|call| call.caller.process == process) {
            call.ended.get_or_insert(now);
        }
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
        // The account's login may have changed since the request, so any call of the account counts.
        let is_newer = |call: &&Call| {
            let is_record = call.account == account || self.expects.states_login;
            is_record && call.ended.is_none_or(|ended| ended >= asked_at)
        };
        if !self.calls.iter().any(|call| is_newer(&call)) {
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
        if waited > limit {
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

    /// Readings that a process had were lost although it survived.
    pub(crate) fn survivors_lost(&mut self, now: Timestamp, detail: String) {
        self.violated(now, "survivors-are-merged", detail);
    }

    /// The number of calls, the trace's hash and length, the violations and the lines.
    pub(crate) fn finish(self) -> (usize, u64, usize, Vec<Violation>, Vec<String>) {
        (self.calls.len(), self.trace.hash(), self.trace.count(), self.violations, self.trace.into_lines())
    }
}

/// How wrong the timestamps of a process may be. Until the store's first response, a process uses its own clock.
fn clock_error(plan: &Plan) -> Duration {
    let jumps = plan.faults.iter().any(|fault| matches!(fault.kind, FaultKind::ClockJump(..)));
    let drift = Duration::from_millis(if jumps { 2_500 } else { 200 });
    let ahead_ms = plan.processes.iter().map(|process| process.clock_ahead_ms.unsigned_abs()).max();
    drift + Duration::from_millis(ahead_ms.unwrap_or_default()).min(LATEST_PLAUSIBLE)
}

/// More events than in any simulation without a busy loop.
const MAX_EVENTS: usize = 1_000_000;

/// How far ahead a timestamp may be and still count.
const LATEST_PLAUSIBLE: Duration = Duration::from_secs(60);

/// How long a process may take to notice another login: one check interval, and the store's round trips.
const LOGIN_NOTICED_WITHIN: Duration = Duration::from_secs(3);
