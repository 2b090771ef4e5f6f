//! Real Redis servers for tests: each on free ports, in a folder of its own, stopped by its own handle.
//! What is tested with them is not known here, and no server that runs already is ever touched. `REDIS_SERVER` names the program
//! to start, if it is to be another than the first of `redis-server` and `valkey-server` that is there.
//!
//! ```
//! let server = redis_harness::Server::start();
//! let answer: String = server.ask(&["PING"]);
//! assert_eq!(answer, "PONG");
//! ```

mod authority;
mod cluster;
mod monitor;
mod proxy;
mod sentinel;
mod server;

pub use authority::{Authority, Identity};
pub use cluster::Cluster;
pub use monitor::Monitor;
pub use proxy::Proxy;
pub use redis;
pub use sentinel::Sentinels;
pub use server::{Server, ServerBuilder};

use std::thread;
use std::time::Duration;

/// Waits until `done` says so.
///
/// # Panics
///
/// If that takes longer than half a minute.
#[track_caller]
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if done() {
            return;
        }
        // Servers tell nobody when they have changed their minds: they have to be asked again.
        thread::park_timeout(Duration::from_millis(10));
    }
    panic!("waited too long: {what}");
}
