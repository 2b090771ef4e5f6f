//! What tests of quota, and of anything built on it, need: the conformance suite for stores, a store that fails on
//! purpose, and providers that answer as they are told. Feature `testing`.

pub mod conformance;
mod fake;
mod flaky;
mod mock;

pub use fake::FakeProvider;
pub use flaky::FlakyStore;
pub use mock::MockUsageFetcher;
