//! Tools for tests of quota and of code built on it (feature `testing`): the conformance suite for stores, stores that fail
//! at random or by a script, and scripted providers.

pub mod conformance;
mod fake;
mod flaky;
mod mock;
mod scripted;

pub use fake::FakeProvider;
pub use flaky::FlakyStore;
pub use mock::MockUsageFetcher;
pub use scripted::{ScriptedStore, Step};
