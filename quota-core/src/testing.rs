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

/// Makes all random numbers of this thread follow from `seed`: ids, versions and jitter. `None` ends it.
///
/// For simulations that must repeat exactly. The ids of two simulations with one seed are equal, so never use it with a real store.
pub fn seed_randomness(seed: Option<u64>) {
    crate::random::seeded::set(seed);
}
