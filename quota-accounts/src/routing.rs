//! Chooses an account for a request, with pure functions of readings, blocks and limits.
//! [`FallbackAccountManager`](crate::FallbackAccountManager) does the I/O, reads the clock and owns the state.

mod balance;
mod block;
mod candidate;
mod choose;
mod decision;
mod decision_json;
mod evaluate;
mod limits;
mod policy;
mod request;
mod verdict;

pub use block::Block;
pub use candidate::{Candidate, Role};
pub(crate) use choose::Selector;
pub use choose::choose;
pub(crate) use decision::whole_seconds;
pub use decision::{Choice, Decision, Disposition, Evaluated, WindowUsage};
pub(crate) use evaluate::{evaluate, evaluate_with_retry, headroom};
pub use limits::{AccountLimits, LimitCheck, Limits};
pub use policy::{RoutingMode, RoutingPolicy, UnknownUsage};
pub use request::{Request, Session};
pub(crate) use verdict::Verdict;
pub use verdict::{Eligibility, Reason};

#[cfg(test)]
mod tests;
