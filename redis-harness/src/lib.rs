//! Starts real Redis servers for tests. Each has free ports and its own folder, and is stopped by its own handle. A server that
//! already runs is never touched. `REDIS_SERVER` names the program to start. The default is `redis-server`, or `valkey-server`
//! where only that is installed.
//!
//! ```
//! let server = redis_harness::Server::start();
//! let reply: String = server.command(&["PING"]);
//! assert_eq!(reply, "PONG");
//! ```

mod cluster;
mod monitor;
mod proxy;
mod sentinel;
mod server;
mod test_ca;

pub use cluster::Cluster;
pub use monitor::Monitor;
pub use proxy::Proxy;
pub use redis;
pub use sentinel::Sentinels;
pub use server::{Server, ServerBuilder};
pub use test_ca::{Identity, TestCa};

use std::thread;
use std::time::Duration;

/// Waits until `done` returns true.
///
/// # Panics
///
/// If this takes longer than half a minute.
#[track_caller]
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if done() {
            return;
        }
        // Poll, because servers send no notice when their state changes.
        thread::park_timeout(Duration::from_millis(10));
    }
    panic!("waited too long: {what}");
}
