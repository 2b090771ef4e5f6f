//! The rules for callers: the readings that they receive, their age and login, and how long callers wait.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Checker, Reading};
use crate::ledger::Caller;
use crate::plan::CallerKind;

impl Checker {
    /// A caller has received a reading, which it requested at `asked_at`.
    pub(crate) fn received(
        &mut self,
        now: Timestamp,
        caller: Caller,
        account: usize,
        reading: Reading,
        asked_at: Timestamp,
    ) {
        let Reading { login, serial, is_fresh } = reading;
        let process = caller.process;
        let content = ("shows", process, account, login, serial, is_fresh);
        self.note(now, content, || {
            format!("p{process} shows {serial} of login {login} for account {account}, fresh: {is_fresh}")
        });
        self.check_login(now, caller, account, login, asked_at);
        self.check_follower(now, caller, account, reading);
        let issued = self.issued.get(&(login, serial)).copied();
        let age = issued.and_then(|at| Duration::try_from(now.duration_since(at)).ok()).unwrap_or_default();
        self.tally.with_readings += 1;
        self.tally.stale += usize::from(!is_fresh);
        self.tally.oldest = self.tally.oldest.max(age);
        let limit = self.expects.max_age + self.expects.clock_error + Duration::from_secs(1);
        match issued {
            Some(at)
                if is_fresh
                    && now.duration_since(at) > SignedDuration::try_from(limit).unwrap_or_default() =>
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
        if self.expects.loses_documents || self.expects.drops_readings {
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

    /// A read that finds the last check of the login older than a second starts a check. So the readings of a previous login may
    /// be shown until a read after the change, plus the time of the check. A read may check the login when it begins.
    fn check_login(
        &mut self,
        now: Timestamp,
        caller: Caller,
        account: usize,
        login: usize,
        asked_at: Timestamp,
    ) {
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
        reads.push(asked_at);
        if login != current && has_checked {
            let process = caller.process;
            self.violated(
                now,
                "readings-of-the-login",
                format!("p{process} shows login {login} for account {account}, which holds {current}"),
            );
        }
    }

    /// While a process uses an account, it reads the record at the latest two poll intervals after it had a current copy, because
    /// notices may be lost.
    fn check_follower(&mut self, now: Timestamp, caller: Caller, account: usize, reading: Reading) {
        let (first, last) = self.used.entry((caller.manager, account)).or_insert((now, now));
        if now.duration_since(*last) > LONGEST_PAUSE {
            *first = now;
        }
        *last = now;
        let Ok(since) = now.checked_sub(READ_WITHIN) else { return };
        if !self.expects.reads_again || self.paused.contains(&caller.process) || *first > since {
            return;
        }
        let subject = self.expects.subject(account, reading.login);
        let stored = self.stored.get(&subject).map_or(&[][..], Vec::as_slice);
        let Some((at, newer)) = stored.iter().rfind(|(at, _)| *at <= since).copied() else { return };
        if self.is_older(reading.login, reading.serial, newer) {
            let (process, age) = (caller.process, now.duration_since(at).as_secs());
            self.violated(
                now,
                "a-follower-reads-again",
                format!("p{process} shows {} {age} s after the write of {newer}", reading.serial),
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
        let is_read = matches!(
            what,
            CallerKind::Get
                | CallerKind::GetWithinMinute
                | CallerKind::Refresh
                | CallerKind::RefreshUnlessRecent
                | CallerKind::Command
        );
        self.tally.count += usize::from(is_read);
        self.tally.longest_wait = self.tally.longest_wait.max(waited);
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
}

/// Two poll intervals. An interval is a minute, and varies by a quarter.
const READ_WITHIN: Duration = Duration::from_secs(160);

/// A follower ends after two minutes without a reader.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_secs(60);

/// How long a process may take to notice another login: one check interval, and the store's round trips.
const LOGIN_NOTICED_WITHIN: Duration = Duration::from_secs(3);
