//! Tests of managers with a simulated provider over real connections. The provider's ledger shows the calls.
#![expect(clippy::unwrap_used, reason = "in a test, to panic is to report")]

mod failures;
mod fixture;
mod herds;
mod holds;
mod logins;
mod messages;
mod observers;
mod paused_clock;
mod providers;
mod renewals;
mod routers;
mod routing;
mod secrets;
mod traffic;
mod waits;
