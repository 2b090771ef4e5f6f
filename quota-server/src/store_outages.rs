//! The outages of a store that continues in a local file. A manager does not notice them, because the file works.

use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use quota::outage::OutageStore;

/// The outages of the gateway's store. It is cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct StoreOutages(Arc<OnceLock<Arc<OutageStore>>>);

impl StoreOutages {
    /// Reads the outages of this store from now on. Only the first one counts.
    pub(crate) fn read(&self, store: Arc<OutageStore>) {
        let _ = self.0.set(store);
    }

    /// Since when the gateway has run without the store.
    pub(crate) fn since(&self) -> Option<Timestamp> {
        self.0.get()?.outage().map(|outage| outage.since)
    }

    /// The number of outages since the start.
    pub(crate) fn count(&self) -> u64 {
        self.0.get().map_or(0, |store| store.outages())
    }
}
