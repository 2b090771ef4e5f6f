//! Counts what the consumers saw. All of them count at once, so it is made of atomics.
//! What the provider saw is in the simulator's ledger, not here.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use quota::{Freshness, StaleReason};

/// What all consumers together saw.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    reads: AtomicU64,
    naive_calls: AtomicU64,
    stale: [AtomicU64; REASONS.len()],
    no_number: AtomicU64,
}

/// The reasons that a demo can bring about; others are counted with the first.
const REASONS: [StaleReason; 6] = [
    StaleReason::Aged,
    StaleReason::NeverRead,
    StaleReason::RolledOver,
    StaleReason::OnHold,
    StaleReason::Failing,
    StaleReason::NotRefreshed,
];

impl Tally {
    /// Somebody read a number in that state.
    pub(crate) fn read(&self, state: Freshness) {
        add_one(&self.reads);
        if let Freshness::Stale { reason: why, .. } = state {
            let at = REASONS.iter().position(|reason| *reason == why).unwrap_or_default();
            add_one(&self.stale[at]);
        }
    }

    /// Somebody asked for a number, and there was none.
    pub(crate) fn read_nothing(&self) {
        add_one(&self.reads);
        add_one(&self.no_number);
    }

    /// Somebody would have called the provider, had it been alone.
    pub(crate) fn would_have_called(&self) {
        add_one(&self.naive_calls);
    }

    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    pub(crate) fn naive_calls(&self) -> u64 {
        self.naive_calls.load(Ordering::Relaxed)
    }

    /// The reads that were not fresh, by reason; those that there were none of are left out.
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
        let tally = Tally::default();

        tally.read(Freshness::Fresh);

        assert_eq!((tally.reads(), tally.stale().len()), (1, 0));
    }

    #[test]
    fn a_read_without_a_number_is_counted_as_what_it_is() {
        let tally = Tally::default();

        tally.read_nothing();

        assert_eq!((tally.reads(), tally.stale()), (1, [("no_number", 1)].into()));
    }
}
