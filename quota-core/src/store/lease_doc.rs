//! A lease as one small document: the right of one process to do one job until a deadline. The lease of a record is in
//! `lease`. It has a fence, because its holder writes readings.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{DocumentBody, StoreError, format_of};
use crate::model::RequestId;
use crate::model::extra_fields::ExtraFields;
use crate::time;

/// A lease that processes share through a document of the store; see [`update`](super::update).
///
/// Its holder is a random id. Acquiring it again with the same id has no effect, so an update with a lost response can
/// be retried. Only one process takes over an expired lease. Only the holder can release it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeaseDoc {
    #[serde(default)]
    format: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    holder: Option<RequestId>,
    #[serde(
        rename = "until_ms",
        default,
        with = "jiff::fmt::serde::timestamp::millisecond::optional",
        skip_serializing_if = "Option::is_none"
    )]
    until: Option<Timestamp>,
    #[serde(flatten)]
    unknown: ExtraFields,
}

const FORMAT: u32 = 1;

/// The result of acquiring a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub enum Acquire {
    /// The caller holds the lease.
    Acquired,
    /// Another process holds it.
    #[non_exhaustive]
    Busy {
        /// When the lease expires.
        until: Timestamp,
    },
    /// A newer program wrote the document, which stays unchanged.
    Newer,
}

impl Default for LeaseDoc {
    fn default() -> Self {
        Self { format: FORMAT, holder: None, until: None, unknown: ExtraFields::default() }
    }
}

impl LeaseDoc {
    /// Acquires the lease for `duration`, unless another holder's lease is live.
    pub fn acquire(&mut self, holder: RequestId, now: Timestamp, duration: Duration) -> Acquire {
        if self.format > FORMAT {
            return Acquire::Newer;
        }
        self.repair_clock(now, duration);
        if let Some(until) = self.until.filter(|until| self.holder.is_some() && now < *until) {
            return if self.holder == Some(holder) { Acquire::Acquired } else { Acquire::Busy { until } };
        }
        let until = time::saturating_add(now, duration);
        (self.format, self.holder, self.until) = (FORMAT, Some(holder), Some(until));
        Acquire::Acquired
    }

    /// Releases the lease. Returns `false` and changes nothing if another holder acquired it or it is already released.
    pub fn release(&mut self, holder: RequestId) -> bool {
        let is_own = self.format <= FORMAT && self.holder == Some(holder);
        if is_own {
            (self.holder, self.until) = (None, None);
        }
        is_own
    }

    /// Drops a lease from the future. The document states only its end, and all its holders acquire it for the same duration.
    fn repair_clock(&mut self, now: Timestamp, duration: Duration) {
        let granted_at = self.until.map(|until| time::saturating_sub(until, duration));
        if granted_at.is_some_and(|at| time::is_from_future(at, now)) {
            (self.holder, self.until) = (None, None);
        }
    }
}

impl DocumentBody for LeaseDoc {
    fn decode(body: &[u8]) -> Result<Self, StoreError> {
        serde_json::from_slice(body).or_else(|error| match format_of(body) {
            // A newer program has changed the form of the fields.
            Some(format) if format > FORMAT => Ok(Self { format, ..Self::default() }),
            _ => Err(StoreError::corrupt("the lease is damaged").with_source(error)),
        })
    }

    fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("a lease has only string keys").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DURATION: Duration = Duration::from_secs(60);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn id(number: u128) -> RequestId {
        number.into()
    }

    fn acquired_at(second: i64) -> LeaseDoc {
        let mut lease = LeaseDoc::default();
        assert_eq!(lease.acquire(id(1), at(second), DURATION), Acquire::Acquired);
        lease
    }

    #[test]
    fn a_live_lease_is_busy_for_another_holder() {
        let mut lease = acquired_at(0);

        assert_eq!(lease.acquire(id(2), at(59), DURATION), Acquire::Busy { until: at(60) });
    }

    #[test]
    fn the_holder_acquires_its_live_lease_again_without_a_change() {
        let mut lease = acquired_at(0);
        let before = lease.clone();

        assert_eq!(lease.acquire(id(1), at(59), DURATION), Acquire::Acquired);
        assert_eq!(lease, before);
    }

    #[test]
    fn an_expired_lease_is_taken_over_once() {
        let mut lease = acquired_at(0);

        assert_eq!(lease.acquire(id(2), at(60), DURATION), Acquire::Acquired);
        assert_eq!(lease.acquire(id(3), at(61), DURATION), Acquire::Busy { until: at(120) });
        assert_eq!(lease.acquire(id(1), at(61), DURATION), Acquire::Busy { until: at(120) });
    }

    #[test]
    fn a_released_lease_is_free_at_once() {
        let mut lease = acquired_at(0);

        assert!(lease.release(id(1)));

        assert_eq!(lease.acquire(id(2), at(0), DURATION), Acquire::Acquired);
    }

    #[test]
    fn only_the_holder_releases() {
        let mut lease = acquired_at(0);
        let before = lease.clone();

        assert!(!lease.release(id(2)));

        assert_eq!(lease, before);
    }

    #[test]
    fn an_expired_holder_does_not_release_its_successors_lease() {
        let mut lease = acquired_at(0);
        assert_eq!(lease.acquire(id(2), at(60), DURATION), Acquire::Acquired);

        assert!(!lease.release(id(1)));

        assert_eq!(lease.acquire(id(3), at(61), DURATION), Acquire::Busy { until: at(120) });
    }

    #[test]
    fn a_lease_from_the_future_is_taken_over() {
        let mut lease = acquired_at(86_400);

        assert_eq!(lease.acquire(id(2), at(0), DURATION), Acquire::Acquired);
    }

    #[test]
    fn a_lease_within_the_clock_slack_is_respected() {
        let mut lease = acquired_at(30);

        assert_eq!(lease.acquire(id(2), at(0), DURATION), Acquire::Busy { until: at(90) });
    }

    #[test]
    fn an_endless_lease_does_not_panic() {
        assert_eq!(LeaseDoc::default().acquire(id(1), at(0), Duration::MAX), Acquire::Acquired);
    }

    #[test]
    fn an_incomplete_lease_is_free() {
        for incomplete in [r#"{"format":1,"holder":"07"}"#, r#"{"format":1,"until_ms":1800000060000}"#] {
            let mut lease = LeaseDoc::decode(incomplete.as_bytes()).unwrap();

            assert_eq!(lease.acquire(id(2), at(0), DURATION), Acquire::Acquired, "{incomplete}");
        }
    }

    #[test]
    fn a_lease_of_a_newer_format_is_not_changed() {
        for newer in [r#"{"format":2,"holder":"07","until_ms":0}"#, r#"{"format":2,"holder":["07"]}"#] {
            let mut lease = LeaseDoc::decode(newer.as_bytes()).unwrap();
            let before = lease.clone();

            assert_eq!(lease.acquire(id(1), at(0), DURATION), Acquire::Newer, "{newer}");
            assert!(!lease.release(id(7)));
            assert_eq!(lease, before);
        }
    }

    #[test]
    fn unknown_fields_survive() {
        let mut lease = LeaseDoc::decode(br#"{"format":1,"colour":"green"}"#).unwrap();
        assert_eq!(lease.acquire(id(1), at(0), DURATION), Acquire::Acquired);
        assert!(lease.release(id(1)));

        assert!(String::from_utf8_lossy(&lease.encode()).contains(r#""colour":"green""#));
    }

    #[test]
    fn a_damaged_lease_is_rejected() {
        for damaged in ["", "null", "[1]", r#"{"format":1,"holder":7}"#, "5000 not_logged_in"] {
            let decoded = LeaseDoc::decode(damaged.as_bytes());

            assert!(matches!(decoded, Err(StoreError::Corrupt { .. })), "{damaged}");
        }
    }

    #[test]
    fn the_stored_form_is_stable() {
        let mut lease = LeaseDoc::default();
        assert_eq!(lease.acquire(id(7), at(0), DURATION), Acquire::Acquired);

        let stored = r#"{"format":1,"holder":"00000000000000000000000000000007","until_ms":1800000060000}"#;
        assert_eq!(String::from_utf8_lossy(&lease.encode()), stored);
    }
}
