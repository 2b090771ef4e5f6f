//! The stores of this crate pass the conformance suite, also behind a connection that loses requests and responses.

use quota_core::MemoryStore;
use quota_core::testing::FlakyStore;

quota_core::store_conformance!(memory, || async { MemoryStore::new() });

quota_core::store_conformance!(flaky_memory_seed_1, || async { FlakyStore::new(MemoryStore::new(), 1, 0.2) });
quota_core::store_conformance!(flaky_memory_seed_2, || async { FlakyStore::new(MemoryStore::new(), 2, 0.5) });
