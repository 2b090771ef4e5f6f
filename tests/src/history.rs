//! Whether the records that a store has accepted, in its order, keep the promises about leases and readings.
//! Where they were heard is not known here.

use std::collections::HashMap;

use quota::{Record, RequestId};

/// One accepted write.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Written {
    /// Which record.
    pub key: String,
    /// What it is from now on.
    pub record: Record,
}

impl Written {
    /// A record that was written under a key.
    #[must_use]
    pub fn new(key: impl Into<String>, record: Record) -> Self {
        Self { key: key.into(), record }
    }

    /// What a call of the script that swaps has written: `SET`, a key, sixteen digits and a space before a record. `None` for
    /// every other call, and for documents that are no accounts' records.
    #[must_use]
    pub fn by_call(words: &[Vec<u8>]) -> Option<Self> {
        let [name, key, value, ..] = words else { return None };
        let record = Record::decode(value.get(17..)?).ok()?;
        let key = str::from_utf8(key).ok()?;
        (name == b"SET" && key.contains('/')).then(|| Self::new(key, record))
    }
}

/// A promise that was not kept, by which write (counted from 0).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Broken {
    /// A record with an older fence was accepted after a newer one.
    FenceFell(usize),
    /// Two attempts were given a lease of the same fence.
    FenceShared(usize),
    /// A lease was given while another one was live.
    LeasesOverlap(usize),
    /// A newer answer of the provider was replaced by an older one.
    ReadingsFell(usize),
}

/// Checks a history in the order in which the store has accepted it.
///
/// # Errors
///
/// The first promise that was not kept.
pub fn check(history: &[Written]) -> Result<(), Broken> {
    let mut last = HashMap::<&str, &Record>::new();
    let mut holders = HashMap::<(&str, u64), RequestId>::new();
    for (index, Written { key, record }) in history.iter().enumerate() {
        if let Some(lease) = record.lease()
            && *holders.entry((key, lease.fence)).or_insert(lease.attempt) != lease.attempt
        {
            return Err(Broken::FenceShared(index));
        }
        let Some(before) = last.insert(key, record) else { continue };
        if record.fence() < before.fence() {
            return Err(Broken::FenceFell(index));
        }
        if record.asked_at() < before.asked_at() {
            return Err(Broken::ReadingsFell(index));
        }
        if let (Some(old), Some(new)) = (before.lease(), record.lease())
            && old.attempt != new.attempt
            && old.is_live(new.granted_at)
        {
            return Err(Broken::LeasesOverlap(index));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use quota::{
        Lease, LeaseDecision, LeaseRequest, MaxStaleness, Percent, Policy, UsageReport, WindowId,
        WindowReading,
    };

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn begin(record: &mut Record, second: i64) -> Lease {
        let policy = Policy::default().max_age(Duration::from_secs(2));
        let ask = LeaseRequest::new(RequestId::random(), MaxStaleness::Age(policy.max_age));
        let LeaseDecision::Granted(lease) = record.begin(at(second), &ask, &policy) else {
            panic!("it is free")
        };
        lease
    }

    fn commit(record: &mut Record, second: i64, lease: &Lease) {
        let reading = WindowReading::new(WindowId::five_hour(), Percent::from_percent(1.0).unwrap());
        let _ = record.commit(at(second), lease, &UsageReport::polled([reading]));
    }

    /// A record with a lease, the same after its answer, and the same with the next lease.
    fn good() -> [Record; 3] {
        let mut record = Record::default();
        let lease = begin(&mut record, 0);
        let leased = record.clone();
        commit(&mut record, 1, &lease);
        let answered = record.clone();
        drop(begin(&mut record, 10));
        [leased, answered, record]
    }

    fn checked<'a>(records: impl IntoIterator<Item = &'a Record>) -> Result<(), Broken> {
        let written: Vec<_> =
            records.into_iter().map(|record| Written::new("quota:1:{a/b}", record.clone())).collect();
        check(&written)
    }

    #[test]
    fn a_lease_its_answer_and_the_next_lease_are_good() {
        assert_eq!(checked(&good()), Ok(()));
    }

    #[test]
    fn a_fence_that_falls_is_found() {
        let [leased, answered, next] = good();

        assert_eq!(checked([&leased, &answered, &next, &answered]), Err(Broken::FenceFell(3)));
    }

    #[test]
    fn two_attempts_with_one_fence_are_found() {
        let (mut one, mut other) = (Record::default(), Record::default());
        drop((begin(&mut one, 0), begin(&mut other, 0)));

        assert_eq!(checked([&one, &other]), Err(Broken::FenceShared(1)));
    }

    #[test]
    fn a_lease_that_is_given_while_another_is_live_is_found() {
        let (mut one, mut other) = (Record::default(), Record::default());
        drop((begin(&mut one, 0), begin(&mut other, 5)));

        assert_eq!(checked([&one, &other]), Err(Broken::LeasesOverlap(1)));
    }

    #[test]
    fn a_lease_that_has_run_out_may_be_followed_by_another() {
        let (mut one, mut other) = (Record::default(), Record::default());
        drop((begin(&mut one, 0), begin(&mut other, 60)));

        assert_eq!(checked([&one, &other]), Ok(()));
    }

    #[test]
    fn an_answer_that_is_lost_is_found() {
        let [leased, answered, _] = good();

        assert_eq!(checked([&leased, &answered, &leased]), Err(Broken::ReadingsFell(2)));
    }

    #[test]
    fn what_a_script_sets_is_a_write_and_nothing_else_is() {
        let [leased, ..] = good();
        let value = [b"0123456789abcdef ", &leased.encode()[..]].concat();
        let set = |name: &[u8]| vec![name.to_vec(), b"quota:1:{a/b}".to_vec(), value.clone()];

        assert_eq!(Written::by_call(&set(b"SET")).map(|written| written.record), Some(leased));
        assert!(Written::by_call(&set(b"GET")).is_none());
        assert!(Written::by_call(&[b"TIME".to_vec()]).is_none());
    }
}
