//! A model of the protocol that hosts follow to share one record: lease, fence, hold, cooldown, budget and outage.
//!
//! The model calls the rules of [`quota_core::record`] on real records. It explores every order of steps and faults within its
//! bounds, and checks each step. `docs/protocol.md` explains the protocol and the properties.

mod checks;
mod model;
mod pool;
mod progress;
mod rules;
mod state;
mod steps;
pub mod suite;
mod system;

use std::time::Duration;

use quota_core::Clock;
use stateright::{Checker as _, HasDiscoveries, Model as _, Path};

pub use self::model::Action;
pub use self::progress::Unsettled;
pub use self::rules::Broken;
pub use self::state::{State, Violation};
pub use self::suite::Case;
pub use self::system::{Bounds, Faults, Protocol, Witness};

/// The result of a check.
#[derive(Debug)]
pub struct Report {
    /// The number of different states.
    pub states: usize,
    /// The number of steps between states.
    pub steps: usize,
    /// The number of steps of the longest path.
    pub depth: usize,
    /// The number of different records.
    pub records: usize,
    /// How long it took.
    pub elapsed: Duration,
    /// How often each interesting event occurred.
    pub witnessed: Vec<(Witness, usize)>,
    /// The broken properties.
    pub counterexamples: Vec<Counterexample>,
}

/// A shortest path to a state that breaks a property.
#[derive(Debug)]
pub struct Counterexample {
    /// The property.
    pub property: &'static str,
    /// Why the hosts do not agree in the end, if they do not.
    pub unsettled: Option<Unsettled>,
    /// The steps from the initial state.
    pub actions: Vec<Action>,
}

/// Explores all states within `bounds`, or until one breaks a property.
#[must_use]
pub fn check(bounds: Bounds, broken: Option<Broken>) -> Report {
    let clock = Clock::system();
    let began_at = clock.instant();
    let protocol = Protocol::new(bounds, broken);
    let checker = protocol.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let protocol = checker.model();
    let counterexample = |(property, path): (_, Path<State, Action>)| {
        let unsettled = protocol.unsettled(path.last_state());
        let property = unsettled.map_or(property, Unsettled::property);
        Counterexample { property, unsettled, actions: path.into_actions() }
    };
    let counterexamples = checker.discoveries().into_iter().map(counterexample).collect();
    Report {
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        records: protocol.rules.record_count(),
        elapsed: clock.instant().saturating_since(began_at),
        witnessed: Witness::ALL.map(|witness| (witness, protocol.count(witness))).to_vec(),
        counterexamples,
    }
}
