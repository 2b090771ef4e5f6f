//! Counts the reads of all consumers in atomics, because the consumers run concurrently.
//! The simulator's ledger counts the calls.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use quota::Freshness;
use quota::manager::StaleReason;

/// The counters of all consumers.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    reads: AtomicU64,
    naive_calls: AtomicU64,
    stale: [AtomicU64; REASONS.len()],
    no_number: AtomicU64,
}

/// The reasons that occur in a demo. Any other reason is counted as the first.
const REASONS: [StaleReason; 6] = [
    StaleReason::Aged,
    StaleReason::NeverRead,
    StaleReason::RolledOver,
    StaleReason::OnHold,
    StaleReason::Failing,
    StaleReason::NotRefreshed,
];

impl Counters {
    /// Counts a read with this freshness.
    pub(crate) fn read(&self, freshness: Freshness) {
        add_one(&self.reads);
        if let Freshness::Stale { reason: why, .. } = freshness {
            let at = REASONS.iter().position(|reason| *reason == why).unwrap_or_default();
            add_one(&self.stale[at]);
        }
    }

    /// Counts a read that returned no data.
    pub(crate) fn read_nothing(&self) {
        add_one(&self.reads);
        add_one(&self.no_number);
    }

    /// Counts a call that a consumer without quota would make.
    pub(crate) fn would_have_called(&self) {
        add_one(&self.naive_calls);
    }

    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    pub(crate) fn naive_calls(&self) -> u64 {
        self.naive_calls.load(Ordering::Relaxed)
    }

    /// The stale reads by reason, without reasons that did not occur.
    pub(crate) fn stale(&self) -> BTreeMap<&'static str, u64> {
        let by_reason = REASONS.iter().zip(&self.stale).map(|(reason, reads)| (reason.as_str(), reads));
        let all = by_reason.chain([("no_number", &self.no_number)]);
        all.map(|(word, reads)| (word, reads.load(Ordering::Relaxed)))
            .filter(|(_, reads)| *reads > 0)
            .collect()
    }
}

fn add_one(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_read_is_a_read_and_not_stale() {
        let counters = Counters::default();

        counters.read(Freshness::Fresh);

        assert_eq!((counters.reads(), counters.stale().len()), (1, 0));
    }

    #[test]
    fn a_read_without_data_is_counted_separately() {
        let counters = Counters::default();

        counters.read_nothing();

        assert_eq!((counters.reads(), counters.stale()), (1, [("no_number", 1)].into()));
    }
}
