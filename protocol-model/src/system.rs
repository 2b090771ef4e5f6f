//! The system that the model describes: its bounds, its rules, and the events that occurred.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::pool::Id;
use crate::rules::{Broken, FETCH_TIMEOUT, Ms, Rules};
use crate::state::{Host, MAX_HOSTS, State, Step};

/// The bounds of the model.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The number of hosts, up to three.
    pub hosts: usize,
    /// The account of each host.
    pub accounts: [usize; MAX_HOSTS],
    /// How far each host's estimate of the store's time is ahead.
    pub skew: [Ms; MAX_HOSTS],
    /// The number of attempts of each host.
    pub attempts: u8,
    /// The number of calls that the policy allows per hour.
    pub budget: u32,
    /// The number of clock ticks, of two seconds each.
    pub ticks: u32,
    /// The number of faults in one run, and their kinds.
    pub faults: u8,
    /// The kinds of faults.
    pub kinds: Faults,
}

/// The kinds of faults that occur.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each kind is chosen on its own")]
pub struct Faults {
    /// An answer of the store is lost, after the write was applied or before.
    pub lost_answers: bool,
    /// A write that timed out is applied later.
    pub late_writes: bool,
    /// A process restarts, and loses its memory.
    pub crashes: bool,
    /// A process is suspended, and continues later.
    pub suspensions: bool,
    /// The store responds to no host for a while.
    pub outages: bool,
    /// The store loses a record, or its last write.
    pub losses: bool,
}

impl Faults {
    /// No kind of fault.
    pub const NONE: Self = Self {
        lost_answers: false,
        late_writes: false,
        crashes: false,
        suspensions: false,
        outages: false,
        losses: false,
    };

    /// All kinds of faults.
    pub const ALL: Self = Self {
        lost_answers: true,
        late_writes: true,
        crashes: true,
        suspensions: true,
        outages: true,
        losses: true,
    };
}

/// The protocol within some bounds.
#[derive(Debug)]
pub struct Protocol {
    pub(crate) bounds: Bounds,
    pub(crate) rules: Rules,
    pub(crate) settled: Settled,
    witnessed: [AtomicUsize; Witness::ALL.len()],
}

/// Caches states that lead to agreement, and records on which a call is possible again. Most states lead to one of
/// these.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    pub(crate) states: Mutex<HashSet<u64>>,
    pub(crate) records: Mutex<HashSet<Id>>,
}

/// An interesting event. If one never occurs, the model proves less than it seems to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Witness {
    /// The rules refused a call.
    Refused,
    /// A lease was granted while an earlier holder was still calling.
    TakenOver,
    /// A result was not stored, because another host had a newer lease.
    TooLate,
    /// A repeated swap found its own write.
    OwnWriteRecognized,
    /// A write was applied after its host had abandoned it.
    LateWriteApplied,
    /// A host merged its copy after an outage.
    MergedAfterOutage,
    /// A host restored what the store had lost.
    LossRepaired,
    /// A host called without the store.
    StandaloneCall,
}

impl Witness {
    /// All events.
    pub const ALL: [Self; 8] = [
        Self::Refused,
        Self::TakenOver,
        Self::TooLate,
        Self::OwnWriteRecognized,
        Self::LateWriteApplied,
        Self::MergedAfterOutage,
        Self::LossRepaired,
        Self::StandaloneCall,
    ];
}

/// The time between two ticks.
pub(crate) const TICK: Ms = FETCH_TIMEOUT;

impl Protocol {
    /// The protocol within these bounds, with all rules or without one.
    #[must_use]
    pub fn new(bounds: Bounds, broken: Option<Broken>) -> Self {
        Self {
            bounds,
            rules: Rules::new(bounds.budget, broken),
            settled: Settled::default(),
            witnessed: Default::default(),
        }
    }

    /// How often an event occurred.
    pub fn count(&self, witness: Witness) -> usize {
        self.witnessed[witness as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn witness(&self, witness: Witness) {
        self.witnessed[witness as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn account(&self, host: usize) -> usize {
        self.bounds.accounts[host]
    }

    pub(crate) fn has_cooldown(&self) -> bool {
        self.bounds.accounts[..self.bounds.hosts].contains(&1)
    }

    /// The host's estimate of the store's time.
    pub(crate) fn estimate(&self, state: &State, host: usize) -> Ms {
        state.now + self.bounds.skew[host]
    }

    /// Whether the host has no more steps of its own.
    pub(crate) fn is_done(&self, host: &Host) -> bool {
        host.step == Step::Idle && host.attempt >= self.bounds.attempts
    }
}

/// The next tick, which is also the timeout of a call that starts now.
pub(crate) fn next_tick(now: Ms) -> Ms {
    now / TICK * TICK + TICK
}
