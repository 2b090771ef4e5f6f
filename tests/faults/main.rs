//! Tests of a failing store, with real Redis servers and the hosts that share them. They check the results that readers get.
#![expect(clippy::unwrap_used, reason = "in a test, to panic is to report")]

mod failovers;
mod fixture;
mod kills;
mod loading;
mod logging;
mod lost;
mod network;
mod refusals;
mod secrets;
