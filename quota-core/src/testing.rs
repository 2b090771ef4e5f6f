//! For tests of quota and of code built on it: the conformance suite for stores, stores that fail at random or by a script,
//! and scripted providers. Feature `testing`.

pub mod conformance;
mod fake;
mod flaky;
mod mock;
mod scripted;

pub use fake::FakeProvider;
pub use flaky::FlakyStore;
pub use mock::MockUsageFetcher;
pub use scripted::{ScriptedStore, Step};
