//! The provider's ledger: all calls, and the rules that the start of a new call may violate.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::expectations::Expectations;

/// The process and the manager of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) process: usize,
    pub(crate) manager: usize,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The process received the readings.
    Answered,
    /// The process received a 429 with this `Retry-After`.
    RateLimited(Option<Duration>),
    /// The call failed, or its process ended.
    Failed,
}

/// A call to the provider.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) caller: Caller,
    pub(crate) account: usize,
    pub(crate) login: usize,
    pub(crate) began: Timestamp,
    pub(crate) end: Option<(Timestamp, Outcome)>,
    /// When the store applied its readings. Until then its lease is live, so it runs for other processes.
    pub(crate) stored: Option<Timestamp>,
    /// The serial number of the provider's response.
    pub(crate) serial: Option<u32>,
}

/// All calls, in the order of their starts.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    calls: Vec<Call>,
}

/// A rule and what happened.
type Objection = (&'static str, String);

impl Ledger {
    pub(crate) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Adds a call and returns its number.
    pub(crate) fn add(&mut self, call: Call) -> usize {
        self.calls.push(call);
        self.calls.len() - 1
    }

    /// The provider has issued a response for a call.
    pub(crate) fn issued(&mut self, call: usize, serial: u32) {
        self.calls[call].serial = Some(serial);
    }

    /// Whether a call, and not an ordinary request, received this serial number.
    pub(crate) fn has_issued(&self, login: usize, serial: u32) -> bool {
        self.calls.iter().any(|call| call.login == login && call.serial == Some(serial))
    }

    /// The serial number of the last response for a login that a manager has received. With an account, only its calls count.
    pub(crate) fn last_serial(&self, manager: usize, login: usize, account: Option<usize>) -> Option<u32> {
        let is_wanted = |call: &&Call| {
            call.caller.manager == manager
                && call.login == login
                && account.is_none_or(|account| call.account == account)
                && call.end.is_some_and(|(_, outcome)| outcome == Outcome::Answered)
        };
        self.calls.iter().rfind(is_wanted)?.serial
    }

    /// A call has ended. The end of a killed process's call is that of the process.
    pub(crate) fn end(&mut self, call: usize, now: Timestamp, outcome: Outcome) {
        self.calls[call].end.get_or_insert((now, outcome));
    }

    /// A process was killed: its calls cannot end any more.
    pub(crate) fn killed(&mut self, process: usize, now: Timestamp) {
        for call in self.calls.iter_mut().filter(|call| call.caller.process == process) {
            call.end.get_or_insert((now, Outcome::Failed));
        }
    }

    /// The store has applied the readings of a manager's last call for a login.
    pub(crate) fn stored(&mut self, manager: usize, login: usize, now: Timestamp) {
        let is_wanted = |call: &&mut Call| call.caller.manager == manager && call.login == login;
        if let Some(call) = self.calls.iter_mut().rev().find(is_wanted) {
            call.stored.get_or_insert(now);
        }
    }

    /// Whether a call of the account ran at `since` or later. Its login may have changed since, so any login of it counts.
    pub(crate) fn has_call_since(&self, since: Timestamp, account: usize, expects: &Expectations) -> bool {
        self.calls.iter().any(|call| {
            (call.account == account || expects.states_login)
                && call.end.is_none_or(|(ended, _)| ended.max(call.stored.unwrap_or(ended)) >= since)
        })
    }

    /// The rules that a new call breaks. The calls of `paused` processes may begin and end later than they were granted.
    pub(crate) fn objections(
        &self,
        new: &Call,
        expects: &Expectations,
        paused: &BTreeSet<usize>,
    ) -> Vec<Objection> {
        let rules = [
            self.overlap(new, expects, paused),
            self.over_budget(new, expects, paused),
            self.needless(new, expects),
            self.hurried(new, paused),
            self.rate_limited(new, expects),
        ];
        rules.into_iter().flatten().collect()
    }

    fn of_record<'a>(
        &'a self,
        new: &'a Call,
        expects: &'a Expectations,
    ) -> impl DoubleEndedIterator<Item = &'a Call> {
        self.calls.iter().filter(|call| {
            if expects.states_login { call.login == new.login } else { call.account == new.account }
        })
    }

    fn overlap(&self, new: &Call, expects: &Expectations, paused: &BTreeSet<usize>) -> Option<Objection> {
        if !expects.is_store_reliable || expects.forgets {
            return None;
        }
        let own = new.caller.process;
        let is_paused = |process: &usize| paused.contains(process);
        let other = self
            .of_record(new, expects)
            .find(|call| call.end.is_none() && !is_paused(&call.caller.process) && !is_paused(&own))?;
        let detail =
            format!("p{own} calls for account {} during the call of p{}", new.account, other.caller.process);
        Some(("one-call-at-a-time", detail))
    }

    fn over_budget(&self, new: &Call, expects: &Expectations, paused: &BTreeSet<usize>) -> Option<Objection> {
        let recent = self.of_record(new, expects).filter(|call| since(call.began, new) < HOUR);
        let count = recent.count() + 1;
        // Without the store, each process has a copy of the budget. A paused process does not reach the store.
        let copies = 1 + if expects.is_store_reliable { paused.len() } else { expects.processes };
        let detail =
            || format!("call {count} within an hour for account {}, login {}", new.account, new.login);
        (count > expects.per_hour * copies).then(|| ("budget", detail()))
    }

    /// A manager that has just received readings does not call again, even if the store has lost them.
    fn needless(&self, new: &Call, expects: &Expectations) -> Option<Objection> {
        if !expects.needs_no_second_call {
            return None;
        }
        let mut own = self.of_record(new, expects).filter(|call| call.caller.manager == new.caller.manager);
        let recent = own.rfind(|call| {
            call.end
                .is_some_and(|(ended, outcome)| outcome == Outcome::Answered && since(ended, new) < RECENT)
        })?;
        let after = since(recent.began, new).as_secs();
        let detail = format!(
            "p{} calls {after} s after its last call for account {}",
            new.caller.process, new.account
        );
        Some(("no-needless-call", detail))
    }

    /// The calls of a manager start an interval apart.
    fn hurried(&self, new: &Call, paused: &BTreeSet<usize>) -> Option<Objection> {
        if paused.contains(&new.caller.process) {
            return None;
        }
        let last = self.calls.iter().rfind(|call| call.caller.manager == new.caller.manager)?;
        let after = since(last.began, new);
        let detail = || format!("p{} calls {} ms after its last call", new.caller.process, after.as_millis());
        (after < INTERVAL).then(|| ("calls-keep-their-interval", detail()))
    }

    /// After a 429 no process calls: for the same record until the requested time, for others during the cooldown.
    fn rate_limited(&self, new: &Call, expects: &Expectations) -> Option<Objection> {
        if !expects.shares_limits {
            return None;
        }
        let is_same = |call: &Call| self.of_record(new, expects).any(|other| std::ptr::eq(other, call));
        let (limited, after) = self.calls.iter().rev().find_map(|call| {
            let (ended, Outcome::RateLimited(retry_after)) = call.end? else { return None };
            let wait = if is_same(call) { retry_after.unwrap_or_default().max(COOLDOWN) } else { COOLDOWN };
            let after = since(ended, new);
            let is_own = call.caller.manager == new.caller.manager;
            let announced = if is_own { SignedDuration::ZERO } else { ANNOUNCED };
            let is_bound = after > announced && after + ANNOUNCED < signed(wait);
            is_bound.then_some((call, after))
        })?;
        let (own, other) = (new.caller.process, limited.caller.process);
        let detail = format!("p{own} calls {} s after the 429 of p{other}", after.as_secs());
        Some(("a-rate-limit-binds-all", detail))
    }
}

fn since(at: Timestamp, new: &Call) -> SignedDuration {
    new.began.duration_since(at)
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// The period of the budget.
const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// No cause makes readings stale within this time.
const RECENT: SignedDuration = SignedDuration::from_secs(30);

/// The interval of the default policy is a second. The permit starts it a moment before the call.
const INTERVAL: SignedDuration = SignedDuration::from_millis(950);

/// The cooldown after a 429, by the default policy.
const COOLDOWN: Duration = Duration::from_secs(60);

/// The time until all processes have received the news of a 429.
const ANNOUNCED: SignedDuration = SignedDuration::from_secs(5);
