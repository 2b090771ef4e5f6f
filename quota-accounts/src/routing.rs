//! Which account a request goes to: pure functions over what is known.
//! Nothing here does I/O, reads a clock, or keeps anything; see `FallbackAccountManager` for that.

mod balance;
mod block;
mod candidate;
mod choose;
mod decision;
mod judge;
mod limits;
mod policy;
mod request;
mod verdict;

pub use block::Block;
pub use candidate::{Candidate, Role};
pub(crate) use choose::Scale;
pub use choose::choose;
pub use decision::{Choice, Decision, Reading, Weighed};
pub(crate) use judge::{judge, judge_when, room};
pub use limits::{AccountLimits, LimitCheck, Limits};
pub use policy::{Mode, RoutingPolicy, WhenUnknown};
pub use request::{Request, Session};
pub use verdict::{Rule, Standing, Verdict};

#[cfg(test)]
mod tests;
