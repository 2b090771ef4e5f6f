//! Checks the records that a store has accepted, in order, against the invariants of leases and readings.

use std::collections::HashMap;

use quota::model::RequestId;
use quota::record::Record;

/// One accepted write.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Written {
    /// The key of the record.
    pub key: String,
    /// Its new value.
    pub record: Record,
}

impl Written {
    /// Creates a write of a record under a key.
    #[must_use]
    pub fn new(key: impl Into<String>, record: Record) -> Self {
        Self { key: key.into(), record }
    }

    /// Decodes a write of the swap script: `SET`, a key, and sixteen digits and a space before a record. Returns `None` for every
    /// other command, and for documents that are not records.
    #[must_use]
    pub fn by_call(words: &[Vec<u8>]) -> Option<Self> {
        let [name, key, value, ..] = words else { return None };
        let record = Record::decode(value.get(17..)?).ok()?;
        let key = str::from_utf8(key).ok()?;
        (name == b"SET" && key.contains('/')).then(|| Self::new(key, record))
    }
}

/// A violated invariant, with the index of the write.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// A record with an older fence was accepted after one with a newer fence.
    FenceFell(usize),
    /// Two attempts got leases with the same fence.
    FenceShared(usize),
    /// A lease was granted while another one was live.
    LeasesOverlap(usize),
    /// An older response of the provider replaced a newer response.
    ReadingsFell(usize),
}

/// Checks a history in the order of the store's writes.
///
/// # Errors
///
/// The first violated invariant.
pub fn check(history: &[Written]) -> Result<(), Violation> {
    let mut last = HashMap::<&str, &Record>::new();
    let mut holders = HashMap::<(&str, u64), RequestId>::new();
    for (index, Written { key, record }) in history.iter().enumerate() {
        if let Some(lease) = record.lease()
            && *holders.entry((key, lease.fence)).or_insert(lease.attempt) != lease.attempt
        {
            return Err(Violation::FenceShared(index));
        }
        let Some(before) = last.insert(key, record) else { continue };
        if record.fence() < before.fence() {
            return Err(Violation::FenceFell(index));
        }
        if record.complete_at() < before.complete_at() {
            return Err(Violation::ReadingsFell(index));
        }
        if let (Some(old), Some(new)) = (before.lease(), record.lease())
            && old.attempt != new.attempt
            && old.is_live(new.granted_at)
        {
            return Err(Violation::LeasesOverlap(index));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use quota::record::{Lease, LeaseDecision, LeaseRequest, MaxStaleness};
    use quota::{Percent, Policy, UsageReport, WindowId, WindowReading};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn begin(record: &mut Record, second: i64) -> Lease {
        let policy = Policy::default().max_age(Duration::from_secs(2));
        let request = LeaseRequest::new(RequestId::random(), MaxStaleness::Age(policy.max_age));
        let LeaseDecision::Granted(lease) = record.begin(at(second), &request, &policy) else {
            panic!("the lease is free")
        };
        lease
    }

    fn commit(record: &mut Record, second: i64, lease: &Lease) {
        let reading = WindowReading::new(WindowId::five_hour(), Percent::from_percent(1.0).unwrap());
        let _ = record.commit(at(second), lease, &UsageReport::polled([reading]));
    }

    /// A record with a lease, the same record after the response, and the record with the next lease.
    fn valid_history() -> [Record; 3] {
        let mut record = Record::default();
        let lease = begin(&mut record, 0);
        let leased = record.clone();
        commit(&mut record, 1, &lease);
        let answered = record.clone();
        drop(begin(&mut record, 10));
        [leased, answered, record]
    }

    fn checked<'a>(records: impl IntoIterator<Item = &'a Record>) -> Result<(), Violation> {
        let written: Vec<_> =
            records.into_iter().map(|record| Written::new("quota:1:{a/b}", record.clone())).collect();
        check(&written)
    }

    #[test]
    fn a_lease_its_response_and_the_next_lease_are_valid() {
        assert_eq!(checked(&valid_history()), Ok(()));
    }

    #[test]
    fn a_falling_fence_is_detected() {
        let [leased, answered, next] = valid_history();

        assert_eq!(checked([&leased, &answered, &next, &answered]), Err(Violation::FenceFell(3)));
    }

    #[test]
    fn two_attempts_with_one_fence_are_detected() {
        let (mut one, mut other) = (Record::default(), Record::default());
        drop((begin(&mut one, 0), begin(&mut other, 0)));

        assert_eq!(checked([&one, &other]), Err(Violation::FenceShared(1)));
    }

    #[test]
    fn a_lease_during_a_live_one_is_detected() {
        let (mut one, mut other) = (Record::default(), Record::default());
        drop((begin(&mut one, 0), begin(&mut other, 5)));

        assert_eq!(checked([&one, &other]), Err(Violation::LeasesOverlap(1)));
    }

    #[test]
    fn an_expired_lease_may_be_followed_by_another() {
        let (mut one, mut other) = (Record::default(), Record::default());
        drop((begin(&mut one, 0), begin(&mut other, 60)));

        assert_eq!(checked([&one, &other]), Ok(()));
    }

    #[test]
    fn a_lost_response_is_detected() {
        let [leased, answered, _] = valid_history();

        assert_eq!(checked([&leased, &answered, &leased]), Err(Violation::ReadingsFell(2)));
    }

    #[test]
    fn only_the_set_of_a_script_is_a_write() {
        let [leased, ..] = valid_history();
        let value = [b"0123456789abcdef ", &leased.encode()[..]].concat();
        let set = |name: &[u8]| vec![name.to_vec(), b"quota:1:{a/b}".to_vec(), value.clone()];

        assert_eq!(Written::by_call(&set(b"SET")).map(|written| written.record), Some(leased));
        assert!(Written::by_call(&set(b"GET")).is_none());
        assert!(Written::by_call(&[b"TIME".to_vec()]).is_none());
    }
}
