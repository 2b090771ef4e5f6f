//! Tests of the store against real servers, each started by the test that needs it.
//! Unit tests of pure code are beside the code.

mod cluster;
mod conformance;
mod env;
mod faults;
mod notices;
mod rights;
mod sentinel;
mod slow;
#[cfg(feature = "tls")]
mod tls;
