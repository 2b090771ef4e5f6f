//! Stories: managers that ask a simulated provider over real connections, and the provider's own ledger at the end.
#![expect(clippy::unwrap_used, reason = "in a test, to panic is to report")]

mod failures;
mod frozen;
mod herds;
mod holds;
mod logins;
mod messages;
mod renewals;
mod routers;
mod routing;
mod secrets;
mod traffic;
mod waits;
mod world;
