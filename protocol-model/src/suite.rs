//! The bounds for the tests, and the larger bounds for the program.

use crate::system::{Bounds, Faults};

/// Bounds with a name.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The name of the case.
    pub name: &'static str,
    /// Its bounds.
    pub bounds: Bounds,
}

/// One host's estimate of the store's time is ahead by almost two seconds, the documented bound.
const SKEW: [u32; 3] = [0, 1990, 0];

const NO_FAULT: Bounds = Bounds {
    hosts: 3,
    accounts: [0; 3],
    skew: SKEW,
    attempts: 1,
    budget: 2,
    ticks: 3,
    faults: 0,
    kinds: Faults::NONE,
};

/// Cases that take less than a minute in total in a test build.
#[must_use]
pub fn small() -> Vec<Case> {
    let one = Bounds { faults: 1, ticks: 2, ..NO_FAULT };
    vec![
        Case { name: "no fault", bounds: Bounds { attempts: 2, ticks: 2, ..NO_FAULT } },
        Case {
            name: "two accounts, one cooldown",
            bounds: Bounds {
                accounts: [0, 0, 1],
                ticks: 1,
                kinds: Faults { lost_answers: true, ..Faults::NONE },
                ..one
            },
        },
        Case {
            name: "lost answers and late writes",
            bounds: Bounds {
                faults: 2,
                ticks: 1,
                kinds: Faults { lost_answers: true, late_writes: true, ..Faults::NONE },
                ..one
            },
        },
        Case {
            name: "crashes and suspensions",
            bounds: Bounds { kinds: Faults { crashes: true, suspensions: true, ..Faults::NONE }, ..one },
        },
        Case {
            name: "a lost record",
            bounds: Bounds { ticks: 1, kinds: Faults { losses: true, ..Faults::NONE }, ..one },
        },
        Case {
            name: "an outage",
            bounds: Bounds { hosts: 2, ticks: 3, kinds: Faults { outages: true, ..Faults::NONE }, ..one },
        },
        Case { name: "each fault, two hosts", bounds: Bounds { hosts: 2, kinds: Faults::ALL, ..one } },
    ]
}

/// The small cases and larger ones. The last two are the largest.
#[must_use]
pub fn large() -> Vec<Case> {
    let one = Bounds { faults: 1, ticks: 2, ..NO_FAULT };
    let mut cases = small();
    cases.extend([
        Case {
            name: "two attempts, three hosts",
            bounds: Bounds { attempts: 2, budget: 3, ticks: 4, ..NO_FAULT },
        },
        Case {
            name: "a lost record, longer",
            bounds: Bounds { kinds: Faults { losses: true, ..Faults::NONE }, ..one },
        },
        Case {
            name: "an outage, three hosts",
            bounds: Bounds { kinds: Faults { outages: true, ..Faults::NONE }, ..one },
        },
        Case {
            name: "two attempts, two hosts",
            bounds: Bounds { hosts: 2, attempts: 2, kinds: Faults::ALL, ..one },
        },
        Case { name: "each fault, three hosts", bounds: Bounds { kinds: Faults::ALL, ..one } },
        Case {
            name: "two faults, two hosts",
            bounds: Bounds { hosts: 2, faults: 2, kinds: Faults::ALL, ..one },
        },
    ]);
    cases
}
