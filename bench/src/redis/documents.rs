//! Records like those that processes write, created without a provider.

use std::time::Duration;

use bytes::Bytes;
use quota_core::record::Record;
use quota_core::store::{CasOutcome, StoreKey, StoreRead, Version};
use quota_core::{Percent, QuotaStore, Snapshot, UsageReport, WindowId, WindowReading};
use quota_redis::RedisStore;

/// The TTL of documents.
pub(super) const TTL: Duration = Duration::from_secs(3600);

/// The record of an account with this usage of two windows, in hundredths of a percent.
pub(super) fn record(reading: &StoreRead, used: u64) -> Bytes {
    let used = Percent::from_percent(used as f64 / 100.0).expect("the percentage is finite");
    let in_use = |id, hours: u64| {
        let length = Duration::from_secs(hours * 3600);
        WindowReading::new(id, used).length(length).resets_at(reading.now + length / 2)
    };
    let usage = UsageReport::polled([in_use(WindowId::five_hour(), 5), in_use(WindowId::seven_day(), 168)]);
    let mut record = Record::default();
    let _ = record.observe(reading.now, &Snapshot::of(&usage, reading.now), None, None);
    record.encode()
}

/// Overwrites the document.
pub(super) async fn write(store: &RedisStore, key: &StoreKey, seen: &mut Option<Version>, body: Bytes) {
    loop {
        match store.compare_and_swap(key, *seen, body.clone(), TTL).await.expect("the server responds") {
            CasOutcome::Applied(version) => break *seen = Some(version),
            CasOutcome::Conflict(found) => *seen = found.version(),
            _ => unreachable!("a swap is either applied or not"),
        }
    }
}
