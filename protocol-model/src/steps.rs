//! The steps of hosts. Each accesses the store at most once. `quota_core::record` makes the decisions; this file
//! repeats only the code around them in `manager/sync` and `store/update`.

use crate::pool::Id;
use crate::rules::{Broken, Decision, Ms, Outcome, Work};
use crate::state::{Host, State, Step, Swap, Sync};
use crate::system::{Protocol, Witness};

impl Protocol {
    // The host starts a change: `RecordEntry::start` in `manager/sync`.

    pub(crate) fn begin(&self, state: &mut State, host: usize) {
        let Host { attempt, cooldown, .. } = state.hosts[host];
        let attempt = u16::try_from(host * 256).expect("there are few hosts") + u16::from(attempt);
        self.change(state, host, Work::Begin { attempt, cooldown });
    }

    pub(crate) fn change(&self, state: &mut State, host: usize, work: Work) {
        let Host { base, sync, .. } = state.hosts[host];
        match sync {
            Sync::Standalone => self.read_and_decide(state, host, work),
            Sync::Synced => self.decide(state, host, decision(base, None, work, self.estimate(state, host))),
            // The host assumes that there is no record. If the rules then change nothing, it reads.
            Sync::Unsynced => {
                let decision = decision(base, None, work, self.estimate(state, host));
                if self.rules.decide(decision).has_changed {
                    self.decide(state, host, decision);
                } else {
                    self.read_and_decide(state, host, work);
                }
            }
        }
    }

    fn read_and_decide(&self, state: &mut State, host: usize, work: Work) {
        if state.is_down {
            return self.continue_alone(state, host, work, None);
        }
        let shared = state.store[self.account(host)];
        self.report(state, host, shared);
        let base = state.hosts[host].base;
        let has_changes = state.hosts[host].sync == Sync::Standalone || self.rules.is_behind(shared, base);
        self.decide(state, host, decision(shared, has_changes.then_some(base), work, state.now));
    }

    /// One attempt of the update loop.
    fn decide(&self, state: &mut State, host: usize, mut decision: Decision) {
        // The manager reads the cooldown at each decision.
        if let Work::Begin { cooldown, .. } = &mut decision.work {
            *cooldown = state.hosts[host].cooldown;
        }
        let Decision { base, own, work, .. } = decision;
        let decided = self.rules.decide(decision);
        if decided.has_changed {
            let swap = Swap {
                expected: base,
                next: decided.next,
                work,
                outcome: decided.outcome,
                own,
                is_repeated: false,
                is_prompt: true,
            };
            state.hosts[host].step = Step::Swapping(swap);
        } else {
            self.accept(state, host, base);
            self.deliver(state, host, work, decided.outcome, true);
        }
    }

    fn accept(&self, state: &mut State, host: usize, record: Id) {
        let host = &mut state.hosts[host];
        (host.base, host.sync) = (record, Sync::Synced);
    }

    /// Records the hold that the store has returned to the host.
    fn report(&self, state: &mut State, host: usize, record: Id) {
        state.hosts[host].reported_hold = self.hold_of(record);
    }

    // The answer to a swap: `store/update`.

    pub(crate) fn answer(&self, state: &mut State, host: usize) {
        let Step::Swapping(swap) = state.hosts[host].step else { unreachable!("the host swaps") };
        let account = self.account(host);
        let found = state.store[account];
        if found == swap.expected || self.rules.lacks(Broken::CompareAndSwap) {
            self.write(state, account, &swap);
        } else if found == swap.next {
            self.witness(Witness::OwnWriteRecognized);
        } else {
            // A hold that is merged after the grant does not revoke it.
            if !self.has_granted(found, swap.work, state.now) {
                self.report(state, host, found);
            }
            let base = state.hosts[host].base;
            let own = swap.own.or_else(|| self.rules.is_behind(found, base).then_some(base));
            if own.is_none() {
                self.accept(state, host, found);
            }
            let again = Decision { after_conflict: true, ..decision(found, own, swap.work, state.now) };
            return self.decide(state, host, again);
        }
        if state.violation.is_none() {
            if swap.own.is_some() {
                let is_outage = state.hosts[host].sync == Sync::Standalone;
                self.witness(if is_outage { Witness::MergedAfterOutage } else { Witness::LossRepaired });
            }
            self.accept(state, host, swap.next);
            self.deliver(state, host, swap.work, swap.outcome, swap.is_prompt);
            self.report(state, host, swap.next);
        }
    }

    pub(crate) fn lose_answer(&self, state: &mut State, host: usize, is_applied: bool) {
        let Step::Swapping(swap) = state.hosts[host].step else { unreachable!("the host swaps") };
        let account = self.account(host);
        if is_applied {
            self.write(state, account, &swap);
        } else if self.bounds.kinds.late_writes {
            state.hosts[host].late = Some(swap);
        }
        if swap.is_repeated || state.is_down {
            self.continue_alone(state, host, swap.work, Some(swap));
        } else {
            state.hosts[host].step = Step::Swapping(Swap { is_repeated: true, ..swap });
        }
    }

    /// The host continues without the store: `apply_standalone` in `manager/sync`.
    fn continue_alone(&self, state: &mut State, host: usize, work: Work, failed: Option<Swap>) {
        let now = self.estimate(state, host);
        let mut base = state.hosts[host].base;
        if let Some(Swap { expected, own: own @ Some(_), .. }) = failed {
            // As in `store_merged`, so that the record that the store returned is not lost.
            let merge = Decision { is_stored: false, ..decision(expected, own, Work::Merge, state.now) };
            base = self.rules.decide(merge).next;
        }
        let decided = self.rules.decide(Decision { is_stored: false, ..decision(base, None, work, now) });
        state.past.was_standalone = true;
        (state.hosts[host].base, state.hosts[host].sync) = (decided.next, Sync::Standalone);
        if let Outcome::Granted(_) = decided.outcome {
            self.witness(Witness::StandaloneCall);
        }
        self.deliver(state, host, work, decided.outcome, false);
    }

    /// The store applies a swap. The checker compares the two records.
    pub(crate) fn write(&self, state: &mut State, account: usize, swap: &Swap) {
        let found = self.check_write(state, account, swap);
        state.violation = state.violation.or(found);
        if self.bounds.kinds.losses {
            state.previous[account] = state.store[account];
        }
        state.store[account] = swap.next;
        state.past.has_just_lost = false;
    }

    // The host's reaction to the result of a change: `manager/refresh`.

    fn deliver(&self, state: &mut State, host: usize, work: Work, outcome: Outcome, is_exclusive: bool) {
        let account = self.account(host);
        match outcome {
            Outcome::Granted(lease) => {
                let found = self.check_call(state, host, is_exclusive);
                state.violation = state.violation.or(found);
                if is_exclusive && state.hosts.iter().any(|other| matches!(other.step, Step::Calling { .. }))
                {
                    self.witness(Witness::TakenOver);
                }
                state.past.calls[account] += 1;
                // A call takes at least a millisecond, so two leases have different times.
                state.now += 1;
                state.hosts[host].step = Step::Calling { lease, since: state.now, is_exclusive };
            }
            Outcome::Refused => {
                self.witness(Witness::Refused);
                state.hosts[host].step = Step::Idle;
            }
            Outcome::Merged => state.hosts[host].step = Step::Idle,
            Outcome::Stored | Outcome::TooLate => {
                if outcome == Outcome::TooLate {
                    self.witness(Witness::TooLate);
                }
                state.hosts[host].attempt += 1;
                state.hosts[host].step = Step::Idle;
                if matches!(work, Work::Fail { .. }) && self.has_cooldown() {
                    let now = self.estimate(state, host);
                    let known = state.hosts[host].cooldown;
                    state.hosts[host].cooldown = self.rules.cooldown_after_rate_limit(known, now);
                    state.hosts[host].step = Step::Publishing;
                }
            }
        }
    }

    pub(crate) fn respond(&self, state: &mut State, host: usize, is_success: bool) {
        let Step::Calling { lease, .. } = state.hosts[host].step else { unreachable!("the host calls") };
        if !is_success {
            state.past.rejected[self.account(host)] += 1;
        }
        self.change(state, host, if is_success { Work::Commit { lease } } else { Work::Fail { lease } });
    }

    /// The host's follower reads the record: `pull` in `manager/sync`.
    pub(crate) fn read(&self, state: &mut State, host: usize) {
        let Host { base, sync, ref step, .. } = state.hosts[host];
        let shared = state.store[self.account(host)];
        let has_changes = sync == Sync::Standalone || self.rules.is_behind(shared, base);
        if !has_changes {
            self.report(state, host, shared);
            self.accept(state, host, shared);
        } else if *step == Step::Idle {
            self.read_and_decide(state, host, Work::Merge);
        }
    }

    pub(crate) fn read_cooldown(&self, state: &mut State, host: usize) {
        let known = state.hosts[host].cooldown;
        let until = |cooldown| self.rules.cooldown_until(cooldown, state.now);
        state.hosts[host].reported_cooldown = until(state.cooldown).unwrap_or(0);
        let joined = self.rules.join_cooldowns(known, state.cooldown, state.now);
        if until(known) > until(state.cooldown) {
            // The store has lost it.
            state.cooldown = joined;
        }
        state.hosts[host].cooldown = joined;
    }

    pub(crate) fn publish_cooldown(&self, state: &mut State, host: usize) {
        state.cooldown = self.rules.join_cooldowns(state.cooldown, state.hosts[host].cooldown, state.now);
        state.hosts[host].step = Step::Idle;
    }
}

fn decision(base: Id, own: Option<Id>, work: Work, now: Ms) -> Decision {
    Decision { base, own, work, now, is_stored: true, after_conflict: false }
}
