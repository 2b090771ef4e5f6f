//! Tools for tests of quota and of code built on it (feature `testing`): the conformance suite for stores, stores that fail
//! at random, by a script or by code of a test, and scripted providers.

pub mod conformance;
mod fake;
mod flaky;
mod hooked;
mod mock;
mod scripted;

pub use fake::FakeProvider;
pub use flaky::FlakyStore;
pub use hooked::{HookedStore, StoreCall, StoreHooks};
pub use mock::MockUsageFetcher;
pub use scripted::{ScriptedStore, Step};

/// Derives all random numbers of this thread from `seed`: ids, versions and jitter. `None` restores real random
/// numbers.
///
/// For simulations that must repeat exactly. The ids of two simulations with one seed are equal, so never use it with a real store.
pub fn seed_randomness(seed: Option<u64>) {
    crate::random::seeded::set(seed);
}
