//! The store against real servers, each started by the test that needs it.
//! What is pure is tested beside the code.

mod cluster;
mod conformance;
mod faults;
mod notices;
mod rights;
mod sentinel;
mod slow;
#[cfg(feature = "tls")]
mod tls;
mod world;
