//! Stories of a store that fails: real servers of Redis, hosts that share it, and what their readers see.
#![expect(clippy::unwrap_used, reason = "in a test, to panic is to report")]

mod failovers;
mod kills;
mod loading;
mod lost;
mod refusals;
mod secrets;
mod told;
mod wires;
mod world;
