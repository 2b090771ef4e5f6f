//! The rules for calls to the provider.

use jiff::Timestamp;

use super::{Checker, as_ms};
use crate::ledger::{Call, Caller, Outcome};
use crate::names::plan_of;

impl Checker {
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
        let new = Call { caller, account, login, began: now, end: None, stored: None, serial: None };
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
        // A call that was granted before a pause may start after it. A process without the store clears its own copy.
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
}
