//! The document that describes an outage: since when, when to try the store again, and the keys to merge at its end.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::RequestId;
use crate::model::extra_fields::ExtraFields;
use crate::store::{Acquire, DocumentBody, LeaseDoc, StoreError, StoreKey};
use crate::time;

/// The outage that the last use of the store met.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outage {
    /// When the outage began.
    pub since: Timestamp,
    /// When the first process tries the store again; `None` if each use tries it, because no level works.
    pub retry_at: Option<Timestamp>,
    /// Why the store cannot be used.
    pub reason: String,
    /// Where the documents are during the outage; `None` if no level works. Then nothing is shared and nothing is remembered.
    pub place: Option<String>,
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
    /// How far the store's clock is ahead of this machine's; `None` if no process has measured it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) offset_ms: Option<i64>,
    /// Why the store cannot be used.
    #[serde(default)]
    pub(super) reason: String,
    /// Whether the store rejects writes only, so that its documents can be copied.
    #[serde(default)]
    pub(super) reads_work: bool,
    /// The lease of the process that tries the store.
    #[serde(default)]
    attempt: LeaseDoc,
    /// The documents to merge, each with its TTL in the store, in milliseconds.
    #[serde(default)]
    keys: BTreeMap<String, u64>,
    #[serde(flatten)]
    unknown: ExtraFields,
}

const FORMAT: u32 = 1;

/// The time to the first attempt after a failure. It doubles with each failed attempt.
pub(super) const MIN_BACKOFF: Duration = Duration::from_secs(5);
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// The duration of the lease for one attempt. It is longer than an attempt, so that two processes never merge at once unless one
/// was suspended.
const ATTEMPT_LEASE: Duration = Duration::from_secs(15);

impl Default for OutageDoc {
    fn default() -> Self {
        Self {
            format: FORMAT,
            since: None,
            retry_at: None,
            backoff_ms: 0,
            offset_ms: None,
            reason: String::new(),
            reads_work: false,
            attempt: LeaseDoc::default(),
            keys: BTreeMap::new(),
            unknown: ExtraFields::default(),
        }
    }
}

/// A failed attempt to use the store.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) reason: String,
    pub(super) reads_work: bool,
    /// The offset of the store's clock, if this process has measured it.
    pub(super) offset_ms: Option<i64>,
    /// A random number from 0 to 1, so that the machines of a fleet try the store at different times.
    pub(super) jitter: f64,
}

impl OutageDoc {
    /// The outage for readers, with the place of this document.
    pub(super) fn describe(&self, place: String, now: Timestamp) -> Outage {
        Outage {
            since: self.since.unwrap_or(now),
            retry_at: Some(self.retry_at.unwrap_or(now)),
            reason: self.reason.clone(),
            place: Some(place),
        }
    }

    /// Whether this program may change the document. A newer program may have given its fields another meaning.
    pub(super) fn is_writable(&self) -> bool {
        self.format <= FORMAT
    }

    /// Whether a process should try the store now.
    ///
    /// A distant time is due too: it was written before this machine's clock was set back.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.retry_at.is_none_or(|at| at <= now || time::elapsed(now, at) > MAX_BACKOFF * 2)
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

    /// Records a failure, and when to try the store again. If another process has set that time already, it stays, because many
    /// processes fail at once.
    pub(super) fn failed(&mut self, now: Timestamp, failure: &Failure) {
        if !self.is_writable() {
            return;
        }
        self.offset_ms = self.offset_ms.or(failure.offset_ms);
        if !self.is_due(now) {
            return;
        }
        let backoff = match self.since {
            Some(_) => (Duration::from_millis(self.backoff_ms) * 2).clamp(MIN_BACKOFF, MAX_BACKOFF),
            None => MIN_BACKOFF,
        };
        self.since.get_or_insert(now);
        self.backoff_ms = u64::try_from(backoff.as_millis()).unwrap_or(u64::MAX);
        self.retry_at = Some(time::saturating_add(now, backoff.mul_f64(0.75 + failure.jitter / 2.0)));
        self.reason.clone_from(&failure.reason);
        self.reads_work = failure.reads_work;
    }

    /// Releases the lease for the attempt.
    pub(super) fn release(&mut self, holder: RequestId) {
        self.attempt.release(holder);
    }

    pub(super) fn has_key(&self, key: &StoreKey) -> bool {
        self.keys.contains_key(key.as_str())
    }

    /// Adds a document to merge at the end of the outage.
    pub(super) fn add_key(&mut self, key: &StoreKey, ttl: Duration) {
        if self.is_writable() {
            let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
            self.keys.insert(key.as_str().to_owned(), ttl_ms);
        }
    }

    /// The documents to merge, each with its TTL in the store.
    pub(super) fn keys(&self) -> impl Iterator<Item = (StoreKey, Duration)> {
        self.keys.iter().map(|(key, ttl_ms)| (StoreKey::stored(key), Duration::from_millis(*ttl_ms)))
    }
}

impl DocumentBody for OutageDoc {
    /// A damaged document is replaced. What it listed is lost, which costs at most one call per account.
    fn decode(body: &[u8]) -> Result<Self, StoreError> {
        Ok(serde_json::from_slice(body).unwrap_or_default())
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
        Failure { reason: "refused".to_owned(), reads_work: false, offset_ms: None, jitter: 0.5 }
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
    fn a_retry_time_from_before_a_clock_change_is_due() {
        let doc = failed_at(3600);

        assert!(doc.is_due(at(0)));
    }

    #[test]
    fn a_document_of_a_newer_program_is_unchanged() {
        let newer = OutageDoc::decode(br#"{"format":2,"meaning":"other"}"#).unwrap();
        let mut doc = newer.clone();

        doc.failed(at(0), &failure());
        doc.add_key(&StoreKey::probe(), Duration::from_secs(1));

        assert!(!doc.claim(RequestId::from(1), at(9)));
        assert_eq!(doc, newer);
    }

    #[test]
    fn it_is_stored_in_this_form() {
        let mut doc = failed_at(0);
        doc.add_key(&StoreKey::account(&"anthropic/main".parse().unwrap()), Duration::from_secs(60));

        insta::assert_snapshot!(String::from_utf8_lossy(&doc.encode()), @r#"{"format":1,"since_ms":1800000000000,"retry_at_ms":1800000005000,"backoff_ms":5000,"reason":"refused","reads_work":false,"attempt":{"format":1},"keys":{"anthropic/main":60000}}"#);
    }
}
