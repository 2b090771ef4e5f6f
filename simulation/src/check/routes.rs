//! The rules for requests through a router: which account it chooses, and with which credential.

use jiff::Timestamp;

use super::{Checker, as_ms};
use crate::ledger::Caller;

/// An account or a login whose requests the provider rejects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rejected {
    /// When the router received the response.
    pub(crate) since: Timestamp,
    pub(crate) until: Timestamp,
}

impl Checker {
    /// A router has chosen an account for a request that began at `asked_at`. The request has the credential of `login`.
    pub(crate) fn routed(
        &mut self,
        now: Timestamp,
        caller: Caller,
        account: usize,
        login: usize,
        asked_at: Timestamp,
    ) {
        let process = caller.process;
        self.note(now, ("routed", process, account, login), || {
            format!("p{process} routes a request to account {account}, login {login}")
        });
        if self.paused.contains(&process) {
            return;
        }
        let changes = self.logins.get(&account).map_or(&[][..], Vec::as_slice);
        let at_start = changes.iter().rev().find(|(at, _)| *at < asked_at);
        let since = changes.iter().filter(|(at, _)| *at >= asked_at);
        let mut held =
            at_start.into_iter().chain(since).map(|(_, held)| self.expects.login_in(process, *held));
        if !held.any(|held| held == login) {
            self.violated(
                now,
                "a-route-has-its-credential",
                format!("p{process} routes to account {account} with the credential of login {login}"),
            );
        }
        let margin_ms = as_ms(self.expects.clock_error) + 1_000;
        let key = (caller.manager, self.expects.subject(account, login));
        let rejected = self.rejected.get(&key).copied().filter(|rejected| rejected.since <= asked_at);
        if let Some(Rejected { until, .. }) = rejected
            && now.as_millisecond() + margin_ms < until.as_millisecond()
            && self.expects.remembers_rejections
        {
            let left = until.duration_since(now).as_secs();
            self.violated(
                now,
                "no-route-to-a-blocked-account",
                format!("p{process} routes to account {account}, {left} s before its block ends"),
            );
        }
    }

    /// A router has received the response to a request: served, or rejected until a given time.
    pub(crate) fn responded(
        &mut self,
        now: Timestamp,
        caller: Caller,
        account: usize,
        login: usize,
        until: Option<Timestamp>,
    ) {
        self.note(now, ("responded", caller.process, account, until.map(Timestamp::as_millisecond)), || {
            format!("p{} has a response from account {account}, rejected until {until:?}", caller.process)
        });
        let key = (caller.manager, self.expects.subject(account, login));
        match until {
            Some(until) => {
                let rejected = self.rejected.entry(key).or_insert(Rejected { since: now, until });
                rejected.until = rejected.until.max(until);
            }
            None => drop(self.rejected.remove(&key)),
        }
    }

    /// After the last fault, a router chooses an account, and lists the fallbacks that it could use.
    pub(crate) fn listed(&mut self, now: Timestamp, process: usize, chosen: Option<usize>, usable: &[usize]) {
        let content = ("listed", process, chosen, usable);
        self.note(now, content, || format!("p{process} routes to {chosen:?} and can use {usable:?}"));
        // The main account is never listed as a fallback.
        let is_usable = chosen.map_or(usable.is_empty(), |chosen| chosen == 0 || usable.contains(&chosen));
        if !is_usable {
            self.violated(
                now,
                "a-route-is-a-usable-fallback",
                format!("p{process} routes to {chosen:?} and can use {usable:?}"),
            );
        }
    }
}
