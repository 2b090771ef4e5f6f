//! Eventual progress: from each state, if no further fault occurs, all hosts end their work, have the same record, and may call
//! again at the latest when the budget allows it.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use crate::checks::loses_hold;
use crate::rules::{Decision, Ms, Outcome, Work};
use crate::state::{State, Step, Sync, Violation};
use crate::system::Protocol;

/// Why the hosts do not agree in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unsettled {
    /// A step toward agreement breaks this property.
    Violation(Violation),
    /// The hosts do not finish, or their records differ.
    NoAgreement,
    /// A hold that a host knew is lost.
    HoldLost,
    /// No call is possible.
    NoCall,
}

/// The property that each state leads to agreement once no fault occurs.
pub(crate) const AGREEMENT: &str = "all hosts agree at last, and may call";

impl Unsettled {
    /// The broken property.
    pub(crate) fn property(self) -> &'static str {
        match self {
            Self::Violation(violation) => violation.property(),
            Self::NoAgreement | Self::HoldLost | Self::NoCall => AGREEMENT,
        }
    }
}

/// The maximum number of steps, more than any run without a fault takes.
const MAX_STEPS: usize = 100;

/// Longer than any hold, cooldown, lease and budget of the model.
const LONG: Ms = 2 * 3_600_000;

impl Protocol {
    /// Whether the hosts agree after the last fault, and whether a call is possible then.
    pub(crate) fn settles(&self, state: &State) -> bool {
        // Another property reports a violation.
        state.violation.is_some() || self.unsettled(state).is_none()
    }

    /// Why the hosts do not agree after the last fault; `None` if they do.
    pub(crate) fn unsettled(&self, state: &State) -> Option<Unsettled> {
        let mut state = without_faults(state);
        let started = state.clone();
        if started.past.has_just_lost {
            // A loss ends the connections, so followers read at once.
            for host in (0..self.bounds.hosts).filter(|host| is_idle(&started, *host)) {
                if !self.read_until_idle(&mut state, host) {
                    return Some(Unsettled::NoAgreement);
                }
            }
        }
        let mut path = Vec::new();
        for step in 1..=MAX_STEPS {
            if !started.past.has_just_lost {
                let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(&state);
                if self.settled.states.lock().contains(&hash) {
                    break;
                }
                path.push(hash);
            }
            if !self.step_to_agreement(&mut state) {
                if !self.keeps_holds(&started, &state) {
                    return Some(Unsettled::HoldLost);
                }
                if !self.may_call_later(&state) {
                    return Some(Unsettled::NoCall);
                }
                break;
            }
            if let Some(violation) = state.violation {
                return Some(Unsettled::Violation(violation));
            }
            if step == MAX_STEPS {
                return Some(Unsettled::NoAgreement);
            }
        }
        self.settled.states.lock().extend(path);
        None
    }

    /// Reads the store's record, and writes what the store has lost; `false` if that does not end.
    fn read_until_idle(&self, state: &mut State, host: usize) -> bool {
        self.read(state, host);
        for _ in 0..MAX_STEPS {
            let Step::Swapping(_) = state.hosts[host].step else { return true };
            self.answer(state, host);
        }
        false
    }

    /// Makes the next step of the first host that has one; `false` if all hosts have the store's record and are idle.
    fn step_to_agreement(&self, state: &mut State) -> bool {
        for host in 0..self.bounds.hosts {
            match &state.hosts[host].step {
                Step::Swapping(_) => self.answer(state, host),
                Step::Calling { .. } => self.respond(state, host, true),
                Step::Publishing => self.publish_cooldown(state, host),
                Step::Idle => continue,
            }
            return true;
        }
        for host in 0..self.bounds.hosts {
            let known = &state.hosts[host];
            if known.sync == Sync::Standalone || known.base != state.store[self.bounds.accounts[host]] {
                self.read(state, host);
                return true;
            }
        }
        false
    }

    /// Whether the holds that the hosts knew just after a loss are in the store again.
    fn keeps_holds(&self, started: &State, settled: &State) -> bool {
        !started.past.has_just_lost
            || (0..self.bounds.hosts).filter(|host| is_idle(started, *host)).all(|host| {
                let (own, shared) = (started.hosts[host].base, settled.store[self.bounds.accounts[host]]);
                !loses_hold(&self.rules.record(own), &self.rules.record(shared), settled.now)
            })
    }

    /// Whether a call is possible, and its readings are stored, once all waits are over.
    fn may_call_later(&self, state: &State) -> bool {
        (0..self.bounds.hosts).all(|host| {
            let record = state.store[self.bounds.accounts[host]];
            if self.settled.records.lock().contains(&record) {
                return true;
            }
            let decide = |base, work| {
                let decision =
                    Decision { base, own: None, work, now: LONG, is_stored: true, after_conflict: false };
                self.rules.decide(decision)
            };
            let begun = decide(record, Work::Begin { attempt: u16::MAX, cooldown: state.cooldown });
            let Outcome::Granted(lease) = begun.outcome else { return false };
            let is_stored = decide(begun.next, Work::Commit { lease }).outcome == Outcome::Stored;
            if is_stored {
                self.settled.records.lock().insert(record);
            }
            is_stored
        })
    }
}

fn is_idle(state: &State, host: usize) -> bool {
    state.hosts[host].step == Step::Idle
}

/// The state after the last fault: the store answers, suspended hosts continue, and late writes are lost.
fn without_faults(state: &State) -> State {
    let mut state = state.clone();
    (state.is_down, state.faults_left) = (false, 0);
    for host in &mut state.hosts {
        (host.is_suspended, host.late) = (false, None);
    }
    state
}
