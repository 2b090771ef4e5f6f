//! Tests of the store against real servers. Each test starts the server that it needs. Unit tests of pure code are beside the
//! code.

mod cluster;
mod conformance;
mod env;
mod faults;
mod notices;
mod permissions;
mod sentinel;
mod slow;
#[cfg(feature = "tls")]
mod tls;
