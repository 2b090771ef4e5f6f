//! Stories: managers that ask a simulated provider over real connections, and the provider's own ledger at the end.
#![expect(clippy::unwrap_used, reason = "in a test, to panic is to report")]

mod failures;
mod herds;
mod holds;
mod logins;
mod secrets;
mod traffic;
mod world;
