//! The document that describes an outage: its start, the next attempt to use the store, and the affected documents.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::RequestId;
use crate::model::extra_fields::ExtraFields;
use crate::store::{Acquire, DocumentBody, LeaseDoc, StoreError, StoreKey, format_of};
use crate::time;

/// The outage that the last store operation encountered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outage {
    /// When the outage began.
    pub since: Timestamp,
    /// When a process next tries the store; `None` if each operation tries it, because no level works.
    pub retry_at: Option<Timestamp>,
    /// Why the store cannot be used.
    pub reason: String,
    /// Where the documents are during the outage; `None` if no level works. Then no state is shared or stored.
    pub place: Option<String>,
    /// Whether only some documents cannot be used in the store, such as those of one shard. The others are in the store.
    pub is_partial: bool,
}

/// The state of an outage, which all processes of this machine and user share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct OutageDoc {
    format: u32,
    #[serde(
        rename = "since_ms",
        default,
        with = "jiff::fmt::serde::timestamp::millisecond::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) since: Option<Timestamp>,
    /// No process tries the store before this time.
    #[serde(
        rename = "retry_at_ms",
        default,
        with = "jiff::fmt::serde::timestamp::millisecond::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) retry_at: Option<Timestamp>,
    #[serde(default)]
    backoff_ms: u64,
    /// How far the store's clock is ahead of this machine's; `None` if the process that began the outage had not
    /// measured it. It never changes during an outage, so that all times in the file are from one clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) offset_ms: Option<i64>,
    /// The offset, if it was unknown and the first attempt has measured it; 0 if it is small. The merge adds it to holds and calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    correction_ms: Option<i64>,
    /// Why the store cannot be used.
    #[serde(default)]
    pub(super) reason: String,
    /// Whether the store rejects writes only, so that its documents can be copied.
    #[serde(default)]
    reads_work: bool,
    /// Whether only `failed_keys` are in the file. The other documents are in the store.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_partial: bool,
    /// The documents whose store operations failed, and for each whether the store rejects only its writes. If the
    /// outage is not partial, this contains only the first one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    failed_keys: BTreeMap<String, bool>,
    /// The lease of the process that tries the store.
    #[serde(default)]
    attempt: LeaseDoc,
    /// When an attempt last ran out of its process's time.
    #[serde(
        rename = "abandoned_at_ms",
        default,
        with = "jiff::fmt::serde::timestamp::millisecond::optional",
        skip_serializing_if = "Option::is_none"
    )]
    abandoned_at: Option<Timestamp>,
    #[serde(flatten)]
    unknown: ExtraFields,
}

const FORMAT: u32 = 1;

/// The time to the first attempt after a failure. It doubles with each failed attempt.
pub(super) const MIN_BACKOFF: Duration = Duration::from_secs(5);
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// The duration of the lease for one attempt. It is longer than an attempt, so that two processes never merge at the
/// same time unless one was suspended.
const ATTEMPT_LEASE: Duration = Duration::from_secs(15);

impl Default for OutageDoc {
    fn default() -> Self {
        Self {
            format: FORMAT,
            since: None,
            retry_at: None,
            backoff_ms: 0,
            offset_ms: None,
            correction_ms: None,
            reason: String::new(),
            reads_work: false,
            is_partial: false,
            failed_keys: BTreeMap::new(),
            attempt: LeaseDoc::default(),
            abandoned_at: None,
            unknown: ExtraFields::default(),
        }
    }
}

/// The documents that an attempt to end the outage could not use in the store.
#[derive(Debug, Clone)]
pub(super) enum Scope {
    /// Unknown, because the attempt failed for another reason.
    Unknown,
    /// All of them.
    All { reads_work: bool },
    /// Only these, and for each whether the store rejects only its writes.
    Only(BTreeMap<String, bool>),
}

/// A failed store operation.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) reason: String,
    /// The affected document, and whether the store rejected only its write.
    pub(super) key: Option<(StoreKey, bool)>,
    /// The offset of the store's clock, if this process has measured it.
    pub(super) offset_ms: Option<i64>,
    /// A random number from 0 to 1, so that the machines of a fleet try the store at different times.
    pub(super) jitter: f64,
}

impl OutageDoc {
    /// The outage as readers get it, with the location of this document.
    pub(super) fn describe(&self, place: String, now: Timestamp) -> Outage {
        Outage {
            since: self.since.unwrap_or(now),
            retry_at: Some(self.retry_at.unwrap_or(now)),
            reason: self.reason.clone(),
            place: Some(place),
            is_partial: self.is_partial,
        }
    }

    /// Whether this program may change the document. A newer program may have given its fields another meaning.
    pub(super) fn is_writable(&self) -> bool {
        self.format <= FORMAT
    }

    /// Whether a process should try the store now.
    ///
    /// A time in the distant future counts as due, because it was written before this machine's clock was set back.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.retry_at.is_none_or(|at| at <= now || time::elapsed(now, at) > MAX_BACKOFF * 2)
    }

    /// Whether a process with little time for the store should try it now. After an attempt that ran out of such a time, another one would
    /// too often do the same, and the processes would wait for the store one after the other.
    pub(super) fn is_due_for_brief(&self, now: Timestamp) -> bool {
        let is_recent = |at: Timestamp| now.duration_since(at).unsigned_abs() < MIN_BACKOFF;
        self.is_due(now) && !self.abandoned_at.is_some_and(is_recent)
    }

    /// Acquires the lease for the attempt. Returns whether this process must try the store.
    pub(super) fn claim(&mut self, holder: RequestId, now: Timestamp) -> bool {
        self.is_writable()
            && self.is_due(now)
            && self.attempt.acquire(holder, now, ATTEMPT_LEASE) == Acquire::Acquired
    }

    /// Whether this process still holds the lease for the attempt.
    pub(super) fn is_claimed_by(&self, holder: RequestId, now: Timestamp) -> bool {
        self.is_due(now) && self.attempt.clone().acquire(holder, now, ATTEMPT_LEASE) == Acquire::Acquired
    }

    /// Records a failure, and when to try the store again. If another process has already set that time, it is kept,
    /// because many processes fail at the same time. Returns whether this program may use the file.
    pub(super) fn failed(&mut self, now: Timestamp, failure: &Failure) -> bool {
        if !self.is_writable() {
            return false;
        }
        if let Some((key, reads_work)) = &failure.key
            && (self.is_partial || self.failed_keys.is_empty())
        {
            self.failed_keys.insert(key.as_str().to_owned(), *reads_work);
        }
        if !self.is_due(now) {
            return true;
        }
        let backoff = match self.since {
            Some(_) => (Duration::from_millis(self.backoff_ms) * 2).clamp(MIN_BACKOFF, MAX_BACKOFF),
            None => MIN_BACKOFF,
        };
        if self.since.is_none() {
            self.since = Some(now);
            // After an attempt on an empty file, the file's times do not include the offset that the attempt measured,
            // and the attempt has determined whether reads work.
            if self.correction_ms.is_none() {
                self.offset_ms = failure.offset_ms;
            }
            if let Some((_, reads_work)) = &failure.key {
                self.reads_work = *reads_work;
            }
        }
        self.backoff_ms = u64::try_from(backoff.as_millis()).unwrap_or(u64::MAX);
        self.retry_at = Some(time::saturating_add(now, backoff.mul_f64(0.75 + failure.jitter / 2.0)));
        self.reason.clone_from(&failure.reason);
        true
    }

    /// Records that the attempt of this holder has failed, and for which documents.
    pub(super) fn attempt_failed(
        &mut self,
        holder: RequestId,
        now: Timestamp,
        failure: &Failure,
        scope: &Scope,
    ) {
        // Otherwise another process has tried the store in the meantime.
        if self.is_writable() && self.is_claimed_by(holder, now) {
            match scope {
                Scope::Unknown => {}
                Scope::All { reads_work } => (self.is_partial, self.reads_work) = (false, *reads_work),
                Scope::Only(keys) => (self.is_partial, self.failed_keys) = (true, keys.clone()),
            }
        }
        self.attempt.release(holder);
        self.failed(now, failure);
    }

    /// Records that this holder makes no attempt. This proves nothing about the store.
    pub(super) fn attempt_abandoned(&mut self, holder: RequestId, now: Timestamp) {
        if self.is_writable() {
            self.attempt.release(holder);
            self.abandoned_at = Some(now);
        }
    }

    /// Whether this document is in the file during the outage, and not in the store.
    pub(super) fn covers(&self, key: &StoreKey) -> bool {
        !self.is_partial || self.failed_keys.contains_key(key.as_str())
    }

    /// Whether the store rejects only writes of this document, so that it can be copied.
    pub(super) fn reads_work(&self, key: &StoreKey) -> bool {
        if self.is_partial {
            self.failed_keys.get(key.as_str()).copied().unwrap_or(false)
        } else {
            self.reads_work
        }
    }

    pub(super) fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// The documents whose operations failed, and for each whether the store rejected only its write.
    pub(super) fn failed_keys(&self) -> impl Iterator<Item = (StoreKey, bool)> {
        self.failed_keys.iter().map(|(key, reads_work)| (StoreKey::stored(key), *reads_work))
    }

    /// Records the measured offset of the store's clock, if the file's times do not include it.
    ///
    /// Only the first measurement counts, because each merge must add the same offset. A small offset is stored as 0.
    pub(super) fn correct(&mut self, offset_ms: i64) {
        let is_large = Duration::from_millis(offset_ms.unsigned_abs()) > time::CLOCK_SLACK;
        if self.is_writable() && self.offset_ms.is_none() {
            self.correction_ms.get_or_insert(if is_large { offset_ms } else { 0 });
        }
    }

    /// The difference between the store's times and those in the file, in milliseconds.
    pub(super) fn correction_ms(&self) -> i64 {
        self.correction_ms.unwrap_or(0)
    }
}

impl DocumentBody for OutageDoc {
    /// A damaged document decodes to an empty one, which the next change stores. The attempt still merges the records
    /// in the file. This program never replaces a newer program's document, even if it cannot read its fields.
    fn decode(body: &[u8]) -> Result<Self, StoreError> {
        Ok(serde_json::from_slice(body).unwrap_or_else(|_| {
            let format = format_of(body).filter(|format| *format > FORMAT).unwrap_or(FORMAT);
            Self { format, ..Self::default() }
        }))
    }

    fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("it has only string keys").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    /// A failure whose jitter neither lengthens nor shortens the wait.
    fn failure() -> Failure {
        Failure { reason: "refused".to_owned(), key: None, offset_ms: None, jitter: 0.5 }
    }

    fn failed_at(second: i64) -> OutageDoc {
        let mut doc = OutageDoc::default();
        doc.failed(at(second), &failure());
        doc
    }

    fn seconds_to_retry(doc: &OutageDoc, now: i64) -> u64 {
        time::elapsed(at(now), doc.retry_at.unwrap()).as_secs()
    }

    #[test]
    fn the_wait_doubles_from_5_s_to_60_s() {
        let mut doc = failed_at(0);
        let mut waits = vec![seconds_to_retry(&doc, 0)];
        for _ in 0..5 {
            let now = doc.retry_at.unwrap();
            doc.failed(now, &failure());
            waits.push(time::elapsed(now, doc.retry_at.unwrap()).as_secs());
        }

        assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
        assert_eq!(doc.since, Some(at(0)));
    }

    #[test]
    fn failures_of_many_processes_at_once_count_as_one() {
        let mut doc = failed_at(0);

        doc.failed(at(1), &failure());

        assert_eq!(doc, failed_at(0));
    }

    #[test]
    fn one_process_tries_the_store_when_it_is_due() {
        let mut doc = failed_at(0);

        assert!(!doc.claim(RequestId::from(1), at(4)));
        assert!(doc.claim(RequestId::from(1), at(5)));
        assert!(!doc.claim(RequestId::from(2), at(6)));
        assert!(
            doc.is_claimed_by(RequestId::from(1), at(6)) && !doc.is_claimed_by(RequestId::from(2), at(6))
        );
    }

    #[test]
    fn the_attempt_of_a_killed_process_is_taken_over() {
        let mut doc = failed_at(0);
        assert!(doc.claim(RequestId::from(1), at(5)));

        assert!(doc.claim(RequestId::from(2), at(20)));

        assert!(!doc.is_claimed_by(RequestId::from(1), at(20)));
    }

    #[test]
    fn after_an_abandoned_attempt_only_brief_processes_wait() {
        let mut doc = failed_at(0);
        assert!(doc.claim(RequestId::from(1), at(5)));

        doc.attempt_abandoned(RequestId::from(1), at(6));

        assert_eq!([6, 10, 11].map(|second| doc.is_due_for_brief(at(second))), [false, false, true]);
        assert!(doc.claim(RequestId::from(2), at(6)));
    }

    #[test]
    fn an_abandoned_attempt_from_before_a_clock_change_delays_no_process() {
        let mut doc = OutageDoc::default();
        doc.attempt_abandoned(RequestId::from(1), at(3600));

        assert!(doc.is_due_for_brief(at(0)));
    }

    #[test]
    fn a_retry_time_from_before_a_clock_change_is_due() {
        let doc = failed_at(3600);

        assert!(doc.is_due(at(0)));
    }

    #[test]
    fn an_attempt_limits_the_outage_to_the_documents_that_failed() {
        let [main, other] = ["a/main", "a/other"].map(|name| StoreKey::account(&name.parse().unwrap()));
        let mut doc = failed_at(0);
        assert!(doc.covers(&main) && doc.covers(&other));
        assert!(doc.claim(RequestId::from(1), at(5)));

        let only = Scope::Only([(main.as_str().to_owned(), true)].into());
        doc.attempt_failed(RequestId::from(1), at(5), &failure(), &only);
        assert!(doc.covers(&main) && doc.reads_work(&main) && !doc.covers(&other));

        doc.failed(at(6), &Failure { key: Some((other.clone(), false)), ..failure() });
        assert!(doc.covers(&other) && !doc.reads_work(&other));
    }

    #[test]
    fn the_attempt_of_a_suspended_process_limits_nothing() {
        let mut doc = failed_at(0);
        assert!(doc.claim(RequestId::from(1), at(5)));
        assert!(doc.claim(RequestId::from(2), at(20)));

        doc.attempt_failed(RequestId::from(1), at(21), &failure(), &Scope::Only(BTreeMap::new()));

        assert!(!doc.is_partial());
    }

    #[test]
    fn the_offset_does_not_change_during_an_outage() {
        let mut doc = failed_at(0);

        doc.failed(at(9), &Failure { offset_ms: Some(3_600_000), ..failure() });

        assert_eq!(doc.offset_ms, None);
    }

    #[test]
    fn only_the_first_large_offset_is_added_to_the_times_of_the_file() {
        let corrected = |measured: &[i64], offset_ms| {
            let mut doc = OutageDoc { offset_ms, ..failed_at(0) };
            measured.iter().for_each(|offset_ms| doc.correct(*offset_ms));
            doc.correction_ms()
        };

        assert_eq!(corrected(&[-3_600_000, -3_600_009], None), -3_600_000);
        assert_eq!(corrected(&[20_000], None), 0, "clocks may differ by this");
        assert_eq!(corrected(&[20_000, 31_000], None), 0, "the first merge added nothing");
        assert_eq!(corrected(&[3_600_000], Some(0)), 0, "the times include the offset");
    }

    #[test]
    fn a_failed_attempt_without_a_document_adds_the_offset_once() {
        let mut doc = OutageDoc::default();
        assert!(doc.claim(RequestId::from(1), at(0)));
        doc.correct(3_600_000);

        let measured = Failure { offset_ms: Some(3_600_000), ..failure() };
        doc.attempt_failed(RequestId::from(1), at(0), &measured, &Scope::All { reads_work: true });

        assert_eq!((doc.correction_ms(), doc.offset_ms, doc.reads_work), (3_600_000, None, true));
    }

    #[test]
    fn a_document_of_a_newer_program_is_unchanged() {
        for body in [r#"{"format":2,"meaning":"other"}"#, r#"{"format":2,"since_ms":"noon","reason":[7]}"#] {
            let newer = OutageDoc::decode(body.as_bytes()).unwrap();
            let mut doc = newer.clone();

            assert!(!doc.failed(at(0), &failure()), "{body}");
            doc.attempt_failed(RequestId::from(1), at(0), &failure(), &Scope::All { reads_work: true });
            doc.correct(3_600_000);

            assert!(!doc.claim(RequestId::from(1), at(9)), "{body}");
            assert_eq!(doc, newer);
        }
    }

    #[test]
    fn it_is_stored_in_this_form() {
        let mut doc = OutageDoc::default();
        let key = StoreKey::account(&"anthropic/main".parse().unwrap());
        doc.failed(at(0), &Failure { key: Some((key, true)), ..failure() });
        doc.correct(90_000);

        insta::assert_snapshot!(String::from_utf8_lossy(&doc.encode()), @r#"{"format":1,"since_ms":1800000000000,"retry_at_ms":1800000005000,"backoff_ms":5000,"correction_ms":90000,"reason":"refused","reads_work":true,"failed_keys":{"anthropic/main":true},"attempt":{"format":1}}"#);
    }
}
