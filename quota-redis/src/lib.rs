//! stub

mod address;
mod board;
mod cluster;
mod dial;
mod failure;
mod keeper;
mod key;
mod location;
mod node;
mod options;
mod script;
mod servers;
mod store;
mod task;
#[cfg(feature = "tls")]
mod tls;
mod topic;
mod wire;

pub use options::{RedisOpenError, RedisOptions};
pub use store::RedisStore;
