//! The expected usage of requests in flight: one small document per account, shared by all hosts.

mod local;

use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use quota_core::clock::is_from_future;
use quota_core::model::RequestId;
use quota_core::store::{DocumentBody, StoreError};
use quota_core::{Percent, WindowId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(crate) use self::local::LocalReservations;

/// The reservations of one account.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reservations {
    #[serde(default)]
    version: u32,
    #[serde(default)]
    reservations: Vec<Reservation>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// The share of a window that one request is expected to use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reservation {
    pub(crate) id: RequestId,
    pub(crate) window: WindowId,
    #[serde(rename = "share_bp")]
    pub(crate) share: Percent,
    /// When it expires, in case its process ends without releasing it.
    #[serde(rename = "until_ms", with = "jiff::fmt::serde::timestamp::millisecond::required")]
    pub(crate) until: Timestamp,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl Reservation {
    /// The lifetime of a reservation, longer than any request takes.
    pub(crate) const TTL: Duration = Duration::from_secs(10 * 60);

    pub(crate) fn new(window: WindowId, share: Percent, now: Timestamp) -> Self {
        let until = now.checked_add(Self::TTL).unwrap_or(Timestamp::MAX);
        Self { id: RequestId::random(), window, share, until, unknown: Map::new() }
    }

    /// Whether the reservation still counts. A reservation from a clock ahead of `now` does not count.
    fn is_live(&self, now: Timestamp) -> bool {
        let made_at = self.until.checked_sub(Self::TTL).unwrap_or(Timestamp::MIN);
        now < self.until && !is_from_future(made_at, now)
    }

    /// Converts the reservation to the time of a clock that is ahead by `by`.
    fn moved(&self, by: SignedDuration) -> Self {
        let until = self.until.checked_add(by).unwrap_or(self.until);
        Self { until, ..self.clone() }
    }
}

/// The format that this program writes.
const VERSION: u32 = 2;

impl Reservations {
    /// Reserves if the sum of the window's reservations is at most `left` basis points, or `left` is unknown.
    ///
    /// A reservation always fits if its window has no other. Otherwise a high estimate could leave quota unused. A second call with the
    /// same reservation has no effect. A reservation that does not fit changes nothing.
    pub(crate) fn reserve(&mut self, wanted: &Reservation, left: Option<u32>, now: Timestamp) -> bool {
        let others = self.of_others(wanted, now);
        let sum = others + u64::from(wanted.share.basis_points());
        let fits = others == 0 || left.is_none_or(|left| sum <= u64::from(left));
        if fits {
            self.reservations.retain(|reservation| reservation.is_live(now) && reservation.id != wanted.id);
            self.reservations.push(wanted.clone());
        }
        fits
    }

    /// Adds a reservation that has already been admitted.
    fn add(&mut self, reservation: Reservation) {
        self.reservations.push(reservation);
    }

    fn has(&self, id: RequestId) -> bool {
        self.reservations.iter().any(|reservation| reservation.id == id)
    }

    /// Converts the reservations to the time of a clock that is ahead by `by`.
    fn moved(mut self, by: SignedDuration) -> Self {
        for reservation in &mut self.reservations {
            *reservation = reservation.moved(by);
        }
        self
    }

    /// Removes a reservation. Returns whether it existed.
    pub(crate) fn release(&mut self, id: RequestId) -> bool {
        let before = self.reservations.len();
        self.reservations.retain(|reservation| reservation.id != id);
        self.reservations.len() != before
    }

    fn of_others(&self, wanted: &Reservation, now: Timestamp) -> u64 {
        let is_other =
            |reservation: &&Reservation| reservation.window == wanted.window && reservation.id != wanted.id;
        let live = self.reservations.iter().filter(is_other).filter(|reservation| reservation.is_live(now));
        live.map(|reservation| u64::from(reservation.share.basis_points())).sum()
    }

    /// The live reservations: window and share.
    pub(crate) fn live(&self, now: Timestamp) -> impl Iterator<Item = (WindowId, Percent)> {
        let live = self.reservations.iter().filter(move |reservation| reservation.is_live(now));
        live.map(|reservation| (reservation.window.clone(), reservation.share))
    }
}

impl DocumentBody for Reservations {
    fn decode(body: &[u8]) -> Result<Self, StoreError> {
        let corrupt = || StoreError::corrupt("the reservations are malformed");
        let found: Self = serde_json::from_slice(body).map_err(|error| corrupt().with_source(error))?;
        if found.version > VERSION {
            return Err(StoreError::corrupt("the reservations were written by a newer program"));
        }
        if found.version < VERSION {
            // Discard older versions, because no release wrote them, and a reservation lasts only ten minutes.
            return Ok(Self::default());
        }
        Ok(found)
    }

    fn encode(&self) -> Bytes {
        let stored = Self { version: VERSION, ..self.clone() };
        serde_json::to_vec(&stored).expect("reservations have only string keys").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn percent(percent: f64) -> Percent {
        Percent::from_percent(percent).unwrap()
    }

    #[expect(clippy::unnecessary_wraps, reason = "reserve takes an Option")]
    fn left(share: f64) -> Option<u32> {
        Some(percent(share).basis_points())
    }

    fn of(share: f64) -> Reservation {
        Reservation::new(WindowId::five_hour(), percent(share), now())
    }

    #[test]
    fn a_burst_is_admitted_up_to_what_is_left() {
        let mut reservations = Reservations::default();

        let admitted = (0..10).filter(|_| reservations.reserve(&of(2.0), left(7.0), now())).count();

        assert_eq!(admitted, 3);
    }

    #[test]
    fn the_first_reservation_always_fits() {
        assert!(Reservations::default().reserve(&of(50.0), left(1.0), now()));
    }

    #[test]
    fn a_reservation_that_does_not_fit_changes_nothing() {
        let mut reservations = Reservations::default();
        assert!(reservations.reserve(&of(2.0), left(3.0), now()));
        let expired = Reservation { until: now(), ..of(1.0) };
        reservations.add(expired);
        let before = reservations.clone();

        assert!(!reservations.reserve(&of(2.0), left(3.0), now()));

        assert_eq!(reservations, before);
    }

    #[test]
    fn the_same_reservation_counts_once() {
        let mut reservations = Reservations::default();
        let one = of(2.0);

        assert!(reservations.reserve(&one, left(3.0), now()));
        assert!(reservations.reserve(&one, left(3.0), now()));

        assert_eq!(reservations.live(now()).count(), 1);
    }

    #[test]
    fn a_release_makes_room_for_another_reservation() {
        let mut reservations = Reservations::default();
        let one = of(2.0);
        reservations.reserve(&one, left(3.0), now());

        assert!(reservations.release(one.id));

        assert!(reservations.reserve(&of(2.0), left(3.0), now()));
    }

    #[test]
    fn a_reservation_of_a_vanished_process_expires() {
        let mut reservations = Reservations::default();
        reservations.reserve(&of(2.0), left(3.0), now());

        let later = now() + SignedDuration::from_mins(10);

        assert_eq!(reservations.live(later).count(), 0);
        assert!(reservations.reserve(&of(2.0), left(3.0), later));
    }

    #[test]
    fn a_reservation_from_the_future_does_not_count() {
        let future =
            Reservation::new(WindowId::five_hour(), percent(2.0), now() + SignedDuration::from_hours(1));
        let mut reservations = Reservations::default();
        reservations.add(future);

        assert_eq!(reservations.live(now()).count(), 0);
        assert!(reservations.reserve(&of(2.0), left(3.0), now()));
    }

    #[test]
    fn reservations_of_another_window_do_not_count() {
        let mut reservations = Reservations::default();
        let week = Reservation { window: WindowId::seven_day(), ..of(2.0) };
        reservations.reserve(&week, left(3.0), now());

        assert!(reservations.reserve(&of(2.0), left(3.0), now()));
    }

    #[test]
    fn newer_and_malformed_documents_are_rejected() {
        for body in [r#"{"version":3}"#, "{"] {
            let decoded = Reservations::decode(body.as_bytes());

            assert!(matches!(decoded, Err(StoreError::Corrupt { .. })), "{body}");
        }
    }

    #[test]
    fn reservations_of_an_older_version_are_discarded() {
        let older = br#"{"version":1,"held":[{"id":"07","window":"five_hour","share_bp":150,"until_ms":0}]}"#;

        assert_eq!(Reservations::decode(older).unwrap(), Reservations::default());
    }

    #[test]
    fn fields_of_a_newer_program_survive() {
        let found = Reservations::decode(br#"{"version":2,"reservations":[],"color":"green"}"#).unwrap();

        let text = String::from_utf8(found.encode().to_vec()).unwrap();

        assert!(text.contains("green"), "{text}");
    }

    #[test]
    fn reservations_are_written_in_this_form() {
        let mut reservations = Reservations::default();
        reservations.reserve(&Reservation { id: RequestId::from(7), ..of(1.5) }, None, now());

        let text = reservations.encode();

        insta::assert_json_snapshot!(serde_json::from_slice::<Value>(&text).unwrap());
    }
}
