//! Tests of the gateway over real sockets, against a simulated provider.

// Clippy allows unwrap in test helpers only below cfg(test).
#![cfg(test)]

mod access;
mod accounts;
mod adopted;
mod api;
mod clock;
mod dashboard;
mod disconnects;
mod events;
mod freshness;
mod history;
mod hostile;
mod metrics;
mod routing;
mod shutdown;
mod support;
mod tls;
mod usage;
