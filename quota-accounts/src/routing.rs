//! Which account a request goes to: pure functions over what is known.
//! Nothing here does I/O, reads a clock, or keeps anything; see `FallbackAccountManager` for that.

mod balance;
mod block;
mod candidate;
mod choose;
mod decision;
mod evaluate;
mod limits;
mod policy;
mod request;
mod verdict;

pub use block::Block;
pub use candidate::{Candidate, Role};
pub(crate) use choose::Selector;
pub use choose::choose;
pub use decision::{Choice, Decision, Evaluated, Reading};
pub(crate) use evaluate::{evaluate, evaluate_with_retry, headroom};
pub use limits::{AccountLimits, LimitCheck, Limits};
pub use policy::{RoutingMode, RoutingPolicy, UnknownUsage};
pub use request::{Request, Session};
pub use verdict::{Eligibility, Reason, Verdict};

#[cfg(test)]
mod tests;
