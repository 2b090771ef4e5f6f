//! Tests of a failing store: real Redis servers, hosts that share them, and the results of their readers.
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
