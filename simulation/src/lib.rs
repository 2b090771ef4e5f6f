//! Simulates whole fleets in one process, on one thread, with paused time. One seed determines everything.
//!
//! A [`Plan`] states the processes, their callers, the provider and the faults. [`Plan::from_seed`] draws one. [`run`] executes it
//! with real managers on a simulated store and a simulated provider. A checker looks at the provider's ledger, at what the store
//! delivered to each process, and at what each caller received. It shares no code with the rules of quota: it reads the stored JSON.
//!
//! Two runs of one plan give the same trace. A failing plan can be [shrunk](shrink): fewer processes, fewer faults, the same
//! violation.

mod check;
mod environment;
mod expectations;
mod facts;
mod fleet;
mod ledger;
mod machine;
mod names;
mod numbers;
mod older;
mod panics;
mod plan;
mod process;
mod provider;
pub mod reliability;
mod router;
mod shrink;
mod store;
mod trace;
mod world;

pub use self::fleet::run;
pub use self::plan::{
    Caller, CallerKind, Fault, FaultKind, MachinePlan, Network, Plan, ProcessPlan, ProviderFault,
};
pub use self::shrink::shrink;
pub use self::trace::{Reads, Report, Violation};
